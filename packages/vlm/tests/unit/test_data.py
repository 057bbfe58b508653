import json

import pytest
from kd_vlm.data import check_supervision, decode_image, distinct_images, image_path, read_conversations
from kd_vlm.templates import IGNORE, Encoded, Turn
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
    assert read_conversations(tmp_path / "mix.jsonl") == read_conversations(world / "mix.json")


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


def test_a_picture_that_does_not_decode_or_is_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="decodes"):
        decode_image(tmp_path / "x.jpg")
    Image.new("L", (20, 20)).save(tmp_path / "y.png")
    assert decode_image(tmp_path / "y.png").mode == "RGB"
    monkeypatch.setattr("kd_vlm.data.MAX_PIXELS", 399)
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
