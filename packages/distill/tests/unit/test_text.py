"""Captions of like length are run together, and give what padded ones give."""

import pytest
import torch
from kd_distill import models
from kd_distill.text import encode_text, like_lengths

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2},
}
LENGTHS = [3, 77, 15, 16, 17, 40, 33, 31, 32, 9, 12, 4, 5, 6, 7, 8]


@pytest.fixture
def tokens():
    """Padded with zeros; the end token is the largest id."""
    ids = torch.randint(1, 98, (len(LENGTHS), 77), generator=torch.Generator().manual_seed(0))
    for row, length in zip(ids, LENGTHS, strict=True):
        row[length - 1], row[length:] = 99, 0
    return ids


def test_not_a_bit_differs_from_padded_captions(tokens):
    model = models.build(CONFIG, seed=0).eval()
    with torch.no_grad():
        padded = model.encode_text(tokens)
        assert torch.equal(encode_text(model, tokens), padded)
        short = tokens[[0, 2, 3, 9]]
        assert torch.equal(encode_text(model, short[:, :16]), padded[[0, 2, 3, 9]])


def test_gradients_are_those_of_padded_captions(tokens):
    """Rows are added up in another order: float64 leaves its rounding, 1e-16 of sums of some hundred terms."""
    model = models.build(CONFIG, seed=0).double()
    found = []
    for encode in (model.encode_text, lambda ids: encode_text(model, ids)):
        model.zero_grad()
        encode(tokens).square().sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-10, atol=1e-12 * float(gradient.abs().max()))


def test_every_row_is_in_one_group_that_is_long_enough():
    groups = like_lengths(LENGTHS, 77)
    assert sorted(row for _, rows in groups for row in rows) == list(range(len(LENGTHS)))
    for length, rows in groups:
        assert max(LENGTHS[row] for row in rows) <= length <= 77
    assert [length for length, _ in groups] == [16, 32, 48, 77]


def test_few_rows_are_run_with_longer_ones():
    lengths = [10] * 20 + [20] + [40] * 20
    assert [(t, len(rows)) for t, rows in like_lengths(lengths, 77)] == [(16, 20), (48, 21)]


def test_a_tower_without_causal_mask_is_run_as_it_is(tokens):
    config = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"no_causal_mask": True}}
    model = models.build(config, seed=0).eval()
    with torch.no_grad():
        assert torch.equal(encode_text(model, tokens), model.encode_text(tokens))
