"""open_clip encoders, each read at its taps in one forward."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn

from kd_analysis.folders import config_of
from kd_analysis.heads import Head, read_heads
from kd_analysis.taps import CLS, GRID, LAYER, OF_CLIP, module_of, projected

WEIGHTS = "open_clip_model.safetensors"

# ---------------------------------------------------------------- one forward


@dataclass
class Recorder:
    """Outputs of modules during one forward."""

    root: nn.Module
    names: Collection[str]
    outputs: dict[str, Tensor] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)

    def __enter__(self) -> "Recorder":
        for name in dict.fromkeys(self.names):
            try:
                module = self.root.get_submodule(name)
            except AttributeError:
                known = ", ".join(n for n, _ in self.root.named_children())
                raise ValueError(f"Expected a module of this encoder, got {name!r}; it begins with {known}.") from None
            self.handles.append(module.register_forward_hook(self._taker(name)))
        return self

    def _taker(self, name: str) -> Callable[..., None]:
        def take(module: nn.Module, given: Any, out: Any) -> None:
            self.outputs[name] = out[0] if isinstance(out, tuple) else out

        return take

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def as_tokens(out: Tensor, images: int, prefix: int, channels_last: bool, name: str) -> Float[Tensor, "b t d"]:
    """A module's output as tokens of places; class tokens, `prefix` of them in front, are left out.

    Raises:
        ValueError: If the output has no place for each image.
    """
    if out.ndim == 2 and len(out) == images:
        return out[:, None]
    if out.ndim == 3 and len(out) == images:
        return out[:, prefix:] if out.shape[1] > prefix else out
    if out.ndim == 4 and len(out) == images:
        return out.flatten(1, 2) if channels_last else out.flatten(2).transpose(1, 2)
    raise ValueError(f"{name}: expected an output for each of {images} images, got shape {tuple(out.shape)}.")


def cells(tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b c d"]:
    """The tokens of a square grid averaged in `GRID` x `GRID` cells (every token, where there are fewer).

    Raises:
        ValueError: If they do not stand in a square.
    """
    edge = round(tokens.shape[1] ** 0.5)
    if edge * edge != tokens.shape[1]:
        raise ValueError(f"Expected tokens of a square grid, got {tokens.shape[1]}.")
    if edge <= GRID:
        return tokens
    grid = tokens.transpose(1, 2).unflatten(2, (edge, edge))
    return nn.functional.adaptive_avg_pool2d(grid, GRID).flatten(2).transpose(1, 2)


# ---------------------------------------------------------------- the families


@dataclass(frozen=True)
class Family:
    """How a tower is read: its forward, its layers in order, the module whose patches a VLM reads, class tokens."""

    forward: Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor | None]]  # pooled, embedded, last map
    layers: Callable[[Any], list[str]]
    patches: Callable[[Any], str | None]
    prefix: Callable[[Any], int]
    channels_last: Callable[[Any], bool]


def _vit(visual: Any, images: Tensor) -> tuple[Tensor, Tensor, None]:
    """The class token (or pooled tokens) after the last norm, and its projection."""
    projection, visual.proj = visual.proj, None
    try:
        out = visual(images)
    finally:
        visual.proj = projection
    pooled = out[0] if isinstance(out, tuple) else out
    return pooled, pooled if projection is None else pooled @ projection, None


def _timm(visual: Any, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the trunk pools, what its classifier and open_clip's head make of it, and its last map."""
    features = visual.trunk.forward_features(images)
    if "pool" in visual.head._modules:  # attention pooling stands in the head, then
        pooled = visual.head.pool(features)
        return pooled, visual.head[1:](pooled), features
    pooled = visual.trunk.forward_head(features, pre_logits=True)
    return pooled, visual.head(visual.trunk.forward_head(features)), features


def _blocks(visual: Any) -> list[str]:
    return [f"transformer.resblocks.{i}" for i in range(len(visual.transformer.resblocks))]


def _timm_layers(visual: Any) -> list[str]:
    """Timm's feature modules; a stage that holds blocks gives its blocks."""
    found = []
    for info in visual.trunk.feature_info:
        name = f"trunk.{info['module']}"
        blocks = getattr(visual.get_submodule(name), "blocks", None)
        found += [f"{name}.blocks.{i}" for i in range(len(blocks))] if blocks is not None else [name]
    return found


def _timm_patches(visual: Any) -> str | None:
    """A plain ViT's penultimate block; None for a trunk of stages, whose last map is read."""
    blocks = getattr(visual.trunk, "blocks", None)
    plain = hasattr(visual.trunk, "num_prefix_tokens") and blocks is not None
    return f"trunk.blocks.{len(blocks) - 2}" if plain and blocks is not None and len(blocks) > 1 else None


FAMILIES: Mapping[type[nn.Module], Family] = {
    VisionTransformer: Family(
        _vit,
        _blocks,
        lambda v: f"transformer.resblocks.{len(v.transformer.resblocks) - 2}",
        lambda v: 1,
        lambda v: False,
    ),
    TimmModel: Family(
        _timm,
        _timm_layers,
        _timm_patches,
        lambda v: int(getattr(v.trunk, "num_prefix_tokens", None) or 0),
        lambda v: getattr(v.trunk, "output_fmt", "NCHW") == "NHWC",
    ),
}


# ---------------------------------------------------------------- the encoder


