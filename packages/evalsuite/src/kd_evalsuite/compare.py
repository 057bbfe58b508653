"""What can be said about models that answered the same items: differences, their intervals, and what is not resolvable.

Everything is in points: percent of the best possible, MME's score over 20.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from kd_evalsuite import resample
from kd_evalsuite.alarms import Alarm, alarms
from kd_evalsuite.aligned import Aligned, align, refuse_other_versions
from kd_evalsuite.average import AVERAGE
from kd_evalsuite.items import DataError
from kd_evalsuite.resample import Floats, Stratum
from kd_evalsuite.results import Result
from kd_evalsuite.stats import detectable, holm, mcnemar
from kd_evalsuite.tasks import EVERY, VARIANTS


@dataclass(frozen=True)
class How:
    """How differences are judged: confidence level, resamples, seed."""

    level: float = 0.95
    samples: int = 10_000
    seed: int = 0

    def rng(self, task: str, purpose: str) -> np.random.Generator:
        """A generator of its own for each task, so that a difference does not depend on what else is compared."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{task}/{purpose}".encode())])


USUAL = How()


@dataclass(frozen=True)
class Difference:
    """`second` minus `first` on a task, a group of tasks or their Average, in points.

    Attributes:
        low: Of the paired bootstrap interval over clusters.
        stderr: Cluster-robust.
        p: By sign flips of clusters; McNemar's exact p where every cluster is one right-or-wrong unit.
        p_holm: Adjusted for all differences of the same kind (tasks, groups, Averages) in this comparison.
        detectable: The true difference that would be found four times out of five; NaN where all units are equal.
        n: Units: items, pairs or groups.
        only_first: Units on which `first` is better.
        p_mcnemar: Exact, of the two counts; takes units as independent, which items on one image are not.
        alpha: One minus the level of the interval: the adjusted p from which a difference is called.
    """

    what: str
    first: str
    second: str
    value_first: float
    value_second: float
    value: float
    low: float
    high: float
    stderr: float
    p: float
    p_holm: float
    detectable: float
    n: int
    clusters: int
    only_first: int
    only_second: int
    p_mcnemar: float
    alpha: float

    @property
    def ahead(self) -> str | None:
        """The model of which it can be said; None unless the interval and the adjusted p both leave out zero."""
        if self.p_holm < self.alpha and (self.low > 0 or self.high < 0):
            return self.second if self.value > 0 else self.first
        return None


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        models: Labels, the first being the one that the others are held against.
        tasks: Aligned items by task.
        by_task: Differences on tasks, pair by pair.
        by_group: On groups of several tasks; empty where all tasks are in one group.
        averages: On the Average; empty where there is one task.
        alarms: About single models.
        left_out: Items of each task that not all models answered.
    """

    models: tuple[str, ...]
    tasks: dict[str, Aligned]
    by_task: tuple[Difference, ...]
    by_group: tuple[Difference, ...]
    averages: tuple[Difference, ...]
    alarms: tuple[Alarm, ...]
    how: How

    @property
    def left_out(self) -> dict[str, int]:
        return {key: one.left_out for key, one in self.tasks.items() if one.left_out}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((d.first, d.second) for d in self.by_task))


@dataclass(frozen=True)
class _Part:
    """A task's difference with its resamples, in points."""

    task: str
    strata: tuple[Stratum, ...]
    firsts: float
    seconds: float
    draws: Floats
    nulls: Floats
    up: int
    down: int
    n: int


def compare(
    results: Sequence[Result],
    tasks: Sequence[str] = (),
    *,
    how: How = USUAL,
    common: bool = False,
    all_pairs: bool = False,
    told: Callable[[str], None] = lambda task: None,
) -> Comparison:
    """Every model against the first, or every pair, on each task, each group and the Average.

    Args:
        results: At least two models.
        tasks: Which; all if empty.
        how: Level, resamples, seed.
        common: Compare on the tasks and items that all have, instead of refusing when some are missing.
        all_pairs: Every pair instead of every model against the first.
        told: Called with each task's key before it is compared.

    Raises:
        DataError: If there are fewer than two models, or they cannot be aligned; with all tasks and ids at once.
    """
    if len(results) < 2:
        raise DataError(f"Expected at least two models to compare, got {len(results)}.")
    if len({r.label for r in results}) < len(results):
        raise DataError(f"Expected models with different names, got {', '.join(r.label for r in results)}.")
    aligned = _align_all(results, _tasks_of(results, tasks, common), common)
    labels = [r.label for r in results]
    pairs = list(combinations(range(len(labels)), 2)) if all_pairs else [(0, k) for k in range(1, len(labels))]
    parts: dict[tuple[int, int], list[_Part]] = {pair: [] for pair in pairs}
    for key, one in aligned.items():
        told(key)
        for pair in pairs:
            parts[pair].append(_part(one, *pair, how))
    named = {pair: (labels[pair[0]], labels[pair[1]]) for pair in pairs}
    singles = [_difference(p.task, *named[pair], [p], how) for pair, some in parts.items() for p in some]
    counted = {pair: [p for p in some if in_average(p.task)] for pair, some in parts.items()}
    groups = groups_of(key for key in aligned if in_average(key))
    grouped = [
        _difference(group, *named[pair], mine, how)
        for pair, some in counted.items()
        for group in groups
        if len(mine := [p for p in some if group_of(p.task) == group]) > 1
    ]
    averages = [_difference(AVERAGE, *named[pair], some, how) for pair, some in counted.items() if len(some) > 1]
    return Comparison(
        models=tuple(labels),
        tasks=aligned,
        by_task=_adjusted(singles),
        by_group=_adjusted(grouped) if len(groups) > 1 else (),
        averages=_adjusted(averages),
        alarms=tuple(alarm for r in results for alarm in alarms(r, list(aligned))),
        how=how,
    )


