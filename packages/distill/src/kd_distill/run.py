"""One cell from its parameters to the folder of a registered encoder, and one teacher's cache."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch

from kd_distill import doctor, embed, models
from kd_distill.cache import CacheInfo, TeacherCache, write_cache
from kd_distill.config import Cell, Data, Ramp, Recipe, weights_at
from kd_distill.formats import open_pairs
from kd_distill.freeze import freeze
from kd_distill.journal import Journal, read_journal, register
from kd_distill.losses import PATCH_TERMS, TEACHER_TERMS, TEXT_TERMS
from kd_distill.losses.terms import Options
from kd_distill.pairs import Pairs
from kd_distill.sources import Source
from kd_distill.task import DistillationTask
from kd_distill.towers import patch_grid
from kd_distill.tracking import JOURNAL, Model, resolve
from kd_distill.train import train

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


def train_cell(cell: Cell, recipe: Recipe, data: Data, *, out: Path, runs: Path, progress: Progress) -> Path:
    """Train one cell into `out`/<name>; killed and called again it goes on where its checkpoint stands.

    A folder that was trained from the same inputs is kept as it is.

    Raises:
        Timeout: (filelock) If the same cell is being trained by another process.
    """
    from filelock import FileLock

    shards = open_pairs(data.train, data.index)
    config = models.read_architecture(cell.architecture)
    cache = _cache_of(cell, recipe, data, shards)
    key = _key(cell, recipe, data, config, shards, cache)
    if _inputs_of(out / cell.name) == key:
        return out / cell.name
    work = runs / f"{cell.name}-{key[:12]}"
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "lock", timeout=0):
        task = _task(cell, recipe, config, cache)
        pairs = _pairs(data, shards, config, cache)
        journal = _journal(work, cell, recipe, data, shards, cache)
        train(
            task,
            pairs,
            weights=partial(weights_at, _weights(recipe, cache)),
            tower_chunk=recipe.tower_chunk,
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            seed=cell.seed,
            lr=recipe.lr,
            warmup=recipe.warmup,
            weight_decay=recipe.weight_decay,
            betas=recipe.betas,
            clip_norm=recipe.clip_norm,
            checkpoint=work / "checkpoint.safetensors",
            log=journal.metrics,
            progress=lambda done: progress(cell.name, done, recipe.steps),
        )
        if bad := pairs.bad():
            journal.metrics(recipe.steps, bad)
        if task.reads_text:
            held_out = _pairs(data, open_pairs(data.val, data.index), config, None)
            journal.metrics(recipe.steps, embed.validate(task.student, held_out))
        folder = _write(out / cell.name, work, task, config, journal, _tags(cell, data, key))
        shutil.rmtree(work)
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


def _key(cell: Cell, recipe: Recipe, data: Data, config: Mapping, shards: Source, cache: TeacherCache | None) -> str:
    """A digest of all that the result depends on: a checkpoint is resumed only where all of it is the same."""
    parts = {
        "cell": cell.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "views": [data.views, data.crop_area],
        "architecture": config,
        "data": shards.digest,
        "teacher": cache.info.teacher["sha256"] if cache else None,
        "init": resolve(cell.init.model).sha256 if cell.init else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
    if config["vision_cfg"].get("timm_model_name"):
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


def _journal(work: Path, cell: Cell, recipe: Recipe, data: Data, shards: Source, cache: TeacherCache | None) -> Journal:
    checkpoint = work / "checkpoint.safetensors"
    params = {
        "kind": cell.kind,
        "architecture": cell.id,
        "teacher": cell.teacher or "none",
        "recipe": cell.recipe,
        "seed": cell.seed,
        **{key: json.dumps(v) if isinstance(v, dict) else v for key, v in recipe.model_dump(mode="json").items()},
        "views": data.views,
        "crop_area": data.crop_area,
    }
    return Journal.open(
        work / JOURNAL,
        experiment="distill",
        name=cell.name,
        params=params,
        datasets=[{"name": data.name, "digest": shards.digest, "path": shards.name}],
        models=[cache.info.teacher] if cache else [],
        resume_step=_step_of(checkpoint) if checkpoint.exists() else 0,
    )


def _step_of(checkpoint: Path) -> int:
    from safetensors import safe_open

    with safe_open(str(checkpoint), "pt") as file:
        return int(file.metadata()["step"])


def _tags(cell: Cell, data: Data, key: str) -> dict[str, str]:
    """What the registry says of the model, apart from what can be seen on it."""
    return {
        "kd.kind": cell.kind,
        "kd.arch": cell.id,
        "kd.teacher": cell.teacher or "none",
        "kd.recipe": cell.recipe,
        "kd.data": data.name,
        "kd.seed": str(cell.seed),
        "kd.inputs": key,
    }


def _inputs_of(folder: Path) -> str | None:
    """The digest of the inputs that a finished model folder was trained from."""
    if not (folder / JOURNAL).is_file():
        return None
    declared = [e for e in read_journal(folder / JOURNAL) if e["event"] == "model"]
    return declared[0]["tags"].get("kd.inputs") if declared else None


def _write(
    folder: Path,
    work: Path,
    task: DistillationTask,
    config: Mapping,
    journal: Journal,
    tags: dict[str, str],
) -> Path:
    """The model folder, as a whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    models.save(part, task.student, config)
    kind = tags.pop("kd.kind")
    journal.finish(kind=kind, name=folder.name, tags=tags | models.describe(task.student, config))
    shutil.copy(work / JOURNAL, part / JOURNAL)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def run_all(
    cells: Mapping[str, Cell], recipes: Mapping[str, Recipe], data: Data, *, out: Path, runs: Path, progress: Progress
) -> None:
    """Train and register the cells in their order, each teacher's cache before its students."""
    for cell in cells.values():
        if cell.teacher and not (cache_folder(data, cell.teacher) / "cache.json").is_file():
            make_cache(data, resolve(f"models:/{cell.teacher}@candidate"), progress)
        register(train_cell(cell, recipes[cell.recipe], data, out=out, runs=runs, progress=progress))
