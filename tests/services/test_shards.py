"""Shards in an S3-compatible store, read through s3fs: what a folder gives."""

import hashlib
from pathlib import Path

import pytest

from .backends import KEYS, object_store
from .test_server import write_pairs

pytestmark = pytest.mark.services


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The address of a store that holds `pairs/00000.tar` and a copy of it."""
    import boto3

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    write_pairs(tmp_path / "pairs")
    (tmp_path / "pairs" / "00001.tar").write_bytes((tmp_path / "pairs" / "00000.tar").read_bytes())
    with object_store(tmp_path) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        client = boto3.client("s3", endpoint_url=address)
        for file in (tmp_path / "pairs").iterdir():
            client.upload_file(str(file), "artifacts", f"pairs/{file.name}")
        yield client


def test_pairs_in_the_object_store_are_those_of_the_folder_and_a_replaced_shard_is_found(tmp_path: Path, store):
    from kd_distill.formats import Network, open_pairs
    from kd_distill.tracking import IntegrityError

    local = open_pairs(tmp_path / "pairs")
    expected = [hashlib.sha256(local.image(i)).hexdigest() for i in range(len(local))]
    for url in ("s3://artifacts/pairs/", "s3://artifacts/pairs/{00000..00001}.tar", "s3://artifacts/pairs/*.tar"):
        for network in (Network(block_mb=0.01), Network(limit_gb=0, tries=2)):
            source = open_pairs(url, tmp_path / "indexes", network)
            assert source.digest == local.digest
            assert [hashlib.sha256(source.image(i)).hexdigest() for i in range(len(source))] == expected
    store.put_object(Bucket="artifacts", Key="pairs/00001.tar", Body=b"another")
    with pytest.raises(IntegrityError, match=r"s3://artifacts/pairs/00001.tar was replaced while it was read"):
        source.image(len(source) - 1)
    store.delete_object(Bucket="artifacts", Key="pairs/00001.tar")
    with pytest.raises(IntegrityError, match="is gone"):
        source.image(len(source) - 1)
    with pytest.raises(FileNotFoundError, match=r"Expected a file at s3://artifacts/pairs/00001.tar, found none"):
        open_pairs("s3://artifacts/pairs/{00000..00001}.tar", tmp_path / "indexes")
