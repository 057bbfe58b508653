"""Teachers from caches and live ones, with real models: what they say is the same, and so is what a student learns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_distill import models
from kd_distill.cache import MANIFEST, TeacherCache, read_manifest
from kd_distill.cli import app
from kd_distill.config import DistillParams
from kd_distill.formats import open_pairs
from kd_distill.online import LiveTeacher, TaughtPairs, Teachers
from kd_distill.params import load_section
from kd_distill.run import _pairs, _task, train_cell
from kd_distill.task import loss_and_gradients
from kd_distill.teaching import make_cache, verify_cache
from kd_distill.tracking import IntegrityError, Model
from typer.testing import CliRunner

from packages.distill.tests.recipe.conftest import ARCHITECTURE, folder_of, model_at
from packages.distill.tests.unit import tiny

pytestmark = pytest.mark.recipe
CPU = torch.device("cpu")
STUDENT = "student-vit--wide--clip-kd"
FLOAT16 = 2.0**-11  # largest relative rounding error of a stored number


def quiet(what: str, done: int, of: int) -> None:
    assert 0 < done <= of, what


def section(project: Path) -> DistillParams:
    return load_section(project / "params.yaml", "distill", DistillParams)


def pairs_for(project: Path, teachers: Teachers):
    data = section(project).data
    return TaughtPairs(_pairs(data, open_pairs(data.train, data.index), ARCHITECTURE, teachers), teachers)


def both_ways(project: Path, wide: Model, patches: str | None = None) -> tuple[Teachers, Teachers]:
    cache = TeacherCache(make_cache(section(project).data, wide, quiet, patches=patches, rows=20))
    return Teachers([cache]), Teachers([LiveTeacher.load(wide, device=CPU, patches=patches)])


def test_a_live_teacher_says_what_its_cache_says(project, wide):
    cached, live = both_ways(project, wide, patches="penultimate")
    assert cached.infos == live.infos
    assert cached.refs == live.refs
    rows = {"batch_size": 16, "order_seed": 3}
    steps = zip(
        pairs_for(project, cached).steps(0, 7, **rows), pairs_for(project, live).steps(0, 7, **rows), strict=True
    )
    for a, b in steps:  # 7 steps of 3 an epoch: both views, and the first again
        assert a.keys == b.keys
        assert not b.others
        (kept,), (now,) = a.teachers, b.teachers
        for stored, again in ((kept.image, now.image), (kept.text, now.text), (kept.patches, now.patches)):
            assert not again.is_inference()
            torch.testing.assert_close(stored, again, rtol=2 * FLOAT16, atol=2e-6)


def losses_and_gradients(project: Path, teachers: Teachers, steps: int) -> list[tuple[float, torch.Tensor]]:
    """Of a student that is trained with plain SGD."""
    params = section(project)
    cell = params.cells[STUDENT]
    recipe = params.recipes[cell.recipe]
    task, found = _task(cell, recipe, ARCHITECTURE, teachers), []
    optimizer = torch.optim.SGD(task.parameters(), lr=1e-2)
    for batch in pairs_for(project, teachers).steps(0, steps, batch_size=16, order_seed=0):
        optimizer.zero_grad()
        loss, _ = loss_and_gradients(task, batch, recipe.losses)
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])))
        optimizer.step()
    return found


def test_training_from_a_cache_is_training_from_a_live_teacher_to_float16(project, wide):
    """A stored number is off by 2^-11 of itself at most. The embeddings of this teacher are much alike, and what is
    learnt is their differences, which may lose two bits more; the loss, in which errors cancel, loses none."""
    cached, live = (losses_and_gradients(project, teachers, 8) for teachers in both_ways(project, wide))
    (loss, gradient), (loss_live, gradient_live) = cached[0], live[0]
    assert loss == pytest.approx(loss_live, rel=FLOAT16 / 10)
    assert (gradient - gradient_live).norm() < 4 * FLOAT16 * gradient_live.norm()
    for (a, _), (b, _) in zip(cached, live, strict=True):
        assert a == pytest.approx(b, rel=FLOAT16)
    assert cached[-1][0] < 0.1 * cached[0][0]


def test_the_recipe_says_whether_a_teacher_runs_live(project, wide, monkeypatch):
    monkeypatch.setattr("kd_distill.teaching.resolve", lambda model: wide)
    params = section(project)
    cell = params.cells[STUDENT]
    with pytest.raises(FileNotFoundError, match="`distill cache` writes it"):
        train_student(project, params.recipes[cell.recipe], "cached")
    folder = train_student(project, params.recipes[cell.recipe].model_copy(update={"teacher_mode": "online"}), "online")
    assert (folder / models.WEIGHTS).is_file()
    assert not (project / "caches").exists()


def train_student(project: Path, recipe, out: str, progress=quiet) -> Path:
    params = section(project)
    return train_cell(
        params.cells[STUDENT], recipe, params.data, out=project / out, runs=project / "runs", progress=progress
    )


def test_several_teachers_are_asked_in_their_order_cached_or_live(project, wide):
    narrow = model_at(folder_of(project, "teacher-narrow", embed_dim=12))
    data = section(project).data
    cache = TeacherCache(make_cache(data, wide, quiet))
    live = LiveTeacher.load(narrow, device=CPU)
    for members in ([cache, live], [live, cache], [live, cache, LiveTeacher.load(wide, device=CPU)]):
        teachers = Teachers(members)
        batch = next(pairs_for(project, teachers).steps(0, 1, batch_size=8, order_seed=0))
        assert [t.image.shape[1] for t in batch.teachers] == [info.width for info in teachers.infos]
        alone = [
            next(pairs_for(project, Teachers([m])).steps(0, 1, batch_size=8, order_seed=0)).teachers[0] for m in members
        ]
        for together, single in zip(batch.teachers, alone, strict=True):
            torch.testing.assert_close(together.image, single.image, rtol=0, atol=1e-6)
            torch.testing.assert_close(together.text, single.text, rtol=0, atol=1e-6)


def test_a_siglip_teacher_reads_its_own_pixels_and_tokens(project):
    folder = project / "models" / "teacher-sig"
    folder.mkdir(parents=True)
    kind = tiny.siglip(tiny.siglip_tokenizer(folder))
    models.save(folder, models.build(kind.config, seed=0), kind.config, kind.preprocessing, _copy(folder))
    teacher, data = model_at(folder), section(project).data
    cache = TeacherCache(make_cache(data, teacher, quiet))
    model, config, look = models.load(folder)
    assert (look.size, look.mean, look.resize_mode) == (160, (0.5, 0.5, 0.5), "squash")
    assert cache.info.preprocessing["size"] == 160
    assert cache.info.tokenizer == models.Tokenize(config, folder).identity
    assert cache.teacher.bias == pytest.approx(model.logit_bias.item())
    shards = open_pairs(data.train, data.index)
    student = _pairs(data, shards, ARCHITECTURE, Teachers([cache])).batch(np.array([7, 30]), 1)
    own = _pairs(data, shards, ARCHITECTURE, Teachers([LiveTeacher.load(teacher, device=CPU)])).batch(
        np.array([7, 30]), 1
    )
    assert student.images.shape[2] == 16
    seen = own.others[0]
    assert seen.images.shape[2] == 160
    with torch.inference_mode():
        image = torch.nn.functional.normalize(model.encode_image(look.normalise(seen.images)), dim=-1)
        text = torch.nn.functional.normalize(
            model.encode_text(models.Tokenize(config, folder)([shards.caption(i) for i in (7, 30)])), dim=-1
        )
    torch.testing.assert_close(student.teachers[0].image, image, rtol=0, atol=1e-3)
    torch.testing.assert_close(student.teachers[0].text, text, rtol=0, atol=1e-3)


def _copy(folder: Path) -> Path:
    """The tokenizer's files in a folder of their own."""
    elsewhere = folder.with_name("tokenizer")
    elsewhere.mkdir()
    for file in folder.iterdir():
        file.rename(elsewhere / file.name)
    return elsewhere


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_parts_of_a_cache_are_made_by_several_commands(project, wide):
    first = call("cache", "--teacher", str(wide.path), "--shard", "1/2", "--patches", "last")
    assert first.exit_code == 0, first.output
    assert "complete when all others are" in first.output
    assert not (project / "caches" / "teacher-wide").exists()
    second = call("cache", "--teacher", str(wide.path), "--shard", "2/2", "--patches", "last")
    assert second.exit_code == 0, second.output
    info, files = read_manifest(project / "caches" / "teacher-wide")
    assert (info.grid, info.patch_width) == ((2, 2), 32)
    assert len(files) == 5  # captions, and embeddings and patch tokens of two views


