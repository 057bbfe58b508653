"""Answers that somebody published, as a folder of predictions: `evalsuite score` must give the published number."""

import json
from pathlib import Path

from kd_evalsuite.data import load_task
from kd_evalsuite.predict import manifest_of
from kd_evalsuite.records import ModelRef, Prediction

from real import sources

LLAVA, TASK = "llava-1.5-13b-published", "scienceqa"
EXPECTED = 163 / 300  # 54.33 %


def write_predictions(data: Path, benchmarks: Path, out: Path) -> None:
    """LLaVA-1.5-13B's published answers to the ScienceQA questions, in evalsuite's form."""
    task = load_task(benchmarks, TASK, pictures=False)
    answers = [row["llava_v1.5_13b_pred"] for row in sources.questions(data, "scienceqa_sample")]
    model = ModelRef(kind="vlm", name=LLAVA, sha256="published")
    manifest = manifest_of(model, [task], protocol="paper", blind=False, limit=None)
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.json").write_text(manifest.model_dump_json(by_alias=True, indent=1) + "\n")
    rows = [
        Prediction(id=item.id, prediction=answer, tokens=0, seconds=0)
        for item, answer in zip(task.items, answers, strict=True)
    ]
    (out / f"{TASK}.jsonl").write_text("".join(json.dumps(row.model_dump()) + "\n" for row in rows))
