"""Retrieval between photos and all of their captions: what image-text training gives on photos it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from kd_distill import models
from kd_distill.models import Clip
from kd_distill.views import Preprocessing
from PIL import Image
from torch import Tensor

CLOSEST = (1, 5, 10)


@dataclass(frozen=True)
class Recall:
    """Hits by query: `hits[k]` is (queries,) of bool; `photo` says which photo a query belongs to."""

    hits: dict[int, np.ndarray]
    photo: np.ndarray

    def value(self, k: int) -> float:
        return float(self.hits[k].mean())

    def stderr(self, k: int) -> float:
        """Queries of one photo vary together."""
        photos = np.unique(self.photo)
        sums = np.array([(self.hits[k][self.photo == p] - self.value(k)).sum() for p in photos])
        n = len(photos)
        return float(np.sqrt((sums**2).sum() * n / (n - 1)) / len(self.photo))


def text_to_image(
    image: Float[Tensor, "n d"], text: Float[Tensor, "m d"], photo: np.ndarray, among: Sequence[int] = CLOSEST
) -> Recall:
    """For each caption, whether its photo is among the k closest of all; chance is k / n.

    Args:
        image: Unit embeddings of photos.
        text: Unit embeddings of captions.
        photo: (m,), the photo of each caption.
        among: The values of k.
    """
    ranks = (text @ image.T).argsort(dim=1, descending=True)
    place = (ranks == torch.from_numpy(photo)[:, None]).float().argmax(dim=1).numpy()
    return Recall({k: place < k for k in among}, photo)


@torch.inference_mode()
def embeddings(
    model: Clip, preprocessing: Preprocessing, tokenize: models.Tokenize, files: Sequence[Path], texts: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Unit embeddings of whole images and of texts."""
    images = [Image.open(file).convert("RGB") for file in files]
    parts = [
        model.encode_image(
            preprocessing.normalise(preprocessing(images[i : i + 128], [None] * len(images[i : i + 128])))
        )
        for i in range(0, len(images), 128)
    ]
    words = [models.encode_text(model, tokenize(list(texts[i : i + 256]))) for i in range(0, len(texts), 256)]
    return F.normalize(torch.cat(parts), dim=-1), F.normalize(torch.cat(words), dim=-1)


def recall(model: Clip, config: dict, preprocessing: Preprocessing, photos: Sequence[tuple[Path, list[str]]]) -> Recall:
    """`text_to_image` over photos with several captions each."""
    texts = [text for _, several in photos for text in several]
    photo = np.repeat(np.arange(len(photos)), [len(several) for _, several in photos])
    image, text = embeddings(model.eval(), preprocessing, models.Tokenize(config), [f for f, _ in photos], texts)
    return text_to_image(image, text, photo)
