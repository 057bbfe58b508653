import io
import json
import tarfile
from pathlib import Path

import pytest
from kd_distill import models, tracking
from kd_distill.tracking import Model
from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 30), "blue": (30, 30, 200), "white": (250, 250, 250)}
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


def write_shard(path: Path, n: int) -> None:
    """`n` pairs: a picture of one colour and its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i in range(n):
            name = list(COLOURS)[i % len(COLOURS)]
            picture = io.BytesIO()
            Image.new("RGB", (20 + i % 3, 20), COLOURS[name]).save(picture, "JPEG")
            for suffix, content in (("jpg", picture.getvalue()), ("txt", f"a {name} picture".encode())):
                member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with shards, an architecture and a parameter file; the tracking database stands in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".dvc").mkdir()
    write_shard(tmp_path / "pairs" / "00000.tar", 48)
    write_shard(tmp_path / "pairs_test" / "00000.tar", 8)
    (tmp_path / "tiny.json").write_text(json.dumps(ARCHITECTURE))
    (tmp_path / "wide.json").write_text(json.dumps(ARCHITECTURE | {"embed_dim": 24}))
    common = "batch_size: 8, warmup: 2, lr: 3e-3, weight_decay: 0.1"
    (tmp_path / "params.yaml").write_text(
        f"""\
distill:
  data: {{train: pairs, val: pairs_test, views: 2, crop_area: 0.9, caches: caches}}
  recipes:
    pretrain: {{losses: {{task: 1}}, steps: 40, {common}}}
    clip-kd: {{losses: {{task: 1, ckd: 1, fd: 2000, icl: 1}}, steps: 12, {common}}}
  from_scratch:
    teacher-wide: {{kind: teacher, id: wide, architecture: wide.json, recipe: pretrain}}
  distilled:
    student-vit--wide--clip-kd:
      {{kind: student, id: vit, architecture: tiny.json, recipe: clip-kd, teacher: teacher-wide}}
  cached: [teacher-wide]
"""
    )
    return tmp_path


def folder_of(project: Path, name: str, **changes) -> Path:
    """A teacher that nobody trained, as a model folder."""
    config = ARCHITECTURE | {"embed_dim": 24} | changes
    folder = project / "models" / name
    folder.mkdir(parents=True)
    models.save(folder, models.build(config, seed=len(name)), config)
    return folder


def model_at(folder: Path) -> Model:
    return Model(folder, "teacher", folder.name, tracking.digest(folder))


@pytest.fixture
def wide(project: Path) -> Model:
    return model_at(folder_of(project, "teacher-wide"))
