"""What the commands about results do, between the command line and the pure functions: read, call, show, write."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from kd_evalsuite import tabulate, view
from kd_evalsuite.compare import Comparison, How, compare
from kd_evalsuite.exhibits import Flips, Looker, find_flips
from kd_evalsuite.items import DataError
from kd_evalsuite.predictions import write_whole
from kd_evalsuite.results import Result, find_folders, read_results, told_apart
from kd_evalsuite.view_compare import comparison_view, flips_view
from kd_evalsuite.words import letters, title

FLIP_IMAGES = 16 * 2**20  # bytes of thumbnails in flips.html


def read(
    models: Sequence[str],
    scores: Path | None,
    predictions: Sequence[Path],
    *,
    tasks: Sequence[str],
    data: Path | None,
    protocol: str | None,
) -> list[Result]:
    """The models that the arguments name: folders of scores, or answer files, which are scored here."""
    files = [Path(one) for one in models if Path(one).is_file()]
    named = [one for one in models if not Path(one).is_file()]
    folders = find_folders(named, scores) if named else []
    with view.err.status(f"reading {len(folders) + len(files)} models"):
        found = read_results(folders, predictions)
        if files:
            from kd_evalsuite.scored_answers import only_task, result_of_answers

            task, place = only_task(tasks, data)
            found += [result_of_answers(file, task, place, protocol) for file in files]
    return told_apart(found, [*folders, *files])


def compared(results: Sequence[Result], tasks: Sequence[str], *, how: How, common: bool, all_pairs: bool) -> Comparison:
    """Compare, saying which task is being worked on."""
    if len(results) < 2:
        raise DataError(f"Expected at least two models to compare, got {len(results)}. Name another folder.")
    with view.err.status("comparing") as status:
        return compare(
            results,
            tasks,
            how=how,
            common=common,
            all_pairs=all_pairs,
            told=lambda key: status.update(f"comparing on {view.plain(key)}"),
        )


def show_comparison(
    found: Comparison, results: Sequence[Result], data: Path | None, *, n_flips: int, out: Path | None, as_json: bool
) -> None:
    """Print the comparison, and write it where asked."""
    looker = Looker(data, results, pictures=out is not None and n_flips > 0)
    flips = [two for one in found.tasks.values() for two in find_flips(one, found.models, found.pairs, looker, n_flips)]
    whole = tabulate.comparison_json(found, [one for some in flips for one in some.shown])
    written = _write(found, whole, flips, out, data) if out else []
    if as_json:
        typer.echo(json.dumps(whole, indent=1))
    else:
        _print(found, flips)
        if written:
            view.out.print(f"{view.plain(str(out))}: {', '.join(written)}")


def _write(found: Comparison, whole: dict[str, Any], flips: Sequence[Flips], out: Path, data: Path | None) -> list[str]:
    from kd_evalsuite.render import render
    from kd_evalsuite.report import comparison_context, flips_page
    from kd_evalsuite.thumbnails import Thumbnails

    files = {
        "compare.md": render("compare.md.jinja", comparison_context(found)),
        "compare.csv": tabulate.csv_text(tabulate.difference_rows(found)),
        "compare.json": json.dumps(whole, indent=1) + "\n",
        "flips.csv": tabulate.csv_text(tabulate.flip_rows(flips)),
    }
    if any(some.shown for some in flips):
        files["flips.html"] = flips_page(found, flips, Thumbnails(FLIP_IMAGES, data))
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_whole(out / name, text)
    return list(files)


def _print(found: Comparison, flips: Sequence[Flips]) -> None:
    names = letters(found.models)
    view.out.print(comparison_view(found, view.out.width))
    for some in flips:
        if some.shown:
            head = f"{title(some.task)}: {names[some.better]} better than {names[some.other]} on {some.total}"
            view.out.print(flips_view(some.shown, names, head))
    if any(some.total and not some.shown for some in flips):
        view.out.print("--flips 3 shows items on which they differ; with --data their questions, too", style="dim")


def write_report(
    results: Sequence[Result],
    tasks: Sequence[str],
    out: Path,
    data: Path | None,
    *,
    how: How,
    common: bool,
    all_pairs: bool,
    n_worst: int,
    n_flips: int,
    image_bytes: int,
    heading: str | None,
) -> None:
    """Find, lay out, write, and say where."""
    from kd_evalsuite.page import find
    from kd_evalsuite.report import write
    from kd_evalsuite.thumbnails import Thumbnails

    looker = Looker(data, results, pictures=image_bytes > 0)
    with view.err.status("reporting") as status:
        page = find(
            results, tasks, looker=looker, how=how, common=common, all_pairs=all_pairs, n_worst=n_worst,
            n_flips=n_flips, told=lambda what: status.update(f"reporting: {view.plain(what)}"),
        )  # fmt: skip
        write(page, out, heading=heading or _heading(page.labels), thumbnails=Thumbnails(image_bytes, data))
    view.out.print(f"{view.plain(str(out / 'report.html'))} (report.md, report.tex and CSV beside it)")


def _heading(labels: Sequence[str]) -> str:
    return " and ".join(labels) if len(labels) < 3 else f"{len(labels)} models"
