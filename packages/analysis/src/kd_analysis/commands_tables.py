"""What `analysis tables`, `figures` and `stats` do once their options are parsed."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from kd_analysis import emit, view
from kd_analysis.config import AnalysisParams
from kd_analysis.grid import Grid
from kd_analysis.inconsistencies import Inconsistency, in_tables
from kd_analysis.missing import Missing
from kd_analysis.paper import FAMILIES, printed, published, said
from kd_analysis.render import md_cell, render
from kd_analysis.results import Result, read_csv, write_csv
from kd_analysis.statistics_tables import Question, ask, families_of
from kd_analysis.statistics_tables import tables as statistics
from kd_analysis.table import Table
from kd_analysis.text_checks import in_text
from kd_analysis.words import number, p_value, signed

PAPER, MLFLOW = "paper", "mlflow"


@dataclass(frozen=True)
class Source:
    """A results table and where it came from: "paper", "mlflow" or a CSV file."""

    name: str
    results: list[Result]

    @property
    def is_paper(self) -> bool:
        return self.name == PAPER


def read(source: str, params: AnalysisParams, *, latest: bool = False) -> Source:
    """The results of a source.

    Raises:
        kd_analysis.scores.InputError: If it is not there or not of the agreed form, or cells have several values.
    """
    if source == PAPER:
        return Source(PAPER, published())
    if source == MLFLOW:
        from kd_analysis import tracking
        from kd_analysis.mlflow_results import read_mlflow

        return Source(MLFLOW, read_mlflow(tracking.client(), latest=latest, tap=params.taps[0], recipes=params.told))
    return Source(source, read_csv(Path(source)))


def families(
    source: Source, grid: Grid, params: AnalysisParams, *, incomplete: bool = False
) -> Mapping[str, Sequence[str]]:
    return FAMILIES if source.is_paper else families_of(grid, params.families, incomplete=incomplete)


def tables(
    source: Source, params: AnalysisParams, out: Path, *, beside_paper: bool = False, lost: Sequence[Missing] = ()
) -> list[Table]:
    """Tables 1 to 5, the statistics, ours beside the paper's, what is missing; for the paper its inconsistencies."""
    from kd_analysis.compare import beside, unmatched
    from kd_analysis.study_tables import all_tables

    grid = Grid(source.results)
    groups = families(source, grid, params, incomplete=bool(lost))
    question = ask(grid, groups, params.seed, params.level)
    found = [*all_tables(grid, groups, params.level), *statistics(question, params.level)]
    if beside_paper:
        paper = Grid(published())
        compared = beside(grid, paper, params.names, params.level)
        if compared.empty:
            odd = ", ".join(unmatched(grid, paper, params.names)) or "none"
            view.say(f"nothing to set beside the paper's numbers; names that it does not know (analysis.names): {odd}")
        else:
            found.append(compared)
    wrong = _inconsistencies() if source.is_paper else []
    write(found, wrong, source, out, lost)
    tell(question)
    for one in wrong:
        view.say(f"inconsistent: {one.where}: {one.says}; {one.but}")
    view.say(f"wrote {len(found)} tables to {out}, {'all of them in ' + str(out / 'tables.html')}")
    return found


def _inconsistencies() -> list[Inconsistency]:
    values = printed()
    return [*in_tables(values), *in_text(said(), Grid(published(values)))]


def write(
    found: Sequence[Table],
    wrong: Sequence[Inconsistency],
    source: Source,
    out: Path,
    lost: Sequence[Missing] = (),
) -> None:
    """One table a file in each form, all of them in `tables.html` and `tables.md`, and the results that they show."""
    out.mkdir(parents=True, exist_ok=True)
    write_csv(source.results, out / "results.csv")
    for table in found:
        emit.write(table, out)
    title = "The paper's tables" if source.is_paper else f"Tables from {source.name}"
    page = {"title": title, "tables": [(t.title, emit.html(t)) for t in found], "wrong": wrong, "lost": lost}
    (out / "tables.html").write_text(render("tables.html.jinja", page), encoding="utf-8")
    texts = [f"# {md_cell(title)}\n", *(emit.markdown(t) for t in found)]
    if lost:
        lines = [f"| {md_cell(m.cell)} | {md_cell(m.stage)} ({m.outcome}) | {md_cell(m.why)} |" for m in lost]
        texts.append("\n".join(["### Missing", "", "| cell | stage | why |", "|---|---|---|", *lines, ""]))
    if wrong:
        texts.append(inconsistencies_markdown(wrong))
        with (out / "inconsistencies.csv").open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerows([[f.name for f in fields(Inconsistency)], *(astuple(w) for w in wrong)])
    (out / "tables.md").write_text("\n".join(texts), encoding="utf-8")


def inconsistencies_markdown(wrong: Sequence[Inconsistency]) -> str:
    lines = ["### Where the numbers cannot all be right", "", "| where | printed | but | rule |", "|---|---|---|---|"]
    lines += [f"| {md_cell(w.where)} | {md_cell(w.says)} | {md_cell(w.but)} | {md_cell(w.kind)} |" for w in wrong]
    return "\n".join([*lines, ""])


def tell(question: Question) -> None:
    """The answer by rank and within families, a line each."""
    for r in question.relations:
        if r.x == "teacher average" and r.y.startswith("student") and "loss" not in r.where:
            view.say(
                f"{r.where}: {r.x} against {r.y}, n = {r.n}: Spearman {signed(r.spearman.value, 3)} "
                f"(p {p_value(r.spearman.p)}), Kendall {signed(r.kendall.value, 3)} (p {p_value(r.kendall.p)})"
            )
    for c in question.families:
        low, high = signed(c.estimate.low, 2), signed(c.estimate.high, 2)
        view.say(
            f"{c.where}: {c.student}, {c.of} to {c.to}, {c.measure}: {signed(c.estimate.value, 2)} points "
            f"({low} to {high}, Holm p {p_value(c.p_holm)}; detectable {number(c.detectable, 2)})"
        )


def figures(source: Source, params: AnalysisParams, out: Path) -> list[Path]:
    """Figures 2 and 3a to 3d, as far as the results fill them; the folder is made where they fill none, too."""
    from kd_analysis.plots import all_plots
    from kd_analysis.plots import write as write_plot

    out.mkdir(parents=True, exist_ok=True)
    plots = all_plots(Grid(source.results), params.level)
    paths = [path for plot in plots for path in write_plot(plot, out)]
    drawn = {p.name for p in plots}
    if missing := [f"figure{n}" for n in ("2", "3a", "3b", "3c", "3d") if f"figure{n}" not in drawn]:
        view.say(f"the results do not fill {', '.join(missing)} (figure 3 needs encoders of several epochs)")
    view.say(f"wrote {len(plots)} figures to {out}")
    return paths


def stats(source: Source, params: AnalysisParams) -> None:
    """Every statistic of the question as Markdown on stdout."""
    grid = Grid(source.results)
    question = ask(grid, families(source, grid, params), params.seed, params.level)
    for table in statistics(question, params.level):
        view.say(emit.markdown(table))
    if source.is_paper:
        view.say(inconsistencies_markdown(_inconsistencies()))
