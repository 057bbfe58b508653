"""The 16 benchmarks as the study groups them. A task that is not in this table is shown under its own key."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    key: str
    title: str
    group: str


GENERAL, KNOWLEDGE, OCR, VISION = "General", "Knowledge", "OCR & Chart", "Vision-centric"
GROUPS = (GENERAL, KNOWLEDGE, OCR, VISION)
OTHER = "Other"
TASKS = {
    task.key: task
    for task in (
        Task("mme_perception", "MME-P", GENERAL),
        Task("mmbench_en", "MMBench", GENERAL),
        Task("seedbench_image", "SEED-I", GENERAL),
        Task("gqa", "GQA", GENERAL),
        Task("scienceqa", "ScienceQA", KNOWLEDGE),
        Task("mmmu", "MMMU", KNOWLEDGE),
        Task("mathvista", "MathVista", KNOWLEDGE),
        Task("ai2d", "AI2D", KNOWLEDGE),
        Task("chartqa", "ChartQA", OCR),
        Task("ocrbench", "OCRBench", OCR),
        Task("textvqa", "TextVQA", OCR),
        Task("docvqa", "DocVQA", OCR),
        Task("mmvp", "MMVP", VISION),
        Task("realworldqa", "RealWorldQA", VISION),
        Task("cvbench_2d", "CV-Bench 2D", VISION),
        Task("cvbench_3d", "CV-Bench 3D", VISION),
    )
}


def task_of(key: str) -> Task:
    """The task called `key`; one that the study does not know stands alone in the group "Other"."""
    return TASKS.get(key, Task(key, key, OTHER))


def in_order(keys: set[str]) -> list[str]:
    """Keys in the order of the study, unknown ones last by name."""
    return [k for k in TASKS if k in keys] + sorted(keys - TASKS.keys())
