"""Shards behind a URL: what a folder would give, and what is said of storage that fails or changes."""

import itertools
import json

import fsspec
import pytest
import torch
from kd_distill.blocks import BlockCache
from kd_distill.config import Data
from kd_distill.exits import exit_code
from kd_distill.formats import Network, Part, open_pairs
from kd_distill.ledger import Cause
from kd_distill.pairs import Pairs
from kd_distill.params import load_section
from kd_distill.remote import Remote, UnreachableStoreError, name_of, shown
from kd_distill.remote_shards import RemoteShards
from kd_distill.shards import PairShards
from kd_distill.tracking import IntegrityError

from packages.distill.tests.unit.files_server import served
from packages.distill.tests.unit.pictures import pairs, write_tar
from packages.distill.tests.unit.test_pairs import VIEW, tokenize

COUNT = itertools.count()
SMALL = 4096  # bytes of a block: pictures go over their borders


@pytest.fixture
def folder(tmp_path):
    write_tar(tmp_path / "pairs" / "00000.tar", pairs(range(3)), successes=3)
    write_tar(tmp_path / "pairs" / "00001.tar", [*pairs(range(3, 8)), ("x.txt", b"caf\xe9")], successes=6)
    return tmp_path / "pairs"


@pytest.fixture
def http(folder):
    with served(folder.parent) as server:
        yield server


def in_memory(folder) -> str:
    """A URL of a copy of the folder."""
    place = f"memory://bucket-{next(COUNT)}/pairs"
    files = fsspec.filesystem("memory")
    for file in folder.iterdir():
        files.pipe_file(f"{place}/{file.name}", file.read_bytes())
    return place


def blocks_of(tmp_path, limit: int = 1 << 20) -> BlockCache:
    return BlockCache(tmp_path / "blocks", limit, SMALL)


def opened(url: str, tmp_path, blocks=None, tries: int = 3) -> RemoteShards:
    return RemoteShards(Remote(url, tries=tries), tmp_path / "index", blocks)


def all_of(source) -> list[tuple[str, str, str, bytes]]:
    return [(source.key(i), source.caption(i), source.file(i), source.image(i)) for i in range(len(source))]


def batches(source, start: int = 0) -> list:
    read = Pairs(source, VIEW, tokenize, seed=0, views=2, crop_area=0.5, bad_limit=0.5)
    return list(read.steps(start, 8, batch_size=3, order_seed=1))


def urls_of(folder, server) -> list[str]:
    place = in_memory(folder)
    both = "{00000..00001}.tar"
    afar = f"{server.url}/pairs"
    return [f"{afar}/", f"{afar}/{both}", place, f"{place}/*.tar", f"{place}/{both}", f"file://{folder}"]


@pytest.mark.parametrize(("which", "keep"), [*((which, True) for which in range(6)), (0, False)])
def test_every_url_gives_the_pairs_batches_ledger_and_digest_of_the_folder(folder, http, tmp_path, which, keep):
    local = PairShards(folder)
    source = opened(urls_of(folder, http)[which], tmp_path, blocks_of(tmp_path) if keep else None)
    assert all_of(source) == all_of(local)
    assert source.digest == local.digest
    assert source.counts() == local.counts() == {Cause.NO_IMAGE: 1}
    for start in (0, 5):
        for one, other in zip(batches(source, start), batches(local, start), strict=True):
            assert (one.keys, one.images.numpy().tobytes().hex()) == (other.keys, other.images.numpy().tobytes().hex())
            assert torch.equal(one.tokens, other.tokens)


def test_what_is_kept_crosses_the_network_once(http, tmp_path):
    blocks = blocks_of(tmp_path)
    first = all_of(opened(f"{http.url}/pairs/", tmp_path, blocks))
    http.gets.clear()
    assert all_of(opened(f"{http.url}/pairs/", tmp_path, blocks_of(tmp_path))) == first
    assert [name for name, _ in http.gets if name.endswith(".tar")] == []


