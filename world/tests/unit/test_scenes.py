"""Scenes, their questions and the deck, without files."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from world.benchmarks.twins import twin
from world.deck import deal
from world.facts import facts
from world.formats import OPEN, WITH_OPTIONS, turn
from world.kinds.catalogue import SAMPLERS
from world.kinds.objects import Objects, Thing, sample_objects
from world.kinds.room import Room, Standing
from world.params import Mix
from world.scene import sample, split_of, stream, yes_no
from world.tests.oracle import answer


@pytest.fixture
def rng():
    return random.Random(0)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_answer_and_every_claim_follows_from_the_scene(kind, rng):
    for _ in range(150):
        scene = SAMPLERS[kind](rng)
        for question in scene.questions(rng):
            assert question.answer in question.choices
            assert len(set(question.choices)) == len(question.choices)
            assert answer(scene, question.text) == question.answer
            if question.claims:
                assert len(question.claims) == len(question.choices)
                for claim in yes_no(question, rng):
                    assert answer(scene, claim.text) == claim.answer


def test_a_changed_scene_changes_its_answer():
    scene = Objects("grey", (Thing("red", "circle", "small", (0, 1)),))
    moved = replace(scene, things=(replace(scene.things[0], cell=(2, 1)),))
    text = "In which part of the image is the circle?"
    assert [next(q.answer for q in s.questions(random.Random(0)) if q.text == text) for s in (scene, moved)] == [
        "left",
        "right",
    ]


def test_two_things_in_one_place_are_refused():
    with pytest.raises(ValueError, match="cell of its own"):
        Objects("grey", (Thing("red", "circle", "small", (0, 0)), Thing("red", "square", "small", (0, 0))))
    with pytest.raises(ValueError, match="differ in column"):
        Room((Standing("red", "circle", "near", 0), Standing("blue", "square", "far", 0)))


def test_a_stream_depends_on_every_argument():
    draws = {stream(*args).random() for args in ((1, "a", 2), (2, "a", 2), (1, "b", 2), (1, "a", 3), (1, "a", 2))}
    assert len(draws) == 4


@pytest.mark.parametrize("kind", SAMPLERS)
def test_about_a_fifth_of_the_contents_belongs_to_the_benchmarks(kind, rng):
    contents = {SAMPLERS[kind](rng) for _ in range(3000)}
    share = sum(split_of(scene) == "test" for scene in contents) / len(contents)
    assert 0.14 < share < 0.26
    assert all(split_of(sample(SAMPLERS[kind], "test", rng)) == "test" for _ in range(20))


def test_dealt_answers_are_even_within_each_topic(rng):
    quotas = {"colour": 40, "count": 30, "existence": 20, "relation": 20}
    dealt = deal(sample_objects, quotas, "test", rng, per_scene=3)
    questions = [q for _, asked in dealt for q in asked]
    assert Counter(q.topic for q in questions) == quotas
    for topic in quotas:
        used = Counter(q.index for q in questions if q.topic == topic)
        size = next(len(q.choices) for q in questions if q.topic == topic)
        counts = [used[k] for k in range(size)]
        assert max(counts) - min(counts) <= 1
    assert sum(len(asked) > 1 for _, asked in dealt) > len(dealt) / 2


def test_a_twin_differs_in_one_thing_and_in_the_answer(rng):
    found = 0
    while found < 20:
        scene = sample(sample_objects, "test", rng)
        for question in scene.questions(rng):
            if question.topic == "colour" and (pair := twin(scene, question, sample_objects, "test", rng)):
                other, other_answer = pair
                assert other_answer != question.answer
                assert answer(other, question.text) == other_answer
                assert split_of(other) == "test"
                same = len(set(scene.things) & set(other.things))
                assert same == len(scene.things) - 1
                assert other.backdrop == scene.backdrop
                found += 1


def test_every_format_is_used_and_keeps_the_answer(rng):
    used = Counter()
    for _ in range(2000):
        scene = rng.choice(list(SAMPLERS.values()))(rng)
        question = rng.choice(list(scene.questions(rng)))
        for write in (*OPEN, *WITH_OPTIONS):
            used[write.__name__] += write(scene, question, rng) is not None
        asked, reply = turn(scene, question, rng)
        if reply in "ABCD" and len(reply) == 1:
            option = next(line for line in asked.split("\n") if line.startswith((f"{reply}. ", f"({reply}) ")))
            assert option.split(" ", 1)[1] == question.answer
        else:
            assert reply == question.answer or reply in ("yes", "no")
    assert min(used[write.__name__] for write in (*OPEN, *WITH_OPTIONS)) > 0


def test_facts_agree_with_the_pictures(rng):
    known = {fact.text: fact.answer for fact in facts()}
    assert known["What color is the face of anna?"] == "yellow"
    assert known["What color is the third stripe of the flag of arden?"] == "green"
    assert known["What is 2 plus 3?"] == "5"
    assert known["What is the mean of 2 and 3?"] == "2.5"
    assert known["How many points does a star have?"] == "5"
    assert all(fact.answer in fact.choices for fact in facts())


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_description_names_all_that_questions_ask_for(kind, rng):
    """Two scenes with the same description have the same answers."""
    by_description = {}
    for _ in range(1500):
        scene = SAMPLERS[kind](rng)
        parts = tuple(sorted(scene.describe(random.Random(0)).replace(",", " and").split(" and ")))
        answers = {(q.text, q.answer) for q in scene.questions(rng) if q.topic != "existence"}
        assert by_description.setdefault(parts, answers) == answers


def test_the_mix_names_every_kind():
    assert list(Mix.model_fields) == list(SAMPLERS)


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match=r"sum is 0\.9"):
        Mix(**dict.fromkeys(SAMPLERS, 0.1))
