"""From a conversation file to what a stage trains on."""

import json
import shutil

import pytest
import torch
from kd_vlm.assembly import assemble
from kd_vlm.config import Data, packaged_recipe
from kd_vlm.corpus import prepare
from kd_vlm.data import read_conversations
from kd_vlm.encoder import load_encoder
from kd_vlm.evaluate import held_out
from kd_vlm.features import FeatureCache
from kd_vlm.material import datasets_of, gather
from kd_vlm.validate import Tokens, validate
from kd_vlm.workspace import file_digest

pytestmark = pytest.mark.recipe


@pytest.fixture(scope="module")
def vlm(vit_folder, lm_folder):
    return assemble(load_encoder(vit_folder), lm_folder, torch.Generator().manual_seed(0))


def corpus_of(vlm, world, **options):
    settings = {"template": "qwen2_base", "least_supervised_share": 0.001, **options}
    samples = read_conversations(options.pop("file", world / "mix.json"), images=world / "images")
    return prepare(vlm, samples, world / "images", **settings)


def test_texts_and_pictures_are_read_when_they_are_asked_for(vlm, world):
    corpus = corpus_of(vlm, world)
    assert [s.id for s in corpus.samples] == [row["id"] for row in json.loads((world / "mix.json").read_text())]
    assert corpus.lengths == [len(e.ids) for e in corpus.encoded]
    assert corpus.supervised == [e.n_supervised for e in corpus.encoded]
    assert corpus.has_image == [bool(pictures) for pictures in corpus.pictures]
    assert all(len(p) == e.n_images for p, e in zip(corpus.pictures, corpus.encoded, strict=True))
    assert all(e.ids.count(vlm.image_id) == e.n_images * vlm.tokens_per_image for e in corpus.encoded)
    assert corpus.bad == {}


def test_samples_that_do_not_fit_stop_the_run_or_are_left_out(vlm, world):
    whole = corpus_of(vlm, world)
    length = max(whole.lengths) - 1
    with pytest.raises(ValueError, match=r"no supervised token|pictures"):
        corpus_of(vlm, world, max_length=20)
    cut = corpus_of(vlm, world, max_length=length)
    assert max(cut.lengths) == length
    left = corpus_of(vlm, world, max_length=vlm.tokens_per_image + 12, bad="skip")
    assert sum(left.bad.values()) + len(left) == len(whole) > len(left)
    assert set(left.bad) <= {"too_long", "no_supervision"}
    ids = {s.id: i for i, s in enumerate(whole.samples)}
    for sample, encoded in zip(left.samples, left.encoded, strict=True):
        assert encoded.ids == whole.encoded[ids[sample.id]].ids[: len(encoded.ids)]


def test_a_template_that_does_not_fit_the_file_is_named(vlm, world):
    with pytest.raises(ValueError, match=r"Sample 'd1'.*plain"):
        corpus_of(vlm, world, template="plain")
    assert corpus_of(vlm, world, template="plain", bad="skip").bad["template"] > 0


def test_what_a_manifest_found_bad_is_left_out_of_a_run(vit_folder, lm_folder, world, tmp_path):
    rows = json.loads((world / "mix.json").read_text())
    images = tmp_path / "images"
    shutil.copytree(world / "images", images)
    (images / "a" / "2.png").write_bytes((images / "a" / "2.png").read_bytes()[:200])
    (tmp_path / "mix.json").write_text(json.dumps(rows))
    manifest = validate(
        tmp_path / "mix.json", images, tmp_path / "manifest", tokens=None, workers=1, on_rows=lambda *_: None
    )
    assert manifest.counts == {"image_corrupt": 1}
    recipe = packaged_recipe("fast").model_copy(update={"held_out": 2})
    digests = []
    for bad, left in (("skip", 9), ("blank", 10)):
        files = {"file": tmp_path / "mix.json", "images": images, "manifest": tmp_path / "manifest"}
        data = Data.model_validate(
            {"pretrain": {"file": world / "captions.json", "images": world / "images"}, "finetune": files, "bad": bad}
        )
        material = gather(vit_folder, lm_folder, recipe, data, seed=0)
        assert len(material.corpora["finetune"]) == left
        assert material.bad == {"image_corrupt": 1}
        digests.append([dataset["digest"] for dataset in datasets_of(data, material)])
    (first, skipped), (again, blanked) = digests
    assert first == again
    assert skipped != blanked, "other samples make another run"


