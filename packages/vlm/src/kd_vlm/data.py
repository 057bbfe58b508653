"""Conversation files of the LLaVA family: LLaVA-Pretrain, mix665k, Bunny; and what is done with bad samples."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from kd_vlm.pictures import BLANK, decode_image, image_path
from kd_vlm.problems import BadSampleError, Known, MissingImageError, Policy, Problem, blankable
from kd_vlm.rows import Rows, open_rows
from kd_vlm.templates import IMAGE, Encoded, Turn
from kd_vlm.token_store import TokenStore

AHEAD = 512  # samples that are looked at side by side


@dataclass(frozen=True)
class Sample:
    """One conversation. `images` are paths relative to the image folder, one for each `<image>` in the questions."""

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]


class Conversations(Sequence[Sample]):
    """The usable samples of a file in file order, parsed when they are asked for: the file may exceed memory.

    Attributes:
        rows: All rows of the file.
        numbers: The row of each sample, from 0.
        bad: How often each cause occurred among all rows.
    """

    def __init__(self, rows: Rows, numbers: np.ndarray, blanks: dict[int, frozenset[str]], bad: Counter[str]) -> None:
        self.rows = rows
        self.numbers = numbers
        self.bad = bad
        self._blanks = blanks

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> "Conversations": ...
    def __getitem__(self, at: int | slice) -> "Sample | Conversations":
        if isinstance(at, slice):
            return Conversations(self.rows, self.numbers[at], self._blanks, self.bad)
        number = int(self.numbers[at])
        sample = parse(self.rows[number])
        blank = self._blanks.get(number)
        if blank:
            return replace(sample, images=tuple(BLANK if name in blank else name for name in sample.images))
        return sample


def chosen(samples: Sequence[Sample], numbers: Sequence[int]) -> Sequence[Sample]:
    """Those of `samples`, still read when they are asked for if these are."""
    if isinstance(samples, Conversations):
        at = np.array(numbers, dtype=np.int64)
        return Conversations(samples.rows, samples.numbers[at], samples._blanks, samples.bad)
    return [samples[i] for i in numbers]


def read_conversations(
    path: Path,
    *,
    images: Path | None = None,
    bad: Policy = "error",
    known: Known | None = None,
    decode: bool = False,
    on_row: Callable[[int, int], None] = lambda done, of: None,
) -> Conversations:
    """The samples of `path` (`.json`, `.jsonl` or `.parquet`), after a look at each.

    A first message that is not the human's is dropped, as the originals do. A sample without `image` is text only;
    `image` may also be a list, with as many `<image>` in the questions.

    Args:
        path: The file.
        images: The folder of the pictures; where it is given, each must exist and lie inside it.
        bad: What to do with a sample that cannot be used. `error`: stop at the first. `skip`: leave it out. `blank`:
            put a grey picture in the place of one that is not to be had, and leave out what that does not mend.
        known: What a validation of this file found (`manifest.problems`); then no picture is looked at again.
        decode: Without `known`, also decode each picture once, in threads: a manifest saves that.
        on_row: Called with the rows that were looked at, and all.

    Raises:
        FileNotFoundError: If the file is missing, or a picture with `bad="error"`.
        ValueError: If the file is broken, or a sample with `bad="error"`; the message names the sample.
    """
    rows = open_rows(path)
    numbers: list[int] = []
    blanks: dict[int, frozenset[str]] = {}
    counts: Counter[str] = Counter()
    found = _looked_at(rows, images, decode) if known is None else (known.get(n, ()) for n in range(len(rows)))
    for number, problems in enumerate(found):
        on_row(number + 1, len(rows))
        if problems and bad == "error":
            kind = MissingImageError if problems[0].cause == "image_missing" else BadSampleError
            raise kind(problems[0].cause, f"{path}: sample {number}: {problems[0].message}")
        counts.update(problem.cause for problem in problems)
        if not problems or (bad == "blank" and blankable(problems)):
            numbers.append(number)
            if problems:
                blanks[number] = frozenset(str(problem.image) for problem in problems)
    return Conversations(rows, np.array(numbers, dtype=np.int64), blanks, counts)


def _looked_at(rows: Rows, images: Path | None, decode: bool) -> Iterator[list[Problem]]:
    """What is wrong with each row; rows are read here, pictures by threads if they are decoded."""

    def look(sample: Sample | BadSampleError) -> list[Problem]:
        if isinstance(sample, BadSampleError):
            return [Problem(sample.cause, str(sample))]
        return [] if images is None else picture_problems(sample, images, decode=decode)

    with ThreadPoolExecutor(None if decode else 1) as pool:
        for start in range(0, len(rows), AHEAD):
            block = [_sample_or_error(rows, number) for number in range(start, min(start + AHEAD, len(rows)))]
            yield from pool.map(look, block) if decode else map(look, block)


def _sample_or_error(rows: Rows, number: int) -> Sample | BadSampleError:
    try:
        return row_sample(rows, number)
    except BadSampleError as error:
        return error


def row_sample(rows: Rows, number: int) -> Sample:
    """The sample in row `number`. Raises BadSampleError if it is no valid JSON or no sample."""
    try:
        row = rows[number]
    except ValueError as error:
        raise BadSampleError("json", str(error)) from None
    return parse(row)


def picture_problems(sample: Sample, images: Path, *, decode: bool) -> list[Problem]:
    """What is wrong with the sample's pictures below `images`: their paths, and whether they decode."""
    found: list[Problem] = []
    for name in sample.images:
        try:
            path = image_path(images, name)
            if decode:
                decode_image(path)
        except BadSampleError as error:
            found.append(Problem(error.cause, str(error), name))
    return found


