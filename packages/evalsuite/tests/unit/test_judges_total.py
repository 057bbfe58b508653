"""Judges are total: any text gives a verdict, quickly, and nothing that is no answer scores."""

import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_evalsuite import judges, text, vqa
from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.protocols import mathvista, mmmu, shared
from kd_evalsuite.tasks import EVERY, PROTOCOLS

FOUR = Item(id="1", question="?", gold=("B",), choices=("red car", "green car", "blue (car)", "a dog."))
TWO = Item(id="2", question="?", gold=("Yes",), choices=("Yes", "No"))
OPEN = Item(id="3", question="?", gold=("14", "fourteen"), category="c")
NUMBERS = (("integer", None, "14"), ("float", 1.0, "1.2"), ("float", None, "1"))
TYPES = (*NUMBERS, ("list", None, "[1, 2]"), ("text", None, "x"))
KINDS = [
    Item(id=f"4{kind}{p}", question="?", gold=(gold,), fields={"answer_type": kind, "precision": p})
    for kind, p, gold in TYPES
]
FORMULA = Item(id="5", question="?", gold=(r"\frac {1} {2}", ""), category=shared.HANDWRITTEN)
TEN = Item(id="6", question="?", gold=("nokia",) * 3 + ("the",) * 3 + ("",) * 4)
MATH = Item(id="7", question="?", gold=("B",), choices=("3/11", "8/11"), fields={"answer_type": "text"})

ITEMS = {
    "mme_perception": [TWO], "gqa": [OPEN], "mmmu": [FOUR, OPEN], "mathvista": [MATH, *KINDS], "chartqa": [OPEN],
    "ocrbench": [OPEN, FORMULA], "textvqa": [OPEN, TEN], "docvqa": [OPEN], "realworldqa": [FOUR, OPEN, TWO],
}  # fmt: skip
JUDGES = sorted(
    {
        (protocol, metric.judge, item.id): (protocol, metric.judge, item)
        for task in EVERY.values()
        for protocol in PROTOCOLS
        for metric in task.metrics_of(protocol)
        for item in ITEMS.get(task.folder or task.key, [FOUR])
    }.values(),
    key=lambda one: (one[0], one[1].__module__, one[1].__qualname__, one[2].id),
)

PIECES = (
    "A", "B", "(B)", "b.", "yes", "No", "the answer is", "Answer:", "option", "green car", "14", "1,400.5", "5%",
    "-3e5", "[1, 2]", "\n", " ", ".", "**", "or", "because", "nan", "inf", "\uff11\uff14", "\u0661", "\u3000", "\x00",
    "\ud800", "\ufb01", "\u0130",
)  # fmt: skip
LIKELY = st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join)
BYTES = st.binary(max_size=80).map(lambda b: b.decode("utf-8", "surrogateescape"))
REPLIES = st.one_of(st.text(max_size=300), LIKELY, BYTES)


@settings(max_examples=120, deadline=None)
@given(REPLIES)
def test_any_text_gives_one_verdict_and_none_is_worth_nothing(reply):
    for protocol, judge, item in JUDGES:
        verdict = judge(reply, item)
        assert isinstance(verdict, Verdict), judge
        assert 0 <= verdict.score <= 1, judge
        assert judge(reply, item) == verdict, judge
        if verdict.answer is None and (protocol == "paper" or "" not in item.gold):
            assert verdict.score == 0 or judge is shared.anls, judge


@settings(max_examples=120, deadline=None)
@given(REPLIES, st.text(alphabet=" \n\t", max_size=4), st.text(alphabet=" \n\t", max_size=4))
def test_padding_changes_no_verdict_of_the_paper(reply, before, behind):
    for protocol, judge, item in JUDGES:
        if protocol == "paper":
            assert judge(before + reply + behind, item) == judge(reply, item), judge


@settings(max_examples=200, deadline=None)
@given(REPLIES, REPLIES)
def test_metrics_of_texts_keep_their_laws(a, b):
    def of(judge, reply, gold):
        return judge(reply, Item(id="1", question="?", gold=(gold,))).score

    for judge in (judges.anls, shared.anls):
        assert of(judge, a, b) == pytest.approx(of(judge, b, a))  # an edit distance is symmetric
    assert of(judges.anls, f"  {a}\n", b) == of(judges.anls, a, b)
    assert of(judges.anls, a, a) == 1
    assert of(judges.ocr_contains, a, b) >= of(judges.ocr_exact, a, b)
    assert of(shared.ocr_contains, a, b) >= of(shared.ocr_equal, a, b)
    for clean in (text.collapse, text.words):
        assert clean(clean(a)) == clean(a)


