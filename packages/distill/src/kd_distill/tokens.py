"""Token ids of all captions, computed once for each tokenizer and kept beside the index."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from kd_distill.durable import sync_folder
from kd_distill.index import Ragged, RaggedWriter

AT_ONCE = 1024  # captions


class Tokenizer(Protocol):
    """What `kd_distill.text.Tokenize` is.

    Attributes:
        identity: Tells two tokenizers apart.
        cut: Rows end with the longest caption of a batch and are filled with zeros; otherwise they are of full length.
        context_length: Most ids in a row.
    """

    identity: str
    cut: bool
    context_length: int

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "b t"]: ...


class Rows(Protocol):
    """Token ids by number of the pair, without what fills them up."""

    def __getitem__(self, index: int) -> np.ndarray: ...


def open_tokens(folder: Path, tokenize: Tokenizer, captions: Callable[[int], str], n: int) -> Rows:
    """The token ids of n captions in a folder of its own below `folder`, computed where they are not there yet.

    Two bytes an id (four where a vocabulary needs it), no more ids than the caption has.
    """
    from filelock import FileLock

    name = f"{tokenize.identity} {tokenize.context_length} {tokenize.cut}"
    home = folder / f"tokens-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    if not home.is_dir():
        with FileLock(folder / "tokens.lock"):  # ranks that start together compute them once
            if not home.is_dir():
                _write(home, tokenize, captions, n, np.uint16) or _write(home, tokenize, captions, n, np.uint32)
    dtype = np.uint16 if (home / "uint16.npy").exists() else np.uint32
    return Ragged(home / dtype.__name__, dtype)


def _write(home: Path, tokenize: Tokenizer, captions: Callable[[int], str], n: int, dtype: type) -> bool:
    """Whether all ids fit into `dtype`; the folder is there as a whole or not at all."""
    part = home.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    rows = RaggedWriter(part / dtype.__name__)
    for start in range(0, n, AT_ONCE):
        ids = tokenize([captions(i) for i in range(start, min(start + AT_ONCE, n))]).numpy()
        if ids.max() > np.iinfo(dtype).max:
            return False
        for row in ids:
            kept = row[: _length(row, tokenize.cut)]
            rows.add(kept.astype(dtype).tobytes(), len(kept))
    rows.close()
    sync_folder(part)
    part.rename(home)
    return True


def _length(row: np.ndarray, cut: bool) -> int:
    """How many ids are kept: all but the zeros that fill a cut row, all but repetitions of a full row's last."""
    different = np.flatnonzero(row != (0 if cut else row[-1]))
    last = int(different[-1]) + 1 if len(different) else 0
    return max(1, last) if cut else min(last + 1, len(row))


def batch_of(rows: Sequence[np.ndarray], tokenize: Tokenizer) -> Int[Tensor, "b t"]:
    """What `tokenize` gives for the captions of `rows`."""
    width = max(map(len, rows)) if tokenize.cut else tokenize.context_length
    out = np.zeros((len(rows), width), np.int64)
    for filled, row in zip(out, rows, strict=True):
        filled[: len(row)] = row
        if not tokenize.cut:
            filled[len(row) :] = row[-1]
    return torch.from_numpy(out)
