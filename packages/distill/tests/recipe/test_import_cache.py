"""Embeddings from elsewhere as a teacher's cache, and students of them."""

import re
from pathlib import Path

import numpy as np
import pytest
from kd_distill.cache import TeacherCache
from kd_distill.cli import app
from kd_distill.config import DistillParams
from kd_distill.journal import read_journal
from kd_distill.params import load_section
from kd_distill.run import train_cell
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe
STUDENT = "student-vit--elsewhere--fd"


@pytest.fixture
def elsewhere(project: Path) -> Path:
    """A project whose only teacher is not here; 48 embeddings of it that tell the four colours apart."""
    text = (project / "params.yaml").read_text()
    head = (
        text[: text.index("  from_scratch:")]
        .replace("views: 2", "views: 1")
        .replace("crop_area: 0.9", "crop_area: 1.0")
    )
    head = head.replace(
        "{task: 1, ckd: 1, fd: 2000, icl: 1}, steps: 12", "{task: 1, ckd: 1, fd: 2000, icl: 1}, steps: 4"
    )
    (project / "params.yaml").write_text(
        head
        + "    fd: {losses: {fd_image: 1}, fd_reduction: mean_n, steps: 60,"
        + " batch_size: 8, warmup: 2, lr: 3e-3, weight_decay: 0.1}\n"
        + f"""\
  from_scratch: {{}}
  distilled:
    {STUDENT}: {{kind: student, id: vit, architecture: tiny.json, recipe: fd, teacher: teacher-elsewhere}}
    student-vit--elsewhere--clip-kd:
      {{kind: student, id: vit, architecture: tiny.json, recipe: clip-kd, teacher: teacher-elsewhere}}
  cached: [teacher-elsewhere]
"""
    )
    np.save(project / "image.npy", 3 * np.eye(4, 24, dtype=np.float32)[np.arange(48) % 4])
    return project


def call(*arguments: str, name: str = "teacher-elsewhere"):
    return CliRunner().invoke(app, ["import-cache", "--name", name, "--image", "image.npy", *arguments])


def train(project: Path, name: str) -> Path:
    params = load_section(project / "params.yaml", "distill", DistillParams)
    cell = params.cells[name]
    return train_cell(
        cell,
        params.recipes[cell.recipe],
        params.data,
        out=project / "models",
        runs=project / "runs",
        progress=lambda what, done, of: None,
    )


def test_a_student_learns_the_features_of_images_from_an_imported_cache(elsewhere):
    assert call().exit_code == 0
    cache = TeacherCache(elsewhere / "caches" / "teacher-elsewhere")
    targets = cache.rows(np.arange(5), 0)
    assert targets.text is None
    np.testing.assert_array_equal(targets.image.numpy(), np.eye(4, 24)[np.arange(5) % 4])
    events = read_journal(train(elsewhere, STUDENT) / "journal.jsonl")
    losses = [e["values"]["train/fd_image"] for e in events if "train/fd_image" in e.get("values", {})]
    constant = 2 - 2 * 0.5  # the best that one answer for all four colours gives
    assert losses[-1] < constant / 2
    assert not any("val/loss" in e.get("values", {}) for e in events)  # the text tower has learnt nothing


def test_a_term_that_compares_captions_needs_the_captions_of_the_cache(elsewhere):
    assert call().exit_code == 0
    with pytest.raises(
        ValueError, match=r"'ckd', 'fd', 'icl'. compare captions.*Import it with --text, or use fd_image"
    ):
        train(elsewhere, "student-vit--elsewhere--clip-kd")


def test_a_cache_with_captions_serves_every_term(elsewhere):
    np.save("text.npy", np.load("image.npy") + 0.1)
    assert call("--text", "text.npy", "--scale", "20").exit_code == 0
    assert TeacherCache(elsewhere / "caches" / "teacher-elsewhere").info.scale == 20
    assert train(elsewhere, "student-vit--elsewhere--clip-kd").is_dir()


def test_other_embeddings_under_the_same_name_are_another_teacher(elsewhere):
    call()
    before = TeacherCache(elsewhere / "caches" / "teacher-elsewhere").info.teacher["sha256"]
    np.save("image.npy", np.load("image.npy") + 0.1)
    call()
    assert TeacherCache(elsewhere / "caches" / "teacher-elsewhere").info.teacher["sha256"] != before


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((47, 24), np.float32), r"expected floats of shape \(48, d\)"),
        (np.ones((48, 24), np.int64), "got int64"),
        (np.ones(48, np.float32), r"got float32 \(48,\)"),
        (np.eye(48, 47, dtype=np.float32), "1 rows are zero or not finite, the first of them row 47"),
        (np.full((48, 24), np.nan), "48 rows are zero or not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(elsewhere, array, message):
    np.save("image.npy", array)
    result = call()
    assert result.exit_code == 2
    assert re.search(message, result.output)
    assert not (elsewhere / "caches").exists()


@pytest.mark.parametrize("change", ["data.views=2", "data.crop_area=0.9"])
def test_embeddings_of_crops_cannot_be_imported(elsewhere, change):
    result = call("--set", change)
    assert result.exit_code == 2
    assert "expected data.views 1 and data.crop_area 1.0" in result.output


def test_a_teacher_that_no_parameter_names_is_refused(elsewhere):
    result = call(name="teacher-els")
    assert result.exit_code == 2
    assert "expected a teacher that `cached` names (teacher-elsewhere)" in result.output


def test_a_missing_file_is_named(elsewhere):
    result = call("--text", "none.npy")
    assert result.exit_code == 2
    assert "none.npy" in result.output
