"""Shards: what the index holds, and what it says of shards that are not as they should be."""

import json
import shutil

import numpy as np
import pytest
from kd_distill.ledger import Cause, TooManyBadError
from kd_distill.shards import PairShards

from packages.distill.tests.unit.pictures import jpeg, pairs, write_tar

MEMBER = 1024  # bytes of a caption's header and block


@pytest.fixture
def folder(tmp_path):
    write_tar(tmp_path / "pairs" / "00000.tar", pairs(range(3)), successes=3)
    write_tar(tmp_path / "pairs" / "00001.tar", pairs(range(3, 8)), successes=5)
    return tmp_path / "pairs"


def all_of(source) -> list[tuple[str, str, bytes]]:
    return [(source.key(i), source.caption(i), source.image(i)) for i in range(len(source))]


def causes(source) -> dict[str, int]:
    return source.counts()


def test_pairs_come_in_the_order_of_shards_and_keys(folder):
    source = PairShards(folder)
    assert [source.key(i) for i in range(len(source))] == [f"{k:09d}" for k in range(8)]
    assert source.caption(6) == "picture 6"
    assert source.image(6) == jpeg(6)
    assert source.file(6) == "00001.tar"
    assert not causes(source)


def test_the_order_of_members_does_not_matter(folder):
    before = all_of(PairShards(folder))
    write_tar(folder / "00001.tar", pairs(range(3, 8))[::-1])
    assert all_of(PairShards(folder)) == before


def test_the_index_is_built_once_and_again_when_a_shard_changes(folder, monkeypatch):
    first = PairShards(folder)
    built = first.index.folder.stat().st_mtime_ns
    again = PairShards(folder)
    assert again.index.folder.stat().st_mtime_ns == built
    assert again.digest == first.digest
    write_tar(folder / "00001.tar", pairs(range(3, 8), seed=1))
    changed = PairShards(folder)
    assert changed.index.folder != first.index.folder
    assert changed.digest != first.digest
    assert [p.name for p in changed.index.folder.parent.iterdir() if p.is_dir()] == [changed.index.folder.name]
    assert first.caption(7) == "picture 7"  # what is mapped stays readable


def test_the_digest_does_not_depend_on_times_and_places(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert PairShards(tmp_path / "elsewhere").digest == PairShards(folder).digest


def test_the_digest_changes_with_a_caption_of_equal_length(folder):
    before = PairShards(folder).digest
    members = [(n, c.replace(b"picture 4", b"picture X") if n.endswith("txt") else c) for n, c in pairs(range(3, 8))]
    write_tar(folder / "00001.tar", members)
    assert PairShards(folder).digest != before


def test_a_build_that_was_killed_leaves_nothing_that_is_taken_for_an_index(folder):
    source = PairShards(folder)
    index = source.index.folder
    (index / "index.json").unlink()  # written last
    assert len(PairShards(folder)) == 8


def test_a_folder_without_shards_or_pairs_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected webdataset shards \(\*.tar\)"):
        PairShards(tmp_path)
    write_tar(tmp_path / "empty" / "00000.tar", [])
    with pytest.raises(FileNotFoundError, match="holds no image with a caption"):
        PairShards(tmp_path / "empty")


def test_a_shard_of_no_samples_is_no_fault(folder):
    write_tar(folder / "00002.tar", [], successes=0)
    assert len(PairShards(folder)) == 8


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        ([("x.jpg", jpeg())], Cause.NO_CAPTION),
        ([("x.txt", b"a dog")], Cause.NO_IMAGE),
        ([("x.gif", jpeg()), ("x.txt", b"a dog")], Cause.NO_IMAGE),
        ([("x.jpg", jpeg()), ("x.txt", b"")], Cause.EMPTY),
        ([("x.jpg", jpeg()), ("x.txt", b"\xff")], Cause.ENCODING),
        ([("x.jpg", jpeg()), ("x.txt", b"a\0b")], Cause.NUL),
        ([("x.jpg", jpeg()), ("x.txt", b"a" * 10**6)], Cause.LONG),
        ([("000000001.jpg", jpeg())], Cause.DUPLICATE),
        ([("000000001.png", jpeg())], Cause.DUPLICATE),
    ],
)
def test_a_pair_that_cannot_be_used_is_in_the_ledger_and_not_in_the_index(folder, members, cause):
    write_tar(folder / "00000.tar", [*pairs(range(3)), *members], successes=4)
    source = PairShards(folder)
    assert len(source) == 8
    assert causes(source) == {cause: 1}
    assert source.ledger.outside[0].file == "00000.tar"


