"""A language model that extracts MathVista's answers, as officially. Off unless asked for, and cached.

A judge is anything that answers a text with a text (`Ask`), an OpenAI-compatible server for one. What it said is kept
in a file, one JSON line a question; the same reply is never sent twice, and a full cache needs no server.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_evalsuite.items import DataError, Item
from kd_evalsuite.metrics import Judge, Verdict
from kd_evalsuite.protocols import mathvista
from kd_evalsuite.reading import FileError, checked, parse_json
from kd_evalsuite.text import LIMIT, number

Ask = Callable[[str], str]
PROMPT_VERSION = "1"
JUDGED_TOKENS = 64
FORMS = {
    "integer": "one integer",
    "float": "one decimal number",
    "list": "one list in square brackets",
    "text": "a few words",
}
TASK = """Below are a question and a reply to it. Write down only the final answer that the reply gives, as {form}.
If the reply gives no answer, write NONE. Do not answer the question yourself.

Question: {question}

Reply: {reply}

Answer given in the reply:"""


class Said(TypedDict):
    """A line of the cache."""

    key: str
    judge: str
    said: str


class Cache:
    """What a judge said, by the digest of judge and prompt.

    Args:
        path: Lines of `{"key", "judge", "said"}`; made when the first answer comes.
        name: The judge's name, part of every key.
        ask: The judge; None if only what is there may be used.
    """

    def __init__(self, path: Path, name: str, ask: Ask | None) -> None:
        self._path, self.name, self._ask = path, name, ask
        self.asked = 0
        self._said: dict[str, str] = {}
        if path.is_file():
            for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
                with contextlib.suppress(FileError):  # a line that was cut short by a kill
                    row = parse_json(line, str(path))
                    said = checked(Said, row, f"{path}, line {number}", DataError)
                    self._said[said["key"]] = said["said"]

    def __call__(self, prompt: str) -> str:
        """What the judge says to a prompt.

        Raises:
            DataError: If it was never asked and there is no judge to ask.
        """
        key = hashlib.sha256("\x1f".join((PROMPT_VERSION, self.name, prompt)).encode("utf-8", "replace")).hexdigest()
        if key not in self._said:
            if self._ask is None:
                raise DataError(f"{self._path}: the judge {self.name!r} was not asked this yet, and none was given.")
            self._keep(key, self._ask(prompt))
            self.asked += 1
        return self._said[key]

    def _keep(self, key: str, said: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        row = {"key": key, "judge": self.name, "said": said}
        with self._path.open("a+b") as stream:
            stream.seek(0, os.SEEK_END)
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
            stream.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._said[key] = said


def client(url: str, model: str) -> Ask:
    """An OpenAI-compatible server as a judge: greedy, at most `JUDGED_TOKENS` new tokens. Needs the extra `api`.

    Args:
        url: Of the interface, e.g. `http://127.0.0.1:8000/v1`.
        model: The server's name of the model.

    Raises:
        DataError: If there is no such server or model.
    """
    from kd_evalsuite.models.base import Request
    from kd_evalsuite.models.endpoint import Endpoint

    if not url.startswith(("http://", "https://")):
        raise DataError(f"Expected the judge as http://… or https://…, got {url!r}.")
    server = Endpoint(url, model, concurrency=1)
    return lambda prompt: server.answer([Request(prompt)], JUDGED_TOKENS)[0].text


def judged(ask: Ask) -> Judge:
    """MathVista with a judge: what needs no extraction is read directly, the rest is asked; NONE is unread."""

    def verdict(reply: str, item: Item) -> Verdict:
        found = _plainly(reply, item) or _asked(reply, item, ask)
        return mathvista.UNREAD if not found else mathvista.compared(found, item)

    return verdict


def _plainly(reply: str, item: Item) -> str | None:
    """A reply that is an answer as it stands: an option's letter or text, or a number where one is wanted."""
    text = reply.strip()
    if item.choices:
        return mathvista.extract(text, item) if text in item.choices or len(text) <= 3 else None
    wanted = item.fields.get("answer_type") in ("integer", "float")
    return text if wanted and number(text) is not None else None


def _asked(reply: str, item: Item, ask: Ask) -> str | None:
    if not reply.strip():
        return None
    form = "the option's letter" if item.choices else FORMS.get(item.fields.get("answer_type", "text"), FORMS["text"])
    said = ask(TASK.format(form=form, question=item.question, reply=reply[:LIMIT])).strip()
    if item.choices:
        return mathvista.extract(said, item)  # an answer that names no option is none, never the nearest one
    return None if said.upper().strip(".") in ("", "NONE") else said
