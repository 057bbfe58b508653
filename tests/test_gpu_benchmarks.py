"""The benchmarks for GPUs, on a CPU at tiny sizes: the same code, and operations that can be counted by hand."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.figures import read

HERE = str(Path(__file__).resolve().parents[1] / "benchmarks")
TEXT = {"context_length": 77, "vocab_size": 60, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture
def figures_of(monkeypatch, capsys):
    """Runs a benchmark's `main`; what it found, by what it says of it."""
    monkeypatch.setattr(sys, "path", [*sys.path, HERE])  # as a script has it, but for the order

    def run(name, *arguments):
        import_module(name).main(["--device", "cpu", "--precision", "fp32", "--product", "64", *arguments])
        return {figure.what: figure for figure in read(capsys.readouterr().out)}

    return run


def clip(path, width):
    vision = {"image_size": 32, "layers": 2, "width": width, "head_width": 8, "patch_size": 8}
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}))
    return str(path)


def test_a_distillation_step_online_and_cached(figures_of, tmp_path):
    student, teacher = clip(tmp_path / "small.json", 16), clip(tmp_path / "large.json", 64)
    found = figures_of("gpu_distill_step", "--student", student, "--teacher", teacher, "--batch", "4", "--repeats", "1")
    assert list(found) == [
        "distillation step, large, batch 4, online",
        "distillation step, large, batch 4, cached",
        "cached over online, large, batch 4",
    ]
    for side in ("online", "cached"):
        figure = found[f"distillation step, large, batch 4, {side}"]
        assert figure.value > 0
        assert figure.limit > 0
        assert "pairs/s" in figure.seen
    assert found["cached over online, large, batch 4"].limit > 1


def test_operations_of_a_tower_are_those_of_its_products(figures_of, tmp_path):
    figures_of("gpu_distill_step", "--student", clip(tmp_path / "s.json", 16), "--teacher")  # makes it importable
    flops = import_module("distill_cached_step").flops
    config = json.loads(Path(clip(tmp_path / "some.json", 64)).read_text())
    own, teacher = flops(config, config)
    tokens, width = 16 + 1, 64
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width  # products with weights; attention's two
    text = 2 * 77 * 12 * 16**2 + 4 * 77**2 * 16
    ends = 2 * 16 * 3 * 8 * 8 * width + 2 * width * 16 + 2 * 16 * 16  # patches, the two projections
    assert teacher == pytest.approx(2 * block + text + ends, rel=0.02)
    assert own == pytest.approx(3 * teacher, rel=0.1)


def test_a_finetuning_step_of_a_vlm_in_buckets_and_packed(figures_of):
    small = ["--samples", "4", "--rows", "2", "--longest", "60", "--width", "64", "--layers", "1"]
    found = figures_of("gpu_vlm_step", *small, "--per-image", "4", "--repeats", "1")
    for sampler in ("buckets", "packing"):
        what = f"finetuning step, {sampler}, 1 layers of 64"
        assert found[f"{what}: tokens"].value > 0
        assert found[f"{what}: MFU"].value > 0
        # the head over 151,936 words is most of the work here, and no part of the MFU
        every = found[f"{what}: all operations"]
        assert every.value > found[f"{what}: MFU"].value / 100 * every.limit
