"""`analysis cka`: resolve the encoders, read their features once over the distinct images, compare, write."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_analysis import folders, tracking
from kd_analysis.comparing import Comparison, Pair, compare
from kd_analysis.durable import write_whole
from kd_analysis.images import Pictures
from kd_analysis.library import Encoders, Library, Told, described, pictures_of
from kd_analysis.moments import Moments
from kd_analysis.names import parse
from kd_analysis.reading import read_as
from kd_analysis.similarity import (
    ALONE,
    OWN,
    SEEDS,
    TEACHERS,
    UNTRAINED,
    Record,
    relation_of,
    write_records,
)
from kd_analysis.store import Store
from kd_analysis.taps import Precision

SMALL = 2048  # images of a task


def discovered(refs: Path) -> tuple[list[str], list[str]]:
    """The reference files of all students and of all teachers in a folder and its subfolders.

    Raises:
        FileNotFoundError: If there is no student or no teacher.
    """
    students, teachers = (sorted(map(str, refs.rglob(f"{kind}-*.json"))) for kind in ("student", "teacher"))
    if not students or not teachers:
        raise FileNotFoundError(
            f"Expected student-*.json and teacher-*.json in {refs}, found {len(students)} and {len(teachers)}. "
            "Distil and register first, or name --student and --teacher."
        )
    return students, teachers


def resolve(students: Sequence[str], teachers: Sequence[str], *, zipped: bool) -> Encoders:
    """Find and verify the models. With `zipped`, students[i] is the student of teachers[i].

    Raises:
        ValueError: If two different models have one name.
    """
    found = {ref: tracking.resolve(ref) for ref in dict.fromkeys([*students, *teachers])}
    pairs = zip(students, teachers, strict=True) if zipped else ()
    by_name: dict[str, tracking.Model] = {}
    for model in found.values():
        if by_name.setdefault(model.name, model).sha256 != model.sha256:
            raise ValueError(f"Two different models are called {model.name}; give one of them another name.")
    return Encoders(
        {found[ref].name: found[ref] for ref in students},
        {found[ref].name: found[ref] for ref in teachers},
        frozenset((found[s].name, found[t].name) for s, t in pairs),
    )


def plan(encoders: Encoders, architecture: Callable[[Path], str | None]) -> tuple[list[Pair], dict[str, str]]:
    """Every comparison, and for each untrained architecture a student that has it.

    Each student is compared with each teacher; an untrained student of its architecture with its own teacher (with
    every teacher, if it had none); the teachers with each other; trainings that differ in their seed with each other.
    A VLM has no untrained one.
    """
    pairs: list[Pair] = []
    fresh: dict[str, str] = {}  # architecture -> the features' key
    models: dict[str, str] = {}  # the features' key -> a student
    for student, model in encoders.students.items():
        config, key = architecture(model.path), None
        if config is not None:
            key = fresh.setdefault(config, f"untrained-{len(fresh)}")
            models.setdefault(key, student)
        for teacher in encoders.teachers:
            relation = relation_of(student, teacher, (student, teacher) in encoders.given)
            pairs.append(Pair(student, teacher, relation, student, teacher))
            if relation in (OWN, ALONE) and key:
                pairs.append(Pair(student, teacher, UNTRAINED, key, teacher))
    pairs += [Pair(b, a, TEACHERS, b, a) for a, b in combinations(encoders.teachers, 2)]
    pairs += [Pair(b, a, SEEDS, b, a) for a, b in combinations(encoders.students, 2) if _differ_in_seed(a, b)]
    return pairs, models


def _differ_in_seed(one: str, two: str) -> bool:
    a, b = parse(one), parse(two)
    return (a.kind, a.arch, a.family, a.recipe) == ("student", b.arch, b.family, b.recipe)


def measure(
    encoders: Encoders,
    sources: Mapping[str, Path],
    out: Path,
    *,
    max_images: int | None,
    taps: Sequence[str],
    estimators: Sequence[str],
    level: float,
    seed: int,
    store: Path,
    measures: Sequence[str] = (),
    heads: Mapping[str, Path] | None = None,
    device: str = "cpu",
    feature_cache: Path | None = None,
    feature_precision: Precision = "fp32",
    told: Told = lambda what, done, total: None,
) -> Comparison:
    """Compute and write what `analysis cka` promises.

    `out/cka.json`; `measures.json` where other measures are asked for; `differences.json`, between two teachers of a
    student; `images.json`, what the images were; `states/<tap>/<student>--vs--<teacher>/<task>.npz` of own teachers.

    Raises:
        kd_analysis.images.ImageError: If a source has no readable images.
    """
    base, fresh = plan(encoders, folders.architecture)
    library = Library(encoders, fresh, seed, Store(store), heads or {}, device, feature_cache, feature_precision)
    at = {tap: library.at(tap, base) for tap in taps}
    pictures = pictures_of(sources, max_images, store, told)
    library.fill(pictures, pictures.ids, told)
    sha256 = {name: model.sha256 for name, model in encoders.all.items()}
    total = len(taps) * len(base) * len(pictures.tasks)
    found = Comparison([], [], [])
    for number, tap in enumerate(taps):
        start = number * len(base) * len(pictures.tasks)
        with threadpool_limits(_blas_threads(pictures), user_api="blas"):
            one = compare(
                at[tap],
                library.shelves,
                pictures.tasks,
                tap=tap,
                estimators=estimators,
                level=level,
                sha256=sha256,
                measures=measures,
                seed=seed,
                keep=_saver(out / "states" / tap.replace(":", "-")),
                on_pair=lambda done, start=start: told("pairs", start + done, total),  # type: ignore[misc]
            )
        found.records.extend(one.records)
        found.measured.extend(one.measured)
        found.differences.extend(one.differences)
    out.mkdir(parents=True, exist_ok=True)
    write_records(out / "differences.json", found.differences)
    if measures:
        write_records(out / "measures.json", found.measured)
    write_whole(out / "images.json", (json.dumps(described(pictures), indent=1) + "\n").encode())
    write_records(out / "cka.json", found.records)
    return found


def _blas_threads(pictures: Pictures) -> int | None:
    """One thread where products are small: more of them wait for each other for longer than they multiply."""
    return 1 if max(map(len, pictures.tasks.values())) < SMALL else None


def _saver(folder: Path) -> Callable[[Pair, str, Moments], None]:
    def save(pair: Pair, task: str, state: Moments) -> None:
        if pair.relation == OWN:
            place = folder / f"{pair.student}--vs--{pair.teacher}"
            place.mkdir(parents=True, exist_ok=True)
            state.save(place / f"{task}.npz")

    return save


def metrics_of(records: Sequence[Record], student: str) -> dict[str, float]:
    """`cka/<tap>/<estimator>/<task>` of a student with its own teacher; missing values are left out."""
    return {
        f"cka/{r.tap}/{r.estimator}/{r.task}": r.value
        for r in records
        if r.student == student and r.relation == OWN and r.value is not None
    }


class Kept(TypedDict, extra_items=Any):  # type: ignore[call-arg]
    """What is read of a line of `measures.json`."""

    student: str
    relation: str
    tap: str
    measure: str
    task: str
    value: float | None


def measure_metrics(path: Path, student: str) -> dict[str, float]:
    """`sim/<tap>/<measure>/<task>` of a student with its own teacher, from `measures.json` where there is one."""
    found: list[Kept] = read_as(list[Kept], path) if path.is_file() else []
    return {
        f"sim/{m['tap']}/{m['measure']}/{m['task']}": m["value"]
        for m in found
        if m["student"] == student and m["relation"] == OWN and m["value"] is not None
    }


def shas_of(records: Sequence[Record]) -> Mapping[str, str]:
    """Digests by name of the students with a teacher, in the order of the records."""
    return {r.student: r.student_sha256 for r in records if r.relation == OWN and parse(r.student).kind != "teacher"}