def parse(row: Any) -> Sample:
    """One row of a conversation file.

    Raises:
        BadSampleError: If it has another form.
    """
    try:
        image = row.get("image") or ()
        if isinstance(image, dict):
            raise TypeError("image holds a picture; `vlm unpack` writes such pictures to a folder")
        images = (image,) if isinstance(image, str) else tuple(_strings(image))
        messages = [tuple(_strings((m["from"], m["value"]))) for m in row["conversations"]]
        name = str(row.get("id", ""))
    except (AttributeError, KeyError, TypeError) as error:
        raise BadSampleError(
            "schema", f'expected {{"id", "image", "conversations": [{{"from", "value"}}]}}: {error!r}'
        ) from None
    if messages and messages[0][0] != "human":
        messages = messages[1:]
    speakers = [speaker for speaker, _ in messages]
    if not messages or speakers != ["human", "gpt"] * (len(messages) // 2):
        told = ", ".join(speakers[:6]) or "no message"
        raise BadSampleError("turns", f"({name}): expected human and gpt in turn, got {told}.")
    turns = tuple(Turn(q, a) for (_, q), (_, a) in zip(messages[::2], messages[1::2], strict=True))
    n_places = sum(turn.question.count(IMAGE) for turn in turns)
    if n_places != len(images):
        raise BadSampleError(
            "image_count", f"({name}): {len(images)} images but {n_places} times {IMAGE} in the questions."
        )
    if BLANK in images:
        raise BadSampleError("image_outside", f"({name}): an image cannot be named {BLANK!r}, which means a grey one.")
    return Sample(name, images, turns)


def _strings(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"expected a string, got {value!r:.80}")
        yield value


def distinct_images(samples: Iterable[Sample]) -> list[str]:
    """Every image path of `samples` once, in order of first use; grey ones have none."""
    return list(dict.fromkeys(image for sample in samples for image in sample.images if image != BLANK))


def check_supervision(samples: Sequence[Sample], encoded: Sequence[Encoded], *, least_share: float) -> float:
    """The share of tokens that are supervised, after making sure that there is something to learn everywhere.

    A mask that covers every label gives "loss 0" and a model that has learnt nothing, the most frequent complaint
    about every framework of this kind; so it stops here.

    Args:
        samples: The samples, for their names.
        encoded: The same samples, tokenised.
        least_share: The lowest share over all tokens that is accepted.

    Raises:
        ValueError: If a sample has no supervised token, or the share is below `least_share`.
    """
    if isinstance(encoded, TokenStore):
        counts = np.stack([encoded.lengths, encoded.n_supervised], axis=1)
    else:
        counts = np.array([(len(e.ids), e.n_supervised) for e in encoded], dtype=np.int64).reshape(-1, 2)
    empty = np.flatnonzero(counts[:, 1] == 0)
    if len(empty):
        raise ValueError(
            f"{len(empty)} of {len(encoded)} samples have no supervised token (the first: "
            f"{', '.join(samples[i].id for i in empty[:5].tolist())}). Check template, tokenizer and answers."
        )
    n_tokens, n_supervised = counts.sum(axis=0).tolist()
    share = n_supervised / max(n_tokens, 1)
    if share < least_share:
        raise ValueError(
            f"Only {share:.2%} of {n_tokens} tokens are supervised, expected at least {least_share:.2%}. "
            "Check template and tokenizer, or lower least_supervised_share."
        )
    return share
