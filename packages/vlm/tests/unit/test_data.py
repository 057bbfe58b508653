import json
import struct
import zlib

import pytest
from kd_vlm import pictures
from kd_vlm.data import Sample, check_supervision, distinct_images, picture_problems, read_conversations
from kd_vlm.pictures import BLANK, decode_image, image_path, open_image
from kd_vlm.problems import Problem
from kd_vlm.templates import IGNORE, Encoded, Turn
from kd_vlm.unpack import unpack
from PIL import Image


def write(path, *rows):
    path.write_text(json.dumps(list(rows)))
    return path


def talk(*messages):
    return [{"from": who, "value": value} for who, value in messages]


def test_samples_with_none_one_and_several_pictures_are_read(world):
    samples = read_conversations(world / "mix.json")
    assert [len(s.images) for s in samples[2:6]] == [1, 0, 1, 2]
    assert samples[3].turns == (Turn("Say green.", "green"), Turn("Say red.", "red"))
    assert len(distinct_images(samples)) == 11


def test_one_object_a_line_reads_as_the_array_does(world, tmp_path):
    rows = json.loads((world / "mix.json").read_text())
    (tmp_path / "mix.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_conversations(tmp_path / "mix.jsonl")) == list(read_conversations(world / "mix.json"))


def test_a_first_message_of_the_model_is_dropped(tmp_path):
    row = {"id": 7, "conversations": talk(("gpt", "hello"), ("human", "a"), ("gpt", "b"))}
    (sample,) = read_conversations(write(tmp_path / "x.json", row))
    assert sample.turns == (Turn("a", "b"),)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"id": "x", "conversations": talk(("human", "a"))}, "in turn"),
        ({"id": "x", "conversations": []}, "no message"),
        ({"id": "x", "conversations": talk(("human", "a"), ("gpt", "b"), ("gpt", "c"), ("human", "d"))}, "in turn"),
        ({"id": "x", "image": "a.jpg", "conversations": talk(("human", "a"), ("gpt", "b"))}, "1 images but 0"),
        ({"id": "x", "conversations": talk(("human", "<image>"), ("gpt", "b"))}, "0 images but 1"),
        ({"id": "x", "text": "a"}, "expected"),
        ({"id": "x", "image": 3, "conversations": talk(("human", "a"), ("gpt", "b"))}, "expected"),
        ({"id": "x", "conversations": [{"from": "human", "value": None}, {"from": "gpt", "value": "b"}]}, "a string"),
        ("text", "expected"),
        ({"id": "x", "image": {"bytes": "", "path": ""}, "conversations": []}, "holds a picture"),
        ({"id": "x", "image": "<blank>", "conversations": talk(("human", "<image>"), ("gpt", "b"))}, "a grey one"),
    ],
)
def test_a_malformed_sample_is_named(tmp_path, row, says):
    with pytest.raises(ValueError, match=f"sample 0.*{says}"):
        read_conversations(write(tmp_path / "x.json", row))


def test_a_missing_file_and_broken_json_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        read_conversations(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("[{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_conversations(tmp_path / "x.json")


def test_an_image_path_stays_in_its_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    with pytest.raises(ValueError, match="outside"):
        image_path(tmp_path / "images", "../secret.png")
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        image_path(tmp_path / "images", "a.png")


def test_links_out_of_the_folder_and_strange_names_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "images" / "loop").symlink_to(tmp_path / "images" / "loop")
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    for name in ("link.png", str(tmp_path / "secret.png"), "a\0.png"):
        with pytest.raises(ValueError, match=r"outside|no path"):
            image_path(tmp_path / "images", name)
    with pytest.raises((ValueError, FileNotFoundError)):
        image_path(tmp_path / "images", "loop")
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / "a.png")
    assert image_path(tmp_path / "linked", "a.png").is_file(), "the folder itself may be a link"


def test_what_is_in_a_picture_counts_and_not_its_suffix(tmp_path):
    """As in ocr_vqa, whose pictures are all called .jpg."""
    frames = [Image.new("P", (9, 7), i) for i in (3, 5)]
    frames[0].save(tmp_path / "x.jpg", format="GIF", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (9, 7)).save(tmp_path / "y.jpg", format="PNG")
    for name in ("x.jpg", "y.jpg"):
        assert (open_image(tmp_path, name).mode, open_image(tmp_path, name).size) == ("RGB", (9, 7))


