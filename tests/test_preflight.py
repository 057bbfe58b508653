import shutil
import sys
from collections import namedtuple

import pytest

from pipeline import preflight

Usage = namedtuple("Usage", "total used free")


def test_this_machine_lacks_nothing():
    assert preflight.missing() is None


@pytest.mark.parametrize("version", [(3, 10, 4), (3, 14, 0)])
def test_another_python_is_named_in_one_line(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    message = preflight.missing()
    assert ".".join(map(str, version)) in message
    assert "\n" not in message


def test_a_full_disk_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 2 * 10**9, 2 * 10**9))
    assert "12 GB of free disk are needed here, 2.0 GB were found" in preflight.missing()


def test_a_machine_without_git_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert preflight.missing().startswith("git is needed")
