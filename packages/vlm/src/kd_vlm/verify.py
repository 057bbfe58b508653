"""Whether an exported folder, in the hands of a stranger, is the model that was trained.

This process runs the graph that training ran: conversations tokenised segment by segment, pictures resized by PIL,
the tower's tokens computed apart, logits only where something is supervised. Another process, with stock
transformers and nothing of this project, loads the exported folder and computes the same its own way.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kd_vlm.assembly import Vlm
from kd_vlm.batch import collate, loss_sum, supervised_logits
from kd_vlm.data import read_conversations
from kd_vlm.generation import user_message
from kd_vlm.loading import load_vlm, tower_tokens
from kd_vlm.pictures import open_image
from kd_vlm.templates import IGNORE, IMAGE, Turn, encode, template_named

LOGITS, LOSS, GREY_LEVELS = 1e-4, 1e-5, 1.01


@dataclass(frozen=True)
class Conversation:
    """What both sides are given: turns with `<image>` in their questions, and as many pictures."""

    turns: tuple[Turn, ...]
    images: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Check:
    """One comparison over all conversations: its worst value and the bound."""

    name: str
    value: float
    bound: float
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.value <= self.bound


def example_conversations(seed: int = 0) -> list[Conversation]:
    """Several turns, no picture, two pictures in one turn; pictures of noise, in sizes that must be resized."""
    rng = np.random.default_rng(seed)
    sizes = ((97, 131), (640, 480), (224, 224))
    noise = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    return [
        Conversation((Turn(f"{IMAGE}\nWhat is this?", "It is a cat."), Turn("How many?", "2")), (noise[0],)),
        Conversation((Turn("Say something in English.", "Something."),)),
        Conversation((Turn(f"{IMAGE}\n{IMAGE}\nWhich is larger?", "the first one"),), (noise[1], noise[2])),
    ]


def read_some(file: Path, images: Path, n: int) -> list[Conversation]:
    """The first `n` conversations of a data file, with their pictures.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a sample has another form.
    """
    samples = read_conversations(file)
    chosen = [samples[i] for i in range(min(n, len(samples)))]
    return [Conversation(s.turns, tuple(open_image(images, name) for name in s.images)) for s in chosen]


def verify_export(
    trained: Path,
    exported: Path,
    conversations: Sequence[Conversation],
    *,
    template: str = "qwen2_base",
    python: str = sys.executable,
    new_tokens: int = 16,
) -> list[Check]:
    """Compare the training graph of `trained` with what a stranger gets from `exported`.

    Args:
        trained: The stock VLM that training wrote.
        exported: What is to be verified.
        conversations: What both are given.
        template: How training wrote conversations.
        python: An interpreter with transformers 4.57 or later; it sees nothing of this project.
        new_tokens: Length of the answers that are compared.

    Raises:
        RuntimeError: If the stranger's process fails; the message has its last lines.
    """
    vlm = load_vlm(trained)
    with tempfile.TemporaryDirectory() as scratch:
        exchange = Path(scratch)
        ours = [_ours(vlm, c, template, new_tokens, exchange, i) for i, c in enumerate(conversations)]
        request = {"model": str(exported.resolve()), "new_tokens": new_tokens, "samples": [o["sample"] for o in ours]}
        (exchange / "request.json").write_text(json.dumps(request))
        _ask_stranger(python, exchange)
        reply = json.loads((exchange / "reply.json").read_text())
        theirs = [dict(np.load(exchange / f"reply-{i}.npz")) for i in range(len(ours))]
    deviation = min(vlm.processor.image_processor.image_std)  # type: ignore[attr-defined]
    return _checks(ours, theirs, reply, grey_level=1 / 255 / deviation)


def _ours(vlm: Vlm, one: Conversation, template: str, new_tokens: int, exchange: Path, i: int) -> dict[str, Any]:
    """The training graph on one conversation; its inputs are left in `exchange` for the stranger."""
    processor: Any = vlm.processor
    tokenizer = processor.tokenizer
    write = template_named(template, tokenizer)
    [encoded] = encode([write(one.turns)], tokenizer, image_id=vlm.image_id, tokens_per_image=vlm.tokens_per_image)
    batch = collate([encoded], tokenizer.pad_token_id)
    pixels = processor.image_processor(list(one.images), return_tensors="pt")["pixel_values"] if one.images else None
    with torch.no_grad():
        features = None if pixels is None else tower_tokens(vlm.model, pixels)
        logits, targets = supervised_logits(vlm, batch, features=features)
    n_prompt = next(k for k, label in enumerate(encoded.labels) if label != IGNORE)
    n_shown = one.turns[0].question.count(IMAGE)
    arrays: dict[str, Any] = {
        "ids": np.array(encoded.ids),
        "labels": np.array(encoded.labels),
        "prompt": n_prompt,
        "shown": n_shown,
        "image_id": vlm.image_id,
    }
    if pixels is not None:
        arrays["pixels"] = pixels.numpy()
    np.savez(exchange / f"request-{i}.npz", **arrays)
    names = [f"{i}-{k}.png" for k in range(len(one.images))]
    for name, picture in zip(names, one.images, strict=True):
        picture.save(exchange / name)
    sample = {"messages": _messages(one), "images": names, "first_images": n_shown}
    prompt, shown = batch.ids[:, :n_prompt], None if pixels is None else pixels[:n_shown]
    with torch.no_grad():
        reply = vlm.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            **({} if shown is None or not n_shown else {"pixel_values": shown}),
            max_new_tokens=new_tokens,
        )
    return {
        **arrays,
        "sample": sample,
        "logits": logits.numpy(),
        "loss": float(loss_sum(logits, targets)) / len(targets),
        "generated": reply[0, n_prompt:].numpy(),
    }


def _messages(one: Conversation) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for turn in one.turns:
        n_images = turn.question.count(IMAGE)
        messages.append(dict(user_message(turn.question.replace(IMAGE, "").strip(), n_images)))
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return messages


def _ask_stranger(python: str, exchange: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with as_file(files("kd_vlm").joinpath("stock_process.py")) as script:
        done = subprocess.run(
            [python, "-I", str(script), str(exchange)], capture_output=True, text=True, check=False, env=environment
        )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise RuntimeError(f"The exported folder does not work in a process of its own ({python}):\n{tail}")


def _checks(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], reply: dict[str, Any], grey_level: float
) -> list[Check]:
    pairs = list(zip(ours, theirs, strict=True))
    unlike = sum(not np.array_equal(a["ids"], b["ids"]) for a, b in pairs)
    other = sum(not np.array_equal(a["generated"], b["generated"]) for a, b in pairs)
    levels = [np.abs(a["pixels"] - b["pixels"]).max() / grey_level for a, b in pairs if "pixels" in a]
    logits = [np.abs(a["logits"] - b["logits"]).max() / max(1.0, np.abs(a["logits"]).max()) for a, b in pairs]
    loss = [abs(a["loss"] - float(b["loss"])) for a, b in pairs]
    piped = sum(a != b for a, b in zip(reply["pipeline"], reply["generated"], strict=False))
    note = f"{reply['class']}, transformers {reply['transformers']}"
    return [
        Check("missing tensors", len(reply["missing"]), 0, note),
        Check("unexpected tensors", len(reply["unexpected"]), 0),
        Check("conversations with other token ids", unlike, 0, f"of {len(pairs)}"),
        Check("pixels, in grey levels", float(max(levels, default=0.0)), GREY_LEVELS, "another resize is one apart"),
        Check("logits, relative", float(max(logits)), LOGITS),
        Check("loss, nats", float(max(loss)), LOSS),
        Check("greedy answers that differ", other, 0, f"of {len(pairs)}"),
        Check("pipeline answers that differ", piped, 0),
    ]
