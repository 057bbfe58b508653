"""A distillation on two hosts: the model of one host, and what happens when a host dies or is cut off."""

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from kd_distill.journal import read_journal
from kd_distill.tracking import digest
from PIL import Image

from tests.loopback import free_port

from .network import TORCHRUN, Host, ends, torchrun

pytestmark = [pytest.mark.hosts, pytest.mark.xdist_group("hosts")]
STUDENT = "student-vit--wide--clip-kd"
STEPS, KILLED, BOUND = (
    150,
    50,
    60,
)  # steps of a run, where it is killed; seconds within which the others must have ended
TINY = {
    "embed_dim": 16,
    # patch_dropout draws random numbers: what is not restored shows in the weights
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 4, "patch_dropout": 0.5},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
PARAMS = f"""
distill:
  data: {{train: pairs, val: pairs, views: 2, crop_area: 0.9, caches: caches}}
  recipes:
    pretrain: {{losses: {{task: 1}}, steps: 20, batch_size: 8, warmup: 2, lr: 3.0e-3, weight_decay: 0.1}}
    clip-kd: {{losses: {{task: 1, ckd: 1, fd: 2000, icl: 1}}, steps: {STEPS}, batch_size: 8, warmup: 2, lr: 3.0e-3,
              weight_decay: 0.1, save_every_steps: 10, log_every: 1}}
  from_scratch:
    teacher-wide: {{kind: teacher, id: wide, architecture: wide.json, recipe: pretrain}}
  distilled:
    {STUDENT}: {{kind: student, id: vit, architecture: tiny.json, recipe: clip-kd, teacher: teacher-wide}}
  cached: [teacher-wide]
"""


