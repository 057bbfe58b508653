"""The kd-evalsuite wheel alone in an empty environment."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from pipeline.wheels import differences, python_of

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).parent / "uv"
HEAVY = ("torch", "transformers", "datasets", "mlflow", "scipy")


def call(*command: object, **options: object) -> str:
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1", "PYTHONPATH": ""}
    return subprocess.run(
        [str(c) for c in command], env=environment, capture_output=True, text=True, check=True, **options
    ).stdout


@pytest.fixture(scope="module", params=["3.11", "3.12"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("alone")
    base = python_of(request.param)
    if base is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    call(UV, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", ROOT / "packages" / "evalsuite")
    call(UV, "venv", "--quiet", "--python", base, folder / "venv")
    interpreter = folder / "venv" / "bin" / "python"
    wheel = next((folder / "dist").glob("*.whl"))
    assert differences(wheel, ROOT / "packages" / "evalsuite" / "src") == []
    call(
        UV,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "-c",
        ROOT / "constraints.txt",
        "--python",
        interpreter,
        wheel,
    )
    return interpreter


def test_help_answers_in_under_a_second(python, tmp_path):
    command = python.parent / "evalsuite"
    assert "predict" in call(command, "--help", cwd=tmp_path)  # once before the clock: files come into memory
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        call(command, "--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


def test_nothing_heavy_is_installed_or_imported(python, tmp_path):
    code = "import kd_evalsuite, sys; print([m for m in sys.modules if m.split('.')[0] in sys.argv[1:]])"
    assert call(python, "-c", code, *HEAVY, cwd=tmp_path).strip() == "[]"
    installed = call(UV, "pip", "list", "--python", python)
    assert not [line for line in installed.splitlines() if line.split(" ")[0] in ("torch", "transformers", "mlflow")]


def test_the_sixteen_tasks_are_listed(python, tmp_path):
    listed = call(python.parent / "evalsuite", "list", cwd=tmp_path)
    assert all(task in listed for task in ("mme_perception", "gqa", "docvqa", "mmvp", "cvbench_3d"))


def test_two_models_are_compared_and_reported_from_files_alone(python, tmp_path):
    score = {"benchmark": "gqa", "benchmark_version": "1", "metric": "accuracy", "best": 1, "stderr": 0.1, "n": 4}
    score |= {"n_unparsed": 0, "top_answer_share": 0.5}
    for name, right in (("a", 1), ("b", 3)):
        folder = tmp_path / name
        folder.mkdir()
        items = [{"task": "gqa", "id": str(k), "cluster": str(k), "score": float(k < right)} for k in range(4)]
        (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        model = {"kind": "vlm", "name": name, "sha256": name * 64}
        whole = {"schema": "kd-scores/1", "model": model, "blind": False, "scores": [score | {"value": right / 4}]}
        (folder / "scores.json").write_text(json.dumps(whole))
    assert "not resolvable" in call(python.parent / "evalsuite", "compare", "a", "b", cwd=tmp_path)
    call(python.parent / "evalsuite", "report", "a", "b", "--out", "out", cwd=tmp_path)
    assert "not resolvable" in (tmp_path / "out/report.html").read_text()


def test_an_extra_that_is_missing_is_named(python, tmp_path):
    (tmp_path / "vlm").mkdir()
    (tmp_path / "vlm/config.json").write_text("{}")
    mmvp = tmp_path / "data/mmvp"
    (mmvp / "MMVP Images").mkdir(parents=True)
    rows = ["Index,Question,Options,Correct Answer", *(f"{k},Which?,(a) one (b) two,(a)" for k in (1, 2))]
    (mmvp / "Questions.csv").write_text("\n".join(rows) + "\n")
    for k in (1, 2):
        (mmvp / f"MMVP Images/{k}.jpg").write_bytes(b"not looked at")
    models = {"vlm": "torch", "http://127.0.0.1:9/v1": "api", "models:/some-vlm": "mlflow", "hf:some/vlm": "hub"}
    for model, extra in models.items():
        command = [python.parent / "evalsuite", "run", "--tasks", "mmvp", "--data", "data", "--out", "out", "--model"]
        done = subprocess.run([*command, model], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert f"pip install 'kd-evalsuite[{extra}]'" in " ".join(done.stderr.split())


def test_a_wheel_that_lacks_a_file_of_its_source_or_holds_another_is_seen(tmp_path):
    source = tmp_path / "src/kd_some"
    source.mkdir(parents=True)
    for name in ("__init__.py", "recipe.json"):
        (source / name).touch()
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        for name in ("kd_some/__init__.py", "kd_some/old.py", "kd_some-1.dist-info/METADATA"):
            wheel.writestr(name, "")
    assert differences(tmp_path / "some.whl", tmp_path / "src") == [
        "kd_some/recipe.json is not in the wheel",
        "kd_some/old.py is not in the source",
    ]
