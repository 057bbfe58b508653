"""What the commands do once their parameters are checked; `cli.py` parses and calls."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kd_analysis import view
from kd_analysis.config import AnalysisParams

if TYPE_CHECKING:
    from kd_analysis.scores import Scored
    from kd_analysis.similarity import Record


@dataclass(frozen=True)
class Inputs:
    """Where a report's inputs lie; an absent `evaluated`, `cka` or `missing` leaves its section out."""

    zeroshot: tuple[Path, ...]
    evaluated: tuple[Path, ...]
    cka: Path
    missing: Path | None = None


def report(params: AnalysisParams, inputs: Inputs, out: Path, dry_run: bool, *, registry: bool = False) -> None:
    """Write the report; with `registry` it names each model's registered version and the run that made it."""
    for folder in (*inputs.evaluated, inputs.cka):
        if not folder.is_dir():
            view.say(f"{folder} is not there: the report leaves it out")
    if dry_run:
        from kd_analysis.findings import read_inputs

        zeroshot, vlms, records = read_inputs(inputs.zeroshot, inputs.evaluated, inputs.cka)
        view.say(f"{len(zeroshot)} encoders, {len(vlms)} VLM results, {len(records)} similarities -> {out}")
        return
    with view.spinning() as told:
        told("loading")
        from kd_analysis.claims import Resampling
        from kd_analysis.findings import Settings
        from kd_analysis.missing import read_missing
        from kd_analysis.report import report as write_report
        from kd_analysis.words import sentence, short_answer

        found = write_report(
            inputs.zeroshot,
            inputs.evaluated,
            inputs.cka,
            out,
            Settings(
                Resampling(params.seed, params.n_bootstrap, params.level),
                encoders=params.encoders,
                families=params.families,
                names=params.names,
                epochs=params.epochs,
                recipes=params.told,
                tap=params.taps[0],
            ),
            lookup=_registered if registry else None,
            lost=read_missing(inputs.missing),
            told=told,
        )
    view.say(f"{short_answer(found.answer)}. {sentence(found.answer, found.study)}")
    view.say(f"wrote {out / 'report.html'}")


def _registered(models: "Sequence[Scored]") -> Mapping[str, Mapping[str, str]]:
    from kd_analysis import tracking
    from kd_analysis.mlflow_results import provenance

    return provenance(tracking.client(), [(m.ref.name, m.ref.sha256) for m in models])


def _errors_of(records: "Sequence[Record]", student: str) -> dict[str, float]:
    """`.stderr` and `.n` beside each similarity that is published."""
    from kd_analysis.similarity import OWN

    found: dict[str, float] = {}
    for r in records:
        if r.student == student and r.relation == OWN and r.value is not None:
            name = f"cka/{r.tap}/{r.estimator}/{r.task}"
            found |= {f"{name}.n": float(r.n)} | ({} if r.se is None else {f"{name}.stderr": r.se})
    return found


def publish(params: AnalysisParams, similarities: Path, report_folder: Path, dry_run: bool) -> None:
    """Put similarities on the students' registered models and the report beside them, once."""
    from kd_analysis import tracking
    from kd_analysis.measure import measure_metrics, metrics_of, shas_of
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
            params=settings, metrics=metrics_of(records, name) | _errors_of(records, name)
            | measure_metrics(similarities / "measures.json", name), tags={"stage": "cka"},
            model_sha256=sha256, artifacts=[source],
        )  # fmt: skip
    if pages:
        whole = hashlib.sha256(b"".join(p.read_bytes() for p in pages)).hexdigest()
        tracking.publish(
            "analysis", f"report/{whole}", "report",
            params=settings, metrics={}, tags={"stage": "report"}, artifacts=pages,
        )  # fmt: skip
    view.say(f"published to {tracking.uri()}")
