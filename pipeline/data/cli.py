"""`python -m pipeline.data`: list, check and fetch the data sets of a study."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from kd_distill.lock import LockHeldError, sole_writer
from kd_distill.params import ParamsError
from kd_distill.signals import StopFlag, stop_flag

from pipeline.data import derive, fetch
from pipeline.data.board import Bars, gigabytes
from pipeline.data.check import Found, How, check, checked, link, pinned
from pipeline.data.download import client
from pipeline.data.errors import DataError, StoppedError
from pipeline.data.manifest import read_manifest
from pipeline.data.spec import DataFile, read_spec
from pipeline.data.state import size_of, state_of

app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, add_completion=False, help=__doc__)

Names = Annotated[list[str] | None, typer.Argument(help="Data sets, as in `list`; all where none is named.")]
Spec = Annotated[Path, typer.Option("--data", help="The study's data.yaml.")]
Overrides = Annotated[list[str], typer.Option("--set", help="E.g. --set datasets.cc12m-shards.at=/data/cc12m")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that read files.")]
PAPER = Path("studies/paper/data.yaml")


@app.command("list")
def list_command(data: Spec = PAPER, overrides: Overrides = []) -> None:  # noqa: B006
    """The data sets, whether they are there, and how they are brought. Reads manifests only.

    Example: python -m pipeline.data list
    """
    with errors():
        from rich.table import Table

        from pipeline.board import console

        spec = read_spec(data, overrides)
        table = Table(box=None)
        for column in ("data set", "state"):
            table.add_column(column, no_wrap=True)
        table.add_column("GB", justify="right")
        for column in ("holds", "licence"):
            table.add_column(column, overflow="fold")
        for name, dataset in spec.datasets.items():
            manifest = read_manifest(spec.manifest(name))
            counts = manifest["counts"] if manifest else dataset.holds.counts
            held = ", ".join(f"{n:,} {what}" for what, n in counts.items())
            table.add_row(name, state_of(spec, name), size_of(dataset, manifest), held, dataset.licence)
        console().print(table)


@app.command("check")
def check_command(
    names: Names = None,
    data: Spec = PAPER,
    anew: Annotated[bool, typer.Option("--full", help="Read every file again, not only those that changed.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take what is there for the right data from now on.")
    ] = False,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Other numbers than those of data.yaml will do: a part, a rehearsal.")
    ] = False,
    workers: Workers = 4,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Verify data sets and write their manifests: counts, and digests of all files. Never touches the network.

    Everything that is wrong is said at once. Exit code 2: not there or not whole; 5: not what the manifest names.

    Examples:
    python -m pipeline.data check llava-pretrain

    python -m pipeline.data check cc12m-shards --set datasets.cc12m-shards.at=/data/cc12m
    """
    with errors():
        spec = read_spec(data, overrides)
        problems = []
        for name in chosen(spec, names):
            try:
                with Bars() as bars:
                    found = check(spec, name, How(workers, anew, accept, any_size, bars.reading(name)))
                say(found)
            except DataError as error:
                problems.append(error)
        fail(problems)


