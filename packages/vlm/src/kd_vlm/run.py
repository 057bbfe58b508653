"""A cell of params.yaml, from its inputs to a finished model folder. A run that is killed goes on where it was."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_vlm import __version__, tracking
from kd_vlm.assembly import Vlm, assemble, save_vlm, standardise_input
from kd_vlm.checkpoint import Checkpoints
from kd_vlm.config import Corpus as CorpusParams
from kd_vlm.config import Data, LanguageModel, Recipe, Stage
from kd_vlm.corpus import Corpus, prepare
from kd_vlm.data import Sample, distinct_images, read_conversations
from kd_vlm.encoder import Encoder, load_encoder
from kd_vlm.evaluate import held_out
from kd_vlm.features import FeatureCache, cache_features
from kd_vlm.journal import Journal
from kd_vlm.lm import build_model, fit_lm, held_out_lm, packing_plan, read_text, repeated, tokenise, train_tokenizer
from kd_vlm.names import lm_name, vlm_name
from kd_vlm.pictures import image_path
from kd_vlm.sampling import batch_plan
from kd_vlm.templates import IMAGE
from kd_vlm.train import fit_stage
from kd_vlm.workspace import console, file_digest, flat, key_of, new_folder, on_step, progress

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
    journal.finish(kind="lm", name=registered, tags={**tags, "kd.params_m": _millions(model)})
    with new_folder(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        shutil.copy(journal.path, folder / tracking.JOURNAL)
    shutil.rmtree(scratch)
    return out


def run_vlm(
    cell_name: str,
    encoder: tracking.Model,
    lm: tracking.Model,
    recipe_name: str,
    recipe: Recipe,
    data: Data,
    *,
    seed: int,
    out: Path,
    runs: Path,
    save_every: int,
    cache_limit: int,
) -> Path:
    """Train one VLM and write its stock checkpoint to `out`."""
    registered = vlm_name(encoder.name, lm.name, recipe_name)
    tower = load_encoder(encoder.path)
    vlm = assemble(tower, lm.path, torch.Generator().manual_seed(seed))
    pretrain, finetune, test, blind = _corpora(vlm, recipe, data)
    inputs = [_dataset("pretrain", data.pretrain, pretrain), _dataset("finetune", data.finetune, finetune, test)]
    digests = [encoder.sha256, lm.sha256, *(d["digest"] for d in inputs)]
    scratch = runs / f"{cell_name}-{key_of(digests, recipe.model_dump(mode='json'), seed, __version__)[:12]}"
    paths = list(dict.fromkeys(p for c in (pretrain, finetune, test) for sample in c.pictures for p in sample))
    plan = {
        "pretrain": (pretrain, recipe.pretrain, _n_steps(pretrain, recipe.pretrain, seed)),
        "finetune": (finetune, recipe.finetune, _n_steps(finetune, recipe.finetune, seed)),
    }
    done = {stage: Checkpoints(scratch / stage).newest() or 0 for stage in plan}
    journal = Journal.open(
        scratch / tracking.JOURNAL,
        experiment="vlm",
        name=registered,
        params={
            **{"kind": "vlm", "name": registered, "encoder": encoder.name, "lm": lm.name, "recipe": recipe_name},
            **{"seed": seed, **flat(recipe.model_dump(mode="json"))},
        },
        tags={"kd.kind": "vlm"},
        datasets=inputs,
        models=[encoder.ref, lm.ref],
        resume_step=sum(done.values()),
    )
    features = _features(vlm, tower, paths, recipe, root=runs / "vision", memory_limit=cache_limit)
    first = _fit_stages(vlm, plan, features, journal, scratch, seed=seed, save_every=save_every, done=done)
    scores = _scores(vlm, test, blind, features)
    scores["supervised_share"] = finetune.supervised_share
    journal.metrics(first, {f"val/{key}": value for key, value in scores.items()})
    console.print(f"{registered}: held out " + ", ".join(f"{key} {value:.3f}" for key, value in scores.items()))
    journal.finish(kind="vlm", name=registered, tags=_tags(vlm, encoder, lm, recipe_name, seed))
    with new_folder(out) as folder:
        save_vlm(vlm, folder)
        shutil.copy(journal.path, folder / tracking.JOURNAL)
    shutil.rmtree(scratch)
    return out


def _features(
    vlm: Vlm, tower: Encoder, paths: Sequence[Path], recipe: Recipe, *, root: Path, memory_limit: int
) -> FeatureCache:
    """The visual tokens of all pictures; the projector begins by standardising them where the recipe says so."""
    with progress() as bars:
        bar = bars.add_task("features", total=len(paths), note="")
        features = cache_features(
            tower, paths, root=root, memory_limit=memory_limit, on_batch=lambda n: bars.update(bar, advance=n)
        )
    if recipe.standardise:
        standardise_input(vlm, features.sample())
    return features


def _fit_stages(
    vlm: Vlm,
    plan: Mapping[str, tuple[Corpus, Stage, int]],
    features: FeatureCache,
    journal: Journal,
    scratch: Path,
    *,
    seed: int,
    save_every: int,
    done: Mapping[str, int],
) -> int:
    """Train the stages of `plan` one after the other and return the number of steps in all."""
    first = 0
    with progress() as bars:
        for stage, (corpus, options, n_steps) in plan.items():
            fit_stage(
                vlm,
                corpus,
                features,
                **options.model_dump(exclude={"template"}),
                seed=seed,
                checkpoint=scratch / stage,
                save_every=save_every,
                on_step=on_step(journal, bars, f"{journal.start['name']} {stage}", n_steps, first, done=done[stage]),
            )
            first += n_steps
    return first


def _corpora(vlm: Vlm, recipe: Recipe, data: Data) -> tuple[Corpus, Corpus, Corpus, Corpus]:
    """Pretrain, finetune, the held-out conversations, and those with their pictures taken away."""
    share = recipe.least_supervised_share
    captions = read_conversations(data.pretrain.file)
    dialogues = read_conversations(data.finetune.file)
    if len(dialogues) <= recipe.held_out:
        raise ValueError(f"{data.finetune.file} has {len(dialogues)} samples, held_out takes {recipe.held_out}.")
    train, test = dialogues[: -recipe.held_out], [s for s in dialogues[-recipe.held_out :] if s.images]
    first, second = recipe.pretrain.template, recipe.finetune.template
    return (
        prepare(vlm, captions, data.pretrain.images, template=first, least_supervised_share=share),
        prepare(vlm, train, data.finetune.images, template=second, least_supervised_share=share),
        prepare(vlm, test, data.finetune.images, template=second, least_supervised_share=share),
        prepare(
            vlm, [without_images(s) for s in test], data.finetune.images, template=second, least_supervised_share=share
        ),
    )


def without_images(sample: Sample) -> Sample:
    """The same conversation for a blind reader."""
    turns = tuple(replace(turn, question=turn.question.replace(IMAGE, "").strip()) for turn in sample.turns)
    return replace(sample, images=(), turns=turns)


def _scores(vlm: Vlm, test: Corpus, blind: Corpus, features: FeatureCache) -> dict[str, float]:
    seen, unseen = held_out(vlm, test, features), held_out(vlm, blind, features)
    return {"loss": seen.loss, "answer_accuracy": seen.accuracy, "blind_answer_accuracy": unseen.accuracy}


def _dataset(name: str, params: CorpusParams, *parts: Corpus) -> dict[str, str]:
    """Name, place and digest of a conversation file with all its pictures."""
    images = distinct_images(sample for part in parts for sample in part.samples)
    return {
        "name": name,
        "digest": file_digest([params.file, *(image_path(params.images, image) for image in images)]),
        "path": str(params.file),
    }


def _n_steps(corpus: Corpus, stage: Any, seed: int) -> int:
    return len(batch_plan(corpus.lengths, stage.batch_size, stage.epochs, seed))


def _tags(vlm: Vlm, encoder: tracking.Model, lm: tracking.Model, recipe: str, seed: int) -> dict[str, str]:
    return {
        "kd.arch": type(vlm.model).__name__,
        "kd.encoder": encoder.name,
        "kd.lm": lm.name,
        "kd.recipe": recipe,
        "kd.data": "llava",
        "kd.seed": str(seed),
        "kd.params_m": _millions(vlm.model),
        "kd.width": str(vlm.text_config.hidden_size),
        "kd.tokens": str(vlm.tokens_per_image),
    }


def _millions(model: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}"
