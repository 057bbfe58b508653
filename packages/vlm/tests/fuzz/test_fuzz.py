"""Any bytes give a value or an error of kd_vlm: seconds of what `make fuzz` does for minutes."""

import json
from dataclasses import replace

import pytest

from packages.vlm.tests.fuzz.harness import Finding, attempt, try_examples
from packages.vlm.tests.fuzz.targets import CACHE, LINES, MLMODEL, SHARD, STEP, STOCK, SUMMARY, TARGETS, WEIGHTS

BY_NAME = {target.name: target for target in TARGETS}
DEEP = b"[" * 5000
FOUND = {  # what fuzzing found, each once an exception that no command expected, or a message that named no file
    "an element that is nested too deeply": ("conversations", b"[" + DEEP),
    "parameters that are nested too deeply": ("params", DEEP),
    "keys that are mappings inside each other": ("params", b"? " * 20 + b"a"),
    "keys that are mappings in braces": ("params", b"{" * 20 + b"a: 1" + b"}: 1" * 19 + b"}"),
    "a line that is nested too deeply": ("conversation_lines", LINES + DEEP),
    "half a surrogate pair": ("conversation_lines", LINES.replace(b"Hi", b"\\ud800")),
    "one key twice": ("conversation_lines", LINES.replace(b'{"id": 2', b'{"id": 2, "id": 3')),
    "no parquet": ("conversation_parquet", b"PAR1" + bytes(8) + b"PAR1"),
    "the name of a picture that no disk takes": ("conversation_lines", LINES.replace(b"b.png", b"b" * 3000)),
    "the name that stands for a picture which is not to be had": (
        "conversation_lines",
        LINES.replace(b"b.png", b"<blank>"),
    ),
    "a manifest that is a number": ("manifest", b"1.5"),
    "a manifest without counts": ("manifest", json.dumps({**json.loads(SUMMARY), "problems": None}).encode()),
    "a line of a manifest without its row": ("manifest_lines", b'{"problems": [{"cause": "json", "message": ""}]}\n'),
    "a cache without a width": ("cache", CACHE["cache.json"].replace(b'"width"', b'"with"')),
    "a cache of a precision that is none": ("cache", CACHE["cache.json"].replace(b"bf16", b"bf15")),
    "a listed shard outside the cache": ("cache_list", CACHE["shards.json"].replace(b"shard-0", b"../shard-0")),
    "a list of shards that are numbers": ("cache_list", b'{"schema": "kd-vision-cache/1", "shards": [1.5]}'),
    "tokens behind the end of their file": ("cache_shard", CACHE[SHARD].replace(b"[24,88]", b"[99,88]")),
    "text in another encoding": ("text", '{"text": "Größe"}'.encode("latin-1")),
    "a configuration of infinite width": ("encoder_config", b'{"model_cfg": {"embed_dim": 1e999}}'),
    "half of the weights": ("encoder_weights", WEIGHTS[:-9]),
    "a model file that is no YAML": ("registered", MLMODEL + b"\tx: ["),
    "a score that is a list": (
        "scores",
        BY_NAME["scores"].seeds[0].replace(b'"value": 0.5', b'"value": []'),
    ),
    "inputs that are a list": ("inputs", b'{"values": [], "changes": []}'),
    "a manifest of a checkpoint that is nested too deeply": ("checkpoint", DEEP),
    "a checkpoint whose files are numbers": ("checkpoint", json.dumps(STEP | {"files": {"x": 1}}).encode()),
    "a stock configuration without a language model": (
        "stock_config",
        json.dumps({k: v for k, v in STOCK.items() if k != "text_config"}).encode(),
    ),
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
