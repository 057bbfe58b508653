import pytest
from kd_vlm.cli import app
from kd_vlm.config import Section
from kd_vlm.names import lm_name, vlm_name
from kd_vlm.params import ParamsError, load_section
from typer.testing import CliRunner

PARAMS = """
vlm:
  data:
    pretrain: {file: captions.json, images: images}
    finetune: {file: mix.json, images: images}
    text: text.jsonl
  lms:
    lm-tiny: {vocab_size: 400, width: 32, layers: 2, heads: 2, kv_heads: 1, mlp_width: 48, context: 64, batch_size: 4,
              epochs: 1, lr: 1.0e-3, held_out: 4}
  recipes:
    tinyllava:
      pretrain: {template: plain, batch_size: 4, epochs: 1, projector_lr: 1.0e-3}
      finetune: {template: qwen2_base, batch_size: 4, epochs: 1, projector_lr: 1.0e-3, language_model: trained,
                 language_model_lr: 1.0e-3}
      held_out: 3
  cells:
    one: {encoder: refs/a.json, lm: refs/b.json, recipe: tinyllava}
other: {}
"""


@pytest.fixture
def params(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path / "params.yaml"


def test_the_section_is_read_and_overridden(params):
    section = load_section(params, "vlm", Section, ["recipes.tinyllava.finetune.epochs=2.5"])
    assert section.recipes["tinyllava"].finetune.epochs == 2.5
    assert section.recipes["tinyllava"].pretrain.language_model_lr is None
    assert section.seed(section.cell("one")) == 0


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("recipes.tinyllava.finetune.epoch=2", "did you mean 'epochs'"),
        ("recipes.tinyllava.finetune.epochs=-1", "greater than 0"),
        ("recipes.tinyllava.finetune.template=qwen", "qwen2_base"),
        ("cells.one.recipe=bunny", "no recipe 'bunny'"),
        ("lms.lm-tiny.width=31", "multiple of 2"),
    ],
)
def test_a_wrong_key_type_or_range_is_refused(params, override, says):
    with pytest.raises(ParamsError, match=says):
        load_section(params, "vlm", Section, [override])
    result = CliRunner().invoke(app, ["run", "--params", str(params), "--dry-run", "--set", override])
    assert result.exit_code == 2


def test_an_unknown_cell_is_named_with_the_known_ones(params):
    result = CliRunner().invoke(app, ["run", "--params", str(params), "--cell", "two"])
    assert result.exit_code == 2
    assert "known: one" in result.output


def test_a_dry_run_says_what_would_be_done(params):
    result = CliRunner().invoke(app, ["run", "--params", str(params), "--dry-run"])
    assert result.exit_code == 0
    assert "refs/a.json + refs/b.json, recipe tinyllava, seed 0" in result.output
    data = load_section(params, "vlm", Section).data
    missing = [f"not there yet: {path}" for path in ("refs/a.json", "refs/b.json", *dict.fromkeys(data.places))]
    assert result.stderr.splitlines() == missing
    params.parent.joinpath("there.json").touch()
    there = f"data.pretrain={{file: {params.parent / 'there.json'}, images: {params.parent}}}"
    result = CliRunner().invoke(app, ["run", "--params", str(params), "--dry-run", "--set", there])
    assert len(data.places) == 4
    assert not any(str(params.parent) in line for line in result.stderr.splitlines())
    result = CliRunner().invoke(app, ["lm", "--params", str(params), "--dry-run"])
    assert result.exit_code == 0
    assert "lm-tiny: 2 layers of width 32" in result.output


def test_names_follow_the_contract():
    assert lm_name("small") == lm_name("lm-small") == "lm-small"
    assert (
        vlm_name("student-vit--small--clip-kd", "lm-small", "tinyllava")
        == "vlm-student-vit-small-clip-kd--small--tinyllava"
    )
    with pytest.raises(ValueError, match="letters"):
        vlm_name("a/b", "lm-small", "tinyllava")
