"""Replies from files, ours and those of LLaVA, Cambrian, lmms-eval, VLMEvalKit, MathVista and MME."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kd_evalsuite.items import DataError, Item
from kd_evalsuite.records import Prediction
from kd_evalsuite.tables import READERS, utf8

IDS = ("id", "question_id", "questionId", "index", "pid", "idx", "doc_id", "item_id")
TEXTS = ("prediction", "filtered_resps", "resps", "text", "response", "reply", "answer", "output")
_IMAGE_SUFFIX = re.compile(r"\.(?:jpe?g|png|webp|bmp|gif)$", re.IGNORECASE)
_PLAIN = re.compile(r"[a-z]|yes|no", re.IGNORECASE | re.ASCII)
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply under the name that its file gives the item.

    Attributes:
        id: As in the file.
        prediction: The reply with what else is known of it.
        prompt: The prompt, where the file has it; tells questions on one image apart.
        position: Whether `id` is the item's position in the data set (lmms-eval's `doc_id`).
        target: The gold answer that the file has beside a position.
    """

    id: str
    prediction: Prediction
    prompt: str = ""
    position: bool = False
    target: str = ""


@dataclass(frozen=True, slots=True)
class Matched:
    """Replies by item id, and how many were of no item (as of another part of the same benchmark)."""

    predictions: dict[str, Prediction]
    unmatched: int


def read_answers(path: Path) -> list[Answer]:
    """Every reply in a file (jsonl, json, tsv, csv, parquet), or in a folder of MME's `<category>.txt`.

    Raises:
        DataError: If the file is missing has no column of ids or of replies, or items failed.
    """
    if path.is_dir():
        return _mme_texts(path)
    if not path.is_file():
        raise DataError(f"Expected predictions at {path}, found none.")
    if path.suffix not in READERS:
        raise DataError(f"{path}: expected {', '.join(READERS)}, got {path.suffix or 'no suffix'!r}.")
    rows = READERS[path.suffix](path, False)
    if not rows:
        raise DataError(f"{path}: expected predictions, found none.")
    failed = [row for row in rows if isinstance(row, dict) and row.get("error") and row.get("prediction") is None]
    if failed:
        first = f"{failed[0].get('id')}: {failed[0]['error']}"
        raise DataError(
            f"{path}: {len(failed)} of {len(rows)} items failed and have no reply, e.g. {first}. "
            "They are asked again by evalsuite predict; a score counts every item."
        )
    column = _column(rows)
    return [_answer(path, number, row, column) for number, row in enumerate(rows, start=1)]


def _column(rows: Sequence[Any]) -> str | None:
    """Where the replies of a file stand: one column for all rows, as another may hold gold answers (`answer`)."""
    found = {name for row in rows if isinstance(row, dict) for name in row}
    return next((name for name in TEXTS if name in found), None)


def _answer(path: Path, number: int, row: Any, column: str | None) -> Answer:
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: expected an object, got {type(row).__name__}.")
    if "prompt_sha256" in row or ({"id", "prediction"} <= row.keys() and row.keys() <= set(Prediction.model_fields)):
        try:
            own = Prediction.model_validate(row)
        except ValidationError as error:
            raise DataError(f"{path}:{number}: not a prediction: {error}") from None
        return Answer(own.id, own)
    name = next((name for name in IDS if row.get(name) is not None), None)
    if name is None or column is None or column not in row:
        wanted = f"an id ({', '.join(IDS)})" if name is None else f"a reply ({column or ', '.join(TEXTS)})"
        raise DataError(f"{path}:{number}: expected {wanted}; found {', '.join(map(str, row))}.")
    key = str(row[name])
    said = _text(row[column])
    if said is None:
        raise DataError(
            f"{path}:{number}: {key} has no reply, {column!r} is null. "
            'A model that said nothing has an empty text there (""); an item that failed is to be asked again.'
        )
    one = _bare_prediction(key, said)
    return Answer(key, one, str(row.get("prompt") or ""), name == "doc_id", str(row.get("target") or ""))


def _bare_prediction(key: str, text: str) -> Prediction:
    return Prediction(id=key, prediction=text, tokens=0, seconds=0)


