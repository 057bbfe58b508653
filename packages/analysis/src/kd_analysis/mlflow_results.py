"""The table of results read from MLflow: declared columns, page by page, one value a cell.

A score is a metric `eval/<task>/<metric>` of a finished run in the experiment `eval`; a similarity a metric
`cka/<tap>/<estimator>/<task>` in `analysis`. What the scored model is stands in the tags of its registered version, and
for a VLM in those of its encoder's version and of the run that trained that. Every column of the table has one source,
declared in `SOURCES`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_analysis.recipes import Recipe, told
from kd_analysis.results import CKA, ENCODER, NO_TEACHER, PARAMS, SCORE, Result, refuse_duplicates
from kd_analysis.scores import ZEROSHOT, InputError
from kd_analysis.study_results import VLM_SEED
from kd_analysis.tasks import AVERAGE, IMAGENET, task_of

PAGE = 200
PROTOCOL = "paper"  # of the scores that the study is about; another is another measure under the same names
CHOSEN = {  # the metric of a task that is its score, the first that the run has
    "mme_perception": ("score",),
    "mmvp": ("pair_accuracy",),
    "chartqa": ("relaxed_accuracy",),
    "ocrbench": ("exact_accuracy", "accuracy"),
    "textvqa": ("vqa_accuracy",),
    "docvqa": ("anls",),
    ZEROSHOT: ("top1",),
    AVERAGE: ("mean_percent",),
}
UNITS = {"mme_perception": 2000.0, AVERAGE: 100.0}  # the best value of the metric; 1 elsewhere
METRIC = re.compile(r"eval/(?P<task>[^/]+)/(?P<metric>[^/.]+)")


@dataclass(frozen=True)
class Evidence:
    """What MLflow knows of one value.

    Attributes:
        run: Id of the run that holds the metric.
        encoder: Tags of the encoder's registered version.
        training: Parameters of the run that trained the encoder.
        vlm: Tags of the VLM's registered version; empty where the encoder itself was scored.
        task: Benchmark, in the names of MLflow.
        metric: "score" or "cka".
        value: In the metric's own unit; `stderr` and `n` with it.
    """

    run: str
    encoder: Mapping[str, str]
    training: Mapping[str, str]
    vlm: Mapping[str, str]
    task: str
    metric: str
    value: float
    stderr: float = math.nan
    n: float = 0.0

    @property
    def taught(self) -> bool:
        return self.encoder.get("kd.kind") == "student"

    @property
    def unit(self) -> float:
        """From the metric's unit to the printed one."""
        return 1.0 if self.metric != SCORE else task_of(self.printed).best / UNITS.get(self.task, 1.0)

    @property
    def printed(self) -> str:
        return IMAGENET if self.task == ZEROSHOT else self.task


def teacher_of(e: Evidence) -> str:
    """A student's teacher without the registered prefix and the seed; an encoder's own id."""
    if not e.taught:
        return e.encoder.get("kd.arch", "")
    name = e.encoder.get("kd.teacher", NO_TEACHER).removeprefix("teacher-")
    return re.sub(r"-s\d+$", "", name)


def epochs_of(e: Evidence) -> float:
    return float(e.training.get("epochs", 0) or 0) if e.taught else 0.0


SOURCES: dict[str, Callable[[Evidence], Any]] = {
    "framework": lambda e: e.vlm.get("kd.recipe", ""),
    "llm": lambda e: e.vlm.get("kd.lm", "").removeprefix("lm-"),
    "teacher": teacher_of,
    "student": lambda e: e.encoder.get("kd.arch", "") if e.taught else "",
    "loss": lambda e: re.sub(r"-s\d+$", "", e.encoder.get("kd.recipe", "")) if e.taught else "",
    "dataset": lambda e: e.encoder.get("kd.data", "") if e.taught else "",
    "epochs": epochs_of,
    "epoch": lambda e: float(e.encoder.get("kd.epoch", 0) or 0) or epochs_of(e),
    "seed": lambda e: int(e.encoder.get("kd.seed", 0)) + VLM_SEED * int(e.vlm.get("kd.seed", 0)),
    "task": lambda e: e.printed,
    "metric": lambda e: e.metric,
    "value": lambda e: e.value * e.unit,
    "se": lambda e: e.stderr * e.unit,
    "n": lambda e: int(e.n),
    "table": lambda e: "",
    "source": lambda e: f"run {e.run}",
}


