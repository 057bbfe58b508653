"""Teachers that are run: to make and verify their caches, or in the place of a cache while a student trains."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from kd_distill import models
from kd_distill.batch import Batch, Rendering, Targets, TeacherInfo
from kd_distill.cache import Block, TeacherCache
from kd_distill.layers import PatchLayer
from kd_distill.pairs import Pairs
from kd_distill.precision import Precision, autocast
from kd_distill.towers import image_features, patch_grid
from kd_distill.tracking import Model
from kd_distill.views import Preprocessing

BATCH = 128


class LiveTeacher:
    """A frozen teacher on a device: bytes and token ids to unit embeddings in float32.

    Args:
        model: The teacher.
        config: Its open_clip configuration.
        look: Its own preprocessing and tokenizer.
        ref: Its reference.
        device: Where it runs.
        precision: Of its towers.
        patches: Where its patch tokens are read, if it gives them too.

    Attributes:
        info: What a student's loss must know of it.
    """

    def __init__(
        self,
        model: models.Clip,
        config: Mapping[str, Any],
        look: tuple[Preprocessing, Any],
        ref: Mapping[str, str],
        *,
        device: torch.device,
        precision: Precision = "fp32",
        patches: PatchLayer | None = None,
    ) -> None:
        self._model = model.eval().requires_grad_(False).to(device)
        self.look, (self.preprocessing, self.tokenize) = look, look
        self.ref, self.device, self.precision = dict(ref), device, precision
        rows, columns, width = patch_grid(config) if patches else (0, 0, 0)
        self.info = TeacherInfo(
            ref["name"],
            config["embed_dim"],
            *models.logit_scale_and_bias(self._model),
            grid=(rows, columns) if patches else None,
            patch_width=width if patches else None,
            patch_layer=patches,
        )

    @classmethod
    def load(
        cls, teacher: Model, *, device: torch.device, precision: Precision = "fp32", patches: PatchLayer | None = None
    ) -> "LiveTeacher":
        """The teacher in a model folder."""
        model, config, preprocessing = models.load(teacher.path)
        look = (preprocessing, models.Tokenize(config, teacher.path))
        return cls(model, config, look, teacher.ref, device=device, precision=precision, patches=patches)

    def to(self, device: torch.device) -> None:
        """Move it."""
        self._model.to(device)
        self.device = device

    def targets(self, seen: Rendering) -> Targets:
        """What the teacher says of pairs that it sees in its own way."""
        image, patches = self.images(seen.images)
        # autograd may save these, and does not save tensors that were made in inference mode
        return Targets(image.clone(), self.texts(seen.tokens).clone(), None if patches is None else patches.clone())

    @torch.inference_mode()
    def images(self, images: UInt8[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b p w"] | None]:
        """Unit embeddings, and patch tokens (not normalised) where the teacher gives them."""
        normalised = self.preprocessing.normalise(images.to(self.device, non_blocking=True))
        with autocast(self.device.type, self.precision):
            image, patches = image_features(self._model, normalised, patches=self.info.patch_layer)
        return F.normalize(image.float(), dim=-1), None if patches is None else patches.float()

    @torch.inference_mode()
    def texts(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Unit embeddings."""
        with autocast(self.device.type, self.precision):
            text = models.encode_text(self._model, tokens.to(self.device, non_blocking=True))
        return F.normalize(text.float(), dim=-1)

    def embed(self, pairs: Pairs, block: Block) -> Mapping[str, np.ndarray]:
        """The arrays of one block of a cache; `pairs` are seen in the teacher's own way."""
        rows = block.stop - block.start
        if block.view is None:
            captions = [pairs.shards.caption(i) for i in range(block.start, block.stop)]
            shortest_first = sorted(range(rows), key=lambda i: len(captions[i]))  # so that batches are cut to little
            text = torch.empty(rows, self.info.width, dtype=torch.float16, device=self.device)
            for at in (shortest_first[i : i + BATCH] for i in range(0, rows, BATCH)):
                text[at] = self.texts(self.tokenize([captions[i] for i in at])).half()
            return {block.file("text"): text.cpu().numpy()}
        image = torch.empty(rows, self.info.width, dtype=torch.float16, device=self.device)
        patches: list[np.ndarray] = []
        for number, batch in enumerate(pairs.in_order(BATCH, block.view, block.start, block.stop)):
            z, tokens = self.images(batch.images)
            image[number * BATCH :][: len(z)] = z.half()
            if tokens is not None:
                patches.append(tokens.half().cpu().numpy())
        found = {block.file("image"): image.cpu().numpy()}
        return found | {block.file("patches"): np.concatenate(patches)} if patches else found


class Teachers:
    """The teachers of one student in their order, each from its cache or live.

    Attributes:
        infos: What the loss must know of each.
        refs: Their references.
        digests: Of all that their targets depend on.
        caches: Of those that have one, for `Pairs`.
        looks: Preprocessing and tokenizer of the live ones, for `Pairs`.
    """

    def __init__(self, members: Sequence[TeacherCache | LiveTeacher]) -> None:
        self._members = tuple(members)
        self.caches = tuple(m for m in self._members if isinstance(m, TeacherCache))
        self._live = tuple(m for m in self._members if isinstance(m, LiveTeacher))
        self.infos = tuple(m.teacher if isinstance(m, TeacherCache) else m.info for m in self._members)
        self.refs = tuple(m.info.teacher if isinstance(m, TeacherCache) else m.ref for m in self._members)
        self.digests = tuple(
            m.info.digest if isinstance(m, TeacherCache) else f"{m.ref['sha256']}-{m.precision}" for m in self._members
        )
        self.looks = tuple(m.look for m in self._live)

    def to(self, device: torch.device) -> "Teachers":
        """These, live ones moved to the device."""
        for teacher in self._live:
            teacher.to(device)
        return self

    def complete(self, batch: Batch) -> Batch:
        """The batch with the targets of all teachers, those of live ones computed now."""
        if not self._live:
            return batch
        cached, seen = iter(batch.teachers), iter(batch.others)
        targets = (m.targets(next(seen)) if isinstance(m, LiveTeacher) else next(cached) for m in self._members)
        return replace(batch, teachers=tuple(targets), others=())


class TaughtPairs:
    """`Pairs` whose batches hold what all teachers say of them."""

    def __init__(self, pairs: Pairs, teachers: Teachers) -> None:
        self._pairs, self._teachers = pairs, teachers

    def steps(self, start: int, stop: int, **rows: int) -> Iterator[Batch]:
        """As `Pairs.steps`; images are prepared ahead, live teachers run when their batch is asked for."""
        for batch in self._pairs.steps(start, stop, **rows):
            yield self._teachers.complete(batch)
