"""What the benchmarks of kd-vlm share: a small VLM with the real vocabulary of Qwen2, and lengths of a mix."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kd_vlm.assembly import Vlm
from kd_vlm.templates import IGNORE, Encoded
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, Qwen2Config

VOCABULARY = 151_936
IMAGE_ID = VOCABULARY - 1
PAD_ID = 0
# Of mix665k: samples (LLaVA-1.5, Table 7); made up are text tokens (mean, spread of the logarithm) and answers' share
PARTS = {
    "LLaVA-Instruct 158K": (158_000, 260, 0.5, 0.7),
    "ShareGPT 40K": (40_000, 900, 0.7, 0.7),
    "VQAv2 83K": (83_000, 190, 0.5, 0.2),
    "GQA 72K": (72_000, 260, 0.5, 0.15),
    "OKVQA, A-OKVQA 75K": (75_000, 110, 0.3, 0.1),
    "OCR-VQA 80K": (80_000, 150, 0.3, 0.4),
    "TextCaps 22K": (22_000, 75, 0.2, 0.3),
    "RefCOCO 48K": (48_000, 260, 0.6, 0.5),
    "VG 86K": (86_000, 350, 0.6, 0.5),
}
TEXT_ONLY = "ShareGPT 40K"


class Tokenizer:
    pad_token_id = PAD_ID


class Processor:
    tokenizer = Tokenizer()


@dataclass(frozen=True)
class Drawn:
    """Samples of a mix: tokens of the text, those of them that are supervised, and the number of pictures."""

    text: np.ndarray
    supervised: np.ndarray
    n_images: np.ndarray

    @property
    def has_image(self) -> np.ndarray:
        return self.n_images > 0

    def lengths(self, tokens_per_image: int) -> list[int]:
        return (self.text + self.n_images * tokens_per_image).tolist()


def mix(n: int, seed: int = 0, longest: int = 2048) -> Drawn:
    """`n` samples with mix665k's composition; lengths of each part are log-normal."""
    rng = np.random.default_rng(seed)
    sizes = np.array([size for size, *_ in PARTS.values()], float)
    part = rng.choice(len(PARTS), n, p=sizes / sizes.sum())
    mean, spread, share = (np.array([p[i] for p in PARTS.values()])[part] for i in (1, 2, 3))
    text = np.exp(rng.normal(np.log(mean) - spread**2 / 2, spread)).round().clip(45, longest).astype(int)
    return Drawn(text, (text * share).astype(int).clip(1), (part != list(PARTS).index(TEXT_ONLY)).astype(int))


def sample(text: int, supervised: int, n_images: int, tokens_per_image: int, rng: np.random.Generator) -> Encoded:
    """Random tokens in the form of a conversation: prompt, pictures, question, answer."""
    ids = rng.integers(1, 150_000, text).tolist()
    labels = [IGNORE] * (text - supervised) + ids[text - supervised :]
    at = min(35, text - supervised)
    whole = ids[:at] + [IMAGE_ID] * (n_images * tokens_per_image) + ids[at:]
    marked = labels[:at] + [IGNORE] * (n_images * tokens_per_image) + labels[at:]
    return Encoded(tuple(whole), tuple(marked), n_images)


def small_vlm(width: int, layers: int, *, edge: int = 224, vision: CLIPVisionConfig | None = None) -> Vlm:
    """A Llava with Qwen2's proportions at a small width, its vocabulary, tied embeddings; ViT-T/16 by default."""
    if vision is None:
        shape = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 12, "num_attention_heads": 3}
        vision = CLIPVisionConfig(**shape, image_size=edge, patch_size=16, hidden_act="gelu")
    heads = width // 64
    kv_heads = 2 if heads % 2 == 0 else 1
    text = Qwen2Config(
        hidden_size=width,
        intermediate_size=round(width * 4864 / 896 / 32) * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
    )
    n_tokens = (vision.image_size // vision.patch_size) ** 2
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_ID, image_seq_length=n_tokens)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.requires_grad_(False).eval()
    return Vlm(model.train(), Processor(), IMAGE_ID, n_tokens)  # type: ignore[arg-type]


def body_parameters(vlm: Vlm) -> int:
    """Parameters of the language model without the table of tokens."""
    table = vlm.model.get_input_embeddings().weight.numel()
    return sum(p.numel() for p in vlm.model.model.language_model.parameters()) - table


def lengths_of(path: Path) -> Drawn:
    """The lengths that `vlm validate` counted: a manifest's folder."""
    lines = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    counted = [line for line in lines if line["tokens"]]
    per_image = json.loads((path / "manifest.json").read_text())["tokens_per_image"]
    images = np.array([len(line["images"]) for line in counted])
    total = np.array([line["tokens"] for line in counted])
    return Drawn(total - images * per_image, np.array([line["supervised"] for line in counted]), images)
