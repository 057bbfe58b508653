"""Small encoders as open_clip saves them, a few images, and features of both."""

import json

import numpy as np
import pytest
from PIL import Image

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8}
TIMM = {"timm_model_name": "test_resnet", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}
CONFIGS = {
    "vit": {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT},
    "conv": {"embed_dim": 20, "vision_cfg": {**TIMM, "image_size": 40}, "text_cfg": TEXT},
    "head": {
        "embed_dim": 20,
        "vision_cfg": {**TIMM, "timm_pool": "avg", "timm_proj": "", "image_size": 40},
        "text_cfg": TEXT,
    },
}


def write_encoder(folder, arch, seed, mean=0.5):
    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251
        model = CLIP(**CONFIGS[arch])
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    look = {"mean": [mean] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIGS[arch], "preprocess_cfg": look}))
    return folder


def make_images(n=12, size=48):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (n, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(s).resize((size, size)) for s in small]


def read_features(encoders, some, tap):
    """Features of every encoder at a tap, in the order of the images."""
    from kd_analysis import features

    ids = [str(i) for i in range(len(some))]
    out = {name: [] for name in encoders}
    wanted = {name: {tap: set(ids)} for name in encoders}
    features.extract(encoders, wanted, zip(ids, some, strict=True), lambda name, _, i, rows: out[name].append(rows))
    return {name: np.concatenate(parts) for name, parts in out.items()}


@pytest.fixture(scope="session")
def save():
    return write_encoder


@pytest.fixture(scope="session")
def images():
    return make_images


@pytest.fixture(scope="session")
def read():
    return read_features
