"""The commands about similarity; what takes long is imported by the command that needs it."""

from pathlib import Path
from typing import Annotated

import typer

from kd_analysis.cli_common import DryRun, Overrides, Students, Teachers, guarded, load
from kd_analysis.taps import Precision

Params = Annotated[
    Path | None, typer.Option("--params", help="YAML file with a section `analysis`; params.yaml where there is one.")
]
Out = Annotated[Path, typer.Option("--out", help="Where the similarities go.")]
MapOut = Annotated[Path, typer.Option("--out", help="Where table and picture go.")]
StateOut = Annotated[Path | None, typer.Option("--out", help="Where the merged state goes.")]
Images = Annotated[
    list[str],
    typer.Option(
        "--images",
        metavar="[NAME=]PATH",
        help="A folder of images, webdataset shards (a folder or a pattern), or a benchmark's folder; repeatable.",
    ),
]
Taps = Annotated[
    list[str],
    typer.Option(
        "--tap",
        help="pooled, embed, embed_kd, patch_mean, patch_tokens, vlm_mean, vlm_tokens or layer:NAME; repeatable.",
    ),
]
Measures = Annotated[
    list[str], typer.Option("--measure", help="Another similarity (procrustes, mutual_knn, ...) or all; repeatable.")
]
Heads = Annotated[
    list[str],
    typer.Option(
        "--heads", metavar="[STUDENT=]PATH", help="A checkpoint or file with the heads of embed_kd; repeatable."
    ),
]
Most = Annotated[int | None, typer.Option("--max-images", min=5, help="Images a task at most.")]
Store = Annotated[Path | None, typer.Option("--store", help="Where features stand between runs.")]
FeatureCache = Annotated[
    Path | None, typer.Option("--feature-cache", help="Visual tokens of VLMs that kd-vlm and kd-evalsuite keep.")
]
FeaturePrecision = Annotated[
    Precision | None, typer.Option("--feature-precision", help="Of these tokens; fp32 if not given.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda.")]
Shard = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="Read every N-th image from the I-th on: one process a shard.")
]
States = Annotated[list[Path], typer.Argument(help="States (.npz) of one pair over disjoint images.")]
Layers = Annotated[list[str], typer.Option("--layer", help="Modules of both; repeatable. Default: all blocks.")]
Student = Annotated[str, typer.Option("--student", help="A reference file, models:/name, or a model's folder.")]
Teacher = Annotated[str, typer.Option("--teacher", help="Another one.")]

CKA, HEATMAP = Path("out/cka"), Path("out/heatmap")


@guarded
def cka(
    student: Students = [],  # noqa: B006
    teacher: Teachers = [],  # noqa: B006
    images: Images = [],  # noqa: B006
    tap: Taps = [],  # noqa: B006
    measure: Measures = [],  # noqa: B006
    max_images: Most = None,
    heads: Heads = [],  # noqa: B006
    store: Store = None,
    feature_cache: FeatureCache = None,
    feature_precision: FeaturePrecision = None,
    device: Device = None,
    params: Params = None,
    out: Out = CKA,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Linear CKA of students and teachers on each task's images, with controls; no parameter file is needed.

    Without --student and --teacher, the pairs are those of the parameters or all references in `analysis.refs`;
    without --images, the tasks are the folders in `analysis.benchmarks`.

    For instance:

      analysis cka --teacher models:/teacher-large --student models:/student-vit--large--kd --images photos/

      analysis cka --params params.yaml

      analysis cka --student a/ --teacher b/ --images 'shards/*.tar' --tap pooled --tap embed --measure all

      analysis cka --student vlm-a/ --teacher vlm-b/ --images gqa=data/gqa --tap vlm_mean
    """
    from kd_analysis import commands_similarity as commands

    section = load(params, overrides)
    section = commands.chosen(section, tap, measure, max_images, store, device, feature_cache, feature_precision)
    commands.cka(section, student, teacher, out, dry_run, images=images, heads=heads)


@guarded
def features(
    student: Students = [],  # noqa: B006
    teacher: Teachers = [],  # noqa: B006
    images: Images = [],  # noqa: B006
    tap: Taps = [],  # noqa: B006
    max_images: Most = None,
    heads: Heads = [],  # noqa: B006
    shard: Shard = "0/1",
    store: Store = None,
    feature_cache: FeatureCache = None,
    feature_precision: FeaturePrecision = None,
    device: Device = None,
    params: Params = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Read features into the store ahead of `analysis cka`, in as many processes as there are shards.

    For instance:

      analysis features --teacher models:/teacher-large --student models:/student-vit--large--kd --images photos/

      for i in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$i analysis features --device cuda --shard $i/4 & done
    """
    from kd_analysis import commands_similarity as commands

    section = load(params, overrides)
    section = commands.chosen(section, tap, [], max_images, store, device, feature_cache, feature_precision)
    commands.features(section, student, teacher, images=images, heads=heads, shard=shard)


@guarded
def heatmap(
    student: Student,
    teacher: Teacher,
    images: Images = [],  # noqa: B006
    layer: Layers = [],  # noqa: B006
    max_images: Most = None,
    store: Store = None,
    device: Device = None,
    params: Params = None,
    out: MapOut = HEATMAP,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Debiased CKA of every layer of a student with every layer of a teacher: a table and a picture.

    For instance:

      analysis heatmap --teacher models:/teacher-large --student models:/student-vit--large--kd --images photos/
    """
    from kd_analysis import commands_similarity as commands

    section = commands.chosen(load(params, overrides), [], [], max_images, store, device)
    commands.heatmap(section, student, teacher, out, images=images, layers=layer)


@guarded
def merge(states: States, out: StateOut = None) -> None:
    """CKA over all images of several states, as if they had been one.

    For instance:

      analysis merge out/a/states/pooled/*/gqa.npz out/b/states/pooled/*/gqa.npz --out both.npz
    """
    from kd_analysis import commands_similarity as commands

    commands.merge_states(states, out)


def register(app: typer.Typer) -> None:
    """Put these commands on `analysis`."""
    for command in (cka, features, heatmap, merge):
        app.command()(command)