def broken(tmp_path):
    """A file whose samples are all bad but the first and the last: (path, image folder)."""
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (9, 7)).save(images / "good.png")
    Image.effect_noise((90, 70), 50).save(images / "whole.jpg")
    data = (images / "whole.jpg").read_bytes()
    (images / "half.jpg").write_bytes(data[: len(data) // 2])
    (images / "empty.jpg").write_bytes(b"")
    (images / "bomb.png").write_bytes(bomb(50_000, 50_000))
    ask = talk(("human", "<image>\nWhat?"), ("gpt", "b"))
    rows = [{"id": name, "image": name, "conversations": ask} for name in ("good.png", "none.jpg", "half.jpg")]
    rows += [{"id": name, "image": name, "conversations": ask} for name in ("empty.jpg", "bomb.png", "../x.png")]
    rows += [{"id": "schema"}, {"id": "turns", "conversations": []}, {"id": "count", "conversations": ask}]
    rows += [{"id": "text", "conversations": talk(("human", "a"), ("gpt", "b"))}]
    return write(tmp_path / "x.json", *rows), images


def bomb(width, height):
    """A PNG whose header promises more than its few bytes hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_bad_samples_stop_the_run_or_are_left_out_and_counted(tmp_path):
    path, images = broken(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"sample 1: Expected image 'none\.jpg'"):
        read_conversations(path, images=images)
    kept = read_conversations(path, images=images, bad="skip")
    assert [s.id for s in kept] == ["good.png", "half.jpg", "empty.jpg", "bomb.png", "text"], "none decoded so far"
    assert kept.bad == {"image_missing": 1, "image_outside": 1, "schema": 1, "turns": 1, "image_count": 1}
    assert list(kept[1:3]) == [kept[1], kept[2]]


def test_what_a_validation_found_is_taken_over(tmp_path):
    path, images = broken(tmp_path)
    known = {
        i: picture_problems(Sample(name, (name,), ()), images, decode=True)
        for i, name in enumerate(["good.png", "none.jpg", "half.jpg", "empty.jpg", "bomb.png", "../x.png"])
    }
    assert [[p.cause for p in known[i]] for i in range(6)] == [
        [],
        ["image_missing"],
        ["image_corrupt"],
        ["image_corrupt"],
        ["image_too_large"],
        ["image_outside"],
    ]
    known |= {i: [Problem("schema", "")] for i in (6, 7, 8)}
    assert [s.id for s in read_conversations(path, bad="skip", known=known)] == ["good.png", "text"]
    grey = read_conversations(path, bad="blank", known=known)
    assert [s.images for s in grey] == [("good.png",), *[(BLANK,)] * 5, ()]
    assert distinct_images(grey) == ["good.png"]
    assert decode_image(image_path(images, BLANK)).getpixel((0, 0)) == (127, 127, 127)
    assert sum(grey.bad.values()) == 8


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(bomb(9000, 9000))
    monkeypatch.setattr(pictures.Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="9000 x 9000"):
        decode_image(tmp_path / "bomb.png")


def test_a_picture_that_does_not_decode_or_is_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="decodes"):
        decode_image(tmp_path / "x.jpg")
    Image.new("L", (20, 20)).save(tmp_path / "y.png")
    assert decode_image(tmp_path / "y.png").mode == "RGB"
    monkeypatch.setattr("kd_vlm.pictures.MAX_PIXELS", 399)
    with pytest.raises(ValueError, match="20 x 20 pixels"):
        decode_image(tmp_path / "y.png")


def test_a_sample_without_supervision_stops_the_run(world):
    samples = read_conversations(world / "mix.json")[:2]
    good, bad = Encoded((1, 2, 3), (IGNORE, 2, 3)), Encoded((1, 2), (IGNORE, IGNORE))
    with pytest.raises(ValueError, match=r"1 of 2 samples have no supervised token.*d1"):
        check_supervision(samples, [good, bad], least_share=0.01)
    with pytest.raises(ValueError, match=r"66\.67%"):
        check_supervision(samples, [good, good], least_share=0.7)
    assert check_supervision(samples, [good, good], least_share=0.1) == pytest.approx(2 / 3)


def embedded(path, tmp_path, world):
    """The conversations of the world in Hugging Face's form: pictures inside, some of them as paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = json.loads((world / "mix.json").read_text())
    cells = []
    for row in rows:
        names = row.get("image") or []
        names = [names] if isinstance(names, str) else names
        cells.append([{"bytes": (world / "images" / name).read_bytes(), "path": None} for name in names])
    cells[0] = [{"bytes": None, "path": rows[0]["image"]}]
    columns = {"id": [r["id"] for r in rows], "images": cells, "conversations": [r["conversations"] for r in rows]}
    pq.write_table(pa.table(columns), path, row_group_size=5)
    return rows


def test_pictures_inside_a_parquet_file_become_files_and_the_samples_stay_what_they_are(tmp_path, world):
    rows = embedded(tmp_path / "mix.parquet", tmp_path, world)
    done = unpack(tmp_path / "mix.parquet", tmp_path / "mix.jsonl", tmp_path / "images")
    before, after = read_conversations(world / "mix.json"), read_conversations(tmp_path / "mix.jsonl")
    assert [(s.id, s.turns) for s in after] == [(s.id, s.turns) for s in before]
    assert after[0].images == (rows[0]["image"],), "a picture that is given as a path stays one"
    for was, sample in zip(before[1:], after[1:], strict=True):
        for old, new in zip(was.images, sample.images, strict=True):
            assert (tmp_path / "images" / new).read_bytes() == (world / "images" / old).read_bytes()
            assert new.endswith(".png")
    assert done == len({name for s in before[1:] for name in s.images})
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "images").rglob("*.png")}
    next(iter(written)).write_bytes(b"cut short")
    unpack(tmp_path / "mix.parquet", tmp_path / "mix.jsonl", tmp_path / "images")
    again = {file: file.stat().st_mtime_ns for file in written}
    assert sum(again[file] != written[file] for file in written) == 1, "what is there is not written again"
    with pytest.raises(ValueError, match="`vlm unpack` writes such pictures"):
        read_conversations(write(tmp_path / "x.json", {"id": "x", "image": {"bytes": "", "path": ""}}))


@pytest.mark.parametrize(("policy", "left", "grey"), [("skip", 7, 0), ("blank", 8, 1)])
def test_a_picture_that_does_not_decode_falls_under_the_policy_without_a_manifest(tmp_path, world, policy, left, grey):
    import shutil

    shutil.copytree(world / "images", tmp_path / "images")
    (tmp_path / "images" / "a" / "2.png").write_bytes(b"\x89PNG not really")
    options = {"images": tmp_path / "images", "bad": policy}
    samples = read_conversations(world / "captions.json", decode=True, **options)
    assert len(samples) == left
    assert samples.bad == {"image_corrupt": 1}
    assert sum(BLANK in sample.images for sample in samples) == grey
    assert len(read_conversations(world / "captions.json", **options)) == 8, "who does not decode does not know"
