"""MathVista with a language model as judge: off by default, asked once, cached, never guessing."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kd_evalsuite.cli import app
from kd_evalsuite.items import DataError, Item
from kd_evalsuite.llm_judge import Cache, client, judged
from typer.testing import CliRunner

from packages.evalsuite.tests.unit.test_single import told

CHOICE = Item(id="1", question="Which?", gold=("B",), choices=("3/11", "8/11"), fields={"answer_type": "text"})
NUMBER = Item(id="2", question="How many?", gold=("14",), fields={"answer_type": "integer"})


def test_a_reply_that_is_an_answer_is_not_sent(tmp_path):
    def never(prompt):
        raise AssertionError(prompt)

    verdict = judged(never)
    assert verdict("14", NUMBER).score == 1
    assert verdict("(B)", CHOICE).score == 1
    assert verdict("8/11", CHOICE).score == 1
    assert verdict("  ", NUMBER).answer is None
    assert verdict("", CHOICE).answer is None


@pytest.mark.parametrize(
    ("said", "item", "score"),
    [("14", NUMBER, 1), ("15", NUMBER, 0), ("B", CHOICE, 1), ("(A)", CHOICE, 0), ("8/11", CHOICE, 1)],
)
def test_what_the_judge_says_is_compared_as_officially(said, item, score):
    assert judged(lambda prompt: said)("a long reply", item).score == score


@pytest.mark.parametrize("said", ["", "NONE", "none.", "   "])
@pytest.mark.parametrize("item", [NUMBER, CHOICE])
def test_no_answer_found_is_unread_and_never_the_nearest_option(said, item):
    assert judged(lambda prompt: said)("I cannot tell.", item).answer is None


def test_a_judge_is_asked_once_and_a_torn_line_of_its_cache_is_left_out(tmp_path):
    asked = []
    cache = Cache(tmp_path / "c.jsonl", "m", lambda prompt: asked.append(prompt) or "14")
    for _ in range(3):
        assert judged(cache)("It must be fourteen.", NUMBER).score == 1
    assert len(asked) == cache.asked == 1
    with (tmp_path / "c.jsonl").open("a") as stream:
        stream.write('{"key": "torn')
    again = Cache(tmp_path / "c.jsonl", "m", None)
    assert judged(again)("It must be fourteen.", NUMBER).score == 1
    with pytest.raises(DataError, match="the judge 'm' was not asked this yet"):
        judged(again)("It must be fifteen.", NUMBER)
    more = Cache(tmp_path / "c.jsonl", "m", lambda prompt: "15")
    judged(more)("It must be fifteen.", NUMBER)
    assert len(Cache(tmp_path / "c.jsonl", "m", None)._said) == 2
    other = Cache(tmp_path / "c.jsonl", "another model", None)
    with pytest.raises(DataError, match="not asked"):
        judged(other)("It must be fourteen.", NUMBER)


@pytest.fixture
def server():
    """An OpenAI-compatible server that fails once and then says B."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, body))
            self.send_response(503 if len(seen) == 1 else 200)
            self.end_headers()
            if len(seen) > 1:
                self.wfile.write(json.dumps({"choices": [{"message": {"content": "B"}}]}).encode())

        def do_GET(self):
            self.send_response(404)  # a server that does not list its models
            self.end_headers()

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1", seen
    running.shutdown()
    running.server_close()


def test_a_server_is_asked_greedily_and_again_after_503(server):
    url, seen = server
    assert client(url, "judge-1")("?") == "B"
    assert [path for path, _ in seen] == ["/v1/chat/completions"] * 2
    assert (seen[0][1]["model"], seen[0][1]["temperature"]) == ("judge-1", 0)
    with pytest.raises(DataError, match="Expected the judge as http"):
        client("file:///etc/passwd", "m")


def test_the_command_uses_the_cache_and_says_who_judged(server, benchmark_root, tmp_path):
    url, seen = server
    file = told(benchmark_root, "mathvista", tmp_path, lambda i: "I believe it is the green one, so that is it.")
    command = ["score", "--task", "mathvista", "--protocol", "official", "--predictions", str(file), "--json"]
    command += ["--data", str(benchmark_root), "--judge-cache", str(tmp_path / "c.jsonl"), "--judge-model", "judge-1"]
    first = CliRunner().invoke(app, [*command, "--judge", url])
    assert first.exit_code == 0, first.output
    n = len(seen)
    again = CliRunner().invoke(app, command)
    assert len(seen) == n
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert json.loads(first.stdout)["judge"] == "judge-1"
    command = [
        "score",
        "--task",
        "gqa",
        "--predictions",
        str(file),
        "--judge-model",
        "m",
        "--data",
        str(benchmark_root),
    ]
    assert CliRunner().invoke(app, command).exit_code == 2
