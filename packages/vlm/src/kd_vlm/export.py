"""A trained VLM as a folder for others: stock or in transformers 4.57's form, adapters merged, with a model card."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

from kd_vlm import card
from kd_vlm.adapters import merge_adapter
from kd_vlm.assembly import save_vlm
from kd_vlm.durable import whole_folder
from kd_vlm.legacy import write_legacy

Form = Literal["stock", "legacy"]
_SUFFIXES = {".json", ".safetensors", ".jinja", ".txt", ".model"}  # no code, no pickle, no journal


def export(
    source: Path, out: Path, *, name: str, form: Form = "stock", adapter: Path | None = None, scores: Path | None = None
) -> Path:
    """Write the VLM in `source` to the new folder `out`, whole or not at all.

    The folder is deterministic: the same model, adapter and scores give the same bytes.

    Args:
        source: A stock VLM, as `vlm run` writes it.
        out: Must not exist.
        name: For the card, where no journal gives the registered one.
        form: `legacy` loads with transformers 4.57 and vLLM's CLIP tower too.
        adapter: A PEFT adapter of `source` to merge.
        scores: `scores.json` of an evaluation, for the card.

    Raises:
        FileNotFoundError: If `source` is no stock VLM or `adapter` no adapter.
        ValueError: If `out` exists, or the model has no legacy form.
    """
    if not (source / "config.json").is_file():
        raise FileNotFoundError(f"Expected a stock VLM (config.json, safetensors, processor) in {source}, found none.")
    if out.exists():
        raise ValueError(f"{out} exists already; name a new folder, or remove that one.")
    rows = card.read_scores(scores) if scores else []
    facts = card.read_facts(source, name)
    with tempfile.TemporaryDirectory() as scratch, whole_folder(out) as folder:
        if adapter is not None:
            save_vlm(merge_adapter(source, adapter), Path(scratch))
        stock = source if adapter is None else Path(scratch)
        if form == "legacy":
            write_legacy(stock, folder)
        else:
            for file in (f for f in sorted(stock.iterdir()) if f.suffix in _SUFFIXES):
                shutil.copyfile(file, folder / file.name)
        (folder / card.NAME).write_text(card.card(folder, facts, form=form, scores=rows), encoding="utf-8")
    return out
