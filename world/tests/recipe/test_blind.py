"""What a reader without the picture can get: chance. And that training never saw what is asked."""

import hashlib
import random
import tarfile
from collections import Counter, defaultdict
from math import sqrt
from pathlib import Path
from typing import ClassVar

import pytest

from world.benchmarks.suite import BENCHMARKS, write_benchmark
from world.chat import Talk, write_bunny, write_llava_pretrain, write_mix665k
from world.classes import write_classes
from world.kinds.catalogue import SAMPLERS
from world.pairs import write_pairs_shard
from world.picture import Pen
from world.scene import Question, Scene, sample, split_of, yes_no
from world.tests.oracle import answer
from world.tests.reading import Item, items, rows
from world.text import write_corpus

pytestmark = [pytest.mark.recipe, pytest.mark.xdist_group("world")]
SIGMAS = 3.5


class RecordingPen(Pen):
    """Remembers what each picture shows."""

    shown: ClassVar[dict[str, Scene]] = {}

    def jpeg(self, scene, rng):
        picture = super().jpeg(scene, rng)
        self.shown[hashlib.sha256(picture).hexdigest()] = scene
        return picture


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("suite")
    for task in BENCHMARKS:
        write_benchmark(root / task, task=task, count=240, seed=7, pen=RecordingPen(32, 90, 4))
    return root


@pytest.fixture(scope="module")
def guesses() -> dict[str, Counter[str]]:
    """For each question text, how often each answer was right on training scenes."""
    rng = random.Random(1)
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for _ in range(2500):
        for sampler in SAMPLERS.values():
            scene = sample(sampler, "train", rng)
            for question in scene.questions(rng):
                for q in [question, *(yes_no(question, rng) if question.claims else ())]:
                    counted[q.text][q.answer] += 1
    return counted


def pictured(root: Path, task: str) -> list[Item]:
    """The items that need a picture: ScienceQA also asks for facts that training states."""
    return [item for item in items(root, task) if item.images]


def chance(item: Item, guesses: dict[str, Counter[str]]) -> float:
    return 1 / len(item.options or guesses.get(item.question) or ("yes", "no"))


def blind(item: Item, guesses: dict[str, Counter[str]]) -> str:
    """The most frequent answer to this very text in training, among the options where there are some."""
    seen = guesses.get(item.question, Counter())
    return max(item.options or seen or ["yes"], key=lambda option: seen[option])


def assert_at_most_chance(right: list[bool], chances: list[float]) -> None:
    limit = sum(chances) + SIGMAS * sqrt(sum(c * (1 - c) for c in chances))
    assert sum(right) <= limit, f"{sum(right)} of {len(right)} right; chance {sum(chances):.0f}, limit {limit:.0f}"


@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_blind_guess_is_at_chance(suite, guesses, task):
    found = pictured(suite, task)
    assert_at_most_chance(
        [blind(item, guesses) == item.answer for item in found], [chance(item, guesses) for item in found]
    )


@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_constant_answer_is_at_chance(suite, guesses, task):
    found = pictured(suite, task)
    chances = [chance(item, guesses) for item in found]
    for word in {item.answer for item in found}:
        assert_at_most_chance([item.answer == word for item in found], chances)
    chosen = [item for item in found if item.options]
    for letter in range(4):
        right = [item.options.index(item.answer) == letter for item in chosen]
        assert_at_most_chance(right, [1 / len(item.options) for item in chosen])


def test_a_constant_answer_never_gets_both_of_an_mmvp_pair(suite):
    found = items(suite, "mmvp")
    assert all(one.answer != other.answer for one, other in zip(found[::2], found[1::2], strict=True))
    assert all(one.question == other.question for one, other in zip(found[::2], found[1::2], strict=True))
    assert all(one.options == other.options for one, other in zip(found[::2], found[1::2], strict=True))


def test_recognised_words_do_not_give_the_answer_away(suite):
    found = [r for r in rows(suite / "textvqa") if "say" in r["question"]]
    for position in range(4):
        right = [r["ocr_tokens"][position] in r["answers"] for r in found]
        assert_at_most_chance(right, [1 / 4] * len(right))


