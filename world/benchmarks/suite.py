"""Every benchmark by its key."""

from collections.abc import Callable, Mapping
from pathlib import Path

from world.benchmarks.general import write_gqa, write_mmbench, write_mme, write_seedbench
from world.benchmarks.items import Items
from world.benchmarks.knowledge import write_ai2d, write_mathvista, write_mmmu, write_scienceqa
from world.benchmarks.reading import write_chartqa, write_docvqa, write_ocrbench, write_textvqa
from world.benchmarks.vision import write_cvbench_2d, write_cvbench_3d, write_mmvp, write_realworldqa
from world.picture import Pen

BENCHMARKS: Mapping[str, Callable[[Path, Items, int], None]] = {
    "mme_perception": write_mme,
    "mmbench_en": write_mmbench,
    "seedbench_image": write_seedbench,
    "gqa": write_gqa,
    "scienceqa": write_scienceqa,
    "mmmu": write_mmmu,
    "mathvista": write_mathvista,
    "ai2d": write_ai2d,
    "chartqa": write_chartqa,
    "ocrbench": write_ocrbench,
    "textvqa": write_textvqa,
    "docvqa": write_docvqa,
    "mmvp": write_mmvp,
    "realworldqa": write_realworldqa,
    "cvbench_2d": write_cvbench_2d,
    "cvbench_3d": write_cvbench_3d,
}


def write_benchmark(folder: Path, *, task: str, count: int, seed: int, pen: Pen) -> None:
    """The benchmark `task` with about `count` items, all about contents of the test split."""
    BENCHMARKS[task](folder, Items(task, seed, pen), count)
