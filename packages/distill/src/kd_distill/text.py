"""Captions to token ids with a model's own tokenizer, and token ids to embeddings."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
BPE_SIZE = 49408  # CLIP's vocabulary
MULTIPLE = (
    16  # kernels then add in the order in which they add a whole row: not a bit differs; and there are few shapes
)
LEAST_SHARE = 1 / 8


def encode_text(model: Any, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """Un-normalised text embeddings from token ids of any length t up to the model's context.

    A causal text tower that pools the end token (CLIP's) gives the same whatever follows that token. So it is run on
    rows of like length together, each cut to its length, rounded up to a multiple of `MULTIPLE`. open_clip's own method
    takes the full context only. Towers in a module of their own (CustomTextCLIP) are run as they are.
    """
    if not hasattr(model, "token_embedding") or model.text_pool_type != "argmax" or model.attn_mask is None:
        return cast(Tensor, model.encode_text(tokens))
    padded = F.pad(tokens, (0, model.context_length - tokens.shape[1]))
    groups = like_lengths((tokens.argmax(dim=1) + 1).tolist(), model.context_length)
    places = torch.tensor([row for _, rows in groups for row in rows], device=tokens.device)
    parts = places.split([len(rows) for _, rows in groups])
    found = [_end_token(model, padded[part, :t]) for part, (t, _) in zip(parts, groups, strict=True)]
    return cast(Tensor, torch.cat(found)[places.argsort()] @ model.text_projection)


def like_lengths(lengths: Sequence[int], context: int) -> list[tuple[int, list[int]]]:
    """(length, rows) of groups of rows, shortest first, that are run together.

    A group of less than `LEAST_SHARE` of the rows is run with the next longer one: each group costs a pass.
    """
    rows_of: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        rows_of.setdefault(min(-(-length // MULTIPLE) * MULTIPLE, context), []).append(row)
    groups: list[tuple[int, list[int]]] = []
    waiting: list[int] = []
    for length in sorted(rows_of):
        waiting = waiting + rows_of[length]
        if len(waiting) >= LEAST_SHARE * len(lengths) or length == max(rows_of):
            groups.append((length, waiting))
            waiting = []
    return groups


def _end_token(model: Any, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b w"]:
    t = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:t]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:t, :t]))
    return cast(Tensor, x[torch.arange(len(x)), tokens.argmax(dim=-1)])


class Tokenize:
    """Captions to token ids of one model.

    Where the configuration has `text_cfg.hf_tokenizer_name` the tokenizer is the one whose files lie in the model's
    folder (as open_clip reads a `local-dir`; the name itself is never fetched), and rows are padded to the context.
    Otherwise it is CLIP's byte pair encoding.

    Args:
        config: open_clip's model configuration.
        folder: Of the model; needed for a tokenizer of its own.

    Attributes:
        cut: Rows end with the longest caption of the batch. Exact for text towers with a causal mask that pool the end
            token (CLIP's), and done for those only.
        identity: What tells two tokenizers apart, for manifests.

    Raises:
        ValueError: If the tokenizer knows more tokens than the model.
        FileNotFoundError: If the files of a tokenizer are missing.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        text = config["text_cfg"]
        self.context_length: int = text.get("context_length", 77)
        clean = text.get("tokenizer_kwargs", {}).get("clean")
        if text.get("hf_tokenizer_name"):
            self._encode, size, kind = _from_files(folder, self.context_length, clean or "whitespace")
        else:
            self._encode, size, kind = _clip(self.context_length, clean or "lower"), BPE_SIZE, "clip"
        if size > text.get("vocab_size", BPE_SIZE):
            raise ValueError(
                f"Expected a tokenizer of at most {text['vocab_size']} tokens, as the model has; {kind} has {size}. "
                "Name the model's own in text_cfg.hf_tokenizer_name and put its tokenizer.json into the model's folder."
            )
        self.cut = _is_cut(config, text)
        self.identity = f"{kind}:{clean}:{self.context_length}"

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "b t"]:
        """int64, with t the context length, or less where `cut`."""
        tokens = self._encode(list(captions))
        return tokens[:, : int(tokens.argmax(dim=1).max()) + 1] if self.cut else tokens


def _is_cut(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    causal = not (text.get("no_causal_mask") or text.get("embed_cls"))
    return causal and not config.get("custom_text") and text.get("pool_type", "argmax") == "argmax"


def _clip(context_length: int, clean: str) -> Callable[[list[str]], Tensor]:
    from open_clip.tokenizer import SimpleTokenizer

    return cast(Callable[[list[str]], Tensor], SimpleTokenizer(context_length=context_length, clean=clean))


def _from_files(folder: Path | None, context_length: int, clean: str) -> tuple[Callable[[list[str]], Tensor], int, str]:
    """The tokenizer of a folder, the number of its tokens, and the digest of its files."""
    from open_clip.tokenizer import get_clean_fn
    from tokenizers import Tokenizer

    missing = [name for name in TOKENIZER_FILES if folder is None or not (folder / name).is_file()]
    if folder is None or missing:
        raise FileNotFoundError(
            f"Expected this model's tokenizer in its folder {folder or '(none given)'}, found no {', '.join(missing)}. "
            "Copy the files from where the model comes from."
        )
    content = [(folder / name).read_bytes() for name in TOKENIZER_FILES]
    tokenizer = Tokenizer.from_str(content[0].decode())
    pad = json.loads(content[1]).get("pad_token")
    pad = pad["content"] if isinstance(pad, dict) else pad
    pad_id = tokenizer.token_to_id(pad) if pad else None
    if pad_id is None:
        raise ValueError(f"{folder / TOKENIZER_FILES[1]}: expected a pad_token that the tokenizer knows, got {pad!r}.")
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(length=context_length, pad_id=pad_id, pad_token=pad)
    cleaned = get_clean_fn(clean)

    def encode(captions: list[str]) -> Tensor:
        return torch.tensor([row.ids for row in tokenizer.encode_batch([cleaned(c) for c in captions])])

    return encode, tokenizer.get_vocab_size(), hashlib.sha256(b"".join(content)).hexdigest()[:16]
