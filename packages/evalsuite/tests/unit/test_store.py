"""Pictures held once, in memory or in a temporary file."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from kd_evalsuite.data import load_folder
from kd_evalsuite.store import Store, Stored


def test_equal_pictures_are_one_and_what_exceeds_the_memory_lies_in_a_file():
    kept = Store(in_memory=10)
    pictures = [b"a" * 6, b"b" * 6, b"a" * 6, b"c" * 4, b"d" * 100, b"b" * 6]
    held = [kept.keep(p) for p in pictures]
    assert held[0] is held[2]
    assert held[1] is held[5]
    assert [isinstance(h, Stored) for h in held] == [False, True, False, False, True, True]
    assert [h if isinstance(h, bytes) else h.read() for h in held] == pictures


def test_many_threads_read_at_once():
    kept = Store(in_memory=0)
    pictures = [os.urandom(1000 + k) for k in range(64)]
    held = [kept.keep(p) for p in pictures]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda h: h.read(), held * 4)) == pictures * 4


def test_the_file_goes_away_with_its_last_picture():
    kept = Store(in_memory=0)
    picture = kept.keep(b"x" * 10)
    del kept
    gc.collect()
    descriptor = picture.stream.fileno()
    assert picture.read() == b"x" * 10
    del picture
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("key", ["docvqa", "seedbench_image", "gqa", "mmmu", "mathvista", "scienceqa"])
def test_benchmarks_are_the_same_whether_their_pictures_fit_or_not(key, benchmark_root, monkeypatch):
    fits = load_folder(benchmark_root, key)
    monkeypatch.setattr(Store.__init__, "__defaults__", (0,))
    spilled = load_folder(benchmark_root, key)
    assert spilled.sha256 == fits.sha256
    assert any(isinstance(p.data, Stored) for i in spilled.items for p in i.pictures)
    for a, b in zip(fits.items, spilled.items, strict=True):
        assert [p.read() for p in a.pictures] == [p.read() for p in b.pictures]
