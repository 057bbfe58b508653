"""A small CLIP that was trained on product photos (rohitkuk/MIRA, Apache-2.0), written anew from its description.

Its blocks are unusual: x = x + MLP(LN2(Wo MHA(LN1 x))), so the attention has no residual of its own. The image tower
sees 80 x 80 pixels in patches of 5, the text tower 32 bytes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

SIDE, PATCH, CONTEXT = 80, 5, 32
START, END = b"\x02", b"\x03"
LOG_SCALE = 2.9087
SCALE = math.exp(LOG_SCALE)
Weights = Mapping[str, Tensor]


def load(file: Path) -> dict[str, Tensor]:
    """The weights; no code in the file is run."""
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def square(image: Image.Image) -> Image.Image:
    """RGB, resized to fit 80 x 80 and padded with black in the middle."""
    image = image.convert("RGB")
    ratio = SIDE / max(image.size)
    if ratio != 1:
        image = image.resize((max(1, round(image.width * ratio)), max(1, round(image.height * ratio))))
    canvas = Image.new("RGB", (SIDE, SIDE))
    canvas.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return canvas


def pixels(images: Sequence[Image.Image]) -> Float[Tensor, "b 3 80 80"]:
    """Squares as values in [0, 1], without mean and deviation."""
    raw = b"".join(square(image).tobytes() for image in images)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2) / 255


def tokens(texts: Sequence[str]) -> Int[Tensor, "b 32"]:
    """Bytes between a start and an end byte, padded with zeros; what does not fit is cut."""
    rows = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        content = START + text.encode()[: CONTEXT - 2] + END
        row[: len(content)] = torch.tensor(list(content))
    return rows


@torch.inference_mode()
def encode_images(weights: Weights, images: Sequence[Image.Image], batch: int = 100) -> Float[Tensor, "n 128"]:
    """Unit embeddings of whole images."""
    w = _part(weights, "vision_encoder.")
    parts = []
    for start in range(0, len(images), batch):
        x = pixels(images[start : start + batch])
        x = F.conv2d(x, w["linear_proj.weight"], w["linear_proj.bias"], stride=PATCH).flatten(2).transpose(1, 2)
        x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], dim=1) + w["positional_embeddings.pe"]
        parts.append(F.normalize(_blocks(w, x)[:, 0] @ w["projection"], dim=-1))
    return torch.cat(parts)


@torch.inference_mode()
def encode_texts(weights: Weights, texts: Sequence[str]) -> Float[Tensor, "n 128"]:
    """Unit embeddings of texts."""
    w = _part(weights, "text_encoder.")
    ids = tokens(texts)
    x = _blocks(w, w["embed.weight"][ids] + w["positional_embeddings.pe"][:, :CONTEXT])
    last = (ids != 0).sum(dim=1) - 1
    return F.normalize(x[torch.arange(len(x)), last] @ w["projection"], dim=-1)


def _part(weights: Weights, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _blocks(w: Weights, x: Tensor) -> Tensor:
    """All transformer blocks on (b, t, d)."""
    n_blocks = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("transformer_encoder."))
    for i in range(n_blocks):
        b = _part(w, f"transformer_encoder.{i}.")
        h = _attention(b, _norm(b, "ln1", x))
        h = F.linear(_norm(b, "ln2", h), b["mlp.0.weight"], b["mlp.0.bias"])
        x = x + F.linear(F.gelu(h), b["mlp.2.weight"], b["mlp.2.bias"])
    return x


def _norm(b: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], b[f"{name}.weight"], b[f"{name}.bias"])


def _attention(b: Weights, x: Tensor) -> Tensor:
    """Every position sees every other; padding too, as when it was trained."""
    n_heads = 1 + max(int(name.split(".")[2]) for name in b if name.startswith("mha.multi_head."))

    def heads(kind: str) -> Tensor:
        weight = torch.cat([b[f"mha.multi_head.{h}.{kind}.weight"] for h in range(n_heads)])
        bias = torch.cat([b[f"mha.multi_head.{h}.{kind}.bias"] for h in range(n_heads)])
        return F.linear(x, weight, bias).unflatten(-1, (n_heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(heads("query"), heads("key"), heads("value"))
    return F.linear(out.transpose(1, 2).flatten(2), b["mha.W_o.weight"], b["mha.W_o.bias"])
