"""A VLM's folder that no training here wrote (an export, a download) gets a journal, so that it can be registered."""

import json
import re
from pathlib import Path

from kd_vlm.journal import Journal
from kd_vlm.tracking import JOURNAL, digest

NAME = re.compile(r"vlm-[A-Za-z0-9_-]+")


def adopt(folder: Path, name: str) -> None:
    """Write the journal of `folder`, which has none: what it is, and nothing about a training.

    The journal does not count for the folder's digest; an export stays the export.

    Raises:
        FileNotFoundError: If there is no stock VLM in it.
        ValueError: If the name is not one of a VLM.
    """
    config, weights = folder / "config.json", sorted(folder.glob("*.safetensors"))
    said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if not weights or "vision_config" not in said:
        raise FileNotFoundError(
            f"Expected what `vlm run`, `vlm lm` or `vlm export` wrote in {folder}: found no {JOURNAL} and no stock VLM."
        )
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{folder} has no journal, and {name!r} is no name of a VLM; give --name vlm-<encoder>--<lm>--<recipe>."
        )
    architecture = str(next(iter(said.get("architectures") or ["unknown"])))
    params = {"kind": "vlm", "name": name, "exported_sha256": digest(folder)}
    journal = Journal.open(folder / JOURNAL, experiment="vlm", name=name, params=params, tags={"kd.kind": "vlm"})
    journal.finish(kind="vlm", name=name, tags={"kd.arch": architecture, "kd.data": "unknown"})
