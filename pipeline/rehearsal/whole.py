"""Does a rehearsal have a number for every number that the paper prints?"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from kd_analysis.compare import plain
from kd_analysis.grid import Grid
from kd_analysis.paper import published
from kd_analysis.results import Result, read_csv

FIGURES = ("figure2", "figure3a", "figure3b", "figure3c", "figure3d")


def lacking(ours: Sequence[Result], names: Mapping[str, str]) -> list[Result]:
    """The published values that have none of ours in their cell.

    Args:
        ours: results of the study.
        names: ours: the paper's, where letters and digits alone do not match them.
    """
    there = {_cell(r, names) for r in Grid(ours).results if not math.isnan(r.value)}
    return [r for r in Grid(published()).results if _cell(r, {}) not in there]


def _cell(r: Result, names: Mapping[str, str]) -> tuple[object, ...]:
    parts = (r.framework, r.llm, r.teacher, r.student, r.loss, r.dataset)
    return (*(plain(names.get(part, part)) for part in parts), r.epochs, r.epoch, r.task, r.metric)


def tell(out: Path, names: Mapping[str, str]) -> bool:
    """Say how many of the paper's numbers and figures have a counterpart in the study's folder `out`; True if all."""
    results = out / "report" / "results.csv"
    if not results.is_file():
        print("  no results were written")
        return False
    without = lacking(read_csv(results), names)
    absent = [name for name in FIGURES if not (out / "figures" / f"{name}.svg").is_file()]
    n = len(Grid(published()).results)
    print(
        f"  {n - len(without)} of the paper's {n} numbers have one here, {5 - len(absent)} of its 5 figures are drawn"
    )
    for r in without[:10]:
        print(f"    without: {r.table}: {r.named}")
    return not without and not absent
