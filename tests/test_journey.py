"""The examples in the documentation run and give what they say."""

import doctest
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_journey_of_one_pair_is_as_it_is_told():
    result = doctest.testfile(str(DOCS / "journey.md"), module_relative=False)
    assert result.attempted > 40
    assert result.failed == 0
