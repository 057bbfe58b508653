"""`make plan STUDY=paper`: which data, models and cells of a study are there, and what the other cells cost.

It touches no data and asks no server.

GPU hours are operations over (peak x share used). A distilled pair costs the student's step and, where its teacher runs
live, the teacher's forward pass. A conversation of T tokens costs the tower's forward pass, 4 N T operations for a
language model of N parameters that stays frozen (forward, and gradients of activations) or has adapters, and 6 N T for
one that is trained.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.data.manifest import read_manifest
from pipeline.data.spec import DataFile, read_spec
from pipeline.data.state import size_of, state_of
from pipeline.downloads import Asset, assets

ROOT = Path(__file__).resolve().parent.parent
WEIGHT = 4  # bytes


@dataclass(frozen=True)
class Planned:
    """One cell: its kind, whether its model folder is there, the operations that it takes, the bytes that it leaves."""

    kind: str
    name: str
    done: bool
    operations: float
    share: float
    size: float


def read(file: Path) -> Any:
    """A YAML file, in the dialect that DVC and the commands read.

    Raises:
        ValueError: If it is none.
    """
    try:
        return YAML(typ="safe").load(file.read_bytes().decode("utf-8-sig"))
    except Exception as error:  # beside YAMLError the library raises what it stumbles over: a date of no calendar, ...
        raise ValueError(f"{file}: not valid YAML: {type(error).__name__}: {error}") from None


def distilled(params: Any, costs: Any, models: Path) -> Iterator[Planned]:
    """The students of a study, those without a teacher among them."""
    section = params["distill"]
    for name, cell in (section["from_scratch"] | section["distilled"]).items():
        recipe, student = section["recipes"][cell["recipe"]], costs["students"][cell["id"]]
        pairs = costs["pairs"][recipe.get("mix") or "cc12m"] * recipe["epochs"]
        runs_live = recipe.get("teacher_mode") == "online"
        live = costs["teachers"][cell["teacher"].removeprefix("teacher-")] if runs_live else 0.0
        encoders = 1 + len(recipe.get("export_epochs", []))
        places = (models / "distilled" / name, models / "alone" / name, models / "schedules" / name / name)
        yield Planned(
            "student",
            name,
            any(place.exists() for place in places),
            pairs * (student["step"] + live) * 1e9,
            costs["gpu"]["used"]["distill"],
            encoders * student["parameters"] * WEIGHT,
        )


def architecture_of(reference: str) -> str:
    """The architecture that an encoder's reference names: `student-<arch>--<teacher>--<recipe>`, or `teacher-<id>`."""
    first = Path(reference).stem.split("--")[0]
    return first.removeprefix("teacher-").removeprefix("student-")


def conversational(params: Any, costs: Any, models: Path) -> Iterator[Planned]:
    """The VLMs of a study."""
    for name, cell in params["vlm"]["cells"].items():
        encoder, lm = costs["encoders"][architecture_of(cell["encoder"])], costs["language_models"][name.split("--")[1]]
        parameters = lm["body"] + lm["head"]
        operations = 0.0
        for samples, text, each in costs["conversations"][cell["recipe"]].values():
            operations += samples * (encoder["forward"] * 1e9 + each * parameters * (encoder["tokens"] + text))
        there = any((models / group / name).exists() for group in ("vlms", "bunny"))
        yield Planned("VLM", name, there, operations, costs["gpu"]["used"]["vlm"], parameters * WEIGHT)


def problems(params: Any) -> list[str]:
    """Where a study's parameters contradict themselves in the ways that the paper's do."""
    from kd_distill.teachers import TEACHERS

    found = []
    for ours, label in params.get("analysis", {}).get("names", {}).items():
        if ours in TEACHERS and _letters(label) not in _letters(TEACHERS[ours].label):
            found.append(f"analysis.names: {ours} is {TEACHERS[ours].label}, not {label}; are two names swapped?")
    for name, cell in params.get("vlm", {}).get("cells", {}).items():
        encoder = Path(cell["encoder"]).stem.replace("--", "-")
        parts = name.removeprefix("vlm-").split("--")
        if parts[0] != encoder:
            found.append(f"vlm.cells.{name}: its name says the encoder {parts[0]}, its reference says {encoder}")
        if parts[-1] != cell["recipe"]:
            found.append(f"vlm.cells.{name}: its name says the recipe {parts[-1]}, the cell says {cell['recipe']}")
        lm = cell["lm"].rpartition("/")[2].replace(".", "-")
        if parts[1] != lm:
            found.append(f"vlm.cells.{name}: its name says the language model {parts[1]}, the cell says {lm}")
    return found


