import json

import pytest
import torch
from kd_distill import models
from kd_distill.schema import check_architecture

from packages.distill.tests.unit import tiny

VISION = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
CONFIG = {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": tiny.TEXT}


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "timm_model_pretrained", True),
        ("vision_cfg", "timm_model_name", "hf-hub:someone/something"),
        ("vision_cfg", "timm_model_name", "local-dir:/somewhere"),
        ("text_cfg", "hf_model_name", "someone/something"),
        ("text_cfg", "hf_model_pretrained", True),
        ("vision_cfg", "ptach_size", 16),
        ("vision_cfg", "image_size", 0),
        ("text_cfg", "pool_type", "mean"),
        ("vision_cfg", "output_tokens", True),
        ("text_cfg", "tokenizer_kwargs", {"trust_remote_code": True}),
    ],
)
def test_a_configuration_that_fetches_or_is_unknown_is_refused(part, key, value):
    with pytest.raises(ValueError, match=f"here: {part}.{key}"):
        check_architecture(CONFIG | {part: CONFIG[part] | {key: value}}, "here")


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(ValueError, match="here: text_cfg: Field required"):
        check_architecture({"embed_dim": 8, "vision_cfg": VISION}, "here")
    with pytest.raises(ValueError, match="here: pretrained"):
        check_architecture(CONFIG | {"pretrained": "openai"}, "here")


def test_a_saved_model_comes_back_with_its_own_preprocessing(tmp_path):
    teacher = tiny.clip()
    view = tiny.siglip(100).preprocessing
    own = type(view)(32, view.mean, view.std, "bilinear", "squash")
    model = models.build(teacher.config, seed=3).eval()
    models.save(tmp_path, model, teacher.config, own)
    again, config, came = models.load(tmp_path)
    assert came == own
    assert config == teacher.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert not again.training


def test_a_siglip_comes_back_with_its_bias_and_equals_open_clips_loading(tmp_path):
    import open_clip

    (tmp_path / "files").mkdir()
    (tmp_path / "model").mkdir()
    teacher = tiny.siglip(tiny.siglip_tokenizer(tmp_path / "files"))
    model = models.build(teacher.config, seed=0).eval()
    with torch.no_grad():
        model.logit_bias.fill_(-16.5)
    models.save(tmp_path / "model", model, teacher.config, teacher.preprocessing, tmp_path / "files")
    ours, config, view = models.load(tmp_path / "model")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'model'}").eval()
    scale, bias = models.logit_scale_and_bias(ours)
    assert (scale, bias) == pytest.approx((1 / 0.07, -16.5))
    assert theirs.visual.preprocess_cfg["resize_mode"] == view.resize_mode == "squash"
    tokens = models.Tokenize(config, tmp_path / "model")(["a photo of a dog"])
    images = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(models.encode_text(ours, tokens), theirs.encode_text(tokens))
        assert torch.equal(ours.encode_image(images), theirs.encode_image(images))


def test_a_model_with_its_own_tokenizer_is_not_saved_without_it(tmp_path):
    teacher = tiny.siglip(100)
    with pytest.raises(ValueError, match="tokenizer of its own"):
        models.save(tmp_path, models.build(teacher.config, 0), teacher.config, teacher.preprocessing)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "expected JSON"),
        ("[]", "expected the keys model_cfg"),
        (json.dumps({"model_cfg": CONFIG, "code": "x"}), "expected the keys model_cfg"),
        (json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"size": 64}}), "size 32"),
        (json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"resize_mode": "longest"}}), "resize_mode"),
        (json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5]}}), "mean"),
    ],
)
def test_a_bad_configuration_file_is_named(tmp_path, content, match):
    (tmp_path / models.CONFIG).write_text(content)
    with pytest.raises(ValueError, match=match) as error:
        models.load(tmp_path)
    assert models.CONFIG in str(error.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=models.CONFIG):
        models.load(tmp_path)
    (tmp_path / models.CONFIG).write_text(json.dumps({"model_cfg": CONFIG}))
    with pytest.raises(FileNotFoundError, match=models.WEIGHTS):
        models.load(tmp_path)


def test_filling_with_other_weights_leaves_the_model_as_it_was():
    model = models.build(CONFIG, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = dict(models.build(CONFIG, seed=1).state_dict())
    other["logit_scale"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"1 weights have another shape \(logit_scale: expected \(\), got \(3,\)\)"):
        models.fill(model, other, "there")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("towers", [("image",), ("text",), ("image", "text")])
def test_taken_towers_are_the_others_and_the_rest_is_its_own(tmp_path, towers):
    models.save(tmp_path, models.build(CONFIG | {"init_logit_scale": 1.0}, seed=1), CONFIG)
    other, _, _ = models.load(tmp_path)
    model, own = models.build(CONFIG, seed=0), models.build(CONFIG, seed=0)
    models.take(model, tmp_path, towers)
    for name, value in model.state_dict().items():
        tower = "image" if name.startswith("visual.") else "text"
        taken = len(towers) == 2 if name == "logit_scale" else tower in towers
        assert torch.equal(value, (other if taken else own).state_dict()[name]), name


def test_a_tower_of_another_architecture_is_not_taken(tmp_path):
    wide = CONFIG | {"vision_cfg": VISION | {"width": 24}}
    models.save(tmp_path, models.build(wide, seed=1), wide)
    model = models.build(CONFIG, seed=0)
    models.take(model, tmp_path, ["text"])  # this one is the same
    with pytest.raises(ValueError, match=r"init.towers \['image'\] does not fit"):
        models.take(model, tmp_path, ["image"])