def test_what_is_kept_stays_below_its_limit_and_what_made_room_comes_again(http, tmp_path):
    blocks = blocks_of(tmp_path, 3 * SMALL)
    source = opened(f"{http.url}/pairs/", tmp_path, blocks)
    assert all_of(source) == all_of(source) == all_of(PairShards(http.folder / "pairs"))
    kept = [file for file in (tmp_path / "blocks").glob("*/*")]
    assert 0 < sum(file.stat().st_size for file in kept) <= 4 * (SMALL + 32)


def test_a_kept_block_that_rots_is_fetched_again(http, tmp_path):
    expected = all_of(opened(f"{http.url}/pairs/", tmp_path, blocks_of(tmp_path)))
    for file in (tmp_path / "blocks").glob("*/*"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    assert all_of(opened(f"{http.url}/pairs/", tmp_path, blocks_of(tmp_path))) == expected


def test_a_server_that_fails_and_connections_that_drop_are_asked_again(http, tmp_path):
    source = opened(f"{http.url}/pairs/", tmp_path)
    http.failures, http.drops = 1, 1
    assert source.image(4) == PairShards(http.folder / "pairs").image(4)
    assert (http.failures, http.drops) == (0, 0)


def test_a_walk_over_shards_goes_on_over_dropped_connections(http, tmp_path):
    http.drops, http.failures = 2, 1
    assert len(opened(f"{http.url}/pairs/", tmp_path, tries=6)) == 8


def test_a_server_that_goes_on_failing_is_said_to_and_the_run_may_be_tried_later(http, tmp_path):
    source = opened(f"{http.url}/pairs/", tmp_path, tries=2)
    http.failures = 10**6
    with pytest.raises(UnreachableStoreError, match=r"pairs/00000.tar: 2 tries failed, the last with: 503") as caught:
        source.image(0)
    assert exit_code(caught.value) == 75


def test_nobody_at_the_address_is_said_so_and_not_taken_for_a_missing_file(tmp_path):
    with pytest.raises(UnreachableStoreError, match=r"http://127.0.0.1:9/00000.tar: 1 tries failed"):
        opened("http://127.0.0.1:9/{00000..00001}.tar", tmp_path, tries=1)


def test_a_shard_replaced_under_a_run_is_found_and_the_next_run_indexes_anew(folder, http, tmp_path):
    source = opened(f"{http.url}/pairs/", tmp_path)
    write_tar(folder / "00001.tar", pairs(range(3, 8), seed=1))
    with pytest.raises(IntegrityError, match=r"00001.tar was replaced while it was read: expected \d+ bytes") as caught:
        source.image(7)
    assert exit_code(caught.value) == 5
    (folder / "00001_stats.json").unlink()
    assert opened(f"{http.url}/pairs/", tmp_path).digest != source.digest


def test_a_shard_that_goes_away_under_a_run_is_found(folder, http, tmp_path):
    source = opened(f"{http.url}/pairs/", tmp_path)
    (folder / "00000.tar").unlink()
    with pytest.raises(IntegrityError, match=r"00000.tar: the file was here when it was indexed, and is gone"):
        source.image(0)


def test_a_shard_that_braces_name_and_that_is_missing_is_named(http, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a file at http://.*/pairs/00002.tar, found none"):
        opened(f"{http.url}/pairs/{{00000..00002}}.tar", tmp_path)


def test_a_place_without_shards_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected webdataset shards \(\*.tar\) at memory://nothing"):
        opened("memory://nothing/here", tmp_path)


def test_a_missing_shard_is_counted_by_its_manifest(folder, tmp_path):
    (folder / "00000.tar").unlink()
    assert (
        opened(in_memory(folder), tmp_path).counts()
        == PairShards(folder).counts()
        == {Cause.NO_IMAGE: 1, Cause.LOST: 3}
    )


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_a_cut_shard_is_what_it_is_in_a_folder(folder, tmp_path, share):
    shard = folder / "00001.tar"
    shard.write_bytes(shard.read_bytes()[: int(shard.stat().st_size * share)])
    source, local = opened(in_memory(folder), tmp_path), PairShards(folder)
    assert source.counts() == local.counts()
    assert source.ledger.outside == local.ledger.outside
    (folder / "00001_stats.json").unlink()
    with pytest.raises(ValueError, match=r"memory://.*00001.tar: .*no 00001_stats.json says how many"):
        opened(in_memory(folder), tmp_path / "other")


def test_a_server_without_ranges_is_refused(http, tmp_path):
    source = opened(f"{http.url}/pairs/", tmp_path)
    http.ranges = False
    with pytest.raises(ValueError, match="the server sent the whole file where a range was asked for"):
        source.image(0)


def test_a_walk_that_was_killed_goes_on_with_the_shards_that_were_not_walked(folder, http, tmp_path, monkeypatch):
    from kd_distill import remote_shards

    whole = remote_shards.contents_of

    def killed(shard, file, length):
        if shard == "00001.tar":
            raise KeyboardInterrupt
        return whole(shard, file, length)

    monkeypatch.setattr(remote_shards, "contents_of", killed)
    monkeypatch.setattr(remote_shards, "WALKERS", 1)
    with pytest.raises(KeyboardInterrupt):
        opened(f"{http.url}/pairs/", tmp_path)
    monkeypatch.setattr(remote_shards, "contents_of", whole)
    http.gets.clear()
    source = opened(f"{http.url}/pairs/", tmp_path)
    assert {name for name, _ in http.gets} == {"00001.tar", "00000_stats.json", "00001_stats.json"}
    assert all_of(source) == all_of(PairShards(folder))
    assert not (tmp_path / "index" / "walked").exists()


def test_progress_is_told_in_megabytes_and_ends_at_the_whole(folder, tmp_path):
    seen = []
    RemoteShards(Remote(in_memory(folder)), tmp_path / "i", None, lambda what, done, of: seen.append((what, done, of)))
    assert seen[-1][0].endswith("MB indexed")
    assert seen[-1][1] == seen[-1][2]


def test_parameters_take_urls_where_they_take_folders_and_mixes_of_both(folder, tmp_path):
    url = in_memory(folder)
    sets = f"train: [{{path: '{url}'}}, {{path: {folder}, epochs: 2}}], val: '{url}'"
    (tmp_path / "params.yaml").write_text(f"data: {{{sets}, views: 1, crop_area: 1, caches: caches}}")
    data = load_section(tmp_path / "params.yaml", "data", Data)
    assert (data.name, data.val) == ("pairs+pairs", url)
    mix = open_pairs(data.train, tmp_path / "indexes", data.network)
    assert [mix.key(i) for i in range(len(mix))] == 2 * [f"{k:09d}" for k in range(8)]
    with pytest.raises(ValueError, match=r"say in data.index where its index goes"):
        open_pairs(data.val)
    with pytest.raises(ValueError, match="a URL is read of the format webdataset alone, got parquet"):
        open_pairs([Part(path=url, format="parquet")], tmp_path)


def test_a_url_that_no_file_system_knows_and_chains_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Protocol not known: nowhere"):
        open_pairs("nowhere://x", tmp_path)
    with pytest.raises(ValueError, match="expected one URL, got a chain"):
        open_pairs([Part(path="simplecache::memory://x")], tmp_path)


def test_secrets_in_a_url_are_not_shown():
    assert shown("https://me:word@host/a/0.tar?key=1") == "https://host/a/0.tar"
    names = {
        "s3://bucket/cc12m/{00000..00099}.tar": "cc12m",
        "s3://bucket/cc12m/": "cc12m",
        "s3://cc12m/*.tar": "cc12m",
    }
    assert {url: name_of(url) for url in names} == names


def test_a_run_that_began_with_a_folder_has_the_same_inputs_over_a_url(folder, tmp_path):
    local = open_pairs(folder, tmp_path / "indexes")
    remote = open_pairs(in_memory(folder), tmp_path / "indexes", Network(limit_gb=0))
    assert json.dumps(local.parts) == json.dumps(remote.parts)
    assert local.digest == remote.digest
