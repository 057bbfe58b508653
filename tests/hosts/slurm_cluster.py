"""A real Slurm of one node on loopback: Debian's slurmctld and slurmd, with ports and files of their own."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import free_port

CONF = """
ClusterName=kd
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=5
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:8
PartitionName=main Nodes={host} Default=YES State=UP PriorityTier=1 GraceTime=15
PartitionName=urgent Nodes={host} State=UP PriorityTier=9
"""


def require_slurm() -> None:
    """A skip that says how to get it, or that it must run as root."""
    if not (shutil.which("slurmctld") and shutil.which("slurmd")):
        pytest.skip("Slurm is not installed: apt-get install slurmctld slurmd slurm-client")
    if os.geteuid():
        pytest.skip("slurmd starts jobs as root only")


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[str]:
    """A cluster until the block ends; the path of its configuration, for SLURM_CONF."""
    require_slurm()
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, ports=(free_port(), free_port())))
    for number in range(8):  # files that stand for the devices
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    with_us = ["setpriv", "--pdeathsig", "TERM"]  # they end when the test is killed
    commands = ([*with_us, "slurmctld", "-D", "-f", str(conf)], [*with_us, "slurmd", "-D", "-f", str(conf), "-N", host])
    daemons = []
    try:
        for command in commands:
            log = (folder / f"{command[len(with_us)]}.out").open("wb")
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True))
        until = time.monotonic() + 60
        while b"idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True).stdout:
            assert time.monotonic() < until, (folder / "slurmctld.log").read_text() + (
                folder / "slurmd.log"
            ).read_text()
            time.sleep(0.5)
        yield str(conf)
        subprocess.run(["scancel", "--me"], env=environment, check=False)
        time.sleep(2)
    finally:
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
