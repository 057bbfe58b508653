import pytest
from kd_distill import shipping
from kd_distill.shipping import Shipper

from packages.distill.tests.faults.journals import forget


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A database of its own, and impatient shippers."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(shipping, "SECONDS", 0.05)
    monkeypatch.setattr(shipping, "LONGEST_PAUSE", 0.2)
    forget()
    made, whole = [], Shipper.__init__
    monkeypatch.setattr(Shipper, "__init__", lambda self, path: (made.append(self), whole(self, path))[1])
    yield
    for shipper in made:  # a thread that lived on would write to the database of another test
        shipper.finish(30)
    forget()
