"""Exact debiased CKA of 10,000 images at 192 x 1152: streaming, against Gram matrices and against torch-cka.

    python benchmarks/analysis_cka.py
    pip install --no-deps torch-cka && python benchmarks/analysis_cka.py --torch-cka

Everything on one thread. torch-cka gets all images as one batch, since only then does it aim at the same number; it
multiplies n x n matrices. Gram is this package's own, in float64, with BLAS's symmetric product. Peak memory of Gram is
about 3 GB. Beside time: the error against Gram in float64, with the features as they are and moved to 10,000 standard
deviations from zero, and the memory of the stream at growing n.
"""

import argparse
import tracemalloc
import warnings
from collections.abc import Iterator

import clock
import numpy as np
import torch
from figures import Figure, show
from kd_analysis.cka import linear_cka
from kd_analysis.gram import gram_cka
from kd_analysis.streaming import CHUNK, moments
from scipy.linalg import blas
from threadpoolctl import threadpool_info, threadpool_limits

DX, DY = 192, 1152  # ViT-T and SigLIP-so400m
BARS = {"Gram": 20, "torch-cka": 100}


def pair(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Float32 features as encoders give them: clusters, a spectrum that falls off, means away from zero; shuffled."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((100, 128))[rng.integers(0, 100, n)] + rng.standard_normal((n, 128))
    hidden *= np.arange(1, 129) ** -0.5
    sides = []
    for width in (DX, DY):
        z = hidden @ rng.standard_normal((128, width)) + 0.5 * rng.standard_normal((n, width))
        sides.append((z + rng.standard_normal(width)).astype(np.float32))
    return sides[0], sides[1]


def streaming(x: np.ndarray, y: np.ndarray) -> float:
    return linear_cka(moments((x[i : i + CHUNK], y[i : i + CHUNK]) for i in range(0, len(x), CHUNK))).value


class Given(torch.nn.Module):
    """A model whose features are its half of the input."""

    def __init__(self, columns: slice) -> None:
        super().__init__()
        self.columns, self.features = columns, torch.nn.Identity()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.features(z[:, self.columns])


def torch_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Whole set as one batch."""
    from torch_cka import CKA

    both = torch.from_numpy(np.concatenate([x, y], axis=1))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(both), batch_size=len(x))
    names = {"model1_name": "student", "model2_name": "teacher"}
    layers = {"model1_layers": ["features"], "model2_layers": ["features"]}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found = CKA(Given(slice(0, DX)), Given(slice(DX, None)), **names, **layers)
        found.compare(loader)
    return float(found.export()["CKA"])


def peak(n: int) -> float:
    """MB that the stream holds at most, over blocks that are made as it asks for them."""

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, n, CHUNK):
            yield pair(min(CHUNK, n - start), start)

    tracemalloc.start()
    moments(blocks())
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found / 1e6


def compared(n: int, times: dict[str, float], bound: float, errors: tuple[float, float]) -> list[Figure]:
    """The figures of all sides; memory is measured here."""
    memory = {rows: peak(rows) for rows in (4_000, 16_000, 64_000)}
    print("memory: " + ", ".join(f"n = {rows}: {most:.1f} MB" for rows, most in memory.items()))
    return [
        *(
            Figure(
                f"streaming against {name}, n = {n}",
                times[name] / times["streaming"],
                at_least=BARS[name],
                limit=times[name] / bound,
                limit_of="products alone, at the speed of BLAS's float32",
                seen=f"{times[name]:.2f} s against {times['streaming']:.3f} s",
            )
            for name in list(times)[1:]
        ),
        Figure("error against Gram in float64", abs(errors[0]), "", at_most=1e-8),
        Figure("error with features 10,000 standard deviations from zero", abs(errors[1]), "", at_most=1e-8),
        Figure(
            "memory of the stream, 64,000 images against 4,000",
            memory[64_000] / memory[4_000],
            at_most=1.1,
            seen=f"{memory[64_000]:.1f} MB against {memory[4_000]:.1f} MB",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--torch-cka", action="store_true", help="Time torch-cka too: minutes.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kernels = {f"{i['internal_api']} {i.get('architecture', '')}".strip() for i in threadpool_info()}
    print(f"BLAS: {', '.join(sorted(kernels))}; one thread")
    x, y = pair(arguments.n)
    values: dict[str, float] = {}

    def run(name: str, of: object) -> object:
        return lambda: values.__setitem__(name, of(x, y))  # type: ignore[operator]

    sides = {"streaming": run("streaming", streaming), "Gram": run("Gram", gram_cka)}
    if arguments.torch_cka:
        sides["torch-cka"] = run("torch-cka", torch_cka)
    with threadpool_limits(1):
        streaming(x, y)  # loads what is loaded once
        times = clock.least(sides, arguments.repeats, "cpu")  # type: ignore[arg-type]
        for _ in range(4):
            times["streaming"] = min(times["streaming"], clock.seconds(lambda: streaming(x, y), "cpu"))
        block = y[:CHUNK]
        tall = [z[:2048].astype(float) for z in (x, y)]
        products_of = {
            "streaming": lambda: blas.ssyrk(1.0, block.T),
            "Gram": lambda: [blas.dsyrk(1.0, z.T, trans=1) for z in tall],
        }
        least = clock.least(products_of, 10, "cpu")
        far = [(z / z.std(axis=0) + 1e4).astype(np.float32) for z in (x, y)]
        errors = values["streaming"] - values["Gram"], streaming(*far) - gram_cka(*far)
    for name, seconds in times.items():
        print(f"{name:10} {seconds:8.3f} s   debiased CKA {values[name]:.9f}")
    products = arguments.n * (DX * (DX + 1) / 2 + DY * (DY + 1) / 2 + DX * DY)
    bound = least["streaming"] * products / (CHUNK * DY * (DY + 1) / 2)
    print(f"bound: products alone take streaming {bound:.3f} s at the speed of BLAS's float32 ssyrk here,", end=" ")
    print(f"and Gram {least['Gram'] * (len(x) / 2048) ** 2:.2f} s at that of dsyrk")
    print(f"error: {errors[0]:+.1e}; 10,000 standard deviations from zero {errors[1]:+.1e}")
    show(*compared(arguments.n, times, bound, errors))


if __name__ == "__main__":
    main()
