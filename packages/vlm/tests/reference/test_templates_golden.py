"""What TinyLLaVA and Bunny produce with the real Qwen2 tokenizer."""

import json
from pathlib import Path

import pytest
from kd_vlm.templates import IGNORE, Turn, encode, template_named

GOLDEN = json.loads((Path(__file__).parent / "conversation_templates.json").read_text())
SHARED = Path(__file__).parents[4].parent / "shared"
QWEN2 = SHARED / "data" / "tokenizers" / "qwen2"


@pytest.fixture(scope="module")
def qwen2():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(QWEN2, local_files_only=True)


class PiecesTokenizer:
    """Gives each text the ids that the real tokenizer gave it, so that the goldens hold without its 4 MB."""

    def get_vocab(self):
        return {"<|endoftext|>": 151643}

    def __call__(self, texts, **_):
        return {"input_ids": [GOLDEN["pieces"][text] for text in texts]}


def _turns(case):
    values = [m["value"] for m in case["conversations"]]
    return [Turn(q, a) for q, a in zip(values[::2], values[1::2], strict=True)]


def _encode(case, tokenizer):
    template = template_named("plain" if case["template"] in ("plain", "pretrain") else "qwen2_base")
    return encode([template(_turns(case))], tokenizer, image_id=-200, tokens_per_image=1)[0]


def _name(case):
    return f"{case['sample']}-{case['framework']}"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=_name)
def test_ids_and_labels_equal_the_original_frameworks(case):
    encoded = _encode(case, PiecesTokenizer())
    assert list(encoded.ids) == case["input_ids"]
    assert list(encoded.labels) == case["labels"]


@pytest.mark.skipif(not QWEN2.exists(), reason="the Qwen2 tokenizer is not here")
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=_name)
def test_ids_and_labels_equal_the_original_frameworks_with_the_real_tokenizer(case, qwen2):
    encoded = _encode(case, qwen2)
    assert list(encoded.ids) == case["input_ids"]
    assert list(encoded.labels) == case["labels"]


@pytest.mark.skipif(not QWEN2.exists(), reason="the Qwen2 tokenizer is not here")
@pytest.mark.parametrize("text", sorted(GOLDEN["pieces"]))
def test_the_recorded_pieces_are_those_of_the_real_tokenizer(text, qwen2):
    assert qwen2(text, add_special_tokens=False)["input_ids"] == GOLDEN["pieces"][text]


def test_every_golden_case_supervises_something():
    assert all(any(label != IGNORE for label in case["labels"]) for case in GOLDEN["cases"])
