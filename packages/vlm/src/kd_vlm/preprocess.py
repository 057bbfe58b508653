"""A stock image processor that gives what open_clip's evaluation transform gives, to the bit."""

from transformers import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from kd_vlm.open_clip_config import EncoderConfig


def image_processor(config: EncoderConfig) -> CLIPImageProcessorPil:
    """A stock image processor bit-equal to open_clip's evaluation transform."""
    size, squash = config.size, config.preprocess.resize_mode == "squash"
    return CLIPImageProcessorPil(
        size={"height": size, "width": size} if squash else {"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_center_crop=not squash,
        resample={"bilinear": 2, "bicubic": 3}[config.preprocess.interpolation],
        image_mean=list(config.preprocess.mean),
        image_std=list(config.preprocess.std),
        do_convert_rgb=True,
    )


def padding(processor: CLIPImageProcessorPil) -> LlavaImageProcessorPil:
    """`processor` on pictures that are first padded to squares, centred, with the mean colour: nothing is cropped.

    Source: LLaVA, `image_aspect_ratio="pad"` (`expand2square`), which Bunny's finetuning uses.
    """
    options = {
        name: getattr(processor, name)
        for name in ("size", "crop_size", "do_center_crop", "resample", "image_mean", "image_std", "do_convert_rgb")
    }
    return LlavaImageProcessorPil(do_pad=True, **options)
