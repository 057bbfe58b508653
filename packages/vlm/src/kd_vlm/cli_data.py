"""The commands about data: `vlm validate`, `vlm unpack`, `vlm caches`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kd_vlm.console import errors
from kd_vlm.templates import TemplateName

if TYPE_CHECKING:
    from kd_vlm.manifest import Manifest

EXAMPLE = (
    "Example: vlm validate data/mix665k/llava_v1_5_mix665k.json --images data/mix665k/images "
    "--lm refs/lms/lm-small.json --out out/validate/mix665k"
)


def validate(
    conversations: Annotated[Path, typer.Argument(help="Conversations: .json (one array), .jsonl or .parquet.")],
    images: Annotated[Path, typer.Option(help="The folder of their pictures.")],
    out: Annotated[Path, typer.Option(help="A folder for the manifest, one for each file.")],
    lm: Annotated[
        str | None,
        typer.Option(
            help="A language model (refs/NAME.json, models:/NAME, hf-hub:OWNER/NAME, a folder): counts tokens."
        ),
    ] = None,
    template: Annotated[TemplateName, typer.Option(help="How conversations are written.")] = "qwen2_base",
    tokens_per_image: Annotated[int, typer.Option(min=1, help="Visual tokens of one picture.")] = 196,
    max_tokens: Annotated[int, typer.Option(min=1, help="More tokens in a sample are a problem.")] = 2048,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    allow: Annotated[float, typer.Option(min=0, max=1, help="Share of bad rows up to which the exit code is 0.")] = 0.0,
) -> None:
    """Check every sample and picture of a conversation file, and write a manifest that trainings can rely on.

    Exit code 3 says that more rows than allowed are bad. An interrupted validation goes on when it is run again.
    """
    with errors():
        from kd_vlm.sources import resolve
        from kd_vlm.validate import Tokens
        from kd_vlm.validate import validate as check
        from kd_vlm.workspace import progress

        tokens = lm and Tokens(resolve(lm).path, template, tokens_per_image, max_tokens)
        with progress() as bars:
            bar = bars.add_task("validate", total=None, note="")
            manifest = check(
                conversations,
                images,
                out,
                tokens=tokens or None,
                workers=workers or len(os.sched_getaffinity(0)),
                on_rows=lambda done, total: bars.update(bar, completed=done, total=total),
            )
        _report(manifest)
    if manifest.bad_share > allow:
        typer.echo(f"{manifest.bad_share:.3%} of the rows are bad, at most {allow:.3%} are allowed.", err=True)
        raise typer.Exit(3)


def _report(manifest: "Manifest") -> None:
    from rich.console import Console
    from rich.table import Table

    summary = manifest.summary
    table = Table("what", "rows", title=str(manifest.folder), title_justify="left")
    for name, value in (("all", "rows"), ("text only", "rows_text_only"), ("bad", "rows_bad")):
        table.add_row(name, f"{summary[value]:,}")
    for cause, n in manifest.counts.items():
        table.add_row(f"  {cause}", f"{n:,}")
    Console().print(table)
    if tokens := summary.get("tokens"):
        typer.echo(
            f"tokens {tokens['total']:,} (mean {tokens['mean']}, longest {tokens['longest']}), "
            f"supervised {tokens['supervised_share']:.2%}"
        )
    typer.echo(str(manifest.folder / "manifest.json"))


def unpack(
    parquet: Annotated[Path, typer.Argument(help="Conversations whose column image or images holds the pictures.")],
    images: Annotated[Path, typer.Option(help="The folder for the pictures.")],
    out: Annotated[Path, typer.Option(help="The conversations: a .jsonl file.")],
) -> None:
    """Write the pictures that a parquet file holds to a folder, and its conversations with their paths.

    Interrupted and run again it writes what is missing.
    """
    with errors():
        from kd_vlm.unpack import unpack as take_out
        from kd_vlm.workspace import progress

        with progress() as bars:
            bar = bars.add_task("unpack", total=None, note="")
            n = take_out(parquet, out, images, lambda done, of: bars.update(bar, completed=done, total=of))
        typer.echo(f"{out}: {n:,} pictures in {images}")


def caches(
    root: Annotated[Path, typer.Argument(help="Folder of the caches of visual tokens.")] = Path("runs/vision"),
    verify: Annotated[bool, typer.Option("--verify", help="Read every shard and compare its digest.")] = False,
) -> None:
    """List the caches of visual tokens below a folder, and what they hold. Exit code 5: a shard is damaged."""
    with errors():
        from kd_vlm.vision_cache import VisionCache, listed

        folders = sorted(file.parent for file in root.glob("*/cache.json"))
        if not folders:
            raise FileNotFoundError(f"Expected caches of visual tokens below {root}, found none.")
        for folder in folders:
            cache = VisionCache.open(folder)
            gigabytes = sum(entry["bytes"] for entry in listed(folder)) / 1e9
            n_tokens, width = cache.shape
            pictures = f"{cache.verify() if verify else len(cache.index):,} pictures"
            typer.echo(f"{folder.name}  {pictures} of {n_tokens} x {width} in {cache.precision}, {gigabytes:.2f} GB")
