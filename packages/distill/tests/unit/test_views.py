import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from kd_distill.views import BLOCK, WHOLE, Preprocessing, crop_box, in_pixels
from PIL import Image


@given(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3 * BLOCK), st.floats(0.05, 1))
def test_a_crop_lies_in_the_image(seed, view, index, smallest):
    left, upper, right, lower = in_pixels(crop_box(seed, view, index, smallest), 640, 480)
    assert 0 <= left < right <= 640
    assert 0 <= upper < lower <= 480


def test_a_crop_depends_on_seed_view_and_index():
    boxes = {crop_box(s, v, i, 0.5) for s in (0, 1) for v in (0, 1) for i in (0, 1, BLOCK)}
    assert len(boxes) == 12
    assert crop_box(0, 1, 7, 0.5) == crop_box(0, 1, 7, 0.5)


@given(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3 * BLOCK))
def test_a_crop_of_all_the_area_is_the_whole_image(seed, view, index):
    assert crop_box(seed, view, index, 1.0) == WHOLE


def test_the_whole_image_as_a_crop_has_the_pixels_of_no_crop():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (61, 47, 3), np.uint8))
    view = Preprocessing(32, (0.5,) * 3, (0.5,) * 3, resize_mode="squash")
    torch.testing.assert_close(view([image], [WHOLE]), view([image], [None]), rtol=0, atol=0)


def test_crops_of_nearly_all_the_area_differ_in_their_ratio():
    areas = [box[2] * box[3] for box in (crop_box(0, 0, i, 0.999) for i in range(200))]
    assert 0.74 < min(areas) < 0.9  # an aspect ratio of 4/3 clipped to a square loses a quarter
    assert max(areas) <= 1


def test_a_crop_is_cut_out_and_then_resized_as_open_clip_does():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    box = (0.1, 0.2, 0.5, 0.6)
    theirs = np.asarray(image.crop(in_pixels(box, 120, 90)).resize((32, 32), Image.Resampling.BICUBIC))
    ours = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)([image], [box])[0].permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 50))
def test_a_crop_of_a_tiny_image_has_a_pixel(width, height, index):
    left, upper, right, lower = in_pixels(crop_box(0, 0, index, 0.05), width, height)
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height


def test_normalising_is_open_clips():
    from open_clip.transform import image_transform

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    mean, std = (0.48, 0.45, 0.40), (0.26, 0.26, 0.27)
    view = Preprocessing(64, mean, std)
    theirs = image_transform(64, is_train=False, mean=mean, std=std)(image)
    torch.testing.assert_close(view.normalise(view([image], [None]))[0], theirs, atol=1e-5, rtol=0)