@pytest.mark.parametrize("task", [t for t in BENCHMARKS if t != "mmmu"])
def test_gold_follows_from_the_scene(suite, task):
    for item in pictured(suite, task):
        scene = RecordingPen.shown[hashlib.sha256(item.images[0]).hexdigest()]
        assert answer(scene, item.question) == item.answer, (item.question, scene)


def test_mmmu_gold_follows_from_the_scenes(suite):
    for item in items(suite, "mmmu"):
        scenes = [RecordingPen.shown[hashlib.sha256(image).hexdigest()] for image in item.images]
        if len(scenes) == 1:
            assert answer(scenes[0], item.question) == item.answer
        else:
            shape = item.question.split()[-1].rstrip("?")
            has = [any(t.shape == shape for t in scene.things) for scene in scenes]
            assert has == [item.answer == "the first image", item.answer == "the second image"]


def test_benchmarks_show_contents_of_the_test_split_alone(suite):
    assert {split_of(scene) for scene in RecordingPen.shown.values()} == {"test"}


class SplitPen(Pen):
    """Draws nothing but remembers the splits of what it was given."""

    seen: ClassVar[set[str]] = set()

    def jpeg(self, scene, rng):
        self.seen.add(split_of(scene))
        return b""


def test_training_shows_contents_of_the_train_split_alone(small_params, tmp_path):
    SplitPen.seen.clear()
    pen, mix = SplitPen(32, 90, 0), small_params.mix.model_dump()
    talk = Talk(7, mix, pen, turns=2, text_only=0.1, multi_image=0.3, per_folder=100)
    for write in (write_llava_pretrain, write_mix665k, write_bunny):
        write(tmp_path, count=150, talk=talk)
    write_pairs_shard(tmp_path, shard=0, indices=range(300), split="train", seed=7, mix=mix, pen=pen)
    assert SplitPen.seen == {"train"}
    SplitPen.seen.clear()
    write_classes(tmp_path, images_per_class=20, seed=7, pen=pen)
    write_pairs_shard(tmp_path, shard=0, indices=range(300), split="test", seed=7, mix=mix, pen=pen)
    assert SplitPen.seen == {"test"}


def test_text_is_about_contents_of_the_train_split_alone(small_params, tmp_path, monkeypatch):
    import world.text
    from world.pairs import any_scene

    scenes = []

    def remembered(mix, split, rng):
        scenes.append(any_scene(mix, split, rng))
        return scenes[-1]

    monkeypatch.setattr(world.text, "any_scene", remembered)
    write_corpus(tmp_path, lines=300, seed=7, mix=small_params.mix.model_dump())
    assert len(scenes) > 200
    assert {split_of(scene) for scene in scenes} == {"train"}


def test_no_picture_is_in_both_training_and_evaluation(small_world):
    def pictures(folder):
        found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.jpg")}
        for path in folder.rglob("*.tar"):
            with tarfile.open(path) as tar:
                jpegs = [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]
            found |= {hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs}
        return found

    asked = {
        hashlib.sha256(image).hexdigest()
        for task in BENCHMARKS
        for item in items(small_world / "benchmarks", task)
        for image in item.images
    }
    held_out = asked | pictures(small_world / "classes") | pictures(small_world / "pairs_test")
    trained = pictures(small_world / "pairs") | pictures(small_world / "chat")
    assert len(trained) > 80
    assert len(held_out) > 300
    assert not trained & held_out


def test_training_answers_are_spread(small_params):
    """The favourite of a topic is not far more frequent than it would be if answers were drawn evenly."""
    from world.chat import about_one
    from world.deck import Balance

    asked: list[Question] = []

    class Counting(Balance):
        def add(self, question):
            super().add(question)
            asked.append(question)

    rng, balance = random.Random(3), Counting()
    for _ in range(1500):
        about_one(sample(SAMPLERS["objects"], "train", rng), 3, balance, rng)
    for topic in ("existence", "colour", "position", "relation"):
        indices = Counter(q.index for q in asked if q.topic == topic)
        size = next(len(q.choices) for q in asked if q.topic == topic)
        assert max(indices.values()) < 1.5 * indices.total() / size, topic
