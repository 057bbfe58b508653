"""An exported folder is the trained model: for a stranger, in the older form, with an adapter merged, to the byte."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from kd_vlm import card
from kd_vlm.adapters import merge_adapter, save_adapter
from kd_vlm.assembly import assemble, save_vlm
from kd_vlm.cli import app
from kd_vlm.encoder import load_encoder
from kd_vlm.export import export
from kd_vlm.loading import load_vlm
from kd_vlm.lora import add_lora
from kd_vlm.tracking import digest
from kd_vlm.verify import _checks, example_conversations, verify_export
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe


def lively(vlm):
    """Weights of a size at which an untrained model says different things about different pictures."""
    with torch.no_grad():
        for part in (vlm.model.model.language_model, vlm.projector):
            for p in part.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    vlm.model.config.text_config.rope_parameters = {"rope_theta": 1e6, "rope_type": "default"}
    return vlm


@pytest.fixture(scope="module")
def trained(vit_folder, resnet_folder, lm_folder, tmp_path_factory):
    """Two trained models, with a journal beside one."""
    folder = tmp_path_factory.mktemp("trained")
    for name, encoder in (("clip", vit_folder), ("map", resnet_folder)):
        save_vlm(lively(assemble(load_encoder(encoder), lm_folder, torch.Generator().manual_seed(0))), folder / name)
    start = {
        "event": "start",
        "schema": "kd-journal/1",
        "key": "0123",
        "time": 1,
        "experiment": "vlm",
        "name": "vlm-one",
        "tags": {},
        "params": {"finetune.lr": "0.001", "note": "<script>alert(1)</script> | **x**\n# y"},
        "datasets": [{"name": "pretrain", "digest": "ab" * 32, "path": "/home/somebody/data.json"}],
        "models": [{"schema": "kd-ref/1", "kind": "student", "name": "student-vit", "sha256": "cd" * 32}],
    }
    metrics = {"event": "metrics", "step": 9, "time": 2, "values": {"val/loss": 0.123456789, "train/loss": 1.0}}
    lines = [json.dumps(event) + "\n" for event in (start, metrics)]
    (folder / "clip" / "journal.jsonl").write_text("".join(lines))
    return folder


def test_a_stranger_gets_the_model_that_was_trained(trained, tmp_path):
    """In the older form, which is the stock one under other names, so one process proves both."""
    export(trained / "clip", tmp_path / "out", name="x", form="legacy")
    checks = verify_export(trained / "clip", tmp_path / "out", example_conversations())
    assert all(check.ok for check in checks), checks
    assert len(checks) == 8


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["clip", "map"])
def test_a_stranger_gets_each_kind_in_the_stock_form(trained, tmp_path, kind):
    checks = verify_export(trained / kind, export(trained / kind, tmp_path / "out", name="x"), example_conversations())
    assert all(check.ok for check in checks), checks


@pytest.mark.faults
def test_a_weight_that_was_changed_is_found(trained, tmp_path):
    export(trained / "clip", tmp_path / "out", name="x")
    file = tmp_path / "out" / "model.safetensors"
    tensors = load_file(file)
    tensors["multi_modal_projector.linear_2.bias"] += 0.01
    save_file(tensors, file, metadata={"format": "pt"})
    result = CliRunner().invoke(app, ["verify-export", str(trained / "clip"), str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "DIFFER  logits" in result.output


def answers(**changed):
    """Both sides of a comparison of one conversation, equal but for what is given."""
    one = {"ids": np.arange(5), "generated": np.arange(3), "pixels": np.zeros((1, 3, 2, 2)), "logits": np.ones((2, 4))}
    return {**one, "loss": 1.0, **changed}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"ids": np.arange(1, 6)}, "token ids"),
        ({"generated": np.arange(1, 4)}, "greedy"),
        ({"pixels": np.full((1, 3, 2, 2), 2.0)}, "pixels"),
        ({"logits": np.full((2, 4), 1.001)}, "logits"),
        ({"logits": np.full((2, 4), np.nan)}, "logits"),
        ({"loss": 1.001}, "loss"),
    ],
)
def test_each_difference_is_found(changed, found):
    reply = {"missing": [], "unexpected": [], "class": "C", "transformers": "5", "pipeline": ["a"], "generated": ["a"]}
    assert all(check.ok for check in _checks([answers()], [answers()], reply, 1.0))
    assert found in next(c.name for c in _checks([answers()], [answers(**changed)], reply, 1.0) if not c.ok)
    for key, name in (("missing", "missing tensors"), ("unexpected", "unexpected tensors")):
        bad = _checks([answers()], [answers()], {**reply, key: ["x"]}, 1.0)
        assert [c.name for c in bad if not c.ok] == [name]
    bad = _checks([answers()], [answers()], {**reply, "pipeline": ["b"]}, 1.0)
    assert [c.name for c in bad if not c.ok] == ["pipeline answers that differ"]


def test_the_older_form_has_the_older_names_and_the_same_logits(trained, tmp_path):
    export(trained / "clip", tmp_path / "old", name="x", form="legacy")
    names = load_file(tmp_path / "old" / "model.safetensors").keys()
    tower = [name for name in names if name.startswith("vision_tower.")]
    assert tower
    assert all(name.startswith("vision_tower.vision_model.") for name in tower)
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    assert config["text_config"]["rope_theta"] == 1e6, "without it transformers 4.57 takes 10000 and says nothing"
    new, old = load_vlm(trained / "clip"), load_vlm(tmp_path / "old")
    for name, value in new.model.state_dict().items():
        assert torch.equal(old.model.state_dict()[name], value), name


def test_a_map_has_no_older_form_and_nothing_is_left_behind(trained, tmp_path):
    with pytest.raises(ValueError, match="does not know fast_vlm"):
        export(trained / "map", tmp_path / "out", name="x", form="legacy")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_written_over(trained, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        export(trained / "clip", tmp_path / "out", name="x")


@pytest.mark.parametrize("form", ["stock", "legacy"])
def test_the_same_model_gives_the_same_bytes(trained, tmp_path, form):
    (trained / "clip" / "modeling_evil.py").write_text("raise SystemExit")
    try:
        first = export(trained / "clip", tmp_path / "a", name="x", form=form)
        second = export(trained / "clip", tmp_path / "b", name="x", form=form)
    finally:
        (trained / "clip" / "modeling_evil.py").unlink()
    assert digest(first) == digest(second)
    suffixes = {file.suffix for file in first.iterdir()}
    assert suffixes == {".json", ".safetensors", ".jinja", ".md"}, "no code, no journal"


def test_the_card_says_what_went_in_and_escapes_it(trained, tmp_path):
    scores = {
        "benchmark": "gqa",
        "metric": "exact_match",
        "value": 0.61,
        "best": 1,
        "stderr": 0.004,
        "n": 12578,
        "chance": None,
    }
    content = {"schema": "kd-scores/1", "scores": [scores, {**scores, "benchmark": "<b>mme</b>"}]}
    (tmp_path / "scores.json").write_text(json.dumps(content))
    out = export(trained / "clip", tmp_path / "out", name="x", scores=tmp_path / "scores.json")
    text = (out / "README.md").read_text()
    for part in (
        "# vlm\\-one",
        "student\\-vit",
        "cd" * 32,
        "ab" * 32,
        "finetune.lr",
        "| 0.61 | 1 | 0.004 | 12578 |",
        "0.123457",
    ):
        assert part in text, part
    for part in ("<script", "<b>", "/home/somebody", "**x**", "\n# y"):
        assert part not in text, part
    assert text.startswith("---\nlibrary_name: transformers\n")


def test_the_card_of_a_registered_model_has_its_tags(tmp_path):
    (tmp_path / "MLmodel").write_text("flavors:\n  kd:\n    kd.recipe: tiny\n    sha256: ab\nrun_id: 123\n")
    assert card.read_facts(tmp_path, "vlm-x") == card.Facts("vlm-x", recipe=(("kd.recipe", "tiny"),))


def test_scores_of_another_form_are_refused(tmp_path):
    (tmp_path / "scores.json").write_text('{"schema": "other", "scores": []}')
    with pytest.raises(ValueError, match="kd-scores/1"):
        card.read_scores(tmp_path / "scores.json")


@pytest.fixture
def adapted(trained):
    """A model with adapters of a size that shows, and a connector that was trained beside them."""
    vlm = load_vlm(trained / "clip")
    peft_model = add_lora(vlm.model, rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        for name, p in peft_model.named_parameters():
            if "lora_B" in name or "multi_modal_projector" in name:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    return vlm, peft_model.eval()


def logits(model, image_id, n):
    ids = torch.tensor([[5, *[image_id] * n, 6, 7, 8]])
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits


def test_an_adapter_loads_by_peft_alone_and_brings_its_connector(trained, adapted, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    vlm, peft_model = adapted
    save_adapter(peft_model, tmp_path / "adapter", base="vlm-one")
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base = AutoModelForImageTextToText.from_pretrained(trained / "clip", local_files_only=True)
    before = logits(base, vlm.image_id, 16)
    stock = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    expected = logits(peft_model, vlm.image_id, 16)
    assert torch.equal(logits(stock, vlm.image_id, 16), expected)
    assert (before - expected).abs().max() > 0.01, "an adapter that changes nothing would prove nothing"


def test_a_merged_export_computes_what_the_adapters_did(trained, adapted, tmp_path):
    """To 1e-5 of the logits' size: a merged weight is rounded once, an adapter added each time."""
    vlm, peft_model = adapted
    save_adapter(peft_model, tmp_path / "adapter", base="vlm-one")
    export(trained / "clip", tmp_path / "out", name="x", adapter=tmp_path / "adapter")
    merged = load_vlm(tmp_path / "out")
    expected = logits(peft_model, vlm.image_id, 16)
    assert type(merged.model).__name__ == "LlavaForConditionalGeneration"
    bound = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(logits(merged.model, vlm.image_id, 16), expected, atol=bound, rtol=0)
    assert not [name for name in load_file(tmp_path / "out" / "model.safetensors") if "lora" in name]


