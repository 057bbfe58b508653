"""Which layers of a student are like which of a teacher: debiased CKA of each with each, as a table and a picture."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from kd_analysis.cka import linear_cka
from kd_analysis.comparing import Rows, whole
from kd_analysis.gram import kernel_cka, linear_gram
from kd_analysis.moments import Moments
from kd_analysis.streaming import own, paired

READABLE = 400  # cells, up to which each one's value (in hundredths) is written into it


@dataclass(frozen=True)
class LayerMap:
    """CKA of each layer of a student (rows) with each of a teacher (columns); NaN where it does not exist."""

    student: str
    teacher: str
    student_layers: tuple[str, ...]
    teacher_layers: tuple[str, ...]
    values: Float[np.ndarray, "s t"]
    n: int


def layer_map(
    student: str,
    teacher: str,
    one: Mapping[str, Rows],
    two: Mapping[str, Rows],
    images: Sequence[str],
    on_row: Callable[[int], None] = lambda done: None,
) -> LayerMap:
    """The map over these images; from Gram matrices where there are fewer images than features, else from moments.

    Args:
        student, teacher: Their names.
        one, two: Features by layer.
        images: Ids.
        on_row: Told how many of the student's layers are done.
    """
    values = np.full((len(one), len(two)), math.nan)
    widest = max(next(iter(rows.blocks(images[:1]))).shape[1] for rows in [*one.values(), *two.values()])
    compare = _from_grams if len(images) < widest else _from_moments
    for s, t, value in compare(list(one.values()), list(two.values()), images, on_row):
        values[s, t] = value
    return LayerMap(student, teacher, tuple(one), tuple(two), values, len(images))


def _from_grams(
    one: Sequence[Rows], two: Sequence[Rows], images: Sequence[str], on_row: Callable[[int], None]
) -> list[tuple[int, int, float]]:
    others, found = [linear_gram(whole(rows, images)) for rows in two], []
    for s, rows in enumerate(one):
        K = linear_gram(whole(rows, images))
        found += [(s, t, kernel_cka(K, L).value) for t, L in enumerate(others)]
        on_row(s + 1)
    return found


def _from_moments(
    one: Sequence[Rows], two: Sequence[Rows], images: Sequence[str], on_row: Callable[[int], None]
) -> list[tuple[int, int, float]]:
    others, found = [own(rows.blocks(images)) for rows in two], []
    for s, rows in enumerate(one):
        x = own(rows.blocks(images))
        for t, (y, other) in enumerate(zip(others, two, strict=True)):
            state: Moments = paired(x, y, zip(rows.blocks(images), other.blocks(images), strict=True))
            found.append((s, t, linear_cka(state).value))
        on_row(s + 1)
    return found


def write(found: LayerMap, out: Path) -> None:
    """`heatmap.csv` (a line for each two layers), `heatmap.svg`, `heatmap.png`; equal bytes for equal values."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "heatmap.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["student", "student_layer", "teacher", "teacher_layer", "estimator", "value", "n"])
        for s, mine in enumerate(found.student_layers):
            for t, theirs in enumerate(found.teacher_layers):
                value = found.values[s, t]
                shown = repr(float(value)) if math.isfinite(value) else ""
                table.writerow([found.student, mine, found.teacher, theirs, "debiased", shown, found.n])
    draw(found, out)


def draw(found: LayerMap, out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows, columns = found.values.shape
    with mpl.rc_context({"svg.hashsalt": "kd-analysis", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = plt.subplots(figsize=(2.4 + 0.24 * columns, 1.6 + 0.24 * rows), layout="constrained")
        low = min(0.0, float(np.nanmin(found.values, initial=0.0)))
        picture = axes.imshow(found.values, vmin=low, vmax=1, cmap="viridis", aspect="equal", interpolation="nearest")
        if rows * columns <= READABLE:
            for (s, t), value in np.ndenumerate(found.values):
                ink = "white" if value < (1 + low) / 2 else "black"
                axes.text(
                    t,
                    s,
                    f"{100 * value:.0f}" if math.isfinite(value) else "",
                    ha="center",
                    va="center",
                    fontsize=6,
                    color=ink,
                )
        axes.set_xticks(range(columns), [_short(name) for name in found.teacher_layers], rotation=90)
        axes.set_yticks(range(rows), [_short(name) for name in found.student_layers])
        axes.set_xlabel(found.teacher)
        axes.set_ylabel(found.student)
        axes.set_title(f"debiased CKA of layers, {found.n} images", fontsize=8)
        figure.colorbar(picture, ax=axes, shrink=0.8)
        figure.savefig(out / "heatmap.svg", metadata={"Date": None})
        figure.savefig(out / "heatmap.png", dpi=150, metadata={"Software": None})
        plt.close(figure)


def _short(name: str) -> str:
    """A module's name without what all of them share."""
    for part in ("transformer.resblocks.", "trunk."):
        name = name.replace(part, "")
    return name
