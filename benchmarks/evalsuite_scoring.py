"""Scoring all 60,343 items of the suite (16 benchmarks and MME's cognition part) from files, on one core.

Made-up items in the public columns, at the public numbers, and made-up replies of all kinds: letters, phrases,
sentences, numbers, silence. Timed are the steps of `evalsuite score`: reading items, reading predictions, judging with
errors; CPU time of the thread, the least of several turns. The bound is reading the same files with `json.loads` alone.

    OMP_NUM_THREADS=1 python benchmarks/evalsuite_scoring.py [--share 0.1] [--repeats 3]
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clock import seconds
from figures import Figure, show
from kd_evalsuite.average import average
from kd_evalsuite.data import load_task
from kd_evalsuite.predictions import read_predictions
from kd_evalsuite.score import score_task
from kd_evalsuite.tasks import EVERY, PROTOCOLS, TASKS
from kd_evalsuite.tasks.mme import COGNITION, PERCEPTION

Row = dict[str, Any]
SUITE = [*TASKS, "mme_cognition"]
WORDS = (
    "red", "green", "blue", "car", "dog", "left", "right", "two", "7", "1969", "tusk", "meadow", "total", "invoice",
    "the", "of", "a", "on", "with", "sign", "shop", "street",
)  # fmt: skip
LETTER = [
    "{g}",
    "{g}.",
    "({g})",
    "{w}",
    "The answer is {g}.",
    "{g}. {w}",
    "I think it shows {w}, so {g} is correct.",
    "",
]
OPEN = ["{g}", "{g}", "{w}", "The {g}.", "It says {g} on the {w}.", "{w} {w} {w} {w}", ""]


def phrase(rng: random.Random, n: int) -> str:
    """A few words."""
    return " ".join(rng.choices(WORDS, k=n))


def options(rng: random.Random, n: int = 4) -> list[str]:
    """Option texts that differ."""
    return [f"{phrase(rng, 2)} {k}" for k in range(n)]


def mme(rng: random.Random, n: int, categories: tuple[str, ...]) -> Iterator[Row]:
    for k in range(n):
        category = categories[k // 2 % len(categories)]
        yield {"question_id": f"{category}/{k // 2}.png", "question": f"Is there a {k}? Please answer yes or no.",
               "answer": ("Yes", "No")[k % 2], "category": category}  # fmt: skip


def mmbench(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(n):
        yield {"index": k // 4 + k % 4 * 1_000_000, "question": phrase(rng, 9), "hint": "nan", "answer": "ABCD"[k % 4],
               "category": f"c{k % 20}", **dict(zip("ABCD", options(rng), strict=True))}  # fmt: skip


def seed(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(n):
        choices = dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), options(rng), strict=True))
        yield {"question_id": str(k), "question": phrase(rng, 9), "answer": "ABCD"[k % 4], "data_type": "image",
               "question_type_id": 1 + k % 9, **choices}  # fmt: skip


def gqa(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(n):
        yield {"id": str(k), "imageId": str(k // 32), "question": phrase(rng, 9), "answer": rng.choice(WORDS),
               "types": {"semantic": "attr"}}  # fmt: skip


def science(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(n):
        yield {"question": f"{phrase(rng, 9)} {k}", "choices": options(rng, 2 + k % 4), "answer": k % 2,
               "hint": phrase(rng, 30), "subject": "science", "image": None if k % 2 else "x.png"}  # fmt: skip


def mmmu(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(n):
        free = k % 17 == 0
        kind = "open" if free else "multiple-choice"
        yield {"id": f"validation_Art_{k}", "question": phrase(rng, 9), "question_type": kind,
               "options": "[]" if free else str(options(rng)), "answer": "42" if free else "ABCD"[k % 4]}  # fmt: skip


def mathvista(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(n):
        choices = options(rng) if k % 2 else None
        yield {"pid": str(k), "query": phrase(rng, 20), "choices": choices, "answer": choices[1] if choices else "14",
               "answer_type": "text" if choices else "integer", "precision": None}  # fmt: skip


def ai2d(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(n):
        yield {"question": f"{phrase(rng, 9)} {k}", "options": options(rng), "answer": str(k % 4)}


def answered(rng: random.Random, n: int, **more: Any) -> Iterator[Row]:
    for k in range(n):
        gold = f"{phrase(rng, 2)} {k % 100}"
        yield {
            "question": f"{phrase(rng, 9)} {k}",
            "answer": gold,
            **{key: make(rng, k, gold) for key, make in more.items()},
        }


def mmvp(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(1, n + 1):
        yield {
            "Index": k,
            "Question": phrase(rng, 9),
            "Options": "(a) Open (b) Closed",
            "Correct Answer": f"({'ab'[k % 2]})",
        }


def realworld(rng: random.Random, n: int) -> Iterator[Row]:
    for k in range(n):
        question = phrase(rng, 9) + "".join(f"\n{c}. {o}" for c, o in zip("ABC", options(rng, 3), strict=True))
        yield {"question": f"{question} {k}", "answer": "ABC"[k % 3]}


def cvbench(rng: random.Random, n: int, part: str) -> Iterator[Row]:
    for k in range(n):
        yield {"idx": k, "type": part, "choices": options(rng), "answer": f"({'ABCD'[k % 4]})",
               "prompt": phrase(rng, 20), "source": ("ADE20K", "COCO")[k % 2]}  # fmt: skip


MAKERS: dict[str, Callable[[random.Random, int], Iterator[Row]]] = {
    "mmbench_en": mmbench,
    "seedbench_image": seed,
    "gqa": gqa,
    "scienceqa": science,
    "mmmu": mmmu,
    "mathvista": mathvista,
    "ai2d": ai2d,
    "chartqa": lambda rng, n: answered(rng, n, type=lambda r, k, g: ("human_test", "augmented_test")[k % 2]),
    "ocrbench": lambda rng, n: answered(rng, n, question_type=lambda r, k, g: "Doc-oriented VQA"),
    "textvqa": lambda rng, n: answered(
        rng, n, question_id=lambda r, k, g: k, answers=lambda r, k, g: [g] * 6 + [phrase(r, 2) for _ in range(4)],
        ocr_tokens=lambda r, k, g: WORDS,
    ),
    "docvqa": lambda rng, n: answered(
        rng, n, questionId=lambda r, k, g: str(k), answers=lambda r, k, g: [g, f"the {g}"]
    ),
    "mmvp": mmvp,
    "realworldqa": realworld,
    "cvbench_2d": lambda rng, n: cvbench(rng, n, "2D"),
    "cvbench_3d": lambda rng, n: cvbench(rng, n, "3D"),
}  # fmt: skip


def write_suite(root: Path, share: float) -> None:
    """Items and predictions of every task as JSON lines."""
    rng = random.Random(0)

    def lines(path: Path, rows: Iterator[Row]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def count(key: str) -> int:
        return 4 * round(share * EVERY[key].size / 4) if share < 1 else EVERY[key].size

    both = [*mme(rng, count("mme_perception"), PERCEPTION), *mme(rng, count("mme_cognition"), COGNITION)]
    lines(root / "data/mme_perception/test.jsonl", iter(both))
    for key, make in MAKERS.items():
        lines(root / f"data/{key}/rows.jsonl", make(rng, count(key)))
    for key in SUITE:
        items = load_task(root / "data", key, pictures=False).items
        lines(root / f"said/{key}.jsonl", (said(rng, k, item) for k, item in enumerate(items)))


def said(rng: random.Random, k: int, item: Any) -> Row:
    """A prediction of one of many kinds."""
    form = rng.choice(LETTER if item.choices else OPEN)
    text = form.replace("{g}", item.gold[0]).replace("{w}", phrase(rng, 2))
    digest = f"{k // 3:064x}"
    return {
        "id": item.id,
        "prediction": text,
        "prompt_sha256": digest,
        "image_sha256": digest,
        "tokens": 5,
        "seconds": 0.01,
    }


def run(root: Path, protocol: str) -> float:
    """`evalsuite score` over the whole suite; the Average."""
    scores = []
    for key in SUITE:
        data = load_task(root / "data", key, pictures=False)
        scores.append(score_task(data, read_predictions(root / f"said/{key}.jsonl"), protocol).scores[0])
    return average([s for s in scores if s.benchmark in TASKS], protocol).value


def only_read(root: Path) -> int:
    """The bound: the same files, each line parsed once."""
    return sum(len(json.loads(line)) > 0 for file in sorted(root.rglob("*.jsonl")) for line in file.open())


def main() -> None:
    """Print seconds by protocol, the bound, and how often the budget of 60 s holds the slowest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the items")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_suite(root, given.share)
        n = sum(len(load_task(root / "data", key, pictures=False).items) for key in SUITE)
        sides = {protocol: (lambda protocol=protocol: run(root, protocol)) for protocol in PROTOCOLS}
        least = dict.fromkeys([*sides, "json.loads"], float("inf"))
        for _ in range(given.repeats):
            for name, side in sides.items():
                least[name] = min(least[name], seconds(side, "cpu"))
            least["json.loads"] = min(least["json.loads"], seconds(lambda: only_read(root), "cpu"))
    print(f"{n} items of {len(SUITE)} tasks")
    for name in PROTOCOLS:
        print(f"  {name:<12} {least[name]:6.2f} s  {1e6 * least[name] / n:5.1f} µs an item")
    bound, worst = least["json.loads"], max(least[name] for name in PROTOCOLS)
    print(f"bound: parsing the same lines {bound:.2f} s; paper takes {least['paper'] / bound:.1f} times that")
    show(
        Figure(
            f"scoring {n} items from files, the slowest protocol",
            worst,
            "s",
            at_most=60,
            limit=bound,
            limit_of="json.loads of the same lines",
        )
    )


if __name__ == "__main__":
    main()
