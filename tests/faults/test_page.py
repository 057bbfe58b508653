"""docs/faults.md names tests that exist, every fault of the list, and for each how its test can be seen to fail."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
FAULTS = [row for row in ROWS if len(row) == 5 and row[0] not in ("fault", "")]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


def place(file: str) -> Path:
    """A file of the page; the packages' own stand under their names."""
    package, _, rest = file.partition("/")
    return ROOT / (file if package == "tests" else f"packages/{package}/tests/{rest}")


def functions(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_the_page_names_exists(file):
    assert {test for named, test in NAMED if named == file} <= functions(place(file))


def test_every_fault_of_the_list_has_a_row_with_tests_tries_and_a_control():
    assert {row[0] for row in FAULTS} >= {f"F{i:02d}" for i in range(1, 33)}
    for row in FAULTS:
        assert "::test_" in row[2], row[0]
        assert row[3], row[0]
        assert row[4], row[0]


def test_control_a_test_that_does_not_exist_is_missed():
    assert "test_nothing_of_that_name" not in functions(place("tests/faults/test_page.py"))
