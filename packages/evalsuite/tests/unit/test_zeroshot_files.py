import io
import json
import tarfile

import numpy as np
import pytest
import torch
from kd_evalsuite.items import DataError
from kd_evalsuite.zeroshot import imagenet
from kd_evalsuite.zeroshot.classify import Embedded, load_embedded, save_embedded
from kd_evalsuite.zeroshot.config import check_config
from kd_evalsuite.zeroshot.sets import open_set

MODEL = {"embed_dim": 8, "vision_cfg": {"layers": 1}, "text_cfg": {"width": 8}}


def folder_with(tmp_path, config):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    return tmp_path


def test_a_configuration_that_stands_on_its_own_is_accepted(tmp_path):
    config = {"model_cfg": MODEL, "preprocess_cfg": {"size": 32}}
    assert check_config(folder_with(tmp_path, config)) == config


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_cfg", "hf_model_name", "org/name"),
        ("text_cfg", "hf_tokenizer_name", "org/name"),
        ("text_cfg", "hf_model_pretrained", True),
        ("vision_cfg", "timm_model_pretrained", True),
        ("vision_cfg", "timm_model_name", "hf-hub:org/name"),
        ("vision_cfg", "unheard_of", 1),
    ],
)
def test_a_configuration_that_could_fetch_something_is_refused(tmp_path, section, key, value):
    config = {"model_cfg": {**MODEL, section: {**MODEL[section], key: value}}}
    with pytest.raises(DataError, match=r"open_clip_config\.json"):
        check_config(folder_with(tmp_path, config))


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(DataError, match="safetensors"):
        check_config(tmp_path)


def write_set(folder, members, *, nshards="1"):
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("cat\ndog\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    (folder / "test/nshards.txt").write_text(nshards)
    with tarfile.open(folder / "test/0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder


def test_samples_are_read_in_order(tmp_path):
    data = open_set(write_set(tmp_path, [("a.cls", b"1"), ("a.jpg", b"x"), ("b.jpg", b"y"), ("b.cls", b"0\n")]))
    assert [(s.key, s.image, s.label) for s in data] == [("a", b"x", 1), ("b", b"y", 0)]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.jpg", b"x")], "no label"),
        ([("a.cls", b"1")], "no image"),
        ([("a.cls", b"2"), ("a.jpg", b"x")], "class below 2"),
        ([("a.cls", b"-1"), ("a.jpg", b"x")], "class below 2"),
        ([("\udcff.cls", b"1"), ("\udcff.jpg", b"x")], r"udcff: a name that is not UTF-8"),
    ],
)
def test_incomplete_samples_are_named(tmp_path, members, said):
    with pytest.raises(DataError, match=said):
        list(open_set(write_set(tmp_path, members)))


def test_a_missing_shard_and_a_cut_one_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"1\.tar is missing"):
        open_set(write_set(tmp_path / "a", [("a.cls", b"1"), ("a.jpg", b"x")], nshards="2"))
    folder = write_set(tmp_path / "b", [("a.cls", b"1"), ("a.jpg", b"x" * 4000)])
    whole = (folder / "test/0.tar").read_bytes()
    (folder / "test/0.tar").write_bytes(whole[:2000])
    with pytest.raises(DataError):
        list(open_set(folder))


def test_a_template_needs_its_place(tmp_path):
    folder = write_set(tmp_path, [])
    (folder / "zeroshot_classification_templates.txt").write_text("a photo\n")
    with pytest.raises(DataError, match="a photo"):
        open_set(folder)


