"""The training loop of every encoder."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kd_distill.batch import Batch, Rendering, Stream, Targets
from kd_distill.checkpoint import Checkpoints
from kd_distill.distributed import Ranks
from kd_distill.optim import Schedule
from kd_distill.signals import Stopped, stop_flag
from kd_distill.state import TrainingState, parameters_hash, random_numbers
from kd_distill.task import DistillationTask, loss_and_gradients
from kd_distill.tracking import IntegrityError

REPORT = "nonfinite.json"


class NonFiniteError(FloatingPointError):
    """A loss or gradient is not finite; the update was not made."""


@dataclass(frozen=True)
class Plan:
    """The numbers of a run.

    Args:
        schedule: Learning rate; its `steps` are those of the run.
        batch_size: Pairs of a step over all ranks.
        seed: Of the data order and of dropout.
        clip_norm: Largest norm of the gradient of student and heads together.
        save_every_steps: Steps between checkpoints, counted from the first step; None: only by time.
        save_every_seconds: Seconds between checkpoints, by the first rank's clock.
        log_every: Steps between two lines of the journal.
        monitor_every: Steps between two calls of `monitor`; None: never.
        exports: Step to the epoch that ends with it, for each epoch whose encoder is written.
        patience: Updates in a row that fp16 may skip.
    """

    schedule: Schedule
    batch_size: int
    seed: int
    clip_norm: float
    save_every_steps: int | None = None
    save_every_seconds: float = 300.0
    log_every: int = 25
    monitor_every: int | None = None
    exports: Mapping[int, int] = field(default_factory=dict)
    patience: int = 20


def train(  # noqa: C901  the loop, kept whole
    task: DistillationTask,
    pairs: Stream,
    plan: Plan,
    *,
    weights: Callable[[int], Mapping[str, float]],
    tower_chunk: int | None = None,
    state: TrainingState,
    checkpoints: Checkpoints,
    ranks: Ranks = Ranks(),  # noqa: B008  frozen
    log: Callable[[int, dict[str, float]], None],
    progress: Callable[[int], None],
    monitor: Callable[[], dict[str, float]] | None = None,
    export: Callable[[int], None] | None = None,
) -> None:
    """Train to the end of the schedule, from the newest checkpoint where there is one.

    Args:
        task: Student and heads, on the device of `ranks`.
        weights: Of the loss terms at a step.
        tower_chunk: Pairs of a rank that the towers take at once; None for all of them.
        state: All that is resumed, `task` and its optimiser among it.
        log: Called with (steps done, values).
        progress: Called with the number of steps done.
        monitor: Gives further values of the student as it is; called on the first rank, not after the last step.
        export: Called with an epoch of `plan.exports` that has just ended.

    Raises:
        NonFiniteError: If the loss is not finite on any rank, or the gradient is not and precision is not fp16.
        Stopped: If a signal asked for it; the checkpoint stands.
        IntegrityError: If ranks begin with different parameters.
    """
    steps, parameters = plan.schedule.steps, [p for p in task.parameters() if p.requires_grad]
    saved_at = time.monotonic()
    with random_numbers(plan.seed, ranks), stop_flag() as stop:
        start = _resume(state, checkpoints, ranks)
        task.train()
        rows = {"batch_size": plan.batch_size, "order_seed": plan.seed, "rank": ranks.rank, "world": ranks.world}
        for step, batch in enumerate(pairs.steps(start, steps, **rows), start):
            for group in state.optimizer.param_groups:
                group["lr"] = plan.schedule(step)
            state.optimizer.zero_grad(set_to_none=True)
            loss, terms = loss_and_gradients(
                task,
                on_device(batch, ranks.device),
                weights(step),
                step=step,
                chunk=tower_chunk,
                grad_scale=_grad_scale(state.scaler, ranks.device),
            )
            failed, stopping, due = ranks.any(
                not math.isfinite(loss.item()),
                stop.number is not None,
                ranks.first and time.monotonic() - saved_at > plan.save_every_seconds,
            )
            if failed:
                _refuse("loss", loss, terms, batch, step, checkpoints.folder, ranks)
            ranks.mean_gradients(parameters)
            norm, patience = _update(task, state, parameters, plan)
            if not patience:
                _refuse("gradient", norm, terms, batch, step, checkpoints.folder, ranks)
            if step == start:
                _same_everywhere(task, ranks)
            done = step + 1
            last = done == steps
            progress(done)
            if done % plan.log_every == 0 or last:
                values = ranks.mean({f"train/{name}": term for name, term in terms.items()} | {"train/loss": loss})
                log(done, values | _readings(task, state, norm))
            if monitor and ranks.first and plan.monitor_every and done % plan.monitor_every == 0 and not last:
                log(done, monitor())
            if export and done in plan.exports:
                export(plan.exports[done])
            if last or due or stopping or (plan.save_every_steps and done % plan.save_every_steps == 0):
                _save(done, state, checkpoints, ranks)
                saved_at = time.monotonic()
            if stopping and not last:
                raise Stopped(stop.number, done)


def _resume(state: TrainingState, checkpoints: Checkpoints, ranks: Ranks) -> int:
    """Steps done. The first rank sets aside what is damaged before the others look."""
    saved = None
    if ranks.first:
        checkpoints.sweep()
        saved = checkpoints.newest()
    ranks.wait()
    saved = saved if ranks.first else checkpoints.newest()
    if saved:
        state.restore(saved, ranks)
    return saved.step if saved else 0


def _save(step: int, state: TrainingState, checkpoints: Checkpoints, ranks: Ranks) -> None:
    tensors = state.tensors(ranks)
    if ranks.first:
        checkpoints.save(step, tensors, state.values(ranks))


def _grad_scale(scaler: torch.amp.GradScaler, device: torch.device) -> float:
    """The power of two that fp16 gradients are multiplied with; 1 in other precisions."""
    return scaler.scale(torch.ones((), device=device)).item() if scaler.is_enabled() else 1.0


def _update(
    task: DistillationTask, state: TrainingState, parameters: list[nn.Parameter], plan: Plan
) -> tuple[Tensor, bool]:
    """Clip and step. Gives the gradient's norm before clipping, and False where training must not go on.

    A gradient that is not finite leaves the parameters as they are; with a loss scaler that is usual now and then, and
    the scale is lowered.
    """
    scaled = state.scaler.is_enabled()
    if scaled:
        state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, plan.clip_norm)
    if math.isfinite(norm.item()):
        state.optimizer.step()
        state.skipped_in_a_row = 0
    else:
        state.skipped, state.skipped_in_a_row = state.skipped + 1, state.skipped_in_a_row + 1
    state.scaler.update()
    task.clamp_scales()
    if state.average is not None:
        state.average.update_parameters(task.student)
    return norm, state.skipped_in_a_row < (plan.patience if scaled else 1)


def _readings(task: DistillationTask, state: TrainingState, norm: Tensor) -> dict[str, float]:
    found = {
        "train/lr": state.optimizer.param_groups[0]["lr"],
        "train/grad_norm": norm.item(),
        "train/scale": task.student.logit_scale.exp().item(),
    }
    if state.scaler.is_enabled():
        found |= {"train/loss_scale": state.scaler.get_scale(), "train/skipped_updates": float(state.skipped)}
    return found


def _refuse(
    what: str, value: Tensor, terms: Mapping[str, Tensor], batch: Batch, step: int, folder: Path, ranks: Ranks
) -> None:
    """Write what this rank saw beside the checkpoints, and raise."""
    values = {name: term.item() for name, term in terms.items()}
    report = {"step": step, "rank": ranks.rank, what: value.item(), "terms": values, "keys": list(batch.keys)}
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{ranks.rank}-{REPORT}"
    place.write_text(json.dumps(report, indent=1) + "\n")
    raise NonFiniteError(
        f"The {what} is not finite at step {step} (rank {ranks.rank}: {value.item()}; terms {values}; keys "
        f"{', '.join(batch.keys[:8])}{' ...' if len(batch.keys) > 8 else ''}, all in {place}). "
        "The update was not made and the last checkpoint stands. "
        "Look at these samples, lower recipe.lr, or use precision fp32."
    )


def _same_everywhere(task: nn.Module, ranks: Ranks) -> None:
    """After the first update the ranks' parameters must be the same bytes: begun alike, and synchronised."""
    if ranks.world == 1:
        return
    mine = torch.tensor(list(bytes.fromhex(parameters_hash(task))), dtype=torch.uint8)
    hashes = [bytes(other.tolist()).hex()[:12] for other in ranks.gather(mine)]
    if len(set(hashes)) > 1:
        raise IntegrityError(f"The ranks' parameters differ after the first update: {hashes}. Was one built otherwise?")


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    if device.type == "cpu":
        return batch

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    def moved_or_none(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else moved(tensor)

    teachers = tuple(Targets(moved(t.image), moved_or_none(t.text), moved_or_none(t.patches)) for t in batch.teachers)
    others = tuple(Rendering(moved(other.images), moved(other.tokens)) for other in batch.others)
    return replace(batch, images=moved(batch.images), tokens=moved(batch.tokens), teachers=teachers, others=others)
