"""What a rehearsal writes, read."""

import csv
from pathlib import Path


def rows(file: Path) -> list[dict[str, str]]:
    """Lines of a table, by column."""
    return list(csv.DictReader(file.open()))
