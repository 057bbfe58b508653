"""The 16 benchmarks as the study groups them. A task that is not in this table is shown under its own key."""

from collections.abc import Iterable, Set
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One benchmark.

    Attributes:
        units: What a score is a mean over, in the published version: items, or pairs of an image. 0 if unknown.
        chance: What a uniform (for MathVista: the most frequent) guess scores in points; None where nothing is chosen.
        best: The highest score in the unit that is printed: 100 for percent, 2000 for MME perception.
    """

    key: str
    title: str
    group: str
    units: int = 0
    chance: float | None = None
    best: float = 100.0


GENERAL, KNOWLEDGE, OCR, VISION = "General", "Knowledge", "OCR & Chart", "Vision-centric"
GROUPS = (GENERAL, KNOWLEDGE, OCR, VISION)
OTHER = "Other"
TASKS = {
    task.key: task
    for task in (
        Task("mme_perception", "MME-P", GENERAL, 1057, 37.5, 2000.0),
        Task("mmbench_en", "MMBench", GENERAL, 4377),
        Task("seedbench_image", "SEED-I", GENERAL, 14233, 25.0),
        Task("gqa", "GQA", GENERAL, 12578),
        Task("scienceqa", "ScienceQA", KNOWLEDGE, 4241),
        Task("mmmu", "MMMU", KNOWLEDGE, 900, 22.1),
        Task("mathvista", "MathVista", KNOWLEDGE, 1000, 26.3),
        Task("ai2d", "AI2D", KNOWLEDGE, 3088, 25.0),
        Task("chartqa", "ChartQA", OCR, 2500),
        Task("ocrbench", "OCRBench", OCR, 1000),
        Task("textvqa", "TextVQA", OCR, 5000),
        Task("docvqa", "DocVQA", OCR, 5349),
        Task("mmvp", "MMVP", VISION, 150, 25.0),
        Task("realworldqa", "RealWorldQA", VISION, 765),
        Task("cvbench_2d", "CV-Bench 2D", VISION, 1438),
        Task("cvbench_3d", "CV-Bench 3D", VISION, 1200, 50.0),
    )
}
AVERAGE, IMAGENET = "average", "imagenet"
IMAGENET_IMAGES = 50_000  # in its validation set


def task_of(key: str) -> Task:
    """The task called `key`; one that the study does not know stands alone in the group "Other"."""
    return TASKS.get(key, Task(key, _TITLES.get(key, key), OTHER))


def averaged(tasks: Iterable[str]) -> frozenset[str]:
    """The benchmarks behind an average, of all scores that stand beside it; all 16 where it stands alone."""
    return frozenset(tasks) & TASKS.keys() or frozenset(TASKS)


_TITLES = {AVERAGE: "Average", IMAGENET: "ImageNet"}


def in_order(keys: Set[str]) -> list[str]:
    """Keys in the order of the study, unknown ones last by name."""
    return [k for k in TASKS if k in keys] + sorted(keys - TASKS.keys())
