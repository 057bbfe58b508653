"""A language model of params.yaml, from lines of text to a finished model folder; killed, it goes on where it was."""

import shutil
from pathlib import Path

import numpy as np
import torch

from kd_vlm import __version__, tracking
from kd_vlm.checkpoint import Checkpoints
from kd_vlm.config import LanguageModel
from kd_vlm.durable import whole_folder
from kd_vlm.journal import Journal
from kd_vlm.lm import build_model, fit_lm, held_out_lm, packing_plan, read_text, repeated, tokenise, train_tokenizer
from kd_vlm.names import lm_name
from kd_vlm.workspace import console, file_digest, flat, key_of, millions, on_step, progress

_SHAPE = {"width", "layers", "heads", "kv_heads", "mlp_width", "max_positions"}
_FIT = {"context", "batch_size", "epochs", "lr", "answer_weight", "seed"}
_OPTIM = {"warmup_share", "weight_decay", "clip", "beta2", "precision"}


def run_lm(name: str, lm: LanguageModel, text: Path, *, out: Path, runs: Path, save_every: int) -> Path:
    """Train the language model `lm` on `text` and write it to `out`, the registered name being `lm-<name>`."""
    registered = lm_name(name)
    texts = read_text(text)
    if len(texts) <= lm.held_out:
        raise ValueError(f"{text} has {len(texts)} lines, held_out takes {lm.held_out} of them.")
    data = {"name": "text", "digest": file_digest([text]), "path": str(text)}
    scratch = runs / f"{registered}-{key_of(lm.model_dump(mode='json'), data['digest'], __version__)[:12]}"
    tokenizer = train_tokenizer(texts[: -lm.held_out], lm.vocab_size, lm.phrases)
    model = build_model(tokenizer, **lm.model_dump(include=_SHAPE), generator=torch.Generator().manual_seed(lm.seed))
    documents = tokenise(tokenizer, texts[: -lm.held_out], lm.context)
    documents = repeated(documents, lm.repeat_share, lm.context, np.random.default_rng([lm.seed, 1]))
    checkpoint = scratch / "lm"
    done = Checkpoints(checkpoint).newest() or 0
    journal = Journal.open(
        scratch / tracking.JOURNAL,
        experiment="vlm",
        name=registered,
        params={"kind": "lm", "name": registered, **flat(lm.model_dump(mode="json"))},
        tags={"kd.kind": "lm"},
        datasets=[data],
        resume_step=done,
    )
    n_steps = len(packing_plan([len(d.ids) for d in documents], lm.context, lm.batch_size, lm.epochs, lm.seed))
    with progress() as bars:
        fit_lm(
            model,
            documents,
            **lm.model_dump(include=_FIT | _OPTIM),
            checkpoint=checkpoint,
            save_every=save_every,
            on_step=on_step(journal, bars, registered, n_steps, 0, done=done),
        )
    scores = held_out_lm(model, tokenise(tokenizer, texts[-lm.held_out :], lm.context), lm.context, lm.batch_size)
    journal.metrics(n_steps, {f"val/{key}": value for key, value in scores.items()})
    console.print(f"{registered}: held out " + ", ".join(f"{key} {value:.3f}" for key, value in scores.items()))
    tags = {"kd.arch": "qwen2", "kd.data": "text", "kd.seed": str(lm.seed), "kd.width": str(lm.width)}
    with whole_folder(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        journal.finish(kind="lm", name=registered, tags={**tags, "kd.params_m": millions(model)}, folder=folder)
        shutil.copy(journal.path, folder / tracking.JOURNAL)
    shutil.rmtree(scratch)
    return out
