"""Our results beside the published ones: the difference, its interval, and whether it can be resolved."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_analysis.grid import Grid
from kd_analysis.results import NO_TEACHER, SCORE, Result
from kd_analysis.table import Cell, Column, Row, Table, blocks, half_width, resolvable, row
from kd_analysis.tasks import AVERAGE, IMAGENET, IMAGENET_IMAGES, TASKS, averaged, task_of


def beside(ours: Grid, theirs: Grid, names: Mapping[str, str], level: float = 0.95) -> Table:
    """Every score that both have, a block a model; empty if they have none in common.

    Cells are matched by framework, language model, teacher, student, loss and data, whose names are compared by their
    letters and digits (`tinyllava` is `TinyLLaVA`), or as `names` says (ours: theirs). The ends of schedules are
    compared, whatever their length; zero-shot scores only where ours is of ImageNet's 50,000 images, averages only of
    the same benchmarks.
    """
    known = {_key(r, {}): r for r in theirs.results if _comparable(r)}
    mine, published = _averaged(ours.results, names), _averaged(theirs.results, {})
    order = {t: i for i, t in enumerate((IMAGENET, AVERAGE, *TASKS))}
    found: dict[str, list[tuple[int, Row]]] = {}
    for r in ours.results:
        key = _key(r, names)
        if not _comparable(r) or (r.task == IMAGENET and r.n != IMAGENET_IMAGES):
            continue
        if r.task == AVERAGE and mine[key[:-1]] != published.get(key[:-1]):
            continue
        if other := known.get(key):
            found.setdefault(_model(other), []).append((order.get(r.task, 99), _row(r, other, level)))
    rows = [(title, [one for _, one in sorted(some, key=lambda pair: pair[0])]) for title, some in found.items()]
    columns = (
        Column("ours", "Ours", better=""), Column("paper", "Paper", better=""),
        Column("difference", "Difference", better="", signed=True),
    )  # fmt: skip
    caption = (
        f"Our scores beside the published ones. ±: half of the {100 * level:.0f} % interval; the paper's are binomial. "
        "A difference inside its interval is not resolvable: the two may be equal."
    )
    texts = (("resolvable", "Resolvable"), ("place", "Printed in"))
    return Table("beside_paper", "Beside the paper", caption, ("Task",), columns, blocks(rows), texts)


def _comparable(r: Result) -> bool:
    return r.metric == SCORE and r.epoch == r.epochs


def _key(r: Result, names: Mapping[str, str]) -> tuple[Any, ...]:
    parts = (r.framework, r.llm, r.teacher, r.student, r.loss, r.dataset)
    return (*(plain(names.get(part, part)) for part in parts), r.task)


def _averaged(results: Iterable[Result], names: Mapping[str, str]) -> dict[tuple[Any, ...], frozenset[str]]:
    """The benchmarks behind the average of each model, by its key without the task."""
    tasks: dict[tuple[Any, ...], set[str]] = {}
    for r in filter(_comparable, results):
        *model, task = _key(r, names)
        tasks.setdefault(tuple(model), set()).add(task)
    return {model: averaged(some) for model, some in tasks.items()}


def plain(name: str) -> str:
    """A name's letters and digits in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _model(r: Result) -> str:
    encoder = f"{r.student} from {r.teacher}" if r.student else r.teacher
    return ", ".join(filter(None, (r.framework, r.llm, encoder, r.loss, r.dataset)))


def _row(ours: Result, theirs: Result, level: float) -> Row:
    difference = Cell(ours.value - theirs.value, half_width(math.hypot(ours.se, theirs.se), level))
    cells = {
        "ours": Cell(ours.value, half_width(ours.se, level)),
        "paper": Cell(theirs.value, half_width(theirs.se, level)),
        "difference": difference,
    }
    words = {"resolvable": resolvable(difference), "place": f"{theirs.table}, {theirs.source}"}
    return row([task_of(ours.task).title], dict(cells), words)


def unmatched(ours: Grid, theirs: Grid, names: Mapping[str, str]) -> Sequence[str]:
    """Names of ours that the paper does not know, to be given under `analysis.names`."""
    known = {plain(p) for r in theirs.results for p in (r.framework, r.llm, r.teacher, r.student, r.loss, r.dataset)}
    mine = {p for r in ours.results for p in (r.framework, r.llm, r.teacher, r.student, r.loss, r.dataset)}
    return sorted(m for m in mine - {"", NO_TEACHER} if plain(names.get(m, m)) not in known)
