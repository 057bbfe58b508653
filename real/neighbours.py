"""Nearest neighbours: how well features tell classes apart, without any training on labels."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from kd_distill.models import Clip
from kd_distill.views import Preprocessing
from PIL import Image


def nearest(
    query: Float[np.ndarray, "q d"], known: Float[np.ndarray, "k d"], *, same: bool = False
) -> Float[np.ndarray, "q"]:
    """The row of `known` with the largest cosine for each query; with `same` a row is not its own neighbour."""
    cosines = _unit(query) @ _unit(known).T
    if same:
        np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)


def leave_one_out(features: Float[np.ndarray, "n d"], labels: np.ndarray) -> np.ndarray:
    """Whether the nearest other row has the same label, (n,) of bool."""
    return labels[nearest(features, features, same=True)] == labels


def held_out(features: Float[np.ndarray, "n d"], labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """For the rows in the mask `test`: whether the nearest of the other rows has the same label."""
    return labels[~test][nearest(features[test], features[~test])] == labels[test]


@torch.inference_mode()
def image_features(model: Clip, preprocessing: Preprocessing, images: list[Image.Image]) -> Float[np.ndarray, "n d"]:
    """Unit embeddings of whole images."""
    parts = [
        F.normalize(model.encode_image(preprocessing.normalise(preprocessing(part, [None] * len(part)))), dim=-1)
        for part in (images[i : i + 256] for i in range(0, len(images), 256))
    ]
    return torch.cat(parts).numpy()


def thumbnails(images: list[Image.Image], side: int = 16) -> Float[np.ndarray, "n p"]:
    """Centred pixels of small copies: what neighbours in plain pixels give."""
    rows = np.stack([np.asarray(i.resize((side, side)), np.float32).ravel() for i in images])
    return rows - rows.mean(axis=0)


def load_square(file: Path) -> Image.Image:
    """A prepared photo."""
    with Image.open(file) as image:
        return image.convert("RGB")


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)
