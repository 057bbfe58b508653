"""The two stages of a VLM: the projector alone, then projector and language model. The tower stays frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kd_vlm.assembly import Vlm
from kd_vlm.batch import collate, loss_sum, normalised, supervised_logits
from kd_vlm.data import Sample, check_supervision
from kd_vlm.features import FeatureCache
from kd_vlm.loop import Group, Step, fit
from kd_vlm.pictures import image_path
from kd_vlm.sampling import batch_plan
from kd_vlm.templates import Encoded, encode, template_named


@dataclass(frozen=True)
class Corpus:
    """Conversations, tokenised, and the files of their pictures."""

    samples: tuple[Sample, ...]
    encoded: tuple[Encoded, ...]
    pictures: tuple[tuple[Path, ...], ...]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def lengths(self) -> list[int]:
        return [len(e.ids) for e in self.encoded]

    @property
    def supervised_share(self) -> float:
        return sum(e.n_supervised for e in self.encoded) / max(sum(self.lengths), 1)


def prepare(
    vlm: Vlm, samples: Sequence[Sample], images: Path, *, template: str, least_supervised_share: float
) -> Corpus:
    """Tokenise `samples` and find their pictures below `images`.

    Raises:
        ValueError: If a sample has no supervised token, too few have, or a path leaves the folder.
        FileNotFoundError: If a picture is missing.
    """
    write = template_named(template, vlm.processor.tokenizer)
    segments = [write(sample.turns) for sample in samples]
    encoded = encode(segments, vlm.processor.tokenizer, image_id=vlm.image_id, tokens_per_image=vlm.tokens_per_image)
    check_supervision(samples, encoded, least_share=least_supervised_share)
    limit = vlm.text_config.max_position_embeddings
    if too_long := [s.id for s, e in zip(samples, encoded, strict=True) if len(e.ids) > limit]:
        raise ValueError(
            f"{len(too_long)} samples are longer than the language model's {limit} positions: {too_long[:5]}."
        )
    pictures = tuple(tuple(image_path(images, name) for name in sample.images) for sample in samples)
    return Corpus(tuple(samples), tuple(encoded), pictures)


def fit_stage(
    vlm: Vlm,
    corpus: Corpus,
    features: FeatureCache,
    *,
    batch_size: int,
    epochs: float,
    projector_lr: float,
    language_model_lr: float | None,
    warmup_share: float,
    weight_decay: float,
    clip: float,
    beta2: float,
    precision: str,
    seed: int,
    checkpoint: Path,
    save_every: int,
    on_step: Callable[[Step], None],
) -> int:
    """Train one stage to its end, from `checkpoint` where there is one; returns the number of its steps.

    Args:
        vlm: Trained in place.
        corpus: What is trained on.
        features: The tower's output for its pictures.
        language_model_lr: None keeps the language model frozen.
        seed: Of the order of the data; the order is a function of (seed, epoch, position).
        checkpoint: See `loop.fit`; so are the other arguments.
    """
    plan = batch_plan(corpus.lengths, batch_size, epochs, seed)
    set_trainable(vlm, language_model=language_model_lr is not None)
    fit(
        parameter_groups(vlm, projector_lr, language_model_lr),
        plan,
        lambda indices: batch_loss(vlm, corpus, features, indices, precision),
        checkpoint=checkpoint,
        save_every=save_every,
        warmup_share=warmup_share,
        weight_decay=weight_decay,
        clip=clip,
        beta2=beta2,
        on_step=on_step,
    )
    vlm.model.eval()
    return len(plan)


def set_trainable(vlm: Vlm, *, language_model: bool) -> None:
    """Gradients for the projector and, if asked for, the language model; the tower has none and stays in eval mode."""
    vlm.model.train()
    vlm.tower.eval()
    vlm.model.requires_grad_(language_model)
    vlm.projector.requires_grad_(True)
    vlm.tower.requires_grad_(False)


def parameter_groups(vlm: Vlm, projector_lr: float, language_model_lr: float | None) -> list[Group]:
    """What is trained, by its name in the checkpoint; tied weights once."""
    projector = {n: p for n, p in vlm.model.named_parameters() if "multi_modal_projector" in n}
    groups = [Group(projector, projector_lr)]
    if language_model_lr is not None:
        rest = {n: p for n, p in vlm.model.named_parameters() if p.requires_grad and n not in projector}
        groups.append(Group(rest, language_model_lr))
    return groups


def batch_loss(
    vlm: Vlm, corpus: Corpus, features: FeatureCache, indices: Sequence[int], precision: str = "fp32"
) -> Tensor:
    """Cross-entropy in nats, averaged over the supervised tokens of the whole batch."""
    batch = collate([corpus.encoded[i] for i in indices], vlm.processor.tokenizer.pad_token_id)
    pictures = [path for i in indices for path in corpus.pictures[i]]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits, targets = supervised_logits(vlm, batch, features=features.of(pictures))
        return normalised(loss_sum(logits, targets), len(targets), "micro_batch_mean")
