import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from world.build import build
from world.params import WorldParams

NUMBERS = {
    "seed": 7,
    "image_size": 48,
    "jpeg_quality": 92,
    "noise": 4,
    "workers": 1,
    "mix": {
        "objects": 0.52,
        "room": 0.08,
        "sign": 0.08,
        "chart": 0.08,
        "document": 0.06,
        "diagram": 0.06,
        "portrait": 0.04,
        "flag": 0.04,
        "artwork": 0.04,
    },
    "talk_mix": {
        "objects": 0.52,
        "room": 0.08,
        "sign": 0.08,
        "chart": 0.08,
        "document": 0.06,
        "diagram": 0.06,
        "portrait": 0.04,
        "flag": 0.04,
        "artwork": 0.04,
    },
    "pairs": {"train": 25, "test": 12, "shard_size": 10},
    "classes": {"images_per_class": 2},
    "benchmarks": {"items": 24},
    "chat": {
        "llava_pretrain": 12,
        "mix665k": 60,
        "bunny": 12,
        "turns": 5,
        "text_only_share": 0.1,
        "multi_image_share": 0.1,
        "images_per_folder": 5,
    },
    "text": {"lines": 60},
}


@pytest.fixture(scope="session")
def small_params():
    return WorldParams.model_validate(NUMBERS)


@pytest.fixture(scope="session")
def small_world(small_params, tmp_path_factory) -> Path:
    """Every part of the world at its smallest."""
    out = tmp_path_factory.mktemp("small") / "world"
    list(build(small_params, out))
    return out


@pytest.fixture
def params_file(tmp_path) -> Path:
    path = tmp_path / "params.yaml"
    YAML().dump({"world": NUMBERS}, path)
    return path


@pytest.fixture
def out(tmp_path):
    yield tmp_path / "world"
    shutil.rmtree(tmp_path / "world", ignore_errors=True)
