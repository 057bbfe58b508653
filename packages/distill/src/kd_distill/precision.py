"""The precisions that towers run in. What stands behind them is always float32."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


def autocast(device: str, precision: Precision) -> "torch.autocast":
    """Inside it operations of this type of device run in `precision`."""
    import torch

    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device, dtype, enabled=dtype is not None)
