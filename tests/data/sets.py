"""Small data sets in the layouts of the real ones."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from pipeline.data.spec import DataFile

JPEG = io.BytesIO()
Image.new("RGB", (8, 8), (200, 30, 30)).save(JPEG, "JPEG")
PICTURE = JPEG.getvalue()


def spec_of(home: Path, kind: str, *, folder: str = "set", at: Path | None = None, **holds) -> DataFile:
    sources = [{"hand": "Ask for it."}]
    one = {"folder": folder, "what": "", "licence": "", "sources": sources, "holds": {"kind": kind, **holds}, "at": at}
    return DataFile(root=home / "datasets", manifests=home / "manifests", datasets={"set": one})


def shard(file: Path, pairs: int, *, captions: int | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for key in range(pairs):
            for suffix, content in (("jpg", PICTURE), ("txt", b"a caption"), ("json", b"{}")):
                if suffix != "txt" or captions is None or key < captions:
                    info = tarfile.TarInfo(f"{key:09}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def conversations(folder: Path, pictures: int, text_only: int = 0) -> None:
    rows = [{"id": n, "image": f"00{n % 3}/{n}.jpg", "conversations": talk(f"What {n} is")} for n in range(pictures)]
    rows += [{"id": f"text-{n}", "conversations": talk("words")} for n in range(text_only)]
    for row in rows[:pictures]:
        file = folder / "images" / row["image"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PICTURE)
    (folder / "talk.json").write_text(json.dumps(rows))


def talk(reply: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": "<image>\nSay."}, {"from": "gpt", "value": reply}]
