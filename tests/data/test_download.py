"""A file comes whole and right, or not at all, whatever server and machine do; no byte comes twice without need."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.data import download as downloads
from pipeline.data.download import Remote, client, download, part_of
from pipeline.data.errors import DataError, GatedError, IntegrityError, StoppedError

from .server import FileServer, serving

CHUNK = 1 << 20
CONTENT = random.Random(0).randbytes(5 * CHUNK + 12345)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file").write_bytes(CONTENT)
    with serving(tmp_path / "served") as server:
        yield server


def fetched(server: FileServer, target: Path, *, sha256: str | None = DIGEST, page: str = "", stopped=lambda: False):
    """The digest, and the bytes that were counted."""
    gained: list[int] = []
    remote = Remote(f"{server.url}/file", len(CONTENT), sha256, page=page)
    with client() as http:
        digest = download(http, remote, target, on_bytes=gained.append, stopped=stopped, patience=0.001)
    return digest, sum(gained)


def test_a_file_comes_whole_with_its_digest_and_leaves_nothing_beside_it(server, tmp_path):
    target = tmp_path / "here" / "file"
    assert fetched(server, target) == (DIGEST, len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_dropped_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.faults["/file"] = ["cut", "cut", "cut"]
    assert fetched(server, tmp_path / "file") == (DIGEST, len(CONTENT))
    assert len(CONTENT) <= server.sent["/file"] <= len(CONTENT) + 3 * CHUNK


def test_connections_that_drop_again_and_again_are_borne_while_bytes_come(server, tmp_path):
    server.faults["/file"] = ["cut", "500"] * 20
    assert fetched(server, tmp_path / "file")[0] == DIGEST


def test_a_server_without_ranges_begins_again_and_the_count_of_bytes_stays_right(server, tmp_path):
    server.faults["/file"] = ["cut", "no-range"]
    assert fetched(server, tmp_path / "file") == (DIGEST, len(CONTENT))


@pytest.mark.parametrize("status", ["500", "503", "429", "408"])
def test_a_server_that_is_busy_is_asked_again(server, tmp_path, status):
    server.faults["/file"] = [status] * (downloads.TRIES - 1)
    assert fetched(server, tmp_path / "file")[0] == DIGEST


def test_a_server_that_stays_broken_is_given_up_with_its_answer(server, tmp_path):
    server.faults["/file"] = ["500"] * 100
    with pytest.raises(DataError, match=r"the server answered 500, 6 times .* goes on where it stopped"):
        fetched(server, tmp_path / "file")
    assert server.requests["/file"] == downloads.TRIES


def test_gated_files_are_refused_once_with_what_to_do(server, tmp_path):
    server.faults["/file"] = ["403"] * 9
    with pytest.raises(GatedError, match=r"Accept the terms at https://hub/page and set HF_TOKEN"):
        fetched(server, tmp_path / "file", page="https://hub/page")
    assert server.requests["/file"] == 1


def test_a_file_that_is_not_there_is_no_reason_to_try_again(server, tmp_path):
    server.faults["/file"] = ["404"] * 9
    with pytest.raises(DataError, match=r"answered 404"):
        fetched(server, tmp_path / "file")
    assert server.requests["/file"] == 1


def test_wrong_bytes_are_fetched_again_and_never_get_the_name(server, tmp_path):
    server.faults["/file"] = ["wrong"]
    assert fetched(server, tmp_path / "file") == (DIGEST, len(CONTENT))
    server.faults["/file"] = ["wrong", "wrong"]
    with pytest.raises(IntegrityError, match=rf"expected sha256 {DIGEST}, got .*, twice"):
        fetched(server, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert not part_of(tmp_path / "other").exists()


def test_bytes_that_were_damaged_on_this_disk_are_noticed(server, tmp_path):
    part_of(tmp_path / "file").write_bytes(b"x" * 1000 + CONTENT[1000:CHUNK])
    assert fetched(server, tmp_path / "file") == (DIGEST, len(CONTENT) - CHUNK)


def test_a_part_that_is_longer_than_the_file_is_begun_again(server, tmp_path):
    part_of(tmp_path / "file").write_bytes(CONTENT + b"more")
    assert fetched(server, tmp_path / "file")[0] == DIGEST


def test_a_file_that_changed_on_the_server_is_begun_again(server, tmp_path):
    def stop_in_the_middle():
        return server.sent["/file"] > 2 * CHUNK

    with pytest.raises(StoppedError):
        fetched(server, tmp_path / "file", sha256=None, stopped=stop_in_the_middle)
    other = CONTENT[::-1]
    (server.folder / "file").write_bytes(other)
    assert fetched(server, tmp_path / "file", sha256=None)[0] == hashlib.sha256(other).hexdigest()


def test_a_token_does_not_follow_a_redirect_to_another_server(server, tmp_path):
    with serving(server.folder) as store:
        server.moved["/moved"] = f"{store.url}/file"
        remote = Remote(f"{server.url}/moved", len(CONTENT), DIGEST, {"Authorization": "Bearer secret"})
        with client() as http:
            download(http, remote, tmp_path / "file", on_bytes=lambda n: None, stopped=lambda: False)
        assert server.tokens == ["Bearer secret"]
        assert store.tokens == [None]


KILLED = """
import sys
from pathlib import Path
from pipeline.data.download import Remote, client, download
with client() as http:
    remote = Remote(sys.argv[1], int(sys.argv[3]), sys.argv[4])
    download(http, remote, Path(sys.argv[2]), on_bytes=lambda n: None, stopped=lambda: False)
"""


def killed_and_resumed(server: FileServer, target: Path, moments: list[int]) -> None:
    """Kill -9 when so many bytes of the part are there, again and again; then go on to the end."""
    command = [sys.executable, "-c", KILLED, f"{server.url}/file", str(target), str(len(CONTENT)), DIGEST]
    server.forget()
    for moment in moments:
        server.faults["/file"] = ["slow"]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        while process.poll() is None and not (part_of(target).exists() and part_of(target).stat().st_size >= moment):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    have = part_of(target).stat().st_size
    server.forget()
    assert fetched(server, target) == (DIGEST, len(CONTENT) - have)
    assert server.sent["/file"] == len(CONTENT) - have
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()


def test_after_a_kill_in_the_middle_only_the_missing_bytes_are_asked_for(server, tmp_path):
    killed_and_resumed(server, tmp_path / "file", [2 * CHUNK])


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
def test_after_many_kills_too(server, tmp_path, seed):
    random_moments = sorted(random.Random(seed).sample(range(CHUNK, len(CONTENT)), 5))
    killed_and_resumed(server, tmp_path / "file", random_moments)
