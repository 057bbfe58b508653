"""`make rehearse`: a study's whole grid in minutes: its stages and cells, on small models and a small world.

A copy of the study is laid out in `rehearsal/<study>`, its parameters under those of `studies/<study>/rehearsal.yaml`;
models and data lie where downloads would. Then the study's own stages run. Run again, it goes on where it was.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.demo import ROOT, prepare_dvc, run_stages, stopped
from pipeline.overlay import lay_over
from pipeline.parallel import sensible_jobs
from pipeline.rehearsal import data
from pipeline.rehearsal.apps import COMMANDS
from pipeline.rehearsal.warm import warm
from pipeline.stopping import Asked

COPIED = (
    "pipeline",
    "contract",
    "packages/distill/src/kd_distill",
    "packages/vlm/src/kd_vlm",
    "packages/evalsuite/src/kd_evalsuite",
    "packages/analysis/src/kd_analysis",
)
RELEASED = "student-vit-t-16--clip-b16--released"
WRAPPER = """#!/bin/sh
PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}} exec {python} -m pipeline.rehearsal.warm {name} "$@"
"""


def read(file: Path) -> Any:
    """A YAML file in builtin types."""
    return YAML(typ="safe").load(file)


def mirror(source: Path, target: Path, *, prune: bool) -> None:
    """Make `target` hold what `source` holds, and nothing else with `prune`; equal files are left alone."""
    passed = ("__pycache__", "dvc.lock")
    wanted = {p.relative_to(source) for p in source.rglob("*") if p.is_file() and not set(passed) & set(p.parts)}
    for name in wanted:
        ours, theirs = target / name, (source / name).read_bytes()
        if not ours.is_file() or ours.read_bytes() != theirs:
            ours.parent.mkdir(parents=True, exist_ok=True)
            ours.write_bytes(theirs)
    for old in [p for p in target.rglob("*") if p.is_file() and not set(passed) & set(p.parts)] if prune else []:
        if old.relative_to(target) not in wanted:
            old.unlink()


def small_params(study: Path, overlays: Sequence[Path]) -> dict[str, Any]:
    """`world` and `hub`, and every parameter file of a study by its path from it, with overlays laid over in turn.

    Files of a study whose teachers and data it uses (`after`) are among them, as in that one's rehearsal.
    """
    found: dict[str, Any] = {"world": read(ROOT / "params.yaml")["world"], "hub": {}}
    tops = [dict(read(overlay)) for overlay in overlays]
    for name in [top.pop("after") for top in tops if "after" in top]:
        before = study.parent / name
        inner = small_params(before, [before / "rehearsal.yaml"])
        found |= {f"../{name}/{key}" if key.endswith(".yaml") else key: value for key, value in inner.items()}
    for file in sorted(study.rglob("params.yaml")):
        found[file.relative_to(study).as_posix()] = YAML(typ="rt").load(file)
    for top in tops:
        lay_over(found, top)
    return found


def home_of(study: str) -> str:
    """The study whose teachers and data a study uses: what its rehearsal names as `after`, or itself."""
    return str(read(ROOT / "studies" / study / "rehearsal.yaml").get("after", study))


def lay_out(study: str, work: Path, params: Mapping[str, Any]) -> None:
    """The copy of a study with its small parameters, and commands that know the small towers."""
    for folder in COPIED:
        mirror(ROOT / folder, work / folder, prune=True)
    for folder in {home_of(study), study}:  # not pruned: stages write manifests of data there
        mirror(ROOT / "studies" / folder, work / "studies" / folder, prune=False)
    for name, content in params.items():
        if name.endswith(".yaml"):
            YAML(typ="rt").dump(content, work / "studies" / study / name)
    for name in (".dvcignore", ".dvc/config"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)
    for name in COMMANDS:
        wrapper = work / "bin" / name
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(WRAPPER.format(python=sys.executable, root=work, name=name))
        wrapper.chmod(0o755)


def lay_in(home: str, work: Path, params: Mapping[str, Any], env: Mapping[str, str]) -> None:
    """Data sets, hub and published weights in the places of those that a person would download for a study."""
    print("the world in the place of the data sets:", flush=True)
    (work / "small.json").write_text(json.dumps({"world": params["world"], "hub": params["hub"]}))
    world = [sys.executable, "-m", "world", "--params", str(work / "small.json"), "--out", str(work / "world")]
    subprocess.run(world, cwd=ROOT, check=True)
    print("small models in the place of the hub:", flush=True)
    models = f"studies/{home}/rehearsal"
    subprocess.run(["hub", "small.json", "world/text/corpus.jsonl", models, "hub"], cwd=work, env=env, check=True)
    data.lay_out(work / "world", work / "datasets")
    shutil.rmtree(work / "world")
    with chdir(work):
        data.derive(Path("studies", home))
    adopt = ["distill", "adopt", "hub/ViT-T-16.pt", "--architecture", f"{models}/vit-t-16.json", "--name", RELEASED]
    subprocess.run(adopt, cwd=work, env=env, check=True)


def environment(work: Path) -> dict[str, str]:
    """This process's, with the commands, the hub's store and the tracking database of the rehearsal."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_TRACKING", "DVC_"))}
    path = os.pathsep.join([str(work / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(work / "hub"),
        "HF_HUB_OFFLINE": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    return others | own | {"MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def laid_out(study: str, work: Path, *more: Path) -> Iterator[dict[str, str]]:
    """A rehearsal's folder with all that its stages need, and a server of their commands; yields their environment.

    Where data or hub are of other parameters than before, everything begins anew.

    Args:
        study: its name.
        work: its folder.
        more: overlays beside the study's own `rehearsal.yaml`.
    """
    folder, home = ROOT / "studies" / study, home_of(study)
    params = small_params(folder, [folder / "rehearsal.yaml", *more])
    models = [file.read_text() for file in sorted((ROOT / "studies" / home / "rehearsal").iterdir())]
    content = json.dumps([params["world"], params["hub"], models])
    marker, digest = work / ".laid-in", hashlib.sha256(content.encode()).hexdigest()
    done = marker.is_file() and marker.read_text() == digest
    if not done:
        shutil.rmtree(work, ignore_errors=True)
    lay_out(study, work, params)
    prepare_dvc(work)
    with warm(work, work / "warm.log", environment(work)) as env:
        if not done:
            lay_in(home, work, params, env)
            marker.write_text(digest)
        yield env


def main() -> int:
    """Rehearse a study and say where its tables and figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="paper")
    parser.add_argument("--jobs", type=int, default=sensible_jobs(), help="stages at a time (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the rehearsal (default: rehearsal/STUDY)")
    parser.add_argument("--overlay", type=Path, action="append", default=[], help="more parameters laid over: a slice")
    arguments = parser.parse_args()
    study, work = arguments.study, (arguments.out or ROOT / "rehearsal" / arguments.study).resolve()
    if study not in (known := sorted(file.parent.name for file in ROOT.glob("studies/*/rehearsal.yaml"))):
        print(f"Expected a study with a rehearsal.yaml, got {study!r}; there are: {', '.join(known)}.", file=sys.stderr)
        return 2
    with laid_out(study, work, *arguments.overlay) as env:
        whole = run_stages(f"studies/{study}/dvc.yaml", arguments.jobs, f"make rehearse STUDY={study}", work, env)
    tell(work, study, sliced=bool(arguments.overlay))
    return 0 if whole else 1


def tell(work: Path, study: str, *, sliced: bool) -> None:
    """Where everything is, and whether all of the paper's numbers have a counterpart in a study that has its tables."""
    from pipeline.rehearsal import whole

    out = work / "out" / study
    print(f"  report   {os.path.relpath(out / 'report' / 'report.html')}")
    if "tables" not in read(work / "studies" / study / "dvc.yaml")["stages"]:
        return
    for what, file in (("tables", "tables/tables.html"), ("figures", "figures")):
        print(f"  {what:<8} {os.path.relpath(out / file)}")
    if not sliced:
        whole.tell(out, read(work / "studies" / study / "params.yaml")["analysis"]["names"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Asked as asked:
        sys.exit(stopped("make rehearse", asked))
