"""Zero-shot classification with an open_clip encoder: top-1, top-5 and mean per-class recall.

Source: Radford et al., CLIP, ICML 2021, section 3.1; github.com/mlfoundations/open_clip, `zero_shot_classifier.py`.
"""

import hashlib
import itertools
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_evalsuite.images import decode
from kd_evalsuite.items import DataError
from kd_evalsuite.records import Score
from kd_evalsuite.stats import clustered_stderr, mean
from kd_evalsuite.zeroshot.config import check_config
from kd_evalsuite.zeroshot.layouts import Labelled
from kd_evalsuite.zeroshot.sets import ClassificationSet

TASK, VERSION = "zeroshot", "2"


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
        self.folder = folder
        name = f"local-dir:{folder.resolve()}"
        model, self.preprocess = open_clip.create_model_from_pretrained(name, precision="fp32")
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenize = open_clip.get_tokenizer(name)
        self.device = device

    @torch.inference_mode()
    def classifier(self, names: Sequence[str], templates: Sequence[str], batch_size: int) -> Tensor:
        """Unit class vectors (d, c): of each class the normalised mean of its normalised prompt embeddings.

        Raises:
            DataError: If one of them is not finite.
        """
        distinct = list(dict.fromkeys(names))
        prompts = [t.replace("{c}", name) for name in distinct for t in templates]
        parts = [
            F.normalize(self.model.encode_text(self.tokenize(prompts[i : i + batch_size]).to(self.device)), dim=-1)
            for i in range(0, len(prompts), batch_size)
        ]
        z = F.normalize(torch.cat(parts).unflatten(0, (len(distinct), len(templates))).mean(dim=1), dim=-1)
        _require_finite(z, [f"the class {name!r}" for name in distinct], self.folder)
        place = {name: k for k, name in enumerate(distinct)}
        return z[[place[name] for name in names]].T

    @torch.inference_mode()
    def embed(self, pixels: Sequence[Tensor]) -> Tensor:
        """Unit embeddings (b, d) of preprocessed images."""
        return F.normalize(self.model.encode_image(torch.stack(list(pixels)).to(self.device)), dim=-1)

    def pixels(self, image: bytes) -> Tensor:
        """An encoded image as the model sees it (3, h, w)."""
        pixels: Tensor = self.preprocess(decode(image))
        return pixels


@dataclass(frozen=True, slots=True)
class Embedded:
    """Unit embeddings (n, d) of a set's images with their labels (n,), keys, and the digest of images and labels."""

    z: Tensor
    labels: Tensor
    keys: tuple[str, ...]
    sha256: str


def embed_set(
    encoder: Encoder,
    data: ClassificationSet,
    *,
    batch_size: int,
    limit: int | None = None,
    workers: int = 1,
    advance: Callable[[int], None] = lambda n: None,
) -> Embedded:
    """Encode every image once; `workers` threads decode.

    The digest is of the contents, whatever the layout and order: the same images as tar files, folders or parquet have
    the same one.

    Raises:
        DataError: If the set has no image, or an embedding is not finite.
    """
    parts, labels, keys, digests = [], [], [], []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for batch in _batches(data, batch_size, limit):
            parts.append(encoder.embed(list(pool.map(encoder.pixels, [s.image for s in batch]))).cpu())
            _require_finite(parts[-1], [f"the image {s.key!r}" for s in batch], encoder.folder)
            for sample in batch:
                labels.append(sample.label)
                keys.append(sample.key)
                digests.append(hashlib.sha256(sample.image).hexdigest() + f"  {sample.label}\n")
            advance(len(batch))
    if not keys:
        raise DataError("Expected images in the classification set, found none.")
    whole = hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
    return Embedded(torch.cat(parts), torch.tensor(labels), tuple(keys), whole)


def _require_finite(z: Tensor, what: Sequence[str], folder: Path) -> None:
    """DataError unless every row is finite. Nothing is greater than NaN, so such an image's class would rank first."""
    if bad := [name for name, finite in zip(what, z.isfinite().all(dim=1).tolist(), strict=True) if not finite]:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(
            f"{folder}: expected finite embeddings, got NaN or infinity for {bad[0]}{more}. "
            "Its weights are broken, as where training diverged: take another checkpoint."
        )


def ranks_of(z: Tensor, labels: Tensor, classifier: Tensor, block: int = 4096) -> tuple[Tensor, Tensor]:
    """The rank (n,) of each image's own class, 1 being the nearest, and the nearest class (n,); embeddings are finite.

    Of classes at equal distance the one with the lower number ranks first, so two classes of one name (ImageNet has two
    such pairs) have one and the same winner.
    """
    ranks, nearest = [], []
    for start in range(0, len(z), block):
        logits = z[start : start + block] @ classifier
        own = labels[start : start + block].unsqueeze(1)
        mine = logits.gather(1, own)
        before = torch.arange(logits.shape[1]).unsqueeze(0) < own
        ranks.append(1 + (logits > mine).sum(dim=1) + ((logits == mine) & before).sum(dim=1))
        nearest.append(torch.from_numpy(logits.numpy().argmax(axis=1)))  # numpy's is the first of equals
    return torch.cat(ranks), torch.cat(nearest)


