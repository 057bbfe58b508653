"""The report's CSV tables in full precision, its answer and its metrics for programs."""

import math
from dataclasses import asdict
from typing import Any

from kd_analysis.findings import Findings
from kd_analysis.scores import ZEROSHOT
from kd_analysis.study import Claim
from kd_analysis.tasks import task_of
from kd_analysis.trends import cka_points
from kd_analysis.words import headlines, sentence, short_answer


def answer_json(found: Findings) -> dict[str, Any]:
    """The answer for a program: what `report.html` says first."""
    return {
        "schema": "kd-answer/1",
        "answer": short_answer(found.answer),
        "sentence": sentence(found.answer, found.study),
        "teachers_best_first": list(found.study.teachers),
        "claims": [asdict(c) | {"verdict": c.verdict} for c in (*found.answer, *found.pairs, *found.checks)],
    }


def metrics_json(found: Findings) -> dict[str, Any]:
    """The numbers that `dvc metrics diff` compares: the answer, scores, gaps and similarities, by model."""
    scores: dict[str, dict[str, float]] = {}
    for row in found.rows:
        named = {"zeroshot_top1": row.zeroshot, "average": row.average}
        scores[row.label] = {name: cell.value for name, cell in named.items() if cell}
    answers = {
        c.measure: {"difference": c.estimate.value, "low": c.estimate.low, "high": c.estimate.high, "p_holm": c.p_holm}
        for c in headlines(found.answer)
    }
    gaps: dict[str, dict[str, dict[str, float]]] = {}
    for g in found.gaps:
        gaps.setdefault(g.student, {})[g.measure] = {"gap": g.gap.estimate.value, "relative": g.relative}
    alike = {
        a.student: {"own": a.own, "other": a.other, "untrained": a.floor, "two_seeds": a.seeds} for a in found.alike
    }
    return {"answer": answers, "scores": scores, "gaps": gaps, "cka": alike}


def finite(value: Any) -> Any:
    """NaN as null, so that any JSON reader takes it."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_tables(found: Findings) -> dict[str, list[dict[str, Any]]]:
    """The CSV tables in full precision, by file name."""
    every = (*found.answer, *found.pairs, *found.checks, *found.blind_by_task)
    return {
        "scores": _score_lines(found),
        "claims": [_claim_line(c) for c in every],
        "gaps": [
            {"label": f"{g.student}, {g.measure}"}
            | _claim_line(g.gap)
            | {"relative": g.relative, "relative_low": g.ratio.low, "relative_high": g.ratio.high}
            for g in found.gaps
        ],
        "cka": [asdict(r) for r in found.every_record],
        "cka_score": cka_points(found.study, found.alike, found.level),
        "models": [_model_line(found, i) for i in range(len(found.models))],
        "data": _data_lines(found),
    }


def _model_line(found: Findings, index: int) -> dict[str, Any]:
    m = found.models[index]
    seen = found.provenance.get(m.ref.sha256, {})
    return {
        "model": m.ref.name, "kind": m.ref.kind, "sha256": m.ref.sha256, "blind": m.blind,
        "version": seen.get("version", ""), "run": seen.get("run", ""),
    }  # fmt: skip


def _data_lines(found: Findings) -> list[dict[str, Any]]:
    """Every task with the version it was scored on: protocol, version and the start of the data's digest."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for model in found.models:
        for task, s in model.scores.items():
            line = {
                "task": task,
                "title": task_of(task).title,
                "version": s.benchmark_version,
                "metric": s.metric,
                "n": s.n,
            }
            lines.setdefault((task, s.benchmark_version), line)
    return list(lines.values())


def _claim_line(c: Claim) -> dict[str, Any]:
    e = c.estimate
    return {
        "question": c.question, "better": c.better, "worse": c.worse, "measure": c.measure, "difference": e.value,
        "low": e.low, "high": e.high, "se": e.se, "se_items": e.se_items, "se_seeds": e.se_seeds, "p": c.p,
        "p_holm": c.p_holm, "verdict": c.verdict, "items": c.n_items, "seeds": e.seeds, "method": e.method,
        "detectable": c.detectable,
        "low_over_tasks": c.over_tasks.low if c.over_tasks else None,
        "high_over_tasks": c.over_tasks.high if c.over_tasks else None,
        "tasks_up": c.signs.up if c.signs else None, "tasks_down": c.signs.down if c.signs else None,
        "tasks_equal": c.signs.zero if c.signs else None, "sign_p": c.signs.sign_p if c.signs else None,
        "wilcoxon_p": c.signs.wilcoxon_p if c.signs else None,
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
