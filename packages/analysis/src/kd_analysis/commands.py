"""What the commands do once their parameters are checked; `cli.py` parses and calls."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_analysis import view
from kd_analysis.config import AnalysisParams


@dataclass(frozen=True)
class Inputs:
    """Where a report's inputs lie; an absent `evaluated` or `cka` folder leaves its section out."""

    zeroshot: tuple[Path, ...]
    evaluated: tuple[Path, ...]
    cka: Path


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


def report(params: AnalysisParams, inputs: Inputs, out: Path, dry_run: bool) -> None:
    """Write the report."""
    for folder in (*inputs.evaluated, inputs.cka):
        if not folder.is_dir():
            view.say(f"{folder} is not there: the report leaves it out")
    if dry_run:
        from kd_analysis.report import read_inputs

        zeroshot, vlms, records = read_inputs(inputs.zeroshot, inputs.evaluated, inputs.cka)
        view.say(f"{len(zeroshot)} encoders, {len(vlms)} VLM results, {len(records)} similarities -> {out}")
        return
    with view.spinning() as told:
        told("loading")
        from kd_analysis.claims import Resampling
        from kd_analysis.report import report as write_report
        from kd_analysis.words import sentence, short_answer

        found = write_report(
            inputs.zeroshot,
            inputs.evaluated,
            inputs.cka,
            out,
            how=Resampling(params.seed, params.n_bootstrap, params.level),
            encoders=params.encoders,
            told=told,
        )
    view.say(f"{short_answer(found.answer)}. {sentence(found.answer, found.study)}")
    view.say(f"wrote {out / 'report.html'}")


def publish(params: AnalysisParams, similarities: Path, report_folder: Path, dry_run: bool) -> None:
    """Put similarities on the students' registered models and the report beside them, once."""
    from kd_analysis import tracking
    from kd_analysis.measure import metrics_of, shas_of
    from kd_analysis.similarity import read_records

    source = similarities / "cka.json"
    records = read_records(source)
    pages = [p for p in (report_folder / "report.html", report_folder / "report.md") if p.is_file()]
    students = shas_of(records)
    view.say(f"{len(students)} students with similarities, {len(pages)} pages of report")
    if dry_run:
        return
    content = hashlib.sha256(source.read_bytes()).hexdigest()
    settings = {"tap": params.tap, "level": params.level, "seed": params.seed}
    for name, sha256 in students.items():
        tracking.publish(
            "analysis", f"cka/{sha256}/{content}", f"cka {name}",
            params=settings, metrics=metrics_of(records, name), tags={"stage": "cka"},
            model_sha256=sha256, artifacts=[source],
        )  # fmt: skip
    if pages:
        whole = hashlib.sha256(b"".join(p.read_bytes() for p in pages)).hexdigest()
        tracking.publish(
            "analysis", f"report/{whole}", "report",
            params=settings, metrics={}, tags={"stage": "report"}, artifacts=pages,
        )  # fmt: skip
    view.say(f"published to {tracking.uri()}")