def result_of(evidence: Evidence) -> Result:
    """The row of the table."""
    try:
        return Result(**{column: of(evidence) for column, of in SOURCES.items()})
    except (ValueError, OverflowError) as error:  # a tag that is no number, an infinite number of items
        raise InputError(f"run {evidence.run}, {evidence.task}: {error}") from None


def read_mlflow(
    client: Any,
    *,
    latest: bool = False,
    tap: str = "pooled",
    recipes: Mapping[str, Recipe] | None = None,
    page: int = PAGE,
) -> list[Result]:
    """All results of a tracking server.

    Args:
        client: An MlflowClient.
        latest: Where several runs scored one cell, take the last of them.
        tap: Of the similarities.
        recipes: What recipes say beside their names.
        page: Runs asked for at once.

    Raises:
        kd_analysis.results.DuplicateError: If cells have several values, with the list, unless `latest`.
        InputError: If no finished evaluation of the kind is there (`_comparable`), or a scored model is not registered.
    """
    versions = Versions(client)
    runs = [run for run in _finished(client, "eval", page) if _comparable(run)]
    if not runs:
        raise InputError("Expected finished runs in the experiment `eval`, found none. Run `evalsuite publish` first.")
    found = [result_of(e) for run in runs for e in _scores(run, versions)]
    alike = [r for r in _finished(client, "analysis", page) if r.data.tags.get("stage") == "cka"]
    found += [result_of(e) for run in alike for e in _similarities(run, versions, tap)]
    found = told([*found, *versions.sizes(recipes or {})], recipes or {})
    if latest:
        found = list({r.key: r for r in found}.values())  # runs come in the order in which they began
    refuse_duplicates(found)
    return found


def _comparable(run: Any) -> bool:
    """Whether an evaluation is one of the study: sighted, generated replies to all items under the default protocol."""
    tags, limit = run.data.tags, run.data.params.get("limit", "None")
    asked = (tags.get("kd.blind", "false"), tags.get("kd.protocol", PROTOCOL), tags.get("kd.mode", "generate"))
    return asked == ("false", PROTOCOL, "generate") and limit in ("None", "")


def _finished(client: Any, experiment: str, page: int) -> list[Any]:
    """Every finished run of an experiment, oldest first; the server gives them page by page."""
    place = client.get_experiment_by_name(experiment)
    found: list[Any] = []
    token = None
    while place:
        some = client.search_runs(
            [place.experiment_id], "attributes.status = 'FINISHED'", order_by=["attributes.start_time ASC"],
            max_results=page, page_token=token,
        )  # fmt: skip
        found += some
        token = some.token
        if not token:
            break
    return found


def _scores(run: Any, versions: "Versions") -> Iterable[Evidence]:
    model = versions.tagged(run.data.tags.get("sha256", ""), run.info.run_name)
    is_vlm = model.get("kd.kind") == "vlm"
    if is_vlm and "kd.encoder" not in model:
        raise InputError(f"run {run.info.run_id}: {model['name']} has no tag kd.encoder; register it again.")
    name = model["kd.encoder"] if is_vlm else model["name"]
    encoder = versions.named(name) if is_vlm else model
    shared = (encoder, versions.training(encoder), model if is_vlm else {})
    metrics = run.data.metrics
    for task, metric in _chosen(metrics).items():
        key = f"eval/{task}/{metric}"
        stderr, n = metrics.get(f"{key}.stderr", math.nan), metrics.get(f"{key}.n", 0.0)
        yield Evidence(run.info.run_id, *shared, task, SCORE, metrics[key], stderr, n)


