import pytest

from packages.evalsuite.tests.conftest import benchmark_root, llava_folder  # noqa: F401  fixtures
from packages.vlm.tests.conftest import lm_folder, tokenizer, vit_folder, world  # noqa: F401

from .network import two_hosts


@pytest.fixture
def hosts():
    with two_hosts() as both:
        yield both
