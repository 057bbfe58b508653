"""Image towers opened up give what the closed tower gives, and the tokens that the configuration declares."""

import pytest
import torch
from kd_distill import models
from kd_distill.towers import image_features, patch_grid

TEXT = {"context_length": 8, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
TIMM = {"timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear", "image_size": 64}
VITS = {
    "vit": {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8},
    "vit, mean of patches": {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "pool_type": "avg"},
    "timm vit": TIMM | {"timm_model_name": "test_vit", "image_size": 160},
    "siglip": TIMM | {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none", "image_size": 160},
}
MAPS = {
    "timm conv": TIMM | {"timm_model_name": "test_resnet"},
    "timm channels last": TIMM | {"timm_model_name": "test_convnext"},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
}
GRIDS = {
    "vit": (4, 4, 24),
    "vit, mean of patches": (2, 2, 24),
    "timm vit": (10, 10, 64),
    "siglip": (10, 10, 96),
    "timm conv": (2, 2, 96),
    "timm channels last": (2, 2, 64),
    "resnet": (2, 2, 256),
}


def _config(name):
    return {"embed_dim": 96 if name == "siglip" else 20, "vision_cfg": (VITS | MAPS)[name], "text_cfg": TEXT}


def _model_and_images(name):
    config = _config(name)
    side = config["vision_cfg"]["image_size"]
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    return models.build(config, seed=0).eval(), images


@pytest.mark.parametrize("layer", ["penultimate", "last"])
@pytest.mark.parametrize("name", [*VITS, *MAPS])
@torch.inference_mode()
def test_embeddings_equal_encode_image_bit_by_bit_with_and_without_patches(name, layer):
    model, images = _model_and_images(name)
    closed = model.encode_image(images)
    plain, none = image_features(model, images)
    opened, tokens = image_features(model, images, patches=layer)
    assert none is None
    assert torch.equal(plain, closed)
    assert torch.equal(opened, closed)
    rows, columns, width = patch_grid(_config(name))
    assert tokens.shape == (3, rows * columns, width)


@pytest.mark.parametrize("name", VITS)
@torch.inference_mode()
def test_penultimate_tokens_of_a_transformer_are_what_its_last_block_is_given(name):
    """As the libraries' own `forward_intermediates` has them, which take no part in ours."""
    model, images = _model_and_images(name)
    _, tokens = image_features(model, images, patches="penultimate")
    if hasattr(model.visual, "trunk"):
        n_blocks, open_up = len(model.visual.trunk.blocks), model.visual.trunk.forward_intermediates
        expected = open_up(images, indices=[n_blocks - 2], output_fmt="NLC", intermediates_only=True)[0]
    else:
        n_blocks, open_up = len(model.visual.transformer.resblocks), model.visual.forward_intermediates
        expected = open_up(images, indices=[n_blocks - 2], output_fmt="NLC")["image_intermediates"][0]
    assert torch.equal(tokens, expected)
    assert not torch.equal(tokens, image_features(model, images, patches="last")[1])


@pytest.mark.parametrize("name", MAPS)
@torch.inference_mode()
def test_of_a_tower_of_feature_maps_both_layers_are_the_last_map(name):
    model, images = _model_and_images(name)
    both = [image_features(model, images, patches=layer)[1] for layer in ("penultimate", "last")]
    assert torch.equal(*both)


@pytest.mark.parametrize("name", GRIDS)
def test_the_grid_is_the_declared_one(name):
    assert patch_grid(_config(name)) == GRIDS[name]


@pytest.mark.parametrize("name", VITS)
@torch.inference_mode()
def test_keeping_every_patch_is_the_full_forward(name):
    model, images = _model_and_images(name)
    full, all_tokens = image_features(model, images, patches="last")
    every = torch.arange(all_tokens.shape[1]).expand(3, -1)
    kept, tokens = image_features(model, images, patches="last", keep=every)
    assert torch.equal(kept, full)
    assert torch.equal(tokens, all_tokens)


@pytest.mark.parametrize("name", VITS)
@torch.inference_mode()
def test_kept_patches_come_in_the_order_of_keep_and_dropped_ones_have_no_influence(name):
    model, images = _model_and_images(name)
    rows, columns, _ = patch_grid(_config(name))
    side = images.shape[-1] // rows
    keep = torch.tensor([[1, columns]] * 3)
    embedding, tokens = image_features(model, images, patches="last", keep=keep)
    changed = images.clone()
    changed[:, :, -side:, -side:] = 5  # the last patch, which is not kept
    assert torch.equal(image_features(model, changed, keep=keep)[0], embedding)
    assert not torch.equal(image_features(model, changed)[0], model.encode_image(images))
    turned = image_features(model, images, patches="last", keep=keep.flip(1))[1].flip(1)
    torch.testing.assert_close(turned, tokens, rtol=1e-5, atol=1e-5)  # attention sums in another order


@pytest.mark.parametrize("name", MAPS)
@torch.inference_mode()
def test_patch_tokens_stand_row_by_row(name):
    """A bright spot in the upper right quarter shows most in a token of that quarter."""
    model, _ = _model_and_images(name)
    model.visual.attnpool = torch.nn.Identity()  # open_clip's pooling takes its own size only
    images = torch.zeros(1, 3, 256, 256)
    images[:, :, :64, 192:] = 3
    tokens, dark = (image_features(model, x, patches="last")[1] for x in (images, torch.zeros_like(images)))
    side = int(tokens.shape[1] ** 0.5)
    row, column = divmod((tokens - dark).norm(dim=2).argmax().item(), side)
    assert row < side / 2 <= column


@pytest.mark.parametrize("name", MAPS)
def test_dropping_patches_of_a_convolutional_tower_is_refused(name):
    model, images = _model_and_images(name)
    with pytest.raises(ValueError, match="vision transformers only"):
        image_features(model, images, keep=torch.tensor([[0]] * 3))


def test_keep_of_the_wrong_shape_is_refused():
    model, images = _model_and_images("vit")
    for keep in (torch.tensor([0, 1]), torch.zeros(2, 4, dtype=torch.int64), torch.zeros(3, 17, dtype=torch.int64)):
        with pytest.raises(ValueError, match="expected the shape"):
            image_features(model, images, keep=keep)


def test_gradients_of_tokens_reach_the_first_layer():
    model, images = _model_and_images("vit")
    image_features(model.train(), images, patches="last")[1].square().sum().backward()
    assert model.visual.conv1.weight.grad.abs().sum() > 0
