"""`python -m pipeline.pages`: one page for each table and figure of the paper, from the study itself.

Without an option it writes them; `--check` says which are out of date instead.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.data.spec import read_spec
from pipeline.plan import ROOT, Planned, architecture_of, hours, plan, read

STUDY = ROOT / "studies" / "paper"
TEMPLATE = "page.md.jinja"
BEGIN, END = "<!-- index: python -m pipeline.pages -->\n", "<!-- end of index -->\n"
RECIPES = {"TinyLLaVA": "tinyllava-paper", "Bunny": "bunny-paper"}
LANGUAGE_MODELS = {"Qwen2-0.5B": "Qwen2-0-5B", "SmolLM-360M": "SmolLM-360M"}
LOSSES = {"": "clip-kd", "CLIP-KD": "clip-kd", "MSE": "mse", "ICL": "icl", "KL": "kl"}
MIXES = {"": "", "CC12M": "", "CC12M + Bunny Pretrain": "-bunny", "CC12M + TinyLLaVA Pretrain": "-llava"}
COLUMNS = {
    "framework": "recipe",
    "llm": "language model",
    "student": "student",
    "teacher": "teacher",
    "loss": "loss",
    "dataset": "data",
}
Row = dict[str, str]


def paper_rows(table: str) -> list[Row]:
    """The rows of one of the paper's tables: what identifies each, its average and, where printed, its ImageNet."""
    with (resources.files("kd_analysis.data") / "paper.csv").open(encoding="utf-8") as file:
        values = [row for row in csv.DictReader(file) if row["table"] == table]
    imagenet = {row["source"]: row["value"] for row in values if row["task"] == "imagenet" and row["metric"] == "score"}
    averages = [row for row in values if row["task"] == "average" and row["framework"]]
    return [row | {"average": row["value"], "imagenet": imagenet.get(row["source"], "")} for row in averages]


def cell_of(row: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """The VLM that stands for a row of the paper; `ours` are our names of its models."""
    if row["teacher"] == "CLIP-KD-ViT-T":
        encoder = "student-vit-t-16-clip-b16-released"
    elif not row["student"]:
        encoder = f"teacher-{ours[row['teacher']]}"
    else:
        loss = LOSSES[row["loss"]] + MIXES[row["dataset"]]
        encoder = f"student-{ours[row['student']]}-{ours[row['teacher']]}-{loss}"
    return f"vlm-{encoder}--{LANGUAGE_MODELS[row['llm']]}--{RECIPES[row['framework']]}"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0) -> str:
    """A table, the last `right` columns aligned to the right."""
    rule = ["---"] * (len(columns) - right) + ["---:"] * right
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def printed_rows(rows: Sequence[Row], names: Mapping[str, str], cells: Mapping[str, float]) -> str:
    """The paper's rows with the cell of each and its hours; columns that say nothing are left out."""
    ours = {label: name for name, label in names.items()}
    kept = [column for column in COLUMNS if len({row[column] for row in rows}) > 1]
    imagenet = any(row["imagenet"] for row in rows)
    lines = []
    for row in rows:
        cell = cell_of(row, ours)
        numbers = [row["imagenet"], row["average"]] if imagenet else [row["average"]]
        lines.append([*(row[column] for column in kept), f"`{cell}`", *numbers, f"{cells[cell]:,.1f}"])
    columns = [COLUMNS[column] if column != "teacher" or "student" in kept else "encoder" for column in kept]
    return markdown([*columns, "cell", *(["ImageNet"] if imagenet else []), "Average", "hours"], lines, 2 + imagenet)


def printed_similarities() -> str:
    """Table 3: a task a line, the two students side by side."""
    with (resources.files("kd_analysis.data") / "paper.csv").open(encoding="utf-8") as file:
        values = [row for row in csv.DictReader(file) if row["table"] == "Table 3"]
    found = {(row["task"], row["teacher"], row["metric"]): row["value"] for row in values}
    pairs = [(teacher, metric) for teacher in ("CLIP-ViT-B", "CLIP-ViT-L") for metric in ("score", "cka")]
    lines = [[task, *(found[task, *pair] for pair in pairs)] for task in dict.fromkeys(row["task"] for row in values)]
    return markdown(["task", "score from CLIP-B", "CKA", "score from CLIP-L", "CKA"], lines, 4)


