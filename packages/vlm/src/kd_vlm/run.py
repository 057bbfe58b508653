"""A cell of params.yaml, from its inputs to a finished model folder. A run that is killed goes on where it was."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_vlm import __version__, tracking
from kd_vlm.adapters import save_adapter
from kd_vlm.assembly import Vlm, save_vlm, standardise_input
from kd_vlm.attention import set_attention
from kd_vlm.checkpoint import Checkpoints, require_room
from kd_vlm.config import Data, Recipe, Stage
from kd_vlm.distributed import Ranks, joined
from kd_vlm.durable import whole_folder
from kd_vlm.evaluate import held_out
from kd_vlm.features import FeatureCache
from kd_vlm.journal import FINISH_SECONDS, Journal, read_journal
from kd_vlm.lineage import Inputs, go_on
from kd_vlm.lock import sole_writer
from kd_vlm.lora import add_lora, merge
from kd_vlm.material import Material, datasets_of, features_of, gather
from kd_vlm.names import vlm_name
from kd_vlm.train import count_steps, fit_stage
from kd_vlm.watching import flops_per_token, speed, watcher
from kd_vlm.workspace import console, flat, millions, on_step, progress

STAGES = ("pretrain", "finetune")
COPIES = 3  # of each trained parameter in a checkpoint: itself and two moments
VISION = "vision"  # folder of the caches of visual tokens, which all runs share
ADAPTER = "adapter"  # folder of a stage's LoRA adapter beside the merged model
FITTED = {  # fields of a stage that `fit_stage` takes as they are
    *("batch_size", "micro_batch_size", "epochs", "projector_lr", "language_model", "language_model_lr"),
    *("warmup_share", "weight_decay", "beta2", "clip", "precision", "tf32", "zero_stage", "gradient_checkpointing"),
    *("loss", "sampler"),
}


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

    name: str
    work: Path
    vision: Path
    recipe: Recipe
    seed: int
    material: Material
    ranks: Ranks
    habits: Habits
    journal: Journal | None

    def stage(self, name: str) -> Stage:
        return self.recipe.pretrain if name == "pretrain" else self.recipe.finetune

    def steps(self, name: str) -> int:
        counting = {"batch_size", "micro_batch_size", "epochs", "sampler"}
        options = self.stage(name).model_dump(include=counting)
        return count_steps(self.material.corpora[name], **options, seed=self.seed, ranks=self.ranks.world)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if self.journal:
            self.journal.metrics(step, values)


def run_vlm(
    cell_name: str,
    encoder: tracking.Model,
    lm: tracking.Model,
    recipe_name: str,
    recipe: Recipe,
    data: Data,
    *,
    seed: int,
    out: Path,
    runs: Path,
    habits: Habits = Habits(),
    fork: bool = False,
) -> Path:
    """Train one VLM and write its stock checkpoint to `out`.

    Under torchrun all ranks call this; the first writes. A folder that was trained from the same inputs is kept.

    Args:
        fork: Go on with an unfinished run although parameters have changed, as a run of its own.

    Raises:
        LockHeldError: If another process writes the same folder.
        ValueError: If an unfinished run has other parameters.
        Stopped: If a signal asked for it; the checkpoint stands.
    """
    registered = vlm_name(encoder.name, lm.name, recipe_name)
    sharded = any(stage.zero_stage for stage in (recipe.pretrain, recipe.finetune))
    with joined(deepspeed=sharded) as ranks, sole_writer(out) if ranks.first else nullcontext():
        if sharded and ranks.world == 1:
            console.print("zero_stage: one process has nothing to shard, DeepSpeed is left out (torchrun starts more)")
        material = gather(encoder.path, lm.path, recipe, data, seed)
        datasets = datasets_of(data, material) if ranks.first else []
        inputs = _inputs(encoder, lm, recipe, seed, ranks, datasets)
        if ranks.agreed(ranks.first and _digest_of(out) == inputs.digest):
            return out
        work = runs / f"{cell_name}-{hashlib.sha256(out.as_posix().encode()).hexdigest()[:8]}"
        done, journal, changes = dict.fromkeys(STAGES, 0), None, {}
        if ranks.first:
            require_room(work, 2 * COPIES * _trained_bytes(material.vlm, recipe))
            done = {name: Checkpoints(work / name).newest() or 0 for name in STAGES}
            inputs, forked = go_on(work, inputs, step=sum(done.values()), fork=fork)
            changes = {"kd.changes": json.dumps(list(inputs.changes))} if inputs.changes else {}
            journal = Journal.open(
                work / tracking.JOURNAL,
                experiment="vlm",
                name=registered,
                params=_params(registered, encoder, lm, recipe_name, recipe, seed, ranks),
                tags={"kd.kind": "vlm", **changes},
                datasets=datasets,
                models=[encoder.ref, lm.ref],
                resume_step=None if forked else sum(done.values()),
            )
        run = Run(registered, work, runs / VISION, recipe, seed, material, ranks, habits, journal)
        try:
            _train(run, done)
            if journal is not None:
                _finish(run, out, _tags(run, encoder, lm, recipe_name) | changes | {"kd.inputs": inputs.digest})
        except BaseException as error:
            if journal is not None:
                journal.close(0.0 if isinstance(error, KeyboardInterrupt) else FINISH_SECONDS)
            raise
        ranks.wait()
    return out


def _train(run: Run, done: Mapping[str, int]) -> None:
    """Both stages one after the other, then the scores of the held-out conversations."""
    vlm, features, first = run.material.vlm, features_of(run.material, run.vision, run.habits.cache_limit, run.ranks), 0
    run.metrics(0, {f"data/bad/{cause}": n for cause, n in run.material.bad.items()})
    if run.recipe.standardise:
        standardise_input(vlm, features["pretrain"].sample())
    for name in STAGES:
        first += _fit(run, name, features[name], first, done[name])
    if run.ranks.first and len(run.material.test):
        seen = held_out(vlm, run.material.test, features["finetune"])
        unseen = held_out(vlm, run.material.blind, features["finetune"])
        scores = {"loss": seen.loss, "answer_accuracy": seen.accuracy, "blind_answer_accuracy": unseen.accuracy}
        scores["supervised_share"] = run.material.corpora["finetune"].supervised_share
        run.metrics(first, {f"val/{key}": value for key, value in scores.items()})
        console.print(f"{run.name}: held out " + ", ".join(f"{key} {value:.3f}" for key, value in scores.items()))


def _fit(run: Run, name: str, features: FeatureCache, first: int, done: int) -> int:
    """One stage, with LoRA where the recipe says so: its adapter is kept, and merged. Gives the number of its steps."""
    stage, vlm, habits = run.stage(name), run.material.vlm, run.habits
    set_attention(vlm.model, stage.attention, stage.precision, packed=stage.sampler == "packing")
    adapted = add_lora(vlm.model, **stage.lora.model_dump(), seed=run.seed) if stage.lora else None
    n_steps = run.steps(name)
    watch, watch_every = (None, None)
    if name == "finetune":
        watch, watch_every = watcher(
            run.material.test,
            features,
            run.material.towers[name],
            template=stage.template,
            precision=stage.precision,
            validate_every=habits.validate_every,
            sample_every=habits.sample_every,
            samples=habits.samples,
            metrics=lambda step, values: run.metrics(first + step, values),
            table=lambda step, rows: run.journal.table(first + step, "samples", rows) if run.journal else None,
        )
    with progress(show=run.ranks.first) as bars:
        per_token = flops_per_token(vlm.model, stage.language_model == "trained")
        report = on_step(
            run.journal,
            bars,
            f"{run.name} {name}",
            n_steps,
            first,
            done=done,
            more=lambda step: speed(step, per_token=per_token, ranks=run.ranks.world, peak_tflops=habits.peak_tflops),
        )
        fit_stage(
            vlm,
            run.material.corpora[name],
            features,
            **stage.model_dump(include=FITTED),
            seed=run.seed,
            checkpoint=run.work / name,
            save_every=habits.save_every,
            on_step=report,
            workers=habits.workers,
            ranks=run.ranks,
            watch=watch,
            watch_every=watch_every,
        )
    if adapted is not None:
        if run.ranks.first:
            save_adapter(adapted, run.work / ADAPTER / name, base=run.name)
        merge(adapted)
    return n_steps


def _finish(run: Run, out: Path, tags: Mapping[str, str]) -> None:
    """Write the model folder, end the journal, and remove the work folder."""
    assert run.journal  # noqa: S101  on the first rank
    with whole_folder(out) as folder:
        save_vlm(run.material.vlm, folder)
        for adapter in sorted((run.work / ADAPTER).glob("*/adapter_*")):
            place = folder / ADAPTER / adapter.parent.name / adapter.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(adapter, place)
        run.journal.finish(kind="vlm", name=run.name, tags=tags)
        shutil.copy(run.journal.path, folder / tracking.JOURNAL)
    shutil.rmtree(run.work)


def _inputs(
    encoder: tracking.Model,
    lm: tracking.Model,
    recipe: Recipe,
    seed: int,
    ranks: Ranks,
    datasets: list[dict[str, str]],
) -> Inputs:
    """All that the result depends on. Another number of processes orders data otherwise."""
    digests = {"encoder": encoder.sha256, "lm": lm.sha256, **{d["name"]: d["digest"] for d in datasets}}
    return Inputs({**digests, **flat(recipe.values), "seed": seed, "ranks": ranks.world, "version": __version__})


def _digest_of(folder: Path) -> str | None:
    """The digest of the inputs that a finished model folder was trained from."""
    if not (folder / tracking.JOURNAL).is_file():
        return None
    declared = [e for e in read_journal(folder / tracking.JOURNAL) if e["event"] == "model"]
    return declared[0]["tags"].get("kd.inputs") if declared else None


def _trained_bytes(vlm: Vlm, recipe: Recipe) -> int:
    """Of the parameters that a stage trains at most; adapters are far smaller."""
    whole = any(stage.language_model == "trained" for stage in (recipe.pretrain, recipe.finetune))
    return sum(p.nbytes for p in (vlm.model if whole else vlm.projector).parameters())


def _params(
    name: str, encoder: tracking.Model, lm: tracking.Model, recipe_name: str, recipe: Recipe, seed: int, ranks: Ranks
) -> dict[str, Any]:
    return {
        **{"kind": "vlm", "name": name, "encoder": encoder.name, "lm": lm.name, "recipe": recipe_name},
        **{"seed": seed, "ranks": ranks.world, **flat(recipe.values)},
    }


def _tags(run: Run, encoder: tracking.Model, lm: tracking.Model, recipe: str) -> dict[str, str]:
    vlm = run.material.vlm
    return {
        "kd.arch": type(vlm.model).__name__,
        "kd.encoder": encoder.name,
        "kd.lm": lm.name,
        "kd.recipe": recipe,
        "kd.data": "llava",
        "kd.seed": str(run.seed),
        "kd.params_m": millions(vlm.model),
        "kd.width": str(vlm.text_config.hidden_size),
        "kd.tokens": str(vlm.tokens_per_image),
    }
