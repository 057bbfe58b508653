"""Each test file is a module of its own: folders of tests are no packages, of which two by one name would be one."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("folder", ["packages", "tests", "world/tests"])
def test_no_folder_of_tests_is_a_package(folder):
    packages = [file for file in (ROOT / folder).rglob("__init__.py") if "tests" in file.relative_to(ROOT).parts]
    assert packages == []
