"""How the samples of a step are shared among processes and micro-batches."""

import pytest
from kd_vlm.regimen import split


def test_batches_that_do_not_divide_are_refused():
    assert split(128, 8, 4) == (8, 4)
    assert split(128, None, 4) == (32, 1)
    with pytest.raises(ValueError, match="no multiple of micro_batch_size 8 on 3 processes"):
        split(128, 8, 3)
    for asked, ways in {
        (10, None, 4): "of 4 processes; set batch_size to 8 or 12, or start 2 or 5 processes",
        (2, None, 4): "of 4 processes; set batch_size to 4, or start 2 processes",
        (128, 8, 3): "set batch_size to 120 or 144, or start 2 or 4 processes",
        (24, 5, 2): "set batch_size to 20 or 30, or micro_batch_size to a divisor of 12",
    }.items():
        with pytest.raises(ValueError, match=f"{ways}[.]$"):
            split(*asked)
