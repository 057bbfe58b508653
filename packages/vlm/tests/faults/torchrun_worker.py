"""One rank under torchrun: `torchrun ... torchrun_worker.py PLACE JOBS`, JOBS a list of trainings to do one after the other.

Each job trains a tiny VLM and writes what it saw to `PLACE/<name>.json`.
"""

import json
import os
import sys
from pathlib import Path

os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", DS_ACCELERATOR="cpu")

import torch
from kd_vlm.distributed import Ranks, joined
from kd_vlm.lora import add_lora, merge
from kd_vlm.train import fit_stage

sys.path.insert(0, str(Path(__file__).parent))
from tiny import STAGE, build

torch.set_num_threads(1)


class Enough(Exception):  # noqa: N818
    pass


def train(job: dict, place: Path, ranks: Ranks) -> None:
    vlm, corpora, features = build(place / "inputs")
    options = STAGE | job.get("options", {})
    adapted = add_lora(vlm.model, rank=4, alpha=8, dropout=0.1, seed=0) if options["language_model"] == "lora" else None
    losses: dict[int, float] = {}

    def on_step(step) -> None:
        losses[step.number] = step.loss
        if job.get("poison") == step.number + 1:
            with torch.no_grad():
                features.rows[:] = float("nan")

    error = None
    if job.get("poison"):
        features.rows.flags.writeable = True
    try:
        fit_stage(
            vlm,
            corpora[job.get("corpus", "finetune")],
            features,
            **options,
            checkpoint=place / "runs" / job["run"],
            on_step=on_step,
            ranks=ranks,
            **({"stop_after": job["stop_after"]} if "stop_after" in job else {}),
        )
    except Exception as caught:
        if "expects" not in job:
            raise
        error = f"{type(caught).__name__}: {caught}"
    if adapted is not None:
        merge(adapted)
    if ranks.first:
        weights = {n: p.detach().double().sum().item() for n, p in vlm.model.named_parameters()}
        (place / f"{job['name']}.json").write_text(json.dumps({"losses": losses, "error": error, "weights": weights}))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with joined(deepspeed=True) as ranks:
        for job in json.loads(sys.argv[2]):
            train(job, place, ranks)
            ranks.wait()
