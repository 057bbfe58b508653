"""Conversations in LLaVA's format: Flickr8k captions, and questions on product photos with gold from their table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from real.packing import conversation
from real.sources import Photo

CAPTION = "Describe the image in one sentence."
SINGLE_WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def caption_samples(photos: Sequence[tuple[Path, list[str]]]) -> list[dict[str, Any]]:
    """For the first stage: one sample a caption, the question is not shown to the model."""
    return [
        conversation(f"{file.stem}-{i}", f"flickr8k/{file.name}", (CAPTION, caption))
        for file, captions in photos
        for i, caption in enumerate(captions)
    ]


def description_samples(photos: Sequence[tuple[Path, list[str]]]) -> list[dict[str, Any]]:
    """For the second stage: one caption a photo."""
    return [
        conversation(f"describe-{file.stem}", f"flickr8k/{file.name}", (CAPTION, captions[0]))
        for file, captions in photos
    ]


def product_samples(photos: Sequence[Photo], labels: Sequence[str], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Two questions a photo: its class among four by letter, the wrong ones drawn as often as they occur; its colour.

    Args:
        photos: What is asked about.
        labels: The class of every photo; wrong options are drawn from it.
        rng: Draws options and their order.
    """
    samples = []
    for photo in photos:
        options = [photo.label]
        while len(options) < 4:
            if (other := labels[int(rng.integers(len(labels)))]) not in options:
                options.append(other)
        options = [options[i] for i in rng.permutation(4)]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
        asked = (f"What is shown?\n{listed}\n{LETTER}", "ABCD"[options.index(photo.label)])
        colour = (f"Which colour is it?\n{SINGLE_WORD}", photo.colour)
        samples.append(conversation(f"product-{photo.file.stem}", f"fashion/{photo.file.stem}.png", asked, colour))
    return samples
