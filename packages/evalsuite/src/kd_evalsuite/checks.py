"""A look at the data of every benchmark before anything is asked: columns, numbers of items, labels, pairs, pictures.

Everything that is wrong with any of them is found in one go; nothing here reads a picture unless asked to.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_evalsuite.data import folder_of, load_folder, missing_pictures, place_of
from kd_evalsuite.errata import errata_of
from kd_evalsuite.hub import SOURCE, read_source
from kd_evalsuite.items import DataError, Item
from kd_evalsuite.tasks import DEFAULT_PROTOCOL, EVERY, prompts_of, task_named, textvqa

SHOWN = 3
NO_TOKENS = (
    "no item has ocr_tokens, which Cambrian's prompt lists (protocols paper, cambrian, official); "
    "add the column, or ask textvqa_no_ocr"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one benchmark.

    Attributes:
        task: Its key.
        items: How many it has; 0 where it cannot be read.
        public: How many the public data set has.
        sha256: Digest of its files, empty where it cannot be read.
        problems: What stands in the way of using it.
        notes: What a reader of its scores should know.
    """

    task: str
    items: int
    public: int
    sha256: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "task": self.task,
            "items": self.items,
            "public_items": self.public,
            "sha256": self.sha256,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def require_ready(
    root: Path,
    keys: Iterable[str],
    *,
    complete: bool = False,
    blind: bool = False,
    protocol: str = DEFAULT_PROTOCOL,
) -> list[Finding]:
    """Check every benchmark before the first question is asked.

    Args:
        root: One folder a benchmark.
        keys: Which ones.
        complete: Whether each must have as many items as its public data set.
        blind: Whether the questions are asked without their pictures, so that items may have none.
        protocol: With whose prompts they are asked.

    Raises:
        DataError: With every problem of every benchmark, a line each.
    """
    findings = [examine(root, key, complete=complete, blind=blind, protocol=protocol) for key in keys]
    if lines := [f"{f.task}: {problem}" for f in findings for problem in f.problems]:
        raise DataError("\n".join(lines))
    return findings


def examine(
    root: Path,
    key: str,
    *,
    complete: bool = False,
    pictures: bool = False,
    blind: bool = False,
    protocol: str | None = None,
) -> Finding:
    """What is wrong with the data of one benchmark, and what is worth knowing about them.

    Args:
        root: The folder that holds its folder.
        key: The benchmark.
        complete: Whether another number of items than the public one is a problem, not only a note.
        pictures: Whether to decode every picture, too.
        blind: Whether items may be without a picture.
        protocol: Under which it is to be asked: what its prompt needs and no item has is a problem. None: a note.
    """
    task = task_named(key)
    try:
        folder = place_of(root, key)
        data = load_folder(folder, key, pictures=pictures)
    except DataError as error:
        return Finding(key, 0, task.size, "", (str(error),), ())
    problems = [*_pairs(key, data.items), *missing_pictures(data.items), *_blanks(data.items)]
    problems += _undecodable(data.items) if pictures else []
    notes: list[str] = []
    if not blind:
        (notes if task.text_only else problems).extend(_without_picture(data.items, task.text_only))
    fetched = (folder / SOURCE).is_file()
    if fetched:
        problems += _changed(folder)
    if key == textvqa.TASK.key and not any(item.fields["ocr_tokens"] for item in data.items):
        shown = protocol is not None and task.prompts[prompts_of(protocol)] is textvqa.with_tokens
        (problems if shown else notes).append(NO_TOKENS)
    n = len(data.items)
    if n != task.size:
        edition = task.other_sizes.get(n)
        text = f"{n} items, the public data set has {task.size}" + (f"; {n} is {edition}" if edition else "")
        (problems if (complete or fetched) and not edition else notes).append(text)
    if (errata := errata_of(key)) and (wrong := errata.wrong(data.items)):
        notes.append(f"{len(wrong)} labels are known to be wrong ({errata.source[0]}); score with --errata")
    return Finding(key, n, task.size, data.sha256, tuple(problems), tuple(notes))


def _pairs(key: str, items: Sequence[Item]) -> Iterator[str]:
    """MME asks two questions an image, MMVP shows two images a question; a group cut in half has no score."""
    if key.startswith("mme_") or key == "mmvp":
        sizes = Counter(item.cluster for item in items)
        if odd := [name for name, size in sizes.items() if size != 2]:
            what = "images do not have two questions" if key != "mmvp" else "pairs are not whole"
            yield f"{len(odd)} {what}, e.g. {', '.join(odd[:SHOWN])}"


def _blanks(items: Sequence[Item]) -> Iterator[str]:
    if blank := [item.id for item in items if not item.question.strip()]:
        yield f"{len(blank)} items have no question, e.g. {', '.join(blank[:SHOWN])}"
    if golds := [item.id for item in items if not any(gold.strip() for gold in item.gold)]:
        yield f"{len(golds)} items have no answer, e.g. {', '.join(golds[:SHOWN])}"


def _without_picture(items: Sequence[Item], text_only: bool) -> Iterator[str]:
    """Items that would be asked blind though nobody asked for that; of text alone some are, but hardly all."""
    bare = [item.id for item in items if not item.pictures]
    if len(bare) == len(items) or (bare and not text_only):
        listed = f", e.g. {', '.join(bare[:SHOWN])}" if bare else ""
        said = f"{len(bare)} of {len(items)} items have no picture{listed}"
        yield f"{said}; add the column of images, or ask with --blind"


def _undecodable(items: Sequence[Item]) -> Iterator[str]:
    from kd_evalsuite.images import decode

    bad, seen = [], set()
    for item in items:
        for picture in item.pictures:
            try:
                content = picture.read()
                name = hashlib.sha256(content).digest()
                if name not in seen:
                    seen.add(name)
                    decode(content)
            except DataError as error:
                bad.append(f"{item.id} ({error})")
    if bad:
        yield f"{len(bad)} pictures cannot be decoded, e.g. {'; '.join(bad[:SHOWN])}"


def _changed(folder: Path) -> Iterator[str]:
    """Files that are not as they were fetched."""
    source = read_source(folder)
    for name, expected in source.files.items():
        file = folder / name
        if not file.is_file():
            yield f"{name} of {source.dataset}@{source.revision[:8]} is not there any more; fetch it again"
            continue
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != expected:
                yield f"{name} is not as it was fetched from {source.dataset}@{source.revision[:8]}; fetch it again"


def present_in(root: Path) -> list[str]:
    """The benchmarks, variants among them, that have a folder in `root`."""
    return [key for key in EVERY if (root / folder_of(root, key)).is_dir()]
