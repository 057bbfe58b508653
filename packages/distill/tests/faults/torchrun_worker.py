"""One rank under torchrun, as a module: its arguments are PAIRS FOLDER KILLS, KILLS as RANK:STEP,..."""

import os
import signal
import sys
from pathlib import Path

from kd_distill.distributed import joined

from packages.distill.tests.faults.life import pairs_of
from packages.distill.tests.faults.test_ranks import train_on

if __name__ == "__main__":
    pairs, folder = pairs_of(Path(sys.argv[1])), Path(sys.argv[2])
    kills = [tuple(map(int, kill.split(":"))) for kill in sys.argv[3].split(",") if kill]
    with joined() as ranks:

        def die(done: int) -> None:
            for rank, step in kills:
                mark = folder / f"killed-{rank}-{step}"
                if (ranks.rank, done) == (rank, step) and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

        train_on(ranks, pairs, folder, progress=die)