def test_soft_accuracy_is_the_table_of_the_vqa_challenge():
    found = [vqa.soft_accuracy("x", ["x"] * k + ["y"] * (10 - k)) for k in range(11)]
    assert found == pytest.approx([0, 0.3, 0.6, 0.9, *[1] * 7])


HOSTILE = {
    "one letter": "a",
    "capital": "B",
    "spaces": " ",
    "newlines": "\n",
    "digits": "7",
    "digits and commas": "1,111",
    "dots": ".",
    "brackets": "[(",
    "answers": "the answer is ",
    "options": "option (",
    "answer and spaces": "answer" + " " * 50,
    "equations": "= x so ",
    "accents": "é",
    "emoji": "\U0001f600",
    "combining": "e\u0301",
    "surrogates": "\ud800",
    "letters and slashes": "A / ",
    "numbers with e": "1e5 ",
    "words": "green car ",
}


N = 19_000
RUNS = [
    "B" + " " * N + "x", "answer" + " " * N + "!", "answer is" + " " * N + "!", "B" + "*" * N + "x", "-" * N + "5",
    "The answer is" + "(" * N, "answer" + "\n " * (N // 2) + "?", "1." * (N // 2), "7" * N + "x", "(" * N + "B",
    "answer: " + "'" * N + "1", "1,111" * (N // 5) + "x", "B" + ")" * N + "x", "[" + "1" * 399,
]  # fmt: skip


@pytest.mark.parametrize("reply", RUNS, ids=range(len(RUNS)))
def test_a_long_run_inside_a_pattern_is_read_once(reply):
    """A pattern that tries every way to split a run takes seconds here; one that reads it once, milliseconds."""
    for _, judge, item in JUDGES:
        start = time.thread_time()
        judge(reply, item)
        assert time.thread_time() - start < 0.5, (judge.__module__, judge.__name__, item.id)


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_a_reply_of_a_megabyte_takes_linear_time(unit):
    """Ten times the text takes at most about ten times as long, whatever it is made of."""
    for _, judge, item in JUDGES:
        seconds = {}
        for size in (100_000, 1_000_000):
            reply = unit * (size // len(unit))
            start = time.thread_time()
            judge(reply, item)
            seconds[size] = time.thread_time() - start
        assert seconds[1_000_000] < 20 * seconds[100_000] + 0.25, (judge.__module__, judge.__name__, item.id, seconds)


def test_letters_drawn_at_random_score_at_chance_and_noise_at_nothing():
    rng = random.Random(0)
    n = 4000
    for protocol in PROTOCOLS:
        for key in ("seedbench_image", "ai2d", "mmbench_en"):
            judge = next(m.judge for m in EVERY[key].metrics_of(protocol) if m.name == "accuracy")
            share = sum(judge(rng.choice("ABCD"), FOUR).score for _ in range(n)) / n
            assert abs(share - 0.25) < 3.5 * math.sqrt(0.25 * 0.75 / n), (protocol, key)
    noise = ["".join(rng.choices("абвгд 日本語 ñç .,;", k=rng.randint(1, 40))) for _ in range(300)]
    for reply in noise:
        assert judges.choice(reply, FOUR) == judges.yes_no(reply, TWO) == Verdict(0.0, None), reply


def test_numbers_of_mmmu_are_found_as_in_its_own_patterns():
    found = mmmu.candidates("It could be 1,234.5 or 12.5e3, not .75; so -3")
    assert {1234.5, 12500.0, 0.75, -3.0} & set(found) == {-3.0}  # only the shortest tail counts
    assert set(mmmu.candidates("x = 1,234 and 12.5e3 and .75 and -3")) >= {1234.0, 12500.0, 0.75, -3.0}


def test_a_list_is_the_last_one_and_written_as_the_data_have_it():
    item = Item(id="1", question="?", gold=("[2007, 2008]",), fields={"answer_type": "list"})
    assert mathvista.verdict("Not [1,2] but [2007 ,2008].", item).score == 1
