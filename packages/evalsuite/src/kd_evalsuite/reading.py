"""JSON, arrays, parquet and tars from outside: a value, or one error that names the file and what is wrong with it.

What Python's reader of JSON lets through is refused: NaN and infinities, one key twice in an object, text that no file
in UTF-8 can hold again (lone surrogates), numbers of thousands of digits, nesting that would exhaust the stack.

This file is the same in every package; its source is contract/shared/reading.py.
"""

import json
import math
import re
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class FileError(ValueError):
    """A file does not hold what it should (exit code 2); the message names the file and what was expected."""


def read_json(path: Path, error: type[Exception] = FileError) -> Any:
    """What a JSON file holds.

    Args:
        path: UTF-8, a byte order mark is allowed.
        error: What is raised where it is no JSON.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    return parse_json(path.read_bytes(), str(path), error)


def parse_json(data: bytes | str, where: str, error: type[Exception] = FileError) -> Any:
    """The value that `data` spells; `where` (a file, or file and line) begins the message of an `error`."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_each_key_once)
        if _SURROGATE.search(text):
            _refuse_lone_surrogates(value)
    except RecursionError:
        raise error(f"{where}: expected JSON, got values nested too deeply to read.") from None
    except ValueError as wrong:  # not UTF-8, not JSON, or one of the hooks
        raise error(f"{where}: expected JSON, got something else: {wrong}.") from None
    return value


def read_as(kind: Any, path: Path, error: type[Exception] = FileError) -> Any:
    """What a JSON file holds, as `kind` (a pydantic model, a TypedDict, `list[int]`, ...); raises as `read_json`."""
    return checked(kind, read_json(path, error), str(path), error)


def checked(kind: Any, value: Any, where: str, error: type[Exception] = FileError) -> Any:
    """`value` as `kind` (or as the TypeAdapter of one), with what is wrong with it in one line each."""
    try:
        adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
        found = adapter.validate_python(value)
    except ValidationError as wrong:
        lines = [f"{where}: {_place(p['loc'])}: {p['msg']}, got {p['input']!r:.60}" for p in wrong.errors()[:5]]
        raise error("\n".join(lines)) from None
    except RecursionError:
        raise error(f"{where}: values nested too deeply to read.") from None
    return found


# ---------------------------------------------------------------- other formats


def read_array(path: Path, error: type[Exception] = FileError) -> Any:
    """The array in an `.npy` file, mapped and not read; a header that promises more than the file holds is refused.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    import numpy as np

    try:
        with warnings.catch_warnings(action="ignore"):
            return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except Exception as wrong:  # numpy's reader of headers raises what its parser of Python stumbles over
        raise error(f"{path}: expected an array (.npy): {type(wrong).__name__}: {wrong}.") from None


@contextmanager
def parquet_errors(where: object, error: type[Exception] = FileError) -> Iterator[None]:
    """While inside, what pyarrow raises on a damaged file becomes an `error` that names it; of storage it stays."""
    import pyarrow as pa

    try:
        yield
    except error:
        raise
    except (pa.ArrowException, UnicodeError, OverflowError, OSError) as wrong:
        if isinstance(wrong, OSError) and wrong.errno is not None:
            raise
        said = (str(wrong).splitlines() or [type(wrong).__name__])[0]
        raise error(f"{where}: damaged, or of another format: {said:.300}") from None


@contextmanager
def weights_errors(where: object, error: type[Exception] = FileError) -> Iterator[None]:
    """While inside, what safetensors raises on a damaged file becomes an `error` that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as wrong:
        raise error(f"{where}: expected safetensors, got something else: {wrong}; was the file cut short?") from None


def open_tar(file: Path | BinaryIO) -> tarfile.TarFile:
    """A tar that is not compressed, for `tar_members`; tarfile.ReadError where it does not begin like one."""
    with _tar_errors():
        if isinstance(file, Path):
            return tarfile.open(file, "r:")
        return tarfile.open(fileobj=file, mode="r:")


def tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of an open tar in their order, each behind the one before.

    Raises:
        tarfile.ReadError: Where it is damaged, whatever Python's reader stumbles over.
    """
    end = 0
    while True:
        with _tar_errors():
            member = tar.next()
        if member is None:
            return
        if member.size < 0 or member.offset < end or member.offset_data >= 1 << 62:
            raise tarfile.ReadError(f"a header at byte {member.offset} that gives {member.size} bytes")
        end = member.offset_data
        yield member


@contextmanager
def _tar_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, ArithmeticError, MemoryError, RecursionError, AttributeError, LookupError, TypeError) as wrong:
        raise tarfile.ReadError(f"a damaged header: {wrong or type(wrong).__name__}") from None


def _place(loc: Sequence[Any]) -> str:
    return ".".join(map(str, loc)) or "the whole"


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large")
    return value


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r:.60} is there twice")
    return found


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as wrong:
        raise ValueError(f"half a surrogate pair ({wrong.object[wrong.start]!a}) is no text") from None
