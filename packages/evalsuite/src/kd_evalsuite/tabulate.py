"""Comparisons as rows of plain values, for CSV and JSON."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kd_evalsuite.compare import Comparison, Difference
from kd_evalsuite.exhibits import Exhibit, Flips
from kd_evalsuite.safe import clipped, csv_cell, printable
from kd_evalsuite.words import verdict

REPLY = 2000  # characters of a reply in a table


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a head; text that a spreadsheet would take for a formula is quoted."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["empty"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()


def finite(value: Any) -> Any:
    """NaN as null, so that any JSON reader takes it."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def difference_row(kind: str, d: Difference) -> dict[str, Any]:
    """One difference in full precision."""
    return {"kind": kind, **asdict(d), "ahead": d.ahead, "verdict": verdict(d, {d.first: d.first, d.second: d.second})}


def difference_rows(found: Comparison) -> list[dict[str, Any]]:
    """Every difference, the Averages first."""
    kinds = {"average": found.averages, "group": found.by_group, "task": found.by_task}
    return [difference_row(kind, d) for kind, some in kinds.items() for d in some]


def comparison_json(found: Comparison, flips: Sequence[Exhibit]) -> dict[str, Any]:
    """The whole comparison for a program."""
    whole = {
        "schema": "kd-comparison/1",
        "models": list(found.models),
        "unit": "points: percent of the best possible",
        "level": found.how.level,
        "samples": found.how.samples,
        "seed": found.how.seed,
        "differences": difference_rows(found),
        "left_out": found.left_out,
        "alarms": [asdict(alarm) for alarm in found.alarms],
        "flips": [exhibit_json(one) for one in flips],
    }
    done: dict[str, Any] = finite(whole)
    return done


def exhibit_json(one: Exhibit) -> dict[str, Any]:
    """An item to look at, without its pictures."""
    return {
        "task": one.task,
        "id": one.id,
        "cluster": one.cluster,
        "category": one.category,
        "prompt": one.prompt,
        "gold": one.gold,
        "answered": [asdict(a) | {"reply": None if a.reply is None else clipped(a.reply, REPLY)} for a in one.answered],
    }


def flip_rows(flips: Iterable[Flips]) -> list[dict[str, Any]]:
    """Items on which one model is better than another, one a row."""
    return [{"better": f.better, "other": f.other, **row} for f in flips for row in exhibit_rows(f.shown)]


def exhibit_rows(exhibits: Iterable[Exhibit]) -> list[dict[str, Any]]:
    """Items to look at, one a row, with the replies of each model beside each other."""
    rows = []
    for one in exhibits:
        row: dict[str, Any] = {"task": one.task, "id": one.id, "cluster": one.cluster, "category": one.category}
        row |= {"prompt": printable(one.prompt or ""), "gold": printable(one.gold or "")}
        for k, a in enumerate(one.answered, start=1):
            row |= {f"model_{k}": a.model, f"score_{k}": a.score, f"answer_{k}": a.answer or ""}
            row[f"reply_{k}"] = clipped(printable(a.reply or ""), REPLY)
        rows.append(row)
    return rows
