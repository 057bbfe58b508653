"""Weights that somebody else published as a file, as a model folder that can be registered."""

import hashlib
import re
from pathlib import Path

from torch import Tensor

from kd_distill import models
from kd_distill.durable import whole_folder
from kd_distill.fetch import read_weights
from kd_distill.journal import Journal
from kd_distill.tracking import JOURNAL

WRAPPED = "module."  # what DistributedDataParallel puts before every name
ID = "[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*"  # two hyphens part ids
NAME = re.compile(rf"teacher-{ID}|student-{ID}--(?P<teacher>{ID}(?:\+{ID})*)--(?P<recipe>{ID})")


def adopt(weights: Path, architecture: str, name: str, out: Path) -> Path:
    """Write the model folder `out`/`name`, with a journal; a folder that is there is kept.

    Args:
        weights: `.safetensors`, or a torch file of tensors alone, read without running code; names may begin with
            `module.`, and the tensors may stand under `state_dict`.
        architecture: By name, or the path of a JSON file in open_clip's form. Its tokenizer must be CLIP's.
        name: Registered name: `teacher-<id>` or `student-<arch>--<teacher or none>--<recipe>`.
        out: Where to.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the name has another form, or the weights do not fit the architecture.
    """
    named = NAME.fullmatch(name)
    if not named:
        raise ValueError(
            f"Expected the name teacher-<id>, or student-<arch>--<teacher or none>--<recipe> of three parts between "
            f"double hyphens, got {name!r}. Ids hold letters, digits, - and _."
        )
    if not weights.is_file():
        raise FileNotFoundError(f"Expected weights at {weights}, found none.")
    folder = out / name
    if (folder / models.CONFIG).is_file():
        return folder
    config = models.read_architecture(architecture)
    model = models.build(config, seed=0)
    models.fill(model, _unwrapped(read_weights(weights, model)), str(weights))
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    kind, teacher, recipe = name.partition("-")[0], named["teacher"] or "none", named["recipe"] or "pretrained"
    params = {"kind": kind, "architecture": config.get("name", Path(architecture).stem), "weights_sha256": sha256}
    tags = {"kd.arch": Path(architecture).stem, "kd.teacher": teacher, "kd.recipe": recipe, "kd.data": "unknown"}
    with whole_folder(folder) as part:
        models.save(part, model.eval(), config)
        journal = Journal.open(part / JOURNAL, experiment="distill", name=name, params=params)
        tags |= {"kd.seed": "0"} | models.describe(model, config)
        journal.finish(kind=kind, name=name, tags=tags, folder=part)
    return folder


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(key.startswith(WRAPPED) for key in weights):
        return {key.removeprefix(WRAPPED): tensor for key, tensor in weights.items()}
    return weights