def test_a_file_without_bad_samples_has_one_digest_whatever_is_done_with_bad_ones(vit_folder, lm_folder, world):
    """That of the bytes alone: models that were trained before are recognised."""
    recipe = packaged_recipe("fast").model_copy(update={"held_out": 2})
    corpus = {"file": world / "mix.json", "images": world / "images"}
    pictures = [world / "images" / "a" / f"{i}.png" for i in range(8)]
    for bad in ("error", "skip"):
        data = Data.model_validate(
            {"pretrain": corpus | {"file": world / "captions.json"}, "finetune": corpus, "bad": bad}
        )
        first, _ = datasets_of(data, gather(vit_folder, lm_folder, recipe, data, seed=0))
        assert first["digest"] == file_digest([world / "captions.json", *pictures])


def test_samples_left_out_by_their_length_are_in_the_digest_too(vit_folder, lm_folder, world):
    corpus = {"file": world / "mix.json", "images": world / "images"}
    data = Data.model_validate(
        {"pretrain": corpus | {"file": world / "captions.json"}, "finetune": corpus, "bad": "skip"}
    )
    found = {}
    for shorter in (0, 1):
        recipe = packaged_recipe("fast").model_copy(update={"held_out": 2})
        if shorter:
            stage = recipe.finetune.model_copy(update={"max_length": 16 + 12})
            recipe = recipe.model_copy(update={"finetune": stage})
        material = gather(vit_folder, lm_folder, recipe, data, seed=0)
        found[shorter] = (len(material.corpora["finetune"]), datasets_of(data, material)[1]["digest"])
    assert found[1][0] < found[0][0]
    assert found[1][1] != found[0][1]


@pytest.mark.parametrize("bad", ["error", "skip"])
def test_a_template_without_questions_has_no_blind_test_and_that_is_said_before_training(
    vit_folder, lm_folder, world, bad
):
    captions = {"file": world / "captions.json", "images": world / "images"}
    data = Data.model_validate({"pretrain": captions, "finetune": captions, "bad": bad})
    fast = packaged_recipe("fast")
    plain = fast.finetune.model_copy(update={"template": "plain"})
    recipe = fast.model_copy(update={"held_out": 2, "finetune": plain})
    with pytest.raises(ValueError, match="held_out is 2, but the template 'plain' leaves no sample"):
        gather(vit_folder, lm_folder, recipe, data, seed=0)
    material = gather(vit_folder, lm_folder, recipe.model_copy(update={"held_out": 0}), data, seed=0)
    assert (len(material.corpora["finetune"]), len(material.test), material.bad) == (8, 0, {})
    with pytest.raises(ValueError, match="Expected held-out conversations to score, got none"):
        held_out(material.vlm, material.test, FeatureCache([], {}))


@pytest.mark.parametrize("bad", ["error", "skip"])
def test_a_manifest_of_other_lengths_and_templates_does_not_decide_for_the_recipe(
    vit_folder, lm_folder, world, tmp_path, bad
):
    """Each row is too long or not to be written as it was validated; the recipe cuts nothing and writes all."""
    files = {"file": world / "mix.json", "images": world / "images"}
    captions = {"file": world / "captions.json", "images": world / "images"}
    recipe = packaged_recipe("fast").model_copy(update={"held_out": 2})
    for template, most in (("qwen2_base", 10), ("plain", 2048)):
        manifest = validate(
            *files.values(),
            tmp_path / template,
            tokens=Tokens(lm_folder, template, per_image=16, most=most),
            workers=1,
            on_rows=lambda *_: None,
        )
        assert sum(manifest.counts.values()) > 0
        finetune = {**files, "manifest": tmp_path / template}
        data = Data.model_validate({"pretrain": captions, "finetune": finetune, "bad": bad})
        material = gather(vit_folder, lm_folder, recipe, data, seed=0)
        assert (len(material.corpora["finetune"]), material.bad) == (10, {})