def _chosen(metrics: Mapping[str, float]) -> dict[str, str]:
    """The metric of each task that is its score."""
    by_task: dict[str, list[str]] = {}
    for key in metrics:
        if match := METRIC.fullmatch(key):
            by_task.setdefault(match["task"], []).append(match["metric"])
    found = {}
    for task, names in by_task.items():
        wanted = (*CHOSEN.get(task, ()), "accuracy", *(names if len(names) == 1 else ()))
        if chosen := next((name for name in wanted if name in names), None):
            found[task] = chosen
    return found


def _similarities(run: Any, versions: "Versions", tap: str) -> Iterable[Evidence]:
    student = versions.named(run.info.run_name.removeprefix("cka "))
    head = f"cka/{tap}/debiased/"
    metrics = {k.removeprefix(head): v for k, v in run.data.metrics.items() if k.startswith(head)}
    for task, value in metrics.items():
        if "/" not in task and not task.endswith((".stderr", ".n")):
            stderr, n = metrics.get(f"{task}.stderr", math.nan), metrics.get(f"{task}.n", 0.0)
            yield Evidence(run.info.run_id, student, versions.training(student), {}, task, CKA, value, stderr, n)


class Versions:
    """Registered versions by digest and by name, and the runs that trained them; each asked for once."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._by_sha: dict[str, dict[str, str]] = {}
        self._by_name: dict[str, dict[str, str]] = {}
        self._runs: dict[str, Mapping[str, str]] = {}

    def tagged(self, sha256: str, name: str) -> dict[str, str]:
        """The tags of the version with this digest, and its `name` and `run`.

        Raises:
            InputError: If there is none.
        """
        if sha256 not in self._by_sha:
            self._by_sha[sha256] = self._found(f"tags.sha256 = '{sha256}'", f"{name} ({sha256[:12]})")
        return self._by_sha[sha256]

    def named(self, name: str) -> dict[str, str]:
        """The same of the last version of a registered model."""
        if name not in self._by_name:
            self._by_name[name] = self._found(f"name = '{name}'", name)
        return self._by_name[name]

    def _found(self, query: str, name: str) -> dict[str, str]:
        versions = self._client.search_model_versions(query, max_results=PAGE)
        if not versions:
            raise InputError(f"Expected {name} in the registry, found no version of it. Register it (dvc repro does).")
        last = max(versions, key=lambda v: int(v.version))
        return {**last.tags, "name": last.name, "version": str(last.version), "run": last.run_id or ""}

    def training(self, encoder: Mapping[str, str]) -> Mapping[str, str]:
        """The parameters of the run that made an encoder; empty for one that was registered without a run."""
        run = encoder.get("run", "")
        if run and run not in self._runs:
            self._runs[run] = self._client.get_run(run).data.params
        return self._runs.get(run, {})

    def sizes(self, recipes: Mapping[str, Recipe]) -> list[Result]:
        """The parameters of the pretrained encoders that were looked up, students that count as such among them."""
        seen = {v["name"]: v for v in (*self._by_sha.values(), *self._by_name.values())}
        return [
            Result(
                teacher=v.get("kd.arch", v["name"]), student="" if v.get("kd.kind") == "teacher" else v["kd.arch"],
                loss="" if v.get("kd.kind") == "teacher" else v["kd.recipe"], task=ENCODER, metric=PARAMS,
                value=float(v["kd.params_m"]), source=f"{v['name']} version {v['version']}",
            )
            for v in seen.values() if "kd.params_m" in v and _is_pretrained(v, recipes)
        ]  # fmt: skip


def _is_pretrained(version: Mapping[str, str], recipes: Mapping[str, Recipe]) -> bool:
    recipe = recipes.get(version.get("kd.recipe", ""))
    return version.get("kd.kind") == "teacher" or (recipe is not None and bool(recipe.encoder))


def provenance(client: Any, digests: Sequence[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Version, training run and size by digest, of the models (name, sha256) that the registry knows."""
    versions, found = Versions(client), {}
    for name, sha256 in digests:
        try:
            one = versions.tagged(sha256, name)
        except InputError:
            continue
        found[sha256] = {"version": one["version"], "run": one["run"], "params_m": one.get("kd.params_m", "")}
    return found
