import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kd_vlm.evaluate import answers_right
from kd_vlm.lm import (
    build_model,
    frequent_phrases,
    held_out_lm,
    pack,
    packed_batch,
    packed_logits,
    packed_loss,
    read_text,
    repeated,
    tokenise,
    train_tokenizer,
)
from kd_vlm.templates import END, IGNORE, SYSTEM

SHAPE = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "mlp_width": 48, "max_positions": 256}


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(tokenizer, **SHAPE, generator=torch.Generator().manual_seed(0)).eval()


def test_the_tokenizer_writes_any_text_back(tokenizer):
    text = "Zürich — 12 × 3\n\tDone. 你好"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token == END
    assert len(tokenizer("2024")["input_ids"]) == 4, "each digit is a token of its own"


def test_weights_depend_on_the_generator_alone(tokenizer, model):
    torch.rand(7)
    again = build_model(tokenizer, **SHAPE, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_packed_documents_do_not_see_each_other(tokenizer, model):
    documents = tokenise(tokenizer, [f"{SYSTEM} USER: a ASSISTANT: red", "a blue picture", "one of 3"], 64)
    ids, _, positions, _ = packed_batch(documents, [[0, 1, 2]])
    with torch.no_grad():
        packed = packed_logits(model, ids, positions)[0]
        alone = torch.cat([model(torch.tensor([d.ids]), use_cache=False).logits[0] for d in documents])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def test_packed_loss_is_the_mean_over_all_tokens_but_each_first(tokenizer, model):
    documents = tokenise(tokenizer, ["a red picture", "one of 3"], 64)
    with torch.no_grad():
        loss = packed_loss(model, documents, [[0, 1]], 1.0, "fp32")
        total, n = 0.0, 0
        for document in documents:
            ids = torch.tensor([document.ids])
            total += model(ids, labels=ids, use_cache=False).loss * (len(document.ids) - 1)
            n += len(document.ids) - 1
    torch.testing.assert_close(loss, total / n, atol=1e-5, rtol=1e-5)


def test_answers_are_marked_with_their_end_token(tokenizer):
    text = f"USER: a ASSISTANT: red{END}USER: b ASSISTANT: 2{END}"
    (document,) = tokenise(tokenizer, [text], 64)
    marked = [i for i, inside in zip(document.ids, document.in_answer, strict=True) if inside]
    assert tokenizer.decode(marked) == f" red{END} 2{END}"


def test_labels_of_a_row_skip_first_tokens_and_padding(tokenizer):
    documents = tokenise(tokenizer, ["a red picture", "one", "a blue picture"], 64)
    ids, labels, positions, _ = packed_batch(documents, [[0, 1], [2]])
    supervised = labels != IGNORE
    assert supervised.sum() == sum(len(d.ids) - 1 for d in documents)
    assert torch.equal(ids[supervised], labels[supervised])
    assert not supervised[positions == 0].any()


@given(lengths=st.lists(st.integers(1, 50), max_size=60), context=st.integers(50, 90))
def test_packing_keeps_every_document_whole_and_within_the_context(lengths, context):
    rows = pack(lengths, context, range(len(lengths)))
    assert [i for row in rows for i in row] == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= context for row in rows)


def test_frequent_statements_become_one_token():
    instruction = "Answer the question using a single word or phrase."
    texts = [f"{SYSTEM} USER: What is {i}?\n{instruction} ASSISTANT: {i}{END}" for i in range(50)]
    phrases = frequent_phrases(texts, 10)
    assert f"\n{instruction}" in phrases
    assert not [p for p in phrases if "?" in p or "USER" in p or "ASSISTANT" in p]
    tokenizer = train_tokenizer(texts, 400, 10)
    assert len(tokenizer(SYSTEM)["input_ids"]) == 2
    assert tokenizer.decode(tokenizer(texts[0])["input_ids"]) == texts[0]
    assert len(tokenizer) <= 400


def test_repeated_documents_mark_the_second_copy_and_fit_the_context(tokenizer):
    documents = tokenise(tokenizer, ["a red picture", "one of 3 " * 10], 64)
    twice = repeated(documents, 1.0, 64, np.random.default_rng(0))
    n = len(documents[0].ids)
    assert twice[0].ids == documents[0].ids * 2
    assert twice[0].in_answer == (False,) * n + (True,) * n
    assert twice[1] == documents[1], "its double would not fit"
    assert repeated(documents, 0.0, 64, np.random.default_rng(0)) == documents


def test_answers_right_needs_every_token_of_an_answer():
    kept = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 0, 1, 1, 0, 0]]).bool()
    token_right = torch.tensor([1, 1, 0, 1, 1, 0]).bool()
    assert answers_right(kept, token_right).tolist() == [True, False, True, False]


def test_held_out_loss_counts_each_token_once(tokenizer, model):
    documents = tokenise(tokenizer, [f"USER: a ASSISTANT: red{END}", "a blue picture"], 64)
    scores = held_out_lm(model, documents, 16, 1)
    assert scores["answer_accuracy"] in (0.0, 1.0)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.tensor(scores["loss"]), packed_loss(model, documents, [[0, 1]], 1.0, "fp32"), atol=1e-5, rtol=1e-5
        )


def test_a_line_of_another_form_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "a"}) + '\n{"txt": "b"}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl:2"):
        read_text(tmp_path / "x.jsonl")
