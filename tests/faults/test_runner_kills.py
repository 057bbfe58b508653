"""kill -9 at random moments, fifty times, of a runner whose stages only count: what DVC and the runner keep holds."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import psutil
import pytest

from pipeline.tests.project import python

from .processes import alive, dvcs, moment, seconds_until_quiet, stages
from .toy import is_done, start, steps_done, stumbled, toy

pytestmark = pytest.mark.faults
KILLS, STEPS = int(os.environ.get("KD_KILLS", "50")), 30


def life(project: Path, draw: random.Random, kills: Counter[str]) -> bool:
    """Run the stages and kill somebody at a random moment; whether they came to their end before."""
    how = draw.choice([("pipeline.demo", "--jobs", "2"), ("dvc", "repro")])
    with start(project, *how) as top:
        if not moment(draw, top, project, 3):
            if not stumbled(top):
                return True
            kills["stumbled"] += 1
            python(project, "pipeline.mend")
            return False
        victims = {"top": [psutil.Process(top.pid)], "dvc": dvcs(top.pid), "stage": alive(stages(project))}
        kind = draw.choice([kind for kind, processes in victims.items() if processes])
        draw.choice(victims[kind]).kill()
        kills[kind] += 1
        top.communicate(timeout=120)
    return False


def test_fifty_kills_of_runner_dvc_and_stage_lose_no_step_and_leave_no_writer_and_no_lock(tmp_path):
    draw, kills, ending = random.Random(3), Counter(), []
    while (total := kills.total() - kills["stumbled"]) < KILLS:
        project = toy(tmp_path / f"toy-{total}", steps=STEPS)
        while kills.total() - kills["stumbled"] < KILLS and not life(project, draw, kills):
            ending.append(seconds_until_quiet(project, 20))
        python(project, "pipeline.demo", "--jobs", "2")
        assert is_done(project)
        assert {f"{s} {n}" for s in ("first", "second") for n in range(1, STEPS + 1)} == set(steps_done(project))
    (tmp_path / "kills.json").write_text(json.dumps({**kills, "slowest end, s": max(ending)}))
    assert max(ending) < 10
