"""stories260K, a language model trained on children's stories (karpathy/tinyllamas), as a folder for transformers.

Its tokenizer is a sentencepiece BPE with byte fallback, rebuilt here for `tokenizers`. Token 1, which stands between
two stories in what the model was trained on, is called `<|endoftext|>`: the name under which kd-vlm ends an answer.
"""

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

END, UNKNOWN = "<|endoftext|>", "<unk>"
N_SPECIAL, N_BYTES = 3, 256


def vocabulary(file: Path) -> list[str]:
    """The 512 pieces by id; bytes as `<0x0A>`."""
    pieces: list[str] = json.loads(file.read_text())["vocab"]
    return [UNKNOWN, END, "</s>", *pieces[N_SPECIAL:]]


def merges(pieces: list[str]) -> list[tuple[str, str]]:
    """The pairs that join, first those that join first: pieces were learnt in the order of their ids."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    learnt = [p for p in pieces[N_SPECIAL + N_BYTES :] if len(p) > 1]
    found = []
    for piece in learnt:
        pairs = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        known = [(a, b) for a, b in pairs if a in ids and b in ids]
        found += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return found


def tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of `tok512.json`. Unlike sentencepiece it adds no space in front of a text."""
    pieces = vocabulary(file)
    bpe = models.BPE(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=merges(pieces),
        unk_token=UNKNOWN,
        byte_fallback=True,
        fuse_unk=True,
    )
    built = Tokenizer(bpe)
    built.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=built, eos_token=END, pad_token=END, unk_token=UNKNOWN)


def write_folder(data: Path, out: Path) -> None:
    """The language model's folder: weights as they are, the rebuilt tokenizer, and ends that fit it."""
    out.mkdir(parents=True, exist_ok=True)
    source = data / "stories260K"
    shutil.copy(source / "hf" / "model.safetensors", out / "model.safetensors")
    (out / "model.safetensors").chmod(0o644)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((source / "hf" / name).read_text())
        config |= {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
        (out / name).write_text(json.dumps(config, indent=1) + "\n")
    tokenizer(source / "tok512.json").save_pretrained(out)
