import csv

import numpy as np
import pytest
from kd_analysis.comparing import Features
from kd_analysis.gram import gram_cka
from kd_analysis.heatmap import layer_map, write

IDS = tuple(map(str, range(40)))


def layers(widths, seed):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((40, 6))
    return {
        f"trunk.blocks.{i}": Features(IDS, base @ rng.standard_normal((6, w)) + rng.standard_normal((40, w)))
        for i, w in enumerate(widths)
    }


@pytest.mark.parametrize("widest", [9, 60])
def test_every_two_layers_have_their_cka_from_moments_or_gram_matrices(widest):
    one, two = layers([4, widest], 0), layers([7, 5, 8], 1)
    found = layer_map("student", "teacher", one, two, IDS)
    expected = [[gram_cka(x.rows, y.rows) for y in two.values()] for x in one.values()]
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_the_table_and_the_pictures_are_the_same_bytes_each_time(tmp_path):
    one, two = layers([4, 5], 0), layers([7], 1)
    dead = {"trunk.norm": Features(IDS, np.ones((40, 3)))}
    found = layer_map("student", "teacher", one | dead, two, IDS)
    for place in ("a", "b"):
        write(found, tmp_path / place)
    for name in ("heatmap.csv", "heatmap.svg", "heatmap.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    lines = list(csv.DictReader((tmp_path / "a" / "heatmap.csv").open()))
    assert [float(x["value"]) for x in lines[:2]] == [float(v) for v in found.values[:2, 0]]
    assert lines[2]["value"] == ""
