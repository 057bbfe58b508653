"""From image files to a batch of bytes: this package against open_clip's own training transform, per core.

    python benchmarks/distill_images.py --photos FOLDER

Both sides read the same JPEGs from memory, in one thread, interleaved; times are CPU time of the thread, the least of
several rounds. open_clip's side ends in normalised floats, as there; this package's in bytes, which are normalised on
the device. Kinds of files: the photos as they are, the same with a short side of 256 pixels (what shards hold that were
resized once), and mosaics of them of 1,024 and 1,536 pixels, because web photos are often that large.
"""

import argparse
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from figures import Figure, show
from kd_distill.decode import decode
from kd_distill.ledger import BadSampleError
from kd_distill.views import Box, Preprocessing, crop_box, in_pixels
from PIL import Image

SIZE = 224
CROP_AREA = 0.9
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
H100_SAMPLES = 22_000  # a second, ViT-T/16 student with a cached teacher at 40 % of peak (17.6 GFLOP a sample)


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    photos = _photos(options.photos, options.count)
    small = [_resized(data, 256) for data in photos]
    kinds = {"photos": photos, "256 px": small}
    kinds |= {f"{256 * tiles} px": [_mosaic(photos, start, tiles) for start in range(0, 36, 3)] for tiles in (4, 6)}
    print(
        f"{len(photos)} photos of at least {_side(photos)} pixels, {np.mean([len(p) for p in photos]) / 1e3:.0f} kB; ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, one thread")
    rates = {name: _rates(files, options.rounds) for name, files in kinds.items()}
    for name, files in kinds.items():
        rate = rates[name]
        ratio = rate["here"] / rate["open_clip"]
        print(f"\n{name}: open_clip {rate['open_clip']:.0f}/s, here {rate['here']:.0f}/s, {ratio:.2f}x")
        print(f"  bound by the decoder alone: {rate['decoder']:.0f}/s; {rate['here'] / rate['decoder']:.0%} reached")
        print(f"  with normalising to floats on the CPU: {rate['floats']:.0f}/s")
        draft = f"{rate['draft']:.0f}/s at {_quality(files, _drafted):.1f} dB"
        print(f"  PSNR to Pillow, 5th percentile: {_quality(files, _here):.1f} dB (Pillow's reduced decoding: {draft})")
    accepted = _truncation(photos)
    cores = H100_SAMPLES / rates["256 px"]["here"]
    print(f"\na device that takes {H100_SAMPLES} samples/s waits for data below {cores:.0f} of these cores (256 px)")
    if options.step:
        _wait_share(small)
    psnr = min(_quality(files, _here) for files in kinds.values())
    show(
        *(_figure(rates, name, name, 2) for name in kinds if name != "256 px"),
        *(_figure(rates, "256 px", name, 5) for name in kinds if name != "256 px"),
        Figure("PSNR to Pillow's pixels, 5th percentile, the least of all kinds", psnr, "dB", at_least=50),
        Figure("damaged files taken for whole", accepted["here"], "", at_most=0, seen=f"Pillow: {accepted['Pillow']}"),
    )


def _figure(rates: dict[str, dict[str, float]], here: str, there: str, bar: float) -> Figure:
    """Files of kind `here` through this package against kind `there` through open_clip."""
    ours, plain, decoder = rates[here]["here"], rates[there]["open_clip"], rates[here]["decoder"]
    return Figure(
        f"{here} to a uint8 batch, against open_clip's transform on {'the same' if here == there else there}",
        ours / plain,
        at_least=bar,
        limit=decoder / plain,
        limit_of="decoding alone",
        seen=f"{ours:.0f} against {plain:.0f} images/s a core",
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs; without it photos are made up (smooth noise)")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--step", action="store_true", help="measure the data wait share of a ViT-T/16 step on this CPU, too"
    )
    return parser.parse_args()


def _photos(folder: Path | None, count: int) -> list[bytes]:
    """JPEGs whose long side is 450 pixels or more."""
    if folder is None:
        rng = np.random.default_rng(0)
        noise = [Image.fromarray(rng.integers(0, 255, (94, 125, 3), np.uint8)) for _ in range(min(count, 40))]
        return [_jpeg(image.resize((500, 375), Image.Resampling.BICUBIC)) for image in noise]
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in (".jpg", ".jpeg")]
    chosen = [f.read_bytes() for f in files if max(Image.open(f).size) >= 450]
    if not chosen:
        raise SystemExit(f"{folder}: no JPEG of 450 pixels or more.")
    return chosen[:count]


def _side(photos: list[bytes]) -> int:
    return min(max(Image.open(io.BytesIO(p)).size) for p in photos)


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def _resized(data: bytes, short: int) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = short / min(image.size)
    return _jpeg(image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC))


