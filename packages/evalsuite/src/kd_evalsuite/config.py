"""The section `evalsuite` of params.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from kd_evalsuite.params import Params
from kd_evalsuite.tasks import EVERY, TASKS, prompts_of, task_named

SECTION = "evalsuite"


class ZeroshotParams(Params):
    """Zero-shot classification."""

    data: Path = Field(description="A classification set: CLIP_benchmark's webdataset, an ImageFolder, or parquet.")
    names: Literal["folder", "imagenet"] = Field("folder", description="Class names: the set's own, or ImageNet's.")
    templates: Literal["folder", "imagenet", "simple"] = Field(
        "folder", description="Prompts: the set's own, ImageNet's 80, or the 7 simple ones."
    )
    batch_size: int = Field(256, gt=0)
    limit: int | None = Field(None, gt=0, description="Only so many images.")
    workers: int = Field(1, gt=0, description="Threads that decode images.")
    cache: Path | None = Field(None, description="A folder of image embeddings, so that no image is encoded twice.")


class EvalParams(Params):
    """What is evaluated and how."""

    protocol: str = Field("paper", description="Prompts and metrics.")
    tasks: Literal["all"] | list[str] = Field("all", description="Benchmarks, or all of them.")
    data: Path = Field(description="One folder a benchmark.")
    limit: int | None = Field(None, gt=0, description="About so many items a benchmark, in whole clusters.")
    batch_size: int = Field(64, gt=0)
    device: str = Field("cpu", description="cpu or cuda.")
    threads: int | None = Field(None, gt=0, description="CPU threads of torch; null leaves its default.")
    zeroshot: ZeroshotParams

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
