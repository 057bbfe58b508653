"""What came out, as rows of one table: value, error, how many, and what chance gives."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from kd_distill import models
from kd_evalsuite.records import Scores

from real import neighbours, published, retrieval, sources, steps

LONG = {"relaxed_accuracy_by_type", "circular_accuracy"}  # beside their benchmark's main metric, the same here


@dataclass(frozen=True)
class Row:
    """One number, in percent; `chance` is what guessing gives, `n` how many were asked."""

    part: str
    who: str
    what: str
    value: float
    stderr: float
    n: int
    chance: float | None = None


def collect(data: Path, out: Path) -> list[Row]:
    """Every row. Paths of `out` as in `steps`."""
    photos = sources.fashion(data)
    rows = _retrieval(data, out / "models" / steps.PAIRS)
    rows += _zeroshot_teacher(out / "data" / "fashion" / "embeddings", photos, sources.classes(data))
    rows += _zeroshot_students(out / "zeroshot")
    rows += _neighbours(data, out, photos)
    return rows + _questions(out)


def _retrieval(data: Path, folder: Path) -> list[Row]:
    pictures = sorted(sources.captions(data).items())
    test = [p for p, held_out in zip(pictures, sources.is_held_out(len(pictures)), strict=True) if held_out]
    trained, config, preprocessing = models.load(folder)
    rows = []
    for who, model in ((f"untrained {folder.name}", models.build(config, 0)), (folder.name, trained)):
        found = retrieval.recall(model, config, preprocessing, test)
        rows += [
            Row(
                "Flickr8k, held-out photos",
                who,
                f"caption to photo, R@{k}",
                100 * found.value(k),
                100 * found.stderr(k),
                len(found.photo),
                100 * k / len(test),
            )
            for k in retrieval.CLOSEST
        ]
    return rows


def _zeroshot_teacher(embeddings: Path, photos: list[sources.Photo], names: list[str]) -> list[Row]:
    image, text = np.load(embeddings / "mira_all.npy"), np.load(embeddings / "mira_classes.npy")
    right = (image @ text.T).argmax(axis=1) == np.array([names.index(p.label) for p in photos])
    test = sources.is_held_out(len(photos))
    return [
        _share(f"zero-shot, 45 classes, {which}", "teacher-mira", "top1", part, 100 / len(names))
        for which, part in (("all photos", right), ("held-out photos", right[test]))
    ]


def _zeroshot_students(folder: Path) -> list[Row]:
    rows = []
    for which, part in (("all", "all photos"), ("held_out", "held-out photos")):
        for file in sorted((folder / which).glob("*/scores.json")):
            rows += _scores(f"zero-shot, 45 classes, {part}", file, skip={"top5"})
    return rows


def _neighbours(data: Path, out: Path, photos: list[sources.Photo]) -> list[Row]:
    labels = np.array([photo.subcategory for photo in photos])
    test = sources.is_held_out(len(photos))
    squares = [neighbours.load_square(out / "data/chat/images/fashion" / f"{p.file.stem}.png") for p in photos]
    clip = np.load(data / "fashion2k_clipb32" / "clip_vit_b32_image_embeddings.npy", allow_pickle=False)
    student, config, preprocessing = models.load(out / "models" / steps.FROM_CLIP)
    of = {
        "teacher-clip-b32": clip,
        steps.FROM_CLIP: neighbours.image_features(student, preprocessing, squares),
        f"untrained {steps.FROM_CLIP}": neighbours.image_features(
            models.build(config, 0).eval(), preprocessing, squares
        ),
        "pixels, 16 x 16": neighbours.thumbnails(squares),
    }
    majority = 100 * max(np.unique(labels, return_counts=True)[1]) / len(labels)
    rows = [
        _share("nearest photo has its class", "teacher-clip-b32", "leave one out, all photos", r, majority)
        for r in [neighbours.leave_one_out(clip, labels)]
    ]
    for who, features in of.items():
        right = neighbours.held_out(features, labels, test)
        rows.append(_share("nearest photo has its class", who, "held-out among training photos", right, majority))
    return rows


def _questions(out: Path) -> list[Row]:
    rows = []
    journal = (out / "models" / steps.VLM / "journal.jsonl").read_text().splitlines()
    values = {k: v for line in journal for k, v in json.loads(line).get("values", {}).items()}
    n = 2 * int(sources.is_held_out(2000).sum())
    for key, who in (("val/answer_accuracy", steps.VLM), ("val/blind_answer_accuracy", f"{steps.VLM}, no image")):
        share = values[key]
        error = 100 * float(np.sqrt(share * (1 - share) / n))
        rows.append(Row("questions on held-out product photos", who, "exact answers", 100 * share, error, n))
    for name in (steps.VLM, published.LLAVA):
        rows += _scores("real benchmark questions", out / "eval" / name / "scores.json", skip=LONG)
    return rows


def _scores(part: str, file: Path, skip: set[str]) -> list[Row]:
    found = Scores.model_validate_json(file.read_text())
    return [
        Row(
            part,
            found.model.name,
            s.metric if s.benchmark == "zeroshot" else f"{s.benchmark} {s.metric}",
            s.percent,
            100 * s.stderr / s.best,
            s.n,
            None if s.chance is None else 100 * s.chance / s.best,
        )
        for s in found.scores
        if s.metric not in skip and s.benchmark != "average"
    ]


def _share(part: str, who: str, what: str, right: np.ndarray, chance: float) -> Row:
    share = float(right.mean())
    return Row(part, who, what, 100 * share, 100 * float(np.sqrt(share * (1 - share) / len(right))), len(right), chance)


def check(rows: list[Row]) -> list[str]:
    """What must come out whatever is trained; a line for each number that does not."""
    expected = {
        ("zero-shot, 45 classes, all photos", "teacher-mira", "top1"): 100 * 1653 / 2000,
        ("nearest photo has its class", "teacher-clip-b32", "leave one out, all photos"): 90.1,
        ("real benchmark questions", published.LLAVA, "scienceqa accuracy"): 100 * published.EXPECTED,
    }
    found = {(r.part, r.who, r.what): r.value for r in rows}
    return [
        f"{' / '.join(key)}: expected {value:.2f}, found {found.get(key, float('nan')):.2f}"
        for key, value in expected.items()
        if not abs(found.get(key, float("nan")) - value) < 0.051
    ]


def write(rows: list[Row], seconds: dict[str, float], out: Path) -> str:
    """`results.json` and `results.md` in `out`; returns the table."""
    body = {"rows": [asdict(row) for row in rows], "seconds": seconds}
    (out / "results.json").write_text(json.dumps(body, indent=1) + "\n")
    lines = ["| part | who | what | % | ± | n | chance |", "|---|---|---|--:|--:|--:|--:|"]
    for r in rows:
        chance = "" if r.chance is None else f"{r.chance:.1f}"
        lines.append(f"| {r.part} | {r.who} | {r.what} | {r.value:.2f} | {r.stderr:.2f} | {r.n} | {chance} |")
    lines += ["", "| step | seconds |", "|---|--:|", *(f"| {k} | {v:.0f} |" for k, v in seconds.items())]
    (out / "results.md").write_text("\n".join(lines) + "\n")
    return "\n".join(lines)