NAMES = [
    "../x", "../../etc/x", "/x", "/etc/x", "a/../x", "a/../../x", "./../x", "..\\x", "a\\x", "\\\\host\\x",
    "C:\\x", "//x", "a/b/../../../x", "..//x", "x/..", "/../x", "a/..", "/a/../x", "....//../x", "../.x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_is_never_a_key(folder, name):
    """Shards are read in place and never extracted; such names are refused all the same."""
    write_tar(folder / "00000.tar", [(f"{name}.jpg", jpeg()), (f"{name}.txt", b"a dog"), *pairs(range(3))])
    (folder / "00000_stats.json").unlink()
    source = PairShards(folder)
    assert len(source) == 8
    assert set(causes(source)) <= {Cause.UNSAFE, Cause.NO_IMAGE, Cause.NO_CAPTION}
    assert not [source.key(i) for i in range(8) if ".." in source.key(i) or source.key(i).startswith("/")]


def test_a_name_that_is_not_utf_8_is_no_key(folder):
    write_tar(folder / "00000.tar", [("\udcff.jpg", jpeg()), ("\udcff.txt", b"a dog"), *pairs(range(3))])
    (folder / "00000_stats.json").unlink()
    source = PairShards(folder)
    assert len(source) == 3 + 5
    assert causes(source) == {Cause.UNSAFE: 1}


@pytest.mark.parametrize(
    ("name", "cause"), [("../x", Cause.UNSAFE), ("\udcff", Cause.UNSAFE), ("000000001", Cause.DUPLICATE)]
)
def test_a_pair_with_an_unusable_name_is_one_line_in_the_ledger_and_one_of_those_in_the_manifest(folder, name, cause):
    twice = [(f"{name}.txt", b"a dog"), (f"{name}.jpg", jpeg())] * 2
    write_tar(folder / "00000.tar", [*pairs(range(3)), *twice], successes=5)
    source = PairShards(folder)
    assert len(source) == 8
    assert causes(source) == {cause: 2}


def cut(folder, share: float) -> int:
    shard = folder / "00001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * share)])
    return int(len(data) * share)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7])
def test_a_cut_shard_is_counted_pair_by_pair_where_a_manifest_says_how_many_are_lost(folder, share):
    length = cut(folder, share)
    source = PairShards(folder)
    assert len(source) + len(source.ledger) == 8
    assert len(source) < 8
    lost = [e for e in source.ledger.outside if e.cause is Cause.TRUNCATED_TAR]
    assert {e.file for e in lost} == {"00001.tar"}
    assert all(f"of {length}" in e.detail or "at byte" in e.detail for e in lost)
    for i in range(len(source)):
        assert source.image(i) == jpeg(i)
    with pytest.raises(
        TooManyBadError, match=r"of 8 pairs cannot be used, expected at most 1.00%.*lost in a cut shard"
    ):
        source.refuse_too_many(0.01)
    source.refuse_too_many(0.7)


def test_a_cut_shard_without_a_manifest_is_refused_with_its_name_and_place(folder):
    cut(folder, 0.5)
    (folder / "00001_stats.json").unlink()
    with pytest.raises(ValueError, match=r"00001.tar: .* byte \d+.*no 00001_stats.json says"):
        PairShards(folder)


def test_a_shard_cut_between_two_members_is_noticed(folder):
    """tarfile takes the end of the file for the end of the archive."""
    shard = folder / "00000.tar"
    member = len(jpeg(0)) + (-len(jpeg(0)) % 512) + 512
    shard.write_bytes(shard.read_bytes()[: member + MEMBER])
    (folder / "00000_stats.json").unlink()
    with pytest.raises(ValueError, match="no end mark"):
        PairShards(folder)


def test_what_follows_the_end_of_a_tar_is_noticed(folder):
    """`cat a.tar b.tar > c.tar` makes a file of which readers see the first half."""
    shard = folder / "00000.tar"
    shard.write_bytes(shard.read_bytes() + shard.read_bytes())
    (folder / "00000_stats.json").unlink()
    with pytest.raises(ValueError, match="no tar header at byte"):
        PairShards(folder)


def test_a_missing_shard_is_counted_by_its_manifest(folder):
    (folder / "00001.tar").unlink()
    source = PairShards(folder)
    assert (len(source), causes(source)) == (3, {Cause.LOST: 5})
    with pytest.raises(TooManyBadError, match=r"5 of 8 pairs .*00001.tar"):
        source.refuse_too_many(0.5)


def test_a_shard_with_fewer_pairs_than_its_manifest_is_counted(folder):
    write_tar(folder / "00000.tar", pairs(range(2)))
    assert causes(PairShards(folder)) == {Cause.LOST: 1}


def test_a_shard_with_more_pairs_than_its_manifest_is_refused(folder):
    write_tar(folder / "00000.tar", [*pairs(range(3)), ("x.jpg", jpeg()), ("x.txt", b"a dog")])
    with pytest.raises(ValueError, match=r"00000.tar: expected 3 pairs \(00000_stats.json\), found 4"):
        PairShards(folder)


def test_pairs_of_which_none_can_be_used_are_refused_with_their_causes(tmp_path):
    write_tar(tmp_path / "pairs" / "00000.tar", [("x.jpg", jpeg()), ("x.txt", b"")])
    with pytest.raises(TooManyBadError, match="1 empty caption"):
        PairShards(tmp_path / "pairs")


def test_a_shard_replaced_under_a_run_is_no_bad_sample(folder):
    source = PairShards(folder)
    (folder / "00001.tar").write_bytes(b"")
    with pytest.raises(OSError, match=r"00001.tar: expected \d+ bytes at"):
        source.image(7)


def test_an_index_may_stand_elsewhere_and_its_data_be_read_only(folder, tmp_path):
    home = tmp_path / "indexes"
    source = PairShards(folder, home)
    assert source.index.folder.parent == home
    assert not folder.with_name("pairs.index").exists()
    assert isinstance(source.index.places, np.memmap)


def test_the_ledger_has_a_line_a_pair(folder):
    write_tar(folder / "00000.tar", [*pairs(range(3)), ("x.jpg", jpeg()), ("x.txt", b" ")], successes=4)
    lines = PairShards(folder).ledger.path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file": "00000.tar", "key": "x", "cause": "empty caption", "detail": "1 bytes of space", "row": None}
    ]
