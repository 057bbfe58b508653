"""Benchmarks in the columns of the public datasets, and small models, made on the fly."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from packages.evalsuite.tests.helpers import benchmarks


@pytest.fixture(scope="session")
def benchmark_root(tmp_path_factory):
    """All sixteen benchmarks, a dozen items each."""
    root = tmp_path_factory.mktemp("benchmarks")
    benchmarks.write_all(root)
    return root


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory):
    from packages.evalsuite.tests.helpers import models

    return models.llava(tmp_path_factory.mktemp("models") / "vlm-llava")


@pytest.fixture(scope="session")
def fastvlm_folder(tmp_path_factory):
    from packages.evalsuite.tests.helpers import models

    return models.fast_vlm(tmp_path_factory.mktemp("models") / "vlm-fast")
