"""Scores as MLflow metrics, linked to the model by the digest of its files. Needs the extra `mlflow`, not torch."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kd_evalsuite import __version__
from kd_evalsuite.average import AVERAGE
from kd_evalsuite.items import DataError
from kd_evalsuite.predictions import MANIFEST, read_manifest
from kd_evalsuite.records import Score, Scores
from kd_evalsuite.score import ITEMS, SCORES, protocol_of, read_scores
from kd_evalsuite.tasks import DEFAULT_PROTOCOL, prompts_of

PREDICTIONS, TABLE = "predictions", "scores_table.json"  # of a run's artifacts
NOTE = "mlflow.note.content"  # Markdown that MLflow shows on a run's page


def score_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders with scores: the given ones, or those below them.

    Raises:
        DataError: If a given folder leads to none.
    """
    found = []
    for folder in folders:
        below = [folder] if (folder / SCORES).is_file() else sorted(p.parent for p in folder.glob(f"*/{SCORES}"))
        if not below:
            raise DataError(f"Expected {SCORES} in {folder} or in folders below it, found none.")
        found.extend(below)
    return found


def metrics_of(scores: Sequence[Score]) -> dict[str, float]:
    """`eval/<task>/<metric>` with `.stderr` and `.n`; values in their own unit."""
    out: dict[str, float] = {}
    for score in scores:
        name = f"eval/{score.benchmark}/{score.metric}"
        out |= {name: score.value, f"{name}.stderr": score.stderr, f"{name}.n": float(score.n)}
    return out


def publish_folder(folder: Path, predictions: Sequence[Path] = ()) -> str:
    """Record the scores of one folder as a run of experiment `eval`; a second time finds the first.

    Args:
        folder: With `scores.json`; its predictions are taken from it, or from the folder of the same name below one of
            `predictions`, if they are there.
        predictions: Folders of folders of predictions.

    Returns:
        The run's id.
    """
    from kd_evalsuite import tracking

    scores = read_scores(folder)
    key = hashlib.sha256((folder / SCORES).read_bytes()).hexdigest()
    run_id = tracking.publish(
        "eval",
        key,
        run_name(scores),
        params=_params(folder, scores),
        metrics=metrics_of(scores.scores),
        tags={**_tags(folder, scores), NOTE: note(scores)},
        model_sha256=scores.model.sha256 if linked(folder, scores) else None,
        datasets=_datasets(folder),
        artifacts=[path for name in (SCORES, ITEMS) if (path := folder / name).is_file()],
        measured_on={name: name.split("/")[1] for name in metrics_of(scores.scores)},
    )
    if TABLE not in {found.path for found in tracking.client().list_artifacts(run_id)}:
        rows = table(scores)
        tracking.client().log_table(run_id, {key: [row[key] for row in rows] for key in rows[0]}, artifact_file=TABLE)
    there = {found.path for found in tracking.client().list_artifacts(run_id, PREDICTIONS)}
    for path in prediction_files(folder, predictions):
        if f"{PREDICTIONS}/{path.name}" not in there:
            tracking.client().log_artifact(run_id, str(path), PREDICTIONS)
    return run_id


def linked(folder: Path, scores: Scores) -> bool:
    """Whether the metrics are linked to the model.

    Those of a blind model, of another protocol or mode and of a part of the items are not: they would stand beside the
    model's own under the same names.
    """
    if scores.blind or _protocol(scores) not in (DEFAULT_PROTOCOL, None):
        return False
    if not (folder / MANIFEST).is_file():
        return True
    asked = read_manifest(folder)
    return asked.prompts == prompts_of(DEFAULT_PROTOCOL) and asked.mode == "generate" and asked.limit is None


def _protocol(scores: Scores) -> str | None:
    """That of the scores, which may be another than that of the predictions; None of zero-shot classification."""
    return protocol_of(scores.scores[0].benchmark_version)


def table(scores: Scores) -> list[dict[str, object]]:
    """A row a metric, the Average first: what MLflow's table view sets side by side for several models.

    That view takes the first column for its rows and shows the second, until others are chosen.
    """
    ordered = sorted(scores.scores, key=lambda s: s.benchmark != AVERAGE)
    return [
        {
            "metric": f"{s.benchmark}/{s.metric}",
            "score": f"{s.value * scale:.2f} ± {s.stderr * scale:.2f}",
            "n": s.n,
            "chance": None if s.chance is None else round(s.chance * scale, 2),
            "unread": s.n_unparsed,
            "favourite answer": f"{s.top_answer_share:.0%}",
            "model": run_name(scores),
            "version": s.benchmark_version,
        }
        for s in ordered
        for scale in (100 if s.best == 1 else 1,)
    ]


def note(scores: Scores) -> str:
    """The main metrics as Markdown."""
    shown = ("metric", "score", "n", "chance", "unread", "favourite answer")
    main = {f"{s.benchmark}/{s.metric}" for s in scores.scores if s == scores.main(s.benchmark)}
    rows = [[row[key] for key in shown] for row in table(scores) if row["metric"] in main]
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    return "\n".join("|".join(("", *line, "")) for line in (shown, ["---"] * len(shown), *cells))


def prediction_files(folder: Path, predictions: Sequence[Path]) -> list[Path]:
    """The predictions that a folder of scores was computed from, one file a task, where they can be found.

    Those of another manifest than the scores' are not.
    """
    if not (folder / MANIFEST).is_file():
        return []
    manifest = read_manifest(folder)
    for place in (folder, *(root / folder.name for root in predictions)):
        files = [place / f"{key}.jsonl" for key in manifest.tasks]
        if all(file.is_file() for file in files) and read_manifest(place) == manifest:
            return files
    return []


def _tags(folder: Path, scores: Scores) -> dict[str, str]:
    tags = {
        "kd.model": scores.model.name,
        "sha256": scores.model.sha256,
        "kd.blind": str(scores.blind).lower(),
        "kd.evalsuite": __version__,
    }
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        protocol = _protocol(scores) or manifest.protocol
        tags |= {"kd.protocol": protocol, "kd.prompts": manifest.prompts, "kd.mode": manifest.mode}
    return tags


def run_name(scores: Scores) -> str:
    """The model's name, with `-blind` where it was not shown the images."""
    return scores.model.name + ("-blind" if scores.blind else "")


def _params(folder: Path, scores: Scores) -> dict[str, object]:
    versions = {s.benchmark: s.benchmark_version for s in scores.scores if s.benchmark != AVERAGE}
    params: dict[str, object] = {"model": scores.model.name, "blind": scores.blind}
    params |= {f"version/{benchmark}": version for benchmark, version in versions.items()}
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        params |= {
            "protocol": _protocol(scores) or manifest.protocol,
            "prompts": manifest.prompts,
            "limit": manifest.limit,
            "mode": manifest.mode,
        }
    return params


def _datasets(folder: Path) -> list[dict[str, str]]:
    if not (folder / MANIFEST).is_file():
        return []
    tasks = read_manifest(folder).tasks
    return [{"name": key, "digest": task.data_sha256, "path": key} for key, task in tasks.items()]
