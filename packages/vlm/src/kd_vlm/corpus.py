"""Conversations ready for training: tokens in memory, few bytes each; texts and pictures read when they are needed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from torch import nn

from kd_vlm.assembly import Vlm
from kd_vlm.data import Sample, check_supervision, chosen
from kd_vlm.pictures import image_path
from kd_vlm.problems import BadSampleError, Policy
from kd_vlm.templates import Encoded, Segment, encode, template_named
from kd_vlm.token_store import TokenStore, shortened

BLOCK = 1000  # samples that are tokenised together
UNLIMITED = 1 << 31


class Pictures(Sequence[tuple[Path, ...]]):
    """The files of the pictures of each sample."""

    def __init__(self, samples: Sequence[Sample], folder: Path) -> None:
        self.samples, self.folder = samples, folder

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, at: int) -> tuple[Path, ...]: ...
    @overload
    def __getitem__(self, at: slice) -> "Pictures": ...
    def __getitem__(self, at: int | slice) -> "tuple[Path, ...] | Pictures":
        if isinstance(at, slice):
            return Pictures(self.samples[at], self.folder)
        return tuple(image_path(self.folder, name) for name in self.samples[at].images)


@dataclass(frozen=True)
class Corpus:
    """Conversations, tokenised, and the files of their pictures.

    Attributes:
        bad: How often each cause left a sample out when it was tokenised.
    """

    samples: Sequence[Sample]
    encoded: TokenStore
    pictures: Pictures
    bad: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def lengths(self) -> list[int]:
        lengths: list[int] = self.encoded.lengths.tolist()
        return lengths

    @property
    def has_image(self) -> list[bool]:
        return [n > 0 for n in self.encoded.n_images.tolist()]

    @property
    def supervised(self) -> list[int]:
        """Of each sample, the tokens that are predicted: the first of a row never is."""
        predicted: list[int] = self.encoded.n_predicted.tolist()
        return predicted

    @property
    def supervised_share(self) -> float:
        return float(self.encoded.n_supervised.sum() / max(self.encoded.lengths.sum(), 1))


def prepare(
    vlm: Vlm,
    samples: Sequence[Sample],
    images: Path,
    *,
    template: str,
    least_supervised_share: float,
    max_length: int | None = None,
    bad: Policy = "error",
) -> Corpus:
    """Tokenise `samples` and find their pictures below `images`.

    Args:
        max_length: Longer samples are cut to so many tokens, as the originals do; None refuses those that are longer
            than the language model's positions, where those have an end.
        bad: Whether a sample that the template cannot write, that is too long or from which nothing is left to learn
            stops the run or is left out (`skip`, `blank`).

    Raises:
        ValueError: If a sample has no supervised token, too few have, a path leaves the folder, or `max_length` is
            more than a table of positions has.
        FileNotFoundError: If a picture is missing.
    """
    counts: Counter[str] = Counter()
    kept: list[int] = []
    limit = _limit(vlm, max_length)

    def usable() -> Iterator[Encoded]:
        for number, found in enumerate(_tokenised(vlm, samples, template)):
            try:
                encoded = _fitting(found, vlm, limit, cut=max_length is not None, supervised=bad != "error")
            except BadSampleError as error:
                if bad == "error":
                    raise type(error)(error.cause, f"Sample {samples[number].id!r}: {error}") from None
                counts[error.cause] += 1
                continue
            kept.append(number)
            yield encoded

    store = TokenStore(usable(), image_id=vlm.image_id, tokens_per_image=vlm.tokens_per_image)
    if len(kept) < len(samples):
        samples = chosen(samples, kept)
    if kept:
        check_supervision(samples, store, least_share=least_supervised_share)
    for name in dict.fromkeys(name for sample in samples for name in sample.images):
        image_path(images, name)
    return Corpus(samples, store, Pictures(samples, images), dict(counts))


def _limit(vlm: Vlm, max_length: int | None) -> int:
    """Tokens of the longest sample. Positions that are computed have no end, those of a table (GPT-2, OPT) have."""
    positions = getattr(vlm.text_config, "max_position_embeddings", None)
    if max_length is None or positions is None:
        return max_length or positions or UNLIMITED
    language_model: Any = vlm.model.model.language_model
    sizes = [m.num_embeddings for m in language_model.modules() if isinstance(m, nn.Embedding)]
    if max_length > positions and any(0 <= size - positions <= 2 for size in sizes):  # OPT's has two rows more
        raise ValueError(
            f"max_length is {max_length}, but {type(language_model).__name__} has learned {positions} positions and "
            f"cannot read more tokens. Set max_length: {positions} or less."
        )
    return max_length


def _tokenised(vlm: Vlm, samples: Sequence[Sample], template: str) -> Iterator[Encoded | BadSampleError]:
    """Each sample with one token a picture, or why the template cannot write it."""
    tokenizer = vlm.processor.tokenizer
    write = template_named(template, tokenizer)
    for start in range(0, len(samples), BLOCK):
        written: list[list[Segment] | BadSampleError] = []
        for sample in samples[start : start + BLOCK]:
            try:
                written.append(write(sample.turns))
            except ValueError as error:
                written.append(error if isinstance(error, BadSampleError) else BadSampleError("template", str(error)))
        segments = [one for one in written if not isinstance(one, BadSampleError)]
        encoded = iter(encode(segments, tokenizer, image_id=vlm.image_id, tokens_per_image=1))
        yield from (one if isinstance(one, BadSampleError) else next(encoded) for one in written)


def _fitting(found: Encoded | BadSampleError, vlm: Vlm, limit: int, *, cut: bool, supervised: bool) -> Encoded:
    if isinstance(found, BadSampleError):
        raise found
    n_tokens = len(found.ids) + found.n_images * (vlm.tokens_per_image - 1)
    if n_tokens > limit and not cut:
        raise BadSampleError("too_long", f"{n_tokens} tokens are more than the language model's {limit} positions.")
    try:
        encoded = shortened(found, limit, image_id=vlm.image_id, tokens_per_image=vlm.tokens_per_image)
    except ValueError as error:
        raise BadSampleError("too_long", str(error)) from None
    if supervised and not encoded.n_supervised:
        raise BadSampleError("no_supervision", "No token is supervised.")
    return encoded
