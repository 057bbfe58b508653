"""Active selection: of a super-batch of pairs, those are trained on that the student can still learn from its teacher.

A pair that student and teacher both find easy teaches nothing, one that both find hard is noise; what is worth most is
what the teacher has learnt and the student has not. Source: Evans et al., "Data curation via joint example selection
further accelerates multimodal learning" (JEST), 2024, section 3; Udandarao et al., "Active data curation effectively
distills large-scale multimodal models" (ACID), 2024: the reference model is the teacher.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from kd_distill.batch import Batch, Stream, Targets
from kd_distill.models import encode_text
from kd_distill.task import DistillationTask
from kd_distill.views import stream

Method = Literal["joint", "topk"]


def pair_losses(logits: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """InfoNCE of each pair among all of them, in nats: the mean over both directions; their mean is `contrastive`."""
    return (logits.logsumexp(dim=0) + logits.logsumexp(dim=1)) / 2 - logits.diagonal()


def learnability(student: Float[Tensor, "n n"], teacher: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """The student's loss of each pair less the teacher's, in nats. Both logits hold their own scale."""
    return pair_losses(student) - pair_losses(teacher)


def added_loss(logits: Float[Tensor, "n n"], chosen: Int[Tensor, " k"]) -> Float[Tensor, " n"]:
    """What the summed InfoNCE of the pairs `chosen` grows by when pair i joins them, in nats, for each i.

    With l(S) = sum over j in S of ([logsumexp over k in S of L_jk] + [the same of L_kj]) / 2 - L_jj, this is
    l(S + i) - l(S) where i is not in S; what it is for one in S has no meaning.
    """
    total = torch.zeros_like(logits[0])
    for one_way in (logits, logits.T):
        own = torch.cat([one_way[:, chosen], one_way.diagonal()[:, None]], dim=1).logsumexp(dim=1)
        among = one_way[chosen][:, chosen].logsumexp(dim=1)
        others = torch.logaddexp(among[:, None], one_way[chosen]) - among[:, None]
        total += (own - one_way.diagonal() + others.sum(dim=0)) / 2
    return total


def select(
    student: Float[Tensor, "n n"],
    teacher: Float[Tensor, "n n"],
    k: int,
    *,
    method: Method,
    chunks: int,
    generator: np.random.Generator,
) -> Int[Tensor, " k"]:
    """Which `k` of n pairs to train on, in rising order.

    Args:
        student: Its logits of the super-batch, scale included.
        teacher: The teacher's.
        k: Number of pairs.
        method: `topk`: the k largest `learnability` scores. `joint`: k / `chunks` at a time, drawn without replacement
            with probabilities proportional to exp(score); the first by `learnability` in the super-batch, the others by
            what they add to the loss of those already chosen, the student's less the teacher's (JEST's joint sampling,
            with the softmax loss in the place of the sigmoid loss).
        chunks: Rounds of `joint`.
        generator: Of the draws; `topk` makes none.

    Raises:
        ValueError: If k is not in [1, n].
    """
    n = len(student)
    if not 1 <= k <= n:
        raise ValueError(f"Expected to keep between 1 and {n} pairs, got {k}.")
    scores = learnability(student, teacher)
    if method == "topk":
        return torch.topk(scores, k).indices.sort().values
    chosen = torch.empty(0, dtype=torch.int64, device=student.device)
    for size in (len(part) for part in np.array_split(np.arange(k), min(chunks, k))):
        if len(chosen):
            scores = added_loss(student, chosen) - added_loss(teacher, chosen)
            scores[chosen] = -torch.inf
        # the largest of scores with Gumbel noise are draws without replacement
        noise = torch.from_numpy(generator.gumbel(size=n)).to(scores)
        chosen = torch.cat([chosen, torch.topk(scores + noise, size).indices])
    return chosen.sort().values


@dataclass(frozen=True)
class Selection:
    """How a batch is chosen.

    Args:
        keep: Share of the super-batch that is trained on.
        method: See `select`.
        chunks: See `select`.
        groups: The super-batch is cut into so many equal runs of pairs, and each gives its share of the batch. What is
            chosen depends on it and not on the number of ranks, which must divide it: no rank needs another's pictures.
    """

    keep: float
    method: Method = "joint"
    chunks: int = 16
    groups: int = 1

    def super_batch(self, batch_size: int) -> int:
        """Pairs that are looked at for a batch.

        Raises:
            ValueError: If groups do not divide the batch.
        """
        if batch_size % self.groups:
            raise ValueError(f"active.groups: expected a divisor of the batch of {batch_size}, got {self.groups}.")
        return round(batch_size / self.groups / self.keep) * self.groups


class ActivePairs:
    """Batches chosen from super-batches of `pairs` by the student as it is when a batch is asked for.

    A function of the pairs, the seed, the step and the student's weights, so that a resumed run chooses the same. Of
    several teachers the first is asked.
    """

    def __init__(self, pairs: Stream, task: DistillationTask, selection: Selection, teacher_scale: float) -> None:
        self._pairs, self._task, self._selection, self._scale = pairs, task, selection, teacher_scale

    def steps(
        self, start: int, stop: int, *, batch_size: int, order_seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """As of `pairs`; `batch_size` is that of the chosen ones.

        Raises:
            ValueError: If groups do not divide the batch, or ranks the groups.
        """
        chosen = self._selection
        if chosen.groups % world:
            raise ValueError(f"active.groups: expected a multiple of the {world} ranks, got {chosen.groups}.")
        here, whole = chosen.groups // world, chosen.super_batch(batch_size)
        rows = {"batch_size": whole, "order_seed": order_seed, "rank": rank, "world": world}
        for step, batch in enumerate(self._pairs.steps(start, stop, **rows), start):
            student, teacher = self._embedded(batch), batch.teachers[0]
            scale = self._task.student.logit_scale.detach().exp()
            size, kept = whole // chosen.groups, []
            for group in range(here):
                part = slice(group * size, (group + 1) * size)
                found = select(
                    scale * _logits(student, part),
                    self._scale * _logits(teacher, part).to(scale.device),
                    batch_size // chosen.groups,
                    method=chosen.method,
                    chunks=chosen.chunks,
                    generator=stream(order_seed, "active", step, rank * here + group),
                )
                kept.append(found + part.start)
            yield take(batch, torch.cat(kept))

    @torch.no_grad()
    def _embedded(self, batch: Batch) -> Targets:
        """The student's embeddings in eval mode: looking at a pair must not change running statistics."""
        student, was_training = self._task.student, self._task.student.training
        device = next(student.parameters()).device
        student.eval()
        image = student.encode_image(self._task.preprocessing.normalise(batch.images.to(device)))
        text = encode_text(student, batch.tokens.to(device))
        student.train(was_training)
        return Targets(F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1))


def _logits(z: Targets, part: slice) -> Float[Tensor, "n n"]:
    if z.text is None:
        raise ValueError("Active selection compares images with captions; the teacher's cache holds images only.")
    return z.image[part] @ z.text[part].T


def take(batch: Batch, rows: Int[Tensor, " k"]) -> Batch:
    """These rows of a batch."""
    at = rows.cpu()
    teachers = tuple(
        Targets(t.image[at.to(t.image.device)], *(x if x is None else x[at.to(x.device)] for x in (t.text, t.patches)))
        for t in batch.teachers
    )
    keys = tuple(batch.keys[i] for i in at.tolist()) if batch.keys else ()
    return replace(batch, images=batch.images[at], tokens=batch.tokens[at], teachers=teachers, keys=keys)
