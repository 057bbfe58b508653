"""Recipes as files: each complete, each what it says it is, the paper's numbers among them."""

import os
from pathlib import Path

import pytest
from kd_vlm.cli import app
from kd_vlm.config import Recipe, Stage, packaged_recipe
from kd_vlm.recipes import differences, recipe_names, recipe_values
from ruamel.yaml import YAML
from typer.testing import CliRunner

SHARED = Path(os.environ.get("KD_REAL_DATA", Path(__file__).parents[4].parent / "shared" / "data")).parent
PAPER = SHARED / "paper" / "hyperparameters.yaml"
GPUS = 4
TEMPLATES = {"Pretrain": "plain", "Plain": "plain", "Qwen": "qwen2_base"}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_leaves_nothing_to_a_default(name):
    values = recipe_values(name)
    assert packaged_recipe(name).summary
    assert set(values) == set(Recipe.model_fields)
    for stage in ("pretrain", "finetune"):
        assert set(values[stage]) == set(Stage.model_fields), stage


@pytest.mark.parametrize("framework", ["tinyllava", "bunny"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_paper_recipes_have_the_papers_numbers(framework, stage):
    if not PAPER.is_file():
        pytest.skip("the paper's hyperparameters are not beside this checkout")
    printed = YAML(typ="safe").load(PAPER.read_text())["vlm"][framework][stage]
    ours = getattr(packaged_recipe(f"{framework}-paper"), stage)
    lr = ours.projector_lr if stage == "pretrain" else ours.language_model_lr
    assert lr == printed["learning_rate"]
    assert ours.projector_lr == printed.get("projector_learning_rate", printed["learning_rate"])
    assert ours.epochs == printed["epochs"]
    assert ours.micro_batch_size == printed["batch_size"]
    assert ours.batch_size == printed["batch_size"] * printed["gradient_accumulation"] * GPUS
    assert ours.weight_decay == printed["weight_decay"]
    assert ours.warmup_share == printed["warmup_ratio"]
    assert ours.precision == printed["precision"]
    assert ours.attention == printed["attention"]
    assert f"deepspeed_zero_{ours.zero_stage}" == printed["distributed"]
    assert ours.vision_tower == printed["vision_encoder"] == "frozen"
    assert {"frozen": "frozen", "trained": "trained", "lora": "trained (LoRA)"}[ours.language_model] == printed["llm"]
    if "lora_rank" in printed:
        assert (ours.lora.rank, ours.lora.alpha) == (printed["lora_rank"], printed["lora_alpha"])
    if (framework, stage) == ("bunny", "finetune"):  # "Plain" takes one turn; the recipe's notes say so
        assert (printed["conversation_template"], ours.template) == ("Plain", "bunny")
        assert any("Table 10" in note for note in packaged_recipe("bunny-paper").notes)
    else:
        assert ours.template == TEMPLATES[printed["conversation_template"]]


def test_what_paper_and_repository_disagree_about_is_what_differs():
    found = {
        name: differences(*({k: v for k, v in recipe_values(f"{name}-{kind}").items() if k not in ("summary", "notes")}
                            for kind in ("paper", "repo")))
        for name in ("tinyllava", "bunny")
    }  # fmt: skip
    assert found["tinyllava"] == {
        "pretrain.precision": ("fp16", "bf16"),
        "pretrain.zero_stage": (2, 3),
        "finetune.micro_batch_size": (8, 4),
    }
    assert found["bunny"] == {
        "pretrain.batch_size": (128, 256),
        "pretrain.attention": ("flash_attention_2", "sdpa"),
        "finetune.attention": ("flash_attention_2", "sdpa"),
    }


def test_a_recipe_may_begin_as_a_packaged_one():
    recipe = Recipe.model_validate({"base": "bunny-paper", "held_out": 5, "finetune": {"lora": {"rank": 8}}})
    assert recipe.finetune.lora.model_dump() == {"rank": 8, "alpha": 256, "dropout": 0.05}
    assert recipe.held_out == 5
    assert recipe.pretrain == packaged_recipe("bunny-paper").pretrain
    with pytest.raises(ValueError, match="Unknown recipe 'bunni'"):
        Recipe.model_validate({"base": "bunni"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"language_model": "trained", "language_model_lr": None}, "need one"),
        ({"language_model": "frozen"}, "a frozen one takes no learning rate"),
        ({"lora": None}, "'lora' needs"),
        ({"language_model": "trained"}, "others take none"),
        ({"micro_batch_size": 7}, "does not divide batch_size 128"),
        ({"projector_lr": float("nan")}, "finite"),
        ({"projector_lr": float("inf")}, "finite"),
        ({"language_model_lr": -1e-4}, "greater than 0"),
        ({"epochs": float("nan")}, "finite"),
        ({"batch_size": 0}, "greater than 0"),
        ({"precision": "fp8"}, "fp16"),
        ({"zero_stage": 1}, "0, 2 or 3"),
        ({"vision_tower": "trained"}, "frozen"),
        ({"warmup_share": 1.0}, "less than 1"),
        ({"clip": 0}, "greater than 0"),
        ({"sampler": "length"}, "buckets"),
        ({"loss": "tokens"}, "micro_batch_mean"),
        ({"template": "Plain"}, "plain"),
        ({"lora": {"rank": 0, "alpha": 1}}, "greater than 0"),
        ({"lora": {"rank": 8, "alpha": 1, "dropout": 1.0}}, "less than 1"),
        ({"compile": True}, "sampler random gives batches of many shapes; set sampler: packing"),
        ({"compile": True}, "zero_stage 3 moves weights"),
        ({"compile": True}, "gradient_checkpointing runs a layer twice"),
        ({"compile": True}, "flash_attention_2 takes the longest sample"),
    ],
)
def test_nonsense_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Recipe.model_validate({"base": "bunny-paper", "finetune": changes})


def test_the_command_lists_shows_and_compares():
    def call(*arguments):
        return CliRunner().invoke(app, ["recipes", *arguments])

    assert call().output.split()[::1][0] == "bunny-paper"
    assert "Table 10" in call("show", "bunny-paper").output
    (line,) = [x for x in call("diff", "tinyllava-paper", "tinyllava-repo").output.splitlines() if "precision" in x]
    assert line.split() == ["pretrain.precision", "fp16", "bf16"]
    unknown = call("diff", "a", "fast")
    assert (unknown.exit_code, "Known: bunny-paper" in unknown.output) == (2, True)
