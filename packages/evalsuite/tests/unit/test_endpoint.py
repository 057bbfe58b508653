"""A server that answers, and servers that hang, drip, reset, are busy or talk nonsense."""

import base64
import time

import pytest
from kd_evalsuite.cli import app
from kd_evalsuite.data import load_all
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Request, Shown
from kd_evalsuite.models.endpoint import Endpoint, EndpointError
from kd_evalsuite.predictions import read_failures, read_predictions
from typer.testing import CliRunner

from packages.evalsuite.tests.helpers.server import completion, served


def endpoint(server, **options):
    return Endpoint(server.url, **{"pause": 0.01, "timeout": 5.0, "tries": 3, **options})


def test_a_request_holds_image_and_text_and_asks_for_the_greedy_reply(benchmark_root):
    picture = load_all(benchmark_root, ["gqa"])[0].items[0].pictures[0]
    with served(lambda text, nth: completion(" a dog \n", 3)) as server:
        (reply,) = endpoint(server).answer([Request("What is it?", (Shown("x", picture),))], 7)
    assert (reply.text, reply.tokens) == ("a dog", 3)
    assert reply.seconds > 0
    (body,) = server.bodies
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny-vlm", 7, 0)
    image, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    head, data = image["image_url"]["url"].split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    assert base64.b64decode(data) == picture.read()


def test_many_requests_are_under_way_at_once_and_come_back_with_their_number():
    def slow(text, nth):
        time.sleep(0.02)
        return completion(text.upper())

    with served(slow) as server:
        replies = endpoint(server, concurrency=8).answer([Request(f"q{k}") for k in range(40)], 4)
    assert [r.text for r in replies] == [f"Q{k}" for k in range(40)]
    assert 2 <= server.most <= 8


@pytest.mark.parametrize("trouble", [429, 500, 503, "reset", "hang", "drip", b"<html>gateway</html>", b"[]", b"{}"])
def test_trouble_that_passes_is_waited_out(trouble):
    with served(lambda text, nth: trouble if nth < 3 else completion("yes")) as server:
        (reply,) = endpoint(server, timeout=0.3).answer([Request("q")], 4)
    assert reply.text == "yes"
    assert server.tries["q"] == 3


@pytest.mark.parametrize(
    ("trouble", "said", "tries"),
    [
        (429, "HTTP 429", 3),
        (400, "HTTP 400", 1),
        (307, "HTTP 307", 1),
        ("hang", "no whole reply in 0.3 s", 3),
        ("drip", "no whole reply in 0.3 s", 3),
        ("reset", "Error", 3),
        (b"not json", "not a chat completion", 3),
        (b'{"choices": [{"message": {"content": null}}]}', "without text", 3),
        (b"[" * 100_000, "not a chat completion", 3),
        (b" " * (9 << 20), "more than", 1),
    ],
)
def test_trouble_that_stays_is_an_error_of_this_item_alone(trouble, said, tries):
    with served(lambda text, nth: trouble if text == "bad" else completion("yes")) as server:
        found = dict(endpoint(server, timeout=0.3).answer_each([Request("good"), Request("bad")], 4))
    assert found[0].text == "yes"
    assert isinstance(found[1], EndpointError)
    assert said in str(found[1])
    assert server.tries["bad"] == tries


def test_the_digest_is_of_what_the_server_says_of_the_model_and_not_of_its_address():
    refs = []
    for _ in range(2):
        with served(lambda text, nth: 500) as server:
            refs.append(endpoint(server).ref)
    assert refs[0] == refs[1]
    assert refs[0].name == "tiny-vlm"


def test_a_server_that_is_not_there_or_lacks_the_model_is_an_error_before_any_question():
    with pytest.raises(DataError, match="Expected a server"):
        Endpoint("http://127.0.0.1:9/v1", timeout=2)
    with served(lambda text, nth: 500) as server, pytest.raises(DataError, match="it has tiny-vlm"):
        Endpoint(server.url, "huge-vlm")


def test_a_password_in_the_address_is_refused_and_the_key_goes_to_the_server_alone(monkeypatch, tmp_path):
    with pytest.raises(DataError, match="OPENAI_API_KEY") as refused:
        Endpoint("http://me:secret@127.0.0.1:9/v1")
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with served(lambda text, nth: completion("yes")) as server:
        asked = endpoint(server)
        asked.answer([Request("q")], 4)
    assert server.keys == ["Bearer secret"] * 2
    assert "secret" not in f"{asked.how} {asked.ref}"


def test_run_records_errors_says_it_is_not_complete_and_finishes_when_run_again(benchmark_root, tmp_path):
    broken = {"on": True}

    def rule(text, nth):
        return 400 if broken["on"] and "A." in text else completion("Yes")

    with served(rule) as server:
        command = ["run", "--model", server.url, "--tasks", "mme_perception,mmvp", "--data", str(benchmark_root)]
        command += ["--out", str(tmp_path / "out"), "--concurrency", "4"]
        first = CliRunner().invoke(app, command)
        assert first.exit_code == 1
        assert "the run is not complete" in " ".join(first.output.split())
        failed = {k: read_failures(tmp_path / f"out/{k}.jsonl") for k in ("mme_perception", "mmvp")}
        assert sum(map(len, failed.values())) > 0
        assert not (tmp_path / "out/scores.json").exists()
        score = ["score", "--predictions", str(tmp_path / "out"), "--out", str(tmp_path / "scores")]
        params = tmp_path / "params.yaml"
        params.write_text(f"evalsuite: {{data: {benchmark_root}}}\n")
        assert CliRunner().invoke(app, [*score, "--params", str(params)]).exit_code != 0
        broken["on"] = False
        second = CliRunner().invoke(app, command)
    assert second.exit_code == 0, second.output
    assert (tmp_path / "out/scores.json").exists()
    assert len(read_predictions(tmp_path / "out/mme_perception.jsonl")) == 24
