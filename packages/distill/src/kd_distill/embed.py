"""Embeddings of pairs: what a teacher's cache and the validation of a run are made of."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kd_distill.models import Clip, encode_text
from kd_distill.pairs import Pairs

BATCH = 128


@torch.inference_mode()
def embed_images(model: Clip, pairs: Pairs, view: int | None) -> Iterator[tuple[int, Float[Tensor, "b d"]]]:
    """(first row, unit embeddings) of all images in one view, in the order of the shards."""
    for number, batch in enumerate(pairs.in_order(BATCH, view)):
        yield (
            number * BATCH,
            F.normalize(model.encode_image(pairs.preprocessing.normalise(batch.images)).float(), dim=-1),
        )


@torch.inference_mode()
def embed_texts(model: Clip, pairs: Pairs) -> Iterator[tuple[int, Float[Tensor, "b d"]]]:
    """(first row, unit embeddings) of all captions, in the order of the shards."""
    for row in range(0, len(pairs.shards), BATCH):
        captions = [pairs.shards.caption(i) for i in range(row, min(row + BATCH, len(pairs.shards)))]
        yield row, F.normalize(encode_text(model, pairs.tokenize(captions)).float(), dim=-1)
