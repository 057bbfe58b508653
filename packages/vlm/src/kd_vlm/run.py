"""A cell of params.yaml, from its inputs to a finished model folder. A run that is killed goes on where it was."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path

from kd_vlm import tracking
from kd_vlm.adapters import save_adapter
from kd_vlm.assembly import Vlm, save_vlm, standardise_input
from kd_vlm.attention import set_attention
from kd_vlm.checkpoint import Checkpoints, require_room
from kd_vlm.config import Data, Recipe, Stage
from kd_vlm.distributed import Ranks, joined
from kd_vlm.durable import whole_folder
from kd_vlm.evaluate import held_out
from kd_vlm.features import FeatureCache
from kd_vlm.job import Job
from kd_vlm.journal import FINISH_SECONDS, Journal, read_journal
from kd_vlm.lineage import Inputs, go_on
from kd_vlm.lock import sole_writer
from kd_vlm.lora import add_lora, merge
from kd_vlm.material import Material, datasets_of, features_of, gather
from kd_vlm.problems import Policy
from kd_vlm.regimen import Regimen
from kd_vlm.schedule import Schedule
from kd_vlm.train import check_not_past, fit_stage
from kd_vlm.trainer import Upkeep
from kd_vlm.watching import flops_per_token, speed, watcher
from kd_vlm.workspace import console, on_step, progress

STAGES = ("pretrain", "finetune")
COPIES = 3  # of each trained parameter in a checkpoint: itself and two moments
VISION = "vision"  # folder of the caches of visual tokens, which all runs share
ADAPTER = "adapter"  # folder of a stage's LoRA adapter beside the merged model
REGIMEN = {field.name for field in fields(Regimen)} - {"seed"}  # what `Regimen` takes of a stage


@dataclass(frozen=True)
class Habits:
    """What a run does while it trains; none of it changes the result. See `config.Section`."""

    save_every: int = 100
    cache_limit: int = 2_000_000_000
    validate_every: int | None = None
    sample_every: int | None = None
    samples: int = 8
    workers: int = 0
    peak_tflops: float | None = None


@dataclass(frozen=True)
class Run:
    """One run while it lasts. Only the first rank has a journal."""

    job: Job
    work: Path
    vision: Path
    material: Material
    ranks: Ranks
    habits: Habits
    journal: Journal | None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if self.journal:
            self.journal.metrics(step, values)


def _stage(job: Job, name: str) -> Stage:
    return job.recipe.pretrain if name == "pretrain" else job.recipe.finetune


def _regimen(job: Job, name: str) -> Regimen:
    return Regimen(**_stage(job, name).model_dump(include=REGIMEN), seed=job.seed)


def run_vlm(
    job: Job,
    data: Data,
    *,
    out: Path,
    runs: Path,
    habits: Habits = Habits(),
    fork: bool = False,
) -> Path:
    """Train one VLM and write its stock checkpoint to `out`.

    Under torchrun all ranks call this; the first writes. A folder that was trained from the same inputs is kept; what
    a fork wrote was not, it is kept under `fork` alone.

    Args:
        fork: Go on with an unfinished run although parameters have changed, as a run of its own.

    Raises:
        LockHeldError: If another process writes the same folder.
        ValueError: If an unfinished run has other parameters, or with `fork` has done more steps than they ask for.
        Stopped: If a signal asked for it; the checkpoint stands.
    """
    with joined(deepspeed=job.sharded) as ranks, sole_writer(out) if ranks.first else nullcontext():
        if job.sharded and ranks.world == 1:
            console.print("zero_stage: one process has nothing to shard, DeepSpeed is left out (torchrun starts more)")
        material = gather(job.encoder.path, job.lm.path, job.recipe, data, job.seed)
        with ranks.in_turn():
            datasets = datasets_of(data, material) if ranks.first else []
        inputs = job.inputs(ranks.world, datasets)
        if ranks.agreed(ranks.first and _digest_of(out, fork=fork) == inputs.digest):
            return out
        work = runs / f"{job.cell}-{hashlib.sha256(out.as_posix().encode()).hexdigest()[:8]}"
        done, journal = dict.fromkeys(STAGES, 0), None
        tags: dict[str, str] = {}
        if ranks.first:
            require_room(work, 2 * COPIES * _trained_bytes(material.vlm, job.recipe))
            done = {name: Checkpoints(work / name).newest() or 0 for name in STAGES}
            if fork:
                _check_schedules(job, material, work, done, ranks.world)
            journal, tags = _begun(job, work, inputs, data.bad, datasets, sum(done.values()), fork=fork)
        run = Run(job, work, runs / VISION, material, ranks, habits, journal)
        try:
            features, steps = _train(run, done)
            with ranks.in_turn():
                if journal is not None:
                    _score(run, features, steps)
                    _finish(run, out, job.tags(material.vlm) | tags)
        except BaseException as error:
            if journal is not None:
                journal.close(0.0 if isinstance(error, KeyboardInterrupt) else FINISH_SECONDS)
            raise
        ranks.wait()
    return out


def _check_schedules(job: Job, material: Material, work: Path, done: Mapping[str, int], ranks: int) -> None:
    """Raise ValueError if a stage has done more steps than the parameters now ask for; nothing is written before."""
    for name in STAGES:
        if done[name]:
            steps = Schedule.of(material.corpora[name], _regimen(job, name), ranks).steps
            check_not_past(work / name, done[name], steps)


def _begun(
    job: Job, work: Path, inputs: Inputs, bad: Policy, datasets: list[dict[str, str]], done: int, *, fork: bool
) -> tuple[Journal, dict[str, str]]:
    """The run's journal, which goes on after `done` steps, and the tags that say what its model comes from."""
    inputs, forked = go_on(work, inputs, step=done, fork=fork)
    changes = {"kd.changes": json.dumps(list(inputs.changes))} if inputs.changes else {}
    journal = Journal.open(
        work / tracking.JOURNAL,
        experiment="vlm",
        name=job.name,
        params=job.params(inputs.values["ranks"], bad),
        tags={"kd.kind": "vlm", **changes},
        datasets=datasets,
        models=[job.encoder.ref, job.lm.ref],
        resume_step=None if forked else done,
    )
    return journal, {"kd.inputs": inputs.digest, **changes}


