"""What crosses a boundary, read by the package that writes it and by those that read it."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

from contract import sync

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "contract" / "golden"
PACKAGES = ("kd_distill", "kd_vlm", "kd_evalsuite", "kd_analysis")


def test_shared_files_are_the_same_in_every_package():
    assert sync.stale() == []
    assert len(sync.copies()) == 46


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_gives_the_golden_folder_its_digest(package):
    tracking = importlib.import_module(f"{package}.tracking")
    ref = json.loads((GOLDEN / "ref.json").read_text())
    assert tracking.digest(GOLDEN / "encoder") == ref["sha256"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_resolves_a_plain_folder_and_sees_what_it_is(package):
    tracking = importlib.import_module(f"{package}.tracking")
    model = tracking.resolve(GOLDEN / "encoder")
    assert (model.kind, model.name) == ("encoder", "encoder")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_journal_and_mlflows_own_files_do_not_count_for_the_digest(package, tmp_path):
    tracking = importlib.import_module(f"{package}.tracking")
    shutil.copytree(GOLDEN / "encoder", tmp_path / "encoder")
    before = tracking.digest(tmp_path / "encoder")
    for name in ("journal.jsonl", "MLmodel", "registered_model_meta"):
        (tmp_path / "encoder" / name).write_text("anything")
    assert tracking.digest(tmp_path / "encoder") == before
    (tmp_path / "encoder" / "code.py").write_text("")
    assert tracking.digest(tmp_path / "encoder") != before


@pytest.mark.parametrize("package", ["kd_distill", "kd_vlm"])
def test_the_golden_journal_is_read(package):
    journal = importlib.import_module(f"{package}.journal")
    events = journal.read_journal(GOLDEN / "journal.jsonl")
    assert [e["event"] for e in events] == ["start", "metrics", "model", "end"]


def test_heads_in_a_checkpoint_of_kd_distill_are_read_by_kd_analysis(tmp_path):
    import torch
    from kd_analysis.heads import read_heads
    from kd_distill.batch import TeacherInfo
    from kd_distill.checkpoint import Checkpoints
    from kd_distill.distributed import Ranks
    from kd_distill.heads import TeacherHeads
    from kd_distill.optim import build_optimizer
    from kd_distill.state import TrainingState

    names = {"teacher-large": 24, "teacher-small": 16}  # the second is as wide as the student: no head
    infos = [TeacherInfo(name, width, 50.0) for name, width in names.items()]
    task = torch.nn.Module()
    task.heads = torch.nn.ModuleDict(
        {
            i.name: TeacherHeads(i, {"projected"}, text=True, student_width=16, patch_width=None, exp_scales=True)
            for i in infos
        }
    )
    optimizer = build_optimizer(task, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6)
    state = TrainingState(task, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    ranks = Ranks(0, 1, torch.device("cpu"))
    place = Checkpoints(tmp_path).save(3, state.tensors(ranks), state.values(ranks))
    found = read_heads(place)
    assert set(found) == {"teacher-large"}
    torch.testing.assert_close(
        torch.from_numpy(found["teacher-large"].weight), task.heads["teacher-large"].image.weight
    )
