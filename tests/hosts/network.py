"""Two hosts on one machine: network namespaces joined by a cable (veth), each with an address of its own."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

COUNT = itertools.count()
FILES = Path("/etc/netns")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@dataclass
class Host:
    """Where commands run. Without namespaces (`name` None) it is this machine, and the others' address is loopback.

    Attributes:
        name: Of the network namespace.
        address: That the other host reaches this one by: a name that both resolve.
        interface: Of that address.
    """

    name: str | None
    address: str
    interface: str
    started: list[subprocess.Popen] = field(default_factory=list)

    def start(self, command: Sequence[str], log: Path, **environment: str) -> subprocess.Popen:
        """Run a command here; its output goes to `log`."""
        inside = []
        if self.name:
            named = ["unshare", "--uts", "sh", "-c", f'hostname {self.address} && exec "$@"', "sh"]
            inside = ["ip", "netns", "exec", self.name, *named]
        own = {"GLOO_SOCKET_IFNAME": self.interface, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        own |= {"CUDA_VISIBLE_DEVICES": "", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*inside, *command],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own, **environment},
                cwd=log.parent,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def die(self) -> int:
        """SIGKILL everything that runs here, as a host that loses its power; how many processes that were."""
        if self.name:
            found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
            pids = [int(pid) for pid in found.stdout.split()]
        else:
            pids = [pid for process in self.started for pid in _family(process.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait(30)
        self.started.clear()
        return len(pids)

    def give_up_soon(self) -> None:
        """Let the kernel give up a connection that nobody answers after seconds, not after a quarter of an hour."""
        assert self.name, "only for a host of its own"
        command = "echo 5 > /proc/sys/net/ipv4/tcp_retries2"
        subprocess.run(["ip", "netns", "exec", self.name, "sh", "-c", command], check=True)

    def cable(self, state: str) -> None:
        """Pull the cable (`down`), or put it back (`up`): nothing arrives, and nobody is told."""
        assert self.name, "only a host of its own has a cable"
        subprocess.run(["ip", "-n", self.name, "link", "set", self.interface, state], check=True)


def _family(pid: int) -> list[int]:
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def remove_leftovers() -> None:
    """Take away namespaces of tests whose process is gone."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name, pid in re.findall(r"^(kd(\d+)-\d+[ab])\b", listed, re.MULTILINE):
        if not psutil.pid_exists(int(pid)):
            _remove(name)


def _remove(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    shutil.rmtree(FILES / name, ignore_errors=True)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts until the block ends; whatever still runs on them is killed then.

    Where namespaces are not permitted, both are processes of this machine with a rendezvous on loopback, and a warning
    says so.
    """
    with contextlib.ExitStack() as stack:
        try:
            hosts = _namespaces(stack)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or error
            warnings.warn(
                f"No network namespaces here ({said!s:.200}): two sets of processes on 127.0.0.1 stand for two hosts.",
                stacklevel=3,
            )
            hosts = (Host(None, "127.0.0.1", "lo"), Host(None, "127.0.0.1", "lo"))
        try:
            yield hosts
        finally:
            for host in hosts:
                host.die()


def _namespaces(stack: contextlib.ExitStack) -> tuple[Host, Host]:
    if os.environ.get("KD_NO_NAMESPACES"):
        raise FileNotFoundError("KD_NO_NAMESPACES is set")
    if shutil.which("ip") is None:
        raise FileNotFoundError("no `ip`: apt-get install iproute2")
    remove_leftovers()
    number = next(COUNT)
    names = [f"kd{os.getpid()}-{number}{letter}" for letter in "ab"]
    cards = [f"kd{os.getpid() % 10**6}{number % 100:02}{letter}" for letter in "ab"]  # 15 characters at most
    for name in names:
        _ip("netns", "add", name)
        stack.callback(_remove, name)
        (FILES / name).mkdir(parents=True)  # what stands here covers the files of /etc inside
        (FILES / name / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 host-a\n10.77.0.2 host-b\n")
    _ip("link", "add", cards[0], "netns", names[0], "type", "veth", "peer", "name", cards[1], "netns", names[1])
    hosts = []
    for end, (name, card) in enumerate(zip(names, cards, strict=True), 1):
        _ip("-n", name, "address", "add", f"10.77.0.{end}/24", "dev", card)
        for device in ("lo", card):
            _ip("-n", name, "link", "set", device, "up")
        hosts.append(Host(name, f"host-{'ab'[end - 1]}", card))
    return hosts[0], hosts[1]


def torchrun(hosts: Sequence[Host], port: int, host: Host, command: Sequence[str], *options: str) -> list[str]:
    """The documented command of one of several hosts: one process each, which meet at the first host's address."""
    meeting = [f"--nnodes={len(hosts)}", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=7"]
    meeting += [f"--rdzv-endpoint={hosts[0].address}:{port}"]
    return [*TORCHRUN, *meeting, "--monitor-interval=0.1", *options, *command]


def ends(processes: Sequence[subprocess.Popen], seconds: float) -> list[int]:
    """Exit codes of all; an error where one still runs after `seconds`."""
    until = time.monotonic() + seconds
    return [process.wait(max(0.1, until - time.monotonic())) for process in processes]
