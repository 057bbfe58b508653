"""Image-text pairs in webdataset shards, laid out as img2dataset does."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from world.files import Member, json_text, write_tar, write_text
from world.kinds.catalogue import SAMPLERS
from world.picture import Pen
from world.scene import Scene, Split, sample, stream


def any_scene(mix: Mapping[str, float], split: Split, rng: random.Random) -> Scene:
    """A scene of a kind drawn by the weights of `mix`."""
    kind = rng.choices(list(mix), list(mix.values()))[0]
    return sample(SAMPLERS[kind], split, rng)


def write_pairs_shard(
    folder: Path, *, shard: int, indices: range, split: Split, seed: int, mix: Mapping[str, float], pen: Pen
) -> None:
    """Shard number `shard` with the pairs of `indices`: a tar and its statistics."""
    write_tar(folder / f"{shard:05d}.tar", _members(shard, indices, split, seed, mix, pen))
    stats = {
        "count": len(indices),
        "successes": len(indices),
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": 0.0,
        "bytes_downloaded": 0,
        "start_time": 0.0,
        "end_time": 0.0,
        "status_dict": {"success": len(indices)},
    }
    write_text(folder / f"{shard:05d}_stats.json", json_text(stats))


def _members(
    shard: int, indices: range, split: Split, seed: int, mix: Mapping[str, float], pen: Pen
) -> Iterator[Member]:
    for position, index in enumerate(indices):
        rng = stream(seed, "pairs", split, index)
        scene = any_scene(mix, split, rng)
        caption = scene.caption(rng)
        jpeg = pen.jpeg(scene, rng)
        key = f"{shard:05d}{position:04d}"
        record = {
            "url": "",
            "caption": caption,
            "key": key,
            "status": "success",
            "error_message": None,
            "width": pen.size,
            "height": pen.size,
            "original_width": pen.size,
            "original_height": pen.size,
            "exif": "{}",
            "sha256": hashlib.sha256(jpeg).hexdigest(),
        }
        yield f"{key}.jpg", jpeg
        yield f"{key}.json", json_text(record).encode()
        yield f"{key}.txt", caption.encode()
