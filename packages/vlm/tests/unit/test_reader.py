"""Answers are text to a terminal, never commands; a conversation keeps its turns and pictures together."""

import pytest
from kd_vlm.reader import shown

HOSTILE = "a\x1b[31mred\x1b[0m \x1b]0;title\x07b \x1b]8;;http://x\x1b\\link \x9b2Jc \x1b(0d\r\n\te\x08\x7f\u202ef"


def test_escape_sequences_and_control_characters_are_taken_out():
    assert "".join(shown([HOSTILE])) == "ared b link c d\n\tef"


def test_a_sequence_may_be_cut_anywhere():
    for cut in range(len(HOSTILE) + 1):
        assert "".join(shown([HOSTILE[:cut], HOSTILE[cut:]])) == "ared b link c d\n\tef", cut
    assert "".join(shown(list(HOSTILE))) == "ared b link c d\n\tef"


def test_an_unfinished_sequence_shows_its_text_without_its_power():
    assert "".join(shown(["ab\x1b[3"])) == "ab[3"
    assert "".join(shown(["\x1b]" + "x" * 200])) == "]" + "x" * 200


@pytest.mark.parametrize("text", ["plain", "ümlaut, 漢字, 🙂", "tab\tand\nnewline", ""])
def test_text_stays_as_it_is(text):
    assert "".join(shown([text])) == text
