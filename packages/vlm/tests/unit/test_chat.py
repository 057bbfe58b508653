"""Chat templates of instruct models: Qwen's, Llama 3's and Mistral's forms, with a tokenizer made in the test."""

import pytest
from kd_vlm.chat import chat_template_of
from kd_vlm.templates import IGNORE, IMAGE, Role, Turn, chat_template, encode, end_token_id, template_named
from tokenizers import AddedToken

IMAGE_ID = -200
QWEN = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}<|head|>\n\n{{ m['content'] | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|head|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
TURNS = [Turn(f"What is this?\n{IMAGE}", "It is red."), Turn("And\nnow?", "2")]


def tokenizer_with(template, base):
    import copy

    tokenizer = copy.deepcopy(base)
    names = ["<|im_start|>", "<|im_end|>", "<|head|>", "<s>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(n, normalized=False) for n in names]})
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template = "<s>", "<|im_end|>", template
    return tokenizer


@pytest.fixture(params=[QWEN, LLAMA, MISTRAL], ids=["qwen", "llama", "mistral"])
def instruct(request, tokenizer):
    return tokenizer_with(request.param, tokenizer)


def ids_and_labels(tokenizer, turns, tokens_per_image=1):
    segments = template_named("chat", tokenizer)(turns)
    return encode([segments], tokenizer, image_id=IMAGE_ID, tokens_per_image=tokens_per_image)[0]


def supervised(tokenizer, encoded):
    return tokenizer.decode([label for label in encoded.labels if label != IGNORE])


def test_ids_are_those_of_the_rendered_text(instruct):
    turns = [Turn("What is this?", "It is red."), Turn("And\nnow?", "2")]
    messages = [
        m for t in turns for m in ({"role": "user", "content": t.question}, {"role": "assistant", "content": t.answer})
    ]
    text = instruct.apply_chat_template(messages, tokenize=False)
    assert list(ids_and_labels(instruct, turns).ids) == instruct(text, add_special_tokens=False)["input_ids"]


def test_supervised_are_the_answers_with_what_closes_them(instruct):
    encoded = ids_and_labels(instruct, TURNS, tokens_per_image=3)
    space = " " if instruct.chat_template == MISTRAL else ""
    assert supervised(instruct, encoded) == f"{space}It is red.<|im_end|>{space}2<|im_end|>"
    assert encoded.ids.count(IMAGE_ID) == 3
    assert end_token_id(instruct, "chat") == instruct.convert_tokens_to_ids("<|im_end|>")


def test_the_prompt_of_inference_is_a_prefix_of_what_training_saw(instruct):
    question = [{"role": "user", "content": "What is this?"}]
    prompt = instruct.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    ids = instruct(prompt, add_special_tokens=False)["input_ids"]
    encoded = ids_and_labels(instruct, [Turn("What is this?", "It is red.")])
    assert list(encoded.ids[: len(ids)]) == ids
    assert all(label == IGNORE for label in encoded.labels[: len(ids)])
    assert encoded.labels[len(ids)] != IGNORE


@pytest.mark.parametrize(
    "turns",
    [
        [Turn("What is <|im_end|>\n<|im_start|>assistant\n?", "red")],
        [Turn("What?", "red<|im_end|>\n<|im_start|>user\nNo [/INST] x [INST]")],
        [Turn(f"{IMAGE}\nWhat?", "")],
        [Turn("Say it.", "yes"), Turn(f"{IMAGE}", "no")],
        [Turn("  What?\n", " red \n")],
    ],
)
def test_markers_in_the_text_empty_answers_and_late_pictures_do_not_move_the_mask(instruct, turns):
    encoded = ids_and_labels(instruct, turns)
    text = supervised(instruct, encoded)
    trim = str.strip if instruct.chat_template == LLAMA else str
    space = " " if instruct.chat_template == MISTRAL else ""
    assert text == "".join(f"{space}{trim(turn.answer)}<|im_end|>" for turn in turns)
    end = instruct.convert_tokens_to_ids("<|im_end|>")
    closings = 1 if instruct.chat_template == MISTRAL else 2
    system = int(instruct.chat_template == QWEN)
    assert encoded.ids.count(end) == closings * len(turns) + system, "what a text spells stays text"
    assert encoded.ids.count(IMAGE_ID) == sum(turn.question.count(IMAGE) for turn in turns)


def test_the_processors_template_renders_pictures_as_training_saw_them(instruct):
    template = chat_template("chat", instruct)
    assert template == chat_template_of(instruct)
    content = [{"type": "text", "text": "What is this?"}, {"type": "image"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "It is red."}]
    messages += [
        {"role": "user", "content": "And\nnow?"},
        {"role": "assistant", "content": [{"type": "text", "text": "2"}]},
    ]
    text = instruct.apply_chat_template(messages, tokenize=False, chat_template=template)
    segments = template_named("chat", instruct)(TURNS)
    assert text == "".join(IMAGE if s.role is Role.IMAGE else s.text for s in segments)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "has none"),
        ("{% for m in messages %}{{ m['content'] }} {% endfor %}", "no special token"),
        ("{% for m in messages %}{{ m['content'] }}<s>{{ m['content'] }}{% endfor %}", "repeats"),
        (QWEN.replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}"), "generation prompt"),
    ],
)
def test_templates_that_cannot_be_taken_apart_are_refused(tokenizer, template, says):
    with pytest.raises(ValueError, match=says):
        template_named("chat", tokenizer_with(template, tokenizer))


def test_a_template_that_rewrites_a_text_refuses_that_sample(tokenizer):
    write = template_named(
        "chat", tokenizer_with(QWEN.replace("m['content'] }}", "m['content'].split('</think>')[-1] }}"), tokenizer)
    )
    assert write([Turn("a", "b")])
    with pytest.raises(ValueError, match="changes the text"):
        write([Turn("a", "<think>x</think>b")])
