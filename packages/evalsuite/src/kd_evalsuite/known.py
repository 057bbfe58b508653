"""What is publicly known of the benchmarks' numbers: how many items they count, what guessing scores."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kd_evalsuite.tasks import EVERY


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is printed.

    Attributes:
        counts: Numbers of items that published scores are fractions of, and what these items are; empty where a score
            is no fraction of right items.
        scale: The best score as printed.
        guesses: Printed values of models that see nothing, and how they answer.
        kind: `fraction` of right items; `graded` where an item can be partly right; `sum` over categories.
    """

    counts: Mapping[int, str] = field(default_factory=dict)
    scale: int = 100
    guesses: Mapping[float, str] = field(default_factory=dict)
    kind: str = "fraction"


def _sizes(key: str, **more: str) -> dict[int, str]:
    task = EVERY[key]
    return {task.size: "items", **task.other_sizes, **{int(n.removeprefix("n")): what for n, what in more.items()}}


KNOWN: dict[str, Benchmark] = {
    "mme_perception": Benchmark({}, 2000, {500: "always yes", 750: "at random"}, "sum"),
    "mme_cognition": Benchmark({}, 800, {200: "always yes", 300: "at random"}, "sum"),
    "mme_accuracy": Benchmark({2374: "all questions", 2114: "perception", 260: "cognition"}, 100, {50: "always yes"}),
    "mmbench_en": Benchmark(_sizes("mmbench_en"), 100, {0: "one letter, circular"}),
    "seedbench_image": Benchmark(_sizes("seedbench_image", n17990="with video"), 100, {25: "at random"}),
    "gqa": Benchmark(_sizes("gqa")),
    "scienceqa": Benchmark(_sizes("scienceqa")),
    "mmmu": Benchmark(_sizes("mmmu", n847="multiple choice"), 100, {22.1: "at random", 26.8: "most frequent"}),
    "mathvista": Benchmark(
        _sizes("mathvista", n540="multiple choice"), 100, {17.9: "at random", 26.3: "most frequent"}
    ),
    "ai2d": Benchmark(_sizes("ai2d"), 100, {25: "at random"}),
    "chartqa": Benchmark(_sizes("chartqa", n1250="human or augmented")),
    "ocrbench": Benchmark(_sizes("ocrbench")),
    "textvqa": Benchmark({}, kind="graded"),
    "docvqa": Benchmark({}, kind="graded"),
    "mmvp": Benchmark({150: "pairs", 300: "single questions"}, 100, {25: "at random", 0: "one letter"}),
    "realworldqa": Benchmark(_sizes("realworldqa")),
    "cvbench_2d": Benchmark(_sizes("cvbench_2d", n788="counting", n650="relations")),
    "cvbench_3d": Benchmark(_sizes("cvbench_3d", n600="depth or distance"), 100, {50: "at random"}),
    "imagenet": Benchmark({50_000: "validation images"}, 100, {0.1: "at random"}),
}
SPELLINGS = {  # of columns in published tables, small letters and digits alone
    "mme_perception": "mme mmep",
    "mme_cognition": "mmec",
    "mmbench_en": "mmbench mmb mmben",
    "seedbench_image": "seed seedi seedbench seedimage",
    "scienceqa": "sqa",
    "mmmu": "mmu mmmuval",
    "ai2d": "a2d",
    "textvqa": "textvqaval",
    "realworldqa": "rwqa",
    "cvbench_2d": "cvb2d",
    "cvbench_3d": "cvb3d",
    "imagenet": "imagenet1k in1k",
}


def benchmark_named(column: str) -> str | None:
    """The benchmark that a table's column is named after, whatever its spelling; None if it is none."""
    plain = re.sub(r"[^a-z0-9]", "", column.lower())
    return next((key for key in KNOWN if plain in (key.replace("_", ""), *SPELLINGS.get(key, "").split())), None)


def others(key: str | None) -> dict[int, str]:
    """The counts of all other benchmarks: `{count: "benchmark, what"}`."""
    found: dict[int, list[str]] = {}
    for name, one in KNOWN.items():
        for n, what in one.counts.items() if name != key else ():
            found.setdefault(n, []).append(f"{name}, {what}")
    return {n: " or ".join(names) for n, names in sorted(found.items())}
