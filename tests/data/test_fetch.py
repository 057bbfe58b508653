"""The paper's data sets come from servers that hold them in their true layouts, and the study's readers accept them."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.data import fetch
from pipeline.data.download import Remote, client
from pipeline.data.errors import DataError, SpaceError
from pipeline.data.spec import DataFile, read_spec

from .served import ROOT, environment, papers_data, serve_world
from .server import FileServer, serving

pytestmark = pytest.mark.xdist_group("data")  # one worker fetches for all
NOWHERE = "http://127.0.0.1:9"  # discard: nothing answers there
LEFT = {"imagenet-val", "mix665k", "benchmarks"}  # two need a person; public benchmarks are larger than these


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(serve_world(tmp_path_factory.mktemp("world"))) as server:
        yield server


def run(command: str, spec: Path, hub: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline.data COMMAND` in a process of its own."""
    line = [sys.executable, "-m", "pipeline.data", command, *arguments, "--data", str(spec), "--workers", "1"]
    return subprocess.run(line, cwd=ROOT, env=environment(hub), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def here(server, tmp_path_factory) -> tuple[Path, DataFile, str]:
    """The data of a new user: asked for, fetched, completed by hand, fetched again. What the first fetch said, too."""
    home = tmp_path_factory.mktemp("home")
    file = papers_data(home / "data.yaml", home, server.url)
    asked = run("fetch", file, server.url, "--dry-run")
    assert asked.returncode == 0, asked.stderr
    assert not (home / "datasets").exists() or not any(p.is_file() for p in (home / "datasets").rglob("[!.]*"))
    first = run("fetch", file, server.url)
    spec = read_spec(file)
    assert {name for name in spec.datasets if not spec.manifest(name).is_file()} == LEFT, first.stderr
    hand = server.folder.parent / "hand"
    shutil.copytree(hand / "ocr_vqa", spec.folder("mix665k") / "ocr_vqa")
    shutil.copytree(hand / "val", spec.folder("imagenet-val"))
    for source in spec.folder("benchmarks").rglob(".source.json"):
        source.unlink()  # somebody's own benchmarks may be smaller than the public ones
    assert run("check", file, NOWHERE, "benchmarks").returncode == 0
    server.requests.clear()
    second = run("fetch", file, server.url)
    assert second.returncode == 0, second.stderr
    return file, spec, asked.stdout + first.stdout + first.stderr


def test_a_fetch_says_what_it_will_bring_and_what_a_person_has_to(here):
    _, spec, said = here
    for name in ("cc12m-shards", "llava-pretrain", "mix665k", "bunny-pretrain", "benchmarks"):
        assert f"{name}: " in said
        assert f"GB to fetch to {spec.folder(name)}" in said
    assert "By hand: Ask for access at https://image-net.org" in said
    assert "By hand: OCR-VQA's book covers" in said
    assert "2 pictures are missing: ocr_vqa/images/" in said
    assert "mme_perception: 40 items, the public data set has 2114" in said


def test_manifests_pin_commits_sizes_and_digests_and_name_no_machine(here):
    file, spec, _ = here
    for name in spec.datasets:
        text = spec.manifest(name).read_text()
        assert str(file.parent) not in text
    manifest = json.loads(spec.manifest("llava-pretrain").read_text())
    assert manifest["counts"] == {"pictures": 12, "rows": 12, "text_only": 0}
    (pin,) = manifest["sources"]
    assert (pin["source"], pin["revision"]) == ("liuhaotian/LLaVA-Pretrain", "c" * 40)
    assert set(pin["files"]) == {"blip_laion_cc_sbu_558k.json", "images.zip"}
    assert all(len(kept["sha256"]) == 64 and kept["bytes"] > 0 for kept in pin["files"].values())
    pins = json.loads(spec.manifest("mix665k").read_text())["sources"]
    assert [len(pin["files"]) for pin in pins] == [1] * 6
    assert all(kept["sha256"] for pin in pins for kept in pin["files"].values())


def test_what_is_verified_is_not_asked_for_again(here, server):
    asked = {path.removeprefix("/api/") for path, times in server.requests.items() if times}
    assert {path for path in asked if (server.folder / path).exists()} == {
        "liuhaotian/LLaVA-Instruct-150K"
    }  # not whole yet


def test_a_check_reaches_no_server_and_reads_no_file_again(here):
    file, spec, _ = here
    done = run("check", file, NOWHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("as in its manifest") == len(spec.datasets)


def test_the_list_shows_every_set_verified_with_its_counts(here):
    file, spec, _ = here
    line = [sys.executable, "-m", "pipeline.data", "list", "--data", str(file)]
    shown = subprocess.run(line, cwd=ROOT, env=environment(NOWHERE), capture_output=True, text=True, check=True).stdout
    assert shown.count("verified") == len(spec.datasets)
    assert "20 pairs, 2 shards" in shown


def test_the_packages_read_what_was_fetched(here, tmp_path):
    from kd_distill.shards import PairShards
    from kd_distill.tables import PairTable
    from kd_evalsuite.zeroshot.sets import open_set
    from kd_vlm.validate import validate

    _, spec, _ = here
    for name in ("cc12m", "cc12m-val"):
        pairs = PairShards(spec.folder(name), tmp_path / name)
        assert len(pairs) == json.loads(spec.manifest(name).read_text())["counts"]["pairs"]
        assert pairs.image(0).startswith(b"\xff\xd8")
    for table, images in (("llava", "llava-pretrain"), ("bunny", "bunny-pretrain")):
        pairs = PairTable(
            spec.folder(f"captions-{table}") / f"{table}.tsv",
            root=spec.folder(images) / "images",
            separator="\t",
            image="filepath",
            caption="title",
            home=tmp_path / table,
        )
        assert len(pairs) == 12
        assert pairs.image(11).startswith(b"\xff\xd8")
    for name in ("llava-pretrain", "mix665k", "bunny-pretrain", "bunny-finetune"):
        holds, folder = spec.datasets[name].holds, spec.folder(name)
        manifest = validate(
            folder / holds.file, folder / holds.pictures, tmp_path / f"{name}-manifest", tokens=None, workers=1,
            on_rows=lambda done, total: None,
        )  # fmt: skip
        assert manifest.counts == {}
    found = open_set(spec.folder("imagenet-val"), names="imagenet", templates="simple")
    assert found.layout == "ImageFolder"
    assert json.loads(spec.manifest("benchmarks").read_text())["counts"]["benchmarks"] == 16


def fetching(file: Path, hub: str, name: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "pipeline.data", "fetch", name, "--data", str(file)]
    return subprocess.Popen(
        line, cwd=ROOT, env=environment(hub), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(what, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def large(server: FileServer, tmp_path: Path) -> Path:
    """A data.yaml whose shards are large enough to be met on their way."""
    shard = next((server.folder / "pixparse" / "cc12m-wds").glob("*.tar"))
    with shard.open("ab") as file:
        file.write(bytes(max(0, (4 << 20) - shard.stat().st_size)))  # more end of a tar
    server.faults[f"/pixparse/cc12m-wds/{shard.name}"] = ["hold"]
    server.release.clear()
    return papers_data(tmp_path / "data.yaml", tmp_path, server.url)


def part_there(home: Path) -> bool:
    for part in (home / "datasets" / "cc12m-shards").glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):  # a small one, whole in the meantime
            if part.stat().st_size > 1 << 19:
                return True
    return False


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)]
)
def test_a_fetch_that_was_stopped_goes_on_with_the_bytes_it_had(large, server, tmp_path, number):
    process = fetching(large, server.url, "cc12m-shards")
    wait_for(lambda: part_there(tmp_path))
    process.send_signal(number)
    if number != signal.SIGKILL:  # asked to stop, it stops at the next bytes
        server.release.set()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number], said
    part = next((tmp_path / "datasets" / "cc12m-shards").glob(".*.part"))
    left = (server.folder / "pixparse" / "cc12m-wds" / part.name[1:-5]).stat().st_size - part.stat().st_size
    server.release.set()
    server.forget()
    done = run("fetch", large, server.url, "cc12m-shards")
    assert done.returncode == 0, done.stderr
    assert server.sent[f"/pixparse/cc12m-wds/{part.name[1:-5]}"] == left


