"""Any bytes give a value or an error of kd_analysis: seconds of what `make fuzz` does for minutes."""

from dataclasses import replace

import pytest

from packages.analysis.tests.fuzz.harness import Finding, attempt, try_examples
from packages.analysis.tests.fuzz.targets import HEADS, TABLE, TARGETS, tar

BY_NAME = {target.name: target for target in TARGETS}
SKIPS = {"decoded"}  # leaves out what is not a whole line, and refuses nothing
DEEP = b"[" * 5000
SHARD = tar(("0.png", b"x"))
FOUND = {  # what fuzzing found, each once an exception that no command expected, or a message that named no file
    "a table in another encoding": ("results", TABLE.replace(b"cc12m", b"\xe9")),
    "an infinite score": ("results", TABLE.replace(b"50.5", b"inf")),
    "a size in base 256 that is no size": ("images_tar", SHARD[:124] + b"\x80" + b"\xff" * 11 + SHARD[136:]),
    "no parquet": ("images_parquet", b"PAR1" + bytes(8) + b"PAR1"),
    "similarities that are nested too deeply": ("records", DEEP),
    "parameters that are nested too deeply": ("params", DEEP),
    "keys that are mappings inside each other": ("params", b"? " * 20 + b"a"),
    "keys that are mappings in braces": ("params", b"{" * 20 + b"a: 1" + b"}: 1" * 19 + b"}"),
    "similarities that are words": ("records", BY_NAME["records"].seeds[0].replace(b"0.5", b'"one"')),
    "measures that are numbers": ("measures", b"[1.5]"),
    "a state that is packed in an unknown way": ("moments", BY_NAME["moments"].seeds[0].replace(b"PK", b"PX")),
    "a configuration without a model": ("model_config", b"{}"),
    "a configuration of infinite width": ("model_config", b'{"model_cfg": {"embed_dim": 1e999}}'),
    "half of the heads": ("heads", HEADS[:-9]),
    "a manifest without files": ("checkpoint", b"{}"),
    "a manifest of other files": ("checkpoint", b'{"files": {}}'),
    "an infinite number of items": ("mlflow", BY_NAME["mlflow"].seeds[0].replace(b"100.0", b"1e999")),
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_bytes_give_a_value_or_an_error_of_the_package(target, tmp_path):
    assert try_examples(target, tmp_path, examples=12) >= len(target.seeds)


@pytest.mark.parametrize("target", [t for t in TARGETS if t.name not in SKIPS], ids=lambda target: target.name)
def test_the_inputs_are_such_that_a_target_which_may_refuse_nothing_is_caught(target, tmp_path):
    with pytest.raises(Finding):
        try_examples(replace(target, refused=lambda error: False), tmp_path, examples=200)


@pytest.mark.parametrize(("name", "data"), FOUND.values(), ids=FOUND)
def test_what_fuzzing_found_is_refused_in_words(name, data, tmp_path):
    assert not attempt(BY_NAME[name], data, tmp_path)


def test_lines_that_are_no_digests_are_left_out(tmp_path):
    assert attempt(BY_NAME["decoded"], b'{"bytes": {}}\n{"bytes": "a"}\n' + DEEP, tmp_path)
