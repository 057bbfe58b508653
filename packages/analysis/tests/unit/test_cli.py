import subprocess
import sys
from pathlib import Path

import kd_analysis
import pytest
from kd_analysis.cli import app
from kd_analysis.config import AnalysisParams
from typer.testing import CliRunner


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("command", ["cka", "features", "heatmap", "merge", "report", "run", "publish"])
def test_every_command_shows_examples(command):
    found = call(command, "--help")
    assert found.exit_code == 0
    assert "For instance" in found.output
    assert f"analysis {command}" in found.output


def test_the_command_line_loads_nothing_heavy():
    heavy = "torch, mlflow, scipy, matplotlib, numpy, open_clip, pyarrow, jinja2"
    code = f"import sys, kd_analysis.cli; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tapp=pooled", "did you mean 'tap'"),
        ("tap=middle", "analysis.tap"),
        ("level=1.5", "analysis.level"),
        ("n_bootstrap=ten", "analysis.n_bootstrap"),
    ],
)
def test_wrong_parameters_are_refused_before_any_work(params_file, override, words):
    found = call("report", "--params", params_file(), "--set", override)
    assert found.exit_code == 2
    assert words in found.output


def test_missing_inputs_end_with_two_and_say_what_to_do(params_file, tmp_path):
    params = params_file(benchmarks=str(tmp_path / "none"), refs=str(tmp_path))
    assert call("report", "--params", params, "--zeroshot", tmp_path / "none").exit_code == 2
    found = call("cka", "--params", params)
    assert found.exit_code == 2
    assert "analysis.benchmarks" in found.output
    (tmp_path / "none").mkdir()
    assert "Distil and register first" in call("cka", "--params", params).output
    assert call("publish", "--params", params, "--cka", tmp_path / "nothing").exit_code == 2


def test_a_task_without_a_folder_is_named(params_file, tmp_path):
    (tmp_path / "bench" / "gqa").mkdir(parents=True)
    found = call("cka", "--params", params_file(benchmarks=str(tmp_path / "bench"), tasks=["gqa", "mmpv"]))
    assert found.exit_code == 2
    assert "mmpv" in found.output


def test_students_and_teachers_go_in_pairs(params_file, tmp_path):
    (tmp_path / "bench" / "gqa").mkdir(parents=True)
    found = call("cka", "--params", params_file(benchmarks=str(tmp_path / "bench")), "--student", "a")
    assert found.exit_code == 2
    assert "go in pairs" in found.output


def test_an_interrupted_command_ends_with_130(params_file, monkeypatch):
    from kd_analysis import commands

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "report", stop)
    assert call("report", "--params", params_file()).exit_code == 130


def test_a_changed_model_ends_with_five(params_file, monkeypatch):
    from kd_analysis import commands_similarity
    from kd_analysis.tracking import IntegrityError

    def changed(*_, **__):
        raise IntegrityError("other files")

    monkeypatch.setattr(commands_similarity, "cka", changed)
    assert call("cka", "--params", params_file()).exit_code == 5


def test_the_defaults_are_valid():
    assert AnalysisParams().tap == "pooled"


def test_only_one_module_of_each_kind_knows_torch_and_mlflow():
    source = Path(kd_analysis.__file__).parent
    encoders = {"features.py", "towers.py", "vlms.py"}
    tokens = {"visual_tokens.py", "vision_cache.py"}
    owners = {"torch": encoders | tokens, "open_clip": encoders, "transformers": {"vlms.py"}, "mlflow": {"tracking.py"}}
    for library, known in owners.items():
        lines = (f"import {library}", f"from {library} import", f"from {library}.")
        users = {p.name for p in source.rglob("*.py") if any(line in p.read_text() for line in lines)}
        assert users
        assert users <= known


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{root}/photos", "photos"),
        ("{root}/year=2020", "year-2020"),
        ("gqa={root}/year=2020", "gqa"),
        ("{root}/photos/*.png", "photos"),
        ("{root}/photos/0000*.png", "0000"),
    ],
)
def test_a_source_of_images_is_called_by_its_name_or_its_folder(tmp_path, text, name):
    from kd_analysis.commands_similarity import sources_of

    for folder in ("photos", "year=2020"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "00001.png").write_bytes(b"")
    ((task, path),) = sources_of(AnalysisParams(), [text.format(root=tmp_path)]).items()
    assert task == name
    assert path.name == text.rpartition("/")[2]
