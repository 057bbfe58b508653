"""Published files of weights become model folders, or are refused."""

import json

import pytest
import torch
from kd_distill import models
from kd_distill.adopt import adopt
from kd_distill.journal import read_journal
from safetensors.torch import save_file

TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}
NAME = "student-tiny--clip-b16--released"


@pytest.fixture
def architecture(tmp_path) -> str:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    return str(tmp_path / "tiny.json")


@pytest.fixture
def published() -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in models.build(TINY, seed=7).state_dict().items()}


@pytest.mark.parametrize("form", ["safetensors", "torch", "wrapped in state_dict and DDP"])
def test_the_folder_holds_the_published_weights(tmp_path, architecture, published, form):
    file = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file({k: v.contiguous() for k, v in published.items()}, file)
    elif form == "torch":
        torch.save(published, file)
    else:
        torch.save({"epoch": 32, "state_dict": {f"module.{k}": v for k, v in published.items()}}, file)
    folder = adopt(file, architecture, NAME, tmp_path / "models")
    loaded = models.load(folder)[0].state_dict()
    assert loaded.keys() == published.keys()
    assert all(torch.equal(loaded[k], v) for k, v in published.items())
    model = next(e for e in read_journal(folder / "journal.jsonl") if e["event"] == "model")
    assert (model["tags"]["kd.teacher"], model["tags"]["kd.recipe"]) == ("clip-b16", "released")


def test_weights_of_another_shape_and_files_that_run_code_are_refused(tmp_path, architecture, published):
    torch.save(published | {"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"visual\.proj"):
        adopt(tmp_path / "other.pt", architecture, NAME, tmp_path / "models")
    torch.save({"state_dict": print}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="expected weights only"):
        adopt(tmp_path / "code.pt", architecture, NAME, tmp_path / "models")
    with pytest.raises(ValueError, match="Expected the name"):
        adopt(tmp_path / "other.pt", architecture, "vit-t", tmp_path / "models")
    for name in ("student-vit-t--a--b--c", "student-vit-t--a", "student-vit-t---a--b", "student---a--b"):
        with pytest.raises(ValueError, match="three parts between double hyphens, got 'student-"):
            adopt(tmp_path / "other.pt", architecture, name, tmp_path / "models")
    assert not (tmp_path / "models" / NAME).exists()
