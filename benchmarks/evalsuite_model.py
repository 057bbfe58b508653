"""A Llava of random weights with images and questions for it: ViT-T/16 and a Qwen2 of 8 layers."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from kd_evalsuite.items import Picture
from kd_evalsuite.models.base import Shown
from PIL import Image
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

END, SIZE, PATCH = "<|endoftext|>", 224, 16
WORDS = (
    "what", "colour", "is", "the", "small", "object", "left", "of", "large", "one", "near", "door", "does", "person",
    "hold", "red", "blue", "green", "car", "dog", "behind", "table", "which", "number", "written", "on", "sign", "how",
    "many", "people", "are", "there", "in", "front", "building", "and", "where", "do", "they", "look", "at",
)  # fmt: skip
TEMPLATE = (
    "{{ 'A chat between a curious user and an assistant. ' }}{% for m in messages %}{{ 'USER: ' }}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{{ ' ASSISTANT:' }}"
)
INSTRUCTION = "\nAnswer the question using a single word or phrase."


def questions(n: int, draw: np.random.Generator) -> list[str]:
    """Questions of 5 to 16 words, as long as GQA's, with the usual instruction."""
    return [" ".join(draw.choice(WORDS, size=int(draw.integers(5, 17)))) + "?" + INSTRUCTION for _ in range(n)]


def images(n: int, draw: np.random.Generator) -> list[Shown]:
    """JPEGs of 320 x 240 pixels."""
    shown = []
    for _ in range(n):
        rough = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(rough).resize((320, 240)).save(buffer, "JPEG", quality=90)
        content = buffer.getvalue()
        shown.append(Shown(hashlib.sha256(content).hexdigest(), Picture(data=content)))
    return shown


def save_llava(folder: Path, layers: int = 8, width: int = 512) -> Path:
    """The checkpoint, with weights large enough that no two tokens are equally likely."""
    tokenizer = _tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=12, num_attention_heads=3, image_size=SIZE,
        patch_size=PATCH, projection_dim=192,
    )  # fmt: skip
    text = Qwen2Config(
        hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers, num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 256), vocab_size=8192, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=0, pad_token_id=0, max_position_embeddings=2048,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIZE // PATCH) ** 2, vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    for name, value in model.named_parameters():
        if value.ndim == 2 and "vision_tower" not in name:
            value.data *= 3
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 0
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
        tokenizer=tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    lines = questions(200, np.random.default_rng(1))
    raw.train_from_iterator([*lines, "A chat between a curious user and an assistant. USER: ASSISTANT:"], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **dict.fromkeys(("eos_token", "pad_token"), END))
    made.add_special_tokens({"extra_special_tokens": ["<image>"]})
    return made
