"""What is evaluated and how: from the section `evalsuite` of params.yaml, from options, or from both."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from kd_evalsuite.params import Params, ParamsError, load_section
from kd_evalsuite.records import Mode
from kd_evalsuite.tasks import EVERY, TASKS, prompts_of, task_named

SECTION = "evalsuite"


class ZeroshotParams(Params):
    """Zero-shot classification."""

    data: Path = Field(
        default=Path("data/classes"),
        description="A classification set: CLIP_benchmark's webdataset, an ImageFolder, or parquet.",
    )
    names: Literal["folder", "imagenet"] = Field(
        default="folder", description="Class names: the set's own, or ImageNet's."
    )
    templates: Literal["folder", "imagenet", "simple"] = Field(
        default="folder", description="Prompts: the set's own, ImageNet's 80, or the 7 simple ones."
    )
    batch_size: int = Field(default=256, gt=0)
    limit: int | None = Field(default=None, gt=0, description="Only so many images.")
    workers: int = Field(default=1, gt=0, description="Threads that decode images.")
    cache: Path | None = Field(
        default=None, description="A folder of image embeddings, so that no image is encoded twice."
    )


class EndpointParams(Params):
    """How a server with OpenAI's chat interface is asked."""

    concurrency: int = Field(default=16, gt=0, description="Requests under way at once.")
    timeout: float = Field(
        default=120.0, gt=0, description="Seconds that one try of one item may take, from start to end."
    )
    tries: int = Field(default=5, gt=0, description="Of an item, where the server is busy or broken.")


class EvalParams(Params):
    """What is evaluated and how."""

    protocol: str = Field("paper", description="Prompts and metrics.")
    tasks: Literal["all"] | list[str] = Field("all", description="Benchmarks, or all of them.")
    data: Path = Field(Path("data/benchmarks"), description="One folder a benchmark.")
    limit: int | None = Field(None, gt=0, description="About so many items a benchmark, in whole clusters.")
    mode: Mode = Field("generate", description="generate, or loglikelihood: options compared, another protocol.")
    batch_size: int = Field(64, gt=0)
    verify_batch: int = Field(0, ge=0, description="So many items are asked again, alone and plainly, and compared.")
    device: str = Field("cpu", description="cpu, cuda, cuda:N or mps.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Of a local checkpoint.")
    threads: int | None = Field(None, gt=0, description="CPU threads of torch; null leaves its default.")
    feature_cache: Path | None = Field(None, description="A folder for the encoder's features of images.")
    endpoint: EndpointParams = EndpointParams()
    zeroshot: ZeroshotParams = ZeroshotParams()

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", value, re.ASCII):
            raise ValueError("expected cpu, cuda, cuda:N or mps")
        return value

    @field_validator("protocol")
    @classmethod
    def _known_protocol(cls, value: str) -> str:
        prompts_of(value)
        return value

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, value: Literal["all"] | list[str]) -> Literal["all"] | list[str]:
        keys = [] if value == "all" else value
        for key in keys:
            task_named(key)
        if value != "all" and (not keys or len(set(keys)) < len(keys)):
            raise ValueError("expected `all`, or a list of tasks without repetition")
        return value

    @property
    def keys(self) -> list[str]:
        """The tasks in the order of the study's tables, variants last."""
        return list(TASKS) if self.tasks == "all" else [key for key in EVERY if key in self.tasks]


def params_from(file: Path | None, overrides: Sequence[str], options: Mapping[str, Any]) -> EvalParams:
    """The parameters of a file, if one is given, under `--set` and under the options of the command line.

    Args:
        file: A YAML file with a section `evalsuite`, or None for the defaults.
        overrides: `key=value`.
        options: By parameter, those of a section within in a mapping; those that are None were not given.

    Raises:
        ParamsError: With one line for each mistake.
    """
    if file is None and overrides:
        raise ParamsError("--set changes parameters of a file: expected --params FILE beside it.")
    base = load_section(file, SECTION, EvalParams, overrides).model_dump() if file else {}
    given = {key: value for key, value in options.items() if value is not None}
    within = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    merged = base | given | {key: base.get(key, {}) | dict(value) for key, value in within.items()}
    try:
        return EvalParams.model_validate(merged)
    except ValidationError as error:
        lines = [f"{_option(e['loc'], within)}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ParamsError("\n".join(lines)) from None


def _option(place: Sequence[Any], within: Mapping[str, Any]) -> str:
    """The option that stands for a parameter: of one in a section, its own name."""
    name = place[1] if place[0] in within and len(place) > 1 else place[0]
    return f"--{str(name).replace('_', '-')}"
