"""A teacher from a hub, or from a copy of its hub folder, as an open_clip `local-dir` folder that can be registered."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_distill import models
from kd_distill.durable import whole_folder
from kd_distill.journal import Journal
from kd_distill.reading import weights_errors
from kd_distill.schema import check_architecture, check_preprocessing
from kd_distill.teachers import Teacher
from kd_distill.text import TOKENIZER_FILES
from kd_distill.tracking import JOURNAL

PICKLED = (
    "open_clip_pytorch_model.bin"  # what older hub folders hold; read without running code, written as safetensors
)
FILES = (models.CONFIG, models.WEIGHTS, *TOKENIZER_FILES)
SCALARS = ("logit_scale", "logit_bias")  # saved as [] or as [1]


def fetch(
    teacher: Teacher, out: Path, *, download: bool, source: Path | None = None, revision: str | None = None
) -> Path:
    """Write the model folder `out`/teacher-<name>, with a journal; a folder that is there is kept.

    Args:
        teacher: Which one.
        out: Where to.
        download: Ask the hub for what is not in its local store. Without it nothing is sent anywhere.
        source: A copy of the hub folder, to take in place of the hub's local store.
        revision: Of the hub folder; None is its main branch.

    Raises:
        FileNotFoundError: If the files are not here and `download` is off, or the source lacks one.
        ValueError: If what is there is not what the table of teachers says.
    """
    folder = out / teacher.registered
    if (folder / models.CONFIG).is_file():
        return folder
    source = source or snapshot(teacher.hub, download=download, revision=revision)
    model = assemble(source, teacher)
    params = {"kind": "teacher", "architecture": teacher.name, "hub": teacher.hub, "revision": revision or "main"}
    tags = {"kd.arch": teacher.name, "kd.teacher": "none", "kd.recipe": "pretrained", "kd.data": teacher.hub}
    with whole_folder(folder) as part:
        models.save(part, model, teacher.config, teacher.preprocessing, tokenizer=source)
        journal = Journal.open(part / JOURNAL, experiment="distill", name=teacher.registered, params=params)
        journal.finish(
            kind="teacher",
            name=teacher.registered,
            tags=tags | {"kd.seed": "0"} | models.describe(model, teacher.config),
            folder=part,
        )
    return folder


def snapshot(hub: str, *, download: bool, revision: str | None = None) -> Path:
    """The local copy of a hub folder, brought here first where `download` allows it; safetensors where it has them."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def bring(files: list[str]) -> Path:
        found = snapshot_download(hub, revision=revision, allow_patterns=files, local_files_only=not download)
        return Path(str(found))

    try:
        found = bring([*FILES])
        return found if (found / models.WEIGHTS).is_file() else bring([*FILES, PICKLED])
    except LocalEntryNotFoundError:
        raise FileNotFoundError(
            f"Expected {hub} in the hub's local store, found nothing there"
            + (", and it cannot be reached." if download else "; --download asks the hub for it.")
            + " With a copy of that folder at hand, pass --from FOLDER."
        ) from None


def assemble(source: Path, teacher: Teacher) -> models.Clip:
    """The teacher with the weights of a hub folder; what that folder says of itself must agree with the table."""
    file = source / models.CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"Expected an open_clip model folder at {source}, found no {models.CONFIG} in it.")
    whole = models.read_json(file)
    stated = check_architecture(whole.get("model_cfg", {}), str(file)).model_dump(exclude_unset=True)
    view = check_preprocessing(whole.get("preprocess_cfg", {}), str(file))
    # a key that an older file leaves out is taken from the table; but silence on QuickGELU means GELU
    stated = {"quick_gelu": False} | {k: v for k, v in stated.items() if not k.startswith("init_")}
    problems = _differences(stated, check_architecture(teacher.config, teacher.name).model_dump())
    given = view.model_dump(include=view.model_fields_set & {"mean", "std", "interpolation", "resize_mode"})
    problems += _differences(given, {name: getattr(teacher.preprocessing, name) for name in given})
    if problems:
        raise ValueError(f"{file} is not of {teacher.name} as the table has it: {'; '.join(problems)}.")
    model = models.build(teacher.config, seed=0)
    models.fill(model, _weights(source, model), str(source))
    return model.eval()


def _differences(stated: Mapping[str, Any], expected: Mapping[str, Any], at: str = "") -> list[str]:
    """Where `stated` says other than `expected`; the tokenizer's name only has to be there."""
    found = []
    for key, value in stated.items():
        want = expected.get(key)
        if isinstance(value, Mapping) and isinstance(want, Mapping):
            found += _differences(value, want, f"{at}{key}.")
        elif key == "hf_tokenizer_name":
            found += [] if bool(value) == bool(want) else [f"{at}{key}: expected {want!r}, got {value!r}"]
        elif value != want:
            found.append(f"{at}{key}: expected {want!r}, got {value!r}")
    return found


def _weights(source: Path, model: models.Clip) -> dict[str, Tensor]:
    for name in (models.WEIGHTS, PICKLED):
        if (source / name).is_file():
            return read_weights(source / name, model)
    raise FileNotFoundError(f"Expected {models.WEIGHTS} or {PICKLED} in {source}, found neither.")


def read_weights(file: Path, model: models.Clip) -> dict[str, Tensor]:
    """The tensors of a file of weights, scalars in the shape that `model` has them."""
    from safetensors.torch import load_file

    with weights_errors(file):
        weights = load_file(str(file)) if file.suffix == ".safetensors" else _unpickled(file)
    own = model.state_dict()
    return {n: w.reshape(own[n].shape) if n in SCALARS and n in own else w for n, w in weights.items()}


def _unpickled(file: Path) -> dict[str, Tensor]:
    """Tensors of a pickle, by torch's reader that runs no code from it."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file}: expected weights only, got something else: {str(error).splitlines()[0]}") from None
    weights: dict[str, Tensor] = content.get("state_dict", content)
    return weights
