"""Data workers that die or hang: an error in time, which names them."""

import os
import signal
import time

import pytest
from kd_vlm import plan
from kd_vlm.exits import exit_code
from kd_vlm.plan import MicroBatch, MicroBatches, StalledError

SHARE = [MicroBatch(step, 0, (step,), 1, 1, 1) for step in range(4)]


def loaded(load, workers=1):
    return [found["pid"] for found in MicroBatches(SHARE, load).loader(workers)]


def test_workers_give_every_micro_batch_in_order():
    found = list(MicroBatches(SHARE, lambda micro: {"pid": os.getpid()}).loader(2))
    assert [each["micro"].step for each in found] == [0, 1, 2, 3]
    assert os.getpid() not in {each["pid"] for each in found}


def test_a_worker_that_dies_is_an_error_with_its_process_id():
    def load(micro):
        if micro.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"pid": os.getpid()}

    with pytest.raises(StalledError, match=r"process ids \d+\).*worker \(pid") as error:
        loaded(load)
    assert exit_code(error.value) == 75


def test_a_worker_that_hangs_is_an_error_in_time_with_its_process_id(monkeypatch):
    monkeypatch.setattr(plan, "WORKER_SECONDS", 0.5)

    def load(micro):
        if micro.step == 1:
            time.sleep(60)
        return {"pid": os.getpid()}

    began = time.monotonic()
    with pytest.raises(StalledError, match=r"process ids \d+\).*timed out after 0.5 seconds"):
        loaded(load)
    assert time.monotonic() - began < 20, "torch waits for what is left of the worker, and then ends it"


def test_an_error_of_the_loading_itself_stays_what_it_is():
    def load(micro):
        raise ValueError(f"picture {micro.step}")

    with pytest.raises(ValueError, match="picture 0"):
        loaded(load)
