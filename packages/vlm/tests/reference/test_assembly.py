"""The assembled VLM is a stock checkpoint: equal outputs on every path, in a process without this package."""

import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from kd_vlm.assembly import assemble, save_vlm, standardise_input
from kd_vlm.encoder import load_encoder
from kd_vlm.loading import load_vlm
from kd_vlm.preprocess import padding
from kd_vlm.templates import END, IMAGE, Turn, encode, qwen2_base
from PIL import Image
from safetensors.torch import load_file

QUESTION = "What color is it?"


@pytest.fixture(scope="module", params=["vit", "resnet"])
def built(request, vit_folder, resnet_folder, lm_folder):
    encoder = load_encoder({"vit": vit_folder, "resnet": resnet_folder}[request.param])
    return encoder, assemble(encoder, lm_folder, torch.Generator().manual_seed(0))


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 60, 3), dtype=np.uint8))


def sample(vlm, turns):
    return encode(
        [qwen2_base(turns)], vlm.processor.tokenizer, image_id=vlm.image_id, tokens_per_image=vlm.tokens_per_image
    )[0]


def test_the_tower_and_the_language_model_are_taken_over_unchanged(built, lm_folder):
    encoder, vlm = built
    for name, value in encoder.tower.state_dict().items():
        assert torch.equal(vlm.tower.state_dict()[name], value)
    saved = load_file(lm_folder / "model.safetensors")
    ours = {k.removeprefix("model.language_model."): v for k, v in vlm.model.state_dict().items()}
    for name, value in saved.items():
        n_rows = len(value)
        assert torch.equal(ours[name.removeprefix("model.")][:n_rows], value), name


def test_the_projector_depends_on_the_generator_alone(built, lm_folder):
    encoder, vlm = built
    again = assemble(encoder, lm_folder, torch.Generator().manual_seed(0))
    other = assemble(encoder, lm_folder, torch.Generator().manual_seed(1))
    assert torch.equal(again.projector.linear_1.weight, vlm.projector.linear_1.weight)
    assert not torch.equal(other.projector.linear_1.weight, vlm.projector.linear_1.weight)


def test_standardising_equals_standardised_features(built, lm_folder):
    """The folded layer on raw features = the fresh layer on standardised ones, where no channel is nearly constant."""
    encoder, _ = built
    plain = assemble(encoder, lm_folder, torch.Generator().manual_seed(0))
    folded = assemble(encoder, lm_folder, torch.Generator().manual_seed(0))
    rows = np.random.default_rng(0).normal(3, 2, (40, 4, encoder.width)).astype(np.float32)
    standardise_input(folded, rows)
    deviation = rows.std(axis=(0, 1))
    scale = np.sqrt(deviation**2 + 0.01 * (deviation**2).mean())
    with torch.no_grad():
        expected = plain.projector(torch.from_numpy((rows - rows.mean(axis=(0, 1))) / scale))
        torch.testing.assert_close(folded.projector(torch.from_numpy(rows)), expected, atol=1e-4, rtol=1e-4)


def test_the_chat_template_writes_what_training_saw(built):
    _, vlm = built
    turns = [Turn(f"{IMAGE}\n{IMAGE}\n{QUESTION}", "red"), Turn("And now?", "2")]
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "2"},
    ]
    text = vlm.processor.apply_chat_template(messages)
    ids = vlm.processor(text=text, images=[picture(0), picture(1)], return_tensors="pt")["input_ids"][0]
    assert tuple(ids.tolist()) == sample(vlm, turns).ids
    prompt = vlm.processor.apply_chat_template(messages[:3], add_generation_prompt=True)
    assert text.startswith(prompt)
    assert prompt.endswith(f"red{END}USER: And now? ASSISTANT:")


STRANGER = textwrap.dedent("""
    import json, sys
    import numpy as np, torch
    from PIL import Image

    class NoKd:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0].startswith("kd_"):
                raise ImportError(name)

    sys.meta_path.insert(0, NoKd())
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder, picture, out = sys.argv[1:]
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color is it?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=prompt, images=Image.open(picture), return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
        reply = model.generate(**inputs, max_new_tokens=5)
    np.savez(out, logits=logits.numpy(), pixels=inputs['pixel_values'].numpy())
    assert not [name for name in sys.modules if name.startswith("kd_")]
    config = model.generation_config
    print(json.dumps({
        "class": type(model).__name__, "ids": inputs["input_ids"][0].tolist(), "reply": reply.shape[1],
        "sample": config.do_sample, "eos": config.eos_token_id,
    }))
""")


def test_the_checkpoint_loads_in_plain_transformers_with_equal_logits(built, tmp_path):
    encoder, vlm = built
    save_vlm(vlm, tmp_path / "vlm")
    picture().save(tmp_path / "picture.png")
    command = [
        sys.executable,
        "-I",
        "-c",
        STRANGER,
        tmp_path / "vlm",
        tmp_path / "picture.png",
        tmp_path / "out.npz",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["class"] == type(vlm.model).__name__
    assert said["sample"] is False
    assert said["eos"] == vlm.processor.tokenizer.get_vocab()[END]
    theirs = np.load(tmp_path / "out.npz")
    ours = encoder.processor([picture()], return_tensors="pt")["pixel_values"].numpy()
    grey_level = 1 / 255 / min(encoder.processor.image_std)
    assert np.abs(theirs["pixels"] - ours).max() < 1.01 * grey_level, "AutoProcessor resizes with torchvision, not PIL"
    with torch.no_grad():
        logits = vlm.model(
            input_ids=torch.tensor([said["ids"]]), pixel_values=torch.from_numpy(theirs["pixels"])
        ).logits
    np.testing.assert_allclose(theirs["logits"], logits.numpy(), atol=1e-6)
    suffixes = {p.suffix for p in (tmp_path / "vlm").iterdir()}
    assert suffixes <= {".json", ".safetensors", ".jinja"}


def test_the_image_token_is_never_the_tokenizers_idea_of_a_word(built):
    _, vlm = built
    tokenizer = vlm.processor.tokenizer
    assert tokenizer(IMAGE, add_special_tokens=False)["input_ids"] == [vlm.image_id]
    assert vlm.image_id not in tokenizer(IMAGE, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert vlm.model.get_input_embeddings().num_embeddings > vlm.image_id


def test_a_checkpoint_does_not_depend_on_where_its_parts_lay(vit_folder, lm_folder, tmp_path):
    shutil.copytree(lm_folder, tmp_path / "elsewhere")
    for name, lm in (("here", lm_folder), ("there", tmp_path / "elsewhere")):
        save_vlm(assemble(load_encoder(vit_folder), lm, torch.Generator().manual_seed(0)), tmp_path / name)
    here, there = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("here", "there"))
    assert here == there


@pytest.mark.parametrize("ratio", ["square", "pad"])
def test_a_model_that_is_loaded_sees_pictures_to_the_bit_as_it_was_trained(vit_folder, lm_folder, tmp_path, ratio):
    encoder = load_encoder(vit_folder)
    if ratio == "pad":
        encoder = replace(encoder, processor=padding(encoder.processor))
    vlm = assemble(encoder, lm_folder, torch.Generator().manual_seed(0))
    save_vlm(vlm, tmp_path / "vlm")
    again = load_vlm(tmp_path / "vlm")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8))
    expected, found = (v.processor.image_processor([noise], return_tensors="pt")["pixel_values"] for v in (vlm, again))
    assert torch.equal(found, expected)
