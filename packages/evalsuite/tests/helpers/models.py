"""Small models with random weights: two kinds of VLM and a CLIP, saved as their libraries save them."""

import json
from pathlib import Path

import torch

TEMPLATE = (
    "{{ 'A chat. ' }}{% for m in messages %}{% if m['role'] == 'user' %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% else %}"
    "ASSISTANT: {{ m['content'][0]['text'] }}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

END = "<|endoftext|>"


def tokenizer():
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers import models as parts
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(parts.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    words = "A chat. USER: ASSISTANT: Answer the question using a single word or phrase. Options: colour square"
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator([words] * 4, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **dict.fromkeys(("eos_token", "pad_token"), END))
    made.add_special_tokens({"extra_special_tokens": ["<image>"]})
    return made


def language(vocabulary: int):
    from transformers import Qwen2Config

    return Qwen2Config(
        hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=vocabulary, tie_word_embeddings=True, max_position_embeddings=1024, bos_token_id=0, eos_token_id=0,
        pad_token_id=0,
    )  # fmt: skip


def save(folder: Path, model, tok, *, patch_size: int, extra_tokens: int) -> Path:
    from transformers import CLIPImageProcessor, LlavaProcessor

    size = 32
    images = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tok,
        patch_size=patch_size,
        vision_feature_select_strategy="default" if extra_tokens else "full",
        num_additional_image_tokens=extra_tokens,
        chat_template=TEMPLATE,
    )
    model.generation_config.eos_token_id = 0
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    """`LlavaForConditionalGeneration` over a `CLIPVisionModel`: 16 image tokens."""
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    tok = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=32,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=language(len(tok)),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = sharpened(LlavaForConditionalGeneration(config))
    return save(folder, model, tok, patch_size=8, extra_tokens=1)


def fast_vlm(folder: Path) -> Path:
    """`FastVlmForConditionalGeneration` over a timm ResNet: 1 image token for 32 x 32."""
    from transformers import FastVlmConfig, FastVlmForConditionalGeneration, TimmWrapperConfig

    tok = tokenizer()
    vision = TimmWrapperConfig.from_dict(
        {
            "architecture": "mobilenetv3_small_050",
            "do_pooling": False,
            "hidden_size": 288,
            "num_classes": 0,
            "pretrained_cfg": {"num_classes": 0},
        }
    )
    config = FastVlmConfig(
        vision_config=vision,
        text_config=language(len(tok)),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=1,
    )
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = sharpened(FastVlmForConditionalGeneration(config))
    return save(folder, model, tok, patch_size=32, extra_tokens=0)


def llava_next(folder: Path) -> Path:
    """`LlavaNextForConditionalGeneration`: images are cut into tiles, so their tokens are no single block."""
    from transformers import (
        CLIPVisionConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    tok = tokenizer()
    tiles = [[32, 64], [64, 32], [64, 64]]
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=32,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision, text_config=language(len(tok)), image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=16, vision_feature_layer=-2, image_grid_pinpoints=tiles,
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size=size, image_grid_pinpoints=tiles
        ),
        tokenizer=tok, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = sharpened(LlavaNextForConditionalGeneration(config))
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def sharpened(model):
    """Larger weights, so that greedy choices are far from ties."""
    for name, value in model.named_parameters():
        if value.ndim == 2 and "vision_tower" not in name:
            value.data *= 8
    return model


def clip(folder: Path, seed: int = 0) -> Path:
    """An open_clip model as a `local-dir:` folder."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 8, "image_size": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        model = CLIP(**model_cfg)
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
