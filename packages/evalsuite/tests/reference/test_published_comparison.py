"""Two published models compared on their published answers. Needs real data, which are not part of this repository."""

import pytest
from kd_evalsuite.compare import compare
from kd_evalsuite.data import load_task
from kd_evalsuite.predict import manifest_of
from kd_evalsuite.predictions import open_folder
from kd_evalsuite.records import ModelRef, Prediction
from kd_evalsuite.results import read_results
from kd_evalsuite.score import score_folder

from packages.evalsuite.tests.helpers.benchmarks import write_jsonl
from packages.evalsuite.tests.reference.test_published_scores import LLAVA, answers, mme_rows, needs

SUFFIX = "\nAnswer the question using a single word or phrase."


def question(image: str, text: str) -> tuple[str, str]:
    """What both files say of a question: the image's stem, and the question without its instructions."""
    stem = image.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return stem, text.removesuffix(SUFFIX).removesuffix("Please answer yes or no.").strip()


@pytest.fixture
def folders(tmp_path):
    rows = mme_rows()
    write_jsonl(tmp_path / "data/mme_perception/test.jsonl", rows)
    data = load_task(tmp_path / "data", "mme_perception", pictures=False)
    lavin = {(row["category"], *question(row["question_id"], row["question"])): row["reply"] for row in rows}
    found = answers(LLAVA / "MME/answers/llava-v1.5-13b.jsonl")
    llava = {(a["question_id"].split("/")[0], *question(a["question_id"], a["prompt"])): a["text"] for a in found}
    made = []
    for name, replies in (("lavin", lavin), ("llava-v1.5-13b", llava)):
        folder = tmp_path / name
        ref = ModelRef(kind="vlm", name=name, sha256=f"{len(name):x}" * 32)
        open_folder(folder, manifest_of(ref, [data], protocol="paper", blind=False, limit=None))
        said = [(i.id, replies[i.category, *question(i.cluster, i.question)]) for i in data.items]
        lines = [Prediction(id=key, prediction=text).model_dump_json() + "\n" for key, text in said]
        (folder / "mme_perception.jsonl").write_text("".join(lines))
        score_folder(folder, folder, [data])
        made.append(folder)
    return made


@needs
def test_llava_is_ahead_of_lavin_on_mme_by_the_published_difference(folders):
    results = read_results(folders)
    found = compare(results)
    (d,) = found.by_task
    assert found.tasks["mme_perception"].way == "categories"  # the published score is a sum over ten categories
    assert round(20 * d.value_first, 1) == 963.6
    assert round(20 * d.value_second, 1) == 1531.3
    assert d.ahead == "llava-v1.5-13b"
    assert d.clusters == 1057
    assert d.low < d.value < d.high
    assert d.high - d.low == pytest.approx(2 * 1.96 * d.stderr, rel=0.05)  # bootstrap and sandwich agree at this size
