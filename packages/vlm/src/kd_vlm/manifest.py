"""What a validation wrote down about a conversation file: one line a row, and a summary. See the contract."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_vlm.problems import OF_TOKENS, Known, Problem
from kd_vlm.reading import checked, parse_json, read_as
from kd_vlm.workspace import file_digest

SCHEMA = "kd-vlm-manifest/1"
SUMMARY = "manifest.json"
SAMPLES = "samples.jsonl"


class Summary(TypedDict, extra_items=Any):  # type: ignore[call-arg]  # the tokens, and where they were counted
    """What `manifest.json` says and is read here."""

    schema: Literal["kd-vlm-manifest/1"]
    file_sha256: str
    samples_sha256: str
    rows: int
    rows_bad: int
    rows_text_only: int
    problems: dict[str, int]


class Line(TypedDict, extra_items=Any):  # type: ignore[call-arg]
    """What a line of `samples.jsonl` says of a row and is read here."""

    row: int
    problems: list[Problem]


_LINE = TypeAdapter(Line)


@dataclass(frozen=True)
class Manifest:
    """A validated file. `summary` is `manifest.json`."""

    folder: Path
    summary: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        """How often each cause occurred."""
        return dict(self.summary["problems"])

    @property
    def bad_share(self) -> float:
        """The share of rows with a problem, in [0, 1]."""
        return float(self.summary["rows_bad"] / max(self.summary["rows"], 1))

    def lines(self) -> Iterator[dict[str, Any]]:
        """The rows of the file in order: `row`, `id`, `images`, `sha256`, `tokens`, `supervised`, `problems`."""
        with (self.folder / SAMPLES).open("rb") as file:
            for number, line in enumerate(file, 1):
                where = f"{self.folder / SAMPLES}, line {number}"
                found = parse_json(line, where)
                checked(_LINE, found, where)
                yield found

    def problems(self) -> Known:
        """What is wrong with rows and pictures themselves, by row; `data.read_conversations` takes it as `known`.

        What a template, a tokenizer or a length made of them is left to `corpus.prepare`, which has the recipe's own:
        a sample that is too long here may be one that the recipe cuts.
        """
        found = {}
        for line in self.lines():
            told = [Problem(p["cause"], p["message"], p.get("image")) for p in line["problems"]]
            if kept := [problem for problem in told if problem.cause not in OF_TOKENS]:
                found[line["row"]] = kept
        return found


def read_manifest(folder: Path, conversations: Path) -> Manifest:
    """The manifest in `folder`, which must be of `conversations` as that file is now.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another file, or its own lines were changed.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise FileNotFoundError(f"Expected a manifest at {path}, found none. Run: vlm validate {conversations} ...")
    summary = read_as(Summary, path)
    for name, file, digest in (
        ("conversations", conversations, summary["file_sha256"]),
        ("lines", folder / SAMPLES, summary["samples_sha256"]),
    ):
        if (found := file_digest([file])) != digest:
            raise ValueError(
                f"{path} is about other {name}: {file} has the digest {found[:12]}, expected {digest[:12]}. "
                "Run vlm validate again."
            )
    return Manifest(folder, summary)
