"""Stock towers against open_clip: features and preprocessing."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from kd_vlm.encoder import load_encoder, visual_tokens
from kd_vlm.open_clip_config import read_config
from kd_vlm.preprocess import padding
from PIL import Image
from safetensors.torch import load_file


def open_clip_model(folder: Path):
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = open_clip.CLIP(**config).eval()
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    return model


def pixels(size: int, n: int = 3):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_vit_tokens_equal_open_clips_penultimate_layer(encoders, tmp_path, quick_gelu):
    folder = encoders.write(tmp_path / "vit", encoders.vit, quick_gelu=quick_gelu)
    encoder, x = load_encoder(folder), pixels(32)
    with torch.no_grad():
        visual = open_clip_model(folder).visual
        expected = visual.forward_intermediates(x, output_fmt="NLC", indices=[-2], intermediates_only=True)
    tokens = visual_tokens(encoder, x)
    assert tokens.shape == (3, encoder.n_tokens, encoder.width) == (3, 16, 32)
    torch.testing.assert_close(tokens, expected["image_intermediates"][0], atol=1e-5, rtol=0)


def test_a_wrong_gelu_would_be_noticed(encoders, tmp_path):
    folder = encoders.write(tmp_path / "vit", encoders.vit, quick_gelu=True)
    right = visual_tokens(load_encoder(folder), pixels(32))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = False
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert (visual_tokens(load_encoder(folder), pixels(32)) - right).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "size", "proj", "shape"),
    [
        ("test_resnet", 40, "linear", (4, 96)),
        ("test_resnet", 40, "", (4, 96)),
        ("resnet10t", 72, "linear", (9, 512)),
        ("mobilevit_xxs", 64, "linear", (4, 320)),
        ("test_convnext", 64, "linear", (4, 64)),
    ],
)
def test_timm_tokens_equal_open_clips_last_map(encoders, tmp_path, name, size, proj, shape):
    vision = {**encoders.resnet, "timm_model_name": name, "image_size": size, "timm_proj": proj, "timm_pool": "avg"}
    folder = encoders.write(tmp_path / name, vision)
    encoder, x = load_encoder(folder), pixels(size)
    with torch.no_grad():
        expected = open_clip_model(folder).visual.trunk.forward_features(x).flatten(2).transpose(1, 2)
    tokens = visual_tokens(encoder, x)
    assert tokens.shape == (3, *shape)
    assert (encoder.n_tokens, encoder.width) == shape
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_equals_open_clips(encoders, tmp_path, resize_mode, interpolation):
    folder = encoders.write(tmp_path / "vit", encoders.vit)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= {"resize_mode": resize_mode, "interpolation": interpolation}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    transform = open_clip.image_transform(
        32,
        is_train=False,
        mean=encoders.preprocess["mean"],
        std=encoders.preprocess["std"],
        resize_mode=resize_mode,
        interpolation=interpolation,
    )
    processor = load_encoder(folder).processor
    rng = np.random.default_rng(0)
    for width, height in [(48, 60), (32, 32), (90, 40)]:  # an odd margin is cropped one pixel apart by the libraries
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        ours = processor([picture], return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(ours, transform(picture), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(61, 40), (40, 61), (62, 41), (41, 62), (48, 48)])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_padded_preprocessing_is_llavas_square_of_the_mean_colour_and_then_the_plain_one(
    encoders, tmp_path, size, resize_mode
):
    """The formula of "pad" (`expand2square`): a square of the longer edge, each channel int(255 mean), and the picture
    at half of what is missing, rounded down; an odd row or column more lies below or to the right."""
    look = encoders.preprocess | {"resize_mode": resize_mode}
    folder = encoders.write(tmp_path / "encoder", encoders.vit)
    config = json.loads((folder / "open_clip_config.json").read_text()) | {"preprocess_cfg": look}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    plain = load_encoder(folder).processor
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    edge = max(size)
    square = np.empty((edge, edge, 3), np.uint8)
    square[:] = [int(255 * mean) for mean in look["mean"]]
    left, top = (edge - size[0]) // 2, (edge - size[1]) // 2
    square[top : top + size[1], left : left + size[0]] = pixels
    expected = plain(Image.fromarray(square), return_tensors="pt")["pixel_values"]
    found = padding(plain)(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("model_cfg", "text_cfg", "hf_model_name"), "roberta-base", "hf_model_name"),
        (("model_cfg", "multimodal_cfg"), {}, "multimodal_cfg"),
        (("model_cfg", "vision_cfg", "timm_model_pretrained"), True, "timm_model_pretrained"),
        (("model_cfg", "vision_cfg", "timm_model_name"), "hf-hub:somebody/model", "timm_model_name"),
        (("model_cfg", "vision_cfg", "layres"), 4, "layres"),
        (("preprocess_cfg", "resize_mode"), "longest", "resize_mode"),
    ],
)
def test_a_configuration_that_names_something_else_is_refused(encoders, tmp_path, path, value, says):
    folder = encoders.write(tmp_path / "resnet", encoders.resnet)
    config = json.loads((folder / "open_clip_config.json").read_text())
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=says):
        read_config(folder)


def test_weights_that_do_not_fit_are_refused(encoders, tmp_path):
    folder = encoders.write(tmp_path / "vit", encoders.vit)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 4
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit"):
        load_encoder(folder)


def test_a_timm_transformer_with_a_class_token_is_refused(encoders, tmp_path):
    vision = {**encoders.resnet, "timm_model_name": "test_vit", "image_size": 160}
    with pytest.raises(ValueError, match="class or register token"):
        load_encoder(encoders.write(tmp_path / "vit", vision))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="open_clip folder"):
        read_config(tmp_path / "nothing")
