"""Exports served by vLLM, in an environment of its own: `make vllm` makes it and runs this file."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_vlm.lm import build_model, train_tokenizer
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from packages.vlm.tests.conftest import texts, write_encoder
from packages.vlm.tests.recipe.older import exported, trunk

PYTHON = os.environ.get("KD_VLLM")
pytestmark = [
    pytest.mark.recipe,
    pytest.mark.faults,
    pytest.mark.skipif(PYTHON is None, reason="KD_VLLM names no interpreter with vLLM: make vllm"),
]
WIDE = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8}  # its kernels want heads of 32


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Six questions, each about a picture."""
    folder, rng = tmp_path_factory.mktemp("asked"), np.random.default_rng(0)
    found = []
    for k in range(6):
        image = folder / f"{k}.png"
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((60, 48)).save(image)
        found.append({"text": f"USER: <image>\nWhat is in picture {k}? ASSISTANT:", "image": str(image)})
    (folder / "asked.json").write_text(json.dumps(found))
    return folder / "asked.json"


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("lm"), train_tokenizer(texts(), vocab_size=400)
    shape = {"width": 128, "layers": 2, "heads": 2, "kv_heads": 1, "mlp_width": 256, "max_positions": 512}
    build_model(tokenizer, **shape, generator=torch.Generator().manual_seed(0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def in_vllm(model, asked, out):
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    command = [PYTHON, Path(__file__).with_name("vllm_answers.py"), model, asked, out / "told.json"]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)


def in_transformers(model, asked):
    """Greedy answers of the stock class here."""
    vlm = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model)
    for one in json.loads(asked.read_text()):
        batch = processor(images=Image.open(one["image"]).convert("RGB"), text=one["text"], return_tensors="pt")
        how = {"max_new_tokens": 12, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
        given = vlm.generate(**batch, **how)
        n = batch["input_ids"].shape[1]
        likely = [float(score.log_softmax(-1).max()) for score in given.scores]
        yield {"prompt": given.sequences[0, :n].tolist(), "answer": given.sequences[0, n:].tolist(), "logprobs": likely}


@pytest.mark.parametrize(
    ("kind", "connector", "factor", "form"),
    [
        ("clip", "mlp2x_gelu", None, "legacy"),
        ("siglip", "mlp2x_gelu", None, "legacy"),
        ("clip", "pixel_shuffle", 2, "legacy"),
        ("clip", "pixel_shuffle", 2, "stock"),
    ],
)
def test_vllm_answers_as_transformers_does(kind, connector, factor, form, encoders, language_model, asked, tmp_path):
    folder = tmp_path / "encoder"
    if kind == "siglip":
        trunk(encoders, folder, "vit_siglip_wide", 48, embed_dim=64)
    else:
        write_encoder(folder, WIDE)
    model = exported(folder, language_model, tmp_path, connector=connector, factor=factor, form=form)
    done = in_vllm(model, asked, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for told, expected in zip(
        json.loads((tmp_path / "told.json").read_text()), in_transformers(model, asked), strict=True
    ):
        assert (told["prompt"], told["answer"]) == (expected["prompt"], expected["answer"])
        assert len(set(told["answer"])) > 3, "a model that repeats itself would prove little"
        # float32 in other kernels; both resample by torchvision
        assert told["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-4)


def test_control_the_newer_names_are_refused_by_vllm(language_model, asked, tmp_path):
    folder, how = write_encoder(tmp_path / "e", WIDE), {"connector": "mlp2x_gelu", "factor": None}
    model = exported(folder, language_model, tmp_path, **how, form="stock")
    done = in_vllm(model, asked, tmp_path)
    assert done.returncode != 0
    assert "There is no module or parameter named 'vision_tower.embeddings'" in done.stdout + done.stderr
