"""Encoders as open_clip saves them, their features, and `analysis cka` from images to the file."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kd_analysis.cka import linear_cka
from kd_analysis.cli import app
from kd_analysis.gram import gram_cka
from kd_analysis.moments import Moments
from kd_analysis.similarity import read_records
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe


@pytest.mark.parametrize("arch", ["vit", "conv", "head"])
def test_the_embed_tap_is_what_open_clip_gives_and_pooled_comes_before_the_head(tmp_path, arch, save, images, read):
    import open_clip
    import torch
    from kd_analysis import features

    folder = save(tmp_path / arch, arch, 0)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.inference_mode():
        batch = torch.stack([preprocess(i) for i in images()])
        expected = model.eval().encode_image(batch, normalize=True).numpy()
    encoder = {"e": features.load(folder)}
    embed, pooled = (read(encoder, images(), tap)["e"] for tap in ("embed", "pooled"))
    np.testing.assert_allclose(embed, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embed, axis=1), 1, atol=1e-5)
    weight = {
        "vit": lambda v: v.proj.T,
        "conv": lambda v: v.head.proj.weight,
        "head": lambda v: v.trunk.get_classifier().weight,
    }[arch](model.visual)
    bias = model.visual.trunk.get_classifier().bias.detach().numpy() if arch == "head" else 0
    raw = pooled @ weight.detach().numpy().T + bias
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), expected, atol=1e-5)


def test_each_encoder_sees_its_own_preprocessing(tmp_path, save, images, read):
    from kd_analysis import features

    light = features.load(save(tmp_path / "light", "vit", 0, mean=0.5))
    dark = features.load(save(tmp_path / "dark", "vit", 0, mean=0.1))
    together = read({"light": light, "dark": dark}, images(), "pooled")
    assert np.abs(together["light"] - together["dark"]).max() > 1e-3
    np.testing.assert_array_equal(together["dark"], read({"dark": dark}, images(), "pooled")["dark"])


def test_an_untrained_student_depends_on_the_seed_alone_and_leaves_the_generator(tmp_path, save, images, read):
    import torch
    from kd_analysis import towers

    folder = save(tmp_path / "a", "vit", 0)
    before = torch.random.get_rng_state()
    first, again, other = (towers.untrained(folder, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    found = read({"first": first, "again": again, "other": other}, images(), "pooled")
    np.testing.assert_array_equal(found["first"], found["again"])
    assert np.abs(found["first"] - found["other"]).max() > 1e-3


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "timm_model_pretrained", True),
        ("vision_cfg", "timm_model_name", "hf-hub:somebody/model"),
        ("text_cfg", "hf_model_name", "roberta"),
    ],
)
def test_a_config_that_would_download_is_refused(tmp_path, part, key, value, save):
    from kd_analysis import features

    folder = save(tmp_path / "a", "conv", 0)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"][part][key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="expected"):
        features.load(folder)


def test_cka_from_images_to_the_file_with_every_control(tmp_path, params_file, save, images, read):
    for task, some in (("gqa", images(10)), ("mmvp", images(12))):
        cells = []
        for image in some:
            out = io.BytesIO()
            image.save(out, "PNG")
            cells.append({"bytes": out.getvalue(), "path": None})
        (tmp_path / "bench" / task).mkdir(parents=True)
        pq.write_table(pa.table({"image": cells * 2}), tmp_path / "bench" / task / "test.parquet")
    student = save(tmp_path / "student-vit--large--kd", "vit", 1)
    teachers = [save(tmp_path / "teacher-large", "conv", 2), save(tmp_path / "teacher-small", "vit", 3)]
    call = [
        "cka",
        "--params",
        params_file(benchmarks=str(tmp_path / "bench"), store=str(tmp_path / "store")),
        "--out",
        tmp_path / "out",
    ]
    for teacher in teachers:
        call += ["--student", student, "--teacher", teacher]
    done = CliRunner().invoke(app, [str(a) for a in call])
    assert done.exit_code == 0, done.output
    records = read_records(tmp_path / "out" / "cka.json")
    assert {r.relation for r in records} == {"own teacher", "other teacher", "untrained", "teachers"}
    assert {(r.task, r.n) for r in records} == {("gqa", 10), ("mmvp", 12)}
    own = next(r for r in records if r.relation == "own teacher" and r.task == "mmvp" and r.estimator == "debiased")
    assert own.low < own.value < own.high
    state = Moments.load(
        tmp_path / "out" / "states" / "pooled" / "student-vit--large--kd--vs--teacher-large" / "mmvp.npz"
    )
    assert linear_cka(state).value == own.value

    from kd_analysis import features

    both = {"s": features.load(student), "t": features.load(teachers[0])}
    found = read(both, images(12), "pooled")
    assert gram_cka(found["s"], found["t"]) == pytest.approx(own.value, abs=1e-6)
