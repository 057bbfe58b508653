import json

import pytest
import torch
from kd_distill import models
from kd_distill.towers import image_features, patch_grid

TEXT = 40_493_184  # width 384, 6 heads, 12 layers, 77 tokens of context, projected to 512
# image parameters with the projection, without it, text parameters, (rows, columns, width) of the patch tokens
STUDENTS = {
    "vit-t-16": (5_622_912, 5_524_608, TEXT, (14, 14, 192)),
    "mobilevit-s": (5_265_312, 4_937_632, TEXT, (7, 7, 640)),
    "swin-t": (27_912_570, 27_519_354, TEXT, (7, 7, 768)),
    "convnext-t": (28_213_344, 27_820_128, TEXT, (7, 7, 768)),
    "convnext-t-1024": (28_606_560, 27_820_128, 63_690_240, (7, 7, 768)),
    "resnet18": (11_438_656, 11_176_512, TEXT, (7, 7, 512)),
    "resnet50": (24_556_608, 23_508_032, TEXT, (7, 7, 2048)),
    "resnet50-clip": (38_316_896, 36_218_720, TEXT + 512 * 384, (7, 7, 2048)),
    "efficientnet-b0": (4_662_908, 4_007_548, TEXT, (7, 7, 1280)),
    "mobilenetv3-small": (2_042_656, 1_517_856, TEXT, (7, 7, 576)),
}
PROJECTIONS = ("proj", "head.proj.weight", "trunk.classifier.weight", "trunk.classifier.bias")


def _without_projection(visual):
    names = (*PROJECTIONS, "attnpool.c_proj.weight", "attnpool.c_proj.bias")
    return sum(p.numel() for name, p in visual.named_parameters() if name not in names)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_has_exactly_the_declared_parameters_and_tokens(name):
    with_projection, without, text, grid = STUDENTS[name]
    config = models.read_architecture(name)
    model = models.outline(config)
    assert models.parameters(model) == (with_projection, text)
    assert _without_projection(model.visual) == without
    assert patch_grid(config) == grid
    assert models.describe(model, config) == {
        "kd.params_m": f"{with_projection / 1e6:.3f}",
        "kd.width": str(config["embed_dim"]),
        "kd.tokens": str(grid[0] * grid[1]),
    }


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_gives_embeddings_of_its_width(name):
    config = models.read_architecture(name)
    with torch.device("meta"):
        model = models.build(config, seed=0).eval()
        embedding, tokens = image_features(model, torch.empty(2, 3, 224, 224), patches="last")
        text = model.encode_text(torch.zeros(2, 77, dtype=torch.int64)) if name == "vit-t-16" else None
    assert embedding.shape == model.encode_image(torch.empty(2, 3, 224, 224, device="meta")).shape
    assert embedding.shape == (2, config["embed_dim"])
    assert tokens.shape[0] == 2
    assert text is None or text.shape == (2, 512)


def test_every_architecture_of_the_package_is_read_and_tested():
    demo = {name for name in models.architectures() if name.startswith("demo-")}
    assert models.architectures().keys() - demo == STUDENTS.keys()
    for name in models.architectures():
        models.read_architecture(name)


@pytest.mark.parametrize(
    "vision",
    [
        {"timm_model_name": "test_efficientnet", "timm_model_pretrained": False, "timm_pool": "", "image_size": 64},
        {"timm_model_name": "test_nfnet", "timm_model_pretrained": False, "timm_pool": "", "image_size": 64},
        {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False, "timm_pool": "", "image_size": 224},
        {"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "pool_type": "avg"},
    ],
)
def test_any_open_clip_or_timm_model_is_one_file(tmp_path, vision):
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
    (tmp_path / "own.json").write_text(json.dumps({"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}))
    config = models.read_architecture(str(tmp_path / "own.json"))
    model = models.outline(config)
    side = models.image_size(config)
    assert model.encode_image(torch.empty(1, 3, side, side, device="meta")).shape == (1, 12)
    assert int(models.describe(model, config)["kd.tokens"]) > 0


def test_an_unknown_architecture_names_the_known_ones():
    with pytest.raises(ValueError, match="vit-t-16"):
        models.read_architecture("vit-t-32")
