"""A pretraining step on SigLIP's tokens from the cache against the same step with the tower run online.

The tower is SigLIP-so400m-384's and the language model Qwen2-0.5B's at their real widths (1152, 896), tokens (729 of a
picture and 20 of a caption) and vocabulary (151,936), with a third of their layers (9 of 27, 8 of 24), so that tower
and language model stay in proportion: a step is about a third of the real one. Both sides are this package's own
step: forward, logits of the caption alone, backward to the connector. Online adds decoding the JPEG, preprocessing
and the tower; cached adds reading the mapped shards. The gradient is the same.

    python benchmarks/vlm_features.py [--batch 1] [--repeats 2] [--thirds 1] [--device cpu]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import least
from figures import Figure, show
from kd_vlm.assembly import Vlm
from kd_vlm.batch import collate, loss_sum, supervised_logits
from kd_vlm.connectors import init_connector
from kd_vlm.encoder import Encoder
from kd_vlm.features import cache_features
from kd_vlm.language_model import LanguageModel
from kd_vlm.pictures import decode_image
from kd_vlm.stock import stock_model
from kd_vlm.templates import IGNORE, Encoded
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPImageProcessorPil, Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

CAPTION = 20
IMAGE = 151646


def main() -> None:
    """Time both sides in turns and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--thirds", type=int, default=1, help="of the layers: 3 is the real depth")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = siglip(9 * options.thirds)
    vlm = small_vlm(encoder, 8 * options.thirds)
    with tempfile.TemporaryDirectory() as scratch:
        paths = photos(Path(scratch), options.batch)
        quiet: dict[str, Any] = {"memory_limit": 0, "on_batch": lambda n: None, "device": options.device}
        cache = cache_features(encoder, paths, root=Path(scratch) / "cache", precision="bf16", **quiet)
        vlm.model.to(options.device)
        batch = collate([sample(i) for i in range(options.batch)], pad_id=0).to(options.device)

        def step(**pictures: Any) -> torch.Tensor:
            vlm.model.zero_grad(set_to_none=True)
            logits, targets = supervised_logits(vlm, batch, **pictures)
            loss = loss_sum(logits, targets) / len(targets)
            loss.backward()
            return loss.detach()

        def online() -> torch.Tensor:
            pictures = [decode_image(path) for path in paths]
            pixels = encoder.processor(pictures, return_tensors="pt")["pixel_values"]
            return step(pixels=pixels.to(options.device))

        def cached() -> torch.Tensor:
            tokens: Any = cache.of(paths)
            return step(features=tokens.to(options.device))

        losses = {"online": float(online()), "cached": float(cached())}
        flops = {name: counted(run) for name, run in (("online", online), ("cached", cached))}
        times = least({"online": online, "cached": cached}, options.repeats, options.device)
    for name in ("online", "cached"):
        print(f"{name}: {times[name]:.2f} s, {flops[name] / 1e9:.0f} GFLOP a step, loss {losses[name]:.6f}")
    show(
        Figure(
            "pretraining step on SigLIP's tokens from the cache against the tower online",
            times["online"] / times["cached"],
            at_least=1.4,
            limit=flops["online"] / flops["cached"],
            limit_of="floating point operations",
            seen=f"{times['online']:.2f} s against {times['cached']:.2f} s",
        ),
        Figure(
            "difference of the loss (the cache is bf16)", abs(losses["online"] - losses["cached"]), "", at_most=1e-3
        ),
    )


def siglip(layers: int) -> Encoder:
    """The tower with random weights."""
    config = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=layers,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        hidden_act="gelu",
        vision_use_head=False,
    )
    processor = CLIPImageProcessorPil(
        size={"height": 384, "width": 384}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    tower = SiglipVisionModel(config).eval().requires_grad_(False)
    return Encoder(tower, "siglip", processor, width=1152, grid=27, size=384, layer=-2)


def small_vlm(encoder: Encoder, layers: int) -> Vlm:
    """Qwen2-0.5B's widths behind it; only the connector is trained, as in pretraining."""
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    lm = LanguageModel(Qwen2ForCausalLM(config), None, IMAGE, end_id=151643)
    model = stock_model(encoder, lm, "mlp2x_gelu", None)
    init_connector(model.model.multi_modal_projector, "mlp2x_gelu", torch.Generator().manual_seed(0))
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    nothing: Any = None  # no text is read here
    return Vlm(model.eval(), nothing, IMAGE, encoder.n_tokens)


def sample(seed: int) -> Encoded:
    """One picture and a caption of 20 tokens."""
    caption = tuple(np.random.default_rng(seed).integers(0, 151643, CAPTION).tolist())
    return Encoded((IMAGE,) * 729 + caption, (IGNORE,) * 729 + caption, 1)


def photos(folder: Path, n: int) -> list[Path]:
    """JPEGs of the size that LLaVA-Pretrain's have."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.jpg" for i in range(n)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((448, 336)).save(path, quality=90)
    return paths


def counted(run: Any) -> int:
    """Floating-point operations of `run`."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
