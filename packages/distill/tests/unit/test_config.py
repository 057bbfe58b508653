from pathlib import Path

import pytest
from kd_distill.cells import Cell
from kd_distill.config import DistillParams, Recipe
from kd_distill.params import ParamsError, load_section

GOOD = """\
world: {anything: goes}
distill:
  data: {train: pairs, val: pairs_test, views: 2, crop_area: 0.9, caches: caches}
  recipes:
    pretrain: {losses: {task: 1}, batch_size: 8, steps: 4, warmup: 1, lr: 1e-3, weight_decay: 0.1}
    clip-kd: {losses: {task: 1, fd: 2000}, batch_size: 8, steps: 4, warmup: 1, lr: 1e-3, weight_decay: 0.1}
  from_scratch:
    teacher-small: {kind: teacher, id: small, architecture: demo-vit, recipe: pretrain}
  distilled:
    student-vit--small--clip-kd:
      {kind: student, id: vit, architecture: demo-vit, recipe: clip-kd, teacher: teacher-small}
  cached: [teacher-small]
"""


def load(tmp_path: Path, text: str = GOOD, *overrides: str) -> DistillParams:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    return load_section(file, "distill", DistillParams, overrides)


def test_yaml_is_read_as_dvc_reads_it(tmp_path):
    assert load(tmp_path).recipes["pretrain"].lr == 0.001


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_name(tmp_path):
    with pytest.raises(
        ParamsError, match=r"params.yaml:5: distill.recipes.pretrain.stepz: unknown key; did you mean 'steps'"
    ):
        load(tmp_path, GOOD.replace("steps: 4", "stepz: 4", 1))


def test_every_mistake_is_reported_at_once(tmp_path):
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, GOOD.replace("views: 2", "views: 0").replace("lr: 1e-3", "lr: fast", 1))
    assert len(str(caught.value).splitlines()) == 2
    assert "greater than or equal to 1 (got 0)" in str(caught.value)


def test_an_override_is_applied_before_validation(tmp_path):
    assert load(tmp_path, GOOD, "recipes.pretrain.steps=9").recipes["pretrain"].steps == 9


def test_an_override_of_no_key_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(ParamsError, match="did you mean 'recipes'"):
        load(tmp_path, GOOD, "recipe.pretrain.steps=9")


def test_a_cell_under_another_name_is_refused(tmp_path):
    with pytest.raises(ParamsError, match="registered name is 'teacher-small'"):
        load(tmp_path, GOOD.replace("    teacher-small:", "    teacher-tiny:"))


def test_distillation_without_a_teacher_is_refused(tmp_path):
    with pytest.raises(ParamsError, match="need a teacher"):
        load(tmp_path, GOOD.replace(", teacher: teacher-small", "").replace("-vit--small--", "-vit--none--"))


def test_a_teacher_without_a_cache_is_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"cached: .'teacher-small'. are teachers"):
        load(tmp_path, GOOD.replace("cached: [teacher-small]", "cached: []"))


def test_an_unknown_loss_is_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"unknown .'fdd'.; known: task, ckd, soft_ce"):
        load(tmp_path, GOOD.replace("fd: 2000", "fdd: 2000"))


def test_a_missing_file_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(ParamsError, match="Pass --params"):
        load_section(tmp_path / "none.yaml", "distill", DistillParams)


def test_freezing_a_tower_that_nothing_initialises_is_refused(tmp_path):
    frozen = GOOD.replace("fd: 2000}", "fd: 2000}, freeze: [text]")
    with pytest.raises(ParamsError, match="stay as it was drawn at random"):
        load(tmp_path, frozen)
    with pytest.raises(ParamsError, match="stay as it was drawn at random"):
        load(
            tmp_path,
            frozen.replace("teacher: teacher-small}", "teacher: teacher-small, init: {model: x, towers: [image]}}"),
        )
    fine = load(tmp_path, frozen.replace("teacher: teacher-small}", "teacher: teacher-small, init: {model: x}}"))
    assert fine.recipes["clip-kd"].freeze == ("text",)


