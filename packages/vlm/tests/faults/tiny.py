"""A tiny VLM and its conversations, from folders that the fixtures of conftest.py wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from kd_vlm.assembly import Vlm, assemble, standardise_input
from kd_vlm.corpus import Corpus, prepare
from kd_vlm.data import read_conversations
from kd_vlm.distributed import Ranks
from kd_vlm.encoder import load_encoder
from kd_vlm.features import FeatureCache, cache_features
from kd_vlm.regimen import Regimen
from kd_vlm.train import ALONE, fit_stage
from kd_vlm.trainer import Upkeep

STAGE: dict[str, Any] = {
    **{"batch_size": 4, "epochs": 2, "projector_lr": 5e-3, "language_model": "trained", "language_model_lr": 5e-3},
    **{"warmup_share": 0.1, "weight_decay": 0.0, "clip": 1.0, "beta2": 0.99, "precision": "fp32", "seed": 0},
    "micro_batch_size": None,
}


def fit(vlm: Vlm, corpus: Corpus, features: FeatureCache, how: Mapping[str, Any], ranks: Ranks = ALONE, **kept: Any):
    """A stage with these fields of a regimen; a checkpoint every second step."""
    return fit_stage(vlm, corpus, features, Regimen(**how), Upkeep(**({"save_every": 2} | kept)), ranks)


def write_inputs(place: Path, *, encoder: Path, lm: Path, world: Path) -> None:
    """Say where the inputs are, for another process."""
    place.write_text(json.dumps({"encoder": str(encoder), "lm": str(lm), "world": str(world)}))


def build(place: Path) -> tuple[Vlm, dict[str, Corpus], FeatureCache]:
    """The model, the conversations of both stages, and the visual tokens of their pictures."""
    inputs = {name: Path(path) for name, path in json.loads(place.read_text()).items()}
    tower, world = load_encoder(inputs["encoder"]), inputs["world"]
    vlm = assemble(tower, inputs["lm"], torch.Generator().manual_seed(0))
    corpora = {
        stage: prepare(
            vlm,
            read_conversations(world / file),
            world / "images",
            template=template,
            least_supervised_share=0.01,
        )
        for stage, file, template in (("pretrain", "captions.json", "plain"), ("finetune", "mix.json", "qwen2_base"))
    }
    paths = list(dict.fromkeys(p for c in corpora.values() for sample in c.pictures for p in sample))
    features = cache_features(tower, paths, root=place.parent, memory_limit=10**9, on_batch=lambda n: None)
    standardise_input(vlm, features.sample())
    return vlm, corpora, features
