import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kd_analysis.images import ImageError, encoded_images, read_pictures
from PIL import Image


def picture(seed, fmt="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(out, fmt)
    return out.getvalue()


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
    found = read_pictures(tmp_path, ["gqa", "mmvp"])
    assert {t: len(i) for t, i in found.tasks.items()} == {"gqa": 2, "mmvp": 2}
    assert found.rows == {"gqa": 3, "mmvp": 3}
    assert len(found.by_id) == 3
    assert len(set(found.tasks["gqa"]) & set(found.tasks["mmvp"])) == 1


def test_several_images_in_a_cell_and_a_column_are_all_read(tmp_path):
    kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    cells = pa.array([[{"bytes": picture(k), "path": None} for k in range(3)], []], kind)
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    assert len(encoded_images(tmp_path)) == 3


def test_the_cap_keeps_the_same_images_in_any_order_of_rows(tmp_path):
    images = [picture(k) for k in range(9)]
    table(tmp_path / "a" / "x.parquet", images)
    table(tmp_path / "b" / "x.parquet", images[::-1])
    found = read_pictures(tmp_path, ["a", "b"], max_per_task=4)
    assert found.tasks["a"] == found.tasks["b"]
    assert len(found.by_id) == 4


def test_a_folder_without_images_and_a_broken_image_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty"):
        read_pictures(tmp_path, ["empty"])
    table(tmp_path / "broken" / "x.parquet", [b"no image"])
    with pytest.raises(ImageError, match=r"x\.parquet, column image, row 0"):
        read_pictures(tmp_path, ["broken"])


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(0))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (tmp_path / "task").mkdir()
    cells = pa.array([{"bytes": None, "path": "../secret.png"}], kind)
    pq.write_table(pa.table({"image": cells}), tmp_path / "task" / "a.parquet")
    with pytest.raises(ImageError, match="inside"):
        encoded_images(tmp_path / "task")
