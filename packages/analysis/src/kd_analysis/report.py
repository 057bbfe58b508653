"""The report: what was found, as one page for a person, Markdown, tables and a small JSON answer."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_analysis import figures
from kd_analysis.claims import Gap, Resampling, answer, by_task_above_blind, checks, gaps
from kd_analysis.render import render
from kd_analysis.rows import Row, chance, rows
from kd_analysis.scores import ZEROSHOT, Scored, read_scored, refuse_doubles, reweighted
from kd_analysis.similarity import RELATIONS, Record, read_records
from kd_analysis.study import Claim, Study, assemble
from kd_analysis.tasks import GROUPS, in_order, task_of
from kd_analysis.trends import Alike, Trend, alike, cka_points, cka_table, teachers_against_students
from kd_analysis.words import caveats, headlines, sentence, short_answer


@dataclass(frozen=True)
class Findings:
    """Everything the report says, before it is laid out."""

    study: Study
    answer: list[Claim]
    checks: list[Claim]
    blind_by_task: list[Claim]
    gaps: list[Gap]
    rows: list[Row]
    trends: list[Trend]
    records: list[Record]
    alike: list[Alike]
    chances: dict[str, float | None]
    reweighted: list[str]
    models: list[Scored]
    level: float


def find(
    zeroshot: Sequence[Scored],
    evaluated: Sequence[Scored],
    records: Sequence[Record],
    *,
    how: Resampling,
    encoders: Mapping[str, str],
) -> Findings:
    """Compute everything from what was read; no file is touched."""
    study = assemble(zeroshot, evaluated, encoders)
    tasks = in_order(study.tasks)
    return Findings(
        study=study,
        answer=answer(study, how),
        checks=checks(study, how),
        blind_by_task=by_task_above_blind(study, how),
        gaps=gaps(study, how),
        rows=rows(study, how.level),
        trends=teachers_against_students(study, how.rng("trends")),
        records=list(records),
        alike=alike(records, how.level),
        chances={t: chance(study, [t]) for t in [ZEROSHOT, *tasks]} | _mean_chances(study, tasks),
        reweighted=[task_of(t).title for t in reweighted(evaluated)],
        models=[*zeroshot, *evaluated],
        level=how.level,
    )


def _mean_chances(study: Study, tasks: Sequence[str]) -> dict[str, float | None]:
    groups = {g: [t for t in tasks if task_of(t).group == g] for g in GROUPS}
    means = {g: chance(study, some) for g, some in groups.items() if some}
    return means | ({"average": chance(study, tasks)} if tasks else {})


def read_inputs(
    zeroshot: Sequence[Path], evaluated: Sequence[Path], cka: Path
) -> tuple[list[Scored], list[Scored], list[Record]]:
    """Read the folders; an absent evaluation or similarity is empty, an absent zero-shot folder an error."""
    first = [model for folder in zeroshot for model in read_scored(folder)]
    vlms = [model for folder in evaluated if folder.is_dir() for model in read_scored(folder)]
    records = read_records(cka / "cka.json") if cka.is_dir() else []
    refuse_doubles([*first, *vlms])
    return first, vlms, records


# ---------------------------------------------------------------- writing


def write(found: Findings, out: Path) -> None:
    """Write `report.html`, `report.md`, `answer.json` and the CSV tables; equal inputs give equal bytes."""
    out.mkdir(parents=True, exist_ok=True)
    page = context(found)
    (out / "report.html").write_text(render("report.html.jinja", page | {"figures": drawn(found)}))
    (out / "report.md").write_text(render("report.md.jinja", page))
    (out / "answer.json").write_text(json.dumps(_finite(answer_json(found)), indent=2, allow_nan=False) + "\n")
    for name, lines in tables(found).items():
        with (out / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(lines[0]) if lines else ["empty"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


def context(found: Findings) -> dict[str, Any]:
    """What the templates show."""
    tasks = in_order(found.study.tasks)
    asked = list(dict.fromkeys(c.question for c in found.checks))
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
    }


def _above_blind(claims: Sequence[Claim]) -> dict[str, Any] | None:
    if not claims:
        return None
    clear = [c for c in claims if c.verdict == "yes" and c.p_holm < 0.05]
    unclear = [c.measure for c in claims if c not in clear]
    return {"clearly": len(clear), "total": len(claims), "unclear": unclear}


def drawn(found: Findings) -> dict[str, str]:
    """The figures that the findings allow, as SVG; empty where they do not."""
    teachers, study = found.study.teachers, found.study
    svgs = dict.fromkeys(("forest", "gaps", "tasks", "cka_tasks", "cka_score"), "")
    if found.answer:
        svgs["forest"] = figures.forest(found.answer)
    if found.gaps:
        svgs["gaps"] = figures.gap_figure(found.gaps, teachers)
    if study.vlms:
        svgs["tasks"] = figures.task_grid([r for r in found.rows if r.tasks], teachers, found.chances)
    if found.records:
        relations = [r for r in RELATIONS if any(record.relation == r for record in found.records)]
        svgs["cka_tasks"] = figures.cka_by_task(cka_table(found.records, found.level), relations)
        if points := cka_points(study, found.alike, found.level):
            floors = [a.floor for a in found.alike if not math.isnan(a.floor)]
            floor = float(np.mean(floors)) if floors else math.nan
            svgs["cka_score"] = figures.cka_against_score(points, teachers, floor)
    return svgs


def answer_json(found: Findings) -> dict[str, Any]:
    """The answer for a program: what `report.html` says first."""
    return {
        "schema": "kd-answer/1",
        "answer": short_answer(found.answer),
        "sentence": sentence(found.answer, found.study),
        "teachers_best_first": list(found.study.teachers),
        "claims": [asdict(c) | {"verdict": c.verdict} for c in (*found.answer, *found.checks)],
    }


def _finite(value: Any) -> Any:
    """NaN as null, so that any JSON reader takes it."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tables(found: Findings) -> dict[str, list[dict[str, Any]]]:
    """The CSV tables in full precision, by file name."""
    return {
        "scores": _score_lines(found),
        "claims": [_claim_line(c) for c in (*found.answer, *found.checks, *found.blind_by_task)],
        "gaps": [_claim_line(g.gap) | {"relative": g.relative} for g in found.gaps],
        "cka": [asdict(r) for r in found.records],
        "models": [
            {"model": m.ref.name, "kind": m.ref.kind, "sha256": m.ref.sha256, "blind": m.blind} for m in found.models
        ],
    }


