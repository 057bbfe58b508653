"""A batch that does not fit, an item that cannot be answered, a model that answers nothing."""

import json

import pytest
from kd_evalsuite.asking import Asker, ModelFailedError, Question
from kd_evalsuite.data import load_all
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Reply, Request
from kd_evalsuite.predictions import read_failures, read_manifest, read_predictions
from kd_evalsuite.records import Failure, Prediction
from kd_evalsuite.score import score_folder
from kd_evalsuite.verifying import verify

from packages.evalsuite.tests.helpers.scripted import Scripted
from packages.evalsuite.tests.unit.test_predict import KEYS, ids, run


class Small(Scripted):
    """Has memory for three requests."""

    def __init__(self, error):
        super().__init__()
        self.error, self.sizes = error, []

    def answer(self, requests, max_new_tokens):
        self.sizes.append(len(requests))
        if len(requests) > 3:
            raise self.error
        return super().answer(requests, max_new_tokens)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class Picky(Scripted):
    """Fails where `bad(request)`; counts how often it was asked."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad

    def answer(self, requests, max_new_tokens):
        if any(self.bad(r) for r in requests):
            raise ValueError("<b>no</b>")
        return super().answer(requests, max_new_tokens)


def questions(n):
    return [Question(str(k), Request(f"question {k}"), "", None) for k in range(n)]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_out_of_memory_halves_the_batch_and_those_after_it(error):
    said = []
    model = Small(error)
    asker = Asker(model, "generate", 16, said.append)
    lines = [line for _ in range(2) for part in asker.lines(questions(16), 4) for line in part]
    assert [line.prediction for line in lines] == ["A"] * 32
    assert model.sizes[:4] == [16, 8, 4, 2]
    assert model.sizes.count(16) == 1
    assert len(said) == 3


def test_an_item_that_fails_is_found_and_costs_no_other_item_its_reply():
    model = Picky(lambda r: r.text == "question 11")
    lines = [line for part in Asker(model, "generate", 16, print).lines(questions(16), 4) for line in part]
    assert [line.id for line in lines] == [str(k) for k in range(16)]
    assert [line.id for line in lines if isinstance(line, Failure)] == ["11"]
    assert lines[11].error == "ValueError: <b>no</b>"


def test_a_model_that_only_fails_is_given_up_and_what_failed_is_written():
    lines: list[Prediction | Failure] = []
    parts = Asker(Picky(lambda r: True), "generate", 8, print).lines(questions(100), 4)
    with pytest.raises(ModelFailedError, match="ValueError"):
        lines.extend(line for part in parts for line in part)
    assert [type(line) for line in lines] == [Failure] * 20


def test_failures_are_lines_without_a_reply_and_asked_again_by_the_next_run(benchmark_root, tmp_path):
    run(benchmark_root, tmp_path, Picky(lambda r: "mmmu" in r.text.lower() or "3" in r.text))
    failed = {k: set(read_failures(tmp_path / f"{k}.jsonl")) for k in KEYS}
    done = {k: set(read_predictions(tmp_path / f"{k}.jsonl")) for k in KEYS}
    assert any(failed.values())
    assert {k: failed[k] | done[k] for k in KEYS} == ids(benchmark_root)
    lines = [json.loads(line) for f in tmp_path.glob("*.jsonl") for line in f.read_text().splitlines()]
    assert all(("error" in line) != ("prediction" in line) for line in lines)
    with pytest.raises(DataError, match="no prediction"):
        score_folder(tmp_path, tmp_path, load_all(benchmark_root, KEYS, pictures=False))
    n, _ = run(benchmark_root, tmp_path)
    assert n == sum(map(len, failed.values()))
    assert {k: set(read_predictions(tmp_path / f"{k}.jsonl")) for k in KEYS} == ids(benchmark_root)
    assert not any(read_failures(tmp_path / f"{k}.jsonl") for k in KEYS)


def test_replies_that_are_nothing_or_very_long_or_html_are_data(benchmark_root, tmp_path):
    odd = iter(["", "<script>alert(1)</script>", "x" * 1_000_000, "\x1b[31mred", "=SUM(A1)"] * 100)
    run(benchmark_root, tmp_path, Scripted(rule=lambda text: next(odd)))
    replies = {p.prediction for k in KEYS for p in read_predictions(tmp_path / f"{k}.jsonl").values()}
    assert replies == {"", "<script>alert(1)</script>", "x" * 1_000_000, "\x1b[31mred", "=SUM(A1)"}


class AnyNumber(Scripted):
    """Takes all at once and answers them from the last to the first."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def answer_each(self, requests, max_new_tokens):
        self.sizes.append(len(requests))
        for number in reversed(range(len(requests))):
            yield number, Reply(requests[number].text[:5], 1)


def test_a_model_that_takes_any_number_gets_a_task_as_a_whole(benchmark_root, tmp_path):
    _, model = run(benchmark_root, tmp_path, AnyNumber(), batch_size=4)
    assert model.sizes[0] == 24  # MME, whose items have one image each
    assert {k: set(read_predictions(tmp_path / f"{k}.jsonl")) for k in KEYS} == ids(benchmark_root)


class Mixing(Scripted):
    """A batch changes its answers."""

    def answer(self, requests, max_new_tokens):
        return [Reply("B" if len(requests) > 1 else "A", 1) for _ in requests]


def test_a_batch_that_changes_answers_is_found(benchmark_root, tmp_path):
    for model, equal in ((Scripted(), True), (Mixing(), False)):
        out = tmp_path / type(model).__name__
        run(benchmark_root, out, model)
        compared, different = verify(model, load_all(benchmark_root, KEYS), read_manifest(out), out, 15)
        assert compared == 15
        assert different == [] if equal else {(alone, batch) for _, _, alone, batch in different} == {("A", "B")}


def test_a_reply_knows_its_own_seconds():
    asked = questions(1)[0]
    assert asked.answered(Reply("A", 1, 0.25), 9.0).seconds == 0.25
    assert asked.answered(Reply("A", 1), 9.0).seconds == 9.0
