"""Threads that prepare batches: errors, reads that hang, and the end."""

import subprocess
import sys
import threading
import time

import pytest
from kd_distill.ahead import StalledError, ahead


def test_what_a_thread_raises_is_raised_where_it_is_asked_for():
    def prepare(number: int) -> int:
        if number == 4:
            raise OSError("the disk is gone")
        return number

    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        got.extend(iter(ahead(prepare, 0, 9, workers=2)))
    for number in ahead(prepare, 0, 4, workers=2):
        got.append(number)
    assert got[-4:] == [0, 1, 2, 3]


def test_a_read_that_hangs_is_an_error_in_time_with_the_keys():
    event = threading.Event()
    begin = time.monotonic()
    with pytest.raises(StalledError, match=r"step 1 did not come within 0.2 s \(data.timeout\).*2 threads"):
        for _ in ahead(
            lambda n: n if n != 1 else event.wait(60), 0, 9, workers=2, timeout=0.2, describe=lambda n: f"step {n}"
        ):
            pass
    event.set()
    assert time.monotonic() - begin < 5


def test_a_process_with_a_hung_read_ends(tmp_path):
    script = (
        "import time\nfrom kd_distill.ahead import ahead\nlist(ahead(lambda n: time.sleep(600), 0, 3, timeout=0.2))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "StalledError" in done.stderr


def test_threads_end_with_the_iterator():
    before = threading.active_count()
    batches = ahead(lambda n: n, 0, 1000, workers=3)
    assert next(batches) == 0
    batches.close()
    assert threading.active_count() == before
