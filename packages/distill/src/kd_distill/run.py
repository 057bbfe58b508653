"""One cell from its parameters to the folder of a registered encoder."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import cast

import torch

from kd_distill import models
from kd_distill.active import ActivePairs, Selection
from kd_distill.batch import Stream
from kd_distill.cache import MANIFEST
from kd_distill.cells import Cell
from kd_distill.config import Data, Recipe
from kd_distill.distributed import TIMEOUT, Ranks, joined
from kd_distill.formats import open_pairs
from kd_distill.freeze import freeze
from kd_distill.heads import TeacherHeads
from kd_distill.journal import register
from kd_distill.lineage import WITHOUT_EFFECT, Inputs, inputs_of
from kd_distill.lock import sole_writer
from kd_distill.losses import PATCH_TERMS, TEACHER_TERMS, TEXT_TERMS
from kd_distill.losses.terms import Options
from kd_distill.monitors import Measure
from kd_distill.online import TaughtPairs, Teachers
from kd_distill.optim import average_of, build_optimizer
from kd_distill.pairs import Pairs
from kd_distill.ramps import Ramp, weights_at
from kd_distill.session import Origin, Session, digest_of, start, work_folder
from kd_distill.sources import Source
from kd_distill.state import TrainingState
from kd_distill.task import DistillationTask
from kd_distill.teaching import Progress, Reading, cache_folder, held_out_targets, make_cache, open_teachers, pairs_of
from kd_distill.towers import patch_grid
from kd_distill.tracking import resolve
from kd_distill.train import train
from kd_distill.zeroshot import read_labelled


def train_cell(
    cell: Cell,
    recipe: Recipe,
    data: Data,
    *,
    out: Path,
    runs: Path,
    progress: Progress,
    fork: bool = False,
    ranks_timeout: timedelta = TIMEOUT,
) -> Path:
    """Train one cell into `out`/<name>; killed and called again it goes on where its last checkpoint stands.

    A folder that was trained from the same inputs is kept as it is. Under torchrun all ranks call this; the first
    writes.

    Args:
        fork: Go on with an unfinished run although parameters have changed, as a run of its own.
        ranks_timeout: How long ranks wait for each other.

    Raises:
        RankLostError: If another rank dies or does not answer.
        LockHeldError: If another process writes the same folder.
        ValueError: If an unfinished run has other parameters.
    """
    data = data.of(recipe.mix)
    shards = open_pairs(data.train, data.index, data.network, progress)
    config = models.read_architecture(cell.architecture)
    teachers = _teachers(cell, recipe, data, shards)
    inputs = _inputs(cell, recipe, data, config, shards, teachers)
    folder, work = out / cell.name, work_folder(runs, out, cell.name)
    if digest_of(folder) == inputs.digest:
        return folder
    with joined(ranks_timeout) as ranks, sole_writer(folder) if ranks.first else nullcontext():
        task, pairs = _task(cell, recipe, config, teachers).to(ranks.device), _pairs(data, shards, config, teachers)
        origin = Origin(len(pairs), shards.name, list(teachers.refs))
        run = start(cell, recipe, data, inputs, origin, work, task, ranks, fork=fork)
        state, encoder = _state(task, recipe, ranks)
        measure = _measure(task, data, config, teachers, ranks, recipe)
        with run:
            models.compile_towers(task.student, recipe.compile)
            train(
                task,
                _stream(task, pairs, teachers.to(ranks.device), recipe),
                run.plan,
                weights=partial(weights_at, _weights(recipe, teachers)),
                tower_chunk=recipe.tower_chunk,
                state=state,
                checkpoints=run.checkpoints,
                ranks=ranks,
                log=run.log,
                progress=lambda done: progress(cell.name, done, run.plan.schedule.steps),
                monitor=lambda: measure(encoder),
                export=lambda epoch: run.export(out / cell.name_at(epoch), encoder, task.heads, config, epoch),
            )
            if ranks.first:
                _end(run, measure if recipe.monitor_every else measure.validation, encoder, pairs)
                run.finish(folder, encoder, task.heads, config)
        ranks.wait()
    return folder


def _end(run: Session, measure: Callable[[models.Clip], dict[str, float]], encoder: models.Clip, pairs: Pairs) -> None:
    """The last values of a training."""
    for values in (measure(encoder), pairs.bad()):
        run.log(run.plan.schedule.steps, values)


def _teachers(cell: Cell, recipe: Recipe, data: Data, shards: Source) -> Teachers:
    reading = Reading(
        text=TEACHER_TERMS & TEXT_TERMS & recipe.weights(patches=False).keys(),
        patches=PATCH_TERMS & recipe.weights(patches=False).keys(),
        patches_if_live=bool(PATCH_TERMS & recipe.weights(patches=True).keys()),
        patch_layer=recipe.patch_layer,
    )
    modes = {name: recipe.mode_of(name) for name in cell.teachers}
    return open_teachers(data, modes, shards.digest, reading, recipe.precision)


def _stream(task: DistillationTask, pairs: Pairs, teachers: Teachers, recipe: Recipe) -> Stream:
    """What the student is trained on: pairs, what its teachers say of them, and of those the ones worth most."""
    taught = TaughtPairs(pairs, teachers)
    if recipe.active is None:
        return taught
    return ActivePairs(taught, task, Selection(**recipe.active.model_dump()), task.teachers[0].scale)


def _inputs(cell: Cell, recipe: Recipe, data: Data, config: Mapping, shards: Source, teachers: Teachers) -> Inputs:
    """All that the result depends on."""
    return inputs_of(
        cell=cell.model_dump(mode="json"),
        recipe=recipe.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
        views=[data.views, data.crop_area],
        architecture=config,
        data=shards.digest,
        teachers=teachers.digests,
        init=resolve(cell.init.model).sha256 if cell.init else None,
    )


def _weights(recipe: Recipe, teachers: Teachers) -> dict[str, float | Ramp]:
    """Of the terms that are computed at some step."""
    return recipe.weights(patches=all(teacher.grid for teacher in teachers.infos))


def _task(cell: Cell, recipe: Recipe, config: Mapping, teachers: Teachers) -> DistillationTask:
    terms, scales = _weights(recipe, teachers), recipe.teacher_scales
    if strangers := scales.keys() - set(cell.teachers):
        known = ", ".join(cell.teachers)
        raise ValueError(f"{cell.name}: teacher_scales names {sorted(strangers)}; its teachers are {known}.")
    student = models.build(config, cell.seed)
    if cell.init:
        models.take(student, resolve(cell.init.model).path, cell.init.towers)
    freeze(student, recipe.freeze)
    convolutional = bool(config["vision_cfg"].get("timm_model_name"))
    if convolutional if recipe.channels_last is None else recipe.channels_last:
        student = student.to(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)  # noqa: TID251  the heads' initial weights
        return DistillationTask(
            student,
            terms.keys(),
            student_width=config["embed_dim"],
            preprocessing=models.preprocessing_of(config),
            teachers=[dataclasses.replace(t, scale=scales.get(t.name, t.scale)) for t in teachers.infos],
            student_grid=patch_grid(config) if (PATCH_TERMS | {"mfd"}) & terms.keys() else None,
            patch_layer=recipe.patch_layer,
            options=Options(recipe.fd_reduction, mse_normalise=recipe.mse_normalise, block=recipe.loss_block),
            icl_exp=recipe.icl_exp,
            mask=recipe.mask,
            seed=cell.seed,
            precision=recipe.precision,
        )


def _state(task: DistillationTask, recipe: Recipe, ranks: Ranks) -> tuple[TrainingState, models.Clip]:
    """What is trained, and the encoder that comes of it: the student or its moving average."""
    optimizer = build_optimizer(
        task, lr=recipe.lr, weight_decay=recipe.weight_decay, betas=recipe.betas, eps=recipe.eps
    )
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=recipe.precision == "fp16")
    average = average_of(task.student, recipe.ema)
    return TrainingState(task, optimizer, scaler, average), task.student if average is None else average.module


def _pairs(data: Data, shards: Source, config: Mapping, teachers: Teachers) -> Pairs:
    tokenize = models.Tokenize(config)
    return pairs_of(
        data,
        shards,
        models.preprocessing_of(config),
        tokenize,
        tokens=shards.tokens(tokenize) if data.pretokenise else None,
        caches=teachers.caches,
        others=teachers.looks,
    )


def _measure(
    task: DistillationTask, data: Data, config: Mapping, teachers: Teachers, ranks: Ranks, recipe: Recipe
) -> Measure:
    """What is measured while training; the first teacher is asked only where something is."""
    held_out = _pairs(data, open_pairs(data.val, data.index, data.network), config, Teachers(()))
    watched = bool(recipe.monitor_every) and ranks.first
    first = teachers.infos[0].name if teachers.infos else None
    return Measure(
        task,
        held_out,
        ranks.device,
        task.reads_text,
        labelled=read_labelled(data.classes, held_out.preprocessing) if watched and data.classes else None,
        teacher=held_out_targets(data, teachers.refs[0]) if watched and first else None,
        project=cast(TeacherHeads, task.heads[first]).image if first else None,
    )


def run_all(
    cells: Mapping[str, Cell], recipes: Mapping[str, Recipe], data: Data, *, out: Path, runs: Path, progress: Progress
) -> None:
    """Train and register the cells in their order, each teacher's cache before its students."""
    for cell in cells.values():
        recipe = recipes[cell.recipe]
        for teacher in (name for name in cell.teachers if recipe.mode_of(name) == "cached"):
            of = data.of(recipe.mix)
            if not (cache_folder(of, teacher) / MANIFEST).is_file():
                reads_patches = PATCH_TERMS & recipe.weights(patches=False).keys()
                patches = recipe.patch_layer if reads_patches else None
                make_cache(of, resolve(f"models:/{teacher}@candidate"), progress, patches=patches)
        folder = train_cell(cell, recipe, data, out=out, runs=runs, progress=progress)
        for model in (*(out / cell.name_at(epoch) for epoch in recipe.export_epochs), folder):
            register(model)
