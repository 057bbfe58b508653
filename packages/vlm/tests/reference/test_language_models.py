"""Language models behind a tower: real vocabularies, tied and untied heads, any that a stock VLM equals."""

import os
from pathlib import Path

import pytest
import torch
import transformers
from kd_vlm.assembly import assemble, save_vlm
from kd_vlm.batch import collate, supervised_logits
from kd_vlm.corpus import prepare
from kd_vlm.data import Sample
from kd_vlm.encoder import load_encoder
from kd_vlm.language_model import load_language_model
from kd_vlm.loading import load_vlm
from kd_vlm.sources import resolve
from kd_vlm.templates import IMAGE, Turn, encode, template_named
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

TOKENIZERS = Path(os.environ.get("KD_REAL_DATA", Path(__file__).parents[4].parent / "shared" / "data")) / "tokenizers"
QWEN2 = {"vocab_size": 151936, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
QWEN2_05B = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}
SMOLLM = {"vocab_size": 49152, "rope_theta": 1e4, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
SMOLLM_360M = {"hidden_size": 960, "intermediate_size": 2560, "num_attention_heads": 15, "num_key_value_heads": 5}
NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}


def write(folder, config, tokenizer):
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.05 if p.ndim > 1 else 1 + 0 * p)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def qwen2_tokenizer(tmp_path):
    """The real one as Qwen2-0.5B has it: its 151,643 words and three special tokens."""
    if not TOKENIZERS.is_dir():
        pytest.skip(f"the real tokenizers are not at {TOKENIZERS}")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((TOKENIZERS / "qwen2" / name).read_bytes())
    tokenizer = transformers.Qwen2Tokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == 151643
    assert len(tokenizer) == 151646
    return tokenizer


def smollm_tokenizer(_):
    if not TOKENIZERS.is_dir():
        pytest.skip(f"the real tokenizers are not at {TOKENIZERS}")
    ends = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZERS / "smollm2" / "tokenizer.json"), **ends)


def sizes(narrow, wide):
    """Real vocabularies at a small width by default, at the real width among the long tests."""
    return [pytest.param(narrow, id="narrow"), pytest.param(wide, id="real width", marks=pytest.mark.faults)]


@pytest.mark.parametrize("shape", sizes(NARROW, QWEN2_05B))
def test_the_image_token_fits_into_qwen2s_unused_rows(vit_folder, tmp_path, shape):
    config = Qwen2Config(**{**QWEN2, **shape}, num_hidden_layers=2)
    folder = write(tmp_path / "lm", config, qwen2_tokenizer(tmp_path))
    vlm = assemble(load_encoder(vit_folder), folder, torch.Generator().manual_seed(0))
    assert vlm.image_id == 151646
    assert vlm.text_config.vocab_size == 151936, "no resize"
    assert vlm.model.lm_head.weight.data_ptr() == vlm.model.get_input_embeddings().weight.data_ptr()
    trained = encode(
        [template_named("qwen2_base", vlm.processor.tokenizer)([Turn(f"{IMAGE}\nWhat is this?", "It is a cat.")])],
        vlm.processor.tokenizer,
        image_id=vlm.image_id,
        tokens_per_image=vlm.tokens_per_image,
    )[0]
    assert trained.ids[-6:] == (1084, 374, 264, 8251, 13, 151643)
    if shape is NARROW:
        save_vlm(vlm, tmp_path / "vlm")
        again = load_vlm(tmp_path / "vlm")
        assert (again.image_id, again.tokens_per_image) == (151646, 16)
        assert again.text_config.rope_parameters["rope_theta"] == 1e6


@pytest.mark.parametrize("shape", sizes(NARROW, SMOLLM_360M))
@pytest.mark.parametrize("tied", [True, False])
def test_smollms_full_table_grows_by_a_row_that_is_the_mean(vit_folder, tmp_path, tied, shape):
    config = LlamaConfig(**{**SMOLLM, **shape, "tie_word_embeddings": tied}, num_hidden_layers=2)
    folder = write(tmp_path / "lm", config, smollm_tokenizer(tmp_path))
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    vlm = assemble(load_encoder(vit_folder), folder, torch.Generator().manual_seed(0))
    table, head = vlm.model.get_input_embeddings().weight, vlm.model.lm_head.weight
    assert vlm.image_id == 49152
    assert len(table) == len(head) == vlm.text_config.vocab_size == 49153
    assert (table.data_ptr() == head.data_ptr()) == tied
    for ours, theirs in ((table, original.get_input_embeddings().weight), (head, original.lm_head.weight)):
        assert torch.equal(ours[:49152], theirs)
        torch.testing.assert_close(ours[49152], theirs.mean(dim=0))


