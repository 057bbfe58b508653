"""What a recipe's name stands for: Tables 4 and 5 and Figure 3 compare losses, data and schedules, not names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kd_analysis.results import Result


@dataclass(frozen=True)
class Recipe:
    """Of one recipe.

    Attributes:
        loss: Empty: the recipe's name.
        dataset: Empty: as the run says.
        epochs: 0: as the run says, or as all do.
        encoder: Not empty: its students count as a pretrained encoder of this name.
    """

    loss: str = ""
    dataset: str = ""
    epochs: float = 0.0
    encoder: str = ""


def told(results: Sequence[Result], recipes: Mapping[str, Recipe]) -> list[Result]:
    """The results with loss, data and place as `recipes` say of the recipe that stands in their column `loss`."""
    return [_told(r, recipes[r.loss]) if r.loss in recipes else r for r in results]


def _told(r: Result, recipe: Recipe) -> Result:
    if recipe.encoder:
        trained = {"teacher": recipe.encoder, "student": "", "loss": "", "dataset": "", "epochs": 0.0, "epoch": 0.0}
        return r.model_copy(update=trained)
    return r.model_copy(update={"loss": recipe.loss or r.loss, "dataset": recipe.dataset or r.dataset})


def length_of(recipe: str, recipes: Mapping[str, Recipe], otherwise: float) -> float:
    """Epochs of a recipe's schedule."""
    return recipes[recipe].epochs or otherwise if recipe in recipes else otherwise