@pytest.mark.parametrize("arguments", [["--shard", "2"], ["--shard", "3/2"], ["--precision", "fp64"]])
def test_wrong_arguments_exit_with_two(project, wide, arguments):
    assert call("cache", "--teacher", str(wide.path), *arguments).exit_code == 2
    assert not (project / "caches" / "teacher-wide").exists()


def test_verifying_computes_rows_again_and_exits_with_five_where_they_differ(project, wide):
    assert call("cache", "--teacher", str(wide.path), "--patches", "last").exit_code == 0
    good = call("cache-verify", "teacher-wide", "--rows", "6", "--teacher", str(wide.path))
    assert good.exit_code == 0, good.output
    assert "5 files are as they were written, 6 rows are what the teacher gives" in good.output
    file = project / "caches" / "teacher-wide" / "patches-001-000000.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    bad = call("cache-verify", "teacher-wide", "--rows", "0")
    assert bad.exit_code == 5
    assert "patches-001-000000.npy: expected sha256" in bad.output


def test_rows_that_another_teacher_gave_are_noticed(project, wide):
    """A cache whose manifest says one teacher, with the embeddings of another: its digests are right all the same."""
    data = section(project).data
    other = model_at(folder_of(project, "teacher-wide-2"))
    make_cache(data, replace(other, name=wide.name, sha256=wide.sha256), quiet)
    with pytest.raises(IntegrityError, match=r"image of pair \d+ \(\d+\), view \d: expected what the teacher gives"):
        verify_cache(data, wide.name, 4, str(wide.path))


