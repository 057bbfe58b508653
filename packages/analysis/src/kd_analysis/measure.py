"""`analysis cka`: resolve the encoders, compute their features over the distinct images once, compare, write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_analysis import tracking
from kd_analysis.moments import Moments
from kd_analysis.names import parse
from kd_analysis.similarity import (
    ALONE,
    OWN,
    TEACHERS,
    UNTRAINED,
    Features,
    Pair,
    Record,
    compare,
    relation_of,
    write_records,
)

Told = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Encoders:
    """The models of a comparison, by name, and which student was paired with which teacher."""

    students: dict[str, tracking.Model]
    teachers: dict[str, tracking.Model]
    given: frozenset[tuple[str, str]]


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


def plan(encoders: Encoders, architecture: Callable[[Path], str]) -> tuple[list[Pair], dict[str, str]]:
    """Every comparison, and for each untrained architecture a student that has it.

    Each student is compared with each teacher; an untrained student of its architecture with its own teacher (with
    every teacher, if it had none); the teachers with each other.
    """
    pairs: list[Pair] = []
    fresh: dict[str, str] = {}  # architecture -> the features' key
    models: dict[str, str] = {}  # the features' key -> a student
    for student, model in encoders.students.items():
        config = architecture(model.path)
        key = fresh.setdefault(config, f"untrained-{len(fresh)}")
        models.setdefault(key, student)
        for teacher in encoders.teachers:
            relation = relation_of(student, teacher, (student, teacher) in encoders.given)
            pairs.append(Pair(student, teacher, relation, student, teacher))
            if relation in (OWN, ALONE):
                pairs.append(Pair(student, teacher, UNTRAINED, key, teacher))
    teachers = list(encoders.teachers)
    pairs += [Pair(b, a, TEACHERS, b, a) for i, a in enumerate(teachers) for b in teachers[i + 1 :]]
    return pairs, models


def measure(
    encoders: Encoders,
    benchmarks: Path,
    out: Path,
    *,
    tasks: Sequence[str],
    max_images: int | None,
    tap: str,
    estimators: Sequence[str],
    level: float,
    seed: int,
    told: Told = lambda what, done, total: None,
) -> list[Record]:
    """Compute and write `out/cka.json` and `out/states/<student>--vs--<teacher>/<task>.npz` (own teachers).

    Raises:
        kd_analysis.images.ImageError: If a benchmark has no readable images.
    """
    from kd_analysis import features
    from kd_analysis.images import read_pictures

    pairs, fresh = plan(encoders, features.architecture)
    pictures = read_pictures(benchmarks, list(tasks), max_images, lambda done: told("images", done, len(tasks)))
    folders = {name: model.path for name, model in (encoders.teachers | encoders.students).items()}
    loaded = {name: features.load(path) for name, path in folders.items()}
    loaded |= {key: features.untrained(folders[student], seed) for key, student in fresh.items()}
    ids = tuple(pictures.by_id)
    total, done = len(ids) * len(loaded), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        told("features", done, total)

    table = features.extract(loaded, list(pictures.by_id.values()), tap, count)
    records = compare(
        pairs,
        {name: Features(ids, rows) for name, rows in table.items()},
        pictures.tasks,
        tap=tap,
        estimators=estimators,
        level=level,
        sha256={name: model.sha256 for name, model in (encoders.teachers | encoders.students).items()},
        keep=_saver(out / "states"),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_records(out / "cka.json", records)
    return records


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


def shas_of(records: Sequence[Record]) -> Mapping[str, str]:
    """Digests by name of the students with a teacher, in the order of the records."""
    return {r.student: r.student_sha256 for r in records if r.relation == OWN and parse(r.student).kind != "teacher"}
