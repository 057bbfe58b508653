"""One cell from its parameters to the folder of a registered encoder, and one teacher's cache."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import cast

import torch

from kd_distill import doctor, embed, models
from kd_distill.cache import CacheInfo, TeacherCache, write_cache
from kd_distill.config import Cell, Data, Ramp, Recipe, weights_at
from kd_distill.distributed import Ranks, joined
from kd_distill.formats import open_pairs
from kd_distill.freeze import freeze
from kd_distill.heads import TeacherHeads
from kd_distill.journal import register
from kd_distill.lineage import WITHOUT_EFFECT, Inputs, inputs_of
from kd_distill.lock import sole_writer
from kd_distill.losses import PATCH_TERMS, TEACHER_TERMS, TEXT_TERMS
from kd_distill.losses.terms import Options
from kd_distill.monitors import Measure
from kd_distill.optim import average_of, build_optimizer
from kd_distill.pairs import Pairs
from kd_distill.session import Origin, digest_of, start, work_folder
from kd_distill.sources import Source
from kd_distill.state import TrainingState
from kd_distill.task import DistillationTask
from kd_distill.towers import patch_grid
from kd_distill.tracking import Model, resolve
from kd_distill.train import train
from kd_distill.zeroshot import read_labelled

log = logging.getLogger(__name__)
CROP_SEED = 0  # crops are one for all cells, so that one cache serves them all
Progress = Callable[[str, int, int], None]  # (what, done, of)


def cache_folder(data: Data, teacher: str) -> Path:
    """Where the embeddings of a teacher stand."""
    return data.caches / teacher


def make_cache(data: Data, teacher: Model, progress: Progress) -> Path:
    """Embed every view of every training pair with `teacher`; a cache that is already of these is kept."""
    doctor.vouch(teacher.name, teacher.path)
    shards, folder = open_pairs(data.train, data.index), cache_folder(data, teacher.name)
    model, config, _ = models.load(teacher.path)
    info = CacheInfo(
        schema="kd-cache/1",
        teacher=teacher.ref,
        data_digest=shards.digest,
        seed=CROP_SEED,
        views=data.views,
        crop_area=data.crop_area,
        pairs=len(shards),
        width=config["embed_dim"],
        scale=model.logit_scale.exp().item(),
    )
    if (folder / "cache.json").is_file() and TeacherCache(folder).info == info:
        return folder
    pairs = _pairs(data, shards, config, None)

    def images() -> Iterator[tuple[int, int, torch.Tensor]]:
        for view in range(data.views):
            for row, z in embed.embed_images(model, pairs, view):
                progress(
                    f"{teacher.name}: image embeddings", view * len(shards) + row + len(z), data.views * len(shards)
                )
                yield view, row, z

    write_cache(folder, info, images(), embed.embed_texts(model, pairs))
    return folder


def train_cell(
    cell: Cell, recipe: Recipe, data: Data, *, out: Path, runs: Path, progress: Progress, fork: bool = False
) -> Path:
    """Train one cell into `out`/<name>; killed and called again it goes on where its last checkpoint stands.

    A folder that was trained from the same inputs is kept as it is. Under torchrun all ranks call this; the first
    writes.

    Args:
        fork: Go on with an unfinished run although parameters have changed, as a run of its own.

    Raises:
        LockHeldError: If another process writes the same folder.
        ValueError: If an unfinished run has other parameters.
    """
    shards, config = open_pairs(data.train, data.index), models.read_architecture(cell.architecture)
    cache = _cache_of(cell, recipe, data, shards)
    inputs = _inputs(cell, recipe, data, config, shards, cache)
    folder, work = out / cell.name, work_folder(runs, out, cell.name)
    if digest_of(folder) == inputs.digest:
        return folder
    with joined() as ranks, sole_writer(folder) if ranks.first else nullcontext():
        task, pairs = _task(cell, recipe, config, cache).to(ranks.device), _pairs(data, shards, config, cache)
        origin = Origin(len(pairs), shards.name, [cache.info.teacher] if cache else [])
        run = start(cell, recipe, data, inputs, origin, work, task, ranks, fork=fork)
        state = _state(task, recipe, ranks)
        encoder = task.student if state.average is None else state.average.module
        measure = _measure(task, data, config, cache, ranks, recipe)
        if recipe.compile:
            models.compile_towers(task.student)
        with run:
            train(
                task,
                pairs,
                run.plan,
                weights=partial(weights_at, _weights(recipe, cache)),
                tower_chunk=recipe.tower_chunk,
                state=state,
                checkpoints=run.checkpoints,
                ranks=ranks,
                log=run.log,
                progress=lambda done: progress(cell.name, done, run.plan.schedule.steps),
                monitor=lambda: measure(encoder),
                export=lambda epoch: run.export(out / cell.name_at(epoch), encoder, config, epoch),
            )
            if ranks.first:
                last = measure(encoder) if recipe.monitor_every else measure.validation(encoder)
                for values in (last, pairs.bad()):
                    run.log(run.plan.schedule.steps, values)
                run.finish(folder, encoder, config)
        ranks.wait()
    return folder


def _cache_of(cell: Cell, recipe: Recipe, data: Data, shards: Source) -> TeacherCache | None:
    if cell.teacher is None:
        return None
    cache = TeacherCache(cache_folder(data, cell.teacher))
    if cache.info.teacher["name"] != cell.teacher:
        raise ValueError(f"{cell.name}: expected a cache of {cell.teacher}, found one of {cache.info.teacher['name']}.")
    cache.info.refuse_other(shards.digest, CROP_SEED, data.views, data.crop_area)
    if (terms := TEACHER_TERMS & TEXT_TERMS & set(recipe.losses)) and not cache.has_text:
        raise ValueError(
            f"{cell.name}: the losses {sorted(terms)} compare captions; the cache of {cell.teacher} holds images only. "
            "Import it with --text, or use fd_image."
        )
    return cache


def _inputs(
    cell: Cell, recipe: Recipe, data: Data, config: Mapping, shards: Source, cache: TeacherCache | None
) -> Inputs:
    """All that the result depends on."""
    return inputs_of(
        cell=cell.model_dump(mode="json"),
        recipe=recipe.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
        views=[data.views, data.crop_area],
        architecture=config,
        data=shards.digest,
        teacher=cache.info.teacher["sha256"] if cache else None,
        init=resolve(cell.init.model).sha256 if cell.init else None,
    )


def _weights(recipe: Recipe, cache: TeacherCache | None) -> dict[str, float | Ramp]:
    """Of the terms that are computed at some step."""
    return recipe.weights(patches=cache is not None and cache.teacher.grid is not None)


def _task(cell: Cell, recipe: Recipe, config: Mapping, cache: TeacherCache | None) -> DistillationTask:
    terms = _weights(recipe, cache)
    teachers = [cache.teacher] if cache else []
    if strangers := recipe.teacher_scales.keys() - {teacher.name for teacher in teachers}:
        raise ValueError(f"{cell.name}: teacher_scales names {sorted(strangers)}; its teacher is {cell.teacher}.")
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
            teachers=[dataclasses.replace(t, scale=recipe.teacher_scales.get(t.name, t.scale)) for t in teachers],
            student_grid=patch_grid(config) if (PATCH_TERMS | {"mfd"}) & terms.keys() else None,
            options=Options(recipe.fd_reduction, mse_normalise=recipe.mse_normalise, block=recipe.loss_block),
            icl_exp=recipe.icl_exp,
            mask=recipe.mask,
            seed=cell.seed,
            precision=recipe.precision,
        )


def _state(task: DistillationTask, recipe: Recipe, ranks: Ranks) -> TrainingState:
    optimizer = build_optimizer(
        task, lr=recipe.lr, weight_decay=recipe.weight_decay, betas=recipe.betas, eps=recipe.eps
    )
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=recipe.precision == "fp16")
    return TrainingState(task, optimizer, scaler, average_of(task.student, recipe.ema))


def _pairs(data: Data, shards: Source, config: Mapping, cache: TeacherCache | None) -> Pairs:
    tokenize = models.Tokenize(config)
    return Pairs(
        shards,
        models.preprocessing_of(config),
        tokenize,
        tokens=shards.tokens(tokenize) if data.pretokenise else None,
        seed=CROP_SEED,
        views=data.views,
        crop_area=data.crop_area,
        cache=cache,
        bad_limit=data.bad_limit,
        workers=data.workers,
        timeout=data.timeout,
    )


def _measure(
    task: DistillationTask, data: Data, config: Mapping, cache: TeacherCache | None, ranks: Ranks, recipe: Recipe
) -> Measure:
    """What is measured while training; the teacher is asked only where something is."""
    held_out = _pairs(data, open_pairs(data.val, data.index), config, None)
    watched = bool(recipe.monitor_every) and ranks.first
    return Measure(
        task,
        held_out,
        ranks.device,
        task.reads_text,
        labelled=read_labelled(data.classes, held_out.preprocessing) if watched and data.classes else None,
        teacher=_held_out_targets(data, cache) if watched and cache else None,
        project=cast(TeacherHeads, task.heads[cache.teacher.name]).image if cache else None,
    )


def _held_out_targets(data: Data, cache: TeacherCache) -> torch.Tensor | None:
    """The teacher's embeddings of the held-out images; None for one of which only embeddings are here."""
    try:
        model, config, _ = models.load(resolve(cache.info.teacher).path)
    except FileNotFoundError as error:
        log.warning("No cosine and CKA to the teacher during training: %s", error)
        return None
    pairs = _pairs(data, open_pairs(data.val, data.index), config, None)
    return torch.cat([z for _, z in embed.embed_images(model, pairs, None)])


def run_all(
    cells: Mapping[str, Cell], recipes: Mapping[str, Recipe], data: Data, *, out: Path, runs: Path, progress: Progress
) -> None:
    """Train and register the cells in their order, each teacher's cache before its students."""
    for cell in cells.values():
        if cell.teacher and not (cache_folder(data, cell.teacher) / "cache.json").is_file():
            make_cache(data, resolve(f"models:/{cell.teacher}@candidate"), progress)
        recipe = recipes[cell.recipe]
        folder = train_cell(cell, recipe, data, out=out, runs=runs, progress=progress)
        for model in (*(out / cell.name_at(epoch) for epoch in recipe.export_epochs), folder):
            register(model)