def test_a_cache_of_another_teacher_is_refused_with_the_field(project, wide):
    data = section(project).data
    make_cache(data, wide, quiet)
    content = json.loads((wide.path / models.CONFIG).read_text())
    content["preprocess_cfg"]["resize_mode"] = "squash"
    (wide.path / models.CONFIG).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"teacher: cache .*preprocessing: cache .*'shortest'.*expected .*'squash'"):
        make_cache(data, model_at(wide.path), quiet)
    assert make_cache(data, model_at(wide.path), quiet, replace=True)


def test_a_bf16_cache_is_near_and_says_so(project, wide):
    data = section(project).data
    full = TeacherCache(make_cache(data, wide, quiet)).rows(np.arange(48), 0)
    half = TeacherCache(make_cache(data, wide, quiet, precision="bf16", replace=True))
    assert half.info.precision == "bf16"
    cosine = (full.image * half.rows(np.arange(48), 0).image).sum(dim=1)
    assert 1 - 1e-3 < cosine.min() < 1 - 1e-8
    assert verify_cache(data, wide.name, 4, str(wide.path))[1] == 4


def test_the_folder_of_a_cache_holds_its_manifest_and_nothing_that_runs(project, wide):
    folder = make_cache(section(project).data, wide, quiet)
    assert {f.suffix for f in folder.iterdir()} == {".json", ".npy"}
    assert (folder / MANIFEST).is_file()