@app.command("fetch")
def fetch_command(
    names: Names = None,
    data: Spec = PAPER,
    jobs: Annotated[int, typer.Option(min=1, help="Files at a time.")] = 4,
    drop_archives: Annotated[
        bool, typer.Option("--drop-archives", help="Remove each archive once it is unpacked.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask the servers, say what would be fetched, stop.")
    ] = False,
    workers: Workers = 4,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Bring data sets: from the hub, by HTTP, made of others; what a person has to do is printed. Then check them.

    Killed or cut off, the same command goes on where it was. HF_TOKEN says who asks, HF_ENDPOINT which hub.

    Example: python -m pipeline.data fetch llava-pretrain captions-llava --drop-archives
    """
    with errors(), stop_flag() as flag, ExitStack() as locks:
        spec = read_spec(data, overrides)
        missing, failed = to_bring(spec, chosen(spec, names), workers)
        for name in missing:
            locks.enter_context(sole_writer(spec.state(name)))
        try:
            failed |= bring(spec, missing, flag, jobs, drop_archives=drop_archives, dry_run=dry_run)
            for name in (name for name in missing if name not in failed and not dry_run):
                try:
                    finish(spec, name, workers)
                except DataError as error:
                    failed[name] = [error]
        except StoppedError:
            number = flag.number or signal.SIGTERM
            typer.echo(f"Stopped by {signal.Signals(number).name}; the same command goes on from there.", err=True)
            raise typer.Exit(130 if number == signal.SIGINT else 143) from None
        fail([error for those in failed.values() for error in those])


def to_bring(spec: DataFile, names: list[str], workers: int) -> tuple[list[str], dict[str, list[DataError]]]:
    """What is not there yet, and what is not what its manifest names. For what is verified, nobody is asked."""
    missing: list[str] = []
    failed: dict[str, list[DataError]] = {}
    for name in names:
        link(spec, name)
        here = spec.folder(name).is_dir() and any(spec.folder(name).iterdir())
        named = spec.manifest(name).is_file()
        if not here or (not named and (pinned(spec.state(name)) or spec.datasets[name].base)):
            missing.append(name)  # nothing, or what a fetch has begun
            continue
        try:
            say(check(spec, name, How(workers)))
        except DataError as error:
            if named:
                failed[name] = [error]
            else:
                missing.append(name)
    return missing, failed


def bring(
    spec: DataFile, names: list[str], flag: StopFlag, jobs: int, *, drop_archives: bool, dry_run: bool
) -> dict[str, list[DataError]]:
    """Say what will be fetched, and fetch it. What went wrong, by data set."""
    failed: dict[str, list[DataError]] = {}
    plans = []
    with client() as http, Bars() as bars:
        for name in names:
            if spec.folder(name).is_symlink():  # it leads to somebody's folder, which is only read
                continue
            try:
                plans.append(fetch.plan(spec, name, http))
            except DataError as error:
                failed[name] = [error]
        for one in (one for one in plans if one.pieces or one.elsewhere):
            typer.echo(f"{one.name}: {gigabytes(one.bytes)} GB to fetch to {spec.folder(one.name)}")
        if not dry_run:
            fetch.require_room(spec.root, plans)
            how = fetch.Bringing(http, bars, lambda: flag.number is not None, jobs, drop_archives)
            failed |= fetch.bring(spec, plans, how)
    return failed


def finish(spec: DataFile, name: str, workers: int) -> None:
    """Make what is made of others, and check."""
    if not spec.folder(name).is_symlink():
        for line in derive.make(spec, name):
            typer.echo(line)
    with Bars() as bars:
        found = checked(spec, name, How(workers, on_bytes=bars.reading(name)))
    say(found)


def chosen(spec: DataFile, names: list[str] | None) -> list[str]:
    """The named data sets in the order of the file; all where none is named.

    Raises:
        ValueError: With the names that there are.
    """
    if unknown := sorted(set(names or ()) - spec.datasets.keys()):
        raise ValueError(f"No data set {unknown[0]!r}; there are {', '.join(spec.datasets)}.")
    return [name for name in spec.datasets if not names or name in names]


def say(found: Found) -> None:
    """A line on a data set that is as it should be."""
    manifest = found.manifest
    counts = ", ".join(f"{n:,} {what}" for what, n in manifest["counts"].items())
    end = "manifest written" if found.new else "as in its manifest"
    typer.echo(f"{found.name}: {counts}; {manifest['files']:,} files, {gigabytes(manifest['bytes'])} GB; {end}")


def fail(problems: list[DataError]) -> None:
    """Say everything that is wrong and end with the gravest exit code."""
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        raise typer.Exit(max(problem.exit_code for problem in problems))


@contextmanager
def errors() -> Iterator[None]:
    """Expected errors as a message and an exit code."""
    try:
        yield
    except (ParamsError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(getattr(error, "exit_code", 2)) from None
    except LockHeldError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(7) from None
    except OSError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(6) from None