def test_an_adapter_that_is_not_there_or_does_not_fit_is_refused(trained, adapted, tmp_path):
    with pytest.raises(FileNotFoundError, match="adapter_config"):
        merge_adapter(trained / "clip", tmp_path)
    save_adapter(adapted[1], tmp_path / "adapter", base="vlm-one")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name] = torch.zeros(4, 7)
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not fit"):
        merge_adapter(trained / "clip", tmp_path / "adapter")


def test_chat_answers_one_question_and_obeys_its_commands(trained, tmp_path):
    example_conversations()[0].images[0].save(tmp_path / "picture.png")
    common = ["chat", "--model", str(trained / "clip"), "--max-new-tokens", "6"]
    once = CliRunner().invoke(app, [*common, "--image", str(tmp_path / "picture.png"), "--prompt", "What is it?"])
    assert once.exit_code == 0, once.output
    assert once.stdout.strip()
    lines = (
        f"/image {tmp_path / 'picture.png'}\nWhat is it?\n/image {tmp_path / 'no.png'}\n/what\n/clear\nHello\n/exit\n"
    )
    talk = CliRunner().invoke(app, common, input=lines)
    assert talk.exit_code == 0, talk.output
    assert talk.stdout.splitlines()[0] == once.stdout.splitlines()[0], "the same question, the same answer"
    assert "found none" in talk.stderr
    assert "No command /what" in talk.stderr


def test_the_strangers_script_imports_nothing_of_this_project():
    from importlib.resources import files

    source = files("kd_vlm").joinpath("stock_process.py").read_text()
    assert "import kd_vlm" not in source
    assert "from kd_vlm" not in source
    code = "import sys; from kd_vlm.stock_process import NothingOfThisProject; "
    code += "sys.meta_path.insert(0, NothingOfThisProject()); import kd_distill"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "an exported folder must load without it" in done.stderr