def classify(
    encoder: Encoder,
    data: ClassificationSet,
    *,
    batch_size: int,
    limit: int | None = None,
    workers: int = 1,
    advance: Callable[[int], None] = lambda n: None,
    cache: Path | None = None,
) -> tuple[tuple[Score, ...], list[dict[str, Any]]]:
    """Scores top1, top5 and mean per-class recall of one encoder on one set, and the rows of `items.jsonl`.

    Args:
        encoder: The encoder.
        data: The set.
        batch_size: Images or prompts encoded together.
        limit: Only so many images.
        workers: Threads that decode images.
        advance: Told how many images were encoded.
        cache: A file of embeddings; read if it is there, written if not.
    """
    found = load_embedded(cache) if cache is not None and cache.is_file() else None
    if found is None:
        found = embed_set(encoder, data, batch_size=batch_size, limit=limit, workers=workers, advance=advance)
        if cache is not None:
            save_embedded(cache, found)
    classifier = encoder.classifier(data.names, data.templates, batch_size).cpu()
    ranks, nearest = ranks_of(found.z, found.labels, classifier)
    rows = [
        {"task": TASK, "id": key, "cluster": key, "score": float(rank == 1), "top5": float(rank <= 5), "rank": rank}
        for key, rank in zip(found.keys, ranks.tolist(), strict=True)
    ]
    prompts = hashlib.sha256("\n".join((*data.names, "", *data.templates)).encode()).hexdigest()
    version = f"{VERSION}+{prompts[:8]}+{found.sha256[:8]}"
    return _scores(version, rows, found.labels.tolist(), nearest.tolist(), len(data.names)), rows


def save_embedded(path: Path, found: Embedded) -> None:
    """Embeddings as numpy arrays in one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part.npz")
    np.savez(
        part, z=found.z.numpy(), labels=found.labels.numpy(), keys=np.array(found.keys), sha256=np.array(found.sha256)
    )
    part.replace(path)


def load_embedded(path: Path) -> Embedded:
    """Embeddings kept by `save_embedded`.

    Raises:
        DataError: If the file is not one of these, or is cut short.
    """
    damaged = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
    try:
        with np.load(path, allow_pickle=False) as kept:
            z, labels = torch.from_numpy(kept["z"]), torch.from_numpy(kept["labels"])
            keys, sha256 = tuple(kept["keys"].tolist()), str(kept["sha256"])
    except damaged as error:
        raise DataError(f"{path}: not a file of embeddings ({error!r}); remove it.") from None
    fits = z.ndim == 2 and labels.shape == (len(z),) == (len(keys),) and labels.dtype == torch.int64
    if not (fits and len(z) and z.dtype == torch.float32 and z.isfinite().all()):
        raise DataError(f"{path}: expected finite embeddings (n, d) with n labels and n keys, got others; remove it.")
    return Embedded(z, labels, keys, sha256)


def _scores(
    version: str, rows: Sequence[dict[str, Any]], labels: Sequence[int], nearest: Sequence[int], classes: int
) -> tuple[Score, ...]:
    share = max(Counter(nearest).values()) / len(nearest)
    top1 = [row["score"] for row in rows]
    recalls = defaultdict(list)
    for label, hit in zip(labels, top1, strict=True):
        recalls[label].append(hit)
    per_class = [mean(hits) for hits in recalls.values()]
    spread = [clustered_stderr(hits, range(len(hits))) for hits in recalls.values() if len(hits) > 1]
    recall_stderr = sum(s * s for s in spread) ** 0.5 / len(recalls) if len(spread) == len(recalls) else None

    def one(metric: str, value: float, stderr: float, n: int, chance: float) -> Score:
        return Score(
            benchmark=TASK, benchmark_version=version, metric=metric, value=value, best=1.0, stderr=stderr, n=n,
            n_unparsed=0, top_answer_share=share, chance=chance,
        )  # fmt: skip

    single = clustered_stderr(top1, range(len(top1)))
    top5 = [row["top5"] for row in rows]
    return (
        one("top1", mean(top1), single, len(rows), 1 / classes),
        one("top5", mean(top5), clustered_stderr(top5, range(len(top5))), len(rows), min(5, classes) / classes),
        one("mean_per_class_recall", mean(per_class), recall_stderr or single, len(recalls), 1 / classes),
    )


def _batches(data: ClassificationSet, size: int, limit: int | None) -> Iterator[list[Labelled]]:
    samples = itertools.islice(data, limit)
    while batch := list(itertools.islice(samples, size)):
        yield batch
