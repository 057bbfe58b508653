"""A few numbers that tell a model from every other: cosines between embeddings of fixed images and captions.

Shapes and parameter counts do not tell GELU from QuickGELU, nor one training from another. These numbers do. As they go
through the model's own preprocessing and tokenizer, a wrong mean or a wrong vocabulary shows in them as well.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Len
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kd_distill.models import Clip, encode_text, load
from kd_distill.reading import checked, read_json
from kd_distill.text import Tokenize
from kd_distill.views import Preprocessing

FILE, SCHEMA = "reference.json", "kd-reference/1"
CAPTIONS = (
    "a photo of a dog asleep on a red sofa",
    "Two blue circles, and one SQUARE left_of them.",
    "a diagram of the water cycle",
    "the numbers " + " ".join(str(n) for n in range(100, 200)),  # longer than any context
)


def images() -> list[Image.Image]:
    """Four pictures in whole numbers, so that they are the same everywhere: a wash, a chequer, rings, grain."""
    y, x = np.mgrid[0:240, 0:320].astype(np.int64)
    grain = (x * 1103515245 + y * 69069 + x * y * 12345) >> 7
    channels = (
        (x * 255 // 319, y * 255 // 239, (x + y) * 255 // 558),
        ((x // 32 + y // 32) % 2 * 200 + 20, (x // 64) % 2 * 255, (y // 48) % 2 * 160),
        (((x - 160) ** 2 + (y - 120) ** 2) // 40 % 256, ((x - 90) ** 2 + (y - 60) ** 2) // 90 % 256, 0 * x + 90),
        (grain % 256, grain // 3 % 256, x * y // 50 % 256),
    )
    pictures = [Image.fromarray(np.stack(three, axis=2).astype(np.uint8)) for three in channels]
    return [*pictures[:2], *(picture.transpose(Image.Transpose.ROTATE_90) for picture in pictures[2:])]


def cosines(model: Clip, preprocessing: Preprocessing, tokenize: Tokenize) -> Float[Tensor, "8 8"]:
    """Cosines between the embeddings of the four images and the four captions, images first, in float32."""
    device = model.logit_scale.device
    pictures = images()
    with torch.inference_mode():
        pixels = preprocessing(pictures, [None] * len(pictures)).to(device)
        image = model.encode_image(preprocessing.normalise(pixels))
        text = encode_text(model, tokenize(list(CAPTIONS)).to(device))
    z = F.normalize(torch.cat([image, text]).float(), dim=-1)
    return (z @ z.T).cpu()


def write(model_folder: Path, file: Path) -> None:
    """Write the reference of the model in `model_folder`, which is taken to be right."""
    model, config, view = load(model_folder)
    numbers = cosines(model, view, Tokenize(config, model_folder)).tolist()
    content = {"schema": SCHEMA, "inputs": inputs_digest(), "cosines": [[round(c, 5) for c in row] for row in numbers]}
    file.write_text(json.dumps(content) + "\n")


def read(file: Path) -> Float[Tensor, "8 8"]:
    """The cosines of a reference file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is something else, or of other images and captions.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected a reference at {file}, found none; `distill doctor --write-reference` makes it."
        )
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"{file}: expected a reference of schema {SCHEMA}, got {str(content)!r:.60}.")
    if content.get("inputs") != inputs_digest():
        raise ValueError(
            f"{file} is of other images and captions (digest {content.get('inputs')!r:.40}, here {inputs_digest()}): "
            "another version of this package wrote it. Write it again from a model that is known to be right."
        )
    row = Annotated[list[float], Len(8, 8)]
    return torch.tensor(checked(Annotated[list[row], Len(8, 8)], content.get("cosines"), f"{file}, cosines"))


def inputs_digest() -> str:
    """What tells other images and captions from these."""
    whole = hashlib.sha256("\n".join(CAPTIONS).encode())
    for picture in images():
        whole.update(picture.tobytes())
    return whole.hexdigest()[:16]
