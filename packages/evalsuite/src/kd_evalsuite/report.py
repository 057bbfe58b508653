"""The report on disk: one HTML page that works offline, Markdown, LaTeX and CSV. Equal inputs give equal bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kd_evalsuite import charts
from kd_evalsuite.alarms import Alarm
from kd_evalsuite.compare import Comparison, Difference
from kd_evalsuite.exhibits import Exhibit, Flips
from kd_evalsuite.page import MOST_CATEGORIES, Category, Page, Row, in_groups, source_of
from kd_evalsuite.predictions import MANIFEST, read_manifest, write_whole
from kd_evalsuite.render import render
from kd_evalsuite.tabulate import csv_text, difference_rows, exhibit_rows, flip_rows
from kd_evalsuite.thumbnails import ThumbnailError, Thumbnails
from kd_evalsuite.words import letters, sentences, summary, title, verdict

KINDS = {
    "one answer": "The same answer to at least 99 % of the items: the score says how often that answer is right",
    "unread": "At least 10 % of the replies hold no answer that could be read: the score is about form too",
    "chance": "Not above guessing: whatever the rank, nothing was shown",
}


@dataclass(frozen=True)
class Shown:
    """An item to look at as it stands on the page."""

    exhibit: Exhibit
    images: tuple[str, ...]
    notes: tuple[str, ...]


def write(page: Page, out: Path, *, heading: str, thumbnails: Thumbnails) -> None:
    """Write `report.html`, `report.md`, `report.tex` and the CSV tables to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    context = context_of(page, heading)
    show = {id(e): shown(e, thumbnails) for e in (*(e for f in page.flips for e in f.shown), *page.worst)}
    pictures = {"figures": figures(page), "show": lambda e: show[id(e)]}
    write_whole(out / "report.html", render("report.html.jinja", context | pictures))
    write_whole(out / "report.md", render("report.md.jinja", context))
    write_whole(out / "report.tex", render("report.tex.jinja", context))
    for name, rows in tables(page).items():
        write_whole(out / f"{name}.csv", csv_text(rows))


def flips_page(found: Comparison, flips: Sequence[Flips], thumbnails: Thumbnails) -> str:
    """One HTML page with the items on which models differ, and their images."""
    show = {id(e): shown(e, thumbnails) for f in flips for e in f.shown}
    items = {"flips_of": _flips_of(flips), "show": lambda e: show[id(e)]}
    return render("flips.html.jinja", comparison_context(found) | items)


def _flips_of(flips: Sequence[Flips]) -> Callable[[tuple[str, str]], list[Flips]]:
    return lambda pair: [f for f in flips if {f.better, f.other} == set(pair) and f.shown]


def context_of(page: Page, heading: str) -> dict[str, Any]:
    """What the templates show."""
    names = letters(page.labels)
    kinds = {kind: some for kind in KINDS if (some := _gathered(page.alarms, kind, names))}
    return {
        "heading": heading,
        "page": page,
        "names": names,
        "colour": lambda label: charts.colour(page.labels.index(label)),
        "groups": in_groups(page.rows),
        "flips_of": _flips_of(page.flips),
        "worst_by_task": _by_task(page.worst),
        "kinds": kinds,
        "KINDS": KINDS,
        "source_of": source_of,
        "models": [_model_line(page, k) for k in range(len(page.results))],
        "percent": _percent(page.level),
        "most": MOST_CATEGORIES,
        "comparison": None,
        "said": {},
        "summary": summary(page.comparison, names) if page.comparison else [],
        **(comparison_context(page.comparison) if page.comparison else {}),
    }


def comparison_context(found: Comparison) -> dict[str, Any]:
    """What the templates show of a comparison."""
    names = letters(found.models)
    return {
        "comparison": found,
        "names": names,
        "colour": lambda label: charts.colour(found.models.index(label)),
        "said": {pair: sentences(found, pair, names) for pair in found.pairs},
        "of_pair": lambda pair, some: [d for d in some if (d.first, d.second) == pair],
        "verdict": lambda d: verdict(d, names),
        "percent": _percent(found.how.level),
    }


def _percent(level: float) -> str:
    return f"{100 * level:.3g} %"


def _by_task(items: Sequence[Exhibit]) -> dict[str, list[Exhibit]]:
    found: dict[str, list[Exhibit]] = {}
    for one in items:
        found.setdefault(one.task, []).append(one)
    return found


