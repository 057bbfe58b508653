"""Small real runs: from shards and parameters to registered encoders."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_distill import models, tracking
from kd_distill.cli import app
from kd_distill.config import DistillParams
from kd_distill.journal import read_journal, register
from kd_distill.params import load_section
from kd_distill.run import make_cache, train_cell
from typer.testing import CliRunner

from packages.distill.tests.recipe.conftest import write_shard

pytestmark = pytest.mark.recipe
TEACHER, STUDENT = "teacher-wide", "student-vit--wide--clip-kd"


def quiet(what: str, done: int, of: int) -> None:
    assert 0 < done <= of, what


def replace_in_params(project: Path, before: str, after: str) -> None:
    text = (project / "params.yaml").read_text()
    assert before in text
    (project / "params.yaml").write_text(text.replace(before, after))


def section(project: Path) -> DistillParams:
    return load_section(project / "params.yaml", "distill", DistillParams)


def train_one(project: Path, name: str, out: str = "models", progress=quiet) -> Path:
    params = section(project)
    cell = params.cells[name]
    return train_cell(
        cell, params.recipes[cell.recipe], params.data, out=project / out, runs=project / "runs", progress=progress
    )


@pytest.fixture
def teacher(project: Path) -> tracking.Model:
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    return register(train_one(project, TEACHER), project / "refs" / "teacher.json")


@pytest.fixture
def cached(project: Path, teacher: tracking.Model) -> Path:
    return make_cache(section(project).data, teacher, quiet)


def test_the_command_trains_and_registers_every_cell(project):
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    result = CliRunner().invoke(app, ["run", "--params", "params.yaml", "--set", "recipes.pretrain.steps=4"])
    assert result.exit_code == 0, result.output
    names = {m.name for m in tracking.client().search_registered_models()}
    assert names == {TEACHER, STUDENT}
    assert tracking.resolve(f"models:/{STUDENT}").kind == "student"


def test_a_teacher_learns_to_tell_the_colours_apart(project, teacher):
    losses = [
        e["values"]["train/loss"]
        for e in read_journal(teacher.path / "journal.jsonl")
        if "train/loss" in e.get("values", {})
    ]
    pairs_of_one_colour = np.log(2)  # 8 pairs of 4 captions: the best that can be reached
    assert losses[-1] < np.log(8) * 0.75
    assert losses[-1] > pairs_of_one_colour * 0.9


def test_open_clip_loads_the_folder_and_gives_the_same_embeddings(project, teacher):
    import open_clip

    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{teacher.path}")
    theirs.eval()
    ours, _, preprocessing = models.load(teacher.path)
    from PIL import Image

    image = Image.new("RGB", (30, 30), (10, 200, 90))
    with torch.inference_mode():
        torch.testing.assert_close(
            theirs.encode_image(transform(image)[None]),
            ours.encode_image(preprocessing.normalise(preprocessing([image], [None]))),
            atol=1e-5,
            rtol=0,
        )
        tokens = models.Tokenize(json.loads((teacher.path / models.CONFIG).read_text())["model_cfg"])(["a red picture"])
        full = open_clip.get_tokenizer(f"local-dir:{teacher.path}")(["a red picture"])
        assert tokens.shape[1] < full.shape[1]
        torch.testing.assert_close(models.encode_text(ours, tokens), theirs.encode_text(full), atol=1e-6, rtol=0)


def test_a_run_that_was_killed_goes_on_and_ends_bit_for_bit_like_one_that_was_not(project, cached):
    replace_in_params(project, "steps: 12,", "steps: 12, save_every_steps: 4,")
    whole = train_one(project, STUDENT, "whole")

    def die_at_seven(what: str, done: int, of: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_one(project, STUDENT, "resumed", progress=die_at_seven)
    assert not (project / "resumed" / STUDENT).exists()
    steps = []
    resumed = train_one(project, STUDENT, "resumed", progress=lambda what, done, of: steps.append(done))
    assert steps[0] == 5
    assert (whole / models.WEIGHTS).read_bytes() == (resumed / models.WEIGHTS).read_bytes()
    assert not list((project / "runs").iterdir())


def test_a_run_that_was_killed_before_its_first_checkpoint_stays_one_run(project):
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()

    def die_at_thirty(what: str, done: int, of: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_one(project, TEACHER, progress=die_at_thirty)
    key = read_journal(next((project / "runs").glob("*/journal.jsonl")))[0]["key"]
    events = read_journal(train_one(project, TEACHER) / "journal.jsonl")
    assert events[0]["key"] == key
    steps = [e["step"] for e in events if e["event"] == "metrics"]
    assert steps == sorted(steps)
    assert len([s for s in steps if s == 25]) == 1


def test_cached_embeddings_are_the_teachers_of_the_same_crops(project, teacher, cached):
    from kd_distill.cache import TeacherCache
    from kd_distill.online import Teachers
    from kd_distill.run import _pairs
    from kd_distill.shards import PairShards

    params, cache = section(project), TeacherCache(cached)
    model, config, _ = models.load(teacher.path)
    pairs = _pairs(params.data, PairShards(params.data.train), config, Teachers(()))
    indices = np.array([3, 1, 40])
    batch = pairs.batch(indices, 1)
    with torch.inference_mode():
        image = torch.nn.functional.normalize(model.encode_image(pairs.preprocessing.normalise(batch.images)), dim=-1)
        text = torch.nn.functional.normalize(models.encode_text(model, batch.tokens), dim=-1)
    kept = cache.rows(indices, 1)
    torch.testing.assert_close(kept.image, image, atol=1e-3, rtol=0)  # float16 on disk
    torch.testing.assert_close(kept.text, text, atol=1e-3, rtol=0)


def test_a_model_that_was_trained_from_the_same_inputs_is_kept(project, teacher):
    before = (teacher.path / "journal.jsonl").read_bytes()
    train_one(project, TEACHER)
    assert (teacher.path / "journal.jsonl").read_bytes() == before


def test_a_cache_of_other_crops_is_refused(project, cached):
    text = (project / "params.yaml").read_text().replace("views: 2", "views: 3")
    (project / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match="views: cache 2, expected 3"):
        train_one(project, STUDENT)


def test_an_empty_registry_is_filled_from_the_folder(project, teacher, monkeypatch):
    ref = (project / "refs" / "teacher.json").read_bytes()
    before = {k: v for k, v in tracking.client().get_run(runs_of(TEACHER)[0]).data.metrics.items()}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'empty.db'}")
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    assert not tracking.client().search_registered_models()
    register(teacher.path, project / "refs" / "teacher.json")
    assert (project / "refs" / "teacher.json").read_bytes() == ref
    assert tracking.client().get_run(runs_of(TEACHER)[0]).data.metrics == before
    assert tracking.resolve(project / "refs" / "teacher.json").sha256 == teacher.sha256


def test_registering_twice_makes_one_version(project, teacher):
    register(teacher.path)
    assert len(tracking.client().search_model_versions(f"name = '{TEACHER}'")) == 1


def test_a_changed_weight_file_is_refused(project, teacher):
    stored = tracking.resolve(project / "refs" / "teacher.json").path / models.WEIGHTS
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(bytes(content))
    with pytest.raises(tracking.IntegrityError, match="expected sha256"):
        tracking.resolve(project / "refs" / "teacher.json")


def test_wrong_parameters_exit_with_two_before_any_work(project):
    result = CliRunner().invoke(app, ["run", "--set", "recipes.pretrain.lr=-1"])
    assert result.exit_code == 2
    assert "distill.recipes.pretrain.lr: Input should be greater than 0 (got -1)" in result.output
    assert not (project / "models").exists()


def test_a_dry_run_writes_nothing_but_the_index_of_the_pairs(project):
    before = sorted(project.iterdir())
    result = CliRunner().invoke(app, ["run", "--dry-run"])
    assert result.exit_code == 0
    assert "40 steps of 8 = 6.7 epochs" in result.output
    assert sorted(project.iterdir()) == sorted([*before, project / "pairs.index"])


def runs_of(name: str) -> list[str]:
    experiment = tracking.client().get_experiment_by_name("distill")
    found = tracking.client().search_runs([experiment.experiment_id])
    return [r.info.run_id for r in found if r.info.run_name == name]


def test_a_training_over_a_mix_with_bad_pairs_is_the_same_killed_or_not(project):
    """Two parts, one of them with a damaged image that is skipped; four threads; killed at step 7."""
    write_shard(project / "more" / "00000.tar", 12)
    damage(project / "more" / "00000.tar", 5)
    text = (project / "params.yaml").read_text()
    mix = "[{path: pairs}, {path: more, epochs: 2}]"
    (project / "params.yaml").write_text(
        text.replace("train: pairs,", f"train: {mix}, bad_limit: 0.1, workers: 4,").replace(
            "steps: 40", "steps: 12, save_every_steps: 4"
        )
    )
    whole = train_one(project, TEACHER, "whole")

    def die_at_seven(what: str, done: int, of: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_one(project, TEACHER, "resumed", progress=die_at_seven)
    resumed = train_one(project, TEACHER, "resumed")
    assert (whole / models.WEIGHTS).read_bytes() == (resumed / models.WEIGHTS).read_bytes()
    metrics = [e["values"] for e in read_journal(resumed / "journal.jsonl") if e["event"] == "metrics"]
    assert {"data/bad/damaged or truncated image": 1.0} in metrics
    ledger = next((project / "more.index").glob("*/ledger.jsonl"))
    assert [json.loads(line)["key"] for line in ledger.read_text().splitlines()] == ["000000005"]


def test_a_students_folder_holds_the_heads_that_it_was_distilled_through(project, cached):
    from safetensors.torch import load_file

    heads = load_file(train_one(project, STUDENT) / "heads.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in heads.items()} == {
        f"{TEACHER}.{side}.{part}": (24, 16) if part == "weight" else (24,)
        for side in ("image", "text")
        for part in ("weight", "bias")
    }
    assert not (project / "models" / TEACHER / "heads.safetensors").exists()


def test_a_recipe_trains_on_the_mix_it_names_from_a_cache_of_that_mix(project, teacher):
    write_shard(project / "more" / "00000.tar", 16)
    replace_in_params(project, "caches: caches", "caches: caches, mixes: {both: [{path: pairs}, {path: more}]}")
    replace_in_params(project, "steps: 12,", "mix: both, epochs: 2,")
    CliRunner().invoke(app, ["cache", "--teacher", "refs/teacher.json", "--mix", "both"], catch_exceptions=False)
    assert (project / "caches" / "both" / TEACHER / "cache.json").is_file()
    assert not (project / "caches" / TEACHER).exists()
    events = read_journal(train_one(project, STUDENT) / "journal.jsonl")
    assert (events[0]["params"]["samples"], events[0]["params"]["steps_per_epoch"]) == ("128", "8")  # 2 x (48 + 16)
    assert events[0]["datasets"][0]["name"] == "pairs+more"
    assert CliRunner().invoke(app, ["cache", "--teacher", "refs/teacher.json", "--mix", "none"]).exit_code == 2


def test_checking_the_data_counts_by_cause_and_exits_with_three_above_the_limit(project):
    damage(project / "pairs" / "00000.tar", 5)
    result = CliRunner().invoke(app, ["validate-data"])
    assert result.exit_code == 3
    assert "pairs: 48 pairs indexed, 1 cannot be used\n  1 damaged or truncated image\n" in result.output
    assert "expected at most 1.00%" in result.output
    result = CliRunner().invoke(app, ["validate-data", "--set", "data.bad_limit=0.05"])
    assert result.exit_code == 0
    result = CliRunner().invoke(app, ["run", "--cell", TEACHER])
    assert result.exit_code == 3
    assert "data.bad_limit" in result.output


def damage(shard: Path, number: int) -> None:
    """Zeros over the second half of an image; sizes and offsets stay."""
    with tarfile.open(shard) as tar:
        member = tar.getmember(f"{number:09d}.jpg")
    content = bytearray(shard.read_bytes())
    content[member.offset_data + member.size // 2 : member.offset_data + member.size] = bytes(-(-member.size // 2))
    shard.write_bytes(content)
