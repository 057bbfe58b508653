"""Small models made on the spot: two encoders in open_clip's form, a language model, conversations with pictures."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import open_clip
import pytest
import torch
from kd_vlm.lm import build_model, train_tokenizer
from kd_vlm.templates import END, SYSTEM
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)

REAL = Path(os.environ.get("KD_REAL_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
STORIES = REAL / "stories260K"
TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 1, "layers": 1}
VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {
    "timm_model_name": "test_resnet",
    "timm_model_pretrained": False,
    "timm_pool": "",
    "timm_proj": "linear",
    "image_size": 40,
}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}


def write_encoder(folder: Path, vision: dict, **model_cfg) -> Path:
    """An open_clip folder with random but lively weights (norms and biases too)."""
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, **model_cfg}
    model = open_clip.CLIP(**config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.randn(buffer.shape, generator=generator) * 0.1)
            if name.endswith("running_var"):
                buffer.mul_(1 + torch.rand(buffer.shape, generator=generator))
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def encoders():
    """How to write an encoder's folder, and the configurations of two."""
    return SimpleNamespace(write=write_encoder, vit=VIT, resnet=RESNET, preprocess=PREPROCESS)


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoders") / "student-vit--none--alone", VIT)


@pytest.fixture(scope="session")
def resnet_folder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoders") / "teacher-small", RESNET)


@pytest.fixture(scope="session", params=["vit", "resnet"])
def encoder_folder(request, vit_folder, resnet_folder):
    """Each of the two kinds of encoder."""
    return {"vit": vit_folder, "resnet": resnet_folder}[request.param]


def texts() -> list[str]:
    answers = [f"USER: What color is it? ASSISTANT: {colour}{END}" for colour in COLOURS]
    return [f"{SYSTEM} {a}" for a in answers] * 3 + [f"a {c} picture, one of {n}" for c in COLOURS for n in range(10)]


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(texts(), vocab_size=400)


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("lms") / "lm-tiny"
    generator = torch.Generator().manual_seed(0)
    shape = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "mlp_width": 64, "max_positions": 512}
    build_model(tokenizer, **shape, generator=generator).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """LLaVA files about pictures of one colour: 8 captions and 12 conversations of every form."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    (folder / "images" / "a").mkdir(parents=True)
    names = []
    for i in range(12):
        colour = list(COLOURS)[i % 4]
        pixels = np.clip(np.array(COLOURS[colour]) + rng.integers(-20, 20, (48, 56, 3)), 0, 255).astype(np.uint8)
        names.append((f"a/{i}.png", colour))
        Image.fromarray(pixels).save(folder / "images" / names[-1][0])
    captions = [
        {"id": f"c{i}", "image": n, "conversations": _turns([("Describe it.\n<image>", f"a {c} picture")])}
        for i, (n, c) in enumerate(names[:8])
    ]
    dialogues = [_dialogue(i, names) for i in range(12)]
    (folder / "captions.json").write_text(json.dumps(captions))
    (folder / "mix.json").write_text(json.dumps(dialogues))
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts()))
    return folder


def _dialogue(i: int, names: list[tuple[str, str]]) -> dict:
    (name, colour), (other, other_colour) = names[i], names[(i + 1) % 12]
    if i == 3:
        return {"id": "text", "model": "", "conversations": _turns([("Say green.", "green"), ("Say red.", "red")])}
    if i == 5:
        turns = [("<image>\n<image>\nWhich colors?", f"{colour} {other_colour}")]
        return {"id": "two", "image": [name, other], "conversations": _turns(turns)}
    turns = [("<image>\nWhat color is it?", colour), ("Is it a picture?", "yes")][: 1 + i % 2]
    return {"id": f"d{i}", "image": name, "conversations": _turns(turns)}


def _turns(pairs: list[tuple[str, str]]) -> list[dict]:
    return [{"from": who, "value": text} for pair in pairs for who, text in zip(("human", "gpt"), pair, strict=True)]


def merges(vocab: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """SentencePiece's scores as BPE merges: a better score is merged earlier, each piece in its best split."""
    score = dict(zip(vocab, scores, strict=True))
    pieces = sorted((p for p in vocab[259:] if len(p) > 1), key=lambda p: -score[p])
    out = []
    for piece in pieces:
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in score and piece[i:] in score]
        out += sorted(splits, key=lambda s: (-min(score[s[0]], score[s[1]]), len(s[0])))[:1]
    return out


@pytest.fixture(scope="session")
def story_folder(tmp_path_factory):
    """stories260K, a real language model of a quarter of a million parameters, with its tokenizer."""
    if not STORIES.is_dir():
        pytest.skip(f"stories260K is not at {STORIES}")
    folder = tmp_path_factory.mktemp("lms") / "stories260K"
    shutil.copytree(STORIES / "hf", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    table = json.loads((STORIES / "tok512.json").read_text())
    vocab = [{"\n<s>\n": "<s>", "\n</s>\n": "</s>"}.get(piece, piece) for piece in table["vocab"]]
    unknown = {"unk_token": "<unk>"}
    vocabulary = {piece: i for i, piece in enumerate(vocab)}
    model = models.BPE(vocabulary, merges(vocab, table["scores"]), byte_fallback=True, **unknown)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **unknown, **ends).save_pretrained(folder)
    return folder
