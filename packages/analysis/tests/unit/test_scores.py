import json

import pytest
from kd_analysis.scores import InputError, read_scored, reweighted, suite


def one(inputs, name="teacher-large"):
    return inputs / "zeroshot" / name


def test_every_model_of_a_folder_is_read_with_its_items(inputs):
    models = read_scored(inputs / "eval")
    assert len(models) == 6
    blind = next(m for m in models if m.blind)
    assert blind.key.endswith("-blind")
    assert suite(blind)["mmvp"].n_items == 240
    assert len(suite(blind)["mmvp"].ids) == 120
    assert suite(blind)["mme_perception"].score == pytest.approx(blind.scores["mme_perception"].percent / 100)


def test_the_name_comes_from_the_file_and_not_from_the_folder(inputs):
    one(inputs).rename(inputs / "zeroshot" / "renamed")
    assert "teacher-large" in {m.ref.name for m in read_scored(inputs / "zeroshot")}


def test_a_score_that_weighs_items_unequally_is_told(inputs):
    path = one(inputs) / "scores.json"
    data = json.loads(path.read_text())
    data["scores"][0]["value"] *= 0.9
    path.write_text(json.dumps(data))
    assert reweighted(read_scored(inputs / "zeroshot")) == ["zeroshot"]


def test_the_evaluations_own_average_is_not_a_task(inputs):
    path = one(inputs) / "scores.json"
    data = json.loads(path.read_text())
    data["scores"].append({**data["scores"][0], "benchmark": "average"})
    path.write_text(json.dumps(data))
    assert list(read_scored(inputs / "zeroshot")[0].scores) == ["zeroshot"]


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="Run the evaluation first"):
        read_scored(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "schema"),
        ('{"schema": "kd-scores/2"}', "kd-scores/1"),
        ("not json", "scores.json"),
    ],
)
def test_a_malformed_scores_file_is_named(inputs, text, message):
    (one(inputs) / "scores.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_scored(inputs / "zeroshot")


@pytest.mark.parametrize(
    "line", ['{"task": "zeroshot"}', "{", '{"task": "zeroshot", "id": "1", "cluster": "1", "score": 1.5}']
)
def test_a_malformed_item_is_named_with_its_line(inputs, line):
    path = one(inputs) / "items.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"items\.jsonl:961"):
        read_scored(inputs / "zeroshot")


def test_missing_items_are_an_error(inputs):
    (one(inputs) / "items.jsonl").unlink()
    with pytest.raises(InputError, match=r"items\.jsonl"):
        read_scored(inputs / "zeroshot")


def test_the_same_model_twice_is_an_error(inputs):
    import shutil

    shutil.copytree(one(inputs), one(inputs).with_name("copy"))
    with pytest.raises(InputError, match="Several folders hold teacher-large"):
        read_scored(inputs / "zeroshot")
