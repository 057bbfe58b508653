"""The benchmarks, in the order of the study's tables, and the protocols under which they are scored."""

import difflib

from kd_evalsuite.tasks import (
    ai2d,
    chartqa,
    cvbench,
    docvqa,
    gqa,
    mathvista,
    mmbench,
    mme,
    mmmu,
    mmvp,
    ocrbench,
    realworldqa,
    scienceqa,
    seedbench,
    textvqa,
)
from kd_evalsuite.tasks.base import Task

TASKS: dict[str, Task] = {
    task.key: task
    for task in (
        mme.TASK,
        mmbench.TASK,
        seedbench.TASK,
        gqa.TASK,
        scienceqa.TASK,
        mmmu.TASK,
        mathvista.TASK,
        ai2d.TASK,
        chartqa.TASK,
        ocrbench.TASK,
        textvqa.TASK,
        docvqa.TASK,
        mmvp.TASK,
        realworldqa.TASK,
        cvbench.TASK_2D,
        cvbench.TASK_3D,
    )
}

VARIANTS: dict[str, Task] = {  # asked and scored when named, never part of `all` and of the Average
    task.key: task for task in (mme.COGNITION_TASK, scienceqa.IMAGE_TASK, textvqa.PLAIN_TASK)
}
EVERY = TASKS | VARIANTS

PROTOCOLS: dict[str, str] = {  # a protocol's metrics (`kd_evalsuite.protocols`), and the prompt set it goes with
    "paper": "cambrian",
    "cambrian": "cambrian",
    "lmms": "lmms",
    "vlmevalkit": "vlmevalkit",
    "official": "cambrian",
}
DEFAULT_PROTOCOL = "paper"


def task_named(key: str) -> Task:
    """The benchmark called `key`, one of the sixteen or a variant. Exact match only.

    Raises:
        ValueError: With the nearest name.
    """
    if key not in EVERY:
        near = difflib.get_close_matches(key, EVERY, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(EVERY)}."
        raise ValueError(f"unknown task {key!r}; {hint}")
    return EVERY[key]


def prompts_of(protocol: str) -> str:
    """The prompt set of a protocol.

    Raises:
        ValueError: If there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[protocol]
