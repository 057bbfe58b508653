"""Options of the commands that ask a model; each stands for a parameter of the section `evalsuite`."""

from pathlib import Path
from typing import Annotated, Any

import typer

ModelSpec = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A folder, a reference file, models:/NAME, hf:OWNER/NAME, http://HOST/v1[#NAME], or plugin:NAME.",
    ),
]
ParamsFile = Annotated[Path | None, typer.Option("--params", help="YAML file with a section `evalsuite`; not needed.")]
Tasks = Annotated[str | None, typer.Option("--tasks", help="`gqa,mmvp`, or `all`; see `evalsuite list`.")]
Data = Annotated[Path | None, typer.Option("--data", help="One folder a benchmark, e.g. DATA/gqa/….")]
Protocol = Annotated[str | None, typer.Option("--protocol", help="Prompts and metrics.")]
Limit = Annotated[int | None, typer.Option("--limit", help="About so many items a benchmark, in whole clusters.")]
ModeName = Annotated[str | None, typer.Option("--mode", help="generate, or loglikelihood (another protocol).")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Items asked together.")]
Verify = Annotated[
    int | None, typer.Option("--verify-batch", metavar="N", help="Ask N items again, alone and plainly, and compare.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
FeatureCache = Annotated[
    Path | None, typer.Option("--feature-cache", help="A folder where features of images are kept for other runs.")
]
Concurrency = Annotated[int | None, typer.Option("--concurrency", help="Requests to a server at once.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds a server has for one item.")]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Only this share of the items; torchrun sets it itself.")
]
ZEROSHOT = ("zeroshot", "imagenet")


def given(tasks: str | None, concurrency: int | None, timeout: float | None, **options: Any) -> dict[str, Any]:
    """The options as parameters; None where not given."""
    endpoint = {k: v for k, v in (("concurrency", concurrency), ("timeout", timeout)) if v is not None}
    return {**options, "tasks": _keys(tasks), "endpoint": endpoint or None}


def _keys(tasks: str | None) -> str | list[str] | None:
    if tasks is None or tasks in ZEROSHOT:
        return None
    return tasks if tasks == "all" else [key for part in tasks.split(",") if (key := part.strip())]
