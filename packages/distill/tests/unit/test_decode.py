"""From image files to pixels: what is accepted, what is refused, what the pixels are."""

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_distill.decode import MAX_PIXELS, decode
from kd_distill.ledger import BadSampleError, Cause
from PIL import Image

from packages.distill.tests.unit.pictures import encoded, jpeg, picture


def pixels(data: bytes) -> np.ndarray:
    return decode(data).permute(1, 2, 0).numpy()


def cause(data: bytes) -> Cause:
    with pytest.raises(BadSampleError) as caught:
        decode(data)
    return caught.value.cause


def test_a_jpeg_has_pillows_pixels_to_the_rounding_of_the_decoder():
    data = encoded(picture(333, 201), quality=90)
    theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert decode(data).dtype == torch.uint8
    assert np.abs(pixels(data) - theirs).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_png_and_webp_have_pillows_pixels(kind):
    image = picture(61, 47)
    data = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(pixels(data), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_grey_becomes_three_equal_channels(kind):
    out = pixels(encoded(picture(mode="L"), kind)).astype(int)
    assert out.shape == (30, 40, 3)
    assert np.ptp(out, axis=2).max() <= (2 if kind == "WEBP" else 0)  # WebP stores colours


def test_cmyk_is_read_as_pillow_reads_it():
    data = encoded(picture().convert("CMYK"), quality=95)
    theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels(data), theirs)


def test_sixteen_bits_keep_their_range():
    ramp = np.linspace(0, 65535, 40 * 30, dtype=np.uint16).reshape(30, 40)
    out = pixels(encoded(Image.fromarray(ramp), "PNG"))[:, :, 0]
    assert np.array_equal(out, ramp >> 8)


def test_alpha_is_dropped_and_the_colours_stay():
    image = picture().convert("RGBA")
    image.putalpha(7)
    assert np.array_equal(pixels(encoded(image, "PNG")), np.asarray(picture()))


def test_a_palette_becomes_its_colours():
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(pixels(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_the_first_frame_stands_for_an_animation():
    first, second = picture(seed=0), picture(seed=3)
    for kind, options in (("WEBP", {"lossless": True}), ("PNG", {})):
        data = encoded(first, kind, save_all=True, append_images=[second], duration=100, **options)
        assert np.array_equal(pixels(data), np.asarray(first)), kind


def test_the_orientation_of_exif_is_not_applied_as_open_clip_does_not():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert decode(encoded(picture(40, 30), exif=exif)).shape == (3, 30, 40)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_every_truncation_of_a_jpeg_is_refused(mode, options):
    data = encoded(picture(64, 48, mode=mode), quality=90, **options)
    for length in [*range(1, len(data) - 2, 41), len(data) - 3, len(data) - 2]:
        assert cause(data[:length]) in (Cause.TRUNCATED, Cause.NOT_AN_IMAGE), length


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_jpeg_whose_end_is_zeros_is_refused(share):
    data = jpeg(width=200, height=150)
    kept = int(len(data) * share)
    assert cause(data[:kept] + bytes(len(data) - kept)) is Cause.TRUNCATED


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})])
def test_truncated_png_and_webp_are_refused(kind, options):
    data = encoded(picture(64, 48), kind, **options)
    for share in (0.1, 0.5, 0.9):
        assert cause(data[: int(len(data) * share)]) in (Cause.TRUNCATED, Cause.NOT_AN_IMAGE)


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html><html></html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM" * 99]
)
def test_what_is_no_image_is_refused(data):
    assert cause(data) in (Cause.NOT_AN_IMAGE, Cause.TRUNCATED)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "EPS"])
def test_other_formats_are_refused_before_their_parsers_run(kind):
    assert cause(encoded(picture(), kind)) is Cause.NOT_AN_IMAGE


def png_of(width: int, height: int) -> bytes:
    """A small file that says it has width x height pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header says that it is so large."""
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("make", [png_of, jpeg_of])
@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (20_000, 20_000), (12_000, 12_000), (5001, 5000)])
def test_a_bomb_is_refused_from_its_header(make, width, height):
    data = make(width, height)
    cause(data)  # imports are not part of the cost
    tracemalloc.start()
    start = time.thread_time()
    assert cause(data) is Cause.PIXELS
    seconds, (_, peak) = time.thread_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
    assert seconds < 0.5  # decoding so many pixels takes seconds
    assert width * height > MAX_PIXELS


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_damage_never_raises_anything_else(data):
    source = bytearray(data.draw(st.sampled_from([jpeg(), encoded(picture(), "PNG"), encoded(picture(), "WEBP")])))
    for _ in range(data.draw(st.integers(1, 12))):
        source[data.draw(st.integers(0, len(source) - 1))] = data.draw(st.integers(0, 255))
    try:
        out = decode(bytes(source))
    except BadSampleError:
        return
    assert out.dtype == torch.uint8
    assert out.ndim == 3
    assert out.shape[0] == 3
