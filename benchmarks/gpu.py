"""What the benchmarks of whole steps share: the peak of a device, and how fast it multiplies in fact."""

import argparse

import torch
from clock import least
from figures import Figure

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PEAKS = {  # TFLOP/s of dense products in bf16, from the makers' data sheets; the first name that fits
    "H100 PCIe": 756, "H100": 989, "H200": 989, "B200": 2250, "A100": 312, "A10G": 70, "L40S": 362, "L4": 121,
    "RTX 4090": 165,
}  # fmt: skip


def device_peak(device: str, precision: str) -> float | None:
    """TFLOP/s that the maker states; None on a CPU, in other precisions and for devices that are not in the table."""
    if device == "cpu" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name()
    return next((float(peak) for known, peak in PEAKS.items() if known in name), None)


def fastest_product(device: str, precision: str, n: int) -> float:
    """TFLOP/s of a product of two n x n matrices: what no step can exceed by much."""
    a, b = (torch.randn(n, n, device=device, dtype=DTYPES[precision]) for _ in range(2))
    return 2 * n**3 / least({"product": lambda: a @ b}, 5, device)["product"] / 1e12


def forget_peak(device: str) -> None:
    """Count the peak of the device's memory from here."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()


def achieved(what: str, flops: float, seconds: float, args: argparse.Namespace, product: float, more: str) -> Figure:
    """The rate of a step: TFLOP/s against the maker's peak, or where none is known against a large product here.

    Args:
        what: Which step.
        flops: Floating point operations of it.
        seconds: What it takes.
        args: Where it ran and in which precision: `device`, `precision`.
        product: TFLOP/s of a large product on this device.
        more: What else is to be said.
    """
    peak, rate = device_peak(args.device, args.precision), flops / seconds / 1e12
    parts = [f"{seconds:.3g} s", more]
    if peak is not None:
        parts.append(f"{rate / product:.0%} of a large product")
    if args.device != "cpu":
        parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    stated = f"the data sheet, {args.precision}" if peak else f"a large product here, {args.precision}"
    return Figure(what, rate, "TFLOP/s", limit=peak or product, limit_of=stated, seen=", ".join(parts))
