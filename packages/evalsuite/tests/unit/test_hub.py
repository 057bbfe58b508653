"""Fetching benchmarks: at a commit, with the digest of every file; the hub is a folder here."""

import shutil
from fnmatch import fnmatch

import pytest
from kd_evalsuite.checks import examine
from kd_evalsuite.cli import app
from kd_evalsuite.data import load_task
from kd_evalsuite.hub import Api, fetch, read_source
from kd_evalsuite.items import DataError
from kd_evalsuite.tasks import EVERY
from typer.testing import CliRunner


def hub_of(root, commits):
    """A hub that serves the fixtures' files; `commits` is what a revision means there."""

    def download(dataset, commit, patterns, folder):
        keys = {t.folder or t.key for t in EVERY.values() if t.hub.dataset == dataset}
        for place, file in ((root / key, file) for key in keys for file in sorted((root / key).rglob("*"))):
            name = file.relative_to(place).as_posix()
            if file.is_file() and any(fnmatch(name, pattern) for pattern in patterns):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder / name)

    pins = {t.hub.revision for t in EVERY.values()}
    return Api(lambda dataset, revision: commits[None if revision in pins else revision], download)


@pytest.mark.parametrize("key", EVERY)
def test_a_fetched_benchmark_is_read_like_any_other(key, benchmark_root, tmp_path):
    """The patterns of each task match the names of its files on the hub."""
    folder = fetch(key, tmp_path, api=hub_of(benchmark_root, {None: "c" * 40}))
    data = load_task(tmp_path, key)
    assert len(data.items) == len(load_task(benchmark_root, key).items)
    source = read_source(folder)
    assert (source.dataset, source.revision) == (EVERY[key].hub.dataset, "c" * 40)
    assert all(len(digest) == 64 for digest in source.files.values())


def test_a_second_fetch_asks_for_the_commit_of_the_first(benchmark_root, tmp_path):
    fetch("gqa", tmp_path, api=hub_of(benchmark_root, {None: "a" * 40}))
    asked = {"a" * 40: "a" * 40, "b" * 40: "b" * 40}
    fetch("gqa", tmp_path, api=hub_of(benchmark_root, asked))
    with pytest.raises(DataError, match="was fetched from lmms-lab/GQA@aaaaaaaa, asked for is lmms-lab/GQA@bbbbbbbb"):
        fetch("gqa", tmp_path, revision="b" * 40, api=hub_of(benchmark_root, asked))


def test_files_from_elsewhere_are_not_touched_and_an_empty_data_set_is_refused(benchmark_root, tmp_path):
    (tmp_path / "gqa").mkdir()
    (tmp_path / "gqa/mine.json").write_text("[]")
    with pytest.raises(DataError, match="files that were not fetched"):
        fetch("gqa", tmp_path, api=hub_of(benchmark_root, {None: "a" * 40}))
    nothing = Api(lambda dataset, revision: "a" * 40, lambda *_: None)
    with pytest.raises(DataError, match=r"has no data/test-\*.parquet; name another --dataset"):
        fetch("ai2d", tmp_path, api=nothing)


def test_doctor_sees_files_that_changed_and_that_fetched_data_are_not_whole(benchmark_root, tmp_path):
    folder = fetch("mmvp", tmp_path, api=hub_of(benchmark_root, {None: "a" * 40}))
    assert examine(tmp_path, "mmvp").problems == ("12 items, the public data set has 300",)
    (folder / "MMVP Images/2.jpg").write_bytes(b"other")
    (folder / "MMVP Images/3.jpg").unlink()
    problems = " ".join(examine(tmp_path, "mmvp").problems)
    assert "MMVP Images/2.jpg is not as it was fetched from MMVP/MMVP@aaaaaaaa" in problems
    assert "MMVP Images/3.jpg of MMVP/MMVP@aaaaaaaa is not there any more" in problems


def test_nothing_is_fetched_unless_asked(tmp_path):
    done = CliRunner().invoke(app, ["fetch", "all", "--data", str(tmp_path / "x"), "--dry-run"])
    assert done.exit_code == 0
    assert done.output.count("would fetch") == 16
    assert not (tmp_path / "x").exists()
