"""A trained VLM as a folder for others: stock or in transformers 4.57's form, adapters merged, with a model card."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from kd_vlm import card
from kd_vlm.adapters import merge_adapter
from kd_vlm.assembly import assemble, save_vlm
from kd_vlm.durable import whole_folder
from kd_vlm.encoder import load_encoder
from kd_vlm.legacy import Stock, write_legacy
from kd_vlm.reading import checked, read_json

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
    checked(Stock, read_json(source / "config.json"), f"{source / 'config.json'}, which should be a stock VLM's")
    _refuse_existing(out)
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


def write_assembled(
    encoder: Path, lm: Path, out: Path, feature: Mapping[str, Any], parts: Mapping[str, Any], seed: int
) -> Path:
    """Write an untrained VLM to the new folder `out`.

    Args:
        encoder: An open_clip folder.
        lm: A causal language model.
        out: Must not exist.
        feature: Arguments of `load_encoder`.
        parts: Arguments of `assemble`.
        seed: Of the connector's weights.

    Raises:
        ValueError: If `out` exists, or the parts do not fit each other.
    """
    _refuse_existing(out)
    vlm = assemble(load_encoder(encoder, **feature), lm, torch.Generator().manual_seed(seed), **parts)
    with whole_folder(out) as folder:
        save_vlm(vlm, folder)
    return out


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise ValueError(f"{out} exists already; name a new folder, or remove that one.")
