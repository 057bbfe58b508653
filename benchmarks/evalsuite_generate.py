"""Answers to many questions an image: one by one through processor and `generate`, against batches that keep prefixes.

    python benchmarks/evalsuite_generate.py [--new-tokens 8] [--repeats 2] [--device cpu]

A Llava of random weights: ViT-T/16 at 224 pixels (196 image tokens) and a Qwen2 of 8 layers. One by one is what public
suites do: chat template, processor, `generate(do_sample=False)`, an item at a time. Ours goes through the predict
loop's batches with the features of images made once, and again with a cache on disk of an earlier run. Same model,
items and answers. All sides in turn in one process, the least time of several turns. The bound is arithmetic: how many
times fewer floating-point operations there are; batches also read the weights less often.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from clock import least
from evalsuite_model import images, questions, save_llava
from figures import Figure, show
from kd_evalsuite.asking import Question
from kd_evalsuite.images import decode
from kd_evalsuite.models.base import Request
from kd_evalsuite.models.vlm import TransformersVlm
from kd_evalsuite.predict import batches
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, AutoProcessor

MODES = ((8, 4), (2, 32))  # images, questions an image
BARS = {4: 2.5, 32: 4.0}  # by questions an image


class OneByOne:
    """The stock classes, an item at a time."""

    def __init__(self, folder: Path, device: str) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval().to(device)

    @torch.inference_mode()
    def answer(self, request: Request, new_tokens: int) -> str:
        """The reply to one request."""
        content = [{"type": "image"}, {"type": "text", "text": request.text}]
        chat = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        picture = decode(request.images[0].picture.read())
        inputs = self.processor(text=chat, images=[picture], return_tensors="pt").to(self.model.device)
        out = self.model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)
        new = out[0, inputs["input_ids"].shape[1] :]
        return str(self.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


class Kept:
    """The predict loop's batches; what is kept in memory is let go before each turn."""

    def __init__(self, folder: Path, device: str, cache: Path | None = None) -> None:
        self.model = TransformersVlm(folder, device, features=cache)

    def answers(self, asked: list[Question], new_tokens: int) -> dict[str, str]:
        """The replies by id."""
        self.model.memory.clear()
        self.model._prefixes = None
        found: dict[str, str] = {}
        for batch in batches(asked, 64):
            replies = self.model.answer([q.request for q in batch], new_tokens)
            found |= {q.id: r.text for q, r in zip(batch, replies, strict=True)}
        self.model.close()
        return found


def flops(run: object) -> float:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--layers", type=int, default=8, help="of the language model")
    parser.add_argument("--width", type=int, default=512, help="of the language model")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    print(f"load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as made:
        folder = save_llava(Path(made) / "vlm", args.layers, args.width)
        plain = OneByOne(folder, args.device)
        kept, cached = Kept(folder, args.device), Kept(folder, args.device, Path(made) / "cache")
        found: list[Figure] = []
        for n_images, per_image in MODES:
            draw = np.random.default_rng(0)
            shown = images(n_images, draw)
            texts = questions(n_images * per_image, draw)
            asked = [
                Question(str(k), Request(text, (shown[k // per_image],)), "", None) for k, text in enumerate(texts)
            ]
            found += compare(plain, kept, cached, asked, per_image, args)
    show(*found)


def compare(
    plain: OneByOne, kept: Kept, cached: Kept, asked: list[Question], per_image: int, args: argparse.Namespace
) -> list[Figure]:
    """Print one mode's rates; returns its figures."""
    new = args.new_tokens
    together = cached.answers(asked, new)  # fills the cache, too
    alone: dict[str, str] = {}
    sides = {
        "one by one": lambda: alone.update({q.id: plain.answer(q.request, new) for q in asked}),
        "prefixes kept": lambda: kept.answers(asked, new),
        "features cached": lambda: cached.answers(asked, new),
    }
    time = least(sides, args.repeats, args.device)
    equal = sum(together[key] == reply for key, reply in alone.items())
    some = asked[:4]
    work = {
        "one by one": flops(lambda: [plain.answer(q.request, new) for q in some]) * len(asked) / len(some),
        "prefixes kept": flops(sides["prefixes kept"]),
        "features cached": flops(sides["features cached"]),
    }
    for name in sides:
        print(
            f"{per_image:3} questions an image, {name:15} {len(asked) / time[name]:7.2f} items/s, "
            f"{work[name] / len(asked) / 1e9:6.2f} GF an item",
            flush=True,
        )
    bound = work["one by one"] / work["prefixes kept"]
    ratio = time["one by one"] / time["prefixes kept"]
    again = time["one by one"] / time["features cached"]
    rate = {name: len(asked) / value for name, value in time.items()}
    return [
        Figure(
            f"answers with prefixes kept against one by one, {per_image} questions an image",
            ratio,
            at_least=BARS[per_image],
            limit=bound,
            limit_of="floating point operations; batches also read the weights less often",
            seen=f"{rate['prefixes kept']:.1f} against {rate['one by one']:.2f} items/s, {new} new tokens each",
        ),
        Figure(
            f"the same with the images' features cached on disk, {per_image} questions an image",
            again,
            limit=work["one by one"] / work["features cached"],
            limit_of="floating point operations",
        ),
        Figure(
            f"answers that are identical, {per_image} questions an image", 100 * equal / len(asked), "%", at_least=100
        ),
    ]


if __name__ == "__main__":
    main()
