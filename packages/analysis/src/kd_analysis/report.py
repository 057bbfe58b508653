"""The report: what was found, as one page for a person, Markdown, tables, figures and JSON for programs."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kd_analysis import emit, figures, plots
from kd_analysis.alike_tables import read_beside
from kd_analysis.findings import Findings, Settings, find, read_inputs
from kd_analysis.missing import Missing
from kd_analysis.render import render
from kd_analysis.report_tables import answer_json, csv_tables, finite, metrics_json
from kd_analysis.results import write_csv
from kd_analysis.scores import ZEROSHOT, Scored
from kd_analysis.similarity import RELATIONS
from kd_analysis.study import Claim
from kd_analysis.tasks import GROUPS, in_order, task_of
from kd_analysis.together import in_place_together
from kd_analysis.trends import cka_points, cka_table
from kd_analysis.words import caveats, headlines, sentence, short_answer

PICTURES = ("answer", "gaps", "tasks", "cka_tasks", "cka_score")
Lookup = Callable[[Sequence[Scored]], Mapping[str, Mapping[str, str]]]


def write(found: Findings, out: Path) -> None:
    """Write pages, JSON, CSV, `tables/`, `figures/` and `images/`; equal inputs give equal bytes.

    Raises:
        OSError: Where there is no room; the report that stood in `out` is as it was.
    """
    with in_place_together(out) as part:
        _write(found, part)


def _write(found: Findings, out: Path) -> None:
    page, pictures = context(found), drawn(found)
    svgs = {name: figures.svg(pictures[name], name) if name in pictures else "" for name in PICTURES}
    svgs |= {p.name: figures.inline(plots.svg_of(p), p.name) for p in found.plots}
    (out / "report.html").write_text(render("report.html.jinja", page | {"figures": svgs}), encoding="utf-8")
    (out / "report.md").write_text(render("report.md.jinja", page), encoding="utf-8")
    for name, content in (("answer", answer_json(found)), ("metrics", metrics_json(found))):
        (out / f"{name}.json").write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n")
    for name, lines in csv_tables(found).items():
        with (out / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(lines[0]) if lines else ["empty"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    write_csv(found.results, out / "results.csv")
    for table in (*found.tables, *found.beside_cka):
        emit.write(table, out / "tables")
    (out / "images").mkdir(exist_ok=True)
    for name, figure in pictures.items():
        figures.png(figure, out / "images" / f"{name}.png")
    for plot in found.plots:
        plots.write(plot, out / "figures")


def context(found: Findings) -> dict[str, Any]:
    """What the templates show."""
    tasks = in_order(found.study.tasks)
    asked = list(dict.fromkeys(c.question for c in found.checks))
    files = csv_tables(found)
    return {
        "short": short_answer(found.answer),
        "sentence": sentence(found.answer, found.study),
        "caveats": caveats(found.answer, found.checks, found.study, found.reweighted, bool(found.records)),
        "headlines": headlines(found.answer),
        "found": found,
        "questions": {q: [c for c in found.checks if c.question == q] for q in asked},
        "groups": {g: [t for t in tasks if task_of(t).group == g] for g in [*GROUPS, "Other"]},
        "tasks": tasks,
        "task_of": task_of,
        "above_blind": _above_blind(found.blind_by_task),
        "several_seeds": any(c and c.seeds > 1 for r in found.rows for c in (r.zeroshot, r.average)),
        "teachers": list(found.study.teachers),
        "colour": lambda row: figures.colour(row.role, row.teacher, found.study.teachers),
        "zeroshot": ZEROSHOT,
        "seeds_alike": any(not math.isnan(a.seeds) for a in found.alike),
        "plots": {p.name: p for p in found.plots},
        "shown": {name: t for name in ("table3", "table4", "table5") if (t := found.table(name))},
        "beside": None if found.beside.empty else found.beside,
        "html": emit.html,
        "markdown": emit.markdown,
        "compared": files["models"],
        "data": files["data"],
        "version": version("kd-analysis"),
    }


def _above_blind(claims: Sequence[Claim]) -> dict[str, Any] | None:
    if not claims:
        return None
    clear = [c for c in claims if c.verdict == "yes" and c.p_holm < 0.05]
    unclear = [c.measure for c in claims if c not in clear]
    return {"clearly": len(clear), "total": len(claims), "unclear": unclear}


def drawn(found: Findings) -> dict[str, Figure]:
    """The figures that the findings allow, by name."""
    teachers, study = found.study.teachers, found.study
    pictures: dict[str, Figure] = {}
    if found.answer:
        pictures["answer"] = figures.forest(found.answer)
    if found.gaps:
        pictures["gaps"] = figures.gap_figure(found.gaps, teachers)
    if study.vlms:
        pictures["tasks"] = figures.task_grid([r for r in found.rows if r.tasks], teachers, found.chances)
    if found.records:
        relations = [r for r in RELATIONS if any(record.relation == r for record in found.records)]
        pictures["cka_tasks"] = figures.cka_by_task(cka_table(found.records, found.level), relations)
        if points := cka_points(study, found.alike, found.level):
            floors = [a.floor for a in found.alike if not math.isnan(a.floor)]
            floor = float(np.mean(floors)) if floors else math.nan
            pictures["cka_score"] = figures.cka_against_score(points, teachers, floor)
    return pictures


def report(
    zeroshot: Sequence[Path],
    evaluated: Sequence[Path],
    cka: Path,
    out: Path,
    settings: Settings,
    *,
    lookup: Lookup | None = None,
    lost: Sequence[Missing] = (),
    told: Callable[[str], None] = lambda what: None,
) -> Findings:
    """Read, find, write.

    Args:
        zeroshot: Folders of zero-shot results.
        evaluated: Folders of VLM results; absent ones are left out.
        cka: Where `analysis cka` wrote; may be absent.
        out: Where the report goes.
        settings: What the parameters say.
        lookup: Finds registered version and run of each model; without it the page leaves them out.
        lost: What could not be made, and why.
        told: Is told what is being done.

    Raises:
        kd_analysis.scores.InputError: If an input is missing or malformed.
    """
    told("reading scores")
    first, vlms, records = read_inputs(zeroshot, evaluated, cka)
    seen = {}
    if lookup:
        told("looking models up in the registry")
        seen = dict(lookup([*first, *vlms]))
    told("intervals")
    measured, differences = read_beside(cka)
    found = find(first, vlms, records, settings, measured=measured, differences=differences, provenance=seen, lost=lost)
    told("figures and pages")
    write(found, out)
    return found
