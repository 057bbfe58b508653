"""One rank under torchrun: `torchrun ... torchrun_worker.py PLACE JOBS`, JOBS a list of trainings.

Each job trains a tiny VLM from the inputs that `PLACE/inputs.json` names; the first rank writes what it saw to
`PLACE/<name>.json`.
"""

import json
import os
import signal
import sys
from pathlib import Path

os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
from kd_vlm.distributed import Ranks, joined
from kd_vlm.lora import add_lora, merge
from tiny import STAGE, build, fit


def train(job: dict, place: Path, ranks: Ranks) -> None:
    vlm, corpora, features = build(place / "inputs.json")
    options = STAGE | job.get("options", {})
    adapted = add_lora(vlm.model, rank=4, alpha=8, dropout=0.1, seed=0) if options["language_model"] == "lora" else None
    losses: dict[int, str] = {}
    norms: list[float] = []

    def on_step(step) -> None:
        losses[step.number] = step.loss
        norms.append(step.grad_norm)
        if job.get("stop_after") == step.number:
            os.kill(os.getpid(), signal.SIGTERM)

    if job.get("poison") == ranks.rank:
        features.parts[0][:] = float("nan")
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    error = None
    try:
        run = place / "runs" / job.get("run", job["name"])
        corpus = corpora[job.get("corpus", "finetune")]
        fit(vlm, corpus, features, options, ranks, checkpoint=run, on_step=on_step)
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    if adapted is not None:
        merge(adapted)
    after = vlm.model.state_dict()
    moved = [name for name, value in before.items() if name in after and not torch.equal(value, after[name])]
    if ranks.first:
        seen = {"losses": losses, "norms": norms, "error": error, "moved": moved}
        (place / f"{job['name']}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined(deepspeed=True) as all_ranks:
        for each in json.loads(sys.argv[2]):
            train(each, folder, all_ranks)
            all_ranks.wait()
