"""What is looked at while a model trains: the held-out loss, a few answers of its own, speed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from math import gcd
from typing import Any

import torch
from torch import nn

from kd_vlm.assembly import Vlm
from kd_vlm.batch import image_inputs
from kd_vlm.corpus import Corpus
from kd_vlm.evaluate import held_out
from kd_vlm.features import FeatureCache
from kd_vlm.optim import Step
from kd_vlm.templates import Role, encode, template_named

NEW_TOKENS = 48  # of an answer in a table of samples


def cast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The autocast under which a model that trains in `precision` is read."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=kind, enabled=kind is not None)


def watcher(
    test: Corpus,
    features: FeatureCache,
    *,
    template: str,
    precision: str,
    validate_every: int | None,
    sample_every: int | None,
    samples: int,
    metrics: Callable[[int, dict[str, float]], None],
    table: Callable[[int, list[dict[str, Any]]], None],
) -> tuple[Callable[[int, Vlm], None], int | None]:
    """What `train.fit_stage` calls, and every how many steps.

    Every rank of a training calls it with the same arguments: under ZeRO-3 no rank has a model to itself.

    Args:
        features: The tower's output for the pictures of `test`; no picture is read.
        metrics: Takes the step and its values.
        table: Takes the step and the rows of a table of answers.
    """
    every = gcd(validate_every or 0, sample_every or 0) or None

    def look(step: int, vlm: Vlm) -> None:
        with torch.no_grad(), cast(precision, next(vlm.model.parameters()).device):
            if validate_every and step % validate_every == 0:
                found = held_out(vlm, test, features)
                metrics(step, {"val/loss": found.loss, "val/answer_accuracy": found.accuracy})
            if sample_every and step % sample_every == 0:
                table(step, answers(vlm, test, features, template, samples))

    return look, every if len(test) else None


def answers(vlm: Vlm, corpus: Corpus, features: FeatureCache, template: str, n: int) -> list[dict[str, Any]]:
    """The first question of `n` samples, the answer that is right, and the one that the model gives greedily."""
    write, tokenizer = template_named(template, vlm.processor.tokenizer), vlm.processor.tokenizer
    weight, rows = next(vlm.projector.parameters()), []
    for sample, pictures in list(zip(corpus.samples, corpus.pictures, strict=True))[:n]:
        turn = sample.turns[0]
        segments = list(write([turn]))
        prompt = segments[: next(i for i, s in enumerate(segments) if s.role is Role.ANSWER)]
        (encoded,) = encode([prompt], tokenizer, image_id=vlm.image_id, tokens_per_image=vlm.tokens_per_image)
        ids = torch.tensor([encoded.ids], device=weight.device)
        seen = features.of(pictures[: encoded.n_images])
        shown = image_inputs(vlm, features=None if seen is None else seen.to(weight))
        out = vlm.model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=torch.ones_like(ids), **shown, max_new_tokens=NEW_TOKENS, do_sample=False
        )
        said = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
        rows.append({"id": sample.id, "question": turn.question, "answer": turn.answer, "prediction": said})
    return rows


def flops_per_token(model: nn.Module, trained: bool) -> float:
    """Floating-point operations of training one token: 2 per weight forward, 2 for the activations' gradients, and 2
    for the weight's own gradient if it is trained.

    Embedding, head and attention's quadratic part are left out, and the tower, which is not run; so an MFU from it is
    a lower bound. Source: Kaplan et al., Scaling Laws for Neural Language Models, 2020, Table 1.
    """
    inner = [p for name, p in model.named_parameters() if "language_model" in name and "embed" not in name]
    return float((6 if trained else 4) * sum(p.numel() for p in inner if p.ndim > 1))


def speed(step: Step, *, per_token: float, ranks: int, peak_tflops: float | None) -> dict[str, float]:
    """Tokens a second over all ranks, the time that waiting for data takes, and MFU where a peak is stated."""
    rate = step.tokens / max(step.seconds, 1e-9)
    found = {"tokens_per_second": rate, "data_seconds": step.data_seconds}
    if peak_tflops:
        found["mfu"] = rate * per_token / (peak_tflops * 1e12 * ranks)
    return found