def _gathered(alarms: Sequence[Alarm], kind: str, names: dict[str, str]) -> str:
    """The tasks of one kind of remark, each with its models where there are several."""
    found: dict[str, list[str]] = {}
    for alarm in alarms:
        if alarm.kind == kind:
            found.setdefault(alarm.task, []).append(names[alarm.model])
    if len(names) == 1:
        return ", ".join(map(title, found))
    return ", ".join(f"{title(k)} ({'all' if len(v) == len(names) else ', '.join(v)})" for k, v in found.items())


def _model_line(page: Page, k: int) -> dict[str, Any]:
    result = page.results[k]
    protocols = dict.fromkeys(s.benchmark_version.rpartition("-")[0] for s in result.mains.values())
    said = [", ".join(protocols)]
    if (result.folder / MANIFEST).is_file():
        manifest = read_manifest(result.folder)
        said.append(f"prompts {manifest.prompts}")
        said += ["options compared by likelihood"] if manifest.mode == "loglikelihood" else []
        said += [f"about {manifest.limit} items a task"] if manifest.limit else []
    ref = result.scores.model
    return {"label": result.label, "ref": ref, "blind": result.scores.blind, "protocol": ", ".join(filter(None, said))}


def shown(one: Exhibit, thumbnails: Thumbnails) -> Shown:
    """The item with its images, as far as they can and may be shown."""
    images, notes = [], []
    for picture in one.pictures:
        try:
            images.append(thumbnails.uri(picture))
        except ThumbnailError as error:
            notes.append(str(error))
    return Shown(one, tuple(images), tuple(dict.fromkeys(notes)))


# ---------------------------------------------------------------- figures


def figures(page: Page) -> dict[str, Any]:
    """The figures as SVG: `scores`, `differences` by pair, `categories` by task."""
    rows = [*page.rows, *([page.average] if page.average else [])]
    found: dict[str, Any] = {
        "scores": charts.scores([_score_line(page, row) for row in rows], "Scores of all tasks with their intervals"),
        "differences": {},
        "categories": {key: _category_figure(page, key, some) for key, some in page.categories.items()},
    }
    if page.comparison:
        for pair in page.comparison.pairs:
            mine = [*page.comparison.by_task, *page.comparison.averages]
            found["differences"][pair] = _difference_figure(
                page, pair, [d for d in mine if (d.first, d.second) == pair]
            )
    return found


def _score_line(page: Page, row: Row) -> charts.Line:
    dots = [
        charts.Dot(cell.value, cell.low, cell.high, charts.colour(page.labels.index(label)))
        for label, cell in row.cells.items()
    ]
    return charts.Line(title(row.task), dots, row.chance, strong=row is page.average)


def _difference_figure(page: Page, pair: tuple[str, str], found: Sequence[Difference]) -> Markup:
    names = letters(page.labels)
    lines = []
    for d in found:
        ink = charts.colour(page.labels.index(d.ahead)) if d.ahead else "#8a9199"
        dot = charts.Dot(d.value, d.low, d.high, ink, filled=d.ahead is not None)
        lines.append(charts.Line(title(d.what), [dot], strong=d.what == "average"))
    head = f"Differences of {names[pair[1]]} and {names[pair[0]]} on each task"
    return charts.differences(lines, [d.detectable for d in found], head, (names[pair[0]], names[pair[1]]))


def _category_figure(page: Page, task: str, categories: Sequence[Category]) -> Markup:
    lines = [
        charts.Line(c.name, [charts.Dot(*value, charts.colour(k)) for k, value in enumerate(c.values)])
        for c in categories[:MOST_CATEGORIES]
    ]
    return charts.bars(lines, f"{title(task)} by category")


# ---------------------------------------------------------------- tables


def tables(page: Page) -> dict[str, list[dict[str, Any]]]:
    """The CSV tables in full precision, by file name."""
    found = {"scores": _score_rows(page), "categories": _category_rows(page)}
    if page.comparison:
        found["differences"] = difference_rows(page.comparison)
        found["flips"] = flip_rows(page.flips)
    return found | {"worst": exhibit_rows(page.worst)}


def _score_rows(page: Page) -> list[dict[str, Any]]:
    chosen = {row.task for row in page.rows} | ({page.average.task} if page.average else set())
    return [
        {"model": r.label, "blind": r.scores.blind, "sha256": r.scores.model.sha256, **s.model_dump()}
        for r in page.results
        for s in r.scores.scores
        if s.benchmark in chosen
    ]


def _category_rows(page: Page) -> list[dict[str, Any]]:
    return [
        {"task": key, "category": c.name, "items": c.n, "model": label, "percent": value, "low": low, "high": high}
        for key, some in page.categories.items()
        for c in some
        for label, (value, low, high) in zip(page.labels, c.values, strict=True)
    ]
