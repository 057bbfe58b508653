"""`analysis cka` and its neighbours as a user runs them: no parameter file, any images, features read once."""

import json

import numpy as np
import pytest
from kd_analysis import features
from kd_analysis.cka import linear_cka
from kd_analysis.cli import app
from kd_analysis.moments import Moments
from kd_analysis.similarity import read_records
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def world(tmp_path, save, images, monkeypatch):
    """A student, its teacher, a folder of photos, and no params.yaml."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "student-vit--large--kd", "vit", 1)
    save(tmp_path / "teacher-large", "conv", 2)
    (tmp_path / "photos").mkdir()
    for k, image in enumerate(images(12)):
        image.save(tmp_path / "photos" / f"{k}.png")
        image.save(tmp_path / "photos" / f"{k}-again.bmp")
    return tmp_path


BOTH = ("--student", "student-vit--large--kd", "--teacher", "teacher-large", "--images", "photos")


def test_cka_of_a_folder_of_photos_without_any_parameter_file(world, monkeypatch):
    done = call("cka", *BOTH, "--tap", "pooled", "--tap", "patch_tokens", "--measure", "all", "--out", "first")
    assert done.exit_code == 0, done.output
    records = read_records(world / "first" / "cka.json")
    assert {(r.tap, r.relation) for r in records} == {
        (tap, relation) for tap in ("pooled", "patch_tokens") for relation in ("own teacher", "untrained")
    }
    assert {r.n for r in records} == {12}
    shown = json.loads((world / "first" / "images.json").read_text())["photos"]
    assert (shown["images"], shown["rows"]) == (12, 24)
    assert {m["measure"] for m in json.loads((world / "first" / "measures.json").read_text())} >= {
        "procrustes",
        "cknna",
    }

    def never(*_, **__):
        raise AssertionError("an encoder was loaded although all its features are known")

    monkeypatch.setattr(features, "load", never)
    again = call("cka", *BOTH, "--tap", "pooled", "--out", "again")
    assert again.exit_code == 0, again.output
    assert read_records(world / "again" / "cka.json") == [r for r in records if r.tap == "pooled"]


def test_a_run_that_was_ended_goes_on_with_what_it_had_read(world, monkeypatch):
    from kd_analysis.store import Shelf

    add, calls = Shelf.add, []

    def failing(self, ids, rows):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(ids))
        add(self, ids, rows)

    monkeypatch.setattr(features, "BATCH", 5)
    monkeypatch.setattr(Shelf, "add", failing)
    assert call("cka", *BOTH).exit_code == 130
    monkeypatch.setattr(Shelf, "add", lambda self, ids, rows: (calls.append(len(ids)), add(self, ids, rows)))
    assert call("cka", *BOTH).exit_code == 0
    assert sum(calls) == 3 * 12  # student, teacher and untrained student: each image once, over both runs
    call("cka", *BOTH, "--store", "elsewhere", "--out", "whole")
    assert read_records(world / "whole" / "cka.json") == read_records(world / "out" / "cka" / "cka.json")


def test_shards_fill_the_store_and_their_states_merge(world):
    for shard in ("0/2", "1/2"):
        done = call("features", *BOTH, "--shard", shard)
        assert done.exit_code == 0, done.output
        assert "6 of 12 images" in done.output
    assert call("features", *BOTH, "--shard", "2/2").exit_code == 2
    call("cka", *BOTH)
    state = world / "out" / "cka" / "states" / "pooled" / "student-vit--large--kd--vs--teacher-large" / "photos.npz"
    done = call("merge", state, state, "--out", "both.npz")
    assert "24 images" in done.output
    assert linear_cka(Moments.load(world / "both.npz"), "biased").value == pytest.approx(
        linear_cka(Moments.load(state), "biased").value, abs=1e-12
    )


def test_states_over_disjoint_images_merge_to_the_state_over_all(world):
    (world / "more").mkdir()
    for k in range(6):
        (world / "photos" / f"{k}.png").rename(world / "more" / f"{k}.png")
        (world / "photos" / f"{k}-again.bmp").unlink()
    for part in ("photos", "more"):
        assert call("cka", *BOTH[:4], "--images", part, "--out", part + "-out").exit_code == 0
        (world / part).rename(world / f"all-{part}")
    (world / "all").mkdir()
    for part in ("photos", "more"):
        (world / f"all-{part}").rename(world / "all" / part)
    assert call("cka", *BOTH[:4], "--images", "all", "--out", "whole").exit_code == 0
    pair = "states/pooled/student-vit--large--kd--vs--teacher-large"
    states = [world / f"{part}-out" / pair / f"{part}.npz" for part in ("photos", "more")]
    assert call("merge", *states, "--out", "merged.npz").exit_code == 0
    whole = Moments.load(world / "whole" / pair / "all.npz")
    for estimator in ("debiased", "biased"):
        merged = linear_cka(Moments.load(world / "merged.npz"), estimator)
        assert merged.n == 12
        assert merged.value == pytest.approx(linear_cka(whole, estimator).value, abs=1e-12)


def test_a_map_of_all_layers_is_drawn(world):
    done = call("heatmap", *BOTH, "--out", "map")
    assert done.exit_code == 0, done.output
    assert {p.name for p in (world / "map").iterdir()} == {"heatmap.csv", "heatmap.svg", "heatmap.png"}
    lines = (world / "map" / "heatmap.csv").read_text().splitlines()
    assert "transformer.resblocks.0" in lines[1]
    assert call("heatmap", *BOTH, "--layer", "nowhere").exit_code == 2


def test_embed_kd_takes_the_head_from_the_folder_or_a_checkpoint_and_else_says_what_is_missing(world):
    from safetensors.numpy import save_file

    done = call("cka", *BOTH, "--tap", "embed_kd")
    assert done.exit_code == 0, done.output
    assert "holds no head to teacher-large" in " ".join(done.output.split())
    rng = np.random.default_rng(0)
    head = {
        "task.heads.teacher-large.image.weight": rng.standard_normal((20, 16)).astype("float32"),
        "task.heads.teacher-large.image.bias": np.zeros(20, "float32"),
    }
    save_file(head, world / "state.safetensors")
    done = call("cka", *BOTH, "--tap", "embed_kd", "--heads", "state.safetensors", "--out", "with")
    assert done.exit_code == 0, done.output
    own = [r for r in read_records(world / "with" / "cka.json") if r.relation == "own teacher"]
    assert all(r.value is not None for r in own)
    assert call("cka", *BOTH, "--tap", "embed_kd", "--heads", "stranger=state.safetensors").exit_code == 2


def test_wrong_options_are_named(world):
    for wrong, words in (
        (("--tap", "middle"), "Expected a tap"),
        (("--measure", "nearest"), "Expected measures"),
        (("--tap", "vlm_mean"), "Expected a tap of pooled"),
        (("--images", "nothing-here"), "found nothing"),
        (("--images", "photos"), "Two sources of images"),
    ):
        done = call("cka", *BOTH, *wrong)
        assert done.exit_code == 2, done.output
        assert words in " ".join(done.output.split())


def write_vlm(folder, kind):
    """A stock VLM of transformers with random weights: Llava on a CLIP tower, or FastVLM on a timm trunk."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        FastVlmConfig,
        FastVlmForConditionalGeneration,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
        Qwen2Config,
        TimmWrapperConfig,
    )

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<image>": 1, "a": 2}, unk_token="<pad>"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")  # noqa: S106
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    text = Qwen2Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=8,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)  # noqa: TID251
        if kind == "llava":
            vision = CLIPVisionConfig(
                hidden_size=24, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32,
                patch_size=4,
            )  # fmt: skip
            config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=1, vision_feature_layer=-2)
            model = LlavaForConditionalGeneration(config)
        else:
            vision = TimmWrapperConfig.from_dict(
                {"architecture": "test_resnet", "do_pooling": False, "hidden_size": 96, "num_classes": 0}
            )
            model = FastVlmForConditionalGeneration(
                FastVlmConfig(vision_config=vision, text_config=text, image_token_index=1)
            )
    edge = {"height": 32, "width": 32} if kind == "llava" else {"height": 96, "width": 96}
    processor = CLIPImageProcessorPil(size=edge, crop_size=edge)
    model.save_pretrained(folder)
    LlavaProcessor(image_processor=processor, tokenizer=tokenizer, patch_size=4).save_pretrained(folder)
    return folder


