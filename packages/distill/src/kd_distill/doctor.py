"""Is a model what its name says? Checked before a run depends on it.

The paper's appendix names the two CLIP checkpoints the wrong way round, and open_clip builds OpenAI's weights with GELU
where they were trained with QuickGELU: both load without an error, and both change what a study finds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from kd_distill import models, reference
from kd_distill.reading import weights_errors
from kd_distill.schema import check_architecture
from kd_distill.teachers import TEACHERS, Teacher, teachers_of
from kd_distill.text import Tokenize
from kd_distill.towers import patch_grid
from kd_distill.views import Preprocessing

COSINE_TOLERANCE = 1e-3  # of a ViT-B/16 with random weights, float32 is 2e-7 from float64, GELU 6e-3 from QuickGELU
SCALE_TOLERANCE = 0.01  # relative
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    expected: str
    came: str
    ok: bool

    @classmethod
    def equal(cls, what: str, expected: object, came: object) -> "Check":
        return cls(what, _words(expected), _words(came), expected == came)


def examine(
    folder: Path,
    teacher: Teacher | None,
    *,
    stored: Path | None = None,
    classes: Path | None = None,
    at_least: float | None = None,
) -> list[Check]:
    """Check the model in `folder`.

    Args:
        folder: An open_clip `local-dir` folder.
        teacher: What it should be; None: nothing is promised, and only the reference or the classes can tell.
        stored: A reference file; None: the one in the folder, if there is one.
        classes: Folder of pictures, a folder a class named as the class is called in words.
        at_least: Share of the pictures that must be classified right; None: twice chance.

    Returns:
        The checks, failed ones among them. What depends on a failed one is not in the list.

    Raises:
        ValueError: If there is nothing to check against, or a file is not what it should be.
        FileNotFoundError: If a file is missing.
    """
    inside = folder / reference.FILE
    stored = stored or (inside if inside.is_file() else None)
    if teacher is None and stored is None and classes is None:
        raise ValueError(
            f"{folder}: nothing to check it against. Say what it should be (--as {', '.join(TEACHERS)}), "
            "give a reference (--reference FILE) or pictures (--classes FOLDER)."
        )
    checks = unloaded(folder, teacher)
    if not all(check.ok for check in checks):
        return checks
    model, config, view = models.load(folder)
    tokenize = Tokenize(config, folder)
    if teacher:
        checks += _scalars(model, teacher)
    if stored:
        checks.append(_against(stored, reference.cosines(model, view, tokenize)))
    if classes:
        checks.append(zero_shot(model, view, tokenize, classes, at_least))
    return checks


def unloaded(folder: Path, teacher: Teacher | None) -> list[Check]:
    """What can be seen without loading the weights: their shapes, the configuration, the preprocessing."""
    config, view = models.read_config(folder)
    promised = [] if teacher is None else _counts(folder, teacher)
    if teacher:
        promised += architecture(config, teacher) + preprocessing(view, teacher)
    return promised + _weights(folder, config)


def vouch(name: str, folder: Path, table: Path | None = None) -> None:
    """Stop unless the model in `folder`, under the registered name of a teacher of the table, is that teacher.

    Other names pass: nothing is promised of them. Takes about a second whatever the model's size.

    Args:
        name: Registered name of the model.
        folder: Where it lies.
        table: Of teachers beside the package's, see `teachers_of`.

    Raises:
        ValueError: With every check that failed.
    """
    teacher = next((t for t in teachers_of(table).values() if t.registered == name), None)
    if teacher:
        refuse(name, unloaded(folder, teacher))


def refuse(title: str, checks: Sequence[Check]) -> None:
    """Raise ValueError if a check failed; it says of each what was expected and what came."""
    if failed := [check for check in checks if not check.ok]:
        lines = [f"{check.what}: expected {check.expected}, got {check.came}" for check in failed]
        raise ValueError(
            "\n".join([f"{title}: {len(failed)} of {len(checks)} checks failed.", *lines])
            + "\nDo not distil from it: take the checkpoint that belongs to the name, or name it as what it is (--as)."
        )


def construction(teacher: Teacher) -> list[Check]:
    """The teacher built by open_clip without weights, against the numbers of the table."""
    image, text = models.parameters(models.outline(teacher.config))
    return [
        Check.equal("image parameters", teacher.image_parameters, image),
        Check.equal("text parameters", teacher.text_parameters, text),
        Check.equal("patch tokens", teacher.grid, patch_grid(teacher.config)),
    ]


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights, from the head of their file."""
    from safetensors import safe_open

    file = folder / models.WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"Expected an open_clip model folder at {folder}, found no {models.WEIGHTS} in it.")
    with weights_errors(file), safe_open(str(file), "pt") as weights:
        return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118


def _weights(folder: Path, config: Mapping[str, Any]) -> list[Check]:
    """Do the weights fit the configuration that lies beside them?"""
    own = {name: tuple(value.shape) for name, value in models.outline(config).state_dict().items()}
    there = _shapes(folder)
    wrong = sorted(n for n in own.keys() | there.keys() if own.get(n) != there.get(n))
    came = (
        "all fit" if not wrong else f"{len(wrong)} do not, first {wrong[0]}: {own.get(wrong[0])}, {there.get(wrong[0])}"
    )
    return [Check("weights and their configuration", "all fit", came, not wrong)]


