"""The files of `contract/golden`, which the neighbours write."""

import json
import shutil
from pathlib import Path

from kd_analysis.scores import read_scored, suite

GOLDEN = Path(__file__).parents[4] / "contract" / "golden"


def test_the_golden_scores_are_read(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("scores.json", "items.jsonl"):
        shutil.copy(GOLDEN / name, folder / name)
    model = read_scored(tmp_path)[0]
    written = json.loads((GOLDEN / "scores.json").read_text())
    assert model.ref.model_dump() == written["model"]
    assert set(suite(model)) == set(model.scores)
