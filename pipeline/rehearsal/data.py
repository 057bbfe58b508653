"""The embedded world in the place and the form of the study's data sets."""

import json
import tarfile
from pathlib import Path

from pipeline.data.derive import make
from pipeline.data.spec import read_spec

DERIVED = ("cc12m", "cc12m-val", "captions-llava", "captions-bunny")


def lay_out(world: Path, datasets: Path) -> None:
    """Move a world that `python -m world` wrote to where studies/paper reads its data.

    Args:
        world: Its folder; empty afterwards.
        datasets: Holds no data yet.
    """
    datasets.mkdir(parents=True, exist_ok=True)
    chat = world / "chat"
    (world / "pairs").rename(datasets / "cc12m-shards")
    _append(world / "pairs_test", datasets / "cc12m-shards")
    (world / "benchmarks").rename(datasets / "benchmarks")
    _pretraining(chat / "llava_pretrain", datasets)
    _finetuning(chat / "mix665k" / "images", datasets / "mix665k")
    (chat / "mix665k" / "llava_v1_5_mix665k.json").rename(datasets / "mix665k" / "llava_v1_5_mix665k.json")
    bunny = datasets / "bunny" / "finetune"
    (chat / "bunny").rename(bunny)
    _imagenet(world / "classes", datasets / "imagenet" / "val")


def _append(more: Path, shards: Path) -> None:
    """Move shards behind others."""
    first = len(list(shards.glob("*.tar")))
    for number, tar in enumerate(sorted(more.glob("*.tar")), first):
        tar.rename(shards / f"{number:05d}.tar")
        tar.with_name(f"{tar.stem}_stats.json").rename(shards / f"{number:05d}_stats.json")


def _pretraining(folder: Path, datasets: Path) -> None:
    """Every other sample is LLaVA-Pretrain's, the others are Bunny's."""
    samples = json.loads((folder / "blip_laion_cc_sbu_558k.json").read_text())
    for name, home, file in (
        ("llava", datasets / "llava-pretrain", "blip_laion_cc_sbu_558k.json"),
        ("bunny", datasets / "bunny" / "pretrain", "bunny_pretrain_laion_2m.json"),
    ):
        own = samples[name == "bunny" :: 2]
        for sample in own:
            place = home / "images" / sample["image"]
            place.parent.mkdir(parents=True, exist_ok=True)
            (folder / "images" / sample["image"]).rename(place)
        (home / file).write_text(json.dumps(own))


def derive(study: Path) -> None:
    """What a fetch makes of other data sets: the split of the shards, and captions as tables.

    Args:
        study: Folder of the study; data sets lie where its `data.yaml` says, seen from the current folder.
    """
    spec = read_spec(study / "data.yaml", [])
    for name in DERIVED:
        for line in make(spec, name):
            print(f"  {line}", flush=True)


def _finetuning(images: Path, home: Path) -> None:
    """The folders of the image sets, beside the JSON file as LLaVA has them."""
    home.mkdir()
    for folder in images.iterdir():
        folder.rename(home / folder.name)


def _imagenet(classes: Path, home: Path) -> None:
    """The pictures of the world's classes as the first of ImageNet's, a folder each; the names then do not fit."""
    from kd_evalsuite.zeroshot.imagenet import class_numbers

    wnids = list(class_numbers())
    shard = next((classes / "test").glob("*.tar"))
    with tarfile.open(shard) as tar:
        content = {m.name: stream.read() for m in tar if (stream := tar.extractfile(m))}
    for name, label in content.items():
        if name.endswith(".cls"):
            key = name.removesuffix(".cls")
            folder = home / wnids[int(label)]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"ILSVRC2012_val_{int(key[1:]) + 1:08d}.JPEG").write_bytes(content[f"{key}.jpg"])
