"""A checkpoint from the Hub: only when named, data only, known by its commit."""

import fnmatch
import shutil

import huggingface_hub
import pytest
from kd_evalsuite.config import EvalParams
from kd_evalsuite.items import DataError
from kd_evalsuite.models.find import find
from kd_evalsuite.models.hub import DATA_ONLY

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with one repository, in which a stranger has put code and a pickle."""
    there = tmp_path / "there"
    there.mkdir()
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "modeling_mine.py",
        "pytorch_model.bin",
        "a.pkl",
    ):
        (there / name).write_text("{}")
    asked = []

    def snapshot_download(repo, revision=None, allow_patterns=()):
        asked.append((repo, revision))
        if repo != "owner/vlm":
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such repository")
        folder = tmp_path / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        for file in there.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, folder)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked, tmp_path / "snapshots" / COMMIT


def test_only_data_is_fetched_and_the_commit_is_part_of_the_name(hub):
    asked, folder = hub
    found = find("hf:owner/vlm@v1.0", EvalParams())
    assert asked == [("owner/vlm", "v1.0")]
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert found.ref.name == "owner--vlm@0123456789ab"
    assert not found.encoder


def test_code_and_pickles_match_none_of_the_patterns():
    for name in ("modeling.py", "pytorch_model.bin", "model.pt", "model.ckpt", "a.pkl", "a.npy", "a.so"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in DATA_ONLY)


@pytest.mark.parametrize("text", ["hf:owner", "hf:../../etc/passwd", "hf:owner/vlm/more", "hf:owner/vlm@", "hf:"])
def test_what_is_no_name_is_not_asked_for(hub, text):
    with pytest.raises(DataError, match="Expected hf:owner/name"):
        find(text, EvalParams())
    assert hub[0] == []


def test_what_the_hub_does_not_have_is_an_error(hub):
    with pytest.raises(DataError, match="The Hub gave no owner/none"):
        find("hf:owner/none", EvalParams())
