"""Inputs as the other stages write them, from a small model of skill and difficulty."""

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kd_analysis.similarity import Record, write_records
from kd_analysis.tasks import TASKS

STUDENTS = ("student-vit--large--clip-kd", "student-vit--small--clip-kd", "student-vit--none--clip")
TEACHERS = ("teacher-large", "teacher-small")
SKILL = {"teacher-large": 1.3, "teacher-small": 0.8, STUDENTS[0]: 0.42, STUDENTS[1]: 0.4, STUDENTS[2]: -0.1}
SEES = {"blind": -1.2}


def sha(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}" * 8


def draw(name: str, task: str, skill: float, n: int, chance: float) -> np.ndarray:
    """Right or wrong for each item: item difficulty is shared by all models, luck is the model's own."""
    difficulty = np.random.default_rng([zlib.crc32(task.encode()), 1]).normal(0, 1.4, n)
    luck = np.random.default_rng([zlib.crc32(f"{name}|{task}".encode()), 2]).random(n)
    p = chance + (1 - chance) / (1 + np.exp(-(1.5 * skill - difficulty)))
    return (luck < p).astype(float)


def write_model(
    root: Path, name: str, tasks: dict[str, tuple[int, float, int]], skill: float, *, blind: bool = False
) -> None:
    """`scores.json` and `items.jsonl` of one model; `tasks` gives items, chance and items a cluster."""
    folder = root / f"{name}{'-blind' if blind else ''}"
    folder.mkdir(parents=True)
    scores: list[dict[str, Any]] = []
    with (folder / "items.jsonl").open("w") as lines:
        for task, (n, chance, size) in tasks.items():
            right = draw(f"{name}{blind}", task, skill, n, chance)
            for i, one in enumerate(right):
                row = {"task": task, "id": f"{task}-{i}", "cluster": f"image-{i // size}", "score": one}
                lines.write(json.dumps(row) + "\n")
            best = 2000.0 if task == "mme_perception" else 1.0
            stderr = float(right.std(ddof=1)) / n**0.5
            scores.append(
                {
                    "benchmark": task, "benchmark_version": "paper-1+12345678",
                    "metric": "top1" if task == "zeroshot" else "accuracy",
                    "value": best * right.mean(), "best": best, "stderr": best * stderr, "n": n, "n_unparsed": 0,
                    "top_answer_share": 0.3, "chance": best * chance if chance else None if task == "docvqa" else 0.0,
                }
            )  # fmt: skip
    kind = name.partition("-")[0]
    model = {"kind": kind, "name": name, "sha256": sha(name)}
    whole = {"schema": "kd-scores/1", "model": model, "blind": blind, "scores": scores}
    (folder / "scores.json").write_text(json.dumps(whole))


def vlm_name(encoder: str) -> str:
    return f"vlm-{encoder.replace('--', '-')}--lm-tiny--llava"


def write_zeroshot(root: Path, skills: dict[str, float], n: int = 960) -> None:
    for name, skill in skills.items():
        write_model(root, name, {"zeroshot": (n, 1 / 48, 1)}, skill)


def write_eval(root: Path, skills: dict[str, float], n: int = 240, tasks: Sequence[str] = tuple(TASKS)) -> None:
    """VLMs of every encoder, and the first one blind."""
    chances = {"mme_perception": 0.375, "mmvp": 0.25, "cvbench_3d": 0.5, "chartqa": 0.0, "docvqa": 0.1, "ocrbench": 0.0}
    layout = {t: (n, chances.get(t, 0.25), 2 if t in ("mmvp", "mme_perception") else 1) for t in tasks}
    for name, skill in skills.items():
        write_model(root, vlm_name(name), layout, skill - 0.3)
    write_model(root, vlm_name(next(iter(skills))), layout, SEES["blind"], blind=True)


def write_cka(folder: Path, students: Sequence[str] = STUDENTS, tasks: Sequence[str] = tuple(TASKS)) -> None:
    rng = np.random.default_rng(5)
    records = []
    for student in students:
        for teacher in TEACHERS:
            own = f"--{teacher.removeprefix('teacher-')}--" in student
            relation = "own teacher" if own else "no teacher" if "--none--" in student else "other teacher"
            middle = {"own teacher": 0.74, "other teacher": 0.6, "no teacher": 0.5}[relation]
            kinds = [(relation, middle)] + ([("untrained", 0.31)] if relation != "other teacher" else [])
            for kind, centre in kinds:
                for estimator, plus in (("debiased", 0.0), ("biased", 0.08)):
                    for task in tasks:
                        v = float(np.clip(centre + plus + rng.normal(0, 0.06), -1, 1))
                        records.append(
                            Record(
                                student, teacher, kind, "pooled", estimator, task, v, v - 0.05, v + 0.05, 0.0255, 128,
                                60.0 if estimator == "debiased" else None, "", sha(student), sha(teacher),
                            )
                        )  # fmt: skip
    folder.mkdir(parents=True)
    write_records(folder / "cka.json", records)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A whole study with one seed: zeroshot/, eval/ and cka/."""
    write_whole(tmp_path)
    return tmp_path


def write_whole(root: Path) -> None:
    write_zeroshot(root / "zeroshot", SKILL)
    write_eval(root / "eval", SKILL)
    write_cka(root / "cka")


@pytest.fixture(scope="session")
def write_study() -> Callable[[Path], None]:
    return write_whole


@pytest.fixture
def seeded(tmp_path: Path) -> Path:
    """Zero-shot results of two architectures over three seeds; no VLMs."""
    write_seeded(tmp_path / "zeroshot")
    return tmp_path


def write_seeded(root: Path, spread: float = 0.05) -> None:
    rng = np.random.default_rng(9)
    skills = {t: SKILL[t] for t in TEACHERS}
    for arch, plus in (("vit", 0.0), ("convnet", 0.3)):
        for teacher, gain, recipe in (("large", 0.42, "clip-kd"), ("small", 0.4, "clip-kd"), ("none", -0.1, "clip")):
            for seed in range(3):
                suffix = f"-s{seed}" if seed else ""
                skills[f"student-{arch}--{teacher}--{recipe}{suffix}"] = gain + plus + float(rng.normal(0, spread))
    write_zeroshot(root, skills)


@pytest.fixture
def params_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a params.yaml whose `analysis` section has these values."""

    def write(**values: Any) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(json.dumps({"analysis": {"n_bootstrap": 300, **values}}))
        return path

    return write


@pytest.fixture(name="write_zeroshot")
def _write_zeroshot() -> Callable[..., None]:
    return write_zeroshot
