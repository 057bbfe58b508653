"""One training stage on transformers' Trainer: single process, DDP, ZeRO-2 and ZeRO-3 run the same lines.

The Trainer owns the loop, accumulation, mixed precision, clipping and the engines. This subclass says what it leaves
to its user, and replaces what cannot be relied on: its checkpoints (a folder is no checkpoint, a manifest makes one),
its data order (a plan, so that a resumed run needs no fast-forward), its loss divisor (which depends on the name of the
model's class), and its silence about numbers that are not finite.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from kd_vlm.arguments import training_arguments
from kd_vlm.assembly import Vlm
from kd_vlm.batch import normalised
from kd_vlm.checkpoint import Checkpoints, room
from kd_vlm.compiling import as_written
from kd_vlm.distributed import Ranks
from kd_vlm.graph import TrainingGraph
from kd_vlm.optim import (
    Group,
    NonFiniteError,
    Step,
    all_of,
    build_optimizer,
    learning_rate_scale,
    warmup_steps,
)
from kd_vlm.plan import MicroBatch, MicroBatches
from kd_vlm.regimen import Regimen
from kd_vlm.schedule import Schedule
from kd_vlm.signals import StopFlag, Stopped
from kd_vlm.state import load_state, save_state
from kd_vlm.zero import full_parameters, is_engine, load_engine, save_engine

REPORT, SCALER = "nonfinite.json", "scaler.json"
PATIENCE = 20  # updates in a row that fp16's loss scaler may skip


@dataclass(frozen=True)
class Upkeep:
    """What is done around the steps of a stage; none of it changes the result.

    Attributes:
        checkpoint: Folder of the stage's checkpoints.
        save_every: Steps between two of them; one more is made at the end, and when a signal asks to stop.
        on_step: Called on the first rank after every step, before its checkpoint.
        watch: Called on all ranks every `watch_every` steps with the model in evaluation mode.
        workers: Processes that load batches; 0: the training itself.
    """

    checkpoint: Path
    save_every: int
    on_step: Callable[[Step], None]
    watch: Callable[[int, Vlm], None] | None = None
    watch_every: int | None = None
    workers: int = 0


class StageTrainer(Trainer):
    """Trains `graph` from step `start` to the end of `schedule`.

    Args:
        groups: What is trained.
        start: Steps that the newest checkpoint has seen.
        stop: The flag that a signal raises.
    """

    loss_is_scaled_for_ga = True  # compute_loss normalises over the whole step

    def __init__(
        self,
        graph: TrainingGraph,
        how: Regimen,
        schedule: Schedule,
        data: MicroBatches,
        upkeep: Upkeep,
        *,
        groups: Sequence[Group],
        start: int,
        ranks: Ranks,
        stop: StopFlag,
    ) -> None:
        self.graph, self.how, self.schedule, self.data, self.upkeep = graph, how, schedule, data, upkeep
        self.groups, self.start, self.ranks, self.stop = groups, start, ranks, stop
        self.checkpoints = Checkpoints(upkeep.checkpoint)
        self.loss, self.data_seconds, self.began, self.reported = 0.0, 0.0, time.perf_counter(), start
        self.skipped, self.lag = 0, 0  # updates that fp16 has skipped: in a row, and in all
        super().__init__(graph, training_arguments(how, schedule, ranks, upkeep.checkpoint / "trainer"))
        self.callback_handler.callbacks = self.callback_handler.callbacks[:1]  # the flow's; nothing prints or reports

    # ------------------------------------------------------------ what a Trainer leaves to its user

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """This rank's micro-batches. Not sharded by accelerate: the plan has done that."""
        return self.data.after(self.start * self.schedule.accumulation).loader(self.upkeep.workers)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        self.adamw = build_optimizer(self.groups, self.how.weight_decay, self.how.beta2)
        self.optimizer = self.adamw
        return self.adamw

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate as a function of the step's number, so that none of it needs to be saved."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer or self.adamw, lambda step: self._scale(self.start - self.lag + step)
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """The micro-batch's part of the step's loss; checked before anything is done with it."""
        micro: MicroBatch = inputs["micro"]
        self._seed(micro)
        batch = inputs["batch"].to(self.args.device)
        total = model(batch, inputs["features"], inputs["blank"])
        loss = normalised(
            total,
            int(batch.supervised.sum()),
            self.how.loss,
            step_count=micro.step_supervised,
            ranks=self.ranks.world,
            accumulation=micro.accumulation,
        )
        mean = self.ranks.sum(loss.item()) / self.ranks.world
        if not math.isfinite(mean):
            self._refuse("loss", loss.item(), micro)
        self.loss = mean + (self.loss if micro.place else 0.0)
        self.micro = micro
        return loss

    # ------------------------------------------------------------ what is replaced

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        where = super()._init_training_state(*args, **kwargs)
        self.state.global_step = self.start
        return where

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[nn.Module, DataLoader[Any]]:
        """Wrap the model as always; then make sure of the wrapping, and go on from the checkpoint of `start`."""
        model, loader = super()._prepare_for_training(*args, **kwargs)
        expected = {0: "DistributedDataParallel" if self.ranks.world > 1 else type(self.model).__name__}
        expected_name = expected.get(self.how.sharding(self.ranks.world), "DeepSpeedEngine")
        if (type(model).__name__, self.args.world_size) != (expected_name, self.ranks.world):
            raise RuntimeError(
                f"Expected a {expected_name} over {self.ranks.world} processes, accelerate made a "
                f"{type(model).__name__} over {self.args.world_size}. Start with torchrun, not accelerate launch."
            )
        if self.start:
            self._restore(model)
        return model, loader

    def _restore(self, model: nn.Module) -> None:
        place = self.checkpoints.place(self.start)
        if is_engine(model):
            load_engine(model, place)
        else:
            load_state(place, all_of(self.groups), self.adamw)
        if (scaler := self.accelerator.scaler) is not None:
            saved = json.loads((place / SCALER).read_text())
            scaler.load_state_dict(saved["scaler"])
            self.lag = saved["skipped"]
        wrapped: Any = self.optimizer
        for group in wrapped.param_groups:
            group["lr"] = group["peak"] * self._scale(self.start - self.lag)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        began = time.perf_counter()
        found = super().get_batch_samples(*args, **kwargs)
        self.data_seconds = time.perf_counter() - began
        return found

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Over what is trained, in the order of its groups."""
        return self.accelerator.clip_grad_norm_(list(all_of(self.groups).values()), self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        """The gradient's norm; after this the Trainer steps (DeepSpeed has stepped, or seen the overflow and not)."""
        norm = float(super()._get_grad_norm(model, grad_norm) or 0.0)
        if is_engine(self.model_wrapped) and getattr(self.model_wrapped.optimizer, "overflow", False):
            norm = math.inf
        finite = math.isfinite(norm)
        self.skipped, self.lag = (0, self.lag) if finite else (self.skipped + 1, self.lag + 1)
        if self.skipped > (PATIENCE if self.how.precision == "fp16" else 0):
            self._refuse("gradient norm", norm, self.micro)
        return norm

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, grad_norm: Any, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """After every step: report, save, watch, stop, in this order. The Trainer calls it once more at the end."""
        done = self.state.global_step
        if done == self.reported:
            return
        self.reported, last = done, done == self.schedule.steps
        if self.ranks.first:
            seconds, lr = time.perf_counter() - self.began, self.groups[0].lr * self._scale(done - 1)
            self.upkeep.on_step(
                Step(done, self.loss, lr, grad_norm, seconds, self.data_seconds, self.micro.step_tokens)
            )
        stopping = self.ranks.any(self.stop.number is not None)
        if last or stopping or done % self.upkeep.save_every == 0:
            self._commit(done, last=last)
        self._look(done, last=last)
        self.began = time.perf_counter()
        if stopping:  # after the last step, too: another stage may follow
            raise Stopped(self.stop.number, done)

    def _look(self, done: int, *, last: bool) -> None:
        every = self.upkeep.watch_every
        if self.upkeep.watch is not None and every and done % every == 0 and not last:
            self.graph.eval()
            with as_written():
                self.upkeep.watch(done, self.graph.vlm)

    def _commit(self, done: int, *, last: bool) -> None:
        """Commit a checkpoint; that of the last step holds the trained parameters alone, whole and in float32."""
        engine = is_engine(self.model_wrapped)
        named = all_of(self.groups)
        with room(self.checkpoints.place(done)):
            if self.ranks.first:
                self.checkpoints.begin(done)
            self.ranks.wait()
            part = self.checkpoints.part(done)
            if engine and not last:
                save_engine(self.model_wrapped, part)
            whole = full_parameters(named) if engine and last else named
            if self.ranks.first and (last or not engine):
                save_state(part, whole, None if last else self.adamw, done)
            if self.ranks.first and (scaler := self.accelerator.scaler) is not None:
                (part / SCALER).write_text(json.dumps({"scaler": scaler.state_dict(), "skipped": self.lag}))
            self.ranks.wait()
            if self.ranks.first:
                self.checkpoints.commit(done)
            self.ranks.wait()

    # ------------------------------------------------------------ the rest

    def _scale(self, step: int) -> float:
        """The factor on every peak learning rate at `step`."""
        n = self.schedule.steps
        return learning_rate_scale(min(step, n), n, warmup_steps(self.how.warmup_share, n))

    def _seed(self, micro: MicroBatch) -> None:
        """Dropout draws from a stream that depends on seed, step and rank alone."""
        key = [self.how.seed, 2, micro.step, micro.place, self.ranks.rank]
        number = int(np.random.default_rng(key).integers(2**62))
        torch.default_generator.manual_seed(number)
        if self.args.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def _refuse(self, what: str, value: float, micro: MicroBatch) -> None:
        """Write what this rank saw beside the checkpoints, and raise."""
        ids = [self.schedule.corpus.samples[i].id for i in micro.samples]
        place = self.checkpoints.folder / f"{self.ranks.rank}-{REPORT}"
        report = {"step": micro.step + 1, "rank": self.ranks.rank, what: value, "samples": ids}
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(report, indent=1) + "\n")
        raise NonFiniteError(
            f"The {what} is not finite at step {micro.step + 1} (rank {self.ranks.rank}: {value}; samples "
            f"{', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}, all in {place}). The update was not made and the "
            "last checkpoint stands. Look at these samples, lower the learning rate, or use precision fp32."
        )
