import dataclasses
import json

import pytest
import torch
from kd_distill import models, reference
from kd_distill.cli import app
from kd_distill.doctor import construction, examine, vouch
from kd_distill.teachers import TEACHERS
from PIL import Image
from typer.testing import CliRunner

from packages.distill.tests.unit import tiny

SMALL, LARGE = tiny.clip("clip-b16", layers=2), tiny.clip("clip-l14", layers=3)


def _write(folder, teacher, config=None, seed=0):
    folder.mkdir()
    models.save(folder, models.build(teacher.config, seed), config or teacher.config, teacher.preprocessing)
    return folder


def _failed(checks):
    return {check.what for check in checks if not check.ok}


def _edit(folder, part, **change):
    file = folder / models.CONFIG
    whole = json.loads(file.read_text())
    (whole["model_cfg"] if part == "model" else whole["preprocess_cfg"]).update(change)
    file.write_text(json.dumps(whole))


@pytest.mark.parametrize("name", TEACHERS)
def test_the_constructions_of_all_five_are_sound(name):
    assert not _failed(construction(TEACHERS[name]))


def test_a_sound_teacher_passes(tmp_path):
    checks = examine(_write(tmp_path / "m", SMALL), SMALL)
    assert len(checks) > 12
    assert not _failed(checks)


def test_a_small_checkpoint_under_a_large_ones_name_is_caught(tmp_path):
    """What the paper's appendix says of its two CLIP teachers."""
    failed = _failed(examine(_write(tmp_path / "m", SMALL), LARGE))
    assert {"image parameters", "vision_cfg.layers"} <= failed


def test_real_sizes_are_told_apart_by_their_counts_and_the_hint_names_the_right_one(tmp_path):
    """The shapes of a real ViT-B/16 in a file of zero bytes a weight would not fit; the heads of files are enough."""
    from kd_distill.doctor import _counts

    shapes = {n: tuple(v.shape) for n, v in models.outline(TEACHERS["clip-b16"].config).state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kd_distill.doctor._shapes", lambda _: shapes)
        image, text = _counts(tmp_path, TEACHERS["clip-l14"])
    assert not image.ok
    assert image.came == "86,192,640 (as clip-b16 and dfn-b16)"
    assert (text.expected, text.came[:10]) == ("123,650,304", "63,428,096")


def test_weights_of_another_model_than_the_configuration_are_caught(tmp_path):
    folder = _write(tmp_path / "m", SMALL, config=LARGE.config)
    assert {"weights and their configuration", "image parameters"} <= _failed(examine(folder, LARGE))
    with pytest.raises(ValueError, match="does not fit its configuration: 12 weights are missing"):
        models.load(folder)


def test_gelu_where_quickgelu_was_promised_is_caught(tmp_path):
    folder = _write(tmp_path / "m", SMALL)
    _edit(folder, "model", quick_gelu=False)
    assert _failed(examine(folder, SMALL)) == {"activation"}


def test_gelu_for_quickgelu_is_caught_by_the_reference_though_all_shapes_agree(tmp_path):
    folder = _write(tmp_path / "m", SMALL)
    reference.write(folder, folder / reference.FILE)
    assert not _failed(examine(folder, None))
    _edit(folder, "model", quick_gelu=False)
    assert _failed(examine(folder, None)) == {"reference"}


@pytest.mark.parametrize(
    ("part", "change", "what"),
    [
        ("preprocess", {"mean": [0.5, 0.5, 0.5]}, "mean"),
        ("preprocess", {"resize_mode": "squash"}, "resize_mode"),
        ("preprocess", {"interpolation": "bilinear"}, "interpolation"),
        ("model", {"text_cfg": tiny.TEXT | {"vocab_size": 49408, "pool_type": "last"}}, "text_cfg.pool_type"),
    ],
)
def test_wrong_settings_that_load_without_error_are_caught_by_name_and_by_reference(tmp_path, part, change, what):
    folder = _write(tmp_path / "m", SMALL)
    reference.write(folder, tmp_path / "numbers.json")
    _edit(folder, part, **change)
    assert _failed(examine(folder, SMALL)) == {what}
    if what != "interpolation":  # of so smooth pictures it changes little
        assert _failed(examine(folder, None, stored=tmp_path / "numbers.json")) == {"reference"}


def test_other_weights_of_the_same_architecture_are_caught_by_the_reference(tmp_path):
    reference.write(_write(tmp_path / "m", SMALL), tmp_path / "numbers.json")
    checks = examine(_write(tmp_path / "n", SMALL, seed=1), SMALL, stored=tmp_path / "numbers.json")
    assert _failed(checks) == {"reference"}


def test_a_scale_other_than_the_published_one_is_caught(tmp_path):
    folder = _write(tmp_path / "m", SMALL)  # 1 / 0.07 as it is initialised
    assert _failed(examine(folder, dataclasses.replace(SMALL, scale=100.0))) == {"logit scale"}


def test_zero_shot_on_a_folder_of_pictures(tmp_path):
    """A random model sees all pictures of one colour alike: with two classes it gets all or nothing of each."""
    folder = _write(tmp_path / "m", SMALL)
    for name, colour in (("dog", (250, 0, 0)), ("cat", (0, 0, 250))):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (40, 30), colour).save(tmp_path / "classes" / name / f"{i}.png")
    check = examine(folder, None, classes=tmp_path / "classes", at_least=0.0)[-1]
    assert check.ok
    right, total = map(int, check.came.split(" ")[0].split("/"))
    assert total == 4
    assert right in (0, 2, 4)
    assert examine(folder, None, classes=tmp_path / "classes", at_least=(right + 1) / 4)[-1].ok is False
    with pytest.raises(ValueError, match="two or more folders"):
        examine(folder, None, classes=tmp_path / "classes" / "dog")


