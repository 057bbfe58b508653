"""Models from an untrusted place, read by every package that reads models: refused, no code run, nothing fetched.

Each mischief is put into a folder that all readers accept without it.
"""

import json
import pickle
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kd_analysis import towers as analysis_encoders
from kd_analysis import vlms as analysis_vlms
from kd_distill import models as distill
from kd_evalsuite.models.vlm import TransformersVlm
from kd_evalsuite.zeroshot.classify import Encoder
from kd_vlm.encoder import load_encoder
from kd_vlm.language_model import load_language_model
from kd_vlm.loading import load_vlm
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from packages.evalsuite.tests.helpers.models import END, language, llava, tokenizer

REFUSALS = (ValueError, OSError, RuntimeError, SafetensorError, TypeError, KeyError)
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
ENCODERS: dict[str, Callable[[Path], object]] = {
    "distill": distill.load,
    "vlm": load_encoder,
    "evalsuite": Encoder,
    "analysis": analysis_encoders.load,
}
VLMS: dict[str, Callable[[Path], object]] = {
    "vlm": load_vlm,
    "evalsuite": TransformersVlm,
    "analysis": analysis_vlms.load,
}


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A file that stays away unless code of the artefact runs; connections are errors of another kind."""

    def refuse(*arguments, **named):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("builtins.input", lambda *words: "y")  # whoever asks whether to run code is told to
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists(), "code of the artefact ran"


def changed(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def pickled_weights(folder: Path, mark: Path) -> None:
    """Pickles in the place of safetensors, and under the names that older libraries look for."""
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    torch.save(Payload(mark), folder / "pytorch_model.bin")
    torch.save(Payload(mark), folder / "open_clip_pytorch_model.bin")


def pickle_named_safetensors(folder: Path, mark: Path) -> None:
    for weights in folder.glob("*.safetensors"):
        weights.write_bytes(pickle.dumps(Payload(mark)))


def wrong_shapes(folder: Path, mark: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    tensors = load_file(weights)
    towers = [n for n in tensors if n.startswith("visual.")] or list(tensors)
    name = max(towers, key=lambda n: tensors[n].numel() * (tensors[n].ndim > 1))
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    save_file(tensors, weights, metadata={"format": "pt"})


def missing_weights(folder: Path, mark: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    tensors = load_file(weights)
    for name in [n for n in tensors if "layers.0" in n or "resblocks.0" in n]:
        del tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})


def hub_tower(folder: Path, mark: Path) -> None:
    changed(
        folder / CONFIG,
        lambda c: c["model_cfg"]["vision_cfg"].update(
            timm_model_name="hf-hub:somebody/a-model", timm_model_pretrained=True
        ),
    )


def pretrained_tower(folder: Path, mark: Path) -> None:
    changed(
        folder / CONFIG,
        lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="resnet18", timm_model_pretrained=True),
    )


def hub_text_model(folder: Path, mark: Path) -> None:
    changed(
        folder / CONFIG,
        lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="somebody/a-model", hf_model_pretrained=True),
    )


ENCODER_MISCHIEF = (
    *(pickled_weights, pickle_named_safetensors, wrong_shapes, missing_weights),
    *(hub_tower, pretrained_tower, hub_text_model),
)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """An open_clip folder that all four packages read."""
    config = distill.read_architecture("demo-vit")
    folder = tmp_path_factory.mktemp("encoder") / "student"
    folder.mkdir()
    distill.save(folder, distill.build(config, 0), config)
    return folder


@pytest.fixture(scope="session")
def vlm(tmp_path_factory) -> Path:
    return llava(tmp_path_factory.mktemp("vlm") / "vlm")


@pytest.fixture(scope="session")
def language_model(tmp_path_factory) -> Path:
    from transformers import Qwen2ForCausalLM

    folder, tok = tmp_path_factory.mktemp("lm") / "lm", tokenizer()
    tok.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    Qwen2ForCausalLM(language(len(tok) + 8)).save_pretrained(folder)
    tok.save_pretrained(folder)
    assert END in tok.get_vocab()
    return folder


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("package", ENCODERS)
def test_control_an_encoder_without_mischief_is_read(package, encoder, mark):
    ENCODERS[package](encoder)


@pytest.mark.parametrize(
    ("package", "mischief"),
    # vlm does not read the text tower
    [(p, m) for p in ENCODERS for m in ENCODER_MISCHIEF if (p, m) != ("vlm", hub_text_model)],
)
def test_a_mischievous_encoder_is_refused(package, mischief, encoder, mark, tmp_path):
    folder = copied(encoder, tmp_path / "model")
    mischief(folder, mark)
    with pytest.raises(REFUSALS):
        ENCODERS[package](folder)


CODE = "from pathlib import Path\nPath({mark!r}).touch()\nclass Anything: ...\n"


def own_code(file: str, classes: dict[str, str]) -> Callable[[Path, Path], None]:
    """A configuration that names classes in a file of the folder, for an architecture that nobody else has."""

    def mischief(folder: Path, mark: Path) -> None:
        (folder / "theirs.py").write_text(CODE.format(mark=str(mark)))
        named = {name: f"theirs.{value}" for name, value in classes.items()}
        changed(folder / file, lambda c: c.update(auto_map=named, model_type="theirs"))

    mischief.__name__ = f"own_code_in_{file.partition('.')[0]}"
    return mischief


MODEL_CODE = own_code(
    "config.json",
    {"AutoConfig": "Anything", "AutoModelForImageTextToText": "Anything", "AutoModelForCausalLM": "Anything"},
)
VLM_MISCHIEF = (pickled_weights, pickle_named_safetensors, wrong_shapes, missing_weights, MODEL_CODE)


@pytest.mark.parametrize("package", VLMS)
def test_control_a_vlm_without_mischief_is_read(package, vlm, mark):
    VLMS[package](vlm)


@pytest.mark.parametrize("package", VLMS)
@pytest.mark.parametrize("mischief", VLM_MISCHIEF)
def test_a_mischievous_vlm_is_refused(package, mischief, vlm, mark, tmp_path):
    folder = copied(vlm, tmp_path / "model")
    mischief(folder, mark)
    with pytest.raises(REFUSALS):
        VLMS[package](folder)


@pytest.mark.parametrize("package", VLMS)
def test_code_beside_a_known_processor_does_not_run(package, vlm, mark, tmp_path):
    folder = copied(vlm, tmp_path / "model")
    (folder / "theirs.py").write_text(CODE.format(mark=str(mark)))
    for file in ("processor_config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (folder / file).is_file():
            changed(folder / file, lambda c: c.update(auto_map={"AutoProcessor": "theirs.Anything"}))
    VLMS[package](folder)


def test_control_a_language_model_without_mischief_is_read(language_model, mark):
    load_language_model(language_model)


@pytest.mark.parametrize("mischief", VLM_MISCHIEF)
def test_a_mischievous_language_model_is_refused(mischief, language_model, mark, tmp_path):
    folder = copied(language_model, tmp_path / "model")
    mischief(folder, mark)
    with pytest.raises(REFUSALS):
        load_language_model(folder)


def test_control_the_payload_runs_where_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))  # noqa: S301
    assert (tmp_path / "mark").exists()
