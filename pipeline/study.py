"""`make study`: the distillation part over seeds and student architectures, with its report.

Its commands read `studies/seeds/params.yaml`; each keeps what it has finished, so a stopped study goes on.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from pipeline.demo import ROOT, environment

PARAMS = "studies/seeds/params.yaml"
OUT = Path("out/study")
KEPT = ROOT / "docs" / "study"


def commands() -> list[list[str]]:
    """What is run, in order."""
    models = OUT / "models"
    encoders = [
        part for folder in sorted((ROOT / models).glob("*-*")) for part in ("--model", str(models / folder.name))
    ]
    return [
        ["evalsuite", "zeroshot", "--params", PARAMS, *encoders, "--out", str(OUT / "zeroshot")],
        [
            "analysis",
            "report",
            "--params",
            PARAMS,
            "--zeroshot",
            str(OUT / "zeroshot"),
            "--eval",
            str(OUT / "eval"),
            "--cka",
            str(OUT / "cka"),
            "--out",
            str(OUT / "report"),
        ],
    ]


def main() -> int:
    """Train every cell, score it, report; keep the report in docs/study."""
    if not (ROOT / "data" / "world" / "pairs").is_dir():
        subprocess.run([sys.executable, "-m", "dvc", "repro", "world"], cwd=ROOT, env=environment(), check=True)
    start = time.monotonic()
    train = ["distill", "run", "--params", PARAMS, "--out", str(OUT / "models"), "--runs", str(OUT / "runs")]
    subprocess.run(train, cwd=ROOT, env=environment(), check=True)
    for command in commands():
        subprocess.run(command, cwd=ROOT, env=environment(), check=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    for file in (ROOT / OUT / "report").iterdir():
        shutil.copy(file, KEPT / file.name)
    print(f"\nDone in {(time.monotonic() - start) / 60:.0f} min: docs/study/report.html, report.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
