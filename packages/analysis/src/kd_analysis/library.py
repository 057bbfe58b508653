"""The encoders of a comparison, and where their features stand: read once, whatever pairs and tasks they serve."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_analysis import folders, tracking
from kd_analysis.comparing import Pair
from kd_analysis.folders import is_vlm
from kd_analysis.heads import read_heads
from kd_analysis.images import Pictures, read_pictures
from kd_analysis.similarity import SEEDS, TEACHERS, UNTRAINED
from kd_analysis.store import Decoded, Shelf, Store
from kd_analysis.taps import TOKENS, Precision, projected

if TYPE_CHECKING:
    from kd_analysis.features import Encoder
    from kd_analysis.visual_tokens import VisualTokens

Told = Callable[[str, int, int], None]  # (what, done, total)
SEPARATOR = "@"  # between an encoder's key and a tap


@dataclass(frozen=True)
class Encoders:
    """The models of a comparison, by name, and which student was paired with which teacher."""

    students: dict[str, tracking.Model]
    teachers: dict[str, tracking.Model]
    given: frozenset[tuple[str, str]]

    @property
    def all(self) -> dict[str, tracking.Model]:
        return self.teachers | self.students


@dataclass
class Library:
    """The encoders of a plan and where their features stand.

    Attributes:
        encoders: Students and teachers.
        fresh: For each untrained encoder's key, a student of its architecture.
        seed: Of the untrained ones.
        store: Of features.
        heads: For a student's name, where its heads are if not in its folder.
        device: Of torch.
        visual_tokens: Folder of the caches of VLMs' visual tokens that are read and written, if any.
        precision: Of the tokens in these caches, and so of what is computed from them.
    """

    encoders: Encoders
    fresh: Mapping[str, str]
    seed: int
    store: Store
    heads: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    visual_tokens: Path | None = None
    precision: Precision = "fp32"
    shelves: dict[str, Shelf] = field(default_factory=dict)

    def folder(self, key: str) -> Path:
        return self.encoders.all[self.fresh.get(key, key)].path

    def shelf(self, key: str, tap: str) -> str:
        """The key of a shelf, which is opened and verified the first time."""
        place = f"{key}{SEPARATOR}{tap}"
        if place not in self.shelves:
            folder = self.folder(key)
            known = folders.untrained_digest(folder, self.seed) if key in self.fresh else self.encoders.all[key].sha256
            if key in self.heads and tap.startswith("embed_kd"):
                known += f"+{_digest_of(self.heads[key])}"
            if self.visual_tokens and self.precision != "fp32" and is_vlm(folder):
                known += f"+{self.precision}"  # features of rounded tokens are other features
            self.shelves[place] = self.store.shelf(known, tap, folders.look(folder))
        return place

    def at(self, tap: str, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs with the shelves that hold their features at a tap."""
        found = []
        for pair in pairs:
            one, two, missing = self._sides(tap, pair)
            if missing:
                found.append(replace(pair, missing=missing))
            else:
                found.append(
                    replace(
                        pair,
                        student_features=self.shelf(pair.student_features, one),
                        teacher_features=self.shelf(pair.teacher_features, two),
                    )
                )
        return found

    def _sides(self, tap: str, pair: Pair) -> tuple[str, str, str]:
        """What is read of student and teacher, or why nothing is."""
        if tap != "embed_kd":
            return tap, tap, ""
        if pair.relation in (TEACHERS, SEEDS):
            return "embed", "embed", ""
        if pair.relation == UNTRAINED:
            return "", "", "an untrained student has no head"
        heads = read_heads(self.heads.get(pair.student, self.folder(pair.student)))
        if pair.teacher in heads:
            return projected(pair.teacher), "embed", ""
        if folders.width(self.folder(pair.student)) == folders.width(self.folder(pair.teacher)):
            return "embed", "embed", ""  # equal widths are compared without a head
        return "", "", f"{pair.student} holds no head to {pair.teacher} (heads.safetensors; or --heads)"

    def fill(self, pictures: Pictures, ids: Sequence[str], told: Told) -> None:
        """Read what is missing on the shelves; what a killed run has read stands."""
        wanted: dict[str, dict[str, set[str]]] = {}
        for place, shelf in self.shelves.items():
            key, _, tap = place.partition(SEPARATOR)
            if missing := shelf.missing(ids):
                wanted.setdefault(key, {})[tap] = missing
        if not wanted:
            return
        from kd_analysis import features, towers

        loaded: dict[str, features.Encoder] = {
            key: towers.untrained(self.folder(key), self.seed)
            if key in self.fresh
            else features.load(self.folder(key), self.heads.get(key))
            for key in wanted
        }
        total, done = sum(len(set().union(*taps.values())) for taps in wanted.values()), 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            told("features", done, total)

        caches = self._caches(loaded, pictures)
        for key, cache in caches.items():
            taken = set().union(*wanted[key].values())
            lacking = cache.give(wanted[key])
            wanted[key] = {TOKENS: lacking} if lacking else {}
            count(len(taken) - len(lacking))
        features.extract(
            loaded,
            {key: taps for key, taps in wanted.items() if taps},
            pictures.stream(set().union(*(ids for taps in wanted.values() for ids in taps.values()))),
            partial(self._keep, caches),
            device=self.device,
            on_batch=count,
        )

    def _keep(self, caches: "Mapping[str, VisualTokens]", key: str, tap: str, images: list[str], rows: Any) -> None:
        if tap == TOKENS:
            caches[key].take(images, rows)
        else:
            self._put(key, tap, images, rows)

    def _put(self, key: str, tap: str, images: list[str], rows: Any) -> None:
        self.shelves[f"{key}{SEPARATOR}{tap}"].add(images, rows)

    def _caches(self, loaded: "Mapping[str, Encoder]", pictures: Pictures) -> "dict[str, VisualTokens]":
        """Of each VLM, its cache of visual tokens."""
        if self.visual_tokens is None or not any(is_vlm(self.folder(key)) for key in loaded):
            return {}
        from kd_analysis.visual_tokens import VisualTokens
        from kd_analysis.vlms import VlmEncoder

        return {
            key: VisualTokens(self.visual_tokens, vlm, pictures.files, self.precision, partial(self._put, key))
            for key, vlm in loaded.items()
            if isinstance(vlm, VlmEncoder) and vlm.cacheable
        }


def _digest_of(path: Path) -> str:
    file = path if path.is_file() else next(iter(sorted(path.glob("*.safetensors"))))
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pictures_of(sources: Mapping[str, Path], max_images: int | None, store: Path, told: Told) -> Pictures:
    """The distinct images of the tasks."""
    before: dict[str, int] = {}

    def count(task: str, done: int) -> None:
        before[task] = done
        told("images", sum(before.values()), sum(before.values()))

    return read_pictures(sources, max_images, Decoded(store / "decoded.jsonl"), count)


def described(pictures: Pictures) -> dict[str, dict[str, int | str]]:
    """For each task: images, the rows that they were among, and a digest of their ids."""
    return {
        task: {
            "images": len(ids),
            "rows": pictures.rows[task],
            "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        }
        for task, ids in pictures.tasks.items()
    }
