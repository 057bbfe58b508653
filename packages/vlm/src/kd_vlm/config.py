"""The section `vlm` of params.yaml. Read by the command line alone; below it, everything takes plain arguments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from .choices import Connector, Feature
from .params import Params, ParamsError
from .recipes import recipe_names, recipe_values, with_base
from .regimen import LossNormalisation, Sampler, Trained, check_static

Precision = Literal["fp32", "bf16"]
Template = Literal["plain", "qwen2_base", "bunny", "chat"]
Attention = Literal["auto", "sdpa", "sdpa_by_sample", "flash_attention_2", "eager"]


class Corpus(Params):
    """Conversations in LLaVA's format and the folder of their pictures."""

    file: Path = Field(description=".json (one array), .jsonl or .parquet.")
    images: Path
    manifest: Path | None = Field(
        None, description="Folder that `vlm validate` wrote about the file; its pictures are not looked at again."
    )


class Data(Params):
    pretrain: Corpus
    finetune: Corpus
    text: Path | None = Field(None, description="Lines of {'text': ...}, for language models.")
    bad: Literal["error", "skip", "blank"] = Field(
        "error", description="What is done with samples that cannot be used."
    )

    @property
    def places(self) -> tuple[Path, ...]:
        """All that a VLM is trained on: files, folders of pictures and of manifests."""
        both = (self.pretrain, self.finetune)
        return tuple(path for one in both for path in (one.file, one.images, one.manifest) if path is not None)


class Optim(Params):
    batch_size: int = Field(gt=0, description="Samples (language model: packed rows) of one step.")
    epochs: float = Field(gt=0, allow_inf_nan=False)
    warmup_share: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="Largest gradient norm; none of the originals clips.")
    beta2: float = Field(0.999, gt=0, lt=1, description="AdamW's decay of the second moment.")
    precision: Precision = "fp32"


class LanguageModel(Optim):
    """A Qwen2 model with its own byte-level BPE, trained on `data.text`."""

    vocab_size: int = Field(ge=260, description="Tokens, the 256 bytes and the end token among them.")
    phrases: int = Field(0, ge=0, description="How many of them are frequent whole sentences, such as instructions.")
    width: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    mlp_width: int = Field(gt=0)
    context: int = Field(gt=0, description="Tokens of one packed row.")
    max_positions: int = Field(2048, gt=0)
    lr: float = Field(gt=0, allow_inf_nan=False)
    repeat_share: float = Field(0.0, ge=0, le=1, description="Texts that are written twice in a row to learn copying.")
    answer_weight: float = Field(
        1.0, gt=0, description="Weight of an answer's tokens in the loss; other tokens have 1."
    )
    held_out: int = Field(gt=0, description="Lines at the end of the file that are only tested on.")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % (2 * self.heads) or self.heads % self.kv_heads:
            raise ValueError("expected width to be a multiple of 2 * heads and heads a multiple of kv_heads")
        return self


class Lora(Params):
    """Low-rank adapters beside every linear layer of the language model, and of nothing else."""

    rank: int = Field(gt=0)
    alpha: int = Field(gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1)


class Stage(Optim):
    """Pretrain or finetune. The projector is always trained, the vision tower never."""

    template: Template
    vision_tower: Literal["frozen"] = "frozen"
    language_model: Trained = "frozen"
    projector_lr: float = Field(gt=0, allow_inf_nan=False)
    language_model_lr: float | None = Field(None, gt=0, allow_inf_nan=False, description="Of its weights or adapters.")
    lora: Lora | None = None
    batch_size: int = Field(gt=0, description="Samples of one step, over all processes and micro-batches.")
    micro_batch_size: int | None = Field(None, gt=0, description="Samples of one forward; null: a process's share.")
    clip: float | None = Field(1.0, gt=0, description="Largest gradient norm; null does not clip.")  # type: ignore[assignment]
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # type: ignore[assignment]
    tf32: bool = Field(False, description="Products of float32 matrices may use tensor cores.")
    attention: Attention = Field("auto", description="auto: flash_attention_2 where it can run, else sdpa.")
    zero_stage: Literal[0, 2, 3] = Field(0, description="DeepSpeed ZeRO, over the processes of torchrun; 0: DDP.")
    gradient_checkpointing: bool = False
    compile: bool = Field(False, description="torch.compile of the language model's layers; needs sampler: packing.")
    loss: LossNormalisation = Field("global_tokens", description="How micro-batches of a step are weighed.")
    sampler: Sampler = "buckets"
    aspect_ratio: Literal["square", "pad"] = Field("square", description="pad: pictures are padded to squares first.")
    max_length: int | None = Field(None, gt=0, description="Longer samples are cut to so many tokens; null: refused.")

    @model_validator(mode="after")
    def _language_model_fits(self) -> Self:
        if (self.language_model == "frozen") != (self.language_model_lr is None):
            raise ValueError(
                f"language_model is {self.language_model!r} and language_model_lr is {self.language_model_lr}: "
                "a frozen one takes no learning rate, the others need one"
            )
        if (self.language_model == "lora") != (self.lora is not None):
            raise ValueError(
                f"language_model is {self.language_model!r} and lora is {self.lora and self.lora.model_dump()}: "
                "'lora' needs {rank, alpha, dropout}, the others take none"
            )
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _shapes_are_static(self) -> Self:
        if self.compile:
            check_static(
                sampler=self.sampler,
                zero_stage=self.zero_stage,
                gradient_checkpointing=self.gradient_checkpointing,
                attention=self.attention,
            )
        return self


