"""One rank under torchrun: `torchrun ... turns_worker.py PLACE SECONDS WHAT`.

Visual tokens from a tower that takes SECONDS for each batch, under collectives that wait for less; with WHAT "broken"
the tower fails. Each rank writes what it saw to `PLACE/<rank>.json`.
"""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import torch
from kd_vlm import features
from kd_vlm.distributed import RankLostError, joined
from kd_vlm.encoder import load_encoder, visual_tokens
from kd_vlm.material import _cached

if __name__ == "__main__":
    place, seconds, what = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    inputs = json.loads((place / "inputs.json").read_text())
    tower = load_encoder(Path(inputs["encoder"]))
    paths = sorted((Path(inputs["world"]) / "images" / "a").iterdir())
    batches = []

    def slow(*arguments):
        batches.append(len(arguments[1]))
        time.sleep(seconds)
        if what == "broken":
            raise ValueError("the tower is broken")
        return visual_tokens(*arguments)

    features.visual_tokens = slow
    said = "nothing"
    with joined(timeout=timedelta(seconds=seconds / 2)) as ranks:
        ranks.wait()
        try:
            found = _cached(tower, paths, place / "vision", 0, "fp32", ranks, 2)
            said = "finite" if bool(torch.isfinite(found.of(paths)).all()) else "not finite"
        except (ValueError, RankLostError) as error:
            said = f"{type(error).__name__}: {error}"
        (place / f"{ranks.rank}.json").write_text(json.dumps({"batches": batches, "said": said}))
        ranks.wait()
