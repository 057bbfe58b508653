"""Public formats that the stages read: webdataset shards of pairs, classification sets, conversations."""

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

SHARD = 1000


def png(image: Image.Image) -> bytes:
    """The image without loss."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def write_pairs(folder: Path, pairs: Iterable[tuple[bytes, str, str]]) -> int:
    """Shards as img2dataset writes them: `<key>.<suffix>`, `<key>.txt`, `<key>.json`. Returns how many pairs.

    Args:
        folder: Where `00000.tar` and so on go.
        pairs: (image bytes, suffix of their format, caption), in the order of their keys.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n, tar = 0, None
    for image, suffix, caption in pairs:
        if n % SHARD == 0:
            if tar:
                tar.close()
            tar = tarfile.open(folder / f"{n // SHARD:05d}.tar", "w")  # noqa: SIM115  closed when the next one begins
        key = f"{n // SHARD:05d}{n % SHARD:04d}"
        described = json.dumps({"key": key, "caption": caption, "status": "success"})
        assert tar is not None  # noqa: S101  n is 0 at first
        for name, content in ((suffix, image), ("txt", caption.encode()), ("json", described.encode())):
            add(tar, f"{key}.{name}", content)
        n += 1
    if tar:
        tar.close()
    return n


def write_classification(
    folder: Path, names: Sequence[str], template: str, images: Iterable[tuple[bytes, int]]
) -> None:
    """A zero-shot set in CLIP_benchmark's webdataset layout: one shard of PNG images, each with its class's number."""
    (folder / "test").mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(names) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text(template + "\n")
    (folder / "test" / "nshards.txt").write_text("1\n")
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for number, (image, label) in enumerate(images):
            add(tar, f"s{number:07d}.cls", str(label).encode())
            add(tar, f"s{number:07d}.png", image)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """One member; its time is zero, so that equal content makes an equal file."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def conversation(name: str, image: str, *turns: tuple[str, str]) -> dict[str, Any]:
    """One sample in LLaVA's format; the picture stands before the first question."""
    messages = []
    for number, (question, answer) in enumerate(turns):
        messages.append({"from": "human", "value": f"<image>\n{question}" if number == 0 else question})
        messages.append({"from": "gpt", "value": answer})
    return {"id": name, "image": image, "conversations": messages}


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON; folders above are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