def test_freezing_both_towers_is_refused(tmp_path):
    with pytest.raises(ParamsError, match="at most 1"):
        load(tmp_path, GOOD.replace("fd: 2000}", "fd: 2000}, freeze: [text, image]"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("recipes.pretrain.lr=-1", "greater than 0"),
        ("recipes.pretrain.lr=0", "greater than 0"),
        ("recipes.pretrain.lr=.nan", "finite number"),
        ("recipes.pretrain.lr=.inf", "finite number"),
        ("recipes.pretrain.lr=fast", "valid number"),
        ("recipes.pretrain.weight_decay=-0.1", "greater than or equal to 0"),
        ("recipes.pretrain.weight_decay=.inf", "finite number"),
        ("recipes.pretrain.batch_size=0", "greater than 1"),
        ("recipes.pretrain.batch_size=1", "greater than 1"),
        ("recipes.pretrain.batch_size=-3", "greater than 1"),
        ("recipes.pretrain.batch_size=8.5", "valid integer"),
        ("recipes.pretrain.steps=0", "greater than 0"),
        ("recipes.pretrain.steps=null", "either steps or epochs"),
        ("recipes.pretrain.epochs=3", "either steps or epochs"),
        ("recipes.pretrain.epochs=.nan", "greater than 0|finite number"),
        ("recipes.pretrain.epochs=-1", "greater than 0"),
        ("recipes.pretrain.warmup=-1", "greater than or equal to 0"),
        ("recipes.pretrain.warmup=100", "do not fit into 4 steps"),
        ("recipes.pretrain.cooldown=4", "do not fit into 4 steps"),
        ("recipes.pretrain.horizon=2", "at least the length"),
        ("recipes.pretrain.horizon=.inf", "finite number"),
        ("recipes.pretrain.betas=[0.9]", "at least 2|Field required|missing"),
        ("recipes.pretrain.betas=[0.9, 1.0]", r"two numbers in \[0, 1\)"),
        ("recipes.pretrain.betas=[.nan, 0.9]", "finite number"),
        ("recipes.pretrain.eps=0", "greater than 0"),
        ("recipes.pretrain.clip_norm=0", "greater than 0"),
        ("recipes.pretrain.clip_norm=.nan", "greater than 0|finite number"),
        ("recipes.pretrain.ema=1", "less than 1"),
        ("recipes.pretrain.ema=-0.5", "greater than 0"),
        ("recipes.pretrain.precision=fp8", "'fp32', 'bf16' or 'fp16'"),
        ("recipes.pretrain.compile=perhaps", "valid boolean"),
        ("recipes.pretrain.channels_last=2", "valid boolean"),
        ("recipes.pretrain.save_every_steps=0", "greater than 0"),
        ("recipes.pretrain.save_every_seconds=0", "greater than 0"),
        ("recipes.pretrain.save_every_seconds=.inf", "finite number"),
        ("recipes.pretrain.keep=0", "greater than or equal to 1"),
        ("recipes.pretrain.log_every=0", "greater than 0"),
        ("recipes.pretrain.monitor_every=0", "greater than 0"),
        ("recipes.pretrain.export_epochs=[0]", "epochs of the run"),
        ("recipes.pretrain.export_epochs=[one]", "valid integer"),
        ("recipes.pretrain.losses={}", "at least one term"),
        ("recipes.pretrain.losses={task: heavy}", "valid number"),
        ("recipes.pretrain.learning_rate=1", "unknown key"),
        ("recipes.pretrain.losses=clipkd", "Unknown set of losses"),
        ("recipes.pretrain.losses={task: -.inf}", "finite number"),
        ("recipes.pretrain.losses={taks: 1}", "unknown .'taks'"),
        ("recipes.pretrain.patch_layer=first", "'penultimate' or 'last'"),
        ("recipes.pretrain.mask=1", "less than 1"),
        ("recipes.pretrain.loss_block=0", "greater than 0"),
        ("recipes.pretrain.tower_chunk=0", "greater than 0"),
        ("recipes.pretrain.freeze=[head]", "'image' or 'text'|'text' or 'image'"),
        ("recipes.pretrain.teacher_mode=offline", "'cached' or 'online'"),
        ("data.views=0", "greater than or equal to 1"),
        ("data.crop_area=0", "greater than 0"),
        ("data.crop_area=1.5", "less than or equal to 1"),
        ("data.workers=-1", "greater than or equal to"),
        ("data.mixes={more: []}", "a list of at least one part"),
        ("recipes.pretrain.mix=more", "data.mixes has no 'more'; known: none"),
        ("data.bad_limit=2", "less than or equal to 1|less than 1"),
        ("data.trian=here", "did you mean 'train'"),
        ("from_scratch.teacher-small.seed=-1", "greater than or equal to 0"),
        ("from_scratch.teacher-small.kind=pupil", "'teacher' or 'student'"),
        ("from_scratch.teacher-small.id=a/b", "match pattern"),
        ("from_scratch.teacher-small.recipe=none", "unknown 'none'"),
    ],
)
def test_a_wrong_value_is_refused_and_says_what_is_expected(tmp_path, change, message):
    with pytest.raises(ParamsError, match=message) as caught:
        load(tmp_path, GOOD, change)
    assert "distill" in str(caught.value)


def test_an_epoch_ends_with_the_step_that_sees_its_last_sample():
    recipe = Recipe(losses={"task": 1}, batch_size=8, epochs=2.5, horizon=4, warmup=0, lr=1e-3, weight_decay=0)
    assert recipe.length(50) == (16, 25)  # 125 and 200 samples
    assert [recipe.step_after(epoch, 50) for epoch in (1, 2)] == [7, 13]
    recipe = Recipe(losses={"task": 1}, batch_size=8, steps=7, warmup=0, lr=1e-3, weight_decay=0)
    assert recipe.length(50) == (7, None)


def test_the_name_of_an_epochs_encoder_comes_after_the_seed():
    cell = Cell(kind="student", id="vit", architecture="a", recipe="r", teacher="teacher-x", seed=2)
    assert cell.name_at(8) == "student-vit--x--r-s2-e8"