def _tasks_of(results: Sequence[Result], tasks: Sequence[str], common: bool) -> list[str]:
    everywhere = [key for key in results[0].mains if all(key in r.mains for r in results)]
    anywhere = dict.fromkeys(key for r in results for key in r.mains)
    if unknown := [key for key in tasks if key not in anywhere]:
        raise DataError(f"No model was scored on {', '.join(unknown)}; there are {', '.join(anywhere)}.")
    wanted = list(tasks) or list(anywhere)
    gaps = {r.label: [key for key in wanted if key not in r.mains] for r in results}
    lacking = [f"{label} lacks {', '.join(gone)}" for label, gone in gaps.items() if gone]
    if lacking and not common:
        raise DataError(f"Not all models were scored on the same tasks: {'; '.join(lacking)}. Pass --task or --common.")
    chosen = [key for key in everywhere if key in wanted]
    if not chosen:
        raise DataError(f"The models have no task in common: {'; '.join(lacking)}.")
    return chosen


def _align_all(results: Sequence[Result], tasks: Sequence[str], common: bool) -> dict[str, Aligned]:
    refuse_other_versions(results, tasks)
    found, problems = {}, []
    for key in tasks:
        try:
            if absent := [r for r in results if not r.items.get(key)]:
                raise DataError(f"{absent[0].folder}: expected items of {key} beside its score, found none.")
            found[key] = align(results, key, common=common)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return found


def _part(one: Aligned, first: int, second: int, how: How) -> _Part:
    strata = one.strata(second, first)
    scores, _, _ = one.units
    apart = scores[:, second] - scores[:, first]
    return _Part(
        task=one.task,
        strata=strata,
        firsts=100 * resample.estimate(one.strata(first)),
        seconds=100 * resample.estimate(one.strata(second)),
        draws=100 * resample.bootstrap(strata, how.rng(one.task, "bootstrap"), how.samples),
        nulls=100 * resample.flipped(strata, how.rng(one.task, "flips"), how.samples),
        up=int((apart > 0).sum()),
        down=int((apart < 0).sum()),
        n=len(apart),
    )


def _difference(what: str, first: str, second: str, parts: Sequence[_Part], how: How) -> Difference:
    """The plain mean over tasks, which are independent of each other."""
    value_first, value_second = (float(np.mean([getattr(p, side) for p in parts])) for side in ("firsts", "seconds"))
    low, high = resample.percentile_interval(np.mean([p.draws for p in parts], axis=0), how.level)
    stderr = 100 * float(np.sqrt(np.sum([resample.stderr(p.strata) ** 2 for p in parts]))) / len(parts)
    nulls = np.mean([p.nulls for p in parts], axis=0)
    value = value_second - value_first
    up, down = sum(p.up for p in parts), sum(p.down for p in parts)
    return Difference(
        what=what,
        first=first,
        second=second,
        value_first=value_first,
        value_second=value_second,
        value=value,
        low=low,
        high=high,
        stderr=stderr,
        p=_p(value, parts, nulls),
        p_holm=1.0,
        detectable=detectable(stderr, how.level) if stderr > 0 else math.nan,
        n=sum(p.n for p in parts),
        clusters=sum(len(s.points) for p in parts for s in p.strata),
        only_first=down,
        only_second=up,
        p_mcnemar=mcnemar(down, up),
        alpha=1 - how.level,
    )


def _p(value: float, parts: Sequence[_Part], nulls: Floats) -> float:
    if len(parts) == 1:
        return resample.sign_flip_p(parts[0].strata, nulls / 100)
    variance = sum(resample.flip_variance(p.strata) for p in parts) / len(parts) ** 2
    return resample.null_p(value / 100, nulls / 100, variance)


def _adjusted(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """The differences with Holm's p over all of them."""
    p_holm = holm({str(i): d.p for i, d in enumerate(found)})
    return tuple(replace(d, p_holm=p_holm[str(i)]) for i, d in enumerate(found))


def group_of(task: str) -> str:
    """The suite's group of a task."""
    return EVERY[task].group if task in EVERY else "Other"


def in_average(task: str) -> bool:
    """Whether a task counts in the Average: variants of a benchmark and zero-shot classification do not."""
    return task not in VARIANTS and task != "zeroshot"


def groups_of(tasks: Iterable[str]) -> list[str]:
    """Their groups, in order."""
    return list(dict.fromkeys(group_of(task) for task in tasks))