def test_vlms_are_compared_before_and_after_their_projectors(world, images, read):
    import torch
    from kd_analysis import vlms
    from transformers import CLIPImageProcessorPil

    one, two = write_vlm(world / "vlm-a", "llava"), write_vlm(world / "vlm-b", "fastvlm")
    found = read({"a": vlms.load(one)}, images(4), "vlm_mean")["a"]
    whole = vlms.AutoModelForImageTextToText.from_pretrained(one, dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(one)
    with torch.inference_mode():
        pixels = processor(images(4), return_tensors="pt")["pixel_values"]
        tokens = torch.stack(list(whole.model.get_image_features(pixel_values=pixels).pooler_output))
    assert tokens.shape == (4, 64, 16)
    np.testing.assert_allclose(found, tokens.mean(1).numpy(), atol=1e-5)
    assert read({"a": vlms.load(one)}, images(4), "vlm_tokens")["a"].shape == (4, 49, 16)
    pair = ("--student", one, "--teacher", two, "--images", "photos")
    taps = ("vlm_mean", "patch_mean", "vlm_tokens", "patch_tokens")
    done = call("cka", *pair, *(word for tap in taps for word in ("--tap", tap)))
    assert done.exit_code == 0, done.output
    records = read_records(world / "out" / "cka" / "cka.json")
    assert {r.tap for r in records} == set(taps)
    assert all(r.low < r.value < r.high for r in records)
    assert call("cka", *pair, "--tap", "pooled").exit_code == 2