def write_pairs(folder: Path, n: int = 64) -> None:
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for i in range(n):
            picture = io.BytesIO()
            Image.new("RGB", (24, 20), (4 * i, 255 - 4 * i, 90)).save(picture, "PNG")
            for suffix, content in (("png", picture.getvalue()), ("txt", f"shade {i}".encode())):
                member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def here(project: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The folder that the hosts share: pairs, a registered teacher and its cache; and the student of one host."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / ".dvc").mkdir()
    write_pairs(folder / "pairs")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    (folder / "wide.json").write_text(json.dumps(TINY | {"embed_dim": 24}))
    here(folder, sys.executable, "-m", "kd_distill", "run", "--cell", "teacher-wide")
    here(folder, sys.executable, "-m", "kd_distill", "register", "models/teacher-wide")
    here(folder, sys.executable, "-m", "kd_distill", "cache", "--teacher", "models:/teacher-wide")
    alone = [*TORCHRUN, "--nproc-per-node=2", f"--master-port={free_port()}", "-m", "kd_distill", "run"]
    here(folder, *alone, "--cell", STUDENT, "--out", "alone")
    return folder


def command(out: Path, *more: str) -> list[str]:
    return ["-m", "kd_distill", "run", "--cell", STUDENT, "--out", out.name, "--runs", f"{out.name}-runs", *more]


def begin(hosts, out: Path, port: int, *options: str, more: tuple[str, ...] = ()) -> list[subprocess.Popen]:
    return [begin_on(host, hosts, out, port, *options, more=more) for host in hosts]


def begin_on(host: Host, hosts, out: Path, port: int, *options: str, more: tuple[str, ...] = ()) -> subprocess.Popen:
    log = out.parent / f"{out.name}-{host.address if host.name else hosts.index(host)}.log"
    return host.start(torchrun(hosts, port, host, command(out, *more), *options), log)


def saved(out: Path) -> int:
    found = out.parent.glob(f"{out.name}-runs/*/checkpoints/step-*/*.json")
    return max((int(file.parent.name.removeprefix("step-")) for file in found), default=0)


def wait_for_step(out: Path, step: int, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while saved(out) < step:
        assert time.monotonic() < until, logs(out)
        time.sleep(0.02)


def logs(out: Path) -> str:
    return "\n".join(f.read_text(errors="replace") for f in out.parent.glob(f"{out.name}-*.log"))


def losses(folder: Path) -> list[tuple[int, float]]:
    events = read_journal(folder / STUDENT / "journal.jsonl")
    return [(e["step"], e["values"]["train/loss"]) for e in events if "train/loss" in e.get("values", {})]


def is_the_model_of_one_host(project: Path, out: Path) -> None:
    assert digest(out / STUDENT) == digest(project / "alone" / STUDENT), logs(out)
    assert losses(out) == losses(project / "alone")
    assert len(losses(out)) == STEPS


def test_two_hosts_train_the_model_of_one_host_to_the_bit_and_the_first_alone_writes(hosts, project):
    out = project / "two"
    assert ends(begin(hosts, out, free_port()), 240) == [0, 0], logs(out)
    is_the_model_of_one_host(project, out)
    assert read_journal(out / STUDENT / "journal.jsonl")[0]["params"]["ranks"] == "2"
    assert not list(project.glob("two-runs/*/checkpoints"))


def test_restarts_that_could_not_find_each_other_are_refused_before_anything_begins(hosts, project):
    out = project / "refused"
    assert ends(begin(hosts, out, free_port(), "--max-restarts=1"), 120) == [1, 1]
    assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun on each of them" in logs(out)
    assert not out.exists()


@pytest.mark.parametrize("victim", [0, 1], ids=["first", "second"])
def test_when_a_host_dies_the_other_says_so_and_ends_and_the_same_command_goes_on_to_the_same_model(
    hosts, project, victim
):
    out = project / f"killed-{victim}"
    processes = begin(hosts, out, free_port())
    wait_for_step(out, KILLED)
    assert hosts[victim].die() >= 2  # torchrun and its process
    since = time.monotonic()
    assert ends([processes[1 - victim]], BOUND) == [1]  # torchrun's own exit code is 1
    print(f"the other ended after {time.monotonic() - since:.1f} s")  # noqa: T201
    assert f"Rank {1 - victim} has lost another rank: its process or machine is gone" in logs(out)
    assert KILLED <= saved(out) < STEPS
    assert ends(begin(hosts, out, free_port()), 240) == [0, 0], logs(out)
    is_the_model_of_one_host(project, out)


def test_with_restarts_allowed_the_other_waits_for_the_dead_host_to_come_back_and_goes_on(hosts, project, monkeypatch):
    # else torchrun keeps the first meeting's address, and who joins later waits for it in vain
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    out, port = project / "returned", free_port()
    first, _ = begin(hosts, out, port, "--max-restarts=3")
    wait_for_step(out, KILLED)
    hosts[1].die()
    time.sleep(3)
    assert first.poll() is None
    second = begin_on(hosts[1], hosts, out, port, "--max-restarts=3")
    assert ends([first, second], 240) == [0, 0], logs(out)
    is_the_model_of_one_host(project, out)


def test_when_the_cable_is_pulled_both_end_after_the_time_that_ranks_wait_and_go_on_later(hosts, project):
    if not hosts[0].name:
        pytest.skip("two processes on loopback have no cable; the other tests ran on them")
    out = project / "cut"
    for host in hosts:  # torchrun itself waits for the kernel
        host.give_up_soon()
    processes = begin(hosts, out, free_port(), "--rdzv-conf=read_timeout=10", more=("--ranks-timeout", "10"))
    wait_for_step(out, KILLED)
    hosts[1].cable("down")
    since = time.monotonic()
    assert ends(processes, 30 + BOUND) == [1, 1]
    print(f"both ended after {time.monotonic() - since:.1f} s")  # noqa: T201
    for rank in (0, 1):
        assert f"Rank {rank} has lost another rank" in logs(out)
    hosts[1].cable("up")
    assert ends(begin(hosts, out, free_port()), 240) == [0, 0], logs(out)
    is_the_model_of_one_host(project, out)
