"""The paper's data sets in their true layouts, a few pictures each, as the hub and the other servers serve them."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from kd_evalsuite.tasks import TASKS
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
SMALL = {
    "pairs": {"train": 40, "test": 8, "shard_size": 10},
    "classes": {"images_per_class": 1},
    "benchmarks": {"items": 24},
    "chat": {"llava_pretrain": 12, "mix665k": 30, "bunny": 12},
    "text": {"lines": 30},
}
ZIPS = {"train2017": "coco", "gqa": "gqa", "textvqa": "textvqa", "vg-1": "vg/VG_100K", "vg-2": "vg/VG_100K_2"}
WORDNET = ("n01440764", "n01443537")


def serve_world(home: Path) -> Path:
    """Draw a small world in `home`, and arrange it as the servers have it; what has to come by hand stays in `hand`."""
    params = YAML(typ="safe").load(ROOT / "params.yaml")["world"]
    for part, values in SMALL.items():
        params[part] |= values
    YAML().dump({"world": params}, home / "world.yaml")
    world, served, hand = home / "world", home / "served", home / "hand"
    command = [sys.executable, "-m", "world", "--params", str(home / "world.yaml"), "--out", str(world)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    shards = served / "pixparse" / "cc12m-wds"
    shards.mkdir(parents=True)
    for shard in sorted((world / "pairs").glob("*.tar")):
        shutil.copy(shard, shards / f"cc12m-train-{int(shard.stem):04}.tar")
    _conversations(world / "chat", served)
    for key, task in TASKS.items():
        shutil.copytree(world / "benchmarks" / key, served / task.hub.dataset, dirs_exist_ok=True)
    shutil.copytree(world / "chat" / "mix665k" / "images" / "ocr_vqa", hand / "ocr_vqa")
    picture = next((world / "chat" / "llava_pretrain" / "images").rglob("*.jpg"))
    for name in WORDNET:
        (hand / "val" / name).mkdir(parents=True)
        shutil.copy(picture, hand / "val" / name / "ILSVRC2012_val_00000293.JPEG")
    return served


def _conversations(chat: Path, served: Path) -> None:
    llava, instruct = served / "liuhaotian" / "LLaVA-Pretrain", served / "liuhaotian" / "LLaVA-Instruct-150K"
    bunny, pictures = served / "BoyaWu10" / "Bunny-v1_1-data", chat / "llava_pretrain" / "images"
    for folder in (llava, instruct, bunny / "pretrain", bunny / "finetune", served / "zips"):
        folder.mkdir(parents=True)
    pretrain = chat / "llava_pretrain" / "blip_laion_cc_sbu_558k.json"
    shutil.copy(pretrain, llava)
    shutil.copy(pretrain, bunny / "pretrain" / "bunny_pretrain_laion_2m.json")
    shutil.copy(chat / "mix665k" / "llava_v1_5_mix665k.json", instruct)
    shutil.copy(chat / "bunny" / "bunny_695k.json", bunny / "finetune")
    _zip(llava / "images.zip", pictures, pictures)
    for name, folder in ZIPS.items():
        inside = chat / "mix665k" / "images" / folder
        _zip(served / "zips" / f"{name}.zip", inside, chat / "mix665k" / "images" / folder.partition("/")[0])
    for stage, images in (("pretrain", pictures), ("finetune", chat / "bunny" / "images")):
        _tar_in_parts(bunny / stage, images)


def _zip(file: Path, folder: Path, root: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for picture in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(picture, picture.relative_to(root))


def _tar_in_parts(folder: Path, images: Path) -> None:
    whole = folder / "whole"
    with tarfile.open(whole, "w:gz") as archive:
        archive.add(images, "images")
    data = whole.read_bytes()
    whole.unlink()
    for n, start in enumerate(range(0, len(data), len(data) // 3 + 1)):
        (folder / f"images.tar.gz.part-a{'abc'[n]}").write_bytes(data[start : start + len(data) // 3 + 1])


def papers_data(file: Path, home: Path, server: str) -> Path:
    """The paper's own data.yaml with other hosts, sizes and folders, written to `file`."""
    yaml = YAML()
    whole: dict[str, Any] = yaml.load(ROOT / "studies" / "paper" / "data.yaml")
    data = whole["data"]
    data["root"], data["manifests"] = str(home / "datasets"), str(home / "manifests")
    sets = data["datasets"]
    zips = [source for source in sets["mix665k"]["sources"] if "url" in source]
    for name, source in zip(ZIPS, zips, strict=True):
        source["url"] = f"{server}/zips/{name}.zip"
    for name, rows in {"llava-pretrain": 12, "captions-llava": 12, "mix665k": 30}.items():
        sets[name]["holds"]["counts"] = {"rows": rows}
    sets["mix665k"]["holds"]["may_lack"] = 0
    sets["imagenet-val"]["holds"]["counts"] = {"classes": 2, "pictures": 2}
    sets["benchmarks"]["holds"]["complete"] = False
    yaml.dump(whole, file)
    return file


def environment(hub: str) -> dict[str, str]:
    """Of a process that asks `hub`, as somebody who has set nothing else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {"HF_ENDPOINT": hub, "COLUMNS": "200"}
