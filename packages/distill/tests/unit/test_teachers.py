import dataclasses

import pytest
from kd_distill import models
from kd_distill.schema import check_architecture
from kd_distill.teachers import TEACHERS, teacher_named, teachers_of
from kd_distill.text import Tokenize
from kd_distill.towers import patch_grid

# open_clip's own name of each architecture
OPEN_CLIP = {
    "siglip-so400m-384": "ViT-SO400M-14-SigLIP-384",
    "clip-l14": "ViT-L-14-quickgelu",
    "clip-b16": "ViT-B-16-quickgelu",
    "dfn-l14": "ViT-L-14-quickgelu",
    "dfn-b16": "ViT-B-16-quickgelu",
}
TOTALS = {
    "siglip-so400m-384": 877_960_498,
    "clip-l14": 427_616_513,
    "clip-b16": 149_620_737,
    "dfn-l14": 427_616_513,
    "dfn-b16": 149_620_737,
}


@pytest.mark.parametrize("name", TEACHERS)
def test_the_real_construction_has_exactly_the_declared_parameters(name):
    teacher = TEACHERS[name]
    model = models.outline(teacher.config)
    assert models.parameters(model) == (teacher.image_parameters, teacher.text_parameters)
    assert sum(p.numel() for p in model.parameters()) == TOTALS[name]
    assert patch_grid(teacher.config) == teacher.grid
    assert (model.logit_bias is not None) == teacher.bias


@pytest.mark.parametrize("name", TEACHERS)
def test_the_declared_numbers_are_open_clips(name):
    from open_clip.factory import get_model_config

    theirs = get_model_config(OPEN_CLIP[name])
    ours = check_architecture(TEACHERS[name].config, name)
    assert ours == check_architecture(theirs, OPEN_CLIP[name])


def test_preprocessing_and_hub_are_those_of_open_clips_list_of_weights():
    from open_clip.pretrained import get_pretrained_cfg

    tags = {"siglip-so400m-384": "webli", "dfn-l14": "dfn2b", "dfn-b16": "dfn2b"}
    for name, teacher in TEACHERS.items():
        theirs = get_pretrained_cfg(OPEN_CLIP[name].removesuffix("-quickgelu"), tags.get(name, "openai"))
        view = teacher.preprocessing
        assert theirs["hf_hub"].rstrip("/") == teacher.hub
        assert (theirs["interpolation"], theirs["resize_mode"]) == (view.interpolation, view.resize_mode)
        assert (tuple(theirs["mean"]), tuple(theirs["std"])) == (view.mean, view.std)
        assert theirs.get("quick_gelu", False) == teacher.config.get("quick_gelu", False)


def test_the_five_are_told_apart_by_exact_name():
    assert len({teacher.hub for teacher in TEACHERS.values()}) == len(TEACHERS) == 5
    for name in ("clip", "CLIP-L14", "clip-l14 ", "teacher-clip-l14"):
        with pytest.raises(ValueError, match="Unknown teacher"):
            teacher_named(name)


def test_clip_captions_are_cut_and_siglips_need_their_own_tokenizer():
    assert Tokenize(TEACHERS["dfn-b16"].config).cut
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Tokenize(TEACHERS["siglip-so400m-384"].config)


def test_a_teacher_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TEACHERS["clip-b16"].scale = 1.0


TABLE = """
clip-b16:
  label: A small one
  hub: somebody/small
  config:
    embed_dim: 8
    vision_cfg: {image_size: 32, layers: 2, width: 16, head_width: 8, patch_size: 16}
    text_cfg: {context_length: 8, vocab_size: 49408, width: 8, heads: 2, layers: 1}
  preprocessing: {size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
  image_parameters: 7
  text_parameters: 8
  grid: [2, 2, 16]
  patch_size: 16
  scale: null
"""


def test_a_table_adds_teachers_and_comes_before_the_packages(tmp_path):
    (tmp_path / "table.yaml").write_text(TABLE)
    known = teachers_of(tmp_path / "table.yaml")
    assert known.keys() == TEACHERS.keys()
    assert known["clip-l14"] is TEACHERS["clip-l14"]
    small = teacher_named("clip-b16", tmp_path / "table.yaml")
    assert (small.hub, small.grid, small.preprocessing.size) == ("somebody/small", (2, 2, 16), 32)
    assert teachers_of(None) is TEACHERS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "expected teachers by name"),
        (TABLE.replace("  patch_size: 16\n", ""), "clip-b16.patch_size"),
        (TABLE.replace("grid: [2, 2, 16]", "grid: [2, 2]"), "clip-b16.grid"),
        (TABLE.replace("image_size: 32", "image_size: 32, timm_model_pretrained: true"), "timm_model_pretrained"),
    ],
)
def test_a_table_of_another_form_is_refused_by_name(tmp_path, text, said):
    (tmp_path / "table.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        teachers_of(tmp_path / "table.yaml")
    with pytest.raises(FileNotFoundError, match="table of teachers"):
        teachers_of(tmp_path / "nothing.yaml")
