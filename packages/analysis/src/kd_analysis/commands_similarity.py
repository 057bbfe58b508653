"""What the commands about similarity do once their parameters are checked; `cli_similarity.py` parses and calls."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_analysis import view
from kd_analysis.config import AnalysisParams

if TYPE_CHECKING:
    from kd_analysis.library import Encoders
    from kd_analysis.similarity import Record
    from kd_analysis.taps import Precision


def chosen(
    params: AnalysisParams,
    taps: Sequence[str],
    measures: Sequence[str],
    max_images: int | None,
    store: Path | None,
    device: str | None,
    feature_cache: Path | None = None,
    feature_precision: "Precision | None" = None,
) -> AnalysisParams:
    """The parameters with what the options say instead.

    Raises:
        ValueError: If an option has a wrong value.
    """
    from kd_analysis.measures import checked
    from kd_analysis.taps import checked as checked_tap

    given = {
        "tap": tuple(map(checked_tap, taps)) or params.tap,
        "measures": checked(measures or ([params.measures] if params.measures == "all" else params.measures)),
        "max_images": max_images or params.max_images,
        "store": store or params.store,
        "device": device or params.device,
        "feature_cache": feature_cache or params.feature_cache,
        "feature_precision": feature_precision or params.feature_precision,
    }
    return params.model_copy(update=given)


def task_names(params: AnalysisParams) -> list[str]:
    """The tasks to take images from, each with a folder.

    Raises:
        FileNotFoundError: If the benchmarks or one of the tasks are not there.
    """
    if not params.benchmarks.is_dir():
        raise FileNotFoundError(
            f"Expected benchmark folders in {params.benchmarks}, found none. Set analysis.benchmarks, or name --images."
        )
    there = sorted(p.name for p in params.benchmarks.iterdir() if p.is_dir())
    names = there if params.tasks == "all" else list(params.tasks)
    if missing := sorted(set(names) - set(there)):
        known = ", ".join(there) or "nothing"
        raise FileNotFoundError(f"{params.benchmarks}: expected the tasks {', '.join(missing)}; found {known}.")
    return names


def sources_of(params: AnalysisParams, images: Sequence[str]) -> dict[str, Path]:
    """Where each task's images are: as --images says, `[NAME=]PATH`, else as the parameters do.

    Raises:
        ValueError: If two have one name.
        FileNotFoundError: If there is nothing at a path.
    """
    if not images:
        if absent := [path for path in params.images.values() if not path.exists()]:
            raise FileNotFoundError(f"analysis.images: expected pictures at {absent[0]}, found nothing.")
        return {task: params.benchmarks / task for task in task_names(params)} | params.images
    found: dict[str, Path] = {}
    for text in images:
        name, path = _named(text)
        if not path.exists() and not any(path.parent.glob(path.name)):
            raise FileNotFoundError(f"Expected images, shards or a benchmark's folder at {path}, found nothing.")
        task = name or _task_of(path)
        if task in found:
            raise ValueError(f"Two sources of images are called {task}; write --images NAME=PATH.")
        found[task] = path
    return found


def _named(text: str) -> tuple[str, Path]:
    """`NAME=PATH` or `PATH`; what stands before the first `=` is no name if it has a slash in it."""
    name, equals, rest = text.partition("=")
    return (name, Path(rest)) if equals and "/" not in name else ("", Path(text))


def _task_of(path: Path) -> str:
    """What a source of images is called, in characters that a metric's name may have."""
    stem = re.sub(r"[^\w -]+", "-", path.resolve().name.split(".")[0]).strip("-_ ")
    return stem or _task_of(path.resolve().parent)


def heads_of(students: Sequence[str], heads: Sequence[str]) -> dict[str, Path]:
    """Where heads are, by the student's name; without a name, of the one student there is.

    Raises:
        ValueError: If it is not said whose they are.
    """
    found = {}
    for text in heads:
        name, path = _named(text)
        if not name and len(students) != 1:
            raise ValueError(f"Expected --heads STUDENT=PATH, since there are {len(students)} students; got {text!r}.")
        found[name or students[0]] = path
    if strange := sorted(set(found) - set(students)):
        raise ValueError(f"--heads names {', '.join(strange)}; the students are {', '.join(students)}.")
    return found


def pair_references(
    params: AnalysisParams, students: Sequence[str], teachers: Sequence[str]
) -> tuple[list[str], list[str], bool]:
    """Students and teachers to compare, and whether they are pairs: from options, parameters or references.

    Raises:
        ValueError: If the options do not pair up.
    """
    from kd_analysis.measure import discovered

    if len(teachers) == 1 and len(students) > 1:
        teachers = list(teachers) * len(students)
    if len(students) != len(teachers):
        raise ValueError(f"--student and --teacher go in pairs; got {len(students)} and {len(teachers)}.")
    if students:
        return list(students), list(teachers), True
    if params.pairs == "discovered":
        return *discovered(params.refs), False
    return [p.student for p in params.pairs], [p.teacher for p in params.pairs], True


def _encoders(params: AnalysisParams, students: Sequence[str], teachers: Sequence[str]) -> "Encoders":
    from kd_analysis import measure

    students, teachers, zipped = pair_references(params, students, teachers)
    return measure.resolve(students, teachers, zipped=zipped)


