"""What a recipe may choose about the tower's features and the connector. Parsed here, plain arguments below."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from .params import Params

ConnectorKind = Literal["mlp2x_gelu", "linear", "identity", "pixel_shuffle", "avg_pool"]
CONNECTORS: tuple[ConnectorKind, ...] = ("mlp2x_gelu", "linear", "identity", "pixel_shuffle", "avg_pool")
TOKEN_REDUCING: tuple[ConnectorKind, ...] = ("pixel_shuffle", "avg_pool")


class Feature(Params):
    """Which tokens of the vision tower the language model sees. What is not given is the encoder's own default.

    The arguments of `encoder.load_encoder`: `load_encoder(folder, **feature.model_dump())`.
    """

    layer: int | Literal["last"] | None = Field(
        None, description="Index of hidden_states; default: -2 for vision transformers, last for maps and Swin."
    )
    class_token: Literal["keep", "drop"] | None = Field(
        None, description="Only for towers that have one (CLIP, DFN, ViT-T); default: drop."
    )
    grid: int | None = Field(None, gt=0, description="Tokens along an edge that are expected; others are refused.")
    quirk: Literal["tinyllava-728"] | None = Field(
        None, description="tinyllava-728: TinyLLaVA's [:, 1:] on SigLIP, which drops the first real patch."
    )


class Connector(Params):
    """What stands between tower and language model. A recipe may also write the kind alone, as a string.

    The arguments of `assembly.assemble`: `assemble(..., connector=connector.kind, factor=connector.factor)`.
    """

    kind: ConnectorKind = "mlp2x_gelu"
    factor: int | None = Field(
        None, gt=1, description="Tokens along an edge that become one; needed by pixel_shuffle and avg_pool."
    )

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _factor_fits(self) -> Self:
        if (self.factor is None) == (self.kind in TOKEN_REDUCING):
            needs = "needs" if self.factor is None else "takes no"
            raise ValueError(f"{self.kind} {needs} factor; {' and '.join(TOKEN_REDUCING)} are {{kind, factor}}")
        return self
