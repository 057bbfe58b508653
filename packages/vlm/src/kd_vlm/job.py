"""One VLM that is asked for: its parts, its recipe and its seed; and what is told of it to others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_vlm import __version__
from kd_vlm.assembly import Vlm
from kd_vlm.config import Recipe
from kd_vlm.lineage import Inputs
from kd_vlm.names import vlm_name
from kd_vlm.problems import Policy
from kd_vlm.tracking import Model
from kd_vlm.workspace import flat, millions


@dataclass(frozen=True)
class Job:
    """A cell of params.yaml with its models found.

    Attributes:
        cell: Its name in params.yaml, for folders.
        recipe_name: The recipe's, for the registered name.
    """

    cell: str
    encoder: Model
    lm: Model
    recipe_name: str
    recipe: Recipe
    seed: int

    @property
    def name(self) -> str:
        """The registered name."""
        return vlm_name(self.encoder.name, self.lm.name, self.recipe_name)

    @property
    def sharded(self) -> bool:
        return any(stage.zero_stage for stage in (self.recipe.pretrain, self.recipe.finetune))

    def inputs(self, ranks: int, datasets: Sequence[Mapping[str, str]]) -> Inputs:
        """All that the result depends on. Another number of processes orders data otherwise."""
        data = {d["name"]: d["digest"] for d in datasets}
        digests = {"encoder": self.encoder.sha256, "lm": self.lm.sha256, **data}
        return Inputs(
            {**digests, **flat(self.recipe.values), "seed": self.seed, "ranks": ranks, "version": __version__}
        )

    def params(self, ranks: int, bad: Policy) -> dict[str, Any]:
        """The parameters of the run in MLflow. What `bad` did is in the digests of the data."""
        names = {"name": self.name, "encoder": self.encoder.name, "lm": self.lm.name, "recipe": self.recipe_name}
        common = {"kind": "vlm", **names, "seed": self.seed, "ranks": ranks, "data.bad": bad}
        return {**common, **flat(self.recipe.values)}

    def tags(self, vlm: Vlm) -> dict[str, str]:
        """The tags of the registered model."""
        return {
            "kd.arch": type(vlm.model).__name__,
            "kd.encoder": self.encoder.name,
            "kd.encoder_sha256": self.encoder.sha256,
            "kd.lm": self.lm.name,
            "kd.recipe": self.recipe_name,
            "kd.data": "llava",
            "kd.seed": str(self.seed),
            "kd.params_m": millions(vlm.model),
            "kd.width": str(vlm.text_config.hidden_size),
            "kd.tokens": str(vlm.tokens_per_image),
        }
