"""A stage's samples as optimiser steps: micro-batches for all ranks, and the length of their rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kd_vlm.batch import Batch, collate, collate_packed
from kd_vlm.corpus import Corpus
from kd_vlm.plan import MicroBatch, MicroBatches, n_steps, share_of
from kd_vlm.regimen import Regimen, split
from kd_vlm.sampling import Plan, batch_plan, default_row_tokens


@dataclass(frozen=True)
class Schedule:
    """What is trained on, in which order; a function of corpus, regimen and number of ranks alone.

    Attributes:
        plan: The micro-batches of all ranks.
        micro_batch_size: Samples of one forward on one rank, about.
        accumulation: Micro-batches of a step on each rank.
        ranks: Processes that train together.
        row_tokens: Tokens of every packed row, padding among them, where shapes are to be static.
    """

    corpus: Corpus
    plan: Plan
    micro_batch_size: int
    accumulation: int
    ranks: int
    packed: bool
    row_tokens: int | None

    @classmethod
    def of(cls, corpus: Corpus, how: Regimen, ranks: int) -> "Schedule":
        """The steps of a stage.

        Raises:
            ValueError: If the batch does not divide over ranks, or a row does not fit where shapes are to be static.
        """
        micro, accumulation = split(how.batch_size, how.micro_batch_size, ranks)
        lengths = corpus.lengths
        plan = batch_plan(
            lengths,
            micro,
            how.epochs,
            how.seed,
            sampler=how.sampler,
            has_image=corpus.has_image,
            ranks=ranks,
            accumulation=accumulation,
        )
        row_tokens = default_row_tokens(lengths, micro) if how.compile else None
        if row_tokens and (longest := max(sum(lengths[i] for i in row) for row in plan)) > row_tokens:
            raise ValueError(
                f"compile: {len(lengths)} samples are too few for equal rows on {ranks} processes (one of {longest} "
                f"tokens among rows of {row_tokens}); start fewer processes, or set compile: false."
            )
        return cls(corpus, plan, micro, accumulation, ranks, how.sampler == "packing", row_tokens)

    @property
    def steps(self) -> int:
        return n_steps(self.plan, self.ranks, self.accumulation)

    def share(
        self, rank: int, pad_id: int, features_of: Callable[[list[Path]], Tensor | None], blank: Tensor | None
    ) -> MicroBatches:
        """The micro-batches of a rank, with what a forward takes.

        Args:
            features_of: The tower's output for the given picture files.
            blank: The features that stand for a picture where a micro-batch has none; see `graph`.
        """
        corpus = self.corpus

        def load(micro_batch: MicroBatch) -> dict[str, Any]:
            pictures = [path for i in micro_batch.samples for path in corpus.pictures[i]]
            batch = self.collated(micro_batch.samples, pad_id)
            return {"batch": batch, "features": features_of(pictures), "blank": blank}

        share = share_of(
            self.plan,
            rank=rank,
            ranks=self.ranks,
            accumulation=self.accumulation,
            supervised=corpus.supervised,
            lengths=corpus.lengths,
        )
        return MicroBatches(share, load)

    def collated(self, samples: tuple[int, ...], pad_id: int) -> Batch:
        """The tokens of these samples, packed or padded."""
        encoded = [self.corpus.encoded[i] for i in samples]
        if self.packed:
            return collate_packed(encoded, pad_id, row_tokens=self.row_tokens)
        return collate(encoded, pad_id)
