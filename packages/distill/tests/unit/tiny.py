"""A small teacher of each kind, as the table has the large ones."""

import dataclasses
import json

from kd_distill import models
from kd_distill.teachers import TEACHERS
from kd_distill.towers import patch_grid

TEXT = {"context_length": 24, "width": 16, "heads": 2, "layers": 2}


def _measured(teacher):
    image, text = models.parameters(models.outline(teacher.config))
    return dataclasses.replace(
        teacher, image_parameters=image, text_parameters=text, grid=patch_grid(teacher.config), scale=None
    )


def clip(name="clip-b16", layers=3, width=32):
    """The named teacher with a small ViT."""
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": layers, "width": width, "head_width": 16, "patch_size": 8},
        "text_cfg": TEXT | {"vocab_size": 49408},
    }
    view = dataclasses.replace(TEACHERS[name].preprocessing, size=32)
    return _measured(dataclasses.replace(TEACHERS[name], config=config, preprocessing=view, patch_size=8))


def siglip(vocab_size):
    """SigLIP with a small timm ViT and text tower; `siglip_tokenizer` writes a tokenizer for it."""
    large = TEACHERS["siglip-so400m-384"]
    vision = large.config["vision_cfg"] | {"timm_model_name": "test_vit3", "image_size": 160}
    text = large.config["text_cfg"] | TEXT | {"vocab_size": vocab_size, "mlp_ratio": 2.0}
    config = dict(large.config) | {"embed_dim": 96, "vision_cfg": vision, "text_cfg": text}
    view = dataclasses.replace(large.preprocessing, size=160)
    return _measured(dataclasses.replace(large, config=config, preprocessing=view))


def siglip_tokenizer(folder):
    """A unigram tokenizer of SigLIP's kind: sentencepiece's pieces, an end token that also pads. Returns its size."""
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.processors import TemplateProcessing

    words = [f"\u2581{w}" for w in ("a", "photo", "of", "dog", "red", "sofa", "two", "circles", "left", "them", "the")]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz0123456789'._"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(w, -2.0) for w in words] + [(c, -6.0) for c in letters]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "</s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "right"}))
    return len(pieces)
