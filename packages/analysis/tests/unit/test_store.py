import json

import numpy as np
import pytest
from kd_analysis.store import INDEX, Store


def shelf(tmp_path, tap="pooled"):
    return Store(tmp_path).shelf("a" * 64, tap, "look")


def rows(n, seed=0, width=5):
    return np.random.default_rng(seed).standard_normal((n, width)).astype("float32")


def test_what_was_added_is_there_in_any_order_after_opening_again(tmp_path):
    first, second = rows(4), rows(3, 1)
    shelf(tmp_path).add(["a", "b", "c", "d"], first)
    shelf(tmp_path).add(["e", "f", "g"], second)
    again = shelf(tmp_path)
    assert again.missing(["a", "x", "g"]) == {"x"}
    (found,) = again.blocks(["g", "a", "f", "c"])
    np.testing.assert_array_equal(found, np.stack([second[2], first[0], second[1], first[2]]))
    with pytest.raises(ValueError, match="1 are missing, first x"):
        list(again.blocks(["a", "x"]))


def test_models_taps_and_looks_have_shelves_of_their_own(tmp_path):
    shelf(tmp_path).add(["a"], rows(1))
    assert "a" in shelf(tmp_path)
    assert "a" not in shelf(tmp_path, "embed")
    assert "a" not in Store(tmp_path).shelf("b" * 64, "pooled", "look")
    assert "a" not in Store(tmp_path).shelf("a" * 64, "pooled", "another look")


def test_a_damaged_part_is_left_out_and_read_again(tmp_path, caplog):
    one = shelf(tmp_path)
    one.add(["a", "b"], rows(2))
    one.add(["c"], rows(1, 1))
    part = one.folder / json.loads((one.folder / INDEX).read_text().splitlines()[0])["file"]
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(bytes(data))
    again = shelf(tmp_path)
    assert again.missing(["a", "b", "c"]) == {"a", "b"}
    assert "damaged" in caplog.text
    again.add(["a", "b"], rows(2))
    np.testing.assert_array_equal(next(shelf(tmp_path).blocks(["a", "b"])), rows(2))


def test_a_line_that_a_kill_cut_off_is_skipped_and_the_next_one_stands(tmp_path):
    one = shelf(tmp_path)
    one.add(["a"], rows(1))
    index = one.folder / INDEX
    whole = index.read_bytes()
    one.add(["b"], rows(1, 1))
    index.write_bytes(index.read_bytes()[: len(whole) + 20])
    again = shelf(tmp_path)
    assert again.missing(["a", "b"]) == {"b"}
    again.add(["b"], rows(1, 1))
    assert shelf(tmp_path).missing(["a", "b"]) == set()


def test_two_processes_that_read_the_same_images_do_no_harm(tmp_path):
    one, two = shelf(tmp_path), shelf(tmp_path)
    one.add(["a", "b"], rows(2))
    two.add(["b", "c"], np.concatenate([rows(2)[1:], rows(1, 1)]))
    (found,) = shelf(tmp_path).blocks(["c", "b", "a"])
    np.testing.assert_array_equal(found[1:], rows(2)[::-1])


def test_rows_are_mapped_and_no_pickle_is_read(tmp_path):
    one = shelf(tmp_path)
    one.add(["a"], rows(1))
    again = shelf(tmp_path)
    assert isinstance(again._parts[0], np.memmap)
