"""Zero-shot classification against a direct computation with open_clip."""

import io
import json
import shutil
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
        top1, top5, recall = scores["scores"]
        assert [s["metric"] for s in scores["scores"]] == ["top1", "top5", "mean_per_class_recall"]
        assert top1["value"] == pytest.approx(hits[:, 0].mean())
        assert top5["value"] == pytest.approx(hits[:, 1].mean())
        assert top1["stderr"] == pytest.approx(hits[:, 0].std(ddof=1) / len(hits) ** 0.5)
        assert (top1["chance"], top5["chance"]) == (pytest.approx(1 / 6), pytest.approx(5 / 6))
        assert scores["model"]["name"] == folder.name
        labels = np.array([label for _, label in samples])
        of_class = [hits[labels == c, 0].mean() for c in set(labels.tolist())]
        assert recall["value"] == pytest.approx(np.mean(of_class))


def in_other_layouts(root, samples):
    """The same images as folders of classes and as a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for k, (image, label) in enumerate(samples):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        file = root / f"folders/val/{label}-{NAMES[label]}/{k:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stream.getvalue())
        rows.append({"image": {"bytes": stream.getvalue(), "path": f"{k}.png"}, "label": label})
    (root / "table/data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "table/data/validation-00000-of-00001.parquet")
    for name in ("folders", "table"):
        (root / name / "classnames.txt").write_text("\n".join(NAMES) + "\n")
        (root / name / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    return root / "folders", root / "table"


def test_the_same_images_as_tar_files_folders_and_parquet_give_the_same_scores(world, tmp_path):
    root, encoders, samples = world
    found = []
    for folder in (root / "classes", *in_other_layouts(tmp_path / "sets", samples)):
        out = tmp_path / "out" / folder.name
        done = CliRunner().invoke(
            app, ["zeroshot", "--model", str(encoders[0]), "--data", str(folder), "--out", str(out)]
        )
        assert done.exit_code == 0, done.output
        found.append(json.loads((out / encoders[0].name / "scores.json").read_text())["scores"])
    for scores in found[1:]:
        assert [s["benchmark_version"] for s in scores] == [s["benchmark_version"] for s in found[0]]
        assert [s["value"] for s in scores] == pytest.approx([s["value"] for s in found[0]])


def test_a_second_evaluation_encodes_no_image(world, tmp_path, monkeypatch):
    root, encoders, _ = world
    command = ["zeroshot", "--params", str(root / "params.yaml"), "--model", str(encoders[0])]
    command += ["--set", f"zeroshot.cache={tmp_path / 'cache'}"]
    first = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "a")])
    assert first.exit_code == 0, first.output

    def never(*_):
        raise AssertionError("encoded an image")

    monkeypatch.setattr("kd_evalsuite.zeroshot.classify.Encoder.embed", never)
    assert CliRunner().invoke(app, [*command, "--out", str(tmp_path / "b")]).exit_code == 0
    for name in ("scores.json", "items.jsonl"):
        a, b = ((tmp_path / k / encoders[0].name / name).read_bytes() for k in "ab")
        assert a == b


@pytest.mark.parametrize(
    ("part", "said"), [("visual.", "the image 's0000' and 6 more"), ("token_embedding", "the class 'red square' and")]
)
def test_an_encoder_whose_embeddings_are_not_finite_gets_no_score(world, tmp_path, part, said):
    from safetensors.torch import load_file, save_file

    root, encoders, _ = world
    weights = load_file(encoders[0] / "open_clip_model.safetensors")
    broken = {k: torch.full_like(v, torch.nan) if k.startswith(part) else v for k, v in weights.items()}
    shutil.copytree(encoders[0], tmp_path / "diverged")
    save_file(broken, tmp_path / "diverged/open_clip_model.safetensors")
    command = ["zeroshot", "--params", str(root / "params.yaml"), "--model", str(tmp_path / "diverged")]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert f"diverged: expected finite embeddings, got NaN or infinity for {said}" in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["zeroshot"], ["run", "--tasks", "zeroshot"]])
def test_an_encoder_of_the_hub_is_fetched_once_and_classifies(world, tmp_path, monkeypatch, command):
    root, encoders, _ = world
    asked = []

    def fetch(text):
        asked.append(text)
        return "owner--clip@0123456789ab", encoders[0]

    monkeypatch.setattr("kd_evalsuite.models.hub.fetch", fetch)
    command = [*command, "--model", "hf:owner/clip", "--data", str(root / "classes"), "--out", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert asked == ["owner/clip"]
    scores = json.loads((tmp_path / "owner--clip@0123456789ab/scores.json").read_text())
    assert (scores["model"]["kind"], scores["model"]["name"]) == ("encoder", "owner--clip@0123456789ab")


def test_the_classifier_is_that_of_open_clip_with_imagenets_80_templates(world):
    import open_clip
    from kd_evalsuite.zeroshot import imagenet
    from kd_evalsuite.zeroshot.classify import Encoder

    _, encoders, _ = world
    encoder = Encoder(encoders[0])
    names = [*imagenet.names()[:3], imagenet.names()[0]]
    mine = encoder.classifier(names, imagenet.templates("imagenet"), 100)
    theirs = open_clip.build_zero_shot_classifier(
        encoder.model, encoder.tokenize, names, open_clip.OPENAI_IMAGENET_TEMPLATES, num_classes_per_batch=2
    )
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6)  # sums of 80 float32 vectors in another order
    assert torch.equal(mine[:, 0], mine[:, 3])


def test_of_two_classes_of_one_name_the_first_wins_and_ranks_are_of_the_true_class():
    from kd_evalsuite.zeroshot.classify import ranks_of

    classifier = torch.eye(3)[:, [0, 1, 1, 2]]  # classes 1 and 2 are the same
    z = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.1, 0.2, 0.9]])
    ranks, nearest = ranks_of(z, torch.tensor([1, 2, 0]), classifier, block=2)
    assert ranks.tolist() == [1, 2, 4]
    assert nearest.tolist() == [1, 1, 3]
