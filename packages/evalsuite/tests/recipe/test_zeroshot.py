"""Zero-shot classification against a direct computation with open_clip."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from kd_evalsuite.cli import app
from PIL import Image
from typer.testing import CliRunner

from packages.evalsuite.tests.helpers import models

pytestmark = pytest.mark.recipe
NAMES = [f"{c} {s}" for c in ("red", "green", "blue") for s in ("square", "circle")]
TEMPLATES = ["a {c}", "a photo of the {c}"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two encoders and a set of 40 noisy images over two shards."""
    root = tmp_path_factory.mktemp("zeroshot")
    encoders = [models.clip(root / f"student-{k}", seed=k) for k in range(2)]
    rng = np.random.default_rng(0)
    data = root / "classes"
    (data / "test").mkdir(parents=True)
    (data / "classnames.txt").write_text("\n".join(NAMES) + "\n")
    (data / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    (data / "test/nshards.txt").write_text("2\n")
    samples = []
    for shard in range(2):
        with tarfile.open(data / f"test/{shard}.tar", "w") as tar:
            for k in range(20):
                image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
                stream = io.BytesIO()
                image.save(stream, "PNG")
                label = int(rng.integers(len(NAMES)))
                samples.append((image, label))
                for name, content in (
                    (f"s{shard}{k:03d}.cls", str(label).encode()),
                    (f"s{shard}{k:03d}.png", stream.getvalue()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (root / "params.yaml").write_text(f"evalsuite:\n  data: {root}\n  zeroshot: {{data: {data}, batch_size: 7}}\n")
    return root, encoders, samples


@torch.no_grad()
def directly(folder, samples):
    """Hits at 1 and 5, one image and one class at a time."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    columns = []
    for name in NAMES:
        z = torch.stack([model.encode_text(tokenize([t.format(c=name)]))[0] for t in TEMPLATES])
        mean = (z / z.norm(dim=-1, keepdim=True)).mean(dim=0)
        columns.append(mean / mean.norm())
    weights = torch.stack(columns, dim=1)
    hits = []
    for image, label in samples:
        z = model.encode_image(preprocess(image)[None])[0]
        order = (z @ weights).argsort(descending=True).tolist()
        hits.append((order[0] == label, label in order[:5]))
    return np.array(hits)


def test_top1_and_top5_are_those_of_a_direct_computation(world, tmp_path):
    root, encoders, samples = world
    flags = [part for folder in encoders for part in ("--model", str(folder))]
    done = CliRunner().invoke(app, ["zeroshot", "--params", str(root / "params.yaml"), *flags, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for folder in encoders:
        hits = directly(folder, samples)
        scores = json.loads((tmp_path / folder.name / "scores.json").read_text())
        rows = [json.loads(line) for line in (tmp_path / folder.name / "items.jsonl").read_text().splitlines()]
        assert [(r["score"], r["top5"]) for r in rows] == [tuple(map(float, h)) for h in hits]
        top1, top5 = scores["scores"]
        assert (top1["metric"], top5["metric"]) == ("top1", "top5")
        assert top1["value"] == pytest.approx(hits[:, 0].mean())
        assert top5["value"] == pytest.approx(hits[:, 1].mean())
        assert top1["stderr"] == pytest.approx(hits[:, 0].std(ddof=1) / len(hits) ** 0.5)
        assert (top1["chance"], top5["chance"]) == (pytest.approx(1 / 6), pytest.approx(5 / 6))
        assert scores["model"]["name"] == folder.name
