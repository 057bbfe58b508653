"""What `evalsuite forensics` does: read a table and a declaration, look, show."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import typer

from kd_evalsuite import view
from kd_evalsuite.forensics import examine
from kd_evalsuite.items import DataError
from kd_evalsuite.printed import read_declaration, read_table, with_options
from kd_evalsuite.view_forensics import forensics_json, forensics_view

SCAN = (100, 10_000)  # counts that are searched where no known one explains a column


def run(
    path: Path,
    counts: Sequence[str],
    *,
    by: str | None,
    declare: Path | None,
    decimals: int | None,
    as_json: bool,
) -> None:
    """Look into one table."""
    given, scan = parse_counts(counts)
    table = read_table(path, with_options(read_declaration(declare), given, decimals))
    examined, findings = examine(table, scan=scan, by=by)
    if as_json:
        typer.echo(json.dumps(forensics_json(table, examined, findings), indent=1))
    else:
        view.out.print(forensics_view(table, examined, findings))


def parse_counts(options: Sequence[str]) -> tuple[dict[str, list[int]], tuple[int, int]]:
    """`COLUMN=N,N` for columns and `LOW-HIGH` for the range that is searched.

    Raises:
        DataError: If an option is neither.
    """
    given, scan = {}, SCAN
    for option in options:
        name, equals, numbers = option.rpartition("=")
        if equals and re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*", numbers):
            given[name.strip()] = [int(n) for n in numbers.split(",")]
        elif (between := re.fullmatch(r"(\d+)-(\d+)", option)) and 0 < int(between[1]) <= int(between[2]):
            scan = (int(between[1]), int(between[2]))
        else:
            raise DataError(f"--counts: expected COLUMN=N,N or LOW-HIGH, got {option!r}.")
    return given, scan
