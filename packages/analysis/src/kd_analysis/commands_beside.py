"""What `analysis beside` does once its options are parsed."""

from collections.abc import Sequence
from pathlib import Path

from kd_analysis import commands_tables, emit, view
from kd_analysis.config import AnalysisParams
from kd_analysis.grid import Grid
from kd_analysis.render import render
from kd_analysis.scores import InputError
from kd_analysis.table import Table
from kd_analysis.together import in_place_together
from kd_analysis.two_studies import CHOSEN_BY, Choice, Side, side, tables

TITLE = "Two studies, cell by cell"


def beside(first: tuple[str, Choice], second: tuple[str, Choice], params: AnalysisParams, out: Path) -> list[Table]:
    """Set two studies beside each other: a table a file, all of them on one page.

    Args:
        first: A report's folder, a CSV file of results, `mlflow` or `paper`; and which of its students.
        second: The other.
        params: Families, names, and the level of the intervals.
        out: Where the tables go.

    Raises:
        InputError: If one is not there, has no such students, or the two have no cell in common.
    """
    sources = [commands_tables.read(_file(name), params) for name, _ in (first, second)]
    sides = [
        side(name, source.results, choice, params.names)
        for source, (name, choice) in zip(sources, (first, second), strict=True)
    ]
    groups = commands_tables.families(sources[0], Grid(sources[0].results), params, incomplete=True)
    named = {name: [params.names.get(member, member) for member in members] for name, members in groups.items()}
    found = tables(sides[0], sides[1], named, params.level)
    if not found:
        raise InputError(
            "Expected cells that both studies have; analysis.names says which names mean the same.\n"
            + "\n".join(map(_cells, sides))
        )
    _write(found, out)
    for table in found:
        told = [r.words["resolvable"] for block in table.blocks for r in block.rows]
        view.say(f"{table.title}: {told.count('yes')} of {len(told)} differences are resolvable")
    view.say(f"wrote {len(found)} tables to {out}, all of them in {out / 'tables.html'}")
    return found


def choice(given: Sequence[str], option: str) -> Choice:
    """What `KEY=VALUE` say.

    Raises:
        ValueError: If a key is none of `CHOSEN_BY`, or stands there twice.
    """
    found: dict[str, str] = {}
    for text in given:
        key, _, value = text.partition("=")
        if key not in CHOSEN_BY or not value or key in found:
            raise ValueError(f"{option} {text}: expected KEY=VALUE with each of {', '.join(CHOSEN_BY)} at most once.")
        found[key] = value
    return found


def _file(source: str) -> str:
    return str(Path(source) / "results.csv") if Path(source).is_dir() else source


def _cells(one: Side) -> str:
    some = [f"{where.student} from {where.teacher}" for where in one.cells]
    return f"  {one.name}: {', '.join(sorted(set(some)))}"


def _write(found: Sequence[Table], out: Path) -> None:
    with in_place_together(out) as folder:
        for table in found:
            emit.write(table, folder)
        page = {"title": TITLE, "tables": [(t.title, emit.html(t)) for t in found], "wrong": [], "lost": []}
        (folder / "tables.html").write_text(render("tables.html.jinja", page), encoding="utf-8")
        texts = [f"# {TITLE}\n", *(emit.markdown(t) for t in found)]
        (folder / "tables.md").write_text("\n".join(texts), encoding="utf-8")
