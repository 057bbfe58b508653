"""The records that cross a boundary: predictions, their manifest, scores. Formats: contract/README.md, "Evaluation"."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["generate", "loglikelihood"]


class Record(BaseModel):
    """Frozen; unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Prediction(Record):
    """One reply. `image_sha256` names the item's first picture, also where a blind model was not shown it."""

    id: str
    prediction: str
    prompt_sha256: str = ""
    image_sha256: str | None = None
    tokens: int = Field(0, ge=0)
    seconds: float = Field(0, ge=0)


class Failure(Record):
    """An item that got no reply, and why. It is asked again by the next run; there is no empty reply in its place."""

    id: str
    error: str = Field(min_length=1)
    prompt_sha256: str = ""
    image_sha256: str | None = None
    seconds: float = Field(0, ge=0)


class ModelRef(Record):
    """Which model: its registered name (or folder's name) and the digest of its files.

    Of a model behind an endpoint or a plugin there are no files; the digest is then of all that it says of itself.
    """

    kind: str
    name: str
    sha256: str


class TaskManifest(Record):
    """What was asked of one task: how many items, of which data, and how long a reply could be."""

    rows: int = Field(gt=0)
    data_sha256: str
    max_new_tokens: int = Field(gt=0)
    source: str = Field("", description="The public dataset, with its revision where one is pinned.")


class Manifest(Record):
    """What a folder of predictions holds. Predictions under another manifest do not belong with them."""

    schema_: Literal["kd-predictions/1"] = Field("kd-predictions/1", alias="schema")
    model: ModelRef
    blind: bool
    protocol: str
    prompts: str
    mode: Mode = Field("generate", description="How an answer is got; loglikelihood is another protocol.")
    limit: int | None
    tasks: Mapping[str, TaskManifest]


class Score(Record):
    """One metric of one model on one benchmark version.

    `value` lies in [0, best]: best is 1 for an accuracy, 2000 for MME perception. `chance` is the same metric for a
    uniform guess, null where that is not defined; `top_answer_share` is how often the model gave its favourite answer,
    so that a constant answerer shows.
    """

    benchmark: str
    benchmark_version: str
    metric: str
    value: float = Field(ge=0)
    best: float = Field(gt=0)
    stderr: float = Field(ge=0)
    n: int = Field(gt=0)
    n_unparsed: int = Field(ge=0)
    top_answer_share: float = Field(ge=0, le=1)
    chance: float | None = None

    @property
    def percent(self) -> float:
        """The value on a 0 to 100 scale, the only scale on which benchmarks are averaged."""
        return 100 * self.value / self.best


class Scores(Record):
    """`scores.json`: every metric of one model; the first metric of a benchmark is its main one."""

    schema_: Literal["kd-scores/1"] = Field("kd-scores/1", alias="schema")
    model: ModelRef
    blind: bool
    scores: tuple[Score, ...]

    def main(self, benchmark: str) -> Score | None:
        """The main metric of a benchmark."""
        return next((s for s in self.scores if s.benchmark == benchmark), None)
