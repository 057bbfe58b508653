"""Where features are read. A tap is a name; what stands at it depends on the encoder, in `towers.py` and `vlms.py`.

| tap | what |
|---|---|
| `pooled` | the encoder's own pooled output before the CLIP projection: class token after the last norm, attention pool, or average pool with its norm; not normalised |
| `embed` | after the projection, L2-normalised: what zero-shot reads and distillation aligns |
| `embed_kd` | the student's after its head to the teacher's width, L2-normalised, beside the teacher's `embed` |
| `patch_mean`, `patch_tokens` | what a VLM's projector reads: the penultimate layer's patches of a ViT, else the last map; their mean, or `GRID` x `GRID` cells |
| `vlm_mean`, `vlm_tokens` | what a VLM's language model reads: image tokens after the projector; their mean, or cells |
| `layer:NAME` | the output of a module, averaged over its places; `layer:NAME@cls` is its class token |
"""  # noqa: E501

from typing import Literal

TAPS = ("pooled", "embed", "embed_kd", "patch_mean", "patch_tokens", "vlm_mean", "vlm_tokens")
LAYER, CLS = "layer:", "@cls"
GRID = 7  # cells along one edge, so that towers of different grids have the same places
OF_CLIP = ("pooled", "embed", "patch_mean", "patch_tokens")
TOKENS = "tokens"  # no tap to compare at: all tokens before a VLM's projector, as a cache keeps them
Precision = Literal["fp32", "fp16", "bf16"]  # of such tokens; here too, since commands parse without numpy
OF_VLM = ("patch_mean", "patch_tokens", "vlm_mean", "vlm_tokens")


def checked(tap: str) -> str:
    """The tap.

    Raises:
        ValueError: If there is none of this name.
    """
    if tap not in TAPS and not (tap.startswith(LAYER) and len(tap) > len(LAYER)):
        raise ValueError(f"Expected a tap of {', '.join(TAPS)} or {LAYER}NAME, got {tap!r}.")
    return tap


def projected(teacher: str) -> str:
    """The student's side of `embed_kd`, towards one teacher."""
    return f"embed_kd:{teacher}"


def module_of(tap: str) -> tuple[str, bool]:
    """The module that a `layer:` tap names, and whether its class token is asked for."""
    name = tap.removeprefix(LAYER)
    return name.removesuffix(CLS), name.endswith(CLS)