@dataclass(frozen=True)
class ClipEncoder:
    """The vision side of a CLIP model.

    Attributes:
        visual: open_clip's vision tower, in eval mode.
        preprocess: Its own preprocessing, as open_clip recorded it.
        heads: Of its distillation, by teacher.
    """

    visual: Any
    preprocess: PreprocessCfg
    heads: Mapping[str, Head] = field(default_factory=dict)

    @property
    def look(self) -> str:
        """What the prepared image depends on."""
        return repr(self.preprocess)

    def prepare(self) -> Callable[[Image.Image], Tensor]:
        transform: Callable[[Image.Image], Tensor] = image_transform_v2(self.preprocess, is_train=False)
        return transform

    def to(self, device: str) -> None:
        self.visual.to(device)

    def layers(self) -> list[str]:
        """Modules from the first to the last, for a map of layers."""
        return self._family.layers(self.visual)

    @property
    def _family(self) -> Family:
        if type(self.visual) not in FAMILIES:
            known = ", ".join(tower.__name__ for tower in FAMILIES)
            raise ValueError(f"Expected a vision tower of {known}, got {type(self.visual).__name__}.")
        return FAMILIES[type(self.visual)]

    def read(self, images: Float[Tensor, "b 3 h w"], taps: Collection[str]) -> dict[str, Tensor]:
        """The features of prepared images: (b, d), or (b, cells, d) at `patch_tokens`.

        Raises:
            ValueError: For a tap that this encoder does not have.
        """
        family, patches = self._family, self._family.patches(self.visual)
        modules = {tap: module_of(tap)[0] for tap in taps if tap.startswith(LAYER)}
        names = [*modules.values(), *([patches] if patches and any(t.startswith("patch_") for t in taps) else [])]
        with Recorder(self.visual, names) as seen:
            pooled, embedded, last = family.forward(self.visual, images)
        prefix, channels_last = family.prefix(self.visual), family.channels_last(self.visual)

        def tokens(name: str | None) -> Tensor:
            out = seen.outputs[name] if name else last
            if out is None:
                raise ValueError("Expected a tower of at least two blocks for its patches.")
            return as_tokens(out, len(images), prefix, channels_last, name or "the last map")

        found = {}
        for tap in taps:
            if tap == "pooled":
                found[tap] = pooled
            elif tap == "embed":
                found[tap] = nn.functional.normalize(embedded, dim=-1)
            elif tap in ("patch_mean", "patch_tokens"):
                found[tap] = tokens(patches).mean(dim=1) if tap == "patch_mean" else cells(tokens(patches))
            elif tap in modules and tap.endswith(CLS):
                found[tap] = self._class_token(seen.outputs[modules[tap]], prefix, tap)
            elif tap in modules:
                found[tap] = tokens(modules[tap]).mean(dim=1)
            else:
                found[tap] = self._through_head(embedded, tap)
        return found

    def _through_head(self, embedded: Tensor, tap: str) -> Tensor:
        head = {projected(teacher): head for teacher, head in self.heads.items()}.get(tap)
        if head is None:
            raise ValueError(f"Expected a tap of {', '.join(OF_CLIP)}, layer:NAME or a head that it has, got {tap!r}.")
        weight, bias = (torch.from_numpy(z).to(embedded) for z in (head.weight, head.bias))
        return nn.functional.normalize(embedded @ weight.T + bias, dim=-1)

    @staticmethod
    def _class_token(out: Tensor, prefix: int, tap: str) -> Tensor:
        if out.ndim != 3 or not prefix:
            raise ValueError(f"{tap}: expected tokens with a class token in front, got shape {tuple(out.shape)}.")
        return out[:, 0]


def load(folder: Path, heads: Path | None = None) -> ClipEncoder:
    """The encoder of an open_clip `local-dir` folder, with its weights.

    Args:
        folder: The model.
        heads: Where its heads are, if not in the folder; see `heads.read_heads`.
    """
    _refuse_downloads(folder)
    if not (folder / WEIGHTS).is_file():  # open_clip would take a pickle
        raise FileNotFoundError(f"Expected an open_clip model folder at {folder}, found no {WEIGHTS} in it.")
    return _encoder(open_clip.create_model(f"local-dir:{folder}", device="cpu"), read_heads(heads or folder))


def untrained(folder: Path, seed: int) -> ClipEncoder:
    """The same architecture with fresh weights. Initialisation reads torch's global generator, so that is forked."""
    _refuse_downloads(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251
        return _encoder(open_clip.create_model(f"local-dir:{folder}", load_weights=False, device="cpu"), {})


def _refuse_downloads(folder: Path) -> None:
    """Stop at a config that would fetch something from a hub."""
    config = config_of(folder).get("model_cfg", {})
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if vision.get("timm_model_pretrained") or "hf-hub:" in str(vision.get("timm_model_name")):
        raise ValueError(f"{folder}: its vision_cfg would download weights; expected a self-contained model.")
    if text.get("hf_model_name"):
        raise ValueError(f"{folder}: its text_cfg names the hub model {text['hf_model_name']!r}; expected none.")


def _encoder(model: Any, heads: Mapping[str, Head]) -> ClipEncoder:
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # convolutions take half the time
    return ClipEncoder(model.visual, PreprocessCfg(**model.visual.preprocess_cfg), heads)
