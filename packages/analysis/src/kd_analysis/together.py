"""Several files that take their places together, once all of them are written."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kd_analysis.durable import sync_folder, sync_names

PART = ".part"


@contextmanager
def in_place_together(out: Path) -> Iterator[Path]:
    """A folder to write into; its files then go into `out`, each in one move. Other files in `out` stay.

    An error while writing leaves `out` as it was. What a killed process left half written is removed by the next.
    """
    part = out / PART
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        sync_folder(part)
        for file in sorted(p for p in part.rglob("*") if p.is_file()):
            place = out / file.relative_to(part)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
            sync_names(place.parent)
    except OSError as error:
        error.filename = error.filename or str(out)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
