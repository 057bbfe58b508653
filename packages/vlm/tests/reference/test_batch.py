"""Logits only where supervised, features instead of pixels, packed rows instead of padding: the same numbers."""

import numpy as np
import pytest
import torch
from kd_vlm.assembly import assemble
from kd_vlm.batch import collate, collate_packed, image_inputs, loss_sum, normalised, stock_inputs, supervised_logits
from kd_vlm.encoder import load_encoder, visual_tokens
from kd_vlm.packed_attention import language_attention
from kd_vlm.templates import IGNORE, IMAGE, Encoded, Turn, encode, qwen2_base
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

CONVERSATIONS = [
    [Turn(f"{IMAGE}\nWhat color is it?", "red"), Turn("And?", "2")],
    [Turn("Say green.", "green")],
    [Turn(f"{IMAGE}\n{IMAGE}\nWhich?", "blue red")],
    [Turn(f"Which?\n{IMAGE}", "red")],
]
N_PICTURES = 4


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("lms") / "lm-llama"
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(**shape, intermediate_size=64, vocab_size=400, max_position_embeddings=512)
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + (parameter.ndim == 1))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["vit-qwen2", "resnet-qwen2", "vit-llama"])
def built(request, vit_folder, resnet_folder, lm_folder, llama_folder):
    tower, lm = request.param.split("-")
    encoder = load_encoder({"vit": vit_folder, "resnet": resnet_folder}[tower])
    lm = {"qwen2": lm_folder, "llama": llama_folder}[lm]
    vlm = assemble(encoder, lm, torch.Generator().manual_seed(0))
    pictures = [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (50, 60, 3), dtype=np.uint8))
        for i in range(N_PICTURES)
    ]
    return encoder, vlm, encoder.processor(pictures, return_tensors="pt")["pixel_values"]


def samples(vlm, conversations=CONVERSATIONS):
    segments = [qwen2_base(turns) for turns in conversations]
    return encode(segments, vlm.processor.tokenizer, image_id=vlm.image_id, tokens_per_image=vlm.tokens_per_image)


def pad(vlm):
    return vlm.processor.tokenizer.pad_token_id


def loss_and_gradients(vlm, loss_of):
    vlm.model.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()
    trained = {name: p for name, p in vlm.model.named_parameters() if "vision_tower" not in name}
    return loss.detach(), {name: p.grad.clone() for name, p in trained.items()}


def assert_same(one, other):
    torch.testing.assert_close(one[0], other[0], atol=1e-6, rtol=1e-6)
    assert one[1].keys() == other[1].keys()
    for name in one[1]:
        torch.testing.assert_close(one[1][name], other[1][name], atol=1e-6, rtol=1e-5, msg=name)


def mean_loss(vlm, batch, **pictures):
    logits, targets = supervised_logits(vlm, batch, **pictures)
    return loss_sum(logits, targets) / len(targets)


def test_features_and_pixels_give_the_loss_and_gradients_of_the_stock_forward(built):
    """Logits at supervised positions only, against all logits and the stock loss; with and without pictures."""
    encoder, vlm, pixels = built
    batch = collate(samples(vlm), pad(vlm))
    stock = loss_and_gradients(
        vlm, lambda: vlm.model(input_ids=batch.ids, pixel_values=pixels, labels=batch.labels, use_cache=False).loss
    )
    assert_same(loss_and_gradients(vlm, lambda: mean_loss(vlm, batch, pixels=pixels)), stock)
    tokens = visual_tokens(encoder, pixels)
    assert_same(loss_and_gradients(vlm, lambda: mean_loss(vlm, batch, features=tokens)), stock)


def test_a_packed_row_gives_the_loss_and_gradients_of_the_padded_batch(built):
    encoder, vlm, pixels = built
    tokens, encoded = visual_tokens(encoder, pixels), samples(vlm)
    padded = loss_and_gradients(vlm, lambda: mean_loss(vlm, collate(encoded, pad(vlm)), features=tokens))
    for attention, options in (("sdpa", {}), ("sdpa", {"row_tokens": 512}), ("sdpa_by_sample", {}), ("eager", {})):
        row = collate_packed(encoded, pad(vlm), **options)
        with language_attention(vlm.model, attention):
            assert_same(loss_and_gradients(vlm, lambda row=row: mean_loss(vlm, row, features=tokens)), padded)
    assert vlm.model.config.text_config._attn_implementation == "sdpa"


