"""The teachers of the study, in explicit numbers: what a name promises, and how to get it.

The table is what `distill doctor` holds a model against, so nothing in it is read from the model. The paper (section
8.1) swaps the checkpoints of its two CLIP teachers; here `clip-l14` is the large one. A file of the same form
adds teachers of one's own, or smaller ones under these names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from kd_distill.schema import OPENAI_MEAN, OPENAI_STD, check_architecture
from kd_distill.views import Preprocessing

HALVES = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Teacher:
    """One teacher.

    Args:
        name: Exact; the registered name is `teacher-<name>`.
        label: What the paper calls it.
        hub: Hub id of the weights in open_clip's form.
        config: open_clip's model configuration.
        preprocessing: How it wants its images.
        image_parameters: Of the image tower with its projection or pooling head.
        text_parameters: Of the text tower with its projection.
        grid: Rows, columns and width of its patch tokens.
        patch_size: Side of a patch in pixels.
        scale: What it multiplies cosines with; None where its publisher says nothing, and it is then not checked.
        bias: Whether it adds a learned bias to its logits (SigLIP).
    """

    name: str
    label: str
    hub: str
    config: Mapping[str, Any]
    preprocessing: Preprocessing
    image_parameters: int
    text_parameters: int
    grid: tuple[int, int, int]
    patch_size: int
    scale: float | None
    bias: bool = False

    @property
    def registered(self) -> str:
        """Its name in the registry."""
        return f"teacher-{self.name}"


def _clip(name: str, label: str, hub: str, *, large: bool, scale: float | None) -> Teacher:
    """ViT-L/14 or ViT-B/16 as OpenAI built them and DFN-2B copied them; both were trained with QuickGELU."""
    width, layers, patch, text, d = (1024, 24, 14, 768, 768) if large else (768, 12, 16, 512, 512)
    return Teacher(
        name=name,
        label=label,
        hub=hub,
        config={
            "embed_dim": d,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": 224,
                "layers": layers,
                "width": width,
                "head_width": 64,
                "mlp_ratio": 4.0,
                "patch_size": patch,
            },
            "text_cfg": {
                "context_length": 77,
                "vocab_size": 49408,
                "width": text,
                "heads": text // 64,
                "layers": 12,
                "mlp_ratio": 4.0,
            },
        },
        preprocessing=Preprocessing(224, OPENAI_MEAN, OPENAI_STD, "bicubic", "shortest"),
        image_parameters=303_966_208 if large else 86_192_640,
        text_parameters=123_650_304 if large else 63_428_096,
        grid=(224 // patch, 224 // patch, width),
        patch_size=patch,
        scale=scale,
    )


SIGLIP = Teacher(
    name="siglip-so400m-384",
    label="SigLIP-so400m-384",
    hub="timm/ViT-SO400M-14-SigLIP-384",
    config={
        "embed_dim": 1152,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {
            "image_size": 384,
            "timm_model_name": "vit_so400m_patch14_siglip_384",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 64,
            "vocab_size": 32000,
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 1152,
            "heads": 16,
            "layers": 27,
            "mlp_ratio": 3.7362,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    },
    preprocessing=Preprocessing(384, HALVES, HALVES, "bicubic", "squash"),
    image_parameters=428_225_600,
    text_parameters=449_734_896,
    grid=(27, 27, 1152),  # 384 = 27 x 14 + 6: the last six rows and columns are not seen
    patch_size=14,
    scale=112.33,  # exp(4.7215), as its publishers state
    bias=True,
)

TEACHERS: Mapping[str, Teacher] = MappingProxyType(
    {
        teacher.name: teacher
        for teacher in (
            SIGLIP,
            _clip("clip-l14", "CLIP-ViT-L/14", "timm/vit_large_patch14_clip_224.openai", large=True, scale=100.0),
            _clip("clip-b16", "CLIP-ViT-B/16", "timm/vit_base_patch16_clip_224.openai", large=False, scale=100.0),
            _clip("dfn-l14", "DFN-ViT-L/14", "apple/DFN2B-CLIP-ViT-L-14", large=True, scale=None),
            _clip("dfn-b16", "DFN-ViT-B/16", "apple/DFN2B-CLIP-ViT-B-16", large=False, scale=None),
        )
    }
)


def teachers_of(table: Path | None) -> Mapping[str, Teacher]:
    """The teachers of the package and those of a table, which come first where both have a name.

    Args:
        table: YAML, under each name the fields of `Teacher` but for the name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not of that form.
    """
    if table is None:
        return TEACHERS
    if not table.is_file():
        raise FileNotFoundError(f"Expected a table of teachers at {table}, found none.")
    try:
        rows = YAML(typ="safe").load(table)
        named = {name: {"name": name, **row} for name, row in rows.items()}
        found = TypeAdapter(dict[str, Teacher]).validate_python(named)
    except (YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"{table}: expected teachers by name, got {str(error)[:200]}.") from None
    except ValidationError as error:
        lines = [f"{table}: {'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
        raise ValueError("\n".join(lines)) from None
    for name, teacher in found.items():
        check_architecture(teacher.config, f"{table}: {name}.config")
    return {**TEACHERS, **found}


def teacher_named(name: str, table: Path | None = None) -> Teacher:
    """The teacher called `name`, of a table or of the package. Exact match only.

    Raises:
        ValueError: If there is none.
    """
    known = teachers_of(table)
    if name not in known:
        raise ValueError(f"Unknown teacher {name!r}. Known: {', '.join(known)}.")
    return known[name]
