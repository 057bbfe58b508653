"""What the paper's declaration of data says is read, refused with a place, and is all that its stages read."""

from pathlib import Path

import pytest
from kd_distill.params import ParamsError

from pipeline.data.spec import read_spec

PAPER = Path(__file__).parents[2] / "studies" / "paper" / "data.yaml"


def test_the_papers_data_are_read_and_a_wrong_key_is_refused_with_its_line_and_the_nearest(tmp_path):
    assert set(read_spec(PAPER).datasets) >= {"cc12m", "cc12m-val", "llava-pretrain", "mix665k", "benchmarks"}
    for right, wrong, said in (
        ("may_lack: 400", "may_lak: 400", "may_lak: unknown key; did you mean 'may_lack'"),
        ("{rows: 558128}", "{row: 558128}", "conversations are counted in pictures, rows, text_only, not in 'row'"),
        ("last: 2}", "last: 2, url: http://x/y}", "expected exactly one of"),
        ("shards_of: cc12m-shards, last", "shards_of: cc12m-shard, last", "does not stand before it"),
        ("folder: cc12m-val", "folder: ../cc12m-val", "expected a path below the root"),
    ):
        text = PAPER.read_text()
        assert right in text
        (tmp_path / "data.yaml").write_text(text.replace(right, wrong, 1))
        with pytest.raises(ParamsError, match=said) as error:
            read_spec(tmp_path / "data.yaml")
        assert str(error.value).startswith(f"{tmp_path / 'data.yaml'}:")


def test_every_folder_that_the_papers_stages_read_is_of_a_data_set():
    from pipeline.plan import read

    spec = read_spec(PAPER)
    named = {str(spec.folder(name)) for name in spec.datasets}

    def paths(node):
        if isinstance(node, dict | list):
            for inner in node.values() if isinstance(node, dict) else node:
                yield from paths(inner)
        elif isinstance(node, str) and node.startswith("datasets/"):
            yield node

    for file in ("params.yaml", "bunny/params.yaml"):
        found = set(paths(read(PAPER.parent / file)))
        assert found
        assert all(any(path == folder or path.startswith(f"{folder}/") for folder in named) for path in found)
