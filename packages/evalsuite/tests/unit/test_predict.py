import contextlib
import json

import pytest
from kd_evalsuite.data import load_all
from kd_evalsuite.items import DataError
from kd_evalsuite.predict import manifest_of, predict
from kd_evalsuite.predictions import LockedError, PredictionFile, locked, read_predictions
from kd_evalsuite.records import ModelRef, Prediction

from packages.evalsuite.tests.helpers.scripted import Killed, Scripted

KEYS = ["mme_perception", "scienceqa", "mmmu"]
REF = ModelRef(kind="vlm", name="scripted", sha256="0" * 64)


@contextlib.contextmanager
def silent(name, total, done):
    yield lambda n: None


def run(root, out, model=None, *, blind=False, limit=None, ref=REF, replace=False, batch_size=5):
    tasks = load_all(root, KEYS, limit=limit)
    manifest = manifest_of(ref, tasks, protocol="paper", blind=blind, limit=limit)
    model = model or Scripted()
    n = predict(lambda: model, tasks, manifest, out, batch_size=batch_size, progress=silent, replace=replace)
    return n.asked, model


def ids(root):
    return {task.key: {i.id for i in task.items} for task in load_all(root, KEYS)}


def test_every_item_gets_one_line_with_its_fields(benchmark_root, tmp_path):
    n, _ = run(benchmark_root, tmp_path)
    assert n == 24 + 12 + 12
    line = json.loads((tmp_path / "mmmu.jsonl").read_text().splitlines()[0])
    assert list(line) == ["id", "prediction", "prompt_sha256", "image_sha256", "tokens", "seconds"]
    assert {k: set(read_predictions(tmp_path / f"{k}.jsonl")) for k in KEYS} == ids(benchmark_root)


@pytest.mark.parametrize("stop_after", [0, 3, 7, 24, 29, 40])
def test_stopped_and_run_again_it_finishes_with_no_item_twice_or_missing(benchmark_root, tmp_path, stop_after):
    with pytest.raises(Killed):
        run(benchmark_root, tmp_path, Scripted(stop_after=stop_after))
    for file in tmp_path.glob("*.jsonl"):
        with file.open("ab") as stream:
            stream.write(b'{"id": "half a li')  # what a kill in the middle of a write leaves
    run(benchmark_root, tmp_path)
    assert {k: set(read_predictions(tmp_path / f"{k}.jsonl")) for k in KEYS} == ids(benchmark_root)
    again, model = run(benchmark_root, tmp_path)
    assert again == 0
    assert not model.asked


def test_a_finished_folder_does_not_load_the_model(benchmark_root, tmp_path):
    run(benchmark_root, tmp_path)
    tasks = load_all(benchmark_root, KEYS)
    manifest = manifest_of(REF, tasks, protocol="paper", blind=False, limit=None)

    def refuse():
        raise AssertionError("loaded")

    assert predict(refuse, tasks, manifest, tmp_path, batch_size=5, progress=silent).asked == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blind": True}, "blind"),
        ({"limit": 4}, "limit"),
        ({"ref": REF.model_copy(update={"sha256": "1" * 64})}, "model"),
    ],
)
def test_predictions_of_something_else_are_not_mixed(benchmark_root, tmp_path, change, said):
    run(benchmark_root, tmp_path)
    with pytest.raises(DataError, match=said):
        run(benchmark_root, tmp_path, **change)
    n, _ = run(benchmark_root, tmp_path, replace=True, **change)
    assert n > 0


def test_files_without_a_manifest_are_not_taken_over(benchmark_root, tmp_path):
    (tmp_path / "gqa.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="manifest"):
        run(benchmark_root, tmp_path)


def test_a_manifest_without_a_prediction_is_replaced(benchmark_root, tmp_path):
    with pytest.raises(Killed):
        run(benchmark_root, tmp_path, Scripted(stop_after=0))
    n, _ = run(benchmark_root, tmp_path, blind=True)
    assert n == 48


def test_blind_asks_without_images_but_keeps_their_digest(benchmark_root, tmp_path):
    _, model = run(benchmark_root, tmp_path / "blind", blind=True)
    assert not any(r.images for r in model.asked)
    run(benchmark_root, tmp_path / "sighted")
    blind, sighted = (read_predictions(tmp_path / f / "mmmu.jsonl") for f in ("blind", "sighted"))
    assert {k: v.image_sha256 for k, v in blind.items()} == {k: v.image_sha256 for k, v in sighted.items()}
    assert all(blind[k].prompt_sha256 != sighted[k].prompt_sha256 for k in blind)


def test_only_the_first_image_is_shown_under_cambrians_prompts(benchmark_root, tmp_path):
    _, model = run(benchmark_root, tmp_path)
    assert max(len(r.images) for r in model.asked) == 1


def test_batches_hold_whole_images_and_items_alike(benchmark_root, tmp_path):
    _, model = run(benchmark_root, tmp_path, batch_size=4)
    counts = [len(r.images) for r in model.asked]
    pairs = [{i.sha256 for r in model.asked[k : k + 2] for i in r.images} for k in range(0, 24, 2)]
    assert all(len(pair) == 1 for pair in pairs)  # MME: the two questions on an image
    assert counts[24:36] == sorted(counts[24:36])  # ScienceQA: text alone, then with image


def test_two_writers_do_not_share_a_folder(tmp_path):
    with locked(tmp_path), pytest.raises(LockedError), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_any_reply_survives_the_file(tmp_path):
    replies = ["", "a\nb", "\u2028", "\x00", "\udc80", "<b>", "日本"]
    with PredictionFile(tmp_path / "a.jsonl") as file:
        file.append(Prediction(id=str(k), prediction=r) for k, r in enumerate(replies))
    found = read_predictions(tmp_path / "a.jsonl")
    assert len(found) == len(replies)
    assert found["6"].prediction == "日本"


def test_a_repeated_item_is_an_error(tmp_path):
    line = Prediction(id="1", prediction="x").model_dump_json() + "\n"
    (tmp_path / "a.jsonl").write_text(line * 2)
    with pytest.raises(DataError, match="twice"):
        read_predictions(tmp_path / "a.jsonl")
