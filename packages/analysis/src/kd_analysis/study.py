"""Who was scored on what: every model as an entry with its encoder's place in the study."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kd_analysis.clustered import Clustered
from kd_analysis.names import Name, encoder_of, parse
from kd_analysis.scores import ZEROSHOT, InputError, Scored, suite
from kd_analysis.stats import Estimate

TEACHER, STUDENT, ALONE, UNKNOWN = "teacher", "student", "no teacher", "other"


@dataclass(frozen=True)
class Entry:
    """One scored model: an encoder's zero-shot result, or a VLM's.

    Attributes:
        scored: What the evaluation wrote.
        suite: Its items.
        encoder: The encoder's name taken apart; of kind "other" if it is unknown.
        variant: What stands around the encoder: "lm, recipe" for a VLM, empty where that is the same for all.
        seed: Of the encoder's training and, for a VLM, of the VLM's.
    """

    scored: Scored
    suite: dict[str, Clustered]
    encoder: Name
    variant: str
    seed: tuple[int, ...]

    @property
    def role(self) -> str:
        if self.encoder.kind == "student":
            return ALONE if self.encoder.alone else STUDENT
        return TEACHER if self.encoder.kind == "teacher" else UNKNOWN

    @property
    def cell(self) -> tuple[str, ...]:
        """What this is but for the seed: entries of one cell are repetitions of one experiment."""
        e = self.encoder
        own = (e.arch, e.family, e.recipe) if self.role != UNKNOWN else (e.full, "", "")
        return (self.role, *own, self.variant, "blind" if self.scored.blind else "")


@dataclass(frozen=True)
class Study:
    """Everything that was scored.

    Attributes:
        zeroshot: Encoders on zero-shot classification.
        vlms: VLMs with the image.
        blind: VLMs with the image removed.
        teachers: Ids of the teachers, best zero-shot score first.
        variant: The language model and recipe of all VLMs, where they share it; entries then do not repeat it.
        inside: Encoders taken before the end of their training and VLMs on them; they answer nothing, and stand in the
            figures by epoch.
    """

    zeroshot: tuple[Entry, ...]
    vlms: tuple[Entry, ...]
    blind: tuple[Entry, ...]
    teachers: tuple[str, ...]
    variant: str
    inside: tuple[Entry, ...] = ()

    @property
    def measures(self) -> dict[str, tuple[Entry, ...]]:
        """The entries of each measure there is, by its title."""
        found = {"zero-shot top-1": self.zeroshot}
        if self.vlms:
            found[f"Average of {len(self.tasks)} tasks"] = self.vlms
        return found

    @property
    def tasks(self) -> set[str]:
        return set().union(*(e.suite for e in self.vlms)) if self.vlms else set()


def assemble(zeroshot: Sequence[Scored], evaluated: Sequence[Scored], encoders: Mapping[str, str]) -> Study:
    """Place every scored model in the study.

    Args:
        zeroshot: Encoders.
        evaluated: VLMs, blind ones too; may be empty.
        encoders: Configured encoder names of VLMs whose own name does not tell.

    Raises:
        InputError: If VLMs were scored on different tasks, or no teacher has a zero-shot score.
    """
    if bad := [s.key for s in zeroshot if ZEROSHOT not in s.scores]:
        raise InputError(f"Expected scores of benchmark {ZEROSHOT!r}, found none for {', '.join(bad)}.")
    first = tuple(Entry(s, {ZEROSHOT: suite(s)[ZEROSHOT]}, s.name, "", (s.name.seed,)) for s in zeroshot)
    known = [s.ref.name for s in zeroshot]
    entries = [_vlm(s, known, encoders) for s in evaluated]
    variants = {e.variant for e in entries}
    shared = variants.pop() if len(variants) == 1 else ""
    entries = [replace(e, variant="") for e in entries] if shared else entries
    vlms = tuple(e for e in entries if not e.scored.blind)
    _same_tasks(vlms)
    teachers = _ranked(e for e in first if e.role == TEACHER)
    if not teachers:
        raise InputError("Expected zero-shot scores of at least one model called teacher-<id>, found none.")
    inside = tuple(e for e in (*first, *vlms) if e.encoder.epoch)
    ends, on_ends = (tuple(e for e in some if not e.encoder.epoch) for some in (first, vlms))
    return Study(ends, on_ends, tuple(e for e in entries if e.scored.blind), teachers, shared, inside)


def _vlm(scored: Scored, known: Iterable[str], configured: Mapping[str, str]) -> Entry:
    found = encoder_of(scored.name, known, configured)
    encoder = parse(found) if found else Name(scored.ref.name, "other")
    variant = f"{scored.name.lm}, {scored.name.recipe}" if scored.name.kind == "vlm" else scored.ref.name
    return Entry(scored, suite(scored), encoder, variant, (encoder.seed, scored.name.seed))


def _same_tasks(vlms: Sequence[Entry]) -> None:
    for one in vlms[1:]:
        if odd := sorted(one.suite.keys() ^ vlms[0].suite.keys()):
            raise InputError(
                f"{one.scored.key} and {vlms[0].scored.key} were not scored on the same tasks: {', '.join(odd)} "
                "stand on one side alone. Score all models on the same tasks."
            )


def _ranked(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Teacher families by mean top-1 over their seeds, best first; equal ones by name."""
    scores: dict[str, list[float]] = {}
    for entry in entries:
        scores.setdefault(entry.encoder.family, []).append(entry.scored.scores[ZEROSHOT].percent)
    return tuple(sorted(scores, key=lambda t: (-sum(scores[t]) / len(scores[t]), t)))


def cells(entries: Iterable[Entry]) -> dict[tuple[str, ...], list[Entry]]:
    """Entries that differ in the seed alone, together."""
    found: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.cell, []).append(entry)
    return {cell: sorted(found[cell], key=lambda e: e.seed) for cell in sorted(found)}


@dataclass(frozen=True)
class TaskSigns:
    """Over tasks: how many differences lie above, below and at zero; two-sided p of the sign and Wilcoxon tests."""

    up: int
    down: int
    zero: int
    sign_p: float
    wilcoxon_p: float


@dataclass(frozen=True)
class Claim:
    """A difference of two models (or groups of them), in points (0 to 100), with what may be said about it.

    Attributes:
        question: Which check it belongs to.
        better: What should be higher.
        worse: What should be lower.
        measure: "zero-shot top-1", "Average of 16 tasks", or a task's title.
        estimate: `better` minus `worse`, paired over items, in points.
        n_items: How many items it rests on.
        detectable: The smallest true difference that would be found with probability 0.8, in points.
        p: Two-sided; `p_holm` is adjusted within the question.
        by_seed: The difference of each pair of trainings, in points.
        over_tasks: With several tasks, the same difference with tasks drawn anew too (hierarchical bootstrap).
        signs: With several tasks, which way they go.
    """

    question: str
    better: str
    worse: str
    measure: str
    estimate: Estimate
    n_items: int
    detectable: float
    p: float
    p_holm: float
    by_seed: tuple[float, ...]
    over_tasks: Estimate | None
    signs: TaskSigns | None = None

    @property
    def verdict(self) -> str:
        return self.estimate.verdict
