"""F02: a cache that is built by processes that are killed at any moment is the cache of one that was not."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from kd_distill.building import build
from kd_distill.cache import MANIFEST, Block, CacheInfo, TeacherCache

from packages.distill.tests.faults.life import forked, killed

pytestmark = pytest.mark.faults
KILLS = 50
INFO = CacheInfo(
    teacher={"schema": "kd-ref/1", "kind": "teacher", "name": "teacher-x", "sha256": "0" * 64},
    preprocessing=None,
    tokenizer=None,
    precision="fp32",
    width=64,
    scale=100.0,
    bias=0.0,
    text=True,
    grid=None,
    patch_width=None,
    patch_layer=None,
    data_digest="d",
    pairs=20_000,
    views=3,
    crop_area=0.9,
    crop_seed=0,
    rows=256,
)


def compute(block: Block) -> dict[str, np.ndarray]:
    """A teacher of some milliseconds a file."""
    time.sleep(0.004)
    kind, view = ("text", 99) if block.view is None else ("image", block.view)
    rows = np.arange(block.start, block.stop)[:, None]
    return {block.file(kind): np.sin(rows * (1 + np.arange(64)) + view)}


def build_part(folder: Path, part: tuple[int, int], log_file: Path) -> None:
    """One process: writes a line for each block that it computes."""
    with log_file.open("a") as log:

        def noted(block: Block) -> dict[str, np.ndarray]:
            arrays = compute(block)
            log.write(f"{block}\n")
            log.flush()
            return arrays

        build(folder, INFO, noted, part=part)


@pytest.mark.parametrize("processes", [1, 2])
def test_fifty_kills_at_random_moments_give_the_same_cache(tmp_path, processes):
    build(tmp_path / "alone", INFO, compute)
    folder, log = tmp_path / "killed", tmp_path / "computed.txt"
    draw, kills = np.random.default_rng(processes), 0
    while kills < KILLS and not (folder / MANIFEST).exists():
        parts = [(i, processes) for i in range(1, processes + 1)]
        pids = [forked(partial(build_part, folder, part, log)) for part in parts]
        seconds = draw.uniform(0.02, 0.12)
        kills += sum([killed(pid, seconds if pid == pids[0] else 0) for pid in pids])
    for part in [(i, processes) for i in range(1, processes + 1)]:
        assert not killed(forked(partial(build_part, folder, part, log)), 120)
    assert kills >= KILLS // 2, f"the cache was complete after {kills} kills: the test does not kill enough"
    assert (folder / MANIFEST).read_bytes() == (tmp_path / "alone" / MANIFEST).read_bytes()
    files = TeacherCache(folder).verify()
    assert {f.name for f in folder.iterdir()} == {f.name for f in (tmp_path / "alone").iterdir()}
    computed = len(log.read_text().splitlines())
    assert computed <= files + kills  # each kill costs the file that was being written, and no other
