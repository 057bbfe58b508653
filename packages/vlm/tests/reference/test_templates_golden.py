"""What TinyLLaVA and Bunny produce with the real Qwen2 tokenizer."""

import json
import os
from pathlib import Path

import pytest
from kd_vlm.templates import IGNORE, IMAGE, Turn, encode, template_named

GOLDEN = json.loads((Path(__file__).parent / "conversation_templates.json").read_text())
REAL = Path(os.environ.get("KD_REAL_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
QWEN2 = REAL / "tokenizers" / "qwen2"
SMOLLM2 = QWEN2.parent / "smollm2"


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
    template = template_named("plain" if case["template"] == "pretrain" else case["template"])
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


CHAT = [Turn(f"{IMAGE}\nWhat is this?", "It is a cat."), Turn("How many?\nTwo?", "2")]


@pytest.mark.skipif(not QWEN2.exists(), reason="the Qwen2 tokenizer is not here")
def test_a_real_chat_template_gives_the_ids_of_its_rendered_text(qwen2):
    (encoded,) = encode([template_named("chat", qwen2)(CHAT)], qwen2, image_id=151655, tokens_per_image=1)
    messages = [
        {"role": role, "content": text.replace(IMAGE, "<|image_pad|>")}
        for turn in CHAT
        for role, text in (("user", turn.question), ("assistant", turn.answer))
    ]
    text = qwen2.apply_chat_template(messages, tokenize=False)
    assert list(encoded.ids) == qwen2(text, add_special_tokens=False)["input_ids"]
    assert qwen2.decode([i for i in encoded.labels if i != IGNORE]) == "It is a cat.<|im_end|>2<|im_end|>"


@pytest.mark.skipif(not SMOLLM2.exists(), reason="the SmolLM2 tokenizer is not here")
def test_the_base_template_is_right_for_smollm():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2, local_files_only=True)
    turns = [Turn("Is <|im_end|> a token?", f"No, nor is {IMAGE}."), Turn("How many?", "2")]
    (encoded,) = encode([template_named("qwen2_base", tokenizer)(turns)], tokenizer, image_id=-200, tokens_per_image=1)
    assert tokenizer.decode([i for i in encoded.labels if i != IGNORE]) == (
        f" No, nor is {IMAGE}.<|endoftext|> 2<|endoftext|>"
    )
    assert encoded.ids.count(0) == 2
    assert not {1, 2, -200} & set(encoded.ids), "tokens spelled out in a text are text"


def test_every_golden_case_supervises_something():
    assert all(any(label != IGNORE for label in case["labels"]) for case in GOLDEN["cases"])
