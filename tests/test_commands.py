"""What the four commands have in common."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
COMMANDS = {
    "distill": ("distill", "recipes", "recipe"),
    "vlm": ("vlm", "recipes", "recipe"),
    "evalsuite": ("evalsuite", "protocol", "protocoll"),
    "analysis": ("analysis", "n_bootstrap", "n_bootstraps"),
}
MODEL = {"evalsuite": ["--model", "contract/golden/encoder", "--out", "out"]}


def call(command: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([BIN / command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_run_has_params_set_dry_run_and_an_example(command):
    done = call(command, "run", "--help")
    assert done.returncode == 0
    for word in ("--params", "--set", "--dry-run"):
        assert word in done.stdout
    assert "Example" in done.stdout or "For instance" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_key_is_refused_with_line_and_nearest_name(command, tmp_path):
    section, right, wrong = COMMANDS[command]
    text = (ROOT / "params.yaml").read_text()
    head, start, body = text.partition(f"\n{section}:")
    params = tmp_path / "params.yaml"
    params.write_text(head + start + body.replace(f"\n  {right}:", f"\n  {wrong}x:", 1))
    done = call(command, "run", "--params", str(params), "--dry-run", *MODEL.get(command, []))
    assert done.returncode == 2
    said = done.stdout + done.stderr
    line = 1 + params.read_text().splitlines().index(
        next(x for x in params.read_text().splitlines() if f"{wrong}x:" in x)
    )
    assert f"params.yaml:{line}: {section}.{wrong}x: unknown key; did you mean '{right}'?" in said.replace("\n", " ")
