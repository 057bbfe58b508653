"""Zero-shot classification with an open_clip encoder: top-1 and top-5."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_evalsuite.images import decode
from kd_evalsuite.records import Score
from kd_evalsuite.stats import clustered_stderr, mean
from kd_evalsuite.zeroshot.config import check_config
from kd_evalsuite.zeroshot.shards import ClassificationSet, Labelled

TASK, VERSION = "zeroshot", "1"


class Encoder:
    """An open_clip model in a local folder with its own preprocessing and tokenizer.

    Args:
        folder: `open_clip_config.json` and `open_clip_model.safetensors`; the configuration must stand on its own.
        device: Where it runs.

    Raises:
        DataError: If the configuration is not accepted (`zeroshot.config`).
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        check_config(folder)
        name = f"local-dir:{folder.resolve()}"
        model, self.preprocess = open_clip.create_model_from_pretrained(name, precision="fp32")
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenize = open_clip.get_tokenizer(name)
        self.device = device

    @torch.inference_mode()
    def classifier(self, names: Sequence[str], templates: Sequence[str], batch_size: int) -> Tensor:
        """Unit class vectors (d, c): of each class the normalised mean of its normalised prompt embeddings."""
        prompts = [t.replace("{c}", name) for name in names for t in templates]
        parts = [
            F.normalize(self.model.encode_text(self.tokenize(prompts[i : i + batch_size]).to(self.device)), dim=-1)
            for i in range(0, len(prompts), batch_size)
        ]
        z = torch.cat(parts).unflatten(0, (len(names), len(templates)))
        return F.normalize(z.mean(dim=1), dim=-1).T

    @torch.inference_mode()
    def ranking(self, images: Sequence[bytes], classifier: Tensor, k: int) -> Tensor:
        """The k nearest classes (b, k) of encoded images, nearest first."""
        pixels = torch.stack([self.preprocess(decode(image)) for image in images]).to(self.device)
        z = F.normalize(self.model.encode_image(pixels), dim=-1)
        return (z @ classifier).topk(k, dim=-1).indices.cpu()


def classify(
    encoder: Encoder,
    data: ClassificationSet,
    *,
    batch_size: int,
    limit: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[tuple[Score, ...], list[dict[str, Any]]]:
    """Scores top1 and top5 of one encoder on one set, and the rows of `items.jsonl`."""
    classifier = encoder.classifier(data.names, data.templates, batch_size)
    k = min(5, len(data.names))
    rows: list[dict[str, Any]] = []
    answers: Counter[int] = Counter()
    for batch in _batches(data, batch_size, limit):
        ranks = encoder.ranking([s.image for s in batch], classifier, k)
        right = ranks == torch.tensor([s.label for s in batch]).unsqueeze(1)
        answers.update(ranks[:, 0].tolist())
        for sample, hits in zip(batch, right.tolist(), strict=True):
            row = {"task": TASK, "id": sample.key, "cluster": sample.key}
            rows.append({**row, "score": float(hits[0]), "top5": float(any(hits))})
        advance(len(batch))
    share = max(answers.values()) / len(rows)
    version = f"{VERSION}+{data.sha256[:8]}"
    scores = tuple(
        _score(version, name, [row[column] for row in rows], width / len(data.names), share)
        for name, column, width in (("top1", "score", 1), ("top5", "top5", k))
    )
    return scores, rows


def _score(version: str, metric: str, values: Sequence[float], chance: float, share: float) -> Score:
    return Score(
        benchmark=TASK,
        benchmark_version=version,
        metric=metric,
        value=mean(values),
        best=1.0,
        stderr=clustered_stderr(values, range(len(values))),
        n=len(values),
        n_unparsed=0,
        top_answer_share=share,
        chance=chance,
    )


def _batches(data: ClassificationSet, size: int, limit: int | None) -> Iterator[list[Labelled]]:
    samples = itertools.islice(data, limit)
    while batch := list(itertools.islice(samples, size)):
        yield batch
