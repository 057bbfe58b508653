"""Weights of loss terms: numbers, or functions of the step."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from kd_distill.params import Params


class Ramp(Params):
    """A weight that goes from `start` to `end` over the steps before `until` and stays there."""

    start: float = Field(ge=0, allow_inf_nan=False)
    end: float = Field(ge=0, allow_inf_nan=False)
    until: int = Field(gt=0, description="First step at which the weight is `end`.")
    shape: Literal["linear", "cosine"] = "linear"

    def at(self, step: int) -> float:
        """The weight at this step."""
        share = min(1.0, step / self.until)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)] | Ramp


def weights_at(weights: Mapping[str, float | Ramp], step: int) -> dict[str, float]:
    """The weight of each term at this step."""
    return {name: w.at(step) if isinstance(w, Ramp) else w for name, w in weights.items()}
