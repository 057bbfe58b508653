"""The section `vlm` of params.yaml. Read by the command line alone; below it, everything takes plain arguments."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from .params import Params, ParamsError

Precision = Literal["fp32", "bf16"]


class Corpus(Params):
    """Conversations in LLaVA's format and the folder of their pictures."""

    file: Path
    images: Path


class Data(Params):
    pretrain: Corpus
    finetune: Corpus
    text: Path = Field(description="Lines of {'text': ...}, for language models.")


class Optim(Params):
    batch_size: int = Field(gt=0, description="Samples (language model: packed rows) of one step.")
    epochs: float = Field(gt=0)
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
    lr: float = Field(gt=0)
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


class Stage(Optim):
    """Pretrain or finetune. The projector is always trained, the vision tower never."""

    template: Literal["plain", "qwen2_base"]
    projector_lr: float = Field(gt=0)
    language_model_lr: float | None = Field(None, gt=0, description="None freezes the language model.")


class Recipe(Params):
    pretrain: Stage
    finetune: Stage
    standardise: bool = Field(True, description="Begin with a projector that standardises the encoder's features.")
    held_out: int = Field(gt=0, description="Conversations at the end of data.finetune that are only tested on.")
    least_supervised_share: float = Field(0.01, gt=0, lt=1)


class Cell(Params):
    """One VLM: an encoder, a language model, a recipe and a seed."""

    encoder: str = Field(description="refs/NAME.json, models:/NAME or a folder.")
    lm: str
    recipe: str
    seed: int = Field(0, ge=0)


class Section(Params):
    data: Data
    lms: dict[str, LanguageModel]
    recipes: dict[str, Recipe]
    cells: dict[str, Cell]
    save_every: int = Field(100, gt=0, description="Steps between two resume checkpoints.")
    cache_limit_gb: float = Field(2.0, gt=0, description="Larger caches of visual tokens are memory-mapped.")

    @model_validator(mode="after")
    def _recipes_exist(self) -> Self:
        for name, cell in self.cells.items():
            if cell.recipe not in self.recipes:
                raise ValueError(f"cells.{name}.recipe: no recipe {cell.recipe!r}; known: {', '.join(self.recipes)}")
        return self

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
