"""Several processes, one folder."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kd_evalsuite.data import load_all
from kd_evalsuite.items import DataError
from kd_evalsuite.models.find import device_of
from kd_evalsuite.predict import manifest_of, predict
from kd_evalsuite.predictions import MANIFEST, LockedError, locked, read_manifest, read_predictions
from kd_evalsuite.sharding import IncompleteError, Shard, merge, merge_shards

from packages.evalsuite.tests.helpers.scripted import Killed, Scripted
from packages.evalsuite.tests.unit.test_predict import KEYS, REF, ids, run, silent

OTHER = REF.model_copy(update={"name": "other", "sha256": "1" * 64})


def run_shard(root, out, index, count, model=None, ref=REF, *, replace=False):
    tasks = load_all(root, KEYS)
    manifest = manifest_of(ref, tasks, protocol="paper", blind=False, limit=None)
    model = model or Scripted()
    shard = Shard(index, count)
    how = {"batch_size": 4, "progress": silent, "shard": shard, "replace": replace}
    return predict(lambda: model, tasks, manifest, out, **how).asked, model


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "a/b", "1", "-1/4", ""])
def test_a_share_is_from_one_to_n(text):
    with pytest.raises(DataError, match="1/n"):
        Shard.parse(text)


def test_torchrun_says_which_share_this_is(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Shard.of_torchrun() == Shard.parse("3/8")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Shard.of_torchrun() is None
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert (device_of("cuda"), device_of("cuda:0"), device_of("cpu")) == ("cuda:2", "cuda:0", "cpu")


def test_shares_are_disjoint_whole_and_keep_images_together(benchmark_root, tmp_path):
    for k in (1, 2, 3):
        run_shard(benchmark_root, tmp_path, k, 3)
    files = [tmp_path / f"shards/{k}-of-3/mme_perception.jsonl" for k in (1, 2, 3)]
    images = [{p.image_sha256 for p in read_predictions(f).values()} for f in files]
    assert all(images)
    assert not images[0] & images[1] | images[1] & images[2] | images[0] & images[2]
    assert merge_shards(tmp_path)
    assert {k: set(read_predictions(tmp_path / f"{k}.jsonl")) for k in KEYS} == ids(benchmark_root)
    assert merge_shards(tmp_path)  # a second time changes nothing


def test_the_last_share_to_end_puts_all_together(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path, 1, 2)
    assert not merge_shards(tmp_path)
    assert not (tmp_path / MANIFEST).exists()
    with pytest.raises(Killed):
        run_shard(benchmark_root, tmp_path, 2, 2, Scripted(stop_after=7))
    assert not merge_shards(tmp_path)
    run_shard(benchmark_root, tmp_path, 2, 2)
    assert merge_shards(tmp_path)


def test_shares_of_something_else_and_items_twice_are_not_merged(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path / "a", 1, 2)
    run_shard(benchmark_root, tmp_path / "b", 2, 2, ref=OTHER)
    one, other = tmp_path / "a/shards/1-of-2", tmp_path / "b/shards/2-of-2"
    with pytest.raises(DataError, match="does not belong with"):
        merge([one, other], tmp_path / "out")
    run_shard(benchmark_root, tmp_path / "c", 1, 1, Scripted(rule=lambda text: "B"))
    with pytest.raises(DataError, match="is both in"):
        merge([one, tmp_path / "c/shards/1-of-1"], tmp_path / "out")
    with pytest.raises(IncompleteError, match="mmmu: 6 of 12 items have no prediction"):
        merge([one], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.jsonl"))


def retimed(folder):
    """The same predictions, as a slower machine makes them."""
    for file in folder.glob("*.jsonl"):
        lines = [{**json.loads(line), "seconds": 99.0} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_an_item_asked_twice_with_one_reply_is_merged_though_its_times_differ(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path / "a", 1, 1)
    run_shard(benchmark_root, tmp_path / "b", 1, 2)
    one, again = tmp_path / "a/shards/1-of-1", tmp_path / "b/shards/1-of-2"
    retimed(again)
    merge([one, again], tmp_path / "out")
    for key in KEYS:
        assert read_predictions(tmp_path / f"out/{key}.jsonl") == read_predictions(one / f"{key}.jsonl")


def test_a_line_that_a_kill_cut_short_in_a_share_is_an_item_without_a_prediction(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path, 1, 2)
    run_shard(benchmark_root, tmp_path, 2, 2)
    file = tmp_path / "shards/1-of-2/mmmu.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(IncompleteError, match="mmmu: 1 of 12"):
        merge([tmp_path / "shards/1-of-2", tmp_path / "shards/2-of-2"], tmp_path / "out")


def test_another_number_of_shares_goes_on_with_what_was_put_together(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path, 1, 1)
    assert merge_shards(tmp_path)
    n, model = run_shard(benchmark_root, tmp_path, 2, 3)
    assert (n, model.asked) == (0, [])


def test_shares_go_on_with_those_of_another_number_that_were_killed(benchmark_root, tmp_path):
    with pytest.raises(Killed):
        run_shard(benchmark_root, tmp_path, 1, 2, Scripted(stop_after=7))
    first, _ = run_shard(benchmark_root, tmp_path, 2, 2)
    kept = sum(len(read_predictions(tmp_path / f"shards/1-of-2/{key}.jsonl")) for key in KEYS)
    assert kept
    with (tmp_path / "shards/1-of-2/mme_perception.jsonl").open("ab") as stream:
        stream.write(b'{"id": "half a li')
    asked = [run_shard(benchmark_root, tmp_path, k, 3)[0] for k in (1, 2, 3)]
    assert sum(asked) == 48 - first - kept
    assert merge_shards(tmp_path)
    assert {k: set(read_predictions(tmp_path / f"{k}.jsonl")) for k in KEYS} == ids(benchmark_root)


def test_shares_of_another_model_are_refused_where_out_or_a_share_holds_something_else(benchmark_root, tmp_path):
    run(benchmark_root, tmp_path / "whole")
    run_shard(benchmark_root, tmp_path / "part", 1, 2)
    for out in (tmp_path / "whole", tmp_path / "part"):
        before = {file: file.read_bytes() for file in out.rglob("*.json*")}
        with pytest.raises(DataError, match=r"holds predictions of something else \(model"):
            run_shard(benchmark_root, out, 2, 3, ref=OTHER)
        with pytest.raises(DataError, match=r"holds predictions of something else \(model"):
            run(benchmark_root, out, ref=OTHER)
        assert {file: file.read_bytes() for file in out.rglob("*.json*")} == before


def test_shares_with_replace_start_over_and_keep_each_others_work(benchmark_root, tmp_path):
    run(benchmark_root, tmp_path)
    for k in (1, 2, 3):
        run_shard(benchmark_root, tmp_path, k, 3)
    model = Scripted(rule=lambda text: "B")
    asked = [run_shard(benchmark_root, tmp_path, k, 2, model, OTHER, replace=True)[0] for k in (1, 2)]
    assert min(asked) > 0
    assert sum(asked) == 48
    assert sorted(folder.name for folder in (tmp_path / "shards").iterdir()) == ["1-of-2", "2-of-2"]
    assert not (tmp_path / "run.json").exists()  # the first model's
    assert merge_shards(tmp_path, replace=True)
    assert read_manifest(tmp_path).model == OTHER
    assert {p.prediction for k in KEYS for p in read_predictions(tmp_path / f"{k}.jsonl").values()} == {"B"}


def test_shares_that_start_together_with_replace_keep_each_others_work(benchmark_root, tmp_path):
    for k in (1, 2):
        run_shard(benchmark_root, tmp_path, k, 2)
    assert merge_shards(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(run_shard, benchmark_root, tmp_path, k, 4, ref=OTHER, replace=True) for k in (1, 2, 3, 4)]
    assert sum(one.result()[0] for one in work) == 48
    assert merge_shards(tmp_path, replace=True)
    assert read_manifest(tmp_path).model == OTHER


def test_a_share_of_something_else_that_is_being_written_is_not_removed(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path, 1, 2)
    before = (tmp_path / "shards/1-of-2/mmmu.jsonl").read_bytes()
    with locked(tmp_path / "shards/1-of-2"), pytest.raises(LockedError, match="1-of-2"):
        run_shard(benchmark_root, tmp_path, 2, 2, ref=OTHER, replace=True)
    assert (tmp_path / "shards/1-of-2/mmmu.jsonl").read_bytes() == before


def test_a_whole_run_with_replace_leaves_no_shares_of_something_else(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path, 1, 2)
    assert run(benchmark_root, tmp_path, ref=OTHER, replace=True)[0] == 48
    assert not list((tmp_path / "shards").iterdir())
    n, _ = run_shard(benchmark_root, tmp_path, 1, 2, ref=OTHER)
    assert n == 0


def test_a_share_that_ends_while_another_one_looks_waits_and_looks_again(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path, 1, 1)
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path):
            whole = pool.submit(merge_shards, tmp_path)
            time.sleep(0.3)
            assert not whole.done()
        assert whole.result()


def test_how_it_was_run_stands_beside_the_predictions(benchmark_root, tmp_path):
    run_shard(benchmark_root, tmp_path, 1, 1)
    said = json.loads((tmp_path / "shards/1-of-1/run.json").read_text())
    assert said["class"] == "Scripted"
    assert said["versions"]["kd-evalsuite"]