def _text(value: Any) -> str | None:
    while isinstance(value, list):
        value = value[0] if value else ""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _mme_texts(folder: Path) -> list[Answer]:
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"Expected a file of predictions, or MME's <category>.txt in {folder}; found neither.")
    answers = []
    for file in files:
        for number, line in enumerate(utf8(file).split("\n"), start=1):
            cells = line.split("\t")
            if not line.strip():
                continue
            if len(cells) < 4:
                raise DataError(f"{file}:{number}: expected image, question, answer, reply, got {len(cells)} cells.")
            key = f"{file.stem}/{cells[0]}"
            answers.append(Answer(key, _bare_prediction(key, cells[3]), prompt=cells[1]))
    return answers


def match(answers: Sequence[Answer], items: Sequence[Item], path: Path) -> Matched:
    """Which reply belongs to which item.

    By the item's id; else by position; else by the name of the question or of its picture, told apart by the prompt.

    Raises:
        DataError: If two replies are of one item, or a reply could be of several items, or the answers that a file
            gives beside positions are not those of the items there.
    """
    by_id = {item.id: item for item in items}
    at = {item.row if item.row is not None else k: item for k, item in enumerate(items)}
    named = _by_name(items)
    _require_order(answers, at, path)
    found: dict[str, Prediction] = {}
    problems: list[str] = []
    unmatched = 0
    for answer in answers:
        candidates = _candidates(answer, by_id, named, at)
        if len(candidates) > 1:
            problems.append(f"{answer.id!r} could be of {len(candidates)} items")
        elif not candidates:
            unmatched += 1
        elif candidates[0].id in found:
            problems.append(f"{answer.id!r} is there twice")
        else:
            found[candidates[0].id] = answer.prediction.model_copy(update={"id": candidates[0].id})
    if problems:
        more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{path}: {'; '.join(problems[:SHOWN])}{more}.")
    return Matched(found, unmatched)


def _candidates(
    answer: Answer, by_id: Mapping[str, Item], named: Mapping[str, list[Item]], at: Mapping[int, Item]
) -> list[Item]:
    if answer.position:
        item = _at(answer, at)
        return [item] if item else []
    if answer.id in by_id:
        return [by_id[answer.id]]
    found = named.get(_bare(answer.id), [])
    if len(found) > 1:
        found = [item for item in found if _stem(item.question) in answer.prompt] or found
    if len(found) > 1:  # a question that begins like a longer one
        longest = max(len(_stem(item.question)) for item in found)
        found = [item for item in found if len(_stem(item.question)) == longest]
    return found


def _at(answer: Answer, at: Mapping[int, Item]) -> Item | None:
    return at.get(int(answer.id)) if answer.id.isdecimal() and len(answer.id) < 10 else None


def _require_order(answers: Sequence[Answer], at: Mapping[int, Item], path: Path) -> None:
    """Letters, yes and no beside positions have to be the items' own; a label in ten may have been corrected."""
    told = [(a, item) for a in answers if a.position and (item := _at(a, at)) and _PLAIN.fullmatch(a.target.strip())]
    other = [(a, item) for a, item in told if a.target.strip().lower() != item.gold[0].lower()]
    if len(other) > len(told) / 10:
        answer, item = other[0]
        raise DataError(
            f"{path}: {len(other)} of {len(told)} answers are not those of the data at these positions, e.g. doc_id "
            f"{answer.id} with {answer.target!r}, where the data have {item.gold[0]!r}. Expected positions in the "
            "whole data set in its own order; give the split and the files that the replies were made from."
        )


def _by_name(items: Sequence[Item]) -> dict[str, list[Item]]:
    named: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        for name in {_bare(str(item.fields.get("question_id") or "")), _bare(item.cluster)} - {""}:
            named[name].append(item)
    return named


def _stem(question: str) -> str:
    return question.strip().removesuffix("Please answer yes or no.").strip()


def _bare(name: str) -> str:
    """A name without its suffix and folders between the first and the last: `art/images/1.jpg` is `art/1`."""
    parts = _IMAGE_SUFFIX.sub("", name).split("/")
    return "/".join(parts if len(parts) < 3 else (parts[0], parts[-1]))