def test_a_tokenizer_of_the_folder_is_accepted_and_one_of_the_hub_is_not(tmp_path):
    config = {"model_cfg": {**MODEL, "text_cfg": {"width": 8, "hf_tokenizer_name": "org/name"}}}
    folder = folder_with(tmp_path, config)
    with pytest.raises(DataError, match=r"needs tokenizer\.json and tokenizer_config\.json in the folder"):
        check_config(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    assert check_config(folder) == config


def test_embeddings_are_kept_for_the_same_files_and_numbering_of_classes_whatever_these_are_called(tmp_path):
    wnids = list(imagenet.class_numbers())[500:502]
    for wnid in wnids:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    (tmp_path / "val" / wnids[1] / "a.png").write_bytes(b"x")
    templates = tmp_path / "zeroshot_classification_templates.txt"
    templates.write_text("a {c}\n")
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    own = open_set(tmp_path)
    thousand = open_set(tmp_path, names="imagenet")
    assert ([s.label for s in own], [s.label for s in thousand]) == ([1], [501])
    (tmp_path / "classnames.txt").write_text("tom cat\ndog\n")
    templates.write_text("the {c}\n")
    reworded = open_set(tmp_path)
    (tmp_path / "val" / wnids[0]).rename(tmp_path / "val" / "o-behind-the-other")  # without an image
    renumbered = open_set(tmp_path)
    assert reworded.fingerprint == own.fingerprint
    assert len({own.fingerprint, thousand.fingerprint, renumbered.fingerprint}) == 3


def test_embeddings_of_shards_are_others_where_the_set_has_other_classes(tmp_path):
    folder = write_set(tmp_path, [("a.cls", b"1"), ("a.jpg", b"x")])
    two = open_set(folder).fingerprint
    (folder / "classnames.txt").write_text("cat\n")
    assert open_set(folder).fingerprint != two


def test_what_is_no_whole_file_of_embeddings_is_refused(tmp_path):
    whole, damaged = tmp_path / "whole.npz", tmp_path / "damaged.npz"
    save_embedded(whole, Embedded(torch.eye(3), torch.tensor([2, 0, 1]), ("a", "b", "c"), "0" * 64))
    assert load_embedded(whole).labels.tolist() == [2, 0, 1]
    content = whole.read_bytes()
    flipped = bytearray(content)
    flipped[200] ^= 1  # within the first array
    for bad in (b"", content[:40], content[: len(content) // 2], content[:-1], bytes(flipped), b"not a zip"):
        damaged.write_bytes(bad)
        with pytest.raises(DataError, match=r"damaged\.npz: not a file of embeddings .*; remove it"):
            load_embedded(damaged)
    np.save(damaged.with_suffix(".npy"), np.eye(3))
    with pytest.raises(DataError, match="not a file of embeddings"):
        load_embedded(damaged.with_suffix(".npy"))


@pytest.mark.parametrize(
    ("z", "labels", "keys"),
    [
        (torch.full((2, 3), torch.nan), torch.tensor([0, 1]), ("a", "b")),
        (torch.zeros(2, 3), torch.tensor([0, 1, 2]), ("a", "b")),
        (torch.zeros(2, 3), torch.tensor([0, 1]), ("a",)),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), ("a", "b")),
        (torch.zeros(6), torch.tensor([0]), ("a",)),
        (torch.zeros(0, 3), torch.tensor([], dtype=torch.int64), ()),
    ],
)
def test_kept_embeddings_that_do_not_fit_their_labels_are_refused(tmp_path, z, labels, keys):
    save_embedded(tmp_path / "a.npz", Embedded(z, labels, keys, "0" * 64))
    with pytest.raises(DataError, match=r"expected finite embeddings \(n, d\) with n labels and n keys"):
        load_embedded(tmp_path / "a.npz")


def test_folders_and_tables_that_do_not_fit_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    with pytest.raises(DataError, match="expected tar files, parquet files, or one folder of images a class"):
        open_set(tmp_path)
    (tmp_path / "val/cat").mkdir(parents=True)
    with pytest.raises(DataError, match="expected 2 folders, one a class, found 1"):
        open_set(tmp_path)
    for rows, said in (
        ([{"image": {"bytes": b"x"}}], "expected columns label; found image"),
        ([{"image": {"bytes": b"x"}, "label": 2}], "row 0: expected a class below 2, got 2"),
        ([{"image": {"bytes": None, "path": "x"}, "label": 1}], "row 0 has no image"),
    ):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
        with pytest.raises(DataError, match=said):
            list(open_set(tmp_path))
    with pytest.raises(DataError, match="set names and templates to `imagenet`"):
        open_set(tmp_path / "val")
