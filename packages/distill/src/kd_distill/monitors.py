"""What is measured of a student while it trains, on images and captions that it does not learn from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from kd_distill.losses import contrastive
from kd_distill.losses.cka import cka
from kd_distill.models import Clip, encode_text
from kd_distill.pairs import Pairs
from kd_distill.zeroshot import LabelledImages

BATCH = 128


def retrieval(image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], scale: Float[Tensor, ""]) -> dict[str, float]:
    """Contrastive loss in nats and recall@1 in both directions over all pairs at once, of unit embeddings."""
    logits = scale * image @ text.T
    labels = torch.arange(len(logits), device=logits.device)
    return {
        "val/loss": contrastive(logits).item(),
        "val/image_to_text_r1": (logits.argmax(1) == labels).float().mean().item(),
        "val/text_to_image_r1": (logits.argmax(0) == labels).float().mean().item(),
    }


def debiased_cka(x: Float[Tensor, "n d1"], y: Float[Tensor, "n d2"]) -> float:
    """The loss's debiased linear CKA in float64: at most 1, near 0 for unrelated features whatever n and widths.

    Raises:
        ValueError: If n is below 4, where the estimator is not defined.
    """
    if len(x) < 4 or len(x) != len(y):
        raise ValueError(f"Expected two sets of features of the same 4 rows or more, got {len(x)} and {len(y)}.")
    return float(cka(x.double(), y.double()))


def accuracy(image: Float[Tensor, "n d"], classes: Float[Tensor, "c d"], labels: Int[Tensor, " n"]) -> float:
    """Share of images whose nearest class embedding is their own, in [0, 1]."""
    return float(((image @ classes.T).argmax(1) == labels).float().mean())


def head_norms(task: nn.Module) -> dict[str, float]:
    """The norm of each trained parameter outside the student: heads and their scales."""
    return {
        f"monitor/norm/{name}": parameter.detach().norm().item()
        for name, parameter in task.named_parameters()
        if not name.startswith("student.")
    }


@dataclass(frozen=True)
class Measure:
    """Measures a model when called.

    Args:
        task: What is trained; its heads are read.
        held_out: Pairs that are not trained on, as the student sees them.
        device: Where the model is.
        reads_text: Whether the text tower is trained.
        labelled: Images for zero-shot accuracy, or None.
        teacher: The teacher's unit embeddings of the held-out images (n, dt), or None.
        project: Student image embeddings to the teacher's width.
    """

    task: nn.Module
    held_out: Pairs
    device: torch.device
    reads_text: bool
    labelled: LabelledImages | None = None
    teacher: Float[Tensor, "n dt"] | None = None
    project: Callable[[Tensor], Tensor] | None = None

    @torch.inference_mode()
    def validation(self, model: Clip) -> dict[str, float]:
        """`retrieval` of the held-out pairs; nothing where no text tower was trained."""
        image, text = self._held_out(model)
        return {} if text is None else retrieval(_unit(image), _unit(text), model.logit_scale.exp())

    @torch.inference_mode()
    def __call__(self, model: Clip) -> dict[str, float]:
        """All of it: validation, zero-shot top1, cosine and CKA to the teacher, norms of the heads."""
        image, text = self._held_out(model)
        values = head_norms(self.task)
        if text is not None:
            values |= retrieval(_unit(image), _unit(text), model.logit_scale.exp())
        if self.labelled is not None and text is not None:
            values["monitor/zeroshot_top1"] = self._zero_shot(model, self.labelled)
        if self.teacher is not None:
            teacher = self.teacher.to(image)
            values["monitor/cka"] = debiased_cka(image, teacher)
            projected = image if self.project is None else self.project(image)
            if projected.shape == teacher.shape:  # some terms need no head where the widths differ
                values["monitor/cosine"] = (_unit(projected) * teacher).sum(1).mean().item()
        return values

    def _held_out(self, model: Clip) -> tuple[Tensor, Tensor | None]:
        """Embeddings of the held-out pairs, in their order, not normalised, float32."""
        images, texts, training = [], [], model.training
        model.eval()
        for batch in self.held_out.in_order(BATCH, None):
            images.append(self._image(model, batch.images))
            if self.reads_text:
                texts.append(encode_text(model, batch.tokens.to(self.device)).float())
        model.train(training)
        return torch.cat(images), torch.cat(texts) if texts else None

    def _image(self, model: Clip, images: Tensor) -> Tensor:
        pixels = self.held_out.preprocessing.normalise(images.to(self.device))
        embeddings: Tensor = model.encode_image(pixels).float()
        return embeddings

    def _zero_shot(self, model: Clip, labelled: LabelledImages) -> float:
        training = model.training
        model.eval()
        prompts = labelled.prompts()
        texts = [
            encode_text(model, self.held_out.tokenize(prompts[i : i + BATCH]).to(self.device)).float()
            for i in range(0, len(prompts), BATCH)
        ]
        per_class = _unit(torch.cat(texts)).view(len(labelled.names), len(labelled.templates), -1)
        images = [self._image(model, part) for part in labelled.images.split(BATCH)]
        model.train(training)
        return accuracy(_unit(torch.cat(images)), _unit(per_class.mean(1)), labelled.labels.to(self.device))


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)
