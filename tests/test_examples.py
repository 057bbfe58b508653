"""The changes that CONTRIBUTING.md shows apply to the code as it is, and their tests pass."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGES = {  # package, its tests, which of them are run (pytest's -k), and what must be among these
    "add-a-loss": ("distill", ["tests/unit/test_huber.py", "tests/unit/test_task.py"], "huber", "[huber]"),
    "add-a-student": ("distill", ["tests/unit/test_students.py"], "vit-s-16", "[vit-s-16]"),
    "add-a-benchmark": (
        "evalsuite",
        ["tests/unit/test_mmstar.py", "tests/unit/test_single.py"],
        "mmstar",
        "best_score_and_silence_none[mmstar]",
    ),
    "add-a-figure": ("analysis", ["tests/unit/test_plots.py"], "plots", "test_teacher_against_student"),
}


def test_each_change_applies_and_its_tests_pass(tmp_path):
    """All of a package's in one process, which imports torch once."""
    packages: dict[str, list[str]] = {}
    chosen: dict[str, list[str]] = {}
    wanted: dict[str, list[str]] = {}
    for change, (package, tests, word, name) in CHANGES.items():
        copy = tmp_path / "packages" / package
        if not copy.exists():
            shutil.copytree(ROOT / "packages" / package, copy, ignore=shutil.ignore_patterns("*.egg-info", "build"))
        diff = ROOT / "docs" / "examples" / f"{change}.diff"
        subprocess.run(["git", "apply", "--verbose", str(diff)], cwd=tmp_path, check=True)
        packages.setdefault(package, []).extend(f"packages/{package}/{test}" for test in tests)
        chosen.setdefault(package, []).append(word)
        wanted.setdefault(package, []).append(name)
    for package, tests in packages.items():
        # the copied package comes before the installed one
        env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'packages' / package / 'src'}{os.pathsep}{tmp_path}"}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", "-v"]
        command += ["-k", " or ".join(chosen[package]), *tests]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for name in wanted[package]:
            assert name in done.stdout


def test_contributing_shows_each_change():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for diff in (ROOT / "docs" / "examples").glob("*.diff"):
        assert diff.stem in CHANGES
        assert f"docs/examples/{diff.name}" in text
