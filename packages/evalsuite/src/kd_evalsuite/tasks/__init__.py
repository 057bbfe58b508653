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

PROTOCOLS: dict[str, str] = {"paper": "cambrian"}  # a protocol's metrics, and the prompt set it goes with


def task_named(key: str) -> Task:
    """The benchmark called `key`. Exact match only.

    Raises:
        ValueError: With the nearest name.
    """
    if key not in TASKS:
        near = difflib.get_close_matches(key, TASKS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TASKS)}."
        raise ValueError(f"unknown task {key!r}; {hint}")
    return TASKS[key]


def prompts_of(protocol: str) -> str:
    """The prompt set of a protocol.

    Raises:
        ValueError: If there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[protocol]
