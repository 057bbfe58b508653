"""What a report says, computed from what was read, before it is laid out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kd_analysis.alike_tables import differences_table, measures_table
from kd_analysis.claims import Resampling, answer, by_task_above_blind, checks
from kd_analysis.compare import beside
from kd_analysis.gap import Gap, gaps
from kd_analysis.grid import Grid
from kd_analysis.missing import Missing
from kd_analysis.pairs import pairs_of_teachers
from kd_analysis.paper import published
from kd_analysis.plots import Plot, all_plots
from kd_analysis.recipes import Recipe
from kd_analysis.results import Result
from kd_analysis.rows import Row, chance, rows
from kd_analysis.scores import ZEROSHOT, InputError, Scored, read_scored, refuse_doubles, reweighted
from kd_analysis.similarity import Measured, Record, TeacherDifference, read_records
from kd_analysis.statistics_tables import ask, families_of
from kd_analysis.statistics_tables import tables as statistics
from kd_analysis.study import Claim, Study, assemble
from kd_analysis.study_results import results_of
from kd_analysis.study_tables import all_tables
from kd_analysis.table import Table
from kd_analysis.tasks import GROUPS, in_order, task_of
from kd_analysis.trends import Alike, Trend, alike, teachers_against_students
from kd_analysis.unresolved import Unresolved, unresolved


@dataclass(frozen=True)
class Settings:
    """What the parameters say about a report.

    Attributes:
        how: Intervals and their resampling.
        encoders: VLM name: encoder name, where the VLM's own does not tell.
        families: Teachers by family, the smallest first; may be empty.
        names: Ours: the paper's.
        epochs: The length of the students' schedule; 0 if unknown.
        recipes: What recipes say beside their names.
        tap: Whose similarities the page shows; empty for the first in the records. The others stand in cka.csv.
    """

    how: Resampling
    encoders: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    epochs: float = 0.0
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    tap: str = ""


@dataclass(frozen=True)
class Findings:
    """Everything the report says."""

    study: Study
    answer: list[Claim]
    pairs: list[Claim]
    checks: list[Claim]
    blind_by_task: list[Claim]
    gaps: list[Gap]
    rows: list[Row]
    trends: list[Trend]
    records: list[Record]  # of the tap that is shown
    every_record: list[Record]
    beside_cka: list[Table]  # differences of teachers, other measures
    alike: list[Alike]
    chances: dict[str, float | None]
    reweighted: list[str]
    models: list[Scored]
    level: float
    results: list[Result]
    tables: list[Table]
    plots: list[Plot]
    beside: Table
    unresolved: list[Unresolved]
    lost: tuple[Missing, ...]  # what could not be made
    provenance: Mapping[str, Mapping[str, str]]  # by digest: version, run, params_m where known

    def table(self, name: str) -> Table | None:
        """The table of this name, if the results fill it."""
        return next((t for t in self.tables if t.name == name), None)


def find(
    zeroshot: Sequence[Scored],
    evaluated: Sequence[Scored],
    records: Sequence[Record],
    settings: Settings,
    *,
    measured: Sequence[Measured] = (),
    differences: Sequence[TeacherDifference] = (),
    provenance: Mapping[str, Mapping[str, str]] | None = None,
    lost: Sequence[Missing] = (),
) -> Findings:
    """Compute everything from what was read; no file is touched.

    Raises:
        InputError: If there are similarities, but none at the tap that is to be shown.
    """
    how = settings.how
    tap = settings.tap or (records[0].tap if records else "")
    if records and not any(r.tap == tap for r in records):
        there = ", ".join(sorted({r.tap for r in records}))
        raise InputError(f"Expected similarities at {tap!r}, got those at {there}. Set analysis.tap to one of these.")
    every_record, records = list(records), [r for r in records if r.tap == tap]
    study = assemble(zeroshot, evaluated, settings.encoders)
    tasks = in_order(study.tasks)
    results = results_of(study, records, settings.epochs, settings.recipes, _sizes(provenance or {}))
    grid = Grid(results)
    families = families_of(grid, settings.families, incomplete=bool(lost))
    asked, checked, blind = answer(study, how), checks(study, how), by_task_above_blind(study, how)
    trends = teachers_against_students(study, how.rng("trends"))
    found = rows(study, how.level)
    chances = {t: chance(study, [t]) for t in [ZEROSHOT, *tasks]} | _mean_chances(study, tasks)
    models = [*zeroshot, *evaluated]
    return Findings(
        study=study,
        answer=asked,
        pairs=pairs_of_teachers(study, how),
        checks=checked,
        blind_by_task=blind,
        gaps=gaps(study, how),
        rows=found,
        trends=trends,
        records=records,
        every_record=every_record,
        beside_cka=[
            table
            for table in (
                differences_table([d for d in differences if d.tap == tap], how.level),
                measures_table([m for m in measured if m.tap == tap]),
            )
            if not table.empty
        ],
        alike=alike(records, how.level),
        chances=chances,
        reweighted=[task_of(t).title for t in reweighted(evaluated)],
        models=models,
        level=how.level,
        results=results,
        tables=[
            *all_tables(grid, families, how.level),
            *statistics(ask(grid, families, how.seed, how.level), how.level),
        ],
        plots=all_plots(grid, how.level),
        beside=beside(grid, Grid(published()), settings.names, how.level),
        unresolved=unresolved(study, asked, blind, trends, found, chances, models),
        provenance=provenance or {},
        lost=tuple(lost),
    )


def _sizes(provenance: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    return {sha256: float(seen["params_m"]) for sha256, seen in provenance.items() if seen.get("params_m")}


def _mean_chances(study: Study, tasks: Sequence[str]) -> dict[str, float | None]:
    groups = {g: [t for t in tasks if task_of(t).group == g] for g in GROUPS}
    means = {g: chance(study, some) for g, some in groups.items() if some}
    return means | ({"average": chance(study, tasks)} if tasks else {})


def read_inputs(
    zeroshot: Sequence[Path], evaluated: Sequence[Path], cka: Path
) -> tuple[list[Scored], list[Scored], list[Record]]:
    """Read the folders; an absent evaluation or similarity is empty, an absent zero-shot folder an error."""
    first = [model for folder in zeroshot for model in read_scored(folder)]
    vlms = [model for folder in evaluated if folder.is_dir() for model in read_scored(folder)]
    records = read_records(cka / "cka.json") if cka.is_dir() else []
    refuse_doubles([*first, *vlms])
    return first, vlms, records