def printed_gaps(students: Sequence[Row], teachers: Sequence[Row]) -> str:
    """Figure 2: Table 1 less Table 2."""

    def of_qwen(rows: Sequence[Row], student: str) -> dict[str, float]:
        chosen = [
            row
            for row in rows
            if (row["framework"], row["llm"], row["student"]) == ("TinyLLaVA", "Qwen2-0.5B", student)
        ]
        return {row["teacher"]: float(row["average"]) for row in chosen}

    above, below = of_qwen(teachers, ""), of_qwen(students, "ViT-T")
    lines = [
        [name, f"{above[name]:.2f}", f"{value:.2f}", f"{above[name] - value:.2f}"] for name, value in below.items()
    ]
    return markdown(["teacher", "its VLM", "its ViT-T student's", "gap"], lines, 3)


class Pages:
    """Everything that the pages are made of, read once."""

    def __init__(self, study: Path) -> None:
        self.params, self.costs = read(study / "params.yaml"), read(study / "costs.yaml")
        self.pages: dict[str, Any] = read(study / "pages.yaml")["pages"]
        self.data = read_spec(study / "data.yaml")
        self.cells = {cell.name: cell for cell in plan(study, study / "nothing is done in this folder")}
        self.jinja = Environment(  # noqa: S701  Markdown of our own words
            loader=FileSystemLoader(Path(__file__).parent),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def chosen(self, page: Mapping[str, Any], kind: str) -> list[Planned]:
        """The cells of a page: its `students` or `vlms`."""
        globs = page.get(kind, [])
        wanted = "student" if kind == "students" else "VLM"
        return [c for c in self.cells.values() if c.kind == wanted and any(fnmatch(c.name, glob) for glob in globs)]

    def hours(self, cell: Planned) -> float:
        """Of one GPU."""
        return hours(cell, self.costs["gpu"]["tflops"])

    def printed(self, key: str, page: Mapping[str, Any]) -> str:
        """The paper's numbers of a page."""
        if key == "table3":
            return printed_similarities()
        if key == "figure2":
            return printed_gaps(paper_rows("Table 2"), paper_rows("Table 1"))
        if "rows" not in page:
            return ""
        cells = {name: self.hours(cell) for name, cell in self.cells.items()}
        return printed_rows(paper_rows(page["rows"]), self.params["analysis"]["names"], cells)

    def sums(self, page: Mapping[str, Any]) -> list[tuple[str, int, float, float]]:
        """(what, cells, hours, GB) of students and VLMs."""
        found = []
        for kind, label in (("students", "students"), ("vlms", "VLMs")):
            if cells := self.chosen(page, kind):
                size = sum(cell.size for cell in cells) / 1e9
                found.append((label, len(cells), sum(map(self.hours, cells)), size))
        return found

    def cost_table(self, page: Mapping[str, Any]) -> str:
        """A line a student, one for all VLMs of an encoder's size."""
        gpu = self.costs["gpu"]["name"]
        lines = [
            [f"`{c.name}`", "1", f"{self.hours(c):,.1f}", f"{c.size / 1e9:.2f}"] for c in self.chosen(page, "students")
        ]
        vlms = self.chosen(page, "vlms")
        if vlms:
            low, high = min(map(self.hours, vlms)), max(map(self.hours, vlms))
            size = sum(cell.size for cell in vlms) / 1e9
            lines.append(["VLMs", str(len(vlms)), f"{low:,.1f} to {high:,.1f} each", f"{size:,.0f}"])
        return markdown(["what", "cells", f"{gpu} hours", "GB of weights"], lines, 3)

    def student_by_hand(self, name: str) -> str:
        """The formula with the numbers of one student."""
        cell, gpu = self.params["distill"]["distilled"][name], self.costs["gpu"]
        recipe = self.params["distill"]["recipes"][cell["recipe"]]
        pairs = self.costs["pairs"][recipe.get("mix") or "cc12m"]
        step, live = (
            self.costs["students"][cell["id"]]["step"],
            self.costs["teachers"][cell["teacher"].removeprefix("teacher-")],
        )
        return (
            f"{name}: {pairs:,} x {recipe['epochs']} x ({step} + {live}) GFLOP / ({gpu['tflops']} TFLOP/s x "
            f"{gpu['used']['distill']}) = {self.hours(self.cells[name]):,.1f} hours"
        )

    def vlm_by_hand(self, cell: Planned) -> str:
        """The formula with the numbers of one VLM."""
        every = self.params["vlm"]["cells"] | read(STUDY / "bunny" / "params.yaml")["vlm"]["cells"]
        of, gpu = every[cell.name], self.costs["gpu"]
        encoder = self.costs["encoders"][architecture_of(of["encoder"])]
        parameters = sum(self.costs["language_models"][cell.name.split("--")[1]].values())
        terms = [
            f"{n:,} x ({encoder['forward']} GFLOP + {each} x {parameters:,} x ({encoder['tokens']} + {text}))"
            for n, text, each in self.costs["conversations"][of["recipe"]].values()
        ]
        share = f"({gpu['tflops']} TFLOP/s x {gpu['used']['vlm']})"
        return f"{cell.name}: [{' + '.join(terms)}] / {share} = {self.hours(cell):,.1f} hours"

    def data_needed(self, page: Mapping[str, Any]) -> str:
        """A sentence on the disk that the data take."""
        sizes = {name: self.data.datasets[name].gigabytes for name in page["data"]}
        known = ", ".join(f"{name} about {size:g} GB" for name, size in sizes.items() if size)
        return (
            f"Data ([data.yaml](data.yaml)): {known}; archives need as much again until `--drop-archives` removes them."
        )

    def text(self, key: str) -> str:
        """One page."""
        page = self.pages[key]
        sums = self.sums(page)
        students = self.chosen(page, "students")
        total = "; ".join(f"{n} {what}: {time:,.0f} hours, {size:,.1f} GB" for what, n, time, size in sums)
        bunny = " out/paper/bunny/eval" if any("bunny/" in command for command in page["commands"]) else ""
        zeroshot = [c.rpartition("@")[2] for c in page["commands"] if ":zeroshot@" in c]
        return self.jinja.get_template(TEMPLATE).render(
            page={"rows": None, "said": None} | page,
            printed=self.printed(key, page),
            cells_beside="rows" in page,
            costs=self.cost_table(page),
            total=f"{total}." if total else "",
            student=self.student_by_hand(students[0].name) if students else "",
            vlm=self.vlm_by_hand(self.chosen(page, "vlms")[0]),
            data=self.data_needed(page),
            published="out/paper/eval" + bunny + "".join(f" out/paper/zeroshot/{part}" for part in zeroshot),
            compared="out/paper/tables/beside_paper.md",
        )

    def index(self) -> str:
        """The README's table of pages."""
        lines = []
        for key, page in self.pages.items():
            sums = self.sums(page)
            cells = ", ".join(f"{n} {what}" for what, n, _, _ in sums)
            time = " + ".join(f"{time:,.0f}" for _, _, time, _ in sums)
            lines.append(
                [f"[{page['name']}]({key}.md)", page["question"], cells, time, f"{sum(s[3] for s in sums):,.0f} GB"]
            )
        return markdown(["page", "its question", "cells", f"{self.costs['gpu']['name']} hours", "weights"], lines, 2)


def written(study: Path) -> dict[Path, str]:
    """Every file that is written, with its text: the pages, and the README with its index."""
    pages, readme = Pages(study), study / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    files = {study / f"{key}.md": pages.text(key) for key in pages.pages}
    return files | {readme: f"{before}{BEGIN}\n{pages.index()}\n\n{END}{rest.partition(END)[2]}"}


def main() -> int:
    """Write the pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    check = parser.parse_args().check
    stale = [
        file for file, text in written(STUDY).items() if not file.is_file() or file.read_text(encoding="utf-8") != text
    ]
    for file in stale:
        print(f"{file.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            file.write_text(written(STUDY)[file], encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
