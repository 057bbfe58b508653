"""Two processes over gloo: DDP, ZeRO-2 and ZeRO-3 see the same losses; text-only batches, LoRA, resuming, poison."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from kd_vlm.journal import read_journal
from transformers import AutoModelForImageTextToText

from packages.vlm.tests.faults.tiny import write_inputs

HERE = Path(__file__).parent
pytestmark = [pytest.mark.network, pytest.mark.xdist_group("ranks")]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def place(tmp_path, vit_folder, lm_folder, world):
    write_inputs(tmp_path / "inputs.json", encoder=vit_folder, lm=lm_folder, world=world)
    return tmp_path


def on_two_ranks(place: Path, *jobs: dict, timeout: int = 300) -> list[dict]:
    """What the first rank saw of each job, all run by the same two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    command += [f"--master-port={free_port()}", str(HERE / "torchrun_worker.py"), str(place), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads((place / f"{job['name']}.json").read_text()) for job in jobs]


@pytest.mark.faults
@pytest.mark.parametrize("what", ["whole", "broken"])
def test_the_others_wait_for_visual_tokens_longer_than_for_a_collective_but_not_for_a_rank_that_failed(place, what):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    command += [f"--master-port={free_port()}", str(HERE / "turns_worker.py"), str(place), "30", what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    first, second = (json.loads((place / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["batches"], second["batches"]) == ([12], []), "the first rank runs the tower, once"
    if what == "whole":
        assert first["said"] == second["said"] == "finite"
    else:
        assert first["said"] == "ValueError: the tower is broken"
        assert second["said"].startswith("RankLostError: Rank 0 has failed")


def losses(seen: dict) -> list[float]:
    assert seen["error"] is None, seen["error"]
    return [seen["losses"][step] for step in sorted(seen["losses"], key=int)]


def job(name: str, **options) -> dict:
    rest = {key: options.pop(key) for key in ("run", "corpus", "stop_after", "poison") if key in options}
    return {"name": name, "options": options, **rest}


@pytest.fixture(scope="module")
def seen(tmp_path_factory, vit_folder, lm_folder, world):
    """What five trainings saw, run one after the other by the same two processes."""
    place = tmp_path_factory.mktemp("ranks")
    write_inputs(place / "inputs.json", encoder=vit_folder, lm=lm_folder, world=world)
    fine = {"micro_batch_size": 1, "sampler": "random"}
    names = ("ddp", "two", "three", "poisoned", "sharded")
    jobs = [job(name, zero_stage=stage, **fine) for name, stage in zip(names, (0, 2, 3, 0, 2), strict=True)]
    jobs[3]["poison"] = jobs[4]["poison"] = 1
    return dict(zip(names, on_two_ranks(place, *jobs), strict=True))


def test_zero_2_and_zero_3_train_as_ddp_does_with_text_only_micro_batches_on_either_rank(seen):
    """Micro-batches of one sample: one of them is text only, on one rank; its projector gets exact zeros."""
    ddp, two, three = seen["ddp"], seen["two"], seen["three"]
    assert len(losses(ddp)) == 6
    assert losses(two) == pytest.approx(losses(ddp), abs=1e-3)
    assert losses(three) == pytest.approx(losses(ddp), abs=1e-3)
    assert two["norms"] == pytest.approx(ddp["norms"], rel=1e-3)
    assert set(two["moved"]) == set(three["moved"]) == set(ddp["moved"])
    assert any("language_model" in name for name in ddp["moved"])
    assert not any("vision_tower" in name for name in ddp["moved"])


@pytest.mark.parametrize("name", ["poisoned", "sharded"])
def test_a_number_that_is_none_on_one_rank_stops_all_before_the_update(seen, name):
    assert seen[name]["error"].startswith("NonFiniteError: The loss is not finite at step 1 (rank 0")
    assert (seen[name]["moved"], seen[name]["losses"]) == ([], {})


@pytest.mark.faults
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_run_stopped_by_a_signal_to_one_rank_goes_on_as_if_it_had_not_been(place, stage):
    fine = {"zero_stage": stage, "micro_batch_size": 1}
    whole, stopped, resumed = on_two_ranks(
        place,
        job("whole", **fine),
        job("stopped", run="broken", stop_after=3, **fine),
        job("resumed", run="broken", **fine),
    )
    assert stopped["error"] == "Stopped: Stopped by SIGTERM after step 3; the same command goes on from there."
    assert sorted(map(int, resumed["losses"])) == [4, 5, 6]
    assert losses(stopped | {"error": None}) + losses(resumed) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.faults
def test_lora_and_pretraining_under_zero_equal_ddp(place):
    lora = {"language_model": "lora", "micro_batch_size": 1, "sampler": "random"}
    frozen = {"language_model": "frozen", "language_model_lr": None, "corpus": "pretrain"}
    seen = on_two_ranks(
        place,
        *(job(f"lora-{stage}", zero_stage=stage, **lora) for stage in (0, 2, 3)),
        *(job(f"pretrain-{stage}", zero_stage=stage, **frozen) for stage in (0, 2, 3)),
    )
    for ddp, *sharded in (seen[:3], seen[3:]):
        for one in sharded:
            assert losses(one) == pytest.approx(losses(ddp), abs=1e-3)
            assert set(one["moved"]) == set(ddp["moved"])
    assert all("multi_modal_projector" in name for name in seen[3]["moved"])


@pytest.mark.faults
def test_bfloat16_under_zero_is_near_ddp_and_lora_resumes(place):
    fine = {"precision": "bf16", "micro_batch_size": 1}
    lora = {**fine, "language_model": "lora", "zero_stage": 2}
    ddp, two, three, whole, stopped, resumed = on_two_ranks(
        place,
        *(job(f"bf16-{stage}", zero_stage=stage, **fine) for stage in (0, 2, 3)),
        job("whole", **lora),
        job("stopped", run="broken", stop_after=3, **lora),
        job("resumed", run="broken", **lora),
    )
    # DDP keeps float32 weights under autocast, ZeRO rounds them: 8 bits of a loss near 6
    assert losses(two) == pytest.approx(losses(ddp), abs=0.05)
    assert losses(three) == pytest.approx(losses(two), abs=0.02)
    assert losses(stopped | {"error": None}) + losses(resumed) == pytest.approx(losses(whole), abs=1e-4)


@pytest.mark.faults
def test_gradient_accumulation_checkpointing_and_compiling_do_not_change_the_losses(place):
    plain, deep, packed, eager, compiled = on_two_ranks(
        place,
        job("plain", micro_batch_size=1),
        job("deep", micro_batch_size=1, zero_stage=3, gradient_checkpointing=True),
        job("packed", micro_batch_size=1, zero_stage=2, sampler="packing", loss="micro_batch_mean"),
        job("eager", micro_batch_size=1, sampler="packing"),
        job("compiled", micro_batch_size=1, sampler="packing", compile=True),
    )
    assert losses(deep) == pytest.approx(losses(plain), abs=1e-3)
    assert losses(packed)
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-5)


@pytest.mark.faults
def test_the_command_under_torchrun_writes_a_stock_model_from_zero_2_and_zero_3_with_lora(
    tmp_path, vit_folder, lm_folder, world
):
    (tmp_path / "params.yaml").write_text(f"""
vlm:
  data:
    pretrain: {{file: {world}/captions.json, images: {world}/images}}
    finetune: {{file: {world}/mix.json, images: {world}/images}}
  validate_every: 1
  sample_every: 1
  samples: 1
  recipes:
    mine:
      base: bunny-paper
      held_out: 2
      pretrain: {{batch_size: 4, micro_batch_size: 1, attention: sdpa, tf32: false}}
      finetune: {{batch_size: 4, micro_batch_size: 1, attention: sdpa, tf32: false, lora: {{rank: 4, alpha: 8}}}}
  cells:
    one: {{encoder: {vit_folder}, lm: {lm_folder}, recipe: mine}}
""")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    command += [f"--master-port={free_port()}", "-m", "kd_vlm", "run", "--cell", "one"]
    where = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False, env=os.environ | where
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    folder = tmp_path / "models" / "one"
    assert type(AutoModelForImageTextToText.from_pretrained(folder)).__name__ == "LlavaForConditionalGeneration"
    assert (folder / "adapter" / "finetune" / "adapter_model.safetensors").exists()
    events = read_journal(folder / "journal.jsonl")
    assert events[0]["params"]["ranks"] == "2"
    assert {"metrics", "table", "model", "end"} <= {e["event"] for e in events}
    assert not list((tmp_path / "runs").glob("one-*"))
