import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kd_analysis import images
from kd_analysis.images import ImageError, encoded_images, read_pictures
from kd_analysis.store import Decoded
from PIL import Image


def picture(seed, fmt="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(out, fmt)
    return out.getvalue()


def under(root, *tasks):
    return {task: root / task for task in tasks}


def table(path, images, column="image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [None if i is None else {"bytes": i, "path": "x.png"} for i in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"question": ["q"] * len(cells), column: pa.array(cells, kind)}), path)


def test_an_image_asked_about_twice_counts_once_also_across_tasks_and_encodings(tmp_path):
    table(tmp_path / "gqa" / "images" / "a.parquet", [picture(0), picture(1), picture(0), None])
    (tmp_path / "mmvp" / "MMVP Images").mkdir(parents=True)
    (tmp_path / "mmvp" / "MMVP Images" / "1.png").write_bytes(picture(1))
    (tmp_path / "mmvp" / "MMVP Images" / "2.webp").write_bytes(picture(2))
    (tmp_path / "mmvp" / "MMVP Images" / "3.bmp").write_bytes(picture(1, "BMP"))
    (tmp_path / "mmvp" / "Questions.csv").write_text("Index\n1\n")
    found = read_pictures(under(tmp_path, "gqa", "mmvp"))
    assert {t: len(i) for t, i in found.tasks.items()} == {"gqa": 2, "mmvp": 2}
    assert found.rows == {"gqa": 3, "mmvp": 3}
    assert len(found.ids) == 3
    assert len(set(found.tasks["gqa"]) & set(found.tasks["mmvp"])) == 1


def test_several_images_in_a_cell_and_a_column_are_all_read(tmp_path):
    kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    cells = pa.array([[{"bytes": picture(k), "path": None} for k in range(3)], []], kind)
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    assert len(list(encoded_images(tmp_path))) == 3


def test_the_cap_keeps_the_same_images_in_any_order_of_rows(tmp_path):
    images = [picture(k) for k in range(9)]
    table(tmp_path / "a" / "x.parquet", images)
    table(tmp_path / "b" / "x.parquet", images[::-1])
    found = read_pictures(under(tmp_path, "a", "b"), max_per_task=4)
    assert found.tasks["a"] == found.tasks["b"]
    assert len(found.ids) == 4


def test_a_folder_without_images_and_a_broken_image_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty"):
        read_pictures(under(tmp_path, "empty"))
    table(tmp_path / "broken" / "x.parquet", [b"no image"])
    with pytest.raises(ImageError, match=r"x\.parquet, column image, row 0"):
        read_pictures(under(tmp_path, "broken"))


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(0))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (tmp_path / "task").mkdir()
    cells = pa.array([{"bytes": None, "path": "../secret.png"}], kind)
    pq.write_table(pa.table({"image": cells}), tmp_path / "task" / "a.parquet")
    with pytest.raises(ImageError, match="inside"):
        list(encoded_images(tmp_path / "task"))


def shard(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_shards_are_read_from_a_folder_or_by_a_pattern(tmp_path):
    shard(tmp_path / "pairs" / "00000.tar", {"a.png": picture(0), "a.txt": b"a", "b.png": picture(1)})
    shard(tmp_path / "pairs" / "00001.tar", {"c.png": picture(0), "../d.png": picture(2)})
    for source in (tmp_path / "pairs", tmp_path / "pairs" / "0000*.tar"):
        found = read_pictures({"pairs": source})
        assert (found.rows["pairs"], len(found.ids)) == (4, 3)
    (tmp_path / "pairs" / "00002.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ImageError, match="00002"):
        read_pictures({"pairs": tmp_path / "pairs"})


def test_images_that_do_not_fit_are_decoded_again_and_are_the_same(tmp_path, monkeypatch):
    for k in range(200):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{k:03}.png").write_bytes(picture(k % 150))
    held = {
        i: p.tobytes()
        for i, p in read_pictures(under(tmp_path, "a")).stream(set(read_pictures(under(tmp_path, "a")).ids))
    }
    monkeypatch.setattr(images, "HELD_BYTES", 5 * 8 * 8 * 3)
    found = read_pictures(under(tmp_path, "a"))
    again = list(found.stream(set(found.ids)))
    assert len(again) == len(held) == 150
    assert {i: p.tobytes() for i, p in again} == held
    some = set(found.ids[::7])
    assert {i for i, _ in found.stream(some)} == some


def test_an_image_that_was_decoded_once_is_known_again(tmp_path, monkeypatch):
    table(tmp_path / "a" / "x.parquet", [picture(k) for k in range(5)])
    first = read_pictures(under(tmp_path, "a"), known=Decoded(tmp_path / "decoded.jsonl"))
    with (tmp_path / "decoded.jsonl").open("ab") as torn:
        torn.write(b'{"bytes": "12')
    monkeypatch.setattr(images, "_decoded", None)
    again = read_pictures(under(tmp_path, "a"), known=Decoded(tmp_path / "decoded.jsonl"))
    assert again.tasks == first.tasks