SHAPE = {**NARROW, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
ANY = {
    "Qwen2": {},
    "Llama": {"tie_word_embeddings": True},
    "Mistral": {},
    "Qwen3": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Phi3": {},
    "Olmo2": {},
    "SmolLM3": {},
    "GPTNeoX": {},
    "GPT2": {},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
}


@pytest.mark.parametrize("name", ANY)
def test_any_causal_language_model_keeps_its_logits(vit_folder, tokenizer, tmp_path, name):
    ends = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **ends, "max_position_embeddings": 64, **ANY[name]})
    folder = write(tmp_path / "lm", config, tokenizer)
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    vlm = assemble(load_encoder(vit_folder), folder, torch.Generator().manual_seed(0))
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        assert torch.equal(vlm.model(input_ids=ids).logits[..., : len(tokenizer)], original(ids).logits)


@pytest.mark.parametrize(("name", "learned"), [("GPT2", True), ("OPT", True), ("Llama", False), ("GPTNeoX", False)])
def test_samples_longer_than_a_table_of_positions_are_refused(vit_folder, tokenizer, tmp_path, name, learned):
    ends = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **ends, "max_position_embeddings": 64, **ANY[name]})
    folder = write(tmp_path / "lm", config, tokenizer)
    vlm = assemble(load_encoder(vit_folder), folder, torch.Generator().manual_seed(0))
    options = {"template": "qwen2_base", "least_supervised_share": 0.001}
    samples = [Sample("a", (), (Turn("q", "a " * 200),))]
    if learned:
        with pytest.raises(ValueError, match=r"learned 64 positions.*Set max_length: 64"):
            prepare(vlm, samples, tmp_path, max_length=65, **options)
    n = 64 if learned else 100
    corpus = prepare(vlm, samples, tmp_path, max_length=n, **options)
    assert corpus.lengths == [n]
    logits, _ = supervised_logits(vlm, collate([corpus.encoded[0]], 0))
    assert logits.isfinite().all()


def test_a_language_model_without_a_number_of_positions_reads_samples_of_any_length(vit_folder, tokenizer, tmp_path):
    ends = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    folder = write(tmp_path / "lm", transformers.BloomConfig(**SHAPE, **ends), tokenizer)
    vlm = assemble(load_encoder(vit_folder), folder, torch.Generator().manual_seed(0))
    samples = [Sample("a", (), (Turn("q", "a " * 200),))]
    corpus = prepare(vlm, samples, tmp_path, template="qwen2_base", least_supervised_share=0.001)
    assert corpus.lengths[0] > 200


@pytest.mark.parametrize(
    ("name", "more"), [("Granite", {"logits_scaling": 3.0}), ("Cohere", {}), ("Gemma2", {"head_dim": 8})]
)
def test_a_model_that_scales_or_caps_its_logits_is_refused(vit_folder, tokenizer, tmp_path, name, more):
    ends = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **ends, "max_position_embeddings": 64, **more})
    folder = write(tmp_path / "lm", config, tokenizer)
    with pytest.raises(ValueError, match="no stock VLM does; take another"):
        assemble(load_encoder(vit_folder), folder, torch.Generator().manual_seed(0))


def test_stories260k_has_its_own_end_and_beginning(story_folder, vit_folder):
    lm = load_language_model(story_folder)
    assert (lm.end_id, lm.image_id) == (2, 512)
    vlm = assemble(load_encoder(vit_folder), story_folder, torch.Generator().manual_seed(0))
    assert vlm.model.generation_config.eos_token_id == 2


def test_an_instruct_tokenizer_speaks_in_its_own_template(vit_folder, lm_folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(lm_folder)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    setattr(tokenizer, "eos_token", "<|im_end|>")  # noqa: B010
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    folder = write(tmp_path / "lm", Qwen2Config(**SHAPE, vocab_size=len(tokenizer)), tokenizer)
    vlm = assemble(load_encoder(vit_folder), folder, torch.Generator().manual_seed(0), template="chat")
    end = vlm.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert vlm.model.generation_config.eos_token_id == end
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    text = vlm.processor.apply_chat_template(asked, add_generation_prompt=True)
    assert text == f"<|im_start|>user\n{IMAGE}\nWhat?<|im_end|>\n<|im_start|>assistant\n"


def test_a_hub_repository_is_read_from_the_hubs_cache(vit_folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    revision = "0" * 40
    repo = tmp_path / "models--somebody--ViT-T.16"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(revision)
    snapshot = repo / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for file in vit_folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    (snapshot / "pytorch_model.bin").write_bytes(b"a pickle that nobody opens")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = resolve("hf-hub:somebody/ViT-T.16")
    assert (found.kind, found.name) == ("encoder", "ViT-T-16")
    assert load_encoder(found.path).n_tokens == 16
    assert found.sha256 == resolve(str(vit_folder)).sha256, "the pickle beside it counts for nothing"
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE"):
        resolve("hf-hub:somebody/else")
