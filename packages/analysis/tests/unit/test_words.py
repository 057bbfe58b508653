import pytest
from kd_analysis.words import MINUS, number, p_value, signed


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "1.2"), (-3.0, f"{MINUS}3.0"), (-0.01, "0.0"), (None, "--"), (float("nan"), "--")]
)
def test_numbers_are_set_for_reading(value, text):
    assert number(value) == text


def test_signs_and_small_p_are_set_for_reading():
    assert (signed(2.0), signed(-2.0)) == ("+2.0", f"{MINUS}2.0")
    assert (p_value(0.0004), p_value(0.04), p_value(None)) == ("< .001", ".040", "--")
