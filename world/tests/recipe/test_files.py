"""The small world as other programs read it."""

import hashlib
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from world.benchmarks.suite import BENCHMARKS
from world.classes import CLASSES
from world.tests.reading import items, rows, tables

pytestmark = [pytest.mark.recipe, pytest.mark.xdist_group("world")]
COLUMNS = json.loads((Path(__file__).parent.parent / "reference" / "public_columns.json").read_text())


def samples(*shards):
    return list(wds.WebDataset([str(shard) for shard in shards], shardshuffle=False))


def test_pairs_are_read_by_webdataset(small_world, small_params):
    shards = sorted((small_world / "pairs").glob("*.tar"))
    found = samples(*shards)
    assert [shard.name for shard in shards] == ["00000.tar", "00001.tar", "00002.tar"]
    assert [s["__key__"] for s in found][9:11] == ["000000009", "000010000"]
    assert len(found) == small_params.pairs.train
    for sample in found:
        record = json.loads(sample["json"])
        assert record["sha256"] == hashlib.sha256(sample["jpg"]).hexdigest()
        assert record["caption"] == sample["txt"].decode()
        assert record["key"] == sample["__key__"]
        assert record["status"] == "success"
        image = Image.open(io.BytesIO(sample["jpg"]))
        assert (image.format, image.size, image.mode) == ("JPEG", (record["width"], record["height"]), "RGB")
    assert json.loads((small_world / "pairs" / "00002_stats.json").read_text())["successes"] == 5


def test_classes_are_read_as_clip_benchmark_does(small_world):
    folder = small_world / "classes"
    names = (folder / "classnames.txt").read_text().splitlines()
    templates = (folder / "zeroshot_classification_templates.txt").read_text().splitlines()
    assert tuple(names) == CLASSES
    assert len(names) == len(set(names)) == 48
    assert len(templates) >= 3
    assert all(template.count("{c}") == 1 for template in templates)
    assert (folder / "test" / "nshards.txt").read_text().strip() == "1"
    found = samples(folder / "test" / "0.tar")
    assert found[0]["__key__"] == "s0000000"
    assert sorted(int(s["cls"]) for s in found) == sorted([*range(48), *range(48)])


def test_templates_speak_the_language_of_captions(small_params, tmp_path):
    from world.classes import templates
    from world.kinds.objects import Objects, Thing
    from world.scene import stream

    captions = {
        Objects("grey", (Thing("red", "ring", size, (x, y)),)).caption(stream(0, k))
        for size in ("small", "large")
        for x in range(3)
        for y in range(3)
        for k in range(20)
    }
    assert captions == {template.format(c="red ring") for template in templates()}


@pytest.mark.parametrize("task", COLUMNS)
def test_a_benchmark_has_the_columns_of_its_public_data_set(small_world, task):
    path = tables(small_world / "benchmarks" / task)[-1]
    schema = pq.read_schema(path)
    assert schema.names == COLUMNS[task]
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names


def test_mmvp_has_a_table_and_numbered_images(small_world):
    folder = small_world / "benchmarks" / "mmvp"
    lines = (folder / "Questions.csv").read_text().splitlines()
    assert lines[0] == "lndex,Question,Options,Correct Answer"
    assert {path.name for path in (folder / "MMVP Images").iterdir()} == {f"{k}.jpg" for k in range(1, len(lines))}


@pytest.mark.parametrize("task", BENCHMARKS)
def test_every_image_decodes_and_every_answer_is_an_option(small_world, task):
    found = items(small_world / "benchmarks", task)
    assert len(found) >= 20
    for item in found:
        assert item.options is None or item.answer in item.options
        assert item.answer == item.answer.strip() != ""
        for jpeg in item.images:
            Image.open(io.BytesIO(jpeg)).load()


def test_mmbench_rotates_each_question_through_its_options(small_world):
    groups = {}
    for row in rows(small_world / "benchmarks" / "mmbench_en"):
        groups.setdefault(row["index"] % 1_000_000, []).append(row)
    for group in groups.values():
        options = [{row[x] for x in "ABCD" if row[x] != "nan"} for row in group]
        assert len(group) == len(options[0])
        assert all(o == options[0] for o in options)
        assert len({row["answer"] for row in group}) == len(group)
        assert len({row[row["answer"]] for row in group}) == 1


def test_mme_asks_twice_about_an_image(small_world):
    found = rows(small_world / "benchmarks" / "mme_perception")
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert (one["category"], one["question_id"]) == (other["category"], other["question_id"])
        assert {one["answer"], other["answer"]} == {"Yes", "No"}


def test_scienceqa_has_items_without_an_image_and_mmmu_some_with_two(small_world):
    assert 0.3 < sum(r["image"] is None for r in rows(small_world / "benchmarks" / "scienceqa")) / 24 < 0.5
    assert any(r["image_2"] for r in rows(small_world / "benchmarks" / "mmmu"))


@pytest.mark.parametrize(
    "path", ["llava_pretrain/blip_laion_cc_sbu_558k.json", "mix665k/llava_v1_5_mix665k.json", "bunny/bunny_695k.json"]
)
def test_conversations_alternate_and_mark_each_image_once(small_world, path):
    file = small_world / "chat" / path
    conversations = json.loads(file.read_text())
    assert len({c["id"] for c in conversations}) == len(conversations)
    for conversation in conversations:
        turns = conversation["conversations"]
        assert [t["from"] for t in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert all(t["value"].strip() == t["value"] != "" for t in turns)
        images = conversation.get("image", [])
        images = [images] if isinstance(images, str) else images
        assert [t["value"].count("<image>") for t in turns] == [len(images)] + [0] * (len(turns) - 1)
        for name in images:
            Image.open(file.parent / "images" / name).load()


def test_the_mix_has_text_only_multi_turn_and_two_image_samples(small_world):
    mix = json.loads((small_world / "chat" / "mix665k" / "llava_v1_5_mix665k.json").read_text())
    kinds = {type(c.get("image")).__name__ for c in mix}
    assert kinds == {"NoneType", "str", "list"}
    assert max(len(c["conversations"]) for c in mix) == 2 * (5 + 1)  # five questions and a description


def test_the_corpus_has_captions_and_dialogues_in_the_template(small_world):
    texts = [json.loads(line)["text"] for line in (small_world / "text" / "corpus.jsonl").read_text().splitlines()]
    assert len(texts) == 60
    assert all(text.endswith("<|endoftext|>") for text in texts)
    start = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: "
    )
    dialogues = [text for text in texts if text.startswith(start)]
    assert 30 < len(dialogues) < 60
    for text in dialogues:
        assert text.count("USER: ") == text.count(" ASSISTANT: ") == text.count("<|endoftext|>")