class Recipe(Params):
    """Both stages. With `base: NAME` it begins as the packaged recipe of that name (`vlm recipes`)."""

    summary: str = ""
    notes: tuple[str, ...] = Field((), description="What a reader should know: where published numbers disagree.")
    pretrain: Stage
    finetune: Stage
    feature: Feature = Field(default_factory=lambda: Feature.model_validate({}))
    connector: Connector = Field(default_factory=lambda: Connector.model_validate("mlp2x_gelu"))
    visual_precision: Precision | Literal["fp16"] = Field("fp32", description="Of the tower's tokens that are kept.")
    standardise: bool = Field(True, description="Begin with a projector that standardises the encoder's features.")
    held_out: int = Field(ge=0, description="Conversations at the end of data.finetune that are only tested on.")
    least_supervised_share: float = Field(0.01, gt=0, lt=1)
    seed: int = Field(0, ge=0, description="Of weights, order of data and dropout, where a cell names none.")

    @model_validator(mode="before")
    @classmethod
    def _begins_with_its_base(cls, values: Any) -> Any:
        return with_base(values) if isinstance(values, Mapping) else values

    @property
    def values(self) -> dict[str, Any]:
        """What the result depends on, for keys and the run's parameters."""
        return self.model_dump(mode="json", exclude={"summary", "notes", "seed"})


def packaged_recipe(name: str) -> Recipe:
    """The recipe of that name that comes with this package.

    Raises:
        ValueError: If there is none.
    """
    return Recipe.model_validate(recipe_values(name))


class Cell(Params):
    """One VLM: an encoder, a language model, a recipe and a seed."""

    encoder: str = Field(description="refs/NAME.json, models:/NAME or a folder.")
    lm: str
    recipe: str
    seed: int | None = Field(None, ge=0, description="null: the recipe's.")


class Section(Params):
    data: Data
    lms: dict[str, LanguageModel] = Field(default_factory=dict)
    recipes: dict[str, Recipe] = Field(default_factory=dict)
    cells: dict[str, Cell]
    save_every: int = Field(100, gt=0, description="Steps between two resume checkpoints.")
    cache_limit_gb: float = Field(2.0, gt=0, description="Larger caches of visual tokens are memory-mapped.")
    validate_every: int | None = Field(None, gt=0, description="Steps between two looks at the held-out loss.")
    sample_every: int | None = Field(None, gt=0, description="Steps between two tables of held-out answers in MLflow.")
    samples: int = Field(8, gt=0, description="Rows of such a table.")
    workers: int = Field(0, ge=0, description="Processes that load batches; 0: the training itself.")
    peak_tflops: float | None = Field(None, gt=0, description="Of one device, for train/mfu: 312 for an A100 in bf16.")

    @model_validator(mode="after")
    def _recipes_exist(self) -> Self:
        for name, cell in self.cells.items():
            known = dict.fromkeys((*self.recipes, *recipe_names()))
            if cell.recipe not in known:
                raise ValueError(f"cells.{name}.recipe: no recipe {cell.recipe!r}; known: {', '.join(known)}")
        return self

    @property
    def text(self) -> Path:
        """What language models learn from. Raises ParamsError where it is not given."""
        if self.data.text is None:
            raise ParamsError("vlm.data.text: missing; language models are trained on it.")
        return self.data.text

    def recipe(self, name: str) -> Recipe:
        """The recipe called `name`: one of this section, else a packaged one."""
        return self.recipes[name] if name in self.recipes else packaged_recipe(name)

    def seed(self, cell: Cell) -> int:
        return self.recipe(cell.recipe).seed if cell.seed is None else cell.seed

    @property
    def habits(self) -> dict[str, Any]:
        """What a run does while it trains; none of it changes the result."""
        names = {"save_every", "validate_every", "sample_every", "samples", "workers", "peak_tflops"}
        return {**self.model_dump(include=names), "cache_limit": int(self.cache_limit_gb * 1e9)}

    def language_model(self, name: str) -> LanguageModel:
        """The language model called `name`. Raises ParamsError if there is none."""
        if name not in self.lms:
            raise ParamsError(f"vlm.lms has no {name!r}; known: {', '.join(self.lms)}.")
        return self.lms[name]

    def cell(self, name: str) -> Cell:
        """The cell called `name`. Raises ParamsError if there is none."""
        if name not in self.cells:
            raise ParamsError(f"vlm.cells has no {name!r}; known: {', '.join(self.cells)}.")
        return self.cells[name]
