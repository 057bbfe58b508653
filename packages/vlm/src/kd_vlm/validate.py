"""A look at every sample and every picture of a conversation file, in parallel, before a training needs them."""

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from kd_vlm.data import Sample, row_sample
from kd_vlm.manifest import SAMPLES, SCHEMA, SUMMARY, Manifest
from kd_vlm.pictures import decode_image, image_path
from kd_vlm.problems import BadSampleError, Problem
from kd_vlm.rows import Rows, open_rows
from kd_vlm.templates import TemplateName, encode, template_named
from kd_vlm.workspace import file_digest, key_of

ROWS = 200  # rows that a worker takes at a time


@dataclass(frozen=True)
class Tokens:
    """How conversations are to be tokenised.

    Attributes:
        tokenizer: The folder of a language model or of its tokenizer.
        template: See `templates.template_named`.
        per_image: Tokens of a picture.
        most: More tokens in a sample are a problem.
    """

    tokenizer: Path
    template: TemplateName
    per_image: int
    most: int


@dataclass
class Checker:
    """What a worker needs; remembers the pictures that it has seen."""

    rows: Rows
    images: Path
    tokens: Tokens | None
    seen: dict[str, tuple[str | None, Problem | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tokens is not None:
            self.tokenizer = load_tokenizer(self.tokens.tokenizer)
            self.write = template_named(self.tokens.template, self.tokenizer)

    def lines(self, numbers: range) -> list[dict[str, Any]]:
        """The manifest's lines of these rows."""
        return [self._line(number) for number in numbers]

    def _line(self, number: int) -> dict[str, Any]:
        line: dict[str, Any] = {"row": number, "id": "", "images": [], "sha256": [], "tokens": None, "supervised": None}
        try:
            sample = row_sample(self.rows, number)
        except BadSampleError as error:
            return line | {"id": self._id(number), "problems": [asdict(Problem(error.cause, str(error)))]}
        pictures = [self._picture(name) for name in sample.images]
        problems = [problem for _, problem in pictures if problem]
        line |= {"id": sample.id, "images": sample.images, "sha256": [digest for digest, _ in pictures]}
        if self.tokens is not None:
            counts, more = self._count(sample, self.tokens)
            line |= counts
            problems += more
        return line | {"problems": [asdict(problem) for problem in problems]}

    def _id(self, number: int) -> str:
        """The id of a row that is no sample, where it has one."""
        try:
            return str(self.rows[number].get("id", ""))
        except (ValueError, AttributeError):
            return ""

    def _picture(self, name: str) -> tuple[str | None, Problem | None]:
        if name not in self.seen:
            digest = None
            try:
                path = image_path(self.images, name)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                decode_image(path)
                self.seen[name] = digest, None
            except BadSampleError as error:
                self.seen[name] = digest, Problem(error.cause, str(error), name)
        return self.seen[name]

    def _count(self, sample: Sample, tokens: Tokens) -> tuple[dict[str, int], list[Problem]]:
        try:
            segments = self.write(sample.turns)
        except BadSampleError as error:
            return {}, [Problem(error.cause, str(error))]
        except ValueError as error:
            return {}, [Problem("template", str(error))]
        (encoded,) = encode([segments], self.tokenizer, image_id=-1, tokens_per_image=tokens.per_image)
        n_tokens, n_supervised = len(encoded.ids), encoded.n_supervised
        found = []
        if n_tokens > tokens.most:
            found.append(Problem("too_long", f"{n_tokens} tokens, at most {tokens.most} are allowed."))
        if n_supervised == 0:
            found.append(Problem("no_supervision", "No token is supervised."))
        return {"tokens": n_tokens, "supervised": n_supervised}, found


def validate(
    conversations: Path,
    images: Path,
    out: Path,
    *,
    tokens: Tokens | None,
    workers: int,
    on_rows: Callable[[int, int], None],
) -> Manifest:
    """Check every row of `conversations` and write the manifest to `out`; one that was interrupted goes on.

    Args:
        conversations: `.json`, `.jsonl` or `.parquet`.
        images: The folder of the pictures; each is read, its digest taken, and decoded.
        out: A folder of its own for this file.
        tokens: How to tokenise; None leaves tokens and supervision uncounted.
        workers: Processes; with one, everything happens in this process.
        on_rows: Called with rows done and rows in all.

    Raises:
        FileNotFoundError: If the file or the folder of pictures is missing.
        ValueError: If the file as a whole cannot be read, or the tokenizer does not fit the template.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"Expected the folder of the pictures at {images}, found none.")
    rows = open_rows(conversations)
    checker = Checker(rows, images, tokens)
    about = _about(conversations, images, checker)
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f"{SAMPLES}.{key_of(about)[:12]}.partial"
    done = _complete_lines(partial)
    on_rows(done, len(rows))
    parts = [range(i, min(i + ROWS, len(rows))) for i in range(done, len(rows), ROWS)]
    with partial.open("a", encoding="utf-8") as file:
        for lines in _checked(checker, parts, workers):
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            file.flush()
            done += len(lines)
            on_rows(done, len(rows))
        os.fsync(file.fileno())
    partial.replace(out / SAMPLES)
    summary = {"schema": SCHEMA, **about, **_summary(out / SAMPLES)}
    unfinished = out / f"{SUMMARY}.partial"
    unfinished.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(out / SUMMARY)
    return Manifest(out, summary)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`. Raises ValueError if there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"{folder} holds no tokenizer: {error}") from None


def tokenizer_digest(tokenizer: Any) -> str:
    """A sha256 over vocabulary, merges, normalisation and chat template."""
    return key_of(json.loads(tokenizer.backend_tokenizer.to_str()), tokenizer.chat_template)


def _about(conversations: Path, images: Path, checker: Checker) -> dict[str, Any]:
    about: dict[str, Any] = {
        "file": str(conversations),
        "file_sha256": file_digest([conversations]),
        "images": str(images),
        "template": None,
    }
    if checker.tokens is not None:
        about |= {
            "template": checker.tokens.template,
            "tokenizer_sha256": tokenizer_digest(checker.tokenizer),
            "tokens_per_image": checker.tokens.per_image,
            "max_tokens": checker.tokens.most,
        }
    return about


def _complete_lines(path: Path) -> int:
    """How many whole lines an interrupted validation left; half a line is cut off."""
    if not path.is_file():
        return 0
    n_lines = end = at = 0
    with path.open("rb+") as file:
        for line in file:
            at += len(line)
            if line.endswith(b"\n"):
                n_lines, end = n_lines + 1, at
        file.truncate(end)
    return n_lines


def _checked(checker: Checker, parts: list[range], workers: int) -> Iterator[list[dict[str, Any]]]:
    """The lines of `parts`, in their order."""
    if workers == 1 or len(parts) < 2:
        yield from map(checker.lines, parts)
        return
    arguments = (checker.rows, checker.images, checker.tokens)
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, arguments) as pool:
        ahead: deque[Future[list[dict[str, Any]]]] = deque()
        for part in parts:
            ahead.append(pool.submit(_lines, part))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


_checker: Checker


def _start(rows: Rows, images: Path, tokens: Tokens | None) -> None:
    global _checker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _checker = Checker(rows, images, tokens)


def _lines(part: range) -> list[dict[str, Any]]:
    return _checker.lines(part)


def _summary(path: Path) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    images: set[str] = set()
    tokens, supervised = [], []
    n_rows = n_bad = n_text = 0
    with path.open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            n_rows += 1
            n_bad += bool(line["problems"])
            n_text += not line["images"] and not line["problems"]
            counts.update(problem["cause"] for problem in line["problems"])
            images.update(line["images"])
            if line["tokens"] is not None:
                tokens.append(line["tokens"])
                supervised.append(line["supervised"])
    summary: dict[str, Any] = {
        "rows": n_rows,
        "rows_bad": n_bad,
        "rows_text_only": n_text,
        "distinct_images": len(images),
        "problems": dict(sorted(counts.items())),
        "samples_sha256": file_digest([path]),
    }
    if tokens:
        quantiles = np.quantile(tokens, (0.01, 0.25, 0.5, 0.75, 0.99)).round().astype(int).tolist()
        summary["tokens"] = {
            "total": sum(tokens),
            "mean": round(sum(tokens) / len(tokens), 2),
            "quantiles": dict(zip(("1%", "25%", "50%", "75%", "99%"), quantiles, strict=True)),
            "longest": max(tokens),
            "supervised": sum(supervised),
            "supervised_share": round(sum(supervised) / max(sum(tokens), 1), 6),
        }
    return summary