def _mosaic(photos: list[bytes], start: int, tiles: int) -> bytes:
    """The middles of tiles x tiles photos side by side, as sharp as they are."""
    out = Image.new("RGB", (256 * tiles, 256 * tiles))
    for number in range(tiles**2):
        tile = Image.open(io.BytesIO(photos[(start + number) % len(photos)])).convert("RGB")
        left, upper = (tile.width - 256) // 2, (tile.height - 256) // 2
        out.paste(tile.crop((left, upper, left + 256, upper + 256)), (number % tiles * 256, number // tiles * 256))
    return _jpeg(out)


def _box(index: int) -> Box:
    return crop_box(0, 0, index, CROP_AREA)


VIEW = Preprocessing(SIZE, MEAN, STD)


def _here(data: bytes, index: int) -> torch.Tensor:
    return VIEW([decode(data)], [_box(index)])[0]


def _drafted(data: bytes, index: int) -> torch.Tensor:
    """Pillow's decoder at the smallest scale that leaves three times the size asked for, resized as here."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (3 * SIZE, 3 * SIZE))
    return VIEW([image.convert("RGB")], [_box(index)])[0]


def _with_pillow(data: bytes, index: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    crop = image.crop(in_pixels(_box(index), image.width, image.height))
    return np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _rates(files: list[bytes], rounds: int) -> dict[str, float]:
    """Images a second of each way."""
    from open_clip.transform import AugmentationCfg, image_transform

    theirs = image_transform(SIZE, is_train=True, mean=MEAN, std=STD, aug_cfg=AugmentationCfg(scale=(CROP_AREA, 1.0)))
    ways: dict[str, Callable[[bytes, int], object]] = {
        "open_clip": lambda data, _: theirs(Image.open(io.BytesIO(data))),
        "here": _here,
        "floats": lambda data, index: VIEW.normalise(_here(data, index)[None]),
        "draft": _drafted,
        "decoder": lambda data, _: decode(data),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.thread_time()
            for index, data in enumerate(files):
                way(data, index)
            best[name] = min(best[name], time.thread_time() - start)
    return {name: len(files) / seconds for name, seconds in best.items()}


def _quality(files: list[bytes], way: Callable[[bytes, int], torch.Tensor]) -> float:
    """PSNR in dB to Pillow's pixels of the same box, 5th percentile over the files."""
    psnr = []
    for index, data in enumerate(files):
        error = way(data, index).permute(1, 2, 0).numpy().astype(float) - _with_pillow(data, index)
        psnr.append(10 * np.log10(255**2 / max(np.mean(error**2), 1e-9)))
    return float(np.percentile(psnr, 5))


def _truncation(photos: list[bytes]) -> dict[str, int]:
    """How many damaged files each side takes for whole."""
    damaged = []
    for data in photos[:100]:
        half = len(data) // 2
        damaged += [data[:half], data[: len(data) * 99 // 100], data[:-2], data[:half] + bytes(len(data) - half)]
    accepted = {"here": 0, "Pillow": 0}
    for data in damaged:
        try:
            decode(data)
            accepted["here"] += 1
        except BadSampleError:
            pass
        try:
            Image.open(io.BytesIO(data)).convert("RGB")
            accepted["Pillow"] += 1
        except OSError:
            pass
    print(f"\nof {len(damaged)} truncated or half empty files accepted: {accepted}")
    return accepted


def _wait_share(files: list[bytes]) -> None:
    """The share of a training step that waits for the data: ViT-T/16 and its text tower, batch 32, a thread each."""
    from kd_distill import models
    from kd_distill.ahead import ahead

    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": SIZE, "layers": 12, "width": 192, "head_width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 384, "heads": 6, "layers": 12},
    }
    student, captions = models.build(config, 0), models.Tokenize(config)(["a photo of a dog on a red sofa"] * 32)

    def prepare(step: int) -> torch.Tensor:
        chosen = [(step * 32 + row) % len(files) for row in range(32)]
        return VIEW([decode(files[i]) for i in chosen], [_box(i) for i in chosen])

    waited, begin, asked = 0.0, 0.0, time.perf_counter()
    for step, images in enumerate(ahead(prepare, 0, 4)):
        if step == 1:  # the first batch has nothing to hide behind
            begin = asked
        if step:
            waited += time.perf_counter() - asked
        loss = student.encode_image(VIEW.normalise(images)).square().mean()
        loss = loss + models.encode_text(student, captions).square().mean()
        loss.backward()
        asked = time.perf_counter()
    seconds = asked - begin
    print(f"data wait share of a ViT-T/16 step on this CPU: {waited / seconds:.2%} ({seconds / 3:.1f} s a step)")


if __name__ == "__main__":
    main()
