"""Slices of the real data through the same code as `make real`; each test needs the folder that it names."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_distill.cache import TeacherCache
from kd_distill.config import DistillParams
from kd_distill.importing import import_cache
from kd_distill.params import load_section
from kd_distill.shards import PairShards
from kd_evalsuite.data import load_task
from kd_evalsuite.records import ModelRef, Prediction
from kd_evalsuite.score import score_folder
from kd_vlm.data import read_conversations
from PIL import Image

from real import chat, mira, neighbours, packing, prepare, published, questions, results, retrieval, sources, stories

DATA = sources.folder()


def needs(*names: str) -> pytest.MarkDecorator:
    absent = [name for name in names if not (DATA / name).is_dir()]
    return pytest.mark.skipif(bool(absent), reason=f"{DATA} lacks {', '.join(absent)}")


@pytest.fixture(scope="module")
def photos() -> list[sources.Photo]:
    return sources.fashion(DATA)


@needs("mira_clip", "fashion2k_clipb32")
def test_mira_written_anew_gives_the_published_embeddings(photos):
    weights = mira.load(DATA / "mira_clip" / "clip.pt")
    published_image = np.load(DATA / "mira_clip" / "image_embeddings_fashion2k.npy")[:40]
    image = mira.encode_images(weights, [Image.open(p.file) for p in photos[:40]]).numpy()
    np.testing.assert_allclose(image, published_image, atol=2e-6, rtol=0)
    text = mira.encode_texts(weights, sources.classes(DATA)).numpy()
    np.testing.assert_allclose(text, np.load(DATA / "mira_clip" / "text_embeddings_45.npy"), atol=2e-6, rtol=0)


@needs("mira_clip", "fashion2k_clipb32")
def test_mira_names_1653_of_2000_photos(photos):
    here, names = DATA / "mira_clip", sources.classes(DATA)
    cosines = np.load(here / "image_embeddings_fashion2k.npy") @ np.load(here / "text_embeddings_45.npy").T
    assert (cosines.argmax(axis=1) == [names.index(p.label) for p in photos]).sum() == 1653


@needs("fashion2k_clipb32")
def test_nine_tenths_of_clips_nearest_neighbours_are_of_one_subcategory(photos):
    features = np.load(DATA / "fashion2k_clipb32" / "clip_vit_b32_image_embeddings.npy")
    labels = np.array([p.subcategory for p in photos])
    assert neighbours.leave_one_out(features, labels).mean() == pytest.approx(0.901, abs=5e-4)


@needs("fashion2k_clipb32")
def test_held_out_photos_are_in_no_training_pair(photos):
    pairs = prepare.training_texts(photos)
    assert len(pairs) == 2 * 1600 - 1  # one photo has no title
    assert not sources.is_held_out(2000)[[i for i, _ in pairs]].any()


@needs("flickr8k_1k")
def test_flickr_pairs_are_read_back_as_they_were_packed(tmp_path):
    pictures = sorted(sources.captions(DATA).items())[:3]
    assert packing.write_pairs(tmp_path, ((f.read_bytes(), "jpg", c) for f, cs in pictures for c in cs)) == 15
    shards = PairShards(tmp_path)
    assert [shards.caption(i) for i in range(15)] == [c for _, cs in pictures for c in cs]
    assert shards.image(14) == pictures[2][0].read_bytes()


@needs("fashion2k_clipb32")
def test_clips_published_embeddings_are_a_cache_of_the_photos(photos, tmp_path):
    few = photos[:8]
    squares = [packing.png(mira.square(Image.open(p.file))) for p in few]
    packing.write_pairs(tmp_path / "pairs", ((s, "png", p.title) for s, p in zip(squares, few, strict=True)))
    published_rows = np.load(DATA / "fashion2k_clipb32" / "clip_vit_b32_image_embeddings.npy")[:8]
    np.save(tmp_path / "clip.npy", published_rows)
    data = real_params().data.model_copy(update={"train": tmp_path / "pairs", "caches": tmp_path / "caches"})
    cache = TeacherCache(import_cache(data, "teacher-clip-b32", tmp_path / "clip.npy", None, 100.0))
    targets = cache.rows(np.array([5, 0]), 0)
    assert targets.text is None
    torch.testing.assert_close(targets.image, torch.from_numpy(published_rows[[5, 0]]), atol=2e-4, rtol=0)


@needs("stories260K")
def test_stories260k_tells_the_expected_story(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stories.write_folder(DATA, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    start = torch.tensor([[1]])
    out = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=200, do_sample=False)
    expected = (DATA / "stories260K" / "expected_greedy.txt").read_text().strip()
    assert tokenizer.decode(out[0], skip_special_tokens=True).strip() == expected
    assert tokenizer("One day, é 天\n", add_special_tokens=False).input_ids[-1] == tokenizer.convert_tokens_to_ids(
        "<0x0A>"
    )


@needs("scienceqa_sample")
def test_llavas_published_answers_score_as_published(tmp_path):
    name, file = "scienceqa", questions.TABLES["scienceqa"][1]
    (tmp_path / name).mkdir()
    questions.pq.write_table(questions.scienceqa(DATA), tmp_path / name / file)
    published.write_predictions(DATA, tmp_path, tmp_path / "predictions")
    scores = score_folder(tmp_path / "predictions", tmp_path / "eval", [load_task(tmp_path, name, pictures=False)])
    found = scores.main(name)
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(published.EXPECTED), 300)


@needs("chartqa_sample", "mmbench_samples")
@pytest.mark.parametrize(("name", "n"), [("chartqa", 257), ("mmbench_en", 20)])
def test_gold_answers_score_full_marks(tmp_path, name, n):
    table, file = questions.TABLES[name]
    (tmp_path / name).mkdir()
    questions.pq.write_table(table(DATA), tmp_path / name / file)
    task = load_task(tmp_path, name)
    assert len(task.items) == n
    assert Image.open(io.BytesIO(task.items[0].pictures[0].read())).size[0] > 10
    answer_with_gold(task, tmp_path / "predictions")
    found = score_folder(tmp_path / "predictions", tmp_path / "eval", [task]).main(name)
    assert found is not None
    assert found.value == 1.0


@needs("mmbench_samples")
def test_options_of_several_lines_are_kept_whole():
    rows = {row["index"]: row for row in questions.mmbench(DATA).to_pylist()}
    assert rows[1]["A"].splitlines()[1].strip() == "print(x)"


@needs("fashion2k_clipb32")
def test_product_questions_have_their_answer_among_four_options(photos, tmp_path):
    samples = chat.product_samples(photos[:20], [p.label for p in photos], np.random.default_rng(0))
    packing.write_json(tmp_path / "chat.json", samples)
    for photo, sample in zip(photos, read_conversations(tmp_path / "chat.json"), strict=False):
        letter = sample.turns[0].answer
        assert f"\n{letter}. {photo.label}\n" in sample.turns[0].question
        assert sample.turns[1].answer == photo.colour


def test_recall_of_embeddings_that_match_is_one_and_of_others_chance():
    rng = torch.Generator().manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(200, 16, generator=rng), dim=-1)
    photo = np.repeat(np.arange(200), 5)
    assert retrieval.text_to_image(image, image[photo], photo).value(1) == 1
    noise = torch.nn.functional.normalize(torch.randn(1000, 16, generator=rng), dim=-1)
    found = retrieval.text_to_image(image, noise, photo)
    assert abs(found.value(10) - 0.05) < 4 * found.stderr(10)


def test_without_real_data_the_command_says_so_and_stops(tmp_path, monkeypatch, capsys):
    from real.__main__ import main

    monkeypatch.setenv("KD_REAL_DATA", str(tmp_path))
    assert main() == 0
    assert f"No real data: {tmp_path} lacks flickr8k_1k" in capsys.readouterr().out


def test_a_published_number_that_does_not_come_out_is_named():
    row = results.Row("zero-shot, 45 classes, all photos", "teacher-mira", "top1", 80.0, 1.0, 2000)
    assert "expected 82.65, found 80.00" in results.check([row])[0]


def test_the_parameter_files_hold_what_the_packages_accept():
    from kd_evalsuite.config import EvalParams
    from kd_vlm.config import Section

    from real import steps

    root = sources.ROOT
    assert set(real_params().cells) == {steps.ALONE, steps.FROM_MIRA, steps.FROM_CLIP}
    assert list(load_section(root / steps.FLICKR, "distill", DistillParams).cells) == [steps.PAIRS]
    from kd_evalsuite.params import load_section as load_eval
    from kd_vlm.params import load_section as load_vlm

    assert load_eval(root / steps.PARAMS, "evalsuite", EvalParams).keys == ["mmbench_en", "scienceqa", "chartqa"]
    assert list(load_vlm(root / steps.PARAMS, "vlm", Section).cells) == [steps.VLM]


def real_params() -> DistillParams:
    return load_section(sources.ROOT / "real" / "params.yaml", "distill", DistillParams)


def answer_with_gold(task, folder: Path) -> None:
    from kd_evalsuite.predict import manifest_of

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model = ModelRef(kind="vlm", name="gold", sha256="none")
    manifest = manifest_of(model, [task], protocol="paper", blind=False, limit=None)
    (folder / "manifest.json").write_text(manifest.model_dump_json(by_alias=True))
    rows = [Prediction(id=i.id, prediction=i.gold[0], tokens=0, seconds=0).model_dump() for i in task.items]
    (folder / f"{task.key}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
