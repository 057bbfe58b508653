"""`vlm validate`: a manifest of what is in a conversation file, and of what is wrong with it."""

import hashlib
import json

import pytest
from kd_vlm import validate as module
from kd_vlm.cli import app
from kd_vlm.data import read_conversations
from kd_vlm.manifest import read_manifest
from kd_vlm.templates import encode, template_named
from kd_vlm.validate import Tokens, load_tokenizer, validate
from PIL import Image
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe


def talk(question, answer, **row):
    return row | {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


@pytest.fixture
def mixed(tmp_path, world):
    """The world's twelve good conversations and six bad ones between them."""
    images = tmp_path / "images"
    images.symlink_to(world / "images")
    rows = json.loads((world / "mix.json").read_text())
    (world / "images" / "half.png").write_bytes((world / "images" / "a" / "0.png").read_bytes()[:300])
    bad = [
        talk("<image>\nWhat?", "x", id="half", image="half.png"),
        talk("<image>\nWhat?", "x", id="gone", image="a/gone.png"),
        talk("<image>\n<image>\nWhat?", "x", id="both", image=["a/gone.png", "half.png"]),
        talk("What?", "x", id="count", image="a/0.png"),
        {"id": "turns", "conversations": []},
        talk("What is it?", "long " * 300, id="long"),
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([*rows[:6], *bad, *rows[6:]]))
    return path, images


def tokens(lm_folder):
    return Tokens(lm_folder, "qwen2_base", per_image=16, most=200)


def run(mixed, out, *, workers=1, on_rows=lambda done, total: None, **options):
    return validate(*mixed, out, workers=workers, on_rows=on_rows, **options)


def test_every_row_has_a_line_with_tokens_digests_and_problems(mixed, lm_folder, tmp_path):
    manifest = run(mixed, tmp_path / "out", tokens=tokens(lm_folder))
    lines = list(manifest.lines())
    assert [line["row"] for line in lines] == list(range(18))
    found = {line["id"]: [p["cause"] for p in line["problems"]] for line in lines if line["problems"]}
    both = ["image_missing", "image_corrupt"]
    assert found == {
        **{"half": ["image_corrupt"], "gone": ["image_missing"], "both": both, "count": ["image_count"]},
        **{"turns": ["turns"], "long": ["too_long"]},
    }
    assert manifest.counts == {"image_corrupt": 2, "image_count": 1, "image_missing": 2, "too_long": 1, "turns": 1}
    assert manifest.bad_share == 6 / 18
    good = read_conversations(mixed[0], bad="skip", known=manifest.problems())
    tokenizer = load_tokenizer(lm_folder)
    segments = [template_named("qwen2_base", tokenizer)(sample.turns) for sample in good]
    encoded = encode(segments, tokenizer, image_id=-1, tokens_per_image=16)
    taken = {"long"} | {line["id"] for line in lines if not line["problems"]}
    counted = [(line["tokens"], line["supervised"]) for line in lines if line["id"] in taken]
    assert counted == [(len(e.ids), e.n_supervised) for e in encoded]
    assert lines[0]["sha256"] == [hashlib.sha256((mixed[1] / lines[0]["images"][0]).read_bytes()).hexdigest()]
    assert good.bad == {cause: n for cause, n in manifest.counts.items() if cause != "too_long"}, "a recipe may cut it"
    assert [s.id for s in read_conversations(mixed[0], bad="blank", known=manifest.problems())][6:9] == [
        "half",
        "gone",
        "both",
    ]


def test_processes_write_what_one_writes_and_the_manifest_belongs_to_its_file(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 5)
    one = run(mixed, tmp_path / "one", tokens=None)
    two = run(mixed, tmp_path / "two", tokens=None, workers=2)
    assert one.summary == two.summary
    assert read_manifest(tmp_path / "two", mixed[0]).problems() == one.problems()
    mixed[0].write_text(mixed[0].read_text() + " ")
    with pytest.raises(ValueError, match="Run vlm validate again"):
        read_manifest(tmp_path / "one", mixed[0])
    with pytest.raises(FileNotFoundError, match="vlm validate"):
        read_manifest(tmp_path / "three", mixed[0])


def test_an_interrupted_validation_goes_on(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 5)
    whole = run(mixed, tmp_path / "whole", tokens=None)

    def interrupt(done, total):
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(mixed, tmp_path / "out", tokens=None, on_rows=interrupt)
    (partial,) = (tmp_path / "out").iterdir()
    with partial.open("a") as file:
        file.write('{"row": 1')
    seen = []
    again = run(mixed, tmp_path / "out", tokens=None, on_rows=lambda done, total: seen.append(done))
    assert seen[0] == 10
    assert again.summary == whole.summary
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "samples.jsonl"]


def test_a_template_that_cannot_write_a_sample_is_a_problem_of_that_sample(mixed, lm_folder, tmp_path):
    manifest = run(mixed, tmp_path / "out", tokens=Tokens(lm_folder, "plain", 16, 2048))
    assert manifest.counts["template"] > 0


def test_the_command_says_what_is_wrong_and_by_its_exit_code_that_something_is(mixed, lm_folder, tmp_path):
    arguments = ["validate", *map(str, mixed[:1]), "--images", str(mixed[1]), "--lm", str(lm_folder), "--workers", "1"]
    arguments += ["--tokens-per-image", "16", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3, result.output
    assert "image_missing" in result.output
    assert "supervised" in result.output
    assert CliRunner().invoke(app, [*arguments, "--allow", "0.4"]).exit_code == 0
    nowhere = CliRunner().invoke(
        app, ["validate", "none.json", "--images", str(tmp_path), "--out", str(tmp_path / "o")]
    )
    assert nowhere.exit_code == 2


def test_pictures_may_not_leave_the_folder(tmp_path, world):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "x.json").write_text(json.dumps([talk("<image>", "x", id="x", image="../secret.png")]))
    manifest = run((tmp_path / "x.json", tmp_path / "images"), tmp_path / "out", tokens=None)
    assert manifest.counts == {"image_outside": 1}
