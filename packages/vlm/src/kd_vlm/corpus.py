"""Conversations ready for training: tokenised, with the files of their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_vlm.assembly import Vlm
from kd_vlm.data import Sample, check_supervision
from kd_vlm.pictures import image_path
from kd_vlm.templates import IGNORE, Encoded, encode, template_named


@dataclass(frozen=True)
class Corpus:
    """Conversations, tokenised, and the files of their pictures."""

    samples: tuple[Sample, ...]
    encoded: tuple[Encoded, ...]
    pictures: tuple[tuple[Path, ...], ...]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def lengths(self) -> list[int]:
        return [len(e.ids) for e in self.encoded]

    @property
    def supervised(self) -> list[int]:
        """Of each sample, the tokens that are predicted: the first of a row never is."""
        return [sum(label != IGNORE for label in e.labels[1:]) for e in self.encoded]

    @property
    def supervised_share(self) -> float:
        return sum(e.n_supervised for e in self.encoded) / max(sum(self.lengths), 1)


def prepare(
    vlm: Vlm,
    samples: Sequence[Sample],
    images: Path,
    *,
    template: str,
    least_supervised_share: float,
    max_length: int | None = None,
) -> Corpus:
    """Tokenise `samples` and find their pictures below `images`.

    Args:
        max_length: Longer samples are cut to so many tokens, as the originals do; None refuses those that are longer
            than the language model's positions.

    Raises:
        ValueError: If a sample has no supervised token, too few have, or a path leaves the folder.
        FileNotFoundError: If a picture is missing.
    """
    write = template_named(template, vlm.processor.tokenizer)
    segments = [write(sample.turns) for sample in samples]
    encoded = encode(segments, vlm.processor.tokenizer, image_id=vlm.image_id, tokens_per_image=vlm.tokens_per_image)
    if not encoded:
        return Corpus((), (), ())
    encoded = [
        _shortened(e, max_length or len(e.ids), vlm.image_id, s.id) for e, s in zip(encoded, samples, strict=True)
    ]
    check_supervision(samples, encoded, least_share=least_supervised_share)
    limit = vlm.text_config.max_position_embeddings
    if too_long := [s.id for s, e in zip(samples, encoded, strict=True) if len(e.ids) > limit]:
        raise ValueError(
            f"{len(too_long)} samples are longer than the language model's {limit} positions: {too_long[:5]}."
        )
    pictures = tuple(tuple(image_path(images, name) for name in sample.images) for sample in samples)
    return Corpus(tuple(samples), tuple(encoded), pictures)


def _shortened(encoded: Encoded, length: int, image_id: int, name: str) -> Encoded:
    if len(encoded.ids) <= length:
        return encoded
    if image_id in encoded.ids[length:]:
        raise ValueError(f"Sample {name!r}: max_length {length} would cut its pictures' tokens off; raise it.")
    return Encoded(encoded.ids[:length], encoded.labels[:length], encoded.n_images)
