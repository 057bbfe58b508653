"""The nine encoders of the study against open_clip: features to 1e-5, token grid and width, preprocessing.

The small ones are built as they are; CLIP, DFN and SigLIP at their real width, patch, activation and resolution with
two layers by default, and whole among the long tests.
"""

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
from kd_vlm.encoder import load_encoder, visual_tokens
from PIL import Image
from safetensors.torch import load_file
from timm.models import register_model

OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
SHORTEST = {**OPENAI, "interpolation": "bicubic", "resize_mode": "shortest"}
SQUASH = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
SO400M = "vit_so400m_patch14_siglip_384"


@register_model
def vit_so400m_two_layers(pretrained=False, **kwargs):
    """SigLIP-so400m but for its depth, under a name of timm's registry as open_clip expects one."""
    return timm.models.vision_transformer.vit_so400m_patch14_siglip_384(pretrained, **{"depth": 2, **kwargs})


@register_model
def vit_siglip_small(pretrained=False, **kwargs):
    """SigLIP's form, a few thousand parameters: 7 x 7 tokens."""
    shape = {"img_size": 98, "patch_size": 14, "embed_dim": 32, "depth": 3, "num_heads": 2}
    return timm.models.vision_transformer.vit_base_patch16_siglip_224(pretrained, **{**shape, **kwargs})


def vit(width, patch, layers, **more):
    return {"image_size": 224, "layers": layers, "width": width, "head_width": 64, "patch_size": patch}, more


def trunk(name, size=224, **more):
    siglip = name.startswith("vit_")
    pooled = {"timm_pool": "map", "timm_proj": "none"} if siglip else {"timm_pool": "", "timm_proj": "linear"}
    return {"timm_model_name": name, "timm_model_pretrained": False, "image_size": size, **pooled}, more


# encoder: (how to build it, preprocessing, kind, tokens, width)
ENCODERS = {
    "siglip-so400m-384": (trunk("vit_so400m_two_layers", 384, embed_dim=1152), SQUASH, "siglip", 729, 1152),
    "clip-l, dfn-l": (vit(1024, 14, 2, quick_gelu=True, embed_dim=768), SHORTEST, "clip", 256, 1024),
    "clip-b, dfn-b": (vit(768, 16, 2, quick_gelu=True, embed_dim=512), SHORTEST, "clip", 196, 768),
    "vit-t": (vit(192, 16, 12, embed_dim=512), SHORTEST, "clip", 196, 192),
    "mobilevit-s": (trunk("mobilevit_s", embed_dim=512), SHORTEST, "map", 49, 640),
    "swin-t": (trunk("swin_tiny_patch4_window7_224", embed_dim=512), SHORTEST, "swin", 49, 768),
    "convnext-t": (trunk("convnext_tiny", embed_dim=512), SHORTEST, "map", 49, 768),
}
WHOLE = {
    "siglip-so400m-384": (trunk(SO400M, 384, embed_dim=1152), SQUASH, "siglip", 729, 1152),
    "clip-l": (vit(1024, 14, 24, quick_gelu=True, embed_dim=768), SHORTEST, "clip", 256, 1024),
    "clip-b": (vit(768, 16, 12, quick_gelu=True, embed_dim=512), SHORTEST, "clip", 196, 768),
}


def written(encoders, folder, row):
    (vision, more), preprocess, *_ = row
    encoders.write(folder, vision, **more)
    config = json.loads((folder / "open_clip_config.json").read_text())
    (folder / "open_clip_config.json").write_text(json.dumps({**config, "preprocess_cfg": preprocess}))
    return folder


