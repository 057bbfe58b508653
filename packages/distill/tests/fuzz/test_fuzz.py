"""Any bytes give a value or an error of kd_distill: seconds of what `make fuzz` does for minutes."""

from dataclasses import replace

import numpy as np
import pytest

from packages.distill.tests.fuzz.harness import Finding, attempt, try_examples
from packages.distill.tests.fuzz.targets import CACHE, SHARD, TARGETS, npy, tar

BY_NAME = {target.name: target for target in TARGETS}
DEEP = b"[" * 5000
FOUND = {  # what fuzzing found, each once an exception that no command expected, or a loop without end
    "a size in base 256 that is no size": ("shards", SHARD[:124] + b"\x80" + b"\xff" * 11 + SHARD[136:]),
    "a member whose name is not UTF-8": ("shards", tar(("\udcff.jpg", b"x"), ("\udcff.txt", b"y"))),
    "a size below 0": ("labelled", SHARD[:124] + b"\xff" * 12 + SHARD[136:]),
    "more lost pairs than a disk holds lines": ("shard_counts", b'{"successes": 1000000000000000000}'),
    "counts that are a list": ("shard_counts", b"[1.5]"),
    "a row that is not UTF-8 and has other columns": ("table", b"image\tcaption\n\xff\n0.jpg\ta cat\n"),
    "columns that are not UTF-8": ("table", b"image\tcapt\xe9on\n"),
    "no parquet": ("parquet", b"PAR1" + bytes(8) + b"PAR1"),
    "nested manifest": ("cache_manifest", DEEP),
    "parameters that are nested too deeply": ("params", DEEP),
    "keys that are mappings inside each other": ("params", b"? " * 20 + b"a"),
    "keys that are mappings in braces": ("params", b"{" * 20 + b"a: 1" + b"}: 1" * 19 + b"}"),
    "a manifest with a number of 5000 digits": ("cache_manifest", b'{"files": ' + b"9" * 5000 + b"}"),
    "an array whose header ends early": ("embeddings", npy(np.ones((3, 4), np.float32))[:20]),
    "an array larger than its file": ("embeddings", npy(np.ones((3, 4))).replace(b"(3, 4)", b"(3, 9)")),
    "an index without its number of pairs": ("index_index", b'{"schema": "kd-index/1"}'),
    "an index of -1 pairs": ("index_index", b'{"schema": "kd-index/1", "pairs": -1, "digest": ""}'),
    "keys that are not UTF-8": ("index_key_bin", b"\xff\xff"),
    "a ledger line without a cause": ("ledger", b'{"file": "0.tar"}\n'),
    "a ledger line of a cause that is none": ("ledger", b'{"file": "", "key": "", "cause": "x", "detail": ""}\n'),
    "a journal whose key leads out of its folder": (
        "journal",
        b'{"event": "start", "schema": "kd-journal/1", "key": "/../../x", "time": 1, "experiment": "a", "name": "",'
        b' "params": {}, "tags": {}, "datasets": [], "models": []}\n',
    ),
    "aliases that mean a billion values": (
        "params",
        b"distill:\n  a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(b"  %c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
    ),
    "an alias inside its own anchor": ("params", b"distill: &a {data: *a}\n"),
    "a date of no calendar": ("params", b"distill: {data: 2001-99-99}\n"),
    "a tag of Python": ("set", b"data=!!python/object/apply:os.system [ls]"),
    "a value that is no YAML": ("set", b"data=["),
    "a reference with a quote in its name": (
        "reference",
        b'{"schema": "kd-ref/1", "kind": "lm", "name": "a\' OR 1", "sha256": "' + b"a" * 64 + b'"}',
    ),
    "a configuration that is a number": ("model_config", b"1.5"),
    "cosines that are words": ("cosines", BY_NAME["cosines"].seeds[0].replace(b"[[1.0", b'[["one"')),
    "labelled images of which none is whole": ("labelled", bytes(1024)),
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_bytes_give_a_value_or_an_error_of_the_package(target, tmp_path):
    assert try_examples(target, tmp_path, examples=12) >= len(target.seeds)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_inputs_are_such_that_a_target_which_may_refuse_nothing_is_caught(target, tmp_path):
    with pytest.raises(Finding):
        try_examples(replace(target, refused=lambda error: False), tmp_path, examples=200)


@pytest.mark.parametrize(("name", "data"), FOUND.values(), ids=FOUND)
def test_what_fuzzing_found_is_refused_in_words(name, data, tmp_path):
    assert not attempt(BY_NAME[name], data, tmp_path)


def test_files_of_a_cache_that_are_whole_are_read(tmp_path):
    """The control of the manifest, whose every change is a refusal."""
    assert attempt(BY_NAME["cache_manifest"], CACHE["cache.json"], tmp_path)
