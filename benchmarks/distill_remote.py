"""Shards behind a URL against the same shards in a folder: how fast images' bytes come, in the order of a training.

    python benchmarks/distill_remote.py [--photos FOLDER]

What is kept is compared with the folder by CPU time of one thread, both in the page cache, sides in turn, the least of
several rounds. What comes over the network is wall time of four threads; the server stands on loopback in a process of
its own (aiohttp's), so this bounds what reading costs and says nothing of a network.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from figures import Figure, show
from kd_distill.blocks import BlockCache
from kd_distill.order import Order
from kd_distill.remote import Remote
from kd_distill.remote_shards import RemoteShards
from kd_distill.shards import PairShards
from kd_distill.sources import Source
from PIL import Image

SHARDS, THREADS, BLOCK = 4, 4, 4 << 20
SERVER = "import sys; from aiohttp import web; app = web.Application(); app.router.add_static('/', sys.argv[1]); "
SERVER += "web.run_app(app, host='127.0.0.1', port=int(sys.argv[2]), print=None)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEG files; default: noise of 40 kB")
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        photos = sorted(options.photos.glob("*.jpg")) if options.photos else _noise(place)
        size = _write(photos, place / "pairs", options.pairs)
        print(f"{options.pairs} pairs, {size / 1e6:.0f} MB in {SHARDS} shards; load {os.getloadavg()[0]:.1f}")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(place / "pairs"), str(port)])
        try:
            rates = _rates(place, f"http://127.0.0.1:{port}/{{0..{SHARDS - 1}}}.tar", size, options.rounds)
        finally:
            server.kill()
    for name, rate in rates.items():
        print(f"{name:<34} {rate / 1e6:8.0f} MB/s")
    both = (f"{name} {rates[name] / 1e6:.0f} MB/s" for name in ("kept", "folder"))
    ratio = rates["kept"] / rates["folder"]
    show(Figure("shards of a URL, kept, against a folder", ratio, at_least=0.9, seen=", ".join(both)))


def _noise(folder: Path) -> list[Path]:
    draw, files = np.random.default_rng(0), [folder / f"{i}.jpg" for i in range(64)]
    for file in files:
        Image.fromarray(draw.integers(0, 256, (200, 260, 3), np.uint8)).save(file, quality=60)
    return files


def _write(photos: list[Path], folder: Path, pairs: int) -> int:
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i in range(shard, pairs, SHARDS):
                caption = folder / "caption"
                caption.write_text(f"picture {i}")
                tar.add(photos[i % len(photos)], f"{i:09d}.jpg")
                tar.add(caption, f"{i:09d}.txt")
    return sum(file.stat().st_size for file in folder.glob("*.tar"))


def _rates(place: Path, url: str, size: int, rounds: int) -> dict[str, float]:
    """Bytes a second of each side."""
    local = PairShards(place / "pairs")
    _wait(url)
    home, blocks = place / "index", place / "blocks"
    plain = RemoteShards(Remote(url), home)
    begin = time.perf_counter()
    RemoteShards(Remote(url), place / "again")
    found = {"index, 4 threads": size / (time.perf_counter() - begin)}
    order = Order(0, (len(local),), (len(local),))(np.arange(len(local)))[0].tolist()
    for _ in range(rounds):
        fresh = _opened(url, home, blocks, size, empty=True)
        found["not yet kept, 4 threads"] = max(found.get("not yet kept, 4 threads", 0.0), _wall(fresh, order))
        found["a request an image, 4 threads"] = max(
            found.get("a request an image, 4 threads", 0.0), _wall(plain, order)
        )
        for name, source in (("folder", local), ("kept", fresh)):
            begin = time.thread_time()
            n = sum(len(source.image(i)) for i in order)
            found[name] = max(found.get(name, 0.0), n / (time.thread_time() - begin))
    return found


def _wall(source: Source, order: list[int]) -> float:
    begin = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        n = sum(pool.map(lambda i: len(source.image(i)), order))
    return n / (time.perf_counter() - begin)


def _opened(url: str, home: Path, blocks: Path, size: int, *, empty: bool) -> RemoteShards:
    """As a process that begins finds it."""
    if empty:
        shutil.rmtree(blocks, ignore_errors=True)
    return RemoteShards(Remote(url), home, BlockCache(blocks, 4 * size, BLOCK))


def _wait(url: str) -> None:
    host, port = url.split("/")[2].split(":")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nobody answers at {url}")


if __name__ == "__main__":
    main()