@pytest.mark.parametrize("attention", ["eager", "sdpa", "sdpa_by_sample"])
@pytest.mark.parametrize("changed", range(len(CONVERSATIONS)))
def test_no_attention_crosses_samples_of_a_packed_row(built, attention, changed):
    """One sample replaced by another of the same length: the others' logits stay equal bit for bit."""
    encoder, vlm, pixels = built
    encoded = samples(vlm)
    other = list(encoded)
    ids = tuple(i if i == vlm.image_id else (i * 7 + 11) % 300 for i in encoded[changed].ids)
    other[changed] = Encoded(ids, encoded[changed].labels, encoded[changed].n_images)
    tokens = visual_tokens(encoder, pixels)
    logits = []
    for members in (encoded, other):
        inputs = stock_inputs(collate_packed(members, pad(vlm))) | {"logits_to_keep": 0}
        images = tokens.clone()
        if members is other:  # its pictures differ too
            first = sum(e.n_images for e in encoded[:changed])
            images[first : first + encoded[changed].n_images] += 1
        with torch.no_grad(), language_attention(vlm.model, attention):
            logits.append(vlm.model(**inputs, **image_inputs(vlm, features=images)).logits[0])
    ends = np.cumsum([len(e.ids) for e in encoded])
    for i, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        assert torch.equal(logits[0][start:end], logits[1][start:end]) == (i != changed)


def test_attention_by_sample_is_sdpa_with_padding_and_with_a_cache(built):
    """As in generation: prompts of unequal length padded on the left, then one token at a time."""
    _, vlm, pixels = built
    ids = [torch.tensor(e.ids) for e in samples(vlm)[::3]]
    longest = max(map(len, ids))
    rows = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0), value=pad(vlm)) for row in ids])
    mask = torch.stack([(torch.arange(longest) >= longest - len(row)).long() for row in ids])
    replies = []
    for name in ("sdpa", "sdpa_by_sample"):
        with language_attention(vlm.model, name):
            options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
            out = vlm.model.generate(input_ids=rows, attention_mask=mask, pixel_values=pixels[:2], **options)
            replies.append(torch.stack(out.logits))
    torch.testing.assert_close(*replies, atol=1e-6, rtol=1e-6)


def test_padding_does_not_change_a_samples_loss(built):
    _, vlm, _ = built
    short, long = samples(vlm, [[Turn("Say red.", "red")], [Turn("Say red.", "red")] * 3])
    with torch.no_grad():
        alone = [mean_loss(vlm, collate([s], pad(vlm))) * s.n_supervised for s in (short, long)]
        together = mean_loss(vlm, collate([short, long], pad(vlm)))
    expected = sum(alone) / (short.n_supervised + long.n_supervised)
    torch.testing.assert_close(together, expected, atol=1e-6, rtol=0)


def test_batches_say_what_is_in_them(built):
    _, vlm, _ = built
    encoded = samples(vlm)
    batch, row = collate(encoded, pad(vlm)), collate_packed(encoded, pad(vlm))
    assert batch.ids.shape == (4, max(len(e.ids) for e in encoded))
    assert (batch.n_samples, batch.n_images, batch.text_only) == (4, N_PICTURES, False)
    assert collate(encoded[1:2], pad(vlm)).text_only
    assert row.ids.numel() == row.n_tokens == batch.n_tokens == sum(len(e.ids) for e in encoded)
    assert int(batch.supervised.sum()) == int(row.supervised.sum()) == sum(e.n_supervised for e in encoded)


def test_the_end_of_a_sample_does_not_predict_the_next_ones_beginning():
    row = collate_packed([Encoded((1, 2), (IGNORE, 2)), Encoded((3, 4), (3, 4))], 0)
    assert row.targets.tolist() == [[2, IGNORE, 4, IGNORE]]
    assert row.position_ids.tolist() == [[0, 1, 0, 1]]


def test_normalisation_over_micro_batches_and_over_tokens():
    """Two ranks with two micro-batches each: the average over ranks of the sum over micro-batches, by both formulas."""
    sums, counts = [6.0, 1.0, 8.0, 2.0], [3, 1, 2, 4]  # rank 0 has the first two
    total = [torch.tensor(s) for s in sums]
    options = {"step_count": 10, "ranks": 2, "accumulation": 2}
    by = {
        how: sum(normalised(s, n, how, **options) for s, n in zip(total, counts, strict=True)) / 2
        for how in ("micro_batch_mean", "global_tokens")
    }
    assert float(by["micro_batch_mean"]) == pytest.approx((2 + 1 + 4 + 0.5) / 4)
    assert float(by["global_tokens"]) == pytest.approx(17 / 10)
    with pytest.raises(ValueError, match="step_count"):
        normalised(total[0], 3, "global_tokens")
