import hashlib
import json

import numpy as np
import pytest
from kd_analysis.heads import read_heads
from safetensors.numpy import save_file

HEAD = {
    "teacher-large.image.weight": np.ones((4, 3), "float32"),
    "teacher-large.image.bias": np.zeros(4, "float32"),
    "teacher-large.text.weight": np.ones((4, 3), "float32"),
}


def checkpoint(folder, tensors):
    folder.mkdir()
    save_file({f"task.heads.{name}": value for name, value in tensors.items()}, folder / "state.safetensors")
    sha256 = hashlib.sha256((folder / "state.safetensors").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"files": {"state.safetensors": {"sha256": sha256}}}))
    return folder


def test_heads_of_a_model_folder_a_file_and_a_checkpoint_are_the_same(tmp_path):
    (tmp_path / "model").mkdir()
    save_file(HEAD, tmp_path / "model" / "heads.safetensors")
    places = [tmp_path / "model", tmp_path / "model" / "heads.safetensors", checkpoint(tmp_path / "step-1", HEAD)]
    for place in places:
        (name,) = read_heads(place)
        assert name == "teacher-large"
        assert read_heads(place)[name].weight.shape == (4, 3)


def test_a_folder_without_heads_has_none_and_a_path_without_anything_is_named(tmp_path):
    assert read_heads(tmp_path) == {}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_heads(tmp_path / "nowhere")


def test_a_changed_checkpoint_and_half_a_head_are_refused(tmp_path):
    place = checkpoint(tmp_path / "step-1", HEAD)
    (place / "state.safetensors").write_bytes((place / "state.safetensors").read_bytes() + b"x")
    with pytest.raises(ValueError, match="expected sha256"):
        read_heads(place)
    half = {k: v for k, v in HEAD.items() if not k.endswith("bias")}
    with pytest.raises(ValueError, match="weight and bias"):
        read_heads(checkpoint(tmp_path / "step-2", half))
