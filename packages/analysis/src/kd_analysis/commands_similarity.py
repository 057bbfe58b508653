"""What the commands about similarity do once their parameters are checked; `cli_similarity.py` parses and calls."""

from collections.abc import Sequence
from pathlib import Path

from kd_analysis import view
from kd_analysis.config import AnalysisParams


def task_names(params: AnalysisParams) -> list[str]:
    """The tasks to take images from, each with a folder.

    Raises:
        FileNotFoundError: If the benchmarks or one of the tasks are not there.
    """
    if not params.benchmarks.is_dir():
        raise FileNotFoundError(
            f"Expected benchmark folders in {params.benchmarks}, found none. Set analysis.benchmarks."
        )
    there = sorted(p.name for p in params.benchmarks.iterdir() if p.is_dir())
    names = there if params.tasks == "all" else list(params.tasks)
    if missing := sorted(set(names) - set(there)):
        known = ", ".join(there) or "nothing"
        raise FileNotFoundError(f"{params.benchmarks}: expected the tasks {', '.join(missing)}; found {known}.")
    return names


def pair_references(
    params: AnalysisParams, students: Sequence[str], teachers: Sequence[str]
) -> tuple[list[str], list[str], bool]:
    """Students and teachers to compare, and whether they are pairs: from options, parameters or references.

    Raises:
        ValueError: If the options do not pair up.
    """
    from kd_analysis.measure import discovered

    if len(students) != len(teachers):
        raise ValueError(f"--student and --teacher go in pairs; got {len(students)} and {len(teachers)}.")
    if students:
        return list(students), list(teachers), True
    if params.pairs == "discovered":
        return *discovered(params.refs), False
    return [p.student for p in params.pairs], [p.teacher for p in params.pairs], True


def cka(params: AnalysisParams, students: Sequence[str], teachers: Sequence[str], out: Path, dry_run: bool) -> None:
    """Measure and write the similarities."""
    from kd_analysis import measure

    tasks = task_names(params)
    students, teachers, zipped = pair_references(params, students, teachers)
    encoders = measure.resolve(students, teachers, zipped=zipped)
    view.say(
        f"{len(encoders.students)} students, {len(encoders.teachers)} teachers, {len(tasks)} tasks, "
        f"tap {params.tap} -> {out}"
    )
    if dry_run:
        return
    with view.counted() as told:
        records = measure.measure(
            encoders,
            params.benchmarks,
            out,
            tasks=tasks,
            max_images=params.max_images,
            tap=params.tap,
            estimators=params.estimators,
            level=params.level,
            seed=params.seed,
            told=told,
        )
    for reason in sorted({r.reason for r in records if r.reason}):
        view.say(f"no CKA for {sum(r.reason == reason for r in records)} of {len(records)}: {reason}")
    view.say(f"wrote {len(records)} similarities to {out / 'cka.json'}")
