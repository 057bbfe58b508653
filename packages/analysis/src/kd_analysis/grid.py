"""The results table by cell, and which of its conditions is the main one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from kd_analysis.results import (
    CKA,
    ENCODER,
    NO_TEACHER,
    PARAMS,
    SCORE,
    Result,
    over_seeds,
    refuse_duplicates,
    with_averages,
)
from kd_analysis.tasks import AVERAGE, IMAGENET, IMAGENET_IMAGES, TASKS, in_order


class Place(NamedTuple):
    """Where an encoder was scored: a framework and a language model; both empty for the encoder alone."""

    framework: str
    llm: str

    @property
    def named(self) -> str:
        return ", ".join(filter(None, self)) or "encoder alone"


class Training(NamedTuple):
    """How a student came about; all empty for a teacher."""

    loss: str
    dataset: str
    epochs: float
    epoch: float


T = TypeVar("T")
ALONE = Place("", "")
PRETRAINED = Training("", "", 0.0, 0.0)


@dataclass(frozen=True)
class Main:
    """The condition that a study varies one part of at a time: what most of its students share."""

    place: Place
    student: str
    training: Training


class Grid:
    """Results by cell, seeds taken together and averages filled in.

    Raises:
        kd_analysis.results.DuplicateError: If a cell holds several values.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        refuse_duplicates(results)
        self.results = over_seeds(with_averages(results))
        self._by_key = {r.key[:8] + r.key[9:]: r for r in self.results}
        scores = [r for r in self.results if r.metric == SCORE]
        self.places = tuple(_distinct(Place(r.framework, r.llm) for r in scores if r.framework or r.llm))
        self.encoders = tuple(_distinct(r.teacher for r in scores if not r.student))
        self.students = tuple(_distinct(r.student for r in scores if r.student))
        taught = _distinct(r.teacher for r in scores if r.student and r.teacher != NO_TEACHER)
        self.teachers = tuple([t for t in self.encoders if t in taught] + [t for t in taught if t not in self.encoders])
        self.trainings = tuple(_distinct(training_of(r) for r in scores if r.student and r.teacher != NO_TEACHER))

    def get(
        self,
        task: str,
        teacher: str,
        student: str = "",
        training: Training = PRETRAINED,
        place: Place = ALONE,
        metric: str = SCORE,
    ) -> Result | None:
        """The result of a cell, or None where there is none."""
        return self._by_key.get((*place, teacher, student, *training, task, metric))

    def average(self, place: Place, teacher: str, student: str = "", training: Training = PRETRAINED) -> Result | None:
        return self.get(AVERAGE, teacher, student, training, place)

    def imagenet(self, teacher: str, student: str = "", training: Training = PRETRAINED) -> Result | None:
        return self.get(IMAGENET, teacher, student, training)

    def size(self, teacher: str) -> Result | None:
        """The encoder's parameters in millions."""
        return self.get(ENCODER, teacher, metric=PARAMS)

    def tasks(self) -> list[str]:
        """The multimodal tasks that any cell has, in the order of the study."""
        some = {r.task for r in self.results if r.metric == SCORE and (r.framework or r.llm)} - {AVERAGE, IMAGENET}
        return in_order(some) if some else list(TASKS)

    def alone(self) -> list[tuple[str, Training]]:
        """Students without a teacher: architecture and how they were trained."""
        return _distinct((r.student, training_of(r)) for r in self.results if r.teacher == NO_TEACHER and r.student)

    @property
    def top1(self) -> str:
        """What zero-shot classification is called here: ImageNet where it has ImageNet's 50,000 images."""
        sizes = {r.n for r in self.results if r.task == IMAGENET and r.metric == SCORE}
        return "ImageNet" if IMAGENET_IMAGES in sizes else "zero-shot"

    def similarity(self, task: str, teacher: str, student: str, training: Training) -> Result | None:
        return self.get(task, teacher, student, training, metric=CKA)

    def main(self) -> Main:
        """The training of most students, at its end; its student with most teachers; the place with most of these.

        Equal ones: the first in the table. Without any student everything is empty.
        """
        ends = [
            r for r in self.results
            if r.metric == SCORE and r.student and r.teacher != NO_TEACHER and r.epoch == r.epochs
        ]  # fmt: skip
        if not ends:
            return Main(self.places[0] if self.places else ALONE, "", PRETRAINED)
        training = _most((training_of(r), (r.framework, r.llm, r.teacher, r.student)) for r in ends)
        mine = [r for r in ends if training_of(r) == training]
        student = _most((r.student, r.teacher) for r in mine)
        placed = [r for r in ends if r.student == student and (r.framework or r.llm)]
        where = _most((Place(r.framework, r.llm), (r.teacher, training_of(r))) for r in placed) if placed else ALONE
        return Main(where, student, training)


def training_of(r: Result) -> Training:
    """How the student of a result came about."""
    return Training(r.loss, r.dataset, r.epochs, r.epoch)


def _distinct(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _most(pairs: Iterable[tuple[T, object]]) -> T:
    """The first member with most different partners."""
    counts = Counter(one for one, _ in _distinct(pairs))
    return counts.most_common(1)[0][0]
