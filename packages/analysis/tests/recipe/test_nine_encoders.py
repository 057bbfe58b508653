"""The study's nine encoders as they are, but for depth: every tap gives what the architecture promises."""

import numpy as np
import pytest
import torch
from kd_analysis import features, towers
from kd_analysis.towers import ClipEncoder
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.transform import PreprocessCfg
from PIL import Image

pytestmark = pytest.mark.recipe

VIT_L = {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14}
VIT_B = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}
SIGLIP = {
    "image_size": 384,
    "timm_model_name": "vit_so400m_patch14_siglip_384",
    "timm_pool": "map",
    "timm_proj": "none",
}


def hierarchical(name):
    return {"image_size": 224, "timm_model_name": name, "timm_pool": "", "timm_proj": "linear"}


# (vision_cfg, embedding width, QuickGELU, pooled width, (patches, their width))
ENCODERS = {
    "siglip-so400m": (SIGLIP, 1152, False, 1152, (729, 1152)),
    "clip-l": (VIT_L, 768, True, 1024, (256, 1024)),
    "dfn-l": (VIT_L, 768, True, 1024, (256, 1024)),
    "clip-b": (VIT_B, 512, True, 768, (196, 768)),
    "dfn-b": (VIT_B, 512, True, 768, (196, 768)),
    "vit-t": (
        {"image_size": 224, "layers": 12, "width": 192, "patch_size": 16}, 512, False, 192, (196, 192)
    ),
    "mobilevit-s": (hierarchical("mobilevit_s"), 512, False, 640, (49, 640)),
    "swin-t": (hierarchical("swin_tiny_patch4_window7_224"), 512, False, 768, (49, 768)),
    "convnext-t": (hierarchical("convnext_tiny"), 512, False, 768, (49, 768)),
}  # fmt: skip
DEPTH = 2  # of a plain ViT here; stages keep theirs


def build(name, monkeypatch):
    import timm

    vision, width, quick, *_ = ENCODERS[name]
    if name == "siglip-so400m":
        whole = timm.create_model
        monkeypatch.setattr("timm.create_model", lambda model, **kw: whole(model, depth=DEPTH, **kw))
    if "layers" in vision:
        vision = vision | {"layers": DEPTH}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251
        visual = _build_vision_tower(width, CLIPVisionCfg(**vision), quick_gelu=quick)
    look = PreprocessCfg(size=vision["image_size"], mean=(0.5,) * 3, std=(0.5,) * 3)
    return ClipEncoder(visual.eval().requires_grad_(False), look)


def pictures(n=2):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((100, 80)) for _ in range(n)]


@pytest.mark.parametrize("name", [n for n in ENCODERS if not n.startswith("dfn")])
def test_every_tap_has_the_shape_of_the_architecture_and_embed_is_open_clips(name, monkeypatch):
    """DFN's encoders are CLIP's with other weights."""
    encoder = build(name, monkeypatch)
    _, width, _, pooled, (n_patches, patch_width) = ENCODERS[name]
    layers = encoder.layers()
    with torch.inference_mode():
        batch = torch.stack([encoder.prepare()(image) for image in pictures()])
        taps = ["pooled", "embed", "patch_mean", "patch_tokens", f"layer:{layers[0]}", f"layer:{layers[-1]}"]
        found = encoder.read(batch, taps)
        expected = torch.nn.functional.normalize(encoder.visual(batch), dim=-1)
        tokens = patches_by_hand(encoder.visual, batch)
    torch.testing.assert_close(found["embed"], expected, atol=1e-5, rtol=0)
    assert found["pooled"].shape == (2, pooled)
    assert found["embed"].shape == (2, width)
    assert tokens.shape == (2, n_patches, patch_width)
    torch.testing.assert_close(found["patch_mean"], tokens.mean(1), atol=1e-4, rtol=1e-4)
    assert found["patch_tokens"].shape == (2, 49, patch_width)
    for layer in (layers[0], layers[-1]):
        assert found[f"layer:{layer}"].ndim == 2
    assert len({tuple(np.round(row.numpy(), 4)[:3]) for row in found["pooled"]}) == 2


def patches_by_hand(visual, batch):
    """What a VLM reads, by open_clip's and timm's own functions instead of hooks."""
    if hasattr(visual, "transformer"):
        out = visual.forward_intermediates(batch, indices=[DEPTH - 2], output_fmt="NLC")
        return out["image_intermediates"][0]
    if getattr(visual.trunk, "num_prefix_tokens", None) is not None:
        return visual.trunk.get_intermediate_layers(batch, n=[DEPTH - 2])[0]
    last = visual.trunk.forward_features(batch)
    return last.flatten(1, 2) if getattr(visual.trunk, "output_fmt", "") == "NHWC" else last.flatten(2).transpose(1, 2)


def test_layers_run_from_the_first_block_to_the_last(monkeypatch):
    counts = {name: len(build(name, monkeypatch).layers()) for name in ("vit-t", "swin-t", "convnext-t", "mobilevit-s")}
    assert counts == {"vit-t": DEPTH, "swin-t": 12, "convnext-t": 18, "mobilevit-s": 5}


def test_a_class_token_is_read_where_there_is_one(monkeypatch):
    encoder = build("vit-t", monkeypatch)
    with torch.inference_mode():
        batch = torch.stack([encoder.prepare()(image) for image in pictures()])
        last = f"layer:transformer.resblocks.{DEPTH - 1}"
        found = encoder.read(batch, [f"{last}@cls", "pooled"])
        normed = encoder.visual.ln_post(found[f"{last}@cls"])
    torch.testing.assert_close(normed, found["pooled"], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="class token"), torch.inference_mode():
        build("mobilevit-s", monkeypatch).read(batch, ["layer:trunk.final_conv@cls"])
    with pytest.raises(ValueError, match=r"got 'transformer\.nothing'"), torch.inference_mode():
        encoder.read(batch, ["layer:transformer.nothing"])


def test_each_encoder_sees_its_own_preprocessing_of_the_same_images(monkeypatch):
    """A 384-pixel teacher and a 224-pixel student in one pass over one list of images."""
    encoders = {name: build(name, monkeypatch) for name in ("siglip-so400m", "vit-t")}
    ids = ("a", "b")
    seen = []
    features.extract(
        encoders,
        {name: {"pooled": set(ids)} for name in encoders},
        zip(ids, pictures(), strict=True),
        lambda name, tap, images, rows: seen.append((name, tap, tuple(images), rows.shape)),
    )
    assert sorted(seen) == [("siglip-so400m", "pooled", ids, (2, 1152)), ("vit-t", "pooled", ids, (2, 192))]


def test_a_head_maps_the_students_embedding_into_the_teachers_space(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((1152, 512)).astype("float32"), rng.standard_normal(1152).astype("float32")
    save_file({"teacher-siglip.image.weight": weight, "teacher-siglip.image.bias": bias}, tmp_path / "h.safetensors")
    bare = build("vit-t", monkeypatch)
    encoder = ClipEncoder(bare.visual, bare.preprocess, towers.read_heads(tmp_path / "h.safetensors"))
    with torch.inference_mode():
        batch = torch.stack([encoder.prepare()(image) for image in pictures()])
        found = encoder.read(batch, ["embed_kd:teacher-siglip"])["embed_kd:teacher-siglip"].numpy()
        raw = encoder.visual(batch).numpy() @ weight.T + bias
    np.testing.assert_allclose(found, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)
    with pytest.raises(ValueError, match="a head that it has"), torch.inference_mode():
        bare.read(batch, ["embed_kd:teacher-siglip"])
