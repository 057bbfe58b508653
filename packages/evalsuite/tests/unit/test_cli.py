import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from kd_evalsuite.cli import app
from kd_evalsuite.config import params_from
from kd_evalsuite.options_model import given
from typer.testing import CliRunner

RUN = CliRunner()


def fastest(code: list[str], times: int = 3) -> float:
    """Least CPU time of some runs, so that a busy machine does not decide."""
    spent = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def test_import_and_help_are_fast():
    bare = fastest(["-c", "pass"])
    assert fastest(["-c", "import kd_evalsuite"]) - bare < 0.3
    assert fastest(["-c", "from kd_evalsuite.cli import app; app(['--help'])"]) < 1


def test_nothing_heavy_is_imported_for_help_and_list():
    code = (
        "import sys\nfrom kd_evalsuite.cli import app\n"
        "try:\n    app(['list'])\nexcept SystemExit:\n    pass\n"
        "names = 'torch transformers mlflow scipy pandas numpy pyarrow open_clip'\n"
        "heavy = set(names.split()) & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def params(benchmark_root, tmp_path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(f"evalsuite:\n  data: {benchmark_root}\n  zeroshot:\n    data: nowhere\n")
    return path


COMMANDS = ["run", "predict", "score", "rescore", "zeroshot", "list", "show", "publish", "doctor", "baselines", "fetch"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    done = RUN.invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Example" in done.output


def test_show_prints_the_prompt(params):
    done = RUN.invoke(app, ["show", "mmvp", "--params", str(params)])
    assert done.exit_code == 0
    assert "Answer with the option's letter from the given choices directly." in done.output
    done = RUN.invoke(app, ["show", "mathvista", "--item", "3", "--params", str(params)])
    assert "gold: [1, 2]" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "limt=3"], "did you mean 'limit'"),
        (["--set", "tasks=[gqaa]"], "did you mean 'gqa'"),
        (["--set", "protocol=papr"], "known: paper"),
        (["--set", "limit=0"], "greater than 0"),
        (["--set", "data=nowhere"], "Expected a benchmark folder"),
    ],
)
def test_wrong_parameters_and_data_are_refused_before_any_work(params, tmp_path, arguments, said):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    command = ["predict", "--params", str(params), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    done = RUN.invoke(app, [*command, *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_predict_asks_no_benchmark_where_zeroshot_was_meant(params, tmp_path):
    command = ["predict", "--params", str(params), "--model", "a", "--tasks", "zeroshot", "--out", str(tmp_path)]
    done = RUN.invoke(app, command)
    assert done.exit_code == 2
    assert "--tasks zeroshot asks no questions: use `evalsuite run`" in " ".join(done.output.split())


def test_predict_wants_a_model_or_best_of(params, tmp_path):
    done = RUN.invoke(app, ["predict", "--params", str(params), "--out", str(tmp_path)])
    assert done.exit_code == 2


def test_an_encoder_answers_no_questions(params, tmp_path):
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc/open_clip_config.json").write_text("{}")
    command = ["--params", str(params), "--model", str(tmp_path / "enc"), "--out", str(tmp_path / "out")]
    for arguments, said in [
        (["predict"], "expected a VLM"),
        (["run", "--tasks", "gqa"], "expected --tasks zeroshot"),
        (["run", "--tasks", "zeroshot", "--data", "nowhere"], "nowhere"),
    ]:
        done = RUN.invoke(app, [*arguments, *command])
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())


@pytest.fixture
def classifying(tmp_path, monkeypatch):
    """A folder that is taken for an encoder, and what is classified by how: (section, device) a call."""
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc/open_clip_config.json").write_text("{}")
    seen = []
    monkeypatch.setattr(
        "kd_evalsuite.commands_zeroshot.zeroshot", lambda section, *_, device, **__: seen.append((section, device))
    )
    return tmp_path / "enc", seen


def test_an_encoder_is_run_with_the_options_that_were_given(classifying, params, tmp_path):
    encoder, seen = classifying
    command = ["run", "--model", str(encoder), "--out", str(tmp_path / "out"), "--tasks"]
    assert RUN.invoke(app, [*command, "zeroshot", "--limit", "5", "--batch-size", "8"]).exit_code == 0
    assert RUN.invoke(app, [*command, "imagenet", "--params", str(params), "--set", "limit=3"]).exit_code == 0
    (given, _), (of_file, _) = seen
    assert (given.limit, given.batch_size) == (5, 8)
    assert (of_file.limit, of_file.batch_size, str(of_file.data), of_file.names) == (None, 256, "nowhere", "imagenet")


def test_zeroshot_puts_options_over_the_parameters_of_a_file(classifying, params, tmp_path, monkeypatch):
    encoder, seen = classifying
    monkeypatch.chdir(params.parent)
    params.write_text("evalsuite:\n  device: cuda\n  zeroshot: {data: nowhere, limit: 9, names: imagenet}\n")
    command = ["zeroshot", "--model", str(encoder), "--out", str(tmp_path / "out")]
    for arguments in (
        ["--data", "d"],
        ["--workers", "3"],
        ["--data", "d", "--params", "params.yaml", "--set", "zeroshot.limit=5", "--names", "folder", "--device", "cpu"],
    ):
        done = RUN.invoke(app, [*command, *arguments])
        assert done.exit_code == 0, done.output
    assert [(str(s.data), s.limit, s.names, s.workers, device) for s, device in seen] == [
        ("d", None, "folder", 1, "cpu"),
        ("nowhere", 9, "imagenet", 3, "cuda"),
        ("d", 5, "folder", 1, "cpu"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "zeroshot.limit=5"], "expected --params FILE"),
        (["--names", "own"], "error: --names: Input should be 'folder' or 'imagenet'"),
        (["--workers", "0"], "error: --workers: Input should be greater than 0"),
    ],
)
def test_zeroshot_refuses_what_could_not_apply(classifying, tmp_path, arguments, said):
    encoder, seen = classifying
    command = ["zeroshot", "--model", str(encoder), "--data", "d", "--out", str(tmp_path / "out")]
    done = RUN.invoke(app, [*command, *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not seen


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--blind"], "--blind"),
        (["--replace"], "--replace"),
        (["--shard", "1/2"], "--shard (or torchrun)"),
        (["--mode", "generate"], "--mode"),
        (["--protocol", "paper", "--verify-batch", "2"], "--protocol, --verify-batch"),
        (["--dtype", "float16"], "--dtype"),
        (["--feature-cache", "kept"], "--feature-cache"),
        (["--concurrency", "4", "--timeout", "9"], "--concurrency, --timeout"),
    ],
)
def test_options_that_mean_nothing_to_an_encoder_are_refused_by_name(classifying, tmp_path, arguments, named):
    encoder, seen = classifying
    command = ["run", "--model", str(encoder), "--tasks", "zeroshot", "--out", str(tmp_path / "out")]
    done = RUN.invoke(app, [*command, *arguments])
    assert done.exit_code == 2
    assert f"so it has no {named}. Leave that out" in " ".join(done.output.split())
    assert not seen


