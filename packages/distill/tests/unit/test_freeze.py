import copy

import pytest
import torch
from kd_distill import models
from kd_distill.freeze import freeze

from packages.distill.tests.unit import tiny

CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"timm_model_name": "test_byobnet", "timm_pool": "", "timm_drop": 0.5, "image_size": 32},
    "text_cfg": tiny.TEXT | {"vocab_size": 60},
}
KINDS = {"clip": CLIP, "custom text": CLIP | {"custom_text": True}, "linear projection": None}
KINDS["linear projection"] = CLIP | {"text_cfg": CLIP["text_cfg"] | {"proj_bias": True}}


def _steps(model, n=3):
    """A few steps of training on noise."""
    draw = torch.Generator().manual_seed(0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.5)
    for _ in range(n):
        model.train()
        image = model.encode_image(torch.randn(4, 3, 32, 32, generator=draw))
        text = model.encode_text(torch.randint(1, 60, (4, 24), generator=draw))
        (model.logit_scale.exp() * (image * text).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


def _towers(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    scale = state.pop("logit_scale")
    image = {name: value for name, value in state.items() if name.startswith("visual.")}
    return {"image": image, "text": {n: v for n, v in state.items() if n not in image}, "scale": {"": scale}}


def _changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("frozen", "other"), [("text", "image"), ("image", "text")])
def test_a_frozen_tower_stays_bit_equal_and_the_other_is_trained(kind, frozen, other):
    model = models.build(KINDS[kind], seed=0)
    freeze(model, [frozen])
    before = _towers(model)
    _steps(model)
    after = _towers(model)
    assert not _changed(before[frozen], after[frozen])  # running means of batch norm with it
    assert _changed(before[other], after[other])
    assert _changed(before["scale"], after["scale"])
    gradients = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not gradients & before[frozen].keys()
    assert gradients >= {n for n in before[other] if n in dict(model.named_parameters())}


def test_without_freezing_every_tower_changes():
    """The control of the test above: its steps do change both towers, running means with them."""
    model = models.build(CLIP, seed=0)
    before = _towers(model)
    _steps(model)
    after = _towers(model)
    assert any("running_mean" in name for name in _changed(before["image"], after["image"]))
    assert _changed(before["text"], after["text"])


def test_a_frozen_tower_stays_in_eval_mode_in_a_copy_and_inside_another_module():
    model = models.build(CLIP, seed=0)
    freeze(model, ["image"])
    whole = torch.nn.ModuleList([copy.deepcopy(model)]).train()
    assert not any(module.training for module in whole[0].visual.modules())
    assert whole[0].transformer.training
    assert whole[0].visual.train().trunk is whole[0].visual.trunk  # the copy's own, not the original's


def test_an_unknown_tower_is_refused():
    with pytest.raises(ValueError, match="'image' or 'text'"):
        freeze(models.build(CLIP, seed=0), ["visual"])