def _train(run: Run, done: Mapping[str, int]) -> tuple[FeatureCache, int]:
    """Both stages one after the other. Gives the visual tokens of the second, and the number of all steps."""
    vlm, habits, first = run.material.vlm, run.habits, 0
    features = features_of(run.material, run.vision, habits.cache_limit, run.ranks, max(1, habits.workers))
    run.metrics(0, {f"data/bad/{cause}": n for cause, n in run.material.bad.items()})
    if run.job.recipe.standardise:
        standardise_input(vlm, features["pretrain"].sample())
    for name in STAGES:
        first += _fit(run, name, features[name], first, done[name])
    return features["finetune"], first


def _score(run: Run, features: FeatureCache, step: int) -> None:
    """The scores of the held-out conversations, where there are any."""
    if len(run.material.test):
        seen = held_out(run.material.vlm, run.material.test, features)
        unseen = held_out(run.material.vlm, run.material.blind, features)
        scores = {"loss": seen.loss, "answer_accuracy": seen.accuracy, "blind_answer_accuracy": unseen.accuracy}
        scores["supervised_share"] = run.material.corpora["finetune"].supervised_share
        run.metrics(step, {f"val/{key}": value for key, value in scores.items()})
        console.print(f"{run.job.name}: held out " + ", ".join(f"{key} {value:.3f}" for key, value in scores.items()))


def _fit(run: Run, name: str, features: FeatureCache, first: int, done: int) -> int:
    """One stage, with LoRA where the recipe says so: its adapter is kept, and merged. Gives the number of its steps."""
    stage, vlm, habits = _stage(run.job, name), run.material.vlm, run.habits
    set_attention(vlm.model, stage.attention, stage.precision, packed=stage.sampler == "packing")
    adapted = add_lora(vlm.model, **stage.lora.model_dump(), seed=run.job.seed) if stage.lora else None
    how = _regimen(run.job, name)
    n_steps = Schedule.of(run.material.corpora[name], how, run.ranks.world).steps
    watch, watch_every = _watch(run, features, first) if name == "finetune" else (None, None)
    with progress(show=run.ranks.first) as bars:
        per_token = flops_per_token(vlm.model, stage.language_model == "trained")
        report = on_step(
            run.journal,
            bars,
            f"{run.job.name} {name}",
            n_steps,
            first,
            done=done,
            more=lambda step: speed(step, per_token=per_token, ranks=run.ranks.world, peak_tflops=habits.peak_tflops),
        )
        upkeep = Upkeep(run.work / name, habits.save_every, report, watch, watch_every, habits.workers)
        fit_stage(vlm, run.material.corpora[name], features, how, upkeep, run.ranks)
    if adapted is not None:
        if run.ranks.first:
            save_adapter(adapted, run.work / ADAPTER / name, base=run.job.name)
        merge(adapted)
    return n_steps


def _watch(run: Run, features: FeatureCache, first: int) -> tuple[Callable[[int, Vlm], None], int | None]:
    """What is looked at while finetuning, and every how many steps."""
    return watcher(
        run.material.test,
        features,
        template=run.job.recipe.finetune.template,
        precision=run.job.recipe.finetune.precision,
        validate_every=run.habits.validate_every,
        sample_every=run.habits.sample_every,
        samples=run.habits.samples,
        metrics=lambda step, values: run.metrics(first + step, values),
        table=lambda step, rows: run.journal.table(first + step, "samples", rows) if run.journal else None,
    )


def _finish(run: Run, out: Path, tags: Mapping[str, str]) -> None:
    """Write the model folder, end the journal, and remove the work folder."""
    assert run.journal  # noqa: S101  on the first rank
    with whole_folder(out) as folder:
        save_vlm(run.material.vlm, folder)
        for adapter in sorted((run.work / ADAPTER).glob("*/adapter_*")):
            place = folder / ADAPTER / adapter.parent.name / adapter.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(adapter, place)
        run.journal.finish(kind="vlm", name=run.job.name, tags=tags, folder=folder)
        shutil.copy(run.journal.path, folder / tracking.JOURNAL)
    shutil.rmtree(run.work)


def _digest_of(folder: Path, *, fork: bool) -> str | None:
    """The digest of the inputs that a finished model folder was trained from.

    None where they were changed halfway and `fork` does not say that such a model is meant: it began with others.
    """
    if not (folder / tracking.JOURNAL).is_file():
        return None
    declared = [e for e in read_journal(folder / tracking.JOURNAL) if e["event"] == "model"]
    tags = declared[0]["tags"] if declared else {}
    return tags.get("kd.inputs") if fork or "kd.changes" not in tags else None


def _trained_bytes(vlm: Vlm, recipe: Recipe) -> int:
    """Of the parameters that a stage trains at most; adapters are far smaller."""
    whole = any(stage.language_model == "trained" for stage in (recipe.pretrain, recipe.finetune))
    return sum(p.nbytes for p in (vlm.model if whole else vlm.projector).parameters())
