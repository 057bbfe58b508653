"""What one run keeps on disk: its work folder with checkpoints and journal, and the model folders that it ends with."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import nn

from kd_distill import models
from kd_distill.cells import Cell
from kd_distill.checkpoint import Checkpoints, require_room
from kd_distill.config import Data, Recipe
from kd_distill.distributed import Ranks
from kd_distill.durable import whole_folder
from kd_distill.heads import Heads, save_heads
from kd_distill.journal import FINISH_SECONDS, Journal, read_journal
from kd_distill.lineage import Inputs, go_on
from kd_distill.models import Clip
from kd_distill.optim import Schedule
from kd_distill.tracking import JOURNAL
from kd_distill.train import Plan

COPIES = 4  # of each parameter in a checkpoint at most: itself, two moments, its average


def work_folder(runs: Path, out: Path, name: str) -> Path:
    """Where an unfinished run that will write `out`/<name> stands."""
    return runs / f"{name}-{hashlib.sha256(out.as_posix().encode()).hexdigest()[:8]}"


def digest_of(folder: Path) -> str | None:
    """The digest of the inputs that a finished model folder was trained from."""
    if not (folder / JOURNAL).is_file():
        return None
    declared = [e for e in read_journal(folder / JOURNAL) if e["event"] == "model"]
    return declared[0]["tags"].get("kd.inputs") if declared else None


def plan_of(recipe: Recipe, seed: int, samples: int, world: int) -> Plan:
    """The recipe in steps.

    Raises:
        ValueError: If the ranks cannot share a batch, or an epoch is asked for that the run does not reach.
    """
    if recipe.batch_size % world:
        raise ValueError(f"batch_size: expected a multiple of the {world} ranks, got {recipe.batch_size}.")
    steps, horizon = recipe.length(samples)
    exports = {recipe.step_after(epoch, samples): epoch for epoch in recipe.export_epochs}
    if any(step > steps for step in exports):
        raise ValueError(f"export_epochs: {list(recipe.export_epochs)} end at the steps {list(exports)}, of {steps}.")
    return Plan(
        Schedule(recipe.lr, recipe.warmup, steps, horizon, recipe.cooldown),
        recipe.batch_size,
        seed,
        recipe.clip_norm,
        save_every_steps=recipe.save_every_steps,
        save_every_seconds=recipe.save_every_seconds,
        log_every=recipe.log_every,
        monitor_every=recipe.monitor_every,
        exports=exports,
    )


@dataclass(frozen=True)
class Session:
    """One run while it lasts. On other ranks than the first there is no journal, and nothing is written."""

    work: Path
    plan: Plan
    checkpoints: Checkpoints
    journal: Journal | None
    tags: Mapping[str, str]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """A run that fails or is stopped sends what it has; one that is interrupted does not wait for that."""
        if self.journal and kind is not None:
            self.journal.close(0.0 if kind is KeyboardInterrupt else FINISH_SECONDS)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` in the journal, where there are any."""
        if self.journal and values:
            self.journal.metrics(step, values)

    def export(self, folder: Path, encoder: Clip, heads: Heads, config: Mapping[str, Any], epoch: int) -> None:
        """Write encoder and heads as they are after `epoch`; its run goes on."""
        if self.journal:
            with whole_folder(folder) as part:
                models.save(part, encoder, config)
                save_heads(part, heads)
                tags = dict(self.tags) | {"kd.epoch": str(epoch)} | models.describe(encoder, config)
                self.journal.copy_with_model(part / JOURNAL, kind=tags.pop("kd.kind"), name=folder.name, tags=tags)

    def finish(self, folder: Path, encoder: Clip, heads: Heads, config: Mapping[str, Any]) -> None:
        """Write the model folder, end the journal, and remove the work folder."""
        if self.journal:
            with whole_folder(folder) as part:
                models.save(part, encoder, config)
                save_heads(part, heads)
                tags = dict(self.tags) | models.describe(encoder, config)
                self.journal.finish(kind=tags.pop("kd.kind"), name=folder.name, tags=tags, folder=part)
                shutil.copy(self.work / JOURNAL, part / JOURNAL)
            shutil.rmtree(self.work)


@dataclass(frozen=True)
class Origin:
    """What a run learns from: samples of an epoch, where they are, references of the teachers."""

    samples: int
    source: str
    teachers: list[dict[str, str]]


def start(
    cell: Cell,
    recipe: Recipe,
    data: Data,
    inputs: Inputs,
    origin: Origin,
    work: Path,
    task: nn.Module,
    ranks: Ranks,
    *,
    fork: bool,
) -> Session:
    """Begin a run in `work`, or go on with the one that stands there.

    Args:
        inputs: All that the result depends on.
        origin: Where it learns from.
        work: Folder of the run while it lasts.
        task: What will be trained; its size decides how much room is needed.
        fork: See `train_cell`.

    Raises:
        ValueError: If the run there has other parameters.
        StorageError: If two checkpoints would not fit on the disk.
    """
    plan = plan_of(recipe, cell.seed, origin.samples, ranks.world)
    checkpoints = Checkpoints(work / "checkpoints", recipe.keep)
    journal, tags = None, {}
    if ranks.first:
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        checkpoints.sweep()
        require_room(work, 2 * COPIES * sum(p.nbytes for p in task.parameters()))
        saved = checkpoints.newest()
        step = saved.step if saved else 0
        inputs, forked = go_on(work, inputs, step=step, fork=fork)
        tags = _tags(cell, data, inputs)
        journal = Journal.open(
            work / JOURNAL,
            experiment="distill",
            name=cell.name,
            params=_params(cell, recipe, data, plan, origin.samples, ranks.world),
            tags={"kd.changes": tags["kd.changes"]} if inputs.changes else {},
            datasets=[{"name": data.name, "digest": inputs.values["data"], "path": origin.source}],
            models=origin.teachers,
            resume_step=None if forked else step,
        )
    ranks.wait()
    return Session(work, plan, checkpoints, journal, tags)


def _params(cell: Cell, recipe: Recipe, data: Data, plan: Plan, samples: int, world: int) -> dict[str, Any]:
    steps, per_epoch = plan.schedule.steps, samples / recipe.batch_size
    return {
        "kind": cell.kind,
        "architecture": cell.id,
        "teacher": cell.taught_by,
        "recipe": cell.recipe,
        "seed": cell.seed,
        **{key: json.dumps(v) if isinstance(v, dict) else v for key, v in recipe.model_dump(mode="json").items()},
        "steps": steps,
        "epochs": f"{steps / per_epoch:.4g}",
        "steps_per_epoch": f"{per_epoch:.6g}",
        "samples": steps * recipe.batch_size,
        "ranks": world,
        "batch_size_per_rank": recipe.batch_size // world,
        "views": data.views,
        "crop_area": data.crop_area,
    }


def _tags(cell: Cell, data: Data, inputs: Inputs) -> dict[str, str]:
    """What the registry says of the model, apart from what can be seen on it."""
    tags = {
        "kd.kind": cell.kind,
        "kd.arch": cell.id,
        "kd.teacher": cell.taught_by,
        "kd.recipe": cell.recipe,
        "kd.data": data.name,
        "kd.seed": str(cell.seed),
        "kd.inputs": inputs.digest,
    }
    return tags | ({"kd.changes": json.dumps(list(inputs.changes))} if inputs.changes else {})