def _claim_line(c: Claim) -> dict[str, Any]:
    e = c.estimate
    return {
        "question": c.question, "better": c.better, "worse": c.worse, "measure": c.measure, "difference": e.value,
        "low": e.low, "high": e.high, "se": e.se, "p": c.p, "p_holm": c.p_holm, "verdict": c.verdict,
        "items": c.n_items, "seeds": e.seeds, "method": e.method, "detectable": c.detectable,
        "low_over_tasks": c.over_tasks.low if c.over_tasks else None,
        "high_over_tasks": c.over_tasks.high if c.over_tasks else None,
    }  # fmt: skip


def _score_lines(found: Findings) -> list[dict[str, Any]]:
    lines = []
    for row in found.rows:
        named = {ZEROSHOT: row.zeroshot, "average": row.average, **row.groups, **row.tasks}
        for task, cell in named.items():
            if cell:
                head = {"model": row.label, "role": row.role, "task": task}
                lines.append(head | asdict(cell) | {"chance": found.chances.get(task)})
    return lines


def report(
    zeroshot: Sequence[Path],
    evaluated: Sequence[Path],
    cka: Path,
    out: Path,
    *,
    how: Resampling,
    encoders: Mapping[str, str],
    told: Callable[[str], None] = lambda what: None,
) -> Findings:
    """Read, find, write.

    Raises:
        kd_analysis.scores.InputError: If an input is missing or malformed.
    """
    told("reading scores")
    first, vlms, records = read_inputs(zeroshot, evaluated, cka)
    told("intervals")
    found = find(first, vlms, records, how=how, encoders=encoders)
    told("figures and pages")
    write(found, out)
    return found