def _counts(folder: Path, teacher: Teacher) -> list[Check]:
    """Parameters counted in the weights, whatever the configuration says."""
    sizes = {name: math.prod(shape) for name, shape in _shapes(folder).items()}
    scalars = ("logit_scale", "logit_bias")
    image = sum(size for name, size in sizes.items() if name.startswith("visual."))
    text = sum(size for name, size in sizes.items() if not name.startswith("visual.") and name not in scalars)
    alike = [t.name for t in TEACHERS.values() if (t.image_parameters, t.text_parameters) == (image, text)]
    hint = f" (as {' and '.join(alike)})" if alike and teacher.name not in alike else ""
    return [
        Check(what, _words(want), _words(came) + hint, want == came)
        for what, want, came in (
            ("image parameters", teacher.image_parameters, image),
            ("text parameters", teacher.text_parameters, text),
        )
    ]


def architecture(config: Mapping[str, Any], teacher: Teacher) -> list[Check]:
    """The configuration against the table: the telling numbers always, the others where they differ."""
    want, came = (_flat(check_architecture(c, "configuration").model_dump()) for c in (teacher.config, config))
    vit = teacher.config["vision_cfg"].get("timm_model_name") is None
    telling = ["embed_dim", "vision_cfg.image_size", "text_cfg.width", "text_cfg.context_length", "text_cfg.vocab_size"]
    telling += ["vision_cfg.width", "vision_cfg.layers"] if vit else ["vision_cfg.timm_model_name"]
    ignored = {
        "init_logit_scale",
        "init_logit_bias",
        "text_cfg.hf_tokenizer_name",
        "quick_gelu",
        "vision_cfg.patch_size",
    }
    others = [key for key in want if want[key] != came.get(key) and key not in {*telling, *ignored}]
    names = {True: "QuickGELU", False: "GELU"}
    tokenizer = {True: "its own files", False: "CLIP's byte pairs"}
    own = "text_cfg.hf_tokenizer_name"
    patch = "vision_cfg.patch_size"
    return [
        *(Check.equal(key, want[key], came.get(key)) for key in telling),
        *([Check.equal(patch, teacher.patch_size, came[patch])] if vit else []),
        Check.equal("activation", names[want["quick_gelu"]], names[came["quick_gelu"]]),
        Check.equal("tokenizer", tokenizer[bool(want[own])], tokenizer[bool(came[own])]),
        *(Check.equal(key, want[key], came.get(key)) for key in others),
    ]


def preprocessing(view: Preprocessing, teacher: Teacher) -> list[Check]:
    """Size, mean, std, interpolation and resize mode against the table."""
    names = ("size", "mean", "std", "interpolation", "resize_mode")
    return [Check.equal(name, getattr(teacher.preprocessing, name), getattr(view, name)) for name in names]


def _scalars(model: models.Clip, teacher: Teacher) -> list[Check]:
    scale, _ = models.logit_scale_and_bias(model)
    checks = [Check.equal("logit bias", teacher.bias, model.logit_bias is not None)]
    if teacher.scale is not None:
        near = math.isclose(scale, teacher.scale, rel_tol=SCALE_TOLERANCE)
        checks.append(Check("logit scale", f"{teacher.scale:g}", f"{scale:.4g}", near))
    return checks


def _against(file: Path, came: torch.Tensor) -> Check:
    difference = (reference.read(file) - came).abs().max().item()
    expected = f"cosines within {COSINE_TOLERANCE:g} of {file.name}"
    return Check("reference", expected, f"{difference:.1e} away", difference <= COSINE_TOLERANCE)


@torch.inference_mode()
def zero_shot(
    model: models.Clip, view: Preprocessing, tokenize: Tokenize, folder: Path, at_least: float | None
) -> Check:
    """Top-1 of "a photo of a <class>." on a small folder of pictures."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if len(names) < 2:
        raise ValueError(
            f"--classes {folder}: expected a folder of two or more folders of pictures, found {len(names)}."
        )
    words = models.encode_text(model, tokenize([f"a photo of a {name}." for name in names]))
    right = total = 0
    for label, name in enumerate(names):
        for file in sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in PICTURES):
            with Image.open(file) as picture:
                pixels = view([picture.convert("RGB")], [None])
            z = model.encode_image(view.normalise(pixels))
            right += int((F.normalize(z, dim=-1) @ F.normalize(words, dim=-1).T).argmax().item() == label)
            total += 1
    if not total:
        raise ValueError(f"--classes {folder}: expected pictures ({', '.join(sorted(PICTURES))}), found none.")
    floor = 2 / len(names) if at_least is None else at_least
    came = f"{right}/{total} = {right / total:.3f} (chance {1 / len(names):.3f})"
    return Check("zero-shot top-1", f"at least {floor:.3f}", came, right / total >= floor)


def _flat(config: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{at}{key}.") if isinstance(value, Mapping) and value else {f"{at}{key}": value}
    return flat


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
