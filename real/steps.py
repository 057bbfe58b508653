"""The commands of `make real`, in order. What has been done from the same inputs is not done again."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from real.mira import SCALE
from real.sources import ROOT

OUT = Path("out/real")
DATA, MODELS, RUNS, REFS, MARKS = OUT / "data", OUT / "models", OUT / "runs", OUT / "refs", OUT / "done"
PREDICTIONS, EVAL, ZEROSHOT = OUT / "predictions", OUT / "eval", OUT / "zeroshot"
PAIRS, ALONE = "student-vit--none--pairs", "student-vit--none--alone"
FROM_MIRA, FROM_CLIP = "student-vit--mira--clip-kd", "student-vit512--clip-b32--fd-image"
VLM = "vlm-student-vit-mira-clip-kd--stories260k--llava"
FLICKR, PARAMS = "real/flickr8k.yaml", "real/params.yaml"


@dataclass(frozen=True)
class Step:
    """One command, and the folder of code that it runs."""

    name: str
    command: list[str]
    code: str


def steps() -> list[Step]:
    """All of them; every number stands in the two parameter files."""
    params, trained = ["--params", PARAMS], ["--out", str(MODELS), "--runs", str(RUNS)]
    embedded = DATA / "fashion" / "embeddings"
    encoders = [str(MODELS / name) for name in (PAIRS, ALONE, FROM_MIRA, FROM_CLIP)]
    judged = [part for name in (ALONE, FROM_MIRA) for part in ("--model", str(REFS / f"{name}.json"))]
    mira = ["--name", "teacher-mira", "--image", f"{embedded}/mira_image.npy", "--text", f"{embedded}/mira_text.npy"]
    clip = ["--name", "teacher-clip-b32", "--image", f"{embedded}/clip_b32_image.npy"]
    zeroshot = ["evalsuite", "zeroshot", *params, *judged]
    plan = [
        ("a student on Flickr8k pairs", ["distill", "run", "--params", FLICKR, "--cell", PAIRS, *trained]),
        ("MIRA's embeddings as a cache", ["distill", "import-cache", *params, *mira, "--scale", f"{SCALE:.4f}"]),
        ("OpenAI CLIP's embeddings as a cache", ["distill", "import-cache", *params, *clip]),
        ("a student without a teacher", ["distill", "run", *params, "--cell", ALONE, *trained]),
        ("a student of MIRA", ["distill", "run", *params, "--cell", FROM_MIRA, *trained]),
        ("a student of OpenAI CLIP", ["distill", "run", *params, "--cell", FROM_CLIP, *trained]),
        ("encoders into the registry", ["distill", "register", *encoders, "--refs", str(REFS)]),
        ("zero-shot, held-out photos", [*zeroshot, "--out", str(ZEROSHOT / "held_out")]),
        (
            "zero-shot, all photos",
            [*zeroshot, "--set", f"zeroshot.data={DATA}/fashion/classes_all", "--out", str(ZEROSHOT / "all")],
        ),
        ("a VLM with stories260K", ["vlm", "run", *params, "--cell", VLM, *trained]),
        ("the VLM into the registry", ["vlm", "register", str(MODELS / VLM), "--refs", str(REFS)]),
        (
            "answers to real questions",
            [
                "evalsuite",
                "predict",
                *params,
                "--model",
                f"{REFS}/{VLM}.json",
                "--out",
                f"{PREDICTIONS}/{VLM}",
                "--replace",
            ],
        ),
        ("scores", ["evalsuite", "score", *params, "--predictions", str(PREDICTIONS), "--out", str(EVAL)]),
        (
            "scores into the registry",
            ["evalsuite", "publish", str(ZEROSHOT / "held_out"), str(EVAL / VLM)],
        ),
    ]
    return [Step(name, command, f"packages/{command[0]}/src") for name, command in plan]


def run(step: Step, before: str) -> str:
    """Run `step` unless it was done from the same inputs; returns its key, which the next step depends on.

    Raises:
        CalledProcessError: If the command fails.
    """
    parts = [before, json.dumps(step.command), *(digest_of([ROOT / f]) for f in (FLICKR, PARAMS, "real/architectures"))]
    key = hashlib.sha256("".join([*parts, digest_of([ROOT / step.code])]).encode()).hexdigest()
    mark = ROOT / MARKS / f"{step.name.replace(' ', '-').replace(',', '')}.json"
    if mark.is_file() and json.loads(mark.read_text())["key"] == key:
        print(f"[done]  {step.name}")
        return key
    print(f"[runs]  {step.name}: {' '.join(step.command)}", flush=True)
    start = time.monotonic()
    subprocess.run(step.command, cwd=ROOT, env=environment(), check=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps({"key": key, "seconds": round(time.monotonic() - start, 1)}) + "\n")
    return key


def environment() -> dict[str, str]:
    """The commands of this virtual environment first, no network, a tracking database of our own."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{ROOT / OUT / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_OFFLINE": "1",
    }


def seconds() -> dict[str, float]:
    """How long each step took when it last ran."""
    marks = sorted((ROOT / MARKS).glob("*.json"), key=lambda file: file.stat().st_mtime)
    return {file.stem: json.loads(file.read_text())["seconds"] for file in marks}


def digest_of(places: Iterable[Path]) -> str:
    """A sha256 over the names and contents of Python, YAML and JSON files."""
    whole = hashlib.sha256()
    for place in places:
        for file in [place] if place.is_file() else sorted(place.rglob("*")):
            if file.suffix in (".py", ".yaml", ".json", ".jinja"):
                whole.update(f"{file.relative_to(ROOT)} ".encode() + file.read_bytes())
    return whole.hexdigest()
