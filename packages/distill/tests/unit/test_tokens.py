"""Token ids that were computed before are those that the tokenizer gives."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from kd_distill.models import Tokenize
from kd_distill.pairs import Pairs
from kd_distill.shards import PairShards
from kd_distill.sources import Mix
from kd_distill.tokens import batch_of, open_tokens
from kd_distill.views import Preprocessing

from packages.distill.tests.unit.pictures import jpeg, pairs, write_tar

CAPTIONS = ["a dog", "!", "! ! !", "a dog asleep on a red sofa " * 9, "ein Café", "💡", "x" * 300, "a cat", "a dog"]
CLIP = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"context_length": 16, "vocab_size": 49408}}


class Letters:
    """Rows of the full context, filled with a number of its own."""

    identity, cut, context_length = "letters", False, 12

    def __init__(self, first: int = 0, fill: int = 1) -> None:
        self.first, self.fill, self.calls = first, fill, 0
        self.identity = f"letters {first} {fill}"

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        self.calls += 1
        rows = [[self.first + ord(c) % 50 for c in caption][:12] for caption in captions]
        return torch.tensor([row + [self.fill] * (12 - len(row)) for row in rows])


@pytest.mark.parametrize(
    "tokenize",
    [
        Tokenize(CLIP),
        Tokenize(CLIP | {"text_cfg": CLIP["text_cfg"] | {"pool_type": "last"}}),
        Letters(),
        Letters(fill=0),
        Letters(first=49_000, fill=7),
        Letters(first=100_000),
    ],
    ids=["clip, cut", "clip, full", "letters", "filled with zeros", "two bytes", "four bytes"],
)
def test_ids_from_the_file_are_the_tokenizers_for_every_batch(tmp_path, tokenize):
    rows = open_tokens(tmp_path, tokenize, CAPTIONS.__getitem__, len(CAPTIONS))
    rng = np.random.default_rng(0)
    for size in (1, 2, 5):
        for _ in range(10):
            chosen = rng.integers(0, len(CAPTIONS), size).tolist()
            expected = tokenize([CAPTIONS[i] for i in chosen])
            got = batch_of([rows[i] for i in chosen], tokenize)
            assert got.dtype == torch.int64
            assert torch.equal(got, expected)


def test_ids_are_computed_once_and_need_two_bytes_each(tmp_path):
    tokenize = Letters()
    open_tokens(tmp_path, tokenize, CAPTIONS.__getitem__, len(CAPTIONS))
    calls = tokenize.calls
    rows = open_tokens(tmp_path, tokenize, CAPTIONS.__getitem__, len(CAPTIONS))
    assert tokenize.calls == calls
    assert rows[0].dtype == np.uint16
    assert len(rows[0]) == len("a dog") + 1
    open_tokens(tmp_path, Letters(fill=2), CAPTIONS.__getitem__, len(CAPTIONS))
    assert len(list(tmp_path.glob("tokens-*/uint16.bin"))) == 2


def test_a_build_that_stops_half_way_is_begun_again(tmp_path):
    def broken(captions: Sequence[str]) -> torch.Tensor:
        raise KeyboardInterrupt

    tokenize = Letters()
    stopped = type("Stopped", (Letters,), {"__call__": lambda self, captions: broken(captions)})()
    with pytest.raises(KeyboardInterrupt):
        open_tokens(tmp_path, stopped, CAPTIONS.__getitem__, len(CAPTIONS))
    rows = open_tokens(tmp_path, tokenize, CAPTIONS.__getitem__, len(CAPTIONS))
    assert torch.equal(batch_of([rows[3]], tokenize), tokenize(CAPTIONS[3:4]))


def test_batches_have_the_same_tokens_with_and_without_the_file(tmp_path):
    write_tar(tmp_path / "one" / "00000.tar", [*pairs(range(4)), ("4.jpg", b"no image"), ("4.txt", b"a bad one")])
    write_tar(tmp_path / "two" / "00000.tar", [("x.jpg", jpeg()), ("x.txt", b"another rather long caption of a thing")])
    mix = Mix([PairShards(tmp_path / "one"), PairShards(tmp_path / "two")], [1.0, 2.0])
    tokenize, view = Tokenize(CLIP), Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
    options = {"seed": 0, "views": 1, "crop_area": 1.0, "bad_limit": 0.5}
    plain = Pairs(mix, view, tokenize, **options)
    known = Pairs(mix, view, tokenize, tokens=mix.tokens(tokenize), **options)
    for one, other in zip(
        plain.steps(0, 6, batch_size=3, order_seed=0), known.steps(0, 6, batch_size=3, order_seed=0), strict=True
    ):
        assert one.keys == other.keys
        assert torch.equal(one.tokens, other.tokens)
