"""ImageNet-1k's names, templates and class order; a real image of each class where it is present."""

import csv
import json
import os
from pathlib import Path

import pytest
from kd_evalsuite.items import DataError
from kd_evalsuite.zeroshot import imagenet
from kd_evalsuite.zeroshot.sets import open_set

CASES = json.loads(Path(__file__).with_name("eval_cases.json").read_text())["sections"]["zeroshot"]
ROOT = Path(__file__).resolve().parents[4]
SAMPLE = Path(os.environ.get("KD_REAL_DATA", ROOT.parent / "shared" / "data")) / "imagenet_1k_sample"


def test_names_and_templates_are_the_published_ones():
    said = next(c for c in CASES if c["kind"] == "metadata")["score"]
    names = imagenet.names()
    assert (len(names), len(set(names))) == (said["classnames"], said["distinct"])
    assert imagenet.shared_names(names) == said["duplicates"]
    assert len(imagenet.templates("imagenet")) == said["templates"]
    assert len(imagenet.templates("simple")) == said["simple_templates"]
    assert all("{c}" in t for t in imagenet.templates("imagenet"))
    assert names[0] == "tench"


@pytest.mark.skipif(not SAMPLE.exists(), reason=f"no real data at {SAMPLE}")
def test_real_images_in_folders_of_wordnet_ids_get_the_right_class(tmp_path):
    with (SAMPLE / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["wnid"] for row in rows] == list(imagenet.class_numbers())
    some = rows[::50]
    for row in some:
        folder = tmp_path / "val" / row["wnid"]
        folder.mkdir(parents=True)
        (folder / row["file"]).symlink_to(SAMPLE / "short256" / row["file"])
    data = open_set(tmp_path, names="imagenet", templates="imagenet")
    assert (data.layout, len(data.names), len(data.templates)) == ("ImageFolder", 1000, 80)
    assert [s.label for s in data] == [int(row["class_index"]) for row in some]
    (tmp_path / "val/n00000001").mkdir()
    with pytest.raises(DataError, match="n00000001 is no class of ImageNet-1k"):
        open_set(tmp_path, names="imagenet", templates="imagenet")