def _letters(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def plan(study: Path, models: Path) -> list[Planned]:
    """All cells of the parameter files of a study.

    Raises:
        ValueError: If they contradict themselves, or are not a study's.
    """
    costs = read(study / "costs.yaml")
    cells: list[Planned] = []
    for file in sorted(study.rglob("params.yaml")):
        params = read(file)
        try:
            wrong = problems(params)
            cells += distilled(params, costs, models) if "distill" in params and not wrong else []
            cells += conversational(params, costs, models) if "vlm" in params and not wrong else []
        except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{file} and costs.yaml do not hold what a plan reads, or not the same: {what}") from None
        if wrong:
            raise ValueError(f"{file}: " + "\n  ".join(wrong))
    return cells


def hours(cell: Planned, tflops: float) -> float:
    """Of one GPU of that peak."""
    return cell.operations / (tflops * 1e12 * cell.share) / 3600


def show(cells: list[Planned], gpu: Any) -> None:
    """A line a cell, then the sums."""
    from rich.table import Table

    from pipeline.board import console

    table = Table("", box=None)
    table.add_column("cell", overflow="fold")
    table.add_column(f"{gpu['name']} hours", justify="right")
    table.add_column("GB", justify="right")
    for cell in cells:
        state = "done" if cell.done else "to run"
        table.add_row(state, cell.name, f"{hours(cell, gpu['tflops']):,.1f}", f"{cell.size / 1e9:.2f}")
    console().print(table)
    for kind in dict.fromkeys(cell.kind for cell in cells):
        left = [cell for cell in cells if cell.kind == kind and not cell.done]
        total = sum(hours(cell, gpu["tflops"]) for cell in left)
        disk = sum(cell.size for cell in left) / 1e9
        of = sum(cell.kind == kind for cell in cells)
        print(f"{len(left)} of {of} {kind}s to run: {total:,.0f} {gpu['name']} hours, {disk:,.0f} GB")


def show_data(spec: DataFile) -> None:
    """A line a data set, from its manifest alone, then what brings the others."""
    from rich.table import Table

    from pipeline.board import console

    table = Table("data", box=None)
    table.add_column("", no_wrap=True)
    table.add_column("GB", justify="right")
    table.add_column("needed for", overflow="fold")
    states = {name: state_of(spec, name) for name in spec.datasets}
    for name, dataset in spec.datasets.items():
        manifest = read_manifest(spec.manifest(name))
        table.add_row(states[name], name, size_of(dataset, manifest), dataset.needed_for)
    console().print(table)
    verified = sum(state == "verified" for state in states.values())
    print(f"{verified} of {len(states)} data sets verified; python -m pipeline.data list, check, fetch\n")


def show_models(found: list[Asset]) -> None:
    """A line a model that comes from elsewhere, then what brings those that are not there."""
    from rich.table import Table

    from pipeline.board import console

    table = Table("model", box=None)
    table.add_column("", no_wrap=True)
    table.add_column("needed for", overflow="fold")
    for asset in found:
        table.add_row(asset.state, asset.name, asset.needed_for)
    console().print(table)
    there = sum(asset.state == "there" for asset in found)
    print(f"{there} of {len(found)} models there; stages fetch the others with a network, once, into HF_HOME\n")


def main() -> int:
    """Read the study, refuse contradictions, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a folder of studies/ that has costs.yaml")
    name = parser.parse_args().study
    study = ROOT / "studies" / name
    if not (study / "costs.yaml").is_file():
        known = ", ".join(sorted(p.parent.name for p in ROOT.glob("studies/*/costs.yaml")))
        print(f"Expected a study with costs.yaml in studies/{name}; there are: {known}.", file=sys.stderr)
        return 2
    try:
        cells = plan(study, ROOT / "models" / name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if (data := study / "data.yaml").is_file():
        show_data(read_spec(data))
    show_models(assets(map(read, sorted(study.rglob("params.yaml"))), ROOT / "models"))
    show(cells, read(study / "costs.yaml")["gpu"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
