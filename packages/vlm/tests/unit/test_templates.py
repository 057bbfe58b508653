"""Templates with a tokenizer made in the test."""

import pytest
from kd_vlm.templates import (
    END,
    IGNORE,
    IMAGE,
    SYSTEM,
    Role,
    Turn,
    chat_template,
    encode,
    plain,
    qwen2_base,
    template_named,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

IMAGE_ID = -200


def text_of(encoded, tokenizer):
    """The ids as text, `<I>` for a picture's token and what is supervised in brackets."""
    out, open_ = "", False
    for token, label in zip(encoded.ids, encoded.labels, strict=True):
        if (label != IGNORE) != open_:
            out += "]" if open_ else "["
            open_ = not open_
        out += "<I>" if token == IMAGE_ID else tokenizer.decode([token])
    return out + ("]" if open_ else "")


def one(template, turns, tokenizer, tokens_per_image=1):
    segments = template([Turn(*t) for t in turns])
    return encode([segments], tokenizer, image_id=IMAGE_ID, tokens_per_image=tokens_per_image)[0]


def test_plain_shows_the_picture_and_supervises_the_caption(tokenizer):
    encoded = one(plain, [("Describe it.\n<image>", "a red picture")], tokenizer, tokens_per_image=3)
    assert text_of(encoded, tokenizer) == "<I><I><I>[a red picture\n]"


def test_plain_refuses_a_conversation():
    with pytest.raises(ValueError, match="one turn"):
        plain([Turn("<image>", "a"), Turn("b", "c")])


def test_supervision_begins_with_the_space_after_assistant_and_includes_the_end(tokenizer):
    encoded = one(qwen2_base, [("What?\n<image>", "red"), ("How many?", "2")], tokenizer)
    expected = f"{SYSTEM} USER: <I>\nWhat? ASSISTANT:[ red{END}]USER: How many? ASSISTANT:[ 2{END}]"
    assert text_of(encoded, tokenizer) == expected


def test_several_pictures_keep_their_turns_and_their_order(tokenizer):
    turns = [("<image>\nand <image> differ?", "yes"), ("<image>", "no")]
    expected = f"{SYSTEM} USER: <I>\n<I>\nand  differ? ASSISTANT:[ yes{END}]USER: <I> ASSISTANT:[ no{END}]"
    assert text_of(one(qwen2_base, turns, tokenizer), tokenizer) == expected


@pytest.mark.parametrize(
    ("question", "answer"),
    [(f"<image>\nWhat is {END}?", "a cat"), ("<image>\nWhat?", "x ASSISTANT: y USER: z"), ("<image>\nWhat?", "")],
)
def test_markers_in_the_text_and_empty_answers_do_not_move_the_mask(tokenizer, question, answer):
    """The originals mask the whole sample here."""
    encoded = one(qwen2_base, [(question, answer)], tokenizer)
    assert text_of(encoded, tokenizer).endswith(f"ASSISTANT:[ {answer}{END}]")
    end_id = tokenizer.get_vocab()[END]
    assert encoded.ids.count(end_id) == 1, "an end token written out in a text stays text"


def test_text_before_a_picture_token_is_not_a_picture(tokenizer):
    assert [s.role for s in qwen2_base([Turn("hello", "yes")])] == [Role.PROMPT, Role.ANSWER, Role.END]
    assert IMAGE not in "".join(s.text for s in qwen2_base([Turn(IMAGE, "yes")]))


def test_an_unknown_template_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="qwen2_base"):
        template_named("qwen")


def test_encoding_needs_the_end_token():
    class NoEnd:
        def get_vocab(self):
            return {}

    with pytest.raises(ValueError, match="endoftext"):
        encode([qwen2_base([Turn("a", "b")])], NoEnd(), image_id=1, tokens_per_image=1)


def sentencepiece_like(scheme):
    """A tokenizer as Llama 2's: words begin with a mark, texts get one of their own, `<s>` is put in front."""
    backend = Tokenizer(models.BPE(**{"unk_token": "<unk>"}))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    words = [f"{SYSTEM} USER: What is it?\nAnd now? ASSISTANT: It is red. {chr(10).join('0123456789abcdefgh')}"] * 3
    special = ["<unk>", "<s>", "</s>", IMAGE]
    backend.train_from_iterator(words, trainers.BpeTrainer(vocab_size=200, special_tokens=special))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "extra_special_tokens": [IMAGE]}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_segments_give_the_ids_of_the_whole_text_where_texts_get_a_space_of_their_own(scheme):
    tokenizer = sentencepiece_like(scheme)
    turns = [Turn(f"{IMAGE}\nWhat is it?", "It is red."), Turn("And now?", "2")]
    segments = template_named("qwen2_base", tokenizer)(turns)
    image_id = tokenizer.get_vocab()[IMAGE]
    (encoded,) = encode([segments], tokenizer, image_id=image_id, tokens_per_image=1)
    text = "".join(IMAGE if s.role is Role.IMAGE else s.text for s in segments if s.role is not Role.BEGIN)
    assert list(encoded.ids) == tokenizer(text)["input_ids"]
    supervised = [i for i in encoded.labels if i != IGNORE]
    assert supervised[-1] == tokenizer.eos_token_id
    assert encoded.ids[0] == tokenizer.bos_token_id
    assert chat_template("qwen2_base", tokenizer).count("</s>") == 1
