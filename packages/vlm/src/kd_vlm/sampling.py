"""Which samples go together: the micro-batches of an epoch, as pure functions of lengths, seed, epoch and ranks.

A plan is one list for all ranks: micro-batch `k` belongs to rank `k % ranks` (`plan[rank::ranks]`), and its length is a
multiple of `ranks`, so that no rank waits for a batch that never comes. Every sample occurs once an epoch.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from kd_vlm.regimen import Sampler

Plan = list[list[int]]

WINDOW = 16  # global batches that are sorted by length together; larger windows pad less and mix less
ROWS = 64  # packed rows that are filled together


def epoch_plan(
    sampler: Sampler,
    lengths: Sequence[int],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    has_image: Sequence[bool] | None = None,
    ranks: int = 1,
    accumulation: int = 1,
    row_tokens: int | None = None,
) -> Plan:
    """The micro-batches of one epoch, for all ranks.

    Args:
        sampler: `random`: in any order. `buckets`: samples of like length together. `llava`: LLaVA's grouping by
            modality and length, for reproduction; it does not reduce padding. `packing`: rows of several samples,
            each micro-batch one row.
        lengths: Tokens of each sample, those of its pictures among them. (LLaVA's own code counts words.)
        batch_size: Samples of a micro-batch. Where the last few of an epoch don't suffice for one on every rank,
            they join the micro-batches before them, which are then one sample larger.
        seed: Seed of the run.
        epoch: Number of the epoch.
        has_image: Whether each sample has a picture; needed by `llava` alone.
        ranks: Processes that train together.
        accumulation: Micro-batches of one optimiser step on each rank; LLaVA groups whole steps.
        row_tokens: Tokens of a packed row; by default those of `batch_size` samples of mean length, so that a step
            sees about as many samples as with the other samplers. A longer sample gets a row of its own.

    Raises:
        ValueError: If there are fewer samples than ranks, or something needed is missing.
    """
    if len(lengths) < ranks:
        raise ValueError(f"{len(lengths)} samples cannot be split over {ranks} ranks; expected one for each at least.")
    rng = np.random.default_rng([seed, epoch])
    if sampler == "packing":
        return _packed(lengths, row_tokens or default_row_tokens(lengths, batch_size), ranks, rng)
    if sampler == "llava":
        if has_image is None:
            raise ValueError("The sampler 'llava' groups by modality: expected has_image, one flag a sample.")
        order = _llava_order(lengths, has_image, batch_size, ranks * accumulation, rng)
        return _dealt(_groups(order, batch_size * ranks, ranks), batch_size, ranks)
    grouping = {"random": _random_groups, "buckets": _bucket_groups}.get(sampler)
    if grouping is None:
        raise ValueError(f"Unknown sampler {sampler!r}. Known: random, buckets, llava, packing.")
    return _dealt(grouping(lengths, batch_size * ranks, ranks, rng), batch_size, ranks)


def batch_plan(
    lengths: Sequence[int],
    batch_size: int,
    epochs: float,
    seed: int,
    *,
    sampler: Sampler = "buckets",
    has_image: Sequence[bool] | None = None,
    ranks: int = 1,
    accumulation: int = 1,
    row_tokens: int | None = None,
) -> Plan:
    """The micro-batches of `epochs` epochs; a fraction takes the first part of the last epoch's. See `epoch_plan`."""
    plan: Plan = []
    n_rounds = 0
    for epoch in range(int(-(-epochs // 1))):
        cut = epoch_plan(
            sampler,
            lengths,
            batch_size,
            seed=seed,
            epoch=epoch,
            has_image=has_image,
            ranks=ranks,
            accumulation=accumulation,
            row_tokens=row_tokens,
        )
        n_rounds += round(min(1.0, epochs - epoch) * (len(cut) // ranks))
        plan += cut
    return plan[: ranks * max(1, n_rounds)]


def default_row_tokens(lengths: Sequence[int], batch_size: int) -> int:
    """Tokens of `batch_size` samples of mean length, and of the longest sample at least."""
    return max(max(lengths), round(batch_size * sum(lengths) / len(lengths)))


def padding_share(plan: Plan, lengths: Sequence[int]) -> float:
    """The share of positions that hold no token when every micro-batch is padded to its longest sample, in [0, 1)."""
    filled = sum(lengths[i] for batch in plan for i in batch)
    return 1 - filled / sum(len(batch) * max(lengths[i] for i in batch) for batch in plan)


def _random_groups(lengths: Sequence[int], group: int, ranks: int, rng: np.random.Generator) -> Plan:
    return _groups(rng.permutation(len(lengths)).tolist(), group, ranks)


def _bucket_groups(lengths: Sequence[int], group: int, ranks: int, rng: np.random.Generator) -> Plan:
    """Shuffle, sort by length within windows, cut into global batches, shuffle those."""
    order = rng.permutation(len(lengths)).tolist()
    window = WINDOW * group
    ordered: list[int] = []
    for start in range(0, len(order), window):
        ordered += sorted(order[start : start + window], key=lengths.__getitem__)
    cut = _groups(ordered, group, ranks)
    return [cut[i] for i in rng.permutation(len(cut))]


def _groups(order: list[int], group: int, ranks: int) -> Plan:
    """Consecutive parts of `group` samples; a last one with too few samples for all ranks joins the one before."""
    cut = [order[i : i + group] for i in range(0, len(order), group)]
    if len(cut) > 1 and len(cut[-1]) < ranks:
        last = cut.pop()
        cut[-1] = cut[-1] + last
    return cut


def _dealt(groups: Plan, batch_size: int, ranks: int) -> Plan:
    """Each global batch as one micro-batch a rank: neighbours together, sizes that differ by one at most."""
    if ranks == 1:
        return groups
    return [part.tolist() for group in groups for part in np.array_split(np.array(group), ranks)]


def _llava_order(
    lengths: Sequence[int], has_image: Sequence[bool], batch_size: int, n_batches: int, rng: np.random.Generator
) -> list[int]:
    """The order of LLaVA's sampler: whole steps of one modality, long samples first within each.

    Source: LLaVA, `LengthGroupedSampler` with `group_by_modality`; the random numbers are ours.
    """
    step = batch_size * n_batches
    steps: Plan = []
    rest: list[int] = []
    kinds = ([i for i, image in enumerate(has_image) if image], [i for i, image in enumerate(has_image) if not image])
    for members in kinds:
        shuffled = [members[i] for i in rng.permutation(len(members))]
        cut = [shuffled[i : i + step] for i in range(0, len(shuffled), step)]
        spread = [_spread(sorted(part, key=lambda i: -lengths[i]), n_batches, lengths) for part in cut]
        if all(kinds) and spread:
            rest += spread.pop()  # LLaVA joins the incomplete steps of both modalities at the end
        steps += spread
    last = [steps.pop()] if not all(kinds) and len(steps[-1]) < step else []
    order = [i for k in rng.permutation(len(steps)) for i in steps[k]]
    return order + sorted(rest) + [i for part in last for i in part]


def _spread(members: list[int], n_batches: int, lengths: Sequence[int]) -> list[int]:
    """One step's samples as `n_batches` batches of about equal total length, one after the other."""
    if len(members) % n_batches:
        return [i for k in range(n_batches) for i in members[k::n_batches]]
    size = len(members) // n_batches
    parts: Plan = [[] for _ in range(n_batches)]
    totals: list[float] = [0.0] * n_batches
    for i in members:
        least = totals.index(min(totals))
        parts[least].append(i)
        totals[least] = totals[least] + lengths[i] if len(parts[least]) < size else float("inf")
    return [i for part in parts for i in part]


def _packed(lengths: Sequence[int], row_tokens: int, ranks: int, rng: np.random.Generator) -> Plan:
    """Rows of at most `row_tokens` tokens: shuffled windows, each filled best fit first, longest sample first."""
    order = rng.permutation(len(lengths)).tolist()
    rows: Plan = []
    window: list[int] = []
    n_tokens = 0
    for i in order:
        window.append(i)
        n_tokens += lengths[i]
        if n_tokens >= ROWS * row_tokens:
            rows += _best_fit(window, lengths, row_tokens)
            window, n_tokens = [], 0
    rows += _best_fit(window, lengths, row_tokens)
    rows = _even(rows, ranks, lengths)
    return [rows[i] for i in rng.permutation(len(rows))]


def _best_fit(members: list[int], lengths: Sequence[int], row_tokens: int) -> Plan:
    rows: Plan = []
    room: list[tuple[int, int]] = []  # tokens left and the row, sorted
    for i in sorted(members, key=lambda i: -lengths[i]):
        at = bisect_left(room, (lengths[i], -1))
        if at == len(room):
            rows.append([i])
            left, row = row_tokens - lengths[i], len(rows) - 1
        else:
            left, row = room.pop(at)
            rows[row].append(i)
            left -= lengths[i]
        if left > 0:
            insort(room, (left, row))
    return rows


def _even(rows: Plan, ranks: int, lengths: Sequence[int]) -> Plan:
    """The same samples in a multiple of `ranks` rows: the fullest are cut in two, or the shortest joined."""
    surplus = len(rows) % ranks
    if not surplus:
        return rows
    rows = sorted(rows, key=len)
    n_missing = ranks - surplus
    if sum(len(row) - 1 for row in rows) >= n_missing:
        for _ in range(n_missing):
            longest = max(rows, key=len)
            rows.remove(longest)
            rows += [longest[::2], longest[1::2]]
        return rows
    for _ in range(surplus):
        rows.sort(key=lambda row: sum(lengths[i] for i in row))
        rows = [rows[0] + rows[1], *rows[2:]]
    return rows
