"""Folders of scored models, from made-up items."""

import json
from pathlib import Path

import numpy as np
from kd_evalsuite.average import average
from kd_evalsuite.records import ModelRef, Score, Scores
from kd_evalsuite.score import write_scores
from kd_evalsuite.stats import clustered_stderr, mean


def rows(task: str, scores, *, cluster=lambda k: str(k), category=lambda k: "", answer=lambda k: "A") -> list[dict]:
    """Lines of `items.jsonl`."""
    return [
        {"task": task, "id": f"{k}", "cluster": cluster(k), "category": category(k), "answer": answer(k), "score": s}
        for k, s in enumerate(scores)
    ]


def main_score(task: str, lines: list[dict], **changes) -> Score:
    """The mean over items, as `score` would write it."""
    values = [row["score"] for row in lines]
    score = Score(
        benchmark=task,
        benchmark_version="paper-1+00000000",
        metric="accuracy",
        value=mean(values),
        best=1.0,
        stderr=clustered_stderr(values, [row["cluster"] for row in lines]),
        n=len(values),
        n_unparsed=0,
        top_answer_share=0.3,
        chance=0.25,
    )
    return score.model_copy(update=changes)


def write(folder: Path, name: str, tasks: dict[str, list[dict]], *, blind=False, replies=None, changes=None) -> Path:
    """A folder with `scores.json` and `items.jsonl`, and predictions where `replies[task]` gives them by id."""
    scores = [main_score(task, lines, **(changes or {}).get(task, {})) for task, lines in tasks.items()]
    ref = ModelRef(kind="vlm", name=name, sha256="ab" * 32)
    whole = Scores(schema="kd-scores/1", model=ref, blind=blind, scores=(*scores, average(scores, "paper")))
    write_scores(folder, whole, [row for lines in tasks.values() for row in lines])
    for task, texts in (replies or {}).items():
        lines = [json.dumps({"id": i, "prediction": text}) + "\n" for i, text in texts.items()]
        (folder / f"{task}.jsonl").write_text("".join(lines))
    return folder


def random_scores(n: int, p: float, seed: int = 0) -> list[float]:
    """Right with probability p."""
    return (np.random.default_rng(seed).random(n) < p).astype(float).tolist()


def two_models(folder: Path) -> list[Path]:
    """Folders `a` and `b` of models vlm-a and vlm-b: on gqa b is far better; on ai2d they are alike."""
    one = {"gqa": rows("gqa", random_scores(400, 0.4)), "ai2d": rows("ai2d", random_scores(60, 0.5, 1))}
    two = {"gqa": rows("gqa", random_scores(400, 0.7, 2)), "ai2d": rows("ai2d", random_scores(60, 0.5, 3))}
    replies = {"gqa": {str(k): f"<b>reply {k}</b>" for k in range(400)}}
    return [
        write(folder / "a", "vlm-a", one, replies=replies),
        write(folder / "b", "vlm-b", two, replies=replies),
    ]
