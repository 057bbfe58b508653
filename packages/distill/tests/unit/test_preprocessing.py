import numpy as np
import pytest
import torch
from kd_distill.views import WHOLE, Preprocessing
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

HALVES = (0.5, 0.5, 0.5)


def _image(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(61, 47), (47, 61), (50, 50), (130, 97), (33, 32), (640, 480), (333, 501)])
def test_a_whole_image_has_the_pixels_of_open_clips_own_transform(size, interpolation, resize_mode):
    image, view = _image(*size), Preprocessing(32, HALVES, HALVES, interpolation, resize_mode)
    cfg = PreprocessCfg(size=32, mean=HALVES, std=HALVES, interpolation=interpolation, resize_mode=resize_mode)
    theirs = ((image_transform_v2(cfg, is_train=False)(image) * 0.5 + 0.5) * 255).round()
    difference = (view([image], [None])[0].float() - theirs).abs()
    # PIL keeps the edges of a box in float32, which turns a tie of the rounding now and then
    assert difference.max() <= 1
    assert difference.mean() <= 1e-2


def test_a_crop_box_shows_every_model_the_same():
    """Student (shortest) and teacher (squash) see one view, whatever their modes."""
    image, box = _image(90, 61), (0.1, 0.2, 0.5, 0.6)
    one, other = (Preprocessing(32, HALVES, HALVES, resize_mode=mode) for mode in ("shortest", "squash"))
    assert torch.equal(one([image], [box]), other([image], [box]))
    assert torch.equal(one([image], [WHOLE]), other([image], [None]))
