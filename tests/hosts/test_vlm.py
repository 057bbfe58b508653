"""A VLM in DeepSpeed ZeRO-2 on two hosts: the model of one host, and what happens when a host dies."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from kd_vlm.journal import read_journal
from kd_vlm.tracking import digest

from tests.loopback import free_port

from .network import TORCHRUN, ends, torchrun

pytestmark = [pytest.mark.hosts, pytest.mark.xdist_group("hosts")]
BOUND = 90  # seconds within which the others must have ended
PARAMS = """
vlm:
  data:
    pretrain: {{file: {world}/captions.json, images: {world}/images}}
    finetune: {{file: {world}/mix.json, images: {world}/images}}
  save_every: 2
  recipes:
    mine:
      base: bunny-paper
      held_out: 2
      pretrain: {{batch_size: 4, micro_batch_size: 1, attention: sdpa, tf32: false, zero_stage: 2}}
      finetune: {{batch_size: 4, micro_batch_size: 1, attention: sdpa, tf32: false, zero_stage: 2, lora: null,
                  language_model: trained, language_model_lr: 1.0e-3, epochs: 12}}
  cells:
    one: {{encoder: {encoder}, lm: {lm}, recipe: mine}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, vit_folder, lm_folder, world) -> Path:
    """The folder that the hosts share, and the model that two processes of one host train."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / ".dvc").mkdir()
    (folder / "params.yaml").write_text(PARAMS.format(world=world, encoder=vit_folder, lm=lm_folder))
    alone = [*TORCHRUN, "--nproc-per-node=2", f"--master-port={free_port()}", *command("alone")]
    where = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        alone, cwd=folder, env=os.environ | where, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return folder


def command(out: str) -> list[str]:
    return ["-m", "kd_vlm", "run", "--cell", "one", "--out", out, "--runs", f"{out}-runs"]


def begin(hosts, project: Path, out: str) -> list[subprocess.Popen]:
    port = free_port()
    return [
        host.start(torchrun(hosts, port, host, command(out)), project / f"{out}-{number}.log")
        for number, host in enumerate(hosts)
    ]


def logs(project: Path, out: str) -> str:
    return "\n".join(log.read_text(errors="replace") for log in sorted(project.glob(f"{out}-?.log")))


def losses(folder: Path) -> list[tuple[int, float]]:
    events = read_journal(folder / "one" / "journal.jsonl")
    return [(e["step"], e["values"]["train/loss"]) for e in events if "train/loss" in e.get("values", {})]


def is_the_model_of_one_host(project: Path, out: str) -> None:
    assert losses(project / out) == losses(project / "alone")
    assert digest(project / out / "one") == digest(project / "alone" / "one")


def test_zero_2_on_two_hosts_trains_the_model_of_one_host_to_the_bit(hosts, project):
    assert ends(begin(hosts, project, "two"), 400) == [0, 0], logs(project, "two")[-4000:]
    is_the_model_of_one_host(project, "two")
    assert read_journal(project / "two" / "one" / "journal.jsonl")[0]["params"]["ranks"] == "2"


@pytest.mark.parametrize("victim", [0, 1], ids=["first", "second"])
def test_when_a_host_dies_the_other_says_so_and_ends_and_the_same_command_goes_on_to_the_same_model(
    hosts, project, victim
):
    out = f"killed-{victim}"
    processes = begin(hosts, project, out)
    until = time.monotonic() + 200
    while len(list(project.glob(f"{out}-runs/*/finetune/*"))) < 2:
        assert time.monotonic() < until, logs(project, out)[-4000:]
        time.sleep(0.02)
    assert hosts[victim].die() >= 2
    assert ends([processes[1 - victim]], BOUND) == [1]
    assert f"Rank {1 - victim} has lost another rank: its process or machine is gone" in logs(project, out)
    assert not (project / out / "one").exists()
    assert ends(begin(hosts, project, out), 400) == [0, 0], logs(project, out)[-4000:]
    is_the_model_of_one_host(project, out)
