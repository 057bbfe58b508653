"""kill -9 of the whole study at random moments: of the runner, of `dvc repro`, of a `dvc` of the runner, of a stage.

Kills add up: one study is killed again and again, run again each time, until it is done; then another one.
"""

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from pipeline.tests.project import copy_repository, python

from .processes import alive, dvcs, moment, seconds_until_quiet, stages
from .study import digests, doubled_metrics, leftovers, models, referred
from .toy import start, stumbled

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("pipeline")]
KILLS = int(os.environ.get("KD_KILLS", "50"))
ENDING = 20.0  # seconds that a stage whose dvc was killed may take to save and end


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    project = copy_repository(tmp_path_factory.mktemp("whole"), vlms=1)
    python(project, "pipeline.demo", "--jobs", "2")
    return project


class Killer:
    """Runs a study in lives that it ends at random moments."""

    def __init__(self, project: Path, draw: random.Random) -> None:
        self.project, self.draw = project, draw
        self.kills: Counter[str] = Counter()
        self.hit: Counter[str] = Counter()  # the stage that was killed, or at work when its dvc or runner was
        self.slowest = 0.0

    def life(self) -> bool:
        """One life; whether the study came to its end in it."""
        how = self.draw.choice([("pipeline.demo", "--jobs", "2"), ("pipeline.demo", "--jobs", "2"), ("dvc", "repro")])
        longest = self.draw.choice([12, 40])
        with start(self.project, *how) as top:
            if not moment(self.draw, top, self.project, longest):
                if not stumbled(top):
                    return True
                python(self.project, "pipeline.mend")
                self.hit["stumbled"] += 1
                return False
            self.kill(top)
            top.communicate(timeout=300)
        if self.draw.random() < 0.5:  # else the next life meets what may still be ending
            self.slowest = max(self.slowest, seconds_until_quiet(self.project, ENDING))
        return False

    def kill(self, top) -> None:
        at_work = alive(stages(self.project))
        victims = {"top": [psutil.Process(top.pid)], "dvc": dvcs(top.pid), "stage": at_work}
        kind = self.draw.choice([kind for kind, processes in victims.items() if processes])
        victim = self.draw.choice(victims[kind])
        for process in [victim] if kind == "stage" else at_work[:1] or [None]:
            self.hit[process.environ().get("DVC_STAGE", "?") if process else "between stages"] += 1
        victim.kill()
        self.kills[kind] += 1


def live_through(project: Path, draw: random.Random, kills: int) -> Killer:
    """Kill a study at most `kills` times; then let it end."""
    killer = Killer(project, draw)
    while killer.kills.total() < kills:
        if killer.life():
            return killer
    python(project, "pipeline.demo", "--jobs", "2")
    return killer


def ran(said: str) -> set[str]:
    """The stages that the runner says it ran."""
    return {line.split()[-1] for line in said.splitlines() if " done " in line}


def test_fifty_kills_of_the_study_change_no_result_and_leave_no_writer_and_no_lock(undisturbed, tmp_path):
    expected, draw, left, told = digests(undisturbed), random.Random(7), KILLS, []
    begin = time.monotonic()
    assert len(expected) > 150
    while left > 0:
        project = copy_repository(tmp_path / f"study-{left}", vlms=1)
        killer = live_through(project, draw, left)
        left -= killer.kills.total()
        told.append({"kills": dict(killer.kills), "at": dict(killer.hit), "slowest end, s": round(killer.slowest, 2)})
        seconds_until_quiet(project, ENDING)
        assert digests(project) == expected
        assert models(project) == Counter(referred(project)), "each model is registered once"
        assert doubled_metrics(project) == []
        assert leftovers(project) == []
        assert ran(python(project, "pipeline.demo", "--jobs", "2")) <= {"registry"}
        (tmp_path / "kills.json").write_text(json.dumps([*told, f"{time.monotonic() - begin:.0f} s"], indent=1))
