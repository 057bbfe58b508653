"""Any bytes give a value or an error of kd_evalsuite: seconds of what `make fuzz` does for minutes."""

from dataclasses import replace

import pytest

from packages.evalsuite.tests.fuzz.harness import Finding, attempt, try_examples
from packages.evalsuite.tests.fuzz.targets import CONFIG, PUBLIC, TARGETS, lines, tar

BY_NAME = {target.name: target for target in TARGETS}
TOTAL = {"replies"}  # gives a value for any text
DEEP = b"[" * 5000
DIGITS = b'{"id": "1", "prediction": ' + b"9" * 5000 + b"}"
SHARD = tar(("0.jpg", b"x"), ("0.cls", b"1"))


def row(key: str, **changes) -> bytes:
    return lines(PUBLIC[key][0] | changes)


FOUND = {  # what fuzzing found, each once an exception that no command expected, or a message that named no file
    "a question that is a number": ("gqa", row("gqa", question=1)),
    "an index without end": ("mmbench_en", row("mmbench_en", index="X").replace(b'"X"', b"1e999")),
    "an answer without end": ("ai2d", row("ai2d", answer="X").replace(b'"X"', b"1e999")),
    "a hint that is a number": ("scienceqa", row("scienceqa", hint=1.5)),
    "choices of which there are none": ("scienceqa", row("scienceqa", choices=[])),
    "a precision that is a path": ("mathvista", row("mathvista", precision="../../x")),
    "a precision without end": ("mathvista", row("mathvista", precision="X").replace(b'"X"', b"1e999")),
    "options of no form": ("mmmu", row("mmmu", options="['red'")),
    "a reply of 5000 digits": ("answers_jsonl", DIGITS),
    "a list with a number of 5000 digits": ("answers_json", b"[" + DIGITS + b"]"),
    "a manifest in another encoding": ("manifest", "ü".encode("latin-1")),
    "a judge's line without what it said": ("judge_cache", b'{"key": "a"}\n'),
    "a source that is nested too deeply": ("source", DEEP),
    "parameters that are nested too deeply": ("params", DEEP),
    "keys that are mappings inside each other": ("params", b"? " * 20 + b"a"),
    "keys that are mappings in braces": ("params", b"{" * 20 + b"a: 1" + b"}: 1" * 19 + b"}"),
    "a configuration that is nested too deeply": ("encoder_config", DEEP),
    "a configuration with a number of 5000 digits": ("encoder_config", CONFIG.replace(b"16", b"9" * 5000, 1)),
    "a size in base 256 that is no size": ("zeroshot_shard", SHARD[:124] + b"\x80" + b"\xff" * 11 + SHARD[136:]),
    "class names in another encoding": ("zeroshot_names", "Käfer\nHund".encode("latin-1")),
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_bytes_give_a_value_or_an_error_of_the_package(target, tmp_path):
    assert try_examples(target, tmp_path, examples=8) >= len(target.seeds)


@pytest.mark.parametrize("target", [t for t in TARGETS if t.name not in TOTAL], ids=lambda target: target.name)
def test_the_inputs_are_such_that_a_target_which_may_refuse_nothing_is_caught(target, tmp_path):
    with pytest.raises(Finding):
        try_examples(replace(target, refused=lambda error: False), tmp_path, examples=200)


@pytest.mark.parametrize(("name", "data"), FOUND.values(), ids=FOUND)
def test_what_fuzzing_found_is_refused_in_words(name, data, tmp_path):
    assert not attempt(BY_NAME[name], data, tmp_path)


def test_a_judge_that_fails_on_a_reply_is_caught(tmp_path):
    """The control of the target that refuses nothing."""

    def fails(path):
        if path.read_bytes() not in BY_NAME["replies"].seeds:
            raise ArithmeticError

    with pytest.raises(Finding):
        try_examples(replace(BY_NAME["replies"], read=fails), tmp_path, examples=50)