def test_a_run_is_not_given_a_teacher_under_anothers_name(tmp_path):
    folder = _write(tmp_path / "m", SMALL)
    with pytest.raises(ValueError, match="image parameters: expected 303,966,208"):
        vouch("teacher-clip-l14", folder)
    vouch("teacher-small", folder)  # of which nothing is promised
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kd_distill.teachers.TEACHERS", {SMALL.name: SMALL})
        vouch("teacher-clip-b16", folder)


def test_nothing_to_check_against_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing to check it against"):
        examine(_write(tmp_path / "m", SMALL), None)


def test_a_weights_file_cut_short_is_named(tmp_path):
    file = _write(tmp_path / "m", SMALL) / models.WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cut short"):
        examine(tmp_path / "m", SMALL)


def test_a_reference_of_other_inputs_is_refused(tmp_path):
    file = tmp_path / "numbers.json"
    file.write_text(json.dumps({"schema": reference.SCHEMA, "inputs": "0" * 16, "cosines": []}))
    with pytest.raises(ValueError, match="other images and captions"):
        reference.read(file)
    file.write_text("[]")
    with pytest.raises(ValueError, match="expected a reference of schema"):
        reference.read(file)


def test_a_reference_does_not_depend_on_what_else_is_in_the_batch_or_on_threads(tmp_path):
    model, config, view = models.load(_write(tmp_path / "m", SMALL))
    one = reference.cosines(model, view, models.Tokenize(config))
    torch.testing.assert_close(one, one.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(one.diagonal(), torch.ones(8), rtol=0, atol=1e-6)


def test_the_command_says_what_was_expected_what_came_and_what_to_do(tmp_path):
    folder = _write(tmp_path / "teacher-clip-l14", SMALL)
    result = CliRunner().invoke(app, ["doctor", str(folder)])
    assert result.exit_code == 2
    assert "image parameters: expected 303,966,208, got" in result.stderr
    assert "Do not distil from it" in result.stderr
    assert "FAILED" in result.stdout


def test_the_command_writes_a_reference_and_reads_it_back(tmp_path):
    folder, file = _write(tmp_path / "mine", SMALL), tmp_path / "numbers.json"
    assert CliRunner().invoke(app, ["doctor", str(folder)]).exit_code == 2
    assert CliRunner().invoke(app, ["doctor", str(folder), "--write-reference", str(file)]).exit_code == 0
    assert CliRunner().invoke(app, ["doctor", str(folder), "--reference", str(file)]).exit_code == 0
    assert CliRunner().invoke(app, ["doctor", "clip-b16"]).exit_code == 0
    assert CliRunner().invoke(app, ["doctor", "clip-b32"]).exit_code == 2
