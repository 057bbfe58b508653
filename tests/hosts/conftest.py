import pytest

from .network import two_hosts


@pytest.fixture
def hosts():
    with two_hosts() as both:
        yield both