def test_run_needs_no_parameter_file(benchmark_root, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    command = ["run", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--dry-run"]
    done = RUN.invoke(app, [*command, "--tasks", "gqa, mmvp", "--data", str(benchmark_root), "--limit", "4"])
    assert done.exit_code == 0, done.output
    assert "gqa: 4 items" in done.output
    assert "mmvp: 4 items" in done.output
    assert "mmmu" not in done.output


def test_an_option_of_a_section_leaves_the_files_other_values_in_it(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("evalsuite:\n  limit: 3\n  endpoint: {timeout: 600, tries: 9}\n")
    found = params_from(file, ["endpoint.tries=8"], given(None, 4, None, batch_size=2, device=None))
    assert found.endpoint.model_dump() == {"concurrency": 4, "timeout": 600, "tries": 8}
    assert (found.limit, found.batch_size) == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "gqaa"], "--tasks: Value error, unknown task 'gqaa'; did you mean 'gqa'?"),
        (["--limit", "0"], "--limit: Input should be greater than 0"),
        (["--device", "gpu"], "--device: Value error, expected cpu, cuda, cuda:N or mps (got 'gpu')"),
        (["--device", "cuda:-1"], "expected cpu, cuda, cuda:N or mps"),
        (["--timeout", "-1"], "error: --timeout: Input should be greater than 0 (got -1.0)"),
        (["--concurrency", "0"], "error: --concurrency: Input should be greater than 0"),
        (["--mode", "guess"], "--mode: Input should be 'generate' or 'loglikelihood'"),
        (["--protocol", "papr"], "--protocol: Value error, unknown protocol 'papr'"),
        (["--shard", "3/2"], "Expected a shard from 1/n to n/n"),
        (["--set", "limit=3"], "expected --params FILE"),
        (["--model", "plugin:none"], "Expected one plugin 'none'"),
        (["--model", "hf:none"], "Expected hf:owner/name"),
    ],
)
def test_wrong_options_are_refused_by_name(benchmark_root, tmp_path, arguments, said):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    command = ["run", "--model", str(tmp_path / "model"), "--data", str(benchmark_root), "--out", str(tmp_path / "out")]
    done = RUN.invoke(app, [*command, *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_the_hub_is_not_asked_when_the_environment_says_so(tmp_path):
    command = [sys.executable, "-m", "kd_evalsuite", "run", "--model", "hf:owner/name", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "The Hub gave no owner/name" in " ".join(done.stderr.split())


def test_dry_run_says_what_would_be_done_and_writes_nothing(params, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    command = ["predict", "--params", str(params), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    done = RUN.invoke(app, [*command, "--dry-run"])
    assert done.exit_code == 0
    assert "gqa: 12 items, 0 done" in done.output
    assert not (tmp_path / "out").exists()
