"""The section `world` of params.yaml."""

from typing import Self

from pydantic import Field, model_validator

from contract.shared.params import Params


class Mix(Params):
    """The share of each kind of picture wherever kinds are mixed; they sum to 1."""

    objects: float = Field(ge=0)
    room: float = Field(ge=0)
    sign: float = Field(ge=0)
    chart: float = Field(ge=0)
    document: float = Field(ge=0)
    diagram: float = Field(ge=0)
    portrait: float = Field(ge=0)
    flag: float = Field(ge=0)
    artwork: float = Field(ge=0)

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if abs((total := sum(self.model_dump().values())) - 1) > 1e-6:
            raise ValueError(f"expected shares that sum to 1; their sum is {total:g}")
        return self


class Pairs(Params):
    """Image-text pairs in shards."""

    train: int = Field(gt=0, description="Pairs to train encoders on.")
    test: int = Field(gt=0, description="Held-out pairs, for the validation loss.")
    shard_size: int = Field(gt=0, le=10_000, description="Pairs in one tar.")


class Classes(Params):
    """The zero-shot classification set."""

    images_per_class: int = Field(gt=0)


class Benchmarks(Params):
    """The 16 benchmarks."""

    items: int = Field(ge=24, description="Questions in each benchmark, about: pairs and rotations are kept whole.")


class Chat(Params):
    """Conversations about pictures."""

    llava_pretrain: int = Field(gt=0, description="Pictures with one instruction and one caption.")
    mix665k: int = Field(gt=0, description="Conversations of several turns.")
    bunny: int = Field(gt=0, description="The same in Bunny's folders.")
    turns: int = Field(gt=0, le=20, description="Questions in a conversation.")
    text_only_share: float = Field(ge=0, le=1, description="Conversations without a picture.")
    multi_image_share: float = Field(ge=0, le=1, description="Conversations about two pictures.")
    images_per_folder: int = Field(gt=0)

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.text_only_share + self.multi_image_share > 1:
            raise ValueError("expected text_only_share + multi_image_share <= 1")
        return self


class Text(Params):
    """Text to train a small language model on."""

    lines: int = Field(gt=0)


class WorldParams(Params):
    """Every number of the generated world."""

    seed: int = Field(ge=0)
    image_size: int = Field(ge=32, le=1024, description="Side of a picture in pixels.")
    jpeg_quality: int = Field(ge=1, le=100)
    noise: int = Field(ge=0, le=64, description="Uniform noise on each pixel, in grey levels up and down.")
    workers: int = Field(gt=0, description="Processes that draw; the files do not depend on it.")
    mix: Mix = Field(description="Of the image-text pairs.")
    talk_mix: Mix = Field(description="Of conversations and text.")
    pairs: Pairs
    classes: Classes
    benchmarks: Benchmarks
    chat: Chat
    text: Text
