"""What a killed DVC can leave half written, and would stop at: put right before the runner runs anything.

`python -m pipeline.mend` does the same before a plain `dvc repro`.

DVC writes `dvc.lock` and its table of locks in place. One that was cut short stops every later command, so it is moved
aside here and said: without `dvc.lock` DVC finds the outputs of finished stages in its cache and runs none of them
again. Locks of dead processes are dropped from the table.
"""

import json
from pathlib import Path

from pipeline.locktable import forget_ended, when_free


def mend(root: Path) -> list[str]:
    """Move damaged files of DVC aside, while no dvc runs there; says what was done, a line a file.

    Raises:
        BusyError: If a dvc does run there, and keeps the table of locks for itself.
    """
    said = []
    for lock in sorted((root / "dvc.lock", *root.glob("studies/*/dvc.lock"))):
        if lock.is_file() and not _is_lock(lock):
            aside = lock.with_name(f"{lock.name}.damaged")
            lock.replace(aside)
            name = lock.relative_to(root)
            said.append(f"{name} was cut short; it is now {aside.name}, and finished stages come from the cache.")
    table = root / ".dvc" / "tmp" / "rwlock"
    if table.is_file() and not _is_table(table):
        table.unlink()
        said.append(f"{table.relative_to(root)} was cut short and is removed.")
    elif table.is_file() and (ended := when_free(lambda: forget_ended(table.parent))):
        said.append(f"{table.relative_to(root)} held locks of {ended} processes that have ended; they are dropped.")
    return said


def _is_lock(file: Path) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML, YAMLError
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(file))
    except (YAMLError, Invalid, UnicodeDecodeError):
        return False
    return True


def _is_table(file: Path) -> bool:
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        SCHEMA(json.loads(file.read_bytes()))
    except (ValueError, Invalid):
        return False
    return True


if __name__ == "__main__":
    for line in mend(Path(__file__).resolve().parent.parent):
        print(line)
