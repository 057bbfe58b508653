"""Greedy decoding in batches gives, token for token, what one prompt at a time gives."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_vlm.assembly import assemble, save_vlm
from kd_vlm.encoder import load_encoder
from kd_vlm.generation import Gallery, Prompt, ask, generate, prompt_ids, stream, user_message
from kd_vlm.loading import load_vlm
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.recipe

REAL = Path(os.environ.get("KD_REAL_DATA", Path(__file__).parents[4].parent / "shared" / "data"))


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40 + seed, 50, 3), dtype=np.uint8))


PICTURES = {f"p{i}": picture(i) for i in range(3)}
TURN = {"role": "assistant", "content": "red"}
PROMPTS = [
    ask("What color is it?", ["p0"]),
    ask("Say green."),
    ask("Which of the two is the larger one, and what color has it?", ["p1", "p0"]),
    Prompt([user_message("What color is it?", 1), TURN, user_message("And the other one?", 1)], ("p2", "p1")),
    ask("Is it?", ["p0"]),
]


@pytest.fixture(scope="module", params=["vit", "resnet", "stories"])
def vlm(request, vit_folder, resnet_folder, lm_folder):
    lm = request.getfixturevalue("story_folder") if request.param == "stories" else lm_folder
    encoder = load_encoder(resnet_folder if request.param == "resnet" else vit_folder)
    built = assemble(encoder, lm, torch.Generator().manual_seed(0))
    with torch.no_grad():  # an untrained model repeats one token; a livelier one says more
        if request.param != "stories":
            for p in built.model.model.language_model.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return built


def test_a_batch_gives_what_each_prompt_gives_alone(vlm):
    gallery = Gallery(vlm)
    gallery.add(PICTURES)
    together = generate(vlm, PROMPTS, gallery, max_new_tokens=24, batch_size=5)
    alone = [generate(vlm, [prompt], gallery, max_new_tokens=24)[0] for prompt in PROMPTS]
    assert together == alone
    assert len({answer for answer in together}) > 1, "answers that are all the same would prove little"
    assert any(len(set(answer)) > 3 for answer in together)


def test_a_batch_gives_what_the_stock_processor_and_model_give(vlm):
    """Pixels through the stock forward instead of tokens computed before."""
    gallery = Gallery(vlm)
    gallery.add(PICTURES)
    for prompt, ours in zip(PROMPTS, generate(vlm, PROMPTS, gallery, max_new_tokens=12), strict=True):
        text = vlm.processor.apply_chat_template(list(prompt.messages), add_generation_prompt=True)
        pictures = [PICTURES[name] for name in prompt.images] or None
        inputs = vlm.processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False)
        assert inputs["input_ids"][0].tolist() == prompt_ids(vlm, prompt)
        inputs.pop("token_type_ids", None)
        reply = vlm.model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :].tolist()
        end = vlm.model.generation_config.eos_token_id
        assert tuple(reply[: reply.index(end)] if end in reply else reply) == ours


def test_each_picture_goes_through_the_tower_once(vlm):
    gallery = Gallery(vlm, batch_size=2)
    seen = []
    handle = vlm.tower.register_forward_hook(lambda _, args, kwargs, out: seen.append(len(args[0])), with_kwargs=True)
    try:
        gallery.add(PICTURES)
        gallery.add(PICTURES)
        generate(vlm, PROMPTS, gallery, max_new_tokens=4, batch_size=2)
    finally:
        handle.remove()
    assert seen == [2, 1]
    assert gallery.n_encoded == 3


def test_a_stream_is_the_answer_in_pieces(vlm):
    gallery = Gallery(vlm)
    gallery.add(PICTURES)
    whole = vlm.processor.tokenizer.decode(
        generate(vlm, PROMPTS[:1], gallery, max_new_tokens=20)[0], skip_special_tokens=True
    )
    assert "".join(stream(vlm, PROMPTS[0], gallery, max_new_tokens=20)) == whole


def test_more_pictures_than_places_are_refused(vlm):
    with pytest.raises(ValueError, match="2 pictures, but 1 places"):
        prompt_ids(vlm, Prompt([user_message("What?", 1)], ("p0", "p1")))


def test_a_folder_loads_as_what_was_saved(vlm, tmp_path):
    save_vlm(vlm, tmp_path / "vlm")
    loaded = load_vlm(tmp_path / "vlm")
    assert (loaded.image_id, loaded.tokens_per_image, loaded.connector) == (
        vlm.image_id,
        vlm.tokens_per_image,
        "mlp2x_gelu",
    )
    answers = []
    for one in (vlm, loaded):
        gallery = Gallery(one)
        gallery.add(PICTURES)
        answers.append(generate(one, PROMPTS, gallery, max_new_tokens=8))
    assert answers[0] == answers[1]


def test_a_real_language_model_tells_its_story_inside_the_vlm(story_folder, vit_folder):
    """Text alone: the assembled VLM continues as the published model does, token for token."""
    vlm = assemble(load_encoder(vit_folder), story_folder, torch.Generator().manual_seed(0))
    tokenizer = AutoTokenizer.from_pretrained(story_folder)
    lm = AutoModelForCausalLM.from_pretrained(story_folder, dtype=torch.float32).eval()
    ids = torch.tensor([[1, *tokenizer(" Once upon a time", add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        expected = lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False)
        got = vlm.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False)
    assert torch.equal(expected, got)
    published = (REAL / "stories260K" / "expected_greedy.txt").read_text()
    assert tokenizer.decode(expected[0], skip_special_tokens=True).strip() in published
