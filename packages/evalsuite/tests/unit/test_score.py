import json
import random

import pytest
from kd_evalsuite.average import AVERAGE
from kd_evalsuite.best import best_of
from kd_evalsuite.data import load_all
from kd_evalsuite.items import DataError
from kd_evalsuite.predict import manifest_of
from kd_evalsuite.predictions import open_folder
from kd_evalsuite.publish import _params, _tags, linked, metrics_of
from kd_evalsuite.records import ModelRef, Prediction, Score
from kd_evalsuite.score import read_scores, score_folder
from kd_evalsuite.tasks import TASKS

from packages.evalsuite.tests.helpers.replies import predicted


def write(root, folder, rule, *, name="scripted", blind=False, keys=TASKS):
    """A folder of predictions by a rule from item to reply."""
    tasks = load_all(root, keys)
    ref = ModelRef(kind="vlm", name=name, sha256="0" * 64)
    open_folder(folder, manifest_of(ref, tasks, protocol="paper", blind=blind, limit=None))
    for task in tasks:
        lines = [Prediction(id=i.id, prediction=rule(i)).model_dump_json() + "\n" for i in task.items]
        (folder / f"{task.key}.jsonl").write_text("".join(lines))
    return load_all(root, keys, pictures=False)


def scored(root, tmp_path, rule, **options):
    data = write(root, tmp_path / "p", rule, **options)
    return score_folder(tmp_path / "p", tmp_path / "s", data)


def gold(item):
    return item.gold[0]


def test_a_model_that_knows_all_answers_gets_the_best_score_of_every_metric(benchmark_root, tmp_path):
    scores = scored(benchmark_root, tmp_path, gold)
    for score in scores.scores:
        assert score.value == pytest.approx(score.best), score.benchmark
        assert score.n_unparsed == 0
    assert scores.main(AVERAGE).value == pytest.approx(100)


def test_a_model_that_always_says_the_same_shows(benchmark_root, tmp_path):
    scores = scored(benchmark_root, tmp_path, lambda item: "Yes" if item.choices == ("Yes", "No") else "A")
    assert all(s.top_answer_share == 1 for s in scores.scores)
    by_metric = {(s.benchmark, s.metric): s for s in scores.scores}
    assert by_metric["mmvp", "pair_accuracy"].value == 0
    assert by_metric["mmbench_en", "circular_accuracy"].value == 0
    assert by_metric["mme_perception", "score"].value == 100  # two categories at 50 + 0


def test_silence_is_wrong_and_unread(benchmark_root, tmp_path):
    scores = scored(benchmark_root, tmp_path, lambda item: "")
    for score in scores.scores:
        assert score.value == 0
    assert scores.main("gqa").n_unparsed == scores.main("gqa").n


def test_every_score_lies_in_its_range(benchmark_root, tmp_path):
    rng = random.Random(0)
    replies = ["A", "B", "C", "Yes", "No", "7", "red", "nonsense", ""]
    scores = scored(benchmark_root, tmp_path, lambda item: rng.choice([*replies, gold(item)]))
    for s in scores.scores:
        assert 0 <= s.value <= s.best
        assert 0 <= s.stderr <= s.best
        assert s.chance is None or 0 <= s.chance <= s.best
    fields = set(Score.model_fields)
    assert fields == {
        "benchmark", "benchmark_version", "metric", "value", "best", "stderr", "n", "n_unparsed", "top_answer_share",
        "chance",
    }  # fmt: skip


def test_files_have_the_form_of_the_contract(benchmark_root, tmp_path):
    scored(benchmark_root, tmp_path, gold)
    whole = json.loads((tmp_path / "s/scores.json").read_text())
    assert list(whole) == ["schema", "model", "blind", "scores"]
    assert whole["schema"] == "kd-scores/1"
    row = json.loads((tmp_path / "s/items.jsonl").read_text().splitlines()[0])
    assert list(row) == ["task", "id", "cluster", "category", "answer", "score"]
    assert (tmp_path / "s/manifest.json").exists()


