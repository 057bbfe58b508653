"""Options of the loop: exports, monitors, the moving average, compiled towers."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from kd_distill import models, tracking
from kd_distill.journal import read_journal, register
from PIL import Image

from packages.distill.tests.recipe.conftest import COLOURS
from packages.distill.tests.recipe.test_runs import STUDENT, TEACHER, section, train_one
from packages.distill.tests.recipe.test_training import run, values_of, weights

pytestmark = pytest.mark.recipe


def test_the_encoder_of_each_epoch_asked_for_is_a_model_of_the_same_run(project):
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    assert run("--set", "recipes.pretrain.export_epochs=[1, 2]").exit_code == 0
    names = [f"{TEACHER}-e1", f"{TEACHER}-e2", TEACHER]
    folders = [Path("models") / name for name in names]
    for folder in folders:
        register(folder)
    runs = tracking.client().search_runs([tracking._experiment("distill")])
    assert len(runs) == 1
    versions = [tracking.client().get_model_version_by_alias(name, "candidate") for name in names]
    assert {version.run_id for version in versions} == {runs[0].info.run_id}
    assert [version.tags.get("kd.epoch") for version in versions] == ["1", "2", None]
    assert tracking.resolve(f"models:/{TEACHER}-e1").sha256 == versions[0].tags["sha256"]
    assert weights(folders[0]) != weights(folders[1])
    assert weights(folders[1]) == weights(folders[2])  # 12 steps are two epochs


def test_the_export_of_a_longer_schedule_is_the_run_that_stops_there_without_cooldown(project):
    assert run("--set", "recipes.pretrain.export_epochs=[1]").exit_code == 0
    shutil.move("models", "long")
    assert run("--set", "recipes.pretrain.steps=6", "--set", "recipes.pretrain.horizon=12").exit_code == 0
    assert weights(Path("long") / f"{TEACHER}-e1") == weights(Path("models") / TEACHER)


def write_classes(folder: Path) -> None:
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(COLOURS) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} picture\n")
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for i, colour in enumerate(COLOURS.values()):
            picture = io.BytesIO()
            Image.new("RGB", (20, 20), colour).save(picture, "PNG")
            for suffix, content in (("png", picture.getvalue()), ("cls", f"{i}".encode())):
                member = tarfile.TarInfo(f"s{i}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_monitors_follow_zero_shot_the_teacher_and_the_heads(project):
    from kd_distill.run import make_cache

    write_classes(project / "classes")
    text = (project / "params.yaml").read_text()
    text = text.replace("caches: caches", "caches: caches, classes: classes").replace(
        "steps: 12,", "steps: 12, monitor_every: 5,"
    )
    (project / "params.yaml").write_text(text.replace("steps: 40,", "steps: 40, monitor_every: 10,"))
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    teacher = register(train_one(project, TEACHER))
    assert values_of(project / "models" / TEACHER)["monitor/zeroshot_top1"] >= 0.75
    make_cache(section(project).data, teacher, lambda what, done, of: None)
    folder = train_one(project, STUDENT)
    steps = {e["step"] for e in read_journal(folder / "journal.jsonl") if "monitor/cka" in e.get("values", {})}
    assert steps == {5, 10, 12}
    last = values_of(folder)
    assert 0 < last["monitor/cosine"] <= 1
    assert last["monitor/cka"] <= 1
    assert last["monitor/norm/heads.teacher-wide.image.weight"] > 0
    assert 0 <= last["monitor/zeroshot_top1"] <= 1


def test_the_moving_average_is_what_is_written(project):
    assert run("--set", "recipes.pretrain.ema=0.5").exit_code == 0
    shutil.move("models", "ema")
    assert run().exit_code == 0
    raw, average = (models.load(Path(f) / TEACHER)[0].visual.conv1.weight for f in ("models", "ema"))
    assert not torch.equal(raw, average)
    torch.testing.assert_close(raw, average, atol=0.05, rtol=0)


def test_monitoring_and_saving_leave_the_result_as_it_is(project):
    assert run("--set", "recipes.pretrain.monitor_every=3").exit_code == 0
    shutil.move("models", "watched")
    assert run("--set", "recipes.pretrain.save_every_steps=1").exit_code == 0
    assert weights(Path("watched") / TEACHER) == weights(Path("models") / TEACHER)


def test_epochs_and_the_global_batch_are_recorded(project):
    assert run("--set", "recipes.pretrain.steps=null", "--set", "recipes.pretrain.epochs=2").exit_code == 0
    params = read_journal(Path("models") / TEACHER / "journal.jsonl")[0]["params"]
    expected = {"steps": "12", "epochs": "2", "batch_size": "8", "batch_size_per_rank": "8", "ranks": "1"}
    assert expected.items() <= params.items()
    assert (params["samples"], params["steps_per_epoch"]) == ("96", "6")


@pytest.mark.faults
def test_a_compiled_run_has_the_weights_names_and_losses_of_an_eager_one(project):
    assert run("--set", "recipes.pretrain.compile=true", "--set", "recipes.pretrain.channels_last=true").exit_code == 0
    shutil.move("models", "compiled")
    assert run().exit_code == 0
    compiled, eager = (values_of(Path(f) / TEACHER)["train/loss"] for f in ("compiled", "models"))
    assert compiled == pytest.approx(eager, rel=1e-2)  # another order of sums, twelve updates
    models.load(Path("compiled") / TEACHER)