def test_two_fetches_of_one_set_do_not_meet(large, server, tmp_path):
    first = fetching(large, server.url, "cc12m-shards")
    wait_for(lambda: part_there(tmp_path))
    second = run("fetch", large, server.url, "cc12m-shards")
    server.release.set()
    assert second.returncode == 7
    assert f"is being written by process {first.pid}" in second.stderr
    assert first.wait(60) == 0


def test_gated_sets_say_where_to_accept_their_terms_and_the_others_come(server, tmp_path):
    file = papers_data(tmp_path / "data.yaml", tmp_path, server.url)
    server.gated = {"liuhaotian/LLaVA-Pretrain"}
    try:
        done = run("fetch", file, server.url, "llava-pretrain", "bunny-finetune")
    finally:
        server.gated = set()
    assert done.returncode == 2
    assert f"Accept its terms at {server.url}/datasets/liuhaotian/LLaVA-Pretrain and set HF_TOKEN" in done.stderr
    assert "bunny-finetune: 12 pictures, 12 rows" in done.stdout


def test_bytes_that_are_not_those_of_the_hubs_digest_are_refused(server, tmp_path):
    file = papers_data(tmp_path / "data.yaml", tmp_path, server.url)
    server.faults["/liuhaotian/LLaVA-Pretrain/images.zip"] = ["wrong", "wrong"]
    done = run("fetch", file, server.url, "llava-pretrain")
    assert done.returncode == 5
    assert "images.zip: expected sha256" in done.stderr
    assert not (tmp_path / "datasets" / ".kd-data" / "llava-pretrain" / "images.zip").exists()
    assert run("fetch", file, server.url, "llava-pretrain").returncode == 0


