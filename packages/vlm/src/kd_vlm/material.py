"""What a run works with: the assembled model, its conversations, and the tower's output for their pictures."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kd_vlm.assembly import Vlm, assemble
from kd_vlm.config import Corpus as CorpusParams
from kd_vlm.config import Data, Recipe
from kd_vlm.corpus import Corpus, prepare
from kd_vlm.data import Conversations, Sample, distinct_images, read_conversations
from kd_vlm.distributed import Ranks
from kd_vlm.encoder import Encoder, load_encoder
from kd_vlm.features import FeatureCache, cache_features
from kd_vlm.manifest import read_manifest
from kd_vlm.pictures import image_path
from kd_vlm.preprocess import padding
from kd_vlm.problems import Policy
from kd_vlm.templates import IMAGE
from kd_vlm.vision_cache import Precision as CachePrecision
from kd_vlm.workspace import file_digest, key_of, progress


@dataclass(frozen=True)
class Material:
    """The model, and the conversations of both stages and of the test.

    Attributes:
        towers: The encoder as each stage sees pictures (square or padded).
        visual_precision: Of its tokens that are kept.
        blind: The test with its pictures taken away.
        bad: How often each cause made a sample unusable.
    """

    vlm: Vlm
    towers: Mapping[str, Encoder]
    visual_precision: CachePrecision
    corpora: Mapping[str, Corpus]
    test: Corpus
    blind: Corpus
    bad: Mapping[str, int]


def gather(encoder: Path, lm: Path, recipe: Recipe, data: Data, seed: int) -> Material:
    """Build the model and read the conversations.

    Raises:
        ValueError: If encoder, language model, template and data do not fit each other, or there is no blind test.
    """
    tower = load_encoder(encoder, **recipe.feature.model_dump())
    padded: Any = padding(tower.processor)
    towers = {
        name: replace(tower, processor=padded) if stage.aspect_ratio == "pad" else tower
        for name, stage in (("pretrain", recipe.pretrain), ("finetune", recipe.finetune))
    }
    generator = torch.Generator().manual_seed(seed)
    kind, factor = recipe.connector.kind, recipe.connector.factor
    template = recipe.finetune.template
    vlm = assemble(towers["finetune"], lm, generator, connector=kind, factor=factor, template=template)
    captions, dialogues = (_conversations(params, data.bad) for params in (data.pretrain, data.finetune))
    if len(dialogues) <= recipe.held_out:
        raise ValueError(f"{data.finetune.file} has {len(dialogues)} samples, held_out takes {recipe.held_out}.")
    cut = len(dialogues) - recipe.held_out
    test = [s for s in dialogues[cut:] if s.images]
    options: dict[str, Any] = {"least_supervised_share": recipe.least_supervised_share, "bad": data.bad}
    first = options | {"template": recipe.pretrain.template, "max_length": recipe.pretrain.max_length}
    second = options | {"template": recipe.finetune.template, "max_length": recipe.finetune.max_length}
    folder = data.finetune.images
    corpora = {
        "pretrain": prepare(vlm, captions, data.pretrain.images, **first),
        "finetune": prepare(vlm, dialogues[:cut], folder, **second),
    }
    tested = prepare(vlm, test, folder, **second)
    asks = recipe.finetune.template != "plain"  # which shows the picture alone, so nothing is left for a blind reader
    blind = prepare(vlm, [without_images(s) for s in test] if asks else [], folder, **second)
    if len(tested) and not len(blind):
        raise ValueError(
            f"held_out is {recipe.held_out}, but the template {template!r} leaves no sample for the test without "
            "pictures. Set held_out: 0, or take a template that writes questions for the finetuning."
        )
    causes = (captions.bad, dialogues.bad, *(corpus.bad for corpus in corpora.values()))
    bad = sum(map(Counter, causes), Counter[str]())
    return Material(
        vlm,
        towers,
        recipe.visual_precision,
        corpora,
        tested,
        blind,
        bad,
    )


def _conversations(params: CorpusParams, bad: Policy) -> Conversations:
    known = None if params.manifest is None else read_manifest(params.manifest, params.file).problems()
    decode = known is None and bad != "error"
    with progress(show=decode) as bars:
        bar = bars.add_task("pictures", total=None, note="")
        return read_conversations(
            params.file,
            images=params.images,
            bad=bad,
            known=known,
            decode=decode,
            on_row=lambda done, of: bars.update(bar, completed=done, total=of),
        )


def without_images(sample: Sample) -> Sample:
    """The same conversation for a blind reader."""
    turns = tuple(replace(turn, question=turn.question.replace(IMAGE, "").strip()) for turn in sample.turns)
    return replace(sample, images=(), turns=turns)


def datasets_of(data: Data, material: Material) -> list[dict[str, str]]:
    """Name, place and digest of each conversation file with all its pictures, and of what is trained on of them."""
    finetune = (material.corpora["finetune"], material.test)
    return [
        _dataset("pretrain", data.pretrain, material.corpora["pretrain"]),
        _dataset("finetune", data.finetune, *finetune),
    ]


def _dataset(name: str, params: CorpusParams, *parts: Corpus) -> dict[str, str]:
    images = distinct_images(sample for part in parts for sample in part.samples)
    digest = file_digest([params.file, *(image_path(params.images, image) for image in images)])
    if any(map(_partial, parts)):
        digest = key_of(digest, [(part.encoded.digest(), _pictures_digest(part.samples)) for part in parts])
    return {"name": name, "digest": digest, "path": str(params.file)}


def _partial(corpus: Corpus) -> bool:
    """Whether a bad sample is left out or has a grey picture; else file and recipe say what is trained on."""
    samples = corpus.samples
    return bool(corpus.bad) or (isinstance(samples, Conversations) and bool(samples.bad))


def _pictures_digest(samples: Iterable[Sample]) -> str:
    """A sha256 over the names of the pictures of each sample, grey ones among them."""
    whole = hashlib.sha256()
    for sample in samples:
        whole.update(json.dumps(sample.images).encode() + b"\n")
    return whole.hexdigest()


def features_of(
    material: Material, root: Path, memory_limit: int, ranks: Ranks, workers: int = 1
) -> dict[str, FeatureCache]:
    """The visual tokens of each stage's pictures; computed by the first rank, read by all from one file.

    The tower runs on the rank's device; `workers` threads decode.
    """
    wanted = {
        name: [p for c in parts for sample in c.pictures for p in sample]
        for name, parts in (
            ("pretrain", (material.corpora["pretrain"],)),
            ("finetune", (material.corpora["finetune"], material.test)),
        )
    }
    towers, precision = material.towers, material.visual_precision

    def cached(tower: Encoder, paths: list[Path]) -> FeatureCache:
        return _cached(tower, paths, root, memory_limit, precision, ranks, workers)

    if towers["pretrain"] is towers["finetune"]:
        both = cached(towers["finetune"], wanted["pretrain"] + wanted["finetune"])
        return {"pretrain": both, "finetune": both}
    return {name: cached(towers[name], wanted[name]) for name in wanted}


def _cached(
    tower: Encoder,
    paths: list[Path],
    root: Path,
    memory_limit: int,
    precision: CachePrecision,
    ranks: Ranks,
    workers: int,
) -> FeatureCache:
    distinct = list(dict.fromkeys(paths))
    if ranks.world > 1:
        memory_limit = 0  # one file for all ranks
    with ranks.in_turn(), progress(show=ranks.first) as bars:
        bar = bars.add_task("features", total=len(distinct), note="")
        return cache_features(
            tower,
            distinct,
            root=root,
            memory_limit=memory_limit,
            precision=precision,
            on_batch=lambda n: bars.update(bar, advance=n),
            workers=workers,
            device=str(ranks.device),
        )