def test_scores_do_not_depend_on_the_order_of_predictions_and_are_byte_equal(benchmark_root, tmp_path):
    rng = random.Random(0)
    data = write(benchmark_root, tmp_path / "p", lambda item: rng.choice(["A", gold(item)]))
    score_folder(tmp_path / "p", tmp_path / "a", data)
    for file in (tmp_path / "p").glob("*.jsonl"):
        lines = file.read_text().splitlines(keepends=True)
        rng.shuffle(lines)
        file.write_text("".join(lines))
    score_folder(tmp_path / "p", tmp_path / "b", data)
    for name in ("scores.json", "items.jsonl", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_items_score_is_the_part_in_the_main_metric(benchmark_root, tmp_path):
    rng = random.Random(3)
    scores = scored(benchmark_root, tmp_path, lambda item: rng.choice(["A", "Yes", gold(item)]))
    rows = [json.loads(line) for line in (tmp_path / "s/items.jsonl").read_text().splitlines()]
    for key in TASKS:
        shares = [row["score"] for row in rows if row["task"] == key]
        main = scores.main(key)
        assert sum(shares) / len(shares) == pytest.approx(main.value / main.best, abs=1e-5), key


def test_average_is_the_mean_percent_and_its_error_combines_theirs(benchmark_root, tmp_path):
    rng = random.Random(1)
    scores = scored(benchmark_root, tmp_path, lambda item: rng.choice(["A", "No", gold(item)]))
    mains = [scores.main(key) for key in TASKS]
    average = scores.main(AVERAGE)
    assert average.value == pytest.approx(sum(s.percent for s in mains) / 16)
    assert average.stderr == pytest.approx(sum((100 * s.stderr / s.best) ** 2 for s in mains) ** 0.5 / 16)
    assert average.benchmark_version.startswith("paper-1+16+")
    again = scored(benchmark_root, tmp_path / "again", gold, keys=list(TASKS)[::-1]).main(AVERAGE)
    assert again.benchmark_version == average.benchmark_version


def test_a_missing_prediction_and_other_data_are_errors(benchmark_root, tmp_path):
    data = write(benchmark_root, tmp_path / "p", gold, keys=["gqa"])
    file = tmp_path / "p/gqa.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match="1 of 12 items have no prediction"):
        score_folder(tmp_path / "p", tmp_path / "s", data)
    file.write_text(Prediction(id="9", prediction="x").model_dump_json())
    with pytest.raises(DataError, match="of no item"):
        score_folder(tmp_path / "p", tmp_path / "s", data)


def test_best_of_takes_the_highest_average_that_is_not_blind(benchmark_root, tmp_path):
    for name, rule, blind in (("a", lambda i: "A", False), ("b", gold, True), ("c", lambda i: "B", False)):
        folder = tmp_path / "p" / name
        data = write(benchmark_root, folder, rule, name=f"vlm-{name}", blind=blind)
        score_folder(folder, tmp_path / "eval" / name, data)
    averages = {n: read_scores(tmp_path / "eval" / n).main(AVERAGE).value for n in "ac"}
    best, score = best_of(tmp_path / "eval")
    assert best.name == f"vlm-{max(averages, key=averages.get)}"
    assert score.value == max(averages.values())
    with pytest.raises(DataError, match="not blind"):
        best_of(tmp_path / "nothing")


def test_averages_over_other_benchmarks_or_data_are_not_compared(benchmark_root, tmp_path):
    for name, keys in (("x", ["ai2d", "gqa"]), ("y", ["ai2d", "mmvp"])):
        data = write(benchmark_root, tmp_path / "p" / name, gold, name=f"vlm-{name}", keys=keys)
        score_folder(tmp_path / "p" / name, tmp_path / "eval" / name, data)
    with pytest.raises(DataError, match="over the same benchmarks") as caught:
        best_of(tmp_path / "eval")
    assert str(caught.value).count("paper-1+2+") == 2


def test_only_what_stands_for_the_model_itself_is_linked_to_it(benchmark_root, tmp_path):
    """Runs are tagged with the protocol of their scores; metrics that cannot be compared have the same names."""

    def found(name, *, protocol=None, **how):
        file, out = predicted(benchmark_root, "ai2d", tmp_path / "p" / name, **how), tmp_path / "s" / name
        data = load_all(benchmark_root, ["ai2d"], limit=how.get("limit"), pictures=False)
        scores = score_folder(file.parent, out, data, protocol=protocol)
        tags, params = _tags(out, scores), _params(out, scores)
        assert tags["kd.protocol"] == params["protocol"]
        return linked(out, scores), tags["kd.protocol"], tags["kd.prompts"]

    assert found("plain") == (True, "paper", "cambrian")
    assert found("other", protocol="lmms") == (False, "lmms", "cambrian")
    assert found("blind", blind=True) == (False, "paper", "cambrian")
    assert found("some", limit=5) == (False, "paper", "cambrian")
    assert found("chosen", mode="loglikelihood") == (False, "paper", "cambrian")
    assert found("asked", prompts="lmms") == (False, "paper", "lmms")


def test_metric_names_are_those_of_the_contract(benchmark_root, tmp_path):
    metrics = metrics_of(scored(benchmark_root, tmp_path, gold).scores)
    assert metrics["eval/mme_perception/score"] == pytest.approx(400)
    assert {"eval/gqa/accuracy", "eval/gqa/accuracy.stderr", "eval/gqa/accuracy.n"} <= set(metrics)
