"""Captions: what is taken, what is refused and why."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_distill.captions import MAX_BYTES, checked
from kd_distill.ledger import BadSampleError, Cause


@pytest.mark.parametrize("text", ["a dog", " a dog\n", "NA", "n/a", "nan bread", 'a 12" vinyl', "un été", "日本", "💡"])
def test_a_caption_is_taken_without_the_space_around_it(text):
    assert checked(text.encode()) == text.strip()


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (None, Cause.EMPTY),
        (b"", Cause.EMPTY),
        (b" \t\r\n ", Cause.EMPTY),
        ("\u3000\u00a0".encode(), Cause.EMPTY),
        (b"nan", Cause.NULL),
        (b"None", Cause.NULL),
        (b"a dog\0", Cause.NUL),
        (b"\xff\xfe", Cause.ENCODING),
        ("été".encode("latin-1"), Cause.ENCODING),
        (b"\xed\xa0\x80", Cause.ENCODING),  # half of a surrogate pair
        (b"a" * (MAX_BYTES + 1), Cause.LONG),
        (b"a" * 10_000_000, Cause.LONG),
    ],
)
def test_what_is_no_caption_is_refused_with_its_cause(raw, cause):
    with pytest.raises(BadSampleError) as caught:
        checked(raw)
    assert caught.value.cause is cause


@settings(max_examples=500)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=40).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_any_bytes_are_a_caption_or_refused(raw):
    try:
        caption = checked(raw)
    except BadSampleError:
        return
    assert caption == raw.decode().strip()
    assert caption
    assert "\0" not in caption
