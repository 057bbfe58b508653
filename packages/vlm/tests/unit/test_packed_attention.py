import pytest
import torch
from kd_vlm.packed_attention import by_sample, mask, sample_lengths
from torch.nn.functional import scaled_dot_product_attention


def test_lengths_are_read_from_the_positions():
    assert sample_lengths(torch.tensor([0, 1, 2, 0, 0, 1])) == [3, 1, 2]


@pytest.mark.parametrize("rows", [1, 2])
def test_each_sample_attends_to_itself_as_if_it_were_alone(rows):
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(rows, h, 9, 4, generator=draw) for h in (4, 2, 2))
    lengths = [[4, 5], [2, 7]][:rows]
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    out, _ = by_sample(None, query, key, value, None, scaling=0.5, position_ids=positions)
    for i, row in enumerate(lengths):
        at = 0
        for n in row:
            alone = [x[i : i + 1, :, at : at + n] for x in (query, key, value)]
            expected = scaled_dot_product_attention(*alone, is_causal=True, scale=0.5, enable_gqa=True)
            torch.testing.assert_close(out[i : i + 1, at : at + n].transpose(1, 2), expected, atol=1e-6, rtol=1e-6)
            at += n


def test_only_whole_rows_without_padding_go_without_a_mask():
    whole = {"batch_size": 1, "q_length": 5, "kv_length": 5, "allow_is_causal_skip": False}
    padding = torch.tensor([[0, 1, 1, 1, 1]])
    assert mask(**whole) is None
    assert mask(**whole, attention_mask=padding.bool()) is not None
    assert mask(**{**whole, "q_length": 2}, q_offset=3) is not None