def cka(
    params: AnalysisParams,
    students: Sequence[str],
    teachers: Sequence[str],
    out: Path,
    dry_run: bool,
    *,
    images: Sequence[str] = (),
    heads: Sequence[str] = (),
) -> None:
    """Measure and write the similarities."""
    from kd_analysis import measure
    from kd_analysis.measures import checked

    sources, encoders = sources_of(params, images), _encoders(params, students, teachers)
    named = heads_of(list(encoders.students), heads)
    view.say(
        f"{len(encoders.students)} students, {len(encoders.teachers)} teachers, {len(sources)} tasks, "
        f"tap {', '.join(params.taps)} -> {out}"
    )
    if dry_run:
        return
    with view.counted() as told:
        found = measure.measure(
            encoders,
            sources,
            out,
            max_images=params.max_images,
            taps=params.taps,
            estimators=params.estimators,
            level=params.level,
            seed=params.seed,
            store=params.store,
            measures=checked([params.measures] if params.measures == "all" else params.measures),
            heads=named,
            device=params.device,
            feature_cache=params.feature_cache,
            feature_precision=params.feature_precision,
            told=told,
        )
    _show(found.records, params.level)
    for reason in sorted({r.reason for r in found.records if r.reason}):
        view.say(f"no CKA for {sum(r.reason == reason for r in found.records)} of {len(found.records)}: {reason}")
    view.say(f"wrote {len(found.records)} similarities to {out / 'cka.json'}")


def _show(records: Sequence["Record"], level: float) -> None:
    """The mean over tasks of each pair, with its interval."""
    from statistics import NormalDist

    from rich.table import Table

    from kd_analysis.names import labels, parse
    from kd_analysis.similarity import mean_over_tasks

    estimators = list(dict.fromkeys(r.estimator for r in records))
    table = Table("relation", "student", "teacher", "tap", *estimators, "images", box=None)
    told = labels(parse(name) for r in records for name in (r.student, r.teacher))
    groups: dict[tuple[str, str, str, str], dict[str, list[Record]]] = {}
    for r in records:
        label = r.relation, told[r.student], told[r.teacher], r.tap
        groups.setdefault(label, {}).setdefault(r.estimator, []).append(r)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    for key, some in groups.items():
        means = [mean_over_tasks(some.get(estimator, [])) for estimator in estimators]
        shown = ["--" if math.isnan(value) else f"{value:.3f} +- {z * se:.3f}" for value, se in means]
        table.add_row(*key, *shown, str(sum(r.n for r in next(iter(some.values())))))
    view.out.print(table)


def features(
    params: AnalysisParams,
    students: Sequence[str],
    teachers: Sequence[str],
    *,
    images: Sequence[str],
    heads: Sequence[str],
    shard: str,
) -> None:
    """Fill the store with one shard's features."""
    from kd_analysis import folders
    from kd_analysis.library import Library, pictures_of
    from kd_analysis.measure import plan
    from kd_analysis.store import Store

    first, _, of = shard.partition("/")
    if not (first.isdigit() and of.isdigit() and int(first) < int(of)):
        raise ValueError(f"Expected --shard I/N with I from 0 to N - 1, got {shard!r}.")
    sources, encoders = sources_of(params, images), _encoders(params, students, teachers)
    pairs, fresh = plan(encoders, folders.architecture)
    named = heads_of(list(encoders.students), heads)
    library = Library(
        encoders,
        fresh,
        params.seed,
        Store(params.store),
        named,
        params.device,
        visual_tokens=params.feature_cache,
        precision=params.feature_precision,
    )
    for tap in params.taps:
        library.at(tap, pairs)
    with view.counted() as told:
        pictures = pictures_of(sources, params.max_images, params.store, told)
        ids = sorted(pictures.ids)[int(first) :: int(of)]
        library.fill(pictures, ids, told)
    view.say(f"{len(ids)} of {len(pictures.ids)} images on {len(library.shelves)} shelves in {params.store}")


def heatmap(
    params: AnalysisParams, student: str, teacher: str, out: Path, *, images: Sequence[str], layers: Sequence[str]
) -> None:
    """Map the layers of two encoders on the images of all tasks together."""
    from kd_analysis import towers
    from kd_analysis.heatmap import layer_map, write
    from kd_analysis.library import Library, pictures_of
    from kd_analysis.store import Store
    from kd_analysis.taps import LAYER

    sources, encoders = sources_of(params, images), _encoders(params, [student], [teacher])
    library = Library(encoders, {}, params.seed, Store(params.store), {}, params.device)
    sides: list[dict[str, str]] = []
    for name in (*encoders.students, *encoders.teachers):
        names = list(layers) or towers.load(library.folder(name)).layers()
        sides.append({layer: library.shelf(name, f"{LAYER}{layer}") for layer in names})
    with view.counted() as told:
        pictures = pictures_of(sources, params.max_images, params.store, told)
        ids = sorted(pictures.ids)
        library.fill(pictures, ids, told)
        one, two = ({layer: library.shelves[place] for layer, place in side.items()} for side in sides)
        found = layer_map(
            next(iter(encoders.students)), next(iter(encoders.teachers)), one, two, ids,
            lambda done: told("layers", done, len(one)),
        )  # fmt: skip
    write(found, out)
    view.say(f"wrote {found.values.size} values over {found.n} images to {out / 'heatmap.csv'}")


def merge_states(states: Sequence[Path], out: Path | None) -> None:
    """Say what several states come to together."""
    from kd_analysis.cka import ESTIMATORS, linear_cka, null_z
    from kd_analysis.moments import Moments, merge

    total = Moments.load(states[0])
    for path in states[1:]:
        total = merge(total, Moments.load(path))
    for estimator in ESTIMATORS:
        found = linear_cka(total, estimator)
        z = f", z {null_z(found.value, found.n):.1f}" if estimator == "debiased" else ""
        view.say(f"{estimator} CKA {found.value:.6f}, {found.n} images{z} {found.reason}".rstrip())
    if out:
        total.save(out)
        view.say(f"wrote {out}")
