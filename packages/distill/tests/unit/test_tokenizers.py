import pytest
import torch
from kd_distill import models
from kd_distill.text import Tokenize

from packages.distill.tests.unit import tiny

CAPTIONS = ["A photo of a dog.", "Two_red  circles, LEFT of 'them'!", "the numbers " + "1 2 3 4 5 6 7 8 9 " * 9]


@pytest.fixture
def siglip(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "model").mkdir()
    teacher = tiny.siglip(tiny.siglip_tokenizer(tmp_path / "files"))
    model = models.build(teacher.config, 0)
    models.save(tmp_path / "model", model, teacher.config, teacher.preprocessing, tmp_path / "files")
    return tmp_path / "model"


def test_siglips_tokens_are_those_of_open_clip(siglip):
    import open_clip

    theirs = open_clip.get_tokenizer(f"local-dir:{siglip}")(CAPTIONS)
    config, _ = models.read_config(siglip)
    assert torch.equal(Tokenize(config, siglip)(CAPTIONS), theirs)


def test_siglips_captions_are_canonical_padded_and_never_cut(siglip):
    config, _ = models.read_config(siglip)
    tokenize = Tokenize(config, siglip)
    assert not tokenize.cut
    tokens = tokenize(CAPTIONS)
    assert tokens.shape == (3, 24)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokenize(["two red circles left of them"]), tokenize(["Two_red  circles, LEFT of 'them'!"]))
    assert tokens[0, -1] == tokens[2, -1] == 1  # the end token pads, and ends a caption that was too long


def test_a_clip_tokenizer_for_a_model_of_fewer_tokens_is_refused():
    """CLIP's ids go up to 49407: in a table of 32000 rows they are an index error, or another model's words."""
    config = {"text_cfg": {"vocab_size": 32000, "context_length": 64}}
    with pytest.raises(ValueError, match=r"at most 32000 tokens.*hf_tokenizer_name"):
        Tokenize(config)


@pytest.mark.parametrize(
    "change", [{"no_causal_mask": True}, {"pool_type": "last"}, {"pool_type": "eos"}, {"embed_cls": True}]
)
def test_only_causal_towers_that_pool_the_end_token_are_cut(change):
    text = {"context_length": 24, "vocab_size": 49408}
    assert Tokenize({"text_cfg": text})(["a dog"]).shape == (1, 4)
    assert Tokenize({"text_cfg": text | change})(["a dog"]).shape == (1, 24)


def test_tokenizers_are_told_apart(siglip):
    config, _ = models.read_config(siglip)
    one, clip = Tokenize(config, siglip).identity, Tokenize({"text_cfg": {"context_length": 24}}).identity
    (siglip / "tokenizer.json").write_text((siglip / "tokenizer.json").read_text().replace("sofa", "sofb"))
    assert len({one, clip, Tokenize(config, siglip).identity}) == 3


def test_a_tokenizer_without_a_padding_token_is_refused(siglip):
    (siglip / "tokenizer_config.json").write_text("{}")
    config, _ = models.read_config(siglip)
    with pytest.raises(ValueError, match="pad_token"):
        Tokenize(config, siglip)