def compare(folder, row):
    """The tower's tokens against what open_clip's own model computes at the same place."""
    _, preprocess, kind, n_tokens, width = row
    model_cfg = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    reference = open_clip.CLIP(**model_cfg).eval()
    reference.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    encoder = load_encoder(folder)
    assert (encoder.kind, encoder.n_tokens, encoder.width) == (kind, n_tokens, width)
    size = model_cfg["vision_cfg"]["image_size"]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size + 24, size + 66, 3), dtype=np.uint8))
    pixels = encoder.processor([picture], return_tensors="pt")["pixel_values"]
    transform = open_clip.image_transform(size, is_train=False, **preprocess)
    torch.testing.assert_close(pixels[0], transform(picture), atol=1e-6, rtol=0)
    with torch.no_grad():
        if kind == "clip":
            out = reference.visual.forward_intermediates(
                pixels, output_fmt="NLC", indices=[-2], intermediates_only=True
            )
            expected = out["image_intermediates"][0]
        else:
            index = -2 if kind == "siglip" else -1
            maps = reference.visual.trunk.forward_intermediates(pixels, intermediates_only=True)
            expected = maps[index].flatten(2).transpose(1, 2)
    tokens = visual_tokens(encoder, pixels)
    assert tokens.shape == (1, n_tokens, width)
    scale = float(expected.abs().mean())
    assert scale > 0.1, "features that are all but zero would prove nothing"
    torch.testing.assert_close(tokens, expected, atol=1e-5 * max(1.0, scale), rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_features_grid_and_preprocessing_equal_open_clips(encoders, tmp_path, name):
    compare(written(encoders, tmp_path / name, ENCODERS[name]), ENCODERS[name])


@pytest.mark.faults
@pytest.mark.parametrize("name", WHOLE)
def test_the_large_encoders_are_equal_at_their_whole_depth(encoders, tmp_path, name):
    compare(written(encoders, tmp_path / name, WHOLE[name]), WHOLE[name])


@pytest.fixture(scope="module")
def siglip(encoders, tmp_path_factory):
    return written(
        encoders, tmp_path_factory.mktemp("siglip") / "s", (trunk("vit_siglip_small", 98, embed_dim=32), SQUASH)
    )


def test_tinyllavas_quirk_drops_the_first_patch_of_siglip(siglip):
    """728 of 729 tokens at 384 pixels; here 48 of 49."""
    whole, quirk = load_encoder(siglip), load_encoder(siglip, quirk="tinyllava-728")
    assert (whole.n_tokens, quirk.n_tokens) == (49, 48)
    pixels = torch.randn(1, 3, 98, 98, generator=torch.Generator().manual_seed(0))
    assert torch.equal(visual_tokens(quirk, pixels), visual_tokens(whole, pixels)[:, 1:])


def test_siglips_gelu_is_the_exact_one(siglip):
    """The tanh approximation, transformers' default for SigLIP, is another model."""
    encoder = load_encoder(siglip)
    pixels = torch.randn(1, 3, 98, 98, generator=torch.Generator().manual_seed(0))
    for layer in encoder.tower.encoder.layers:
        layer.mlp.fc1.weight.mul_(30)  # of the size that trained ones have
    right = visual_tokens(encoder, pixels)
    for layer in encoder.tower.encoder.layers:
        layer.mlp.activation_fn = torch.nn.GELU(approximate="tanh")
    assert (visual_tokens(encoder, pixels) - right).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "choice", "says"),
    [
        ("siglip", {"class_token": "drop"}, "no class token"),
        ("siglip", {"grid": 24}, "gives 7 x 7"),
        ("siglip", {"layer": 4}, "-4 to 3"),
        ("vit", {"quirk": "tinyllava-728"}, "for SigLIP towers"),
        ("vit", {"layer": -5}, "-4 to 3"),
        ("resnet", {"class_token": "keep"}, "no class token"),
        ("resnet", {"layer": -2}, "before its last map"),
    ],
)
def test_a_feature_that_the_tower_does_not_have_is_refused(siglip, vit_folder, resnet_folder, name, choice, says):
    folder = {"siglip": siglip, "vit": vit_folder, "resnet": resnet_folder}[name]
    with pytest.raises(ValueError, match=says):
        load_encoder(folder, **choice)


def test_class_token_and_layer_are_chosen(vit_folder):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    kept, dropped = load_encoder(vit_folder, **{"class_token": "keep"}), load_encoder(vit_folder)
    assert (kept.n_tokens, dropped.n_tokens) == (17, 16)
    assert torch.equal(visual_tokens(kept, pixels)[:, 1:], visual_tokens(dropped, pixels))
    last, same, other = (load_encoder(vit_folder, layer=layer) for layer in ("last", 3, -2))
    assert torch.equal(visual_tokens(last, pixels), visual_tokens(same, pixels))
    assert torch.equal(visual_tokens(other, pixels), visual_tokens(dropped, pixels))
    assert not torch.equal(visual_tokens(last, pixels), visual_tokens(other, pixels))


def test_swin_may_end_a_stage_earlier(encoders, tmp_path):
    """Stage 3 is what hidden_states[-2] means for a hierarchical tower: 14 x 14 tokens of 384 channels."""
    folder = written(encoders, tmp_path / "swin", ENCODERS["swin-t"])
    encoder = load_encoder(folder, layer=-2, grid=14)
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    reference = open_clip.CLIP(**config).eval()
    reference.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    with torch.no_grad():
        expected = reference.visual.trunk.forward_intermediates(pixels, intermediates_only=True)[-2]
    assert (encoder.n_tokens, encoder.width) == (196, 384)
    torch.testing.assert_close(visual_tokens(encoder, pixels), expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=0)
