"""A folder is what its manifest says, or everything that is wrong is said at once; and nobody's data are touched."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_distill.lock import LockHeldError, sole_writer

from pipeline.data import derive
from pipeline.data.check import How, check
from pipeline.data.errors import DataError, IntegrityError
from pipeline.data.inventory import Listing, examine, of_links, pairs_of
from pipeline.data.manifest import read_manifest

from .sets import PICTURE, conversations, shard, spec_of


def test_shards_are_counted_from_their_headers(tmp_path):
    for n, pairs in enumerate((5, 7, 6)):
        shard(tmp_path / f"datasets/set/{n:05}.tar", pairs)
        (tmp_path / f"datasets/set/{n:05}_stats.json").write_text(json.dumps({"successes": pairs, "count": 10}))
    found = check(spec_of(tmp_path, "shards"), "set")
    assert found.new
    assert found.manifest["counts"] == {"pairs": 18, "shards": 3}
    assert not check(spec_of(tmp_path, "shards"), "set").new


def test_everything_that_is_wrong_with_shards_is_said_at_once(tmp_path):
    folder = tmp_path / "datasets" / "set"
    for n in range(5):
        shard(folder / f"{n}.tar", 4, captions=3 if n == 1 else None)
        (folder / f"{n}_stats.json").write_text(json.dumps({"successes": 4}))
    (folder / "2.tar").write_bytes((folder / "2.tar").read_bytes()[:3000])
    (folder / "3.tar").unlink()
    (folder / "4.tar").write_bytes(b"")
    with pytest.raises(DataError) as error:
        check(spec_of(tmp_path, "shards"), "set")
    said = str(error.value)
    assert "2 shards are cut: 2.tar, 4.tar" in said
    assert "1 shards are missing that have a _stats.json: 3.tar" in said
    assert "another number of pairs than their _stats.json says: 1.tar (3 of 4)" in said
    assert "By hand: Ask for it." in said
    assert not (tmp_path / "manifests").exists()


@pytest.mark.parametrize("keep", [0.3, 0.55, 0.8, 0.95])
def test_a_shard_cut_anywhere_is_noticed(tmp_path, keep):
    shard(tmp_path / "a.tar", 9)
    data = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "a.tar").write_bytes(data[: int(len(data) * keep) // 512 * 512])
    assert pairs_of(tmp_path / "a.tar") == "cut"


def test_conversations_name_their_missing_and_damaged_pictures_all_at_once(tmp_path):
    folder = tmp_path / "datasets" / "set"
    conversations(folder, 30, text_only=4)
    spec = spec_of(tmp_path, "conversations", file="talk.json", pictures="images", counts={"rows": 34, "text_only": 4})
    assert check(spec, "set").manifest["counts"] == {"rows": 34, "text_only": 4, "pictures": 30}
    (tmp_path / "manifests" / "set.json").unlink()
    for n in (3, 6, 9, 12, 15, 18, 21):
        (folder / f"images/000/{n}.jpg").unlink()
    (folder / "images/001/1.jpg").write_bytes(b"<html>gone</html>")
    (folder / "images/001/4.jpg").write_bytes(b"")
    with pytest.raises(DataError) as error:
        check(spec, "set")
    said = str(error.value)
    assert "7 pictures are missing: images/000/12.jpg" in said
    assert "2 pictures are damaged: images/001/1.jpg, images/001/4.jpg" in said
    names = (tmp_path / "datasets/.kd-data/set/problems.txt").read_text()
    assert names.count("pictures are missing") == 7
    allowed = spec_of(tmp_path, "conversations", file="talk.json", pictures="images", may_lack=9)
    assert check(allowed, "set").manifest["counts"]["pictures"] == 23


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": 1, "image": "../x.jpg", "conversations": []}], "outside the folder"),
        ([{"id": 1, "image": "/etc/passwd", "conversations": []}], "outside the folder"),
        ([{"id": 1}], "rows are no conversations: row 1"),
        ([], "holds no row"),
        ("[{", "not valid JSON"),
    ],
)
def test_conversations_that_are_none_are_refused(tmp_path, rows, said):
    folder = tmp_path / "datasets" / "set"
    folder.mkdir(parents=True)
    (folder / "talk.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    with pytest.raises(DataError, match=said):
        check(spec_of(tmp_path, "conversations", file="talk.json", pictures="images"), "set")


def test_pictures_behind_a_linked_folder_are_refused_as_the_trainer_refuses_them(tmp_path):
    conversations(tmp_path / "elsewhere", 3)
    folder = tmp_path / "datasets" / "set"
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(tmp_path / "elsewhere" / "images")
    (folder / "talk.json").write_bytes((tmp_path / "elsewhere" / "talk.json").read_bytes())
    with pytest.raises(DataError, match="folders are links, and pictures behind them are refused"):
        check(spec_of(tmp_path, "conversations", file="talk.json", pictures="images"), "set")


def test_classes_of_another_size_than_the_others_are_named(tmp_path):
    for name in ("n01440764", "n01443537", "n01484850"):
        for n in range(3):
            file = tmp_path / "datasets/set" / name / f"{n}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(PICTURE)
    spec = spec_of(tmp_path, "classes", counts={"classes": 3, "pictures": 9})
    assert check(spec, "set").manifest["counts"] == {"classes": 3, "pictures": 9}
    (tmp_path / "manifests" / "set.json").unlink()
    (tmp_path / "datasets/set/n01443537/1.JPEG").unlink()
    with pytest.raises(DataError, match=r"as the others do: n01443537 \(2\)\n  expected 9 pictures, found 8"):
        check(spec, "set")


def test_other_numbers_will_do_for_a_rehearsal(tmp_path):
    shard(tmp_path / "datasets" / "set" / "0.tar", 3)
    spec = spec_of(tmp_path, "shards", counts={"shards": 1000})
    with pytest.raises(DataError, match="expected 1,000 shards, found 1"):
        check(spec, "set")
    assert check(spec, "set", How(any_size=True)).manifest["counts"] == {"pairs": 3, "shards": 1}


def test_a_folder_without_classes_is_none(tmp_path):
    (tmp_path / "datasets" / "set").mkdir(parents=True)
    (tmp_path / "datasets" / "set" / "ILSVRC2012_val_00000293.JPEG").write_bytes(PICTURE)
    with pytest.raises(DataError, match="no folders of pictures, one a class"):
        check(spec_of(tmp_path, "classes"), "set")


def test_a_changed_folder_is_refused_with_what_is_missing_extra_and_changed_until_it_is_accepted(tmp_path):
    folder = tmp_path / "datasets" / "set"
    for n in range(4):
        shard(folder / f"{n}.tar", 3)
    spec = spec_of(tmp_path, "shards")
    before = check(spec, "set").manifest
    (folder / "0.tar").unlink()
    shard(folder / "1.tar", 2)
    shard(folder / "9.tar", 3)
    with pytest.raises(IntegrityError, match=r"1 missing: 0.tar\n  1 extra: 9.tar\n  1 changed: 1.tar\n.*--accept"):
        check(spec, "set")
    assert json.loads((tmp_path / "manifests" / "set.json").read_text()) == before
    assert check(spec, "set", How(accept=True)).manifest["counts"] == {"pairs": 11, "shards": 4}
    assert not check(spec, "set").new


def test_bit_rot_that_leaves_size_and_time_is_found_by_reading_everything_again(tmp_path):
    import os

    file = tmp_path / "datasets" / "set" / "0.tar"
    shard(file, 3)
    spec = spec_of(tmp_path, "shards")
    check(spec, "set")
    state, data = file.stat(), bytearray(file.read_bytes())
    data[600] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not check(spec, "set").new
    with pytest.raises(IntegrityError, match=r"1 changed: 0\.tar"):
        check(spec, "set", How(anew=True))


def test_the_same_data_give_the_same_manifest_wherever_they_are(tmp_path):
    for machine in ("a", "b"):
        conversations(tmp_path / machine / "datasets" / "set", 5)
        check(spec_of(tmp_path / machine, "conversations", file="talk.json", pictures="images"), "set")
    a, b = ((tmp_path / machine / "manifests" / "set.json").read_bytes() for machine in "ab")
    assert a == b


def test_a_manifest_from_another_machine_is_held_against_the_folder_here(tmp_path):
    for machine, pairs in (("a", 3), ("b", 4)):
        shard(tmp_path / machine / "datasets" / "set" / "0.tar", pairs)
    check(spec_of(tmp_path / "a", "shards"), "set")
    (tmp_path / "b" / "manifests").mkdir()
    (tmp_path / "b" / "manifests" / "set.json").write_bytes((tmp_path / "a" / "manifests" / "set.json").read_bytes())
    with pytest.raises(IntegrityError, match=r"expected 1 files of .* bytes, digest .*, found 1 of"):
        check(spec_of(tmp_path / "b", "shards"), "set")


def test_an_existing_folder_is_linked_verified_and_left_as_it_is(tmp_path):
    theirs = tmp_path / "theirs"
    conversations(theirs, 4)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in theirs.rglob("*")}
    spec = spec_of(tmp_path, "conversations", folder="deep/set", at=theirs, file="talk.json", pictures="images")
    assert check(spec, "set").new
    assert (tmp_path / "datasets" / "deep" / "set").resolve() == theirs
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in theirs.rglob("*")} == before
    with pytest.raises(DataError, match="which is no folder"):
        check(spec_of(tmp_path, "shards", at=tmp_path / "nowhere"), "set")


def test_a_check_that_was_killed_goes_on_with_the_files_it_had_read(tmp_path, monkeypatch):
    conversations(tmp_path / "set", 40)
    listing, read = Listing(tmp_path / "listing.jsonl"), []

    def examine_some(folder, files):
        if len(read) >= 25:
            raise KeyboardInterrupt
        read.extend(files)
        return examine(folder, files)

    monkeypatch.setattr("pipeline.data.inventory.examine", examine_some)
    with pytest.raises(KeyboardInterrupt):
        listing.refresh(tmp_path / "set")
    with listing.file.open("a") as file:
        file.write('["images/000/39.jpg", 63')  # half a line
    assert len(listing.read()) == 25
    monkeypatch.setattr("pipeline.data.inventory.examine", examine)
    read.clear()
    whole = listing.refresh(tmp_path / "set", on_bytes=lambda done, total: read.append(done))
    assert len(whole) == 41
    assert len(read) == 16
    assert listing.read() == whole


@settings(max_examples=20, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
def test_a_listing_or_a_manifest_that_was_spoiled_is_never_believed(noise):
    with tempfile.TemporaryDirectory() as home:
        listing, manifest = Listing(Path(home) / "listing.jsonl"), Path(home) / "set.json"
        shard(Path(home) / "set" / "0.tar", 2)
        whole = listing.refresh(Path(home) / "set")
        with listing.file.open("ab") as file:
            file.write(b"\n" + noise)
        assert listing.refresh(Path(home) / "set") == whole
        manifest.write_bytes(noise)
        with pytest.raises(DataError, match=r"Restore it, or remove it"):
            read_manifest(manifest)


def test_several_processes_find_the_same(tmp_path, monkeypatch):
    conversations(tmp_path / "set", 40)
    alone = Listing(tmp_path / "alone.jsonl").refresh(tmp_path / "set")
    monkeypatch.setattr("pipeline.data.inventory.SMALL", 0)
    assert Listing(tmp_path / "together.jsonl").refresh(tmp_path / "set", workers=2) == alone


def test_two_checks_of_one_data_set_do_not_meet(tmp_path):
    shard(tmp_path / "datasets" / "set" / "0.tar", 3)
    spec = spec_of(tmp_path, "shards")
    with sole_writer(spec.state("set")), pytest.raises(LockHeldError, match="is being written by process"):
        check(spec, "set")


def test_the_last_shards_are_held_out_as_links_and_no_file_is_read_again(tmp_path):
    for n in range(5):
        shard(tmp_path / "all" / f"{n}.tar", 2)
        (tmp_path / "all" / f"{n}_stats.json").write_text('{"successes": 2}')
    assert derive.link_shards(tmp_path / "all", tmp_path / "train", last=None, all_but_last=2) == 3
    assert derive.link_shards(tmp_path / "all", tmp_path / "val", last=2, all_but_last=None) == 2
    known = Listing(tmp_path / "all.jsonl").refresh(tmp_path / "all")
    of_base, read = of_links(tmp_path / "val", known), []
    linked = Listing(tmp_path / "val.jsonl").refresh(
        tmp_path / "val", known=of_base, on_bytes=lambda *n: read.append(n)
    )
    assert linked == {name: known[name] for name in ("3.tar", "3_stats.json", "4.tar", "4_stats.json")}
    assert not read
    train, val = ({p.name for p in (tmp_path / part).iterdir()} for part in ("train", "val"))
    assert train == {f"{n}{end}" for n in (0, 1, 2) for end in (".tar", "_stats.json")}
    assert train | val == {p.name for p in (tmp_path / "all").iterdir()}
    shard(tmp_path / "all" / "5.tar", 2)
    derive.link_shards(tmp_path / "all", tmp_path / "val", last=2, all_but_last=None)
    assert sorted(p.name for p in (tmp_path / "val").glob("*.tar")) == ["4.tar", "5.tar"]
    (tmp_path / "val" / "own.tar").write_bytes(b"")
    with pytest.raises(DataError, match="is no link"):
        derive.link_shards(tmp_path / "all", tmp_path / "val", last=1, all_but_last=None)
