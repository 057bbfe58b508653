"""The items of a task from a folder, whole or cut to a number, and a check of everything before work starts."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_evalsuite.items import DataError, Item
from kd_evalsuite.tables import data_digest
from kd_evalsuite.tasks import EVERY, task_named
from kd_evalsuite.text import LETTERS


@dataclass(frozen=True, slots=True)
class TaskData:
    """The items of one task, and the digest of the files they came from."""

    key: str
    items: Sequence[Item]
    sha256: str


def load_task(root: Path, key: str, *, limit: int | None = None, pictures: bool = True) -> TaskData:
    """The items of task `key` in `root/key`.

    Args:
        root: One folder a task.
        limit: About how many items: whole clusters are taken, in the order of a hash, until there are so many. A larger
            limit takes the same ones and more. The order of the file is kept.
        pictures: Whether to read image bytes.

    Raises:
        DataError: If files, columns or values are not what the public dataset has.
    """
    return load_folder(root / folder_of(root, key), key, limit=limit, pictures=pictures)  # never `root` itself


def folder_of(root: Path, key: str) -> str:
    """The name of the folder in `root` that holds the data of `key`: its own, or that of the task it varies."""
    shared = task_named(key).folder
    return shared if shared and not (root / key).is_dir() else key


def place_of(root: Path, key: str) -> Path:
    """Where the data of `key` are: in its folder in `root`, or `root` itself, if that is not a folder of such folders.

    Raises:
        DataError: If `root` holds the folders of other benchmarks only.
    """
    if (root / folder_of(root, key)).is_dir():
        return root / folder_of(root, key)
    if others := [name for name in EVERY if (root / name).is_dir()]:
        raise DataError(f"Expected a folder {folder_of(root, key)} in {root}, found {', '.join(others)}.")
    return root


def _refuse_other_types(items: Iterable[Item]) -> None:
    """Raise DataError where a text is none: prompts join texts, and judges compare them."""
    for item in items:
        hint = item.fields.get("hint", "")
        if strange := [x for x in (item.question, hint, *item.gold, *item.choices) if not isinstance(x, str)]:
            raise DataError(f"item {item.id}: expected text in every column of texts, got {strange[0]!r:.60}.")


def load_folder(folder: Path, key: str, *, limit: int | None = None, pictures: bool = True) -> TaskData:
    """The items of task `key` in `folder`: the benchmark's own, one file of it, or a folder of the folders of several.

    Raises:
        DataError: If files, columns or values are not what the public dataset has.
    """
    task = task_named(key)
    folder = place_of(folder, key)
    try:
        items = task.read(folder, pictures)
        _refuse_other_types(items)
    except DataError as error:
        if str(folder) in str(error):
            raise
        raise DataError(f"{folder}: {error}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise DataError(f"{folder}: a row is not as in the public dataset: {type(error).__name__}: {error}") from error
    _check(folder, items)
    ids = [item.id for item in items]
    if len(set(ids)) < len(ids):
        raise DataError(f"{folder}: expected ids to be unique, {len(ids) - len(set(ids))} are repeated.")
    return TaskData(key, _cut(items, limit), data_digest(folder))


def _check(folder: Path, items: Iterable[Item]) -> None:
    for item in items:
        letters = LETTERS[: len(item.choices)]
        if item.choices and not item.gold:
            raise DataError(f"{folder}: item {item.id}: expected a gold answer among {letters}, found none.")
        if item.choices and len(item.gold[0]) == 1 and item.gold[0] not in letters:
            raise DataError(f"{folder}: item {item.id}: expected a gold answer among {letters}, got {item.gold[0]!r}.")


def load_all(root: Path, keys: Iterable[str], *, limit: int | None = None, pictures: bool = True) -> list[TaskData]:
    """All tasks; every problem is reported at once, among them pictures that are not there.

    Raises:
        DataError: With one line for each task that cannot be read.
    """
    loaded: list[TaskData] = []
    problems: list[str] = []
    for key in keys:
        try:
            loaded.append(load_task(root, key, limit=limit, pictures=pictures))
            problems.extend(f"{key}: {line}" for line in (missing_pictures(loaded[-1].items) if pictures else ()))
        except DataError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise DataError("\n".join(problems))
    return loaded


def missing_pictures(items: Iterable[Item]) -> list[str]:
    """What to say of pictures that are files and are not there: one line, or none."""
    paths = {p.path for item in items for p in item.pictures if p.path is not None and p.data is None}
    absent = sorted(str(path) for path in paths if not path.is_file())
    return [f"{len(absent)} of {len(paths)} pictures are not there, e.g. {', '.join(absent[:3])}"] if absent else []


def _cut(items: list[Item], limit: int | None) -> list[Item]:
    if limit is None or len(items) <= limit:
        return items
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.cluster or item.id] = sizes.get(item.cluster or item.id, 0) + 1
    kept: set[str] = set()
    n = 0
    for cluster in sorted(sizes, key=lambda c: hashlib.sha256(c.encode()).digest()):
        if n >= limit:
            break
        kept.add(cluster)
        n += sizes[cluster]
    return [item for item in items if (item.cluster or item.id) in kept]
