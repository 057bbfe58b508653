"""Whether the samples of a packed row see each other: in language models that keep them apart, and in others."""

import pytest
import torch
import transformers
from kd_vlm.assembly import assemble
from kd_vlm.attention import set_attention
from kd_vlm.batch import collate, collate_packed, supervised_logits
from kd_vlm.encoder import load_encoder
from kd_vlm.templates import Encoded
from transformers import AutoModelForCausalLM

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
MODELS = {
    "Qwen2": {"intermediate_size": 64},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "GPTNeo": {"num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Bloom": {"n_layer": 2, "n_head": 2},
    "Falcon": {"alibi": True, "new_decoder_architecture": False},
    "Lfm2": {"intermediate_size": 64, "full_attn_idxs": [1]},
}


@pytest.fixture
def make(vit_folder, tokenizer, tmp_path):
    """A tiny VLM around the language model of that name, whose weights are large enough to tell tokens apart."""

    def made(name):
        ends = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
        config = getattr(transformers, f"{name}Config")(**{**SHAPE, **ends, **MODELS[name]})
        model, generator = AutoModelForCausalLM.from_config(config), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3 if p.ndim > 1 else p)
        model.save_pretrained(tmp_path / "lm")
        tokenizer.save_pretrained(tmp_path / "lm")
        return assemble(load_encoder(vit_folder), tmp_path / "lm", torch.Generator().manual_seed(0))

    return made


@pytest.mark.parametrize(
    ("name", "attention", "taken"),
    [
        ("Qwen2", "auto", "sdpa_by_sample"),
        ("Qwen2", "sdpa", "sdpa"),
        ("Qwen2", "eager", "eager"),
        ("GPT2", "auto", "sdpa_by_sample"),
        ("OPT", "auto", "sdpa_by_sample"),
        ("GPTNeo", "auto", "eager"),  # transformers lets nobody choose it
        ("Falcon", "auto", "sdpa"),
    ],
)
def test_what_is_accepted_keeps_samples_apart(make, name, attention, taken):
    vlm = make(name)
    vlm.model.train()
    assert set_attention(vlm.model, attention, "bf16", packed=True) == taken
    assert vlm.model.model.language_model.training
    draw = torch.Generator().manual_seed(1)
    rows = [tuple(torch.randint(5, 200, (n,), generator=draw).tolist()) for n in (9, 14, 6)]
    samples = [Encoded(row, row, 0) for row in rows]
    vlm.model.eval()
    with torch.no_grad():
        alone = torch.cat([supervised_logits(vlm, collate([sample], 0))[0] for sample in samples])
        packed, _ = supervised_logits(vlm, collate_packed(samples, 0))
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("name", "attention"), [("OPT", "sdpa"), ("Bloom", "auto"), ("Lfm2", "auto"), ("Lfm2", "sdpa")]
)
def test_a_model_whose_packed_samples_see_each_other_is_refused(make, name, attention):
    vlm = make(name)
    with pytest.raises(ValueError, match=r"see each other.*Take sampler: buckets"):
        set_attention(vlm.model, attention, "fp32", packed=True)
    set_attention(vlm.model, attention, "fp32")