def test_a_disk_that_is_too_small_is_refused_before_a_byte_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read when it was imported
    spec = read_spec(papers_data(tmp_path / "data.yaml", tmp_path, server.url))
    with client() as http:
        plan = fetch.plan(spec, "llava-pretrain", http)
    images = (server.folder / "liuhaotian" / "LLaVA-Pretrain" / "images.zip").stat().st_size
    assert plan.room == plan.bytes + images  # the archive, and again what it holds
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda root: shutil._ntuple_diskusage(10**9, 0, plan.room - 1))
    with pytest.raises(SpaceError, match=r"GB are needed .* GB are free"):
        fetch.require_room(spec.root, [plan])


def test_a_folder_that_is_whole_already_is_taken_as_it_is_and_no_server_is_asked(here, tmp_path):
    _, spec, _ = here
    shutil.copytree(spec.folder("llava-pretrain"), tmp_path / "datasets" / "llava-pretrain")
    done = run("fetch", papers_data(tmp_path / "data.yaml", tmp_path, NOWHERE), NOWHERE, "llava-pretrain")
    assert done.returncode == 0, done.stderr
    assert "llava-pretrain: 12 pictures, 12 rows, 0 text_only" in done.stdout


@pytest.mark.parametrize("path", ["../../secret", "images/../../secret", "/etc/secret"])
def test_a_hub_that_names_files_outside_the_folder_is_refused(server, tmp_path, monkeypatch, path):
    spec = read_spec(papers_data(tmp_path / "data.yaml", tmp_path, server.url))
    monkeypatch.setattr("pipeline.data.hub.listed", lambda *_: ("c" * 40, {path: Remote(f"{server.url}/x", 1)}))
    with client() as http, pytest.raises(DataError, match="outside its folder"):
        fetch.plan(spec, "llava-pretrain", http)


def test_archives_are_dropped_when_asked_and_not_fetched_again(server, tmp_path):
    file = papers_data(tmp_path / "data.yaml", tmp_path, server.url)
    assert run("fetch", file, server.url, "bunny-finetune", "--drop-archives").returncode == 0
    assert not list((tmp_path / "datasets" / ".kd-data" / "bunny-finetune").glob("*.part-*"))
    (tmp_path / "manifests" / "bunny-finetune.json").unlink()
    server.forget()
    assert run("fetch", file, server.url, "bunny-finetune").returncode == 0
    assert not server.sent
    picture = next((tmp_path / "datasets" / "bunny" / "finetune" / "images").rglob("*.jpg"))
    picture.unlink()
    (tmp_path / "manifests" / "bunny-finetune.json").unlink()
    assert run("fetch", file, server.url, "bunny-finetune").returncode == 0
    assert picture.is_file()
