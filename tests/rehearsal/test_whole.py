"""What a rehearsal lacks of the paper's numbers is found, and its cells lack none."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from kd_analysis.config import AnalysisParams
from kd_analysis.findings import read_inputs
from kd_analysis.grid import Grid
from kd_analysis.paper import published
from kd_analysis.params import load_section
from kd_analysis.plots import all_plots
from kd_analysis.study import assemble
from kd_analysis.study_results import results_of
from kd_analysis.tasks import TASKS

from pipeline.plan import read
from pipeline.rehearsal.whole import lacking
from pipeline.rehearse import RELEASED

STUDY = Path(__file__).resolve().parents[2] / "studies" / "paper"


def test_the_paper_itself_lacks_nothing():
    assert lacking(published(), {}) == []


def test_a_row_that_is_not_there_is_named():
    ours = [r for r in published() if not (r.table == "Table 5" and r.teacher == "DFN-ViT-B")]
    assert {(r.table, r.teacher, r.dataset) for r in lacking(ours, {})} == {
        ("Table 5", "DFN-ViT-B", "CC12M + Bunny Pretrain"),
        ("Table 5", "DFN-ViT-B", "CC12M + TinyLLaVA Pretrain"),
    }


def test_names_are_matched_as_the_parameters_say():
    ours = [r.model_copy(update={"framework": r.framework.replace("Bunny", "b")}) for r in published()]
    assert {r.framework for r in lacking(ours, {})} == {"Bunny"}
    assert lacking(ours, {"b": "Bunny"}) == []


def write(folder: Path, name: str, kind: str, tasks: Iterable[str]) -> None:
    """What the evaluation leaves of a model: one item a task."""
    folder.mkdir(parents=True)
    each = {"benchmark_version": "1", "value": 0.5, "best": 1.0, "stderr": 0.1, "n": 1, "n_unparsed": 0}
    each |= {"top_answer_share": 0.5, "chance": None}
    scores = [{**each, "benchmark": t, "metric": "top1" if t == "zeroshot" else "accuracy"} for t in tasks]
    ref = {"kind": kind, "name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()}
    whole = {"schema": "kd-scores/1", "model": ref, "blind": False, "scores": scores}
    (folder / "scores.json").write_text(json.dumps(whole))
    items = [{"task": t, "id": "1", "cluster": "1", "category": "", "answer": "a", "score": 1.0} for t in tasks]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def test_the_cells_of_the_study_fill_every_row_of_the_papers_tables(tmp_path):
    paper, bunny = read(STUDY / "params.yaml"), read(STUDY / "bunny" / "params.yaml")
    teachers = [f"teacher-{name}" for name in paper["study"]["teachers"]]
    exported = [f"{name}-e{e}" for name in paper["study"]["schedules"] for e in range(8, 96, 8)]
    for name in (*teachers, *paper["distill"]["distilled"], *exported, RELEASED):
        write(tmp_path / "zeroshot" / name, name, name.partition("-")[0], ["zeroshot"])
    for name in (*paper["vlm"]["cells"], *bunny["vlm"]["cells"]):
        write(tmp_path / "eval" / name, name, "vlm", TASKS)
    section = load_section(STUDY / "params.yaml", "analysis", AnalysisParams)
    study = assemble(*read_inputs([tmp_path / "zeroshot"], [tmp_path / "eval"], tmp_path / "cka")[:2], {})
    results = results_of(study, [], section.epochs, section.told)
    without = lacking(results, section.names)
    assert {(r.table, r.metric) for r in without} == {("Table 1", "params_m"), ("Table 3", "cka")}  # neither was given
    curves = [p for p in all_plots(Grid(results)) if p.name in ("figure3a", "figure3b")]
    assert [len(curve.data) for curve in curves] == [24, 24]
