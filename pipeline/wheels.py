"""Each wheel alone: a fresh environment with it and the extras that its tests need, and its tests run there.

    python -m pipeline.wheels [--only distill --only vlm] [--python 3.11 --python 3.12] [--keep]

The tests are copied out of the repository, with `contract/` and `params.yaml`, which they read, and pytest's settings;
no source lies beside them, so that what is tested is the wheel. A wheel must also hold each file of its source and no
other.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).parent / "uv"
EXTRAS = {  # what the tests of a package need of its own extras
    "distill": "",
    "vlm": "[deepspeed]",
    "evalsuite": "[torch,clip,mlflow,api,hub]",
    "analysis": "[features,vlm,mlflow]",
}
TOOLS = ("pytest", "pytest-xdist", "hypothesis")
COMPARED = {"distill": ("transformers",)}  # what tests compare a package with, and it does without
PYTHONS = ("3.11", "3.12")
LAST_LINE = re.compile(r"\d+ (?:passed|failed|error).* in [\d.]+")


def python_of(version: str) -> Path | None:
    """A Python of this version: on the path, or as pyenv keeps it (whose commands on the path may not run)."""
    on_path = shutil.which(f"python{version}")
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [
        Path(sys.executable),
        *([Path(on_path)] if on_path else []),
        *root.glob(f"versions/{version}.*/bin/python"),
    ]
    said = "import sys; print('%d.%d' % sys.version_info[:2])"
    for place in places:
        done = subprocess.run([place, "-c", said], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return place
    return None


def differences(wheel: Path, source: Path) -> list[str]:
    """Files that the wheel lacks of `source`, the folder with the import package, or has beyond it."""
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    wanted = {str(path.relative_to(source)) for path in files if ".egg-info" not in str(path)}
    missing, strange = sorted(wanted - held), sorted(held - wanted)
    return [f"{name} is not in the wheel" for name in missing] + [f"{name} is not in the source" for name in strange]


def environment(folder: Path, python: Path, wheel: str, compared: Sequence[str]) -> Path:
    """The interpreter of a fresh environment in `folder` with the wheel, its extras, pytest and `compared`."""
    shutil.rmtree(folder, ignore_errors=True)
    run([UV, "venv", "--quiet", "--python", python, folder])
    interpreter = folder / "bin" / "python"
    command = [UV, "pip", "install", "--quiet", "--compile-bytecode", "-c", ROOT / "constraints.txt"]
    run([*command, "--python", interpreter, wheel, *TOOLS, *compared])
    return interpreter


def tested(package: str, interpreter: Path, jobs: int) -> subprocess.CompletedProcess[str]:
    """The package's tests, from a copy outside the repository, with that interpreter."""
    with tempfile.TemporaryDirectory(prefix="kd-wheel-") as name:
        tree = Path(name) / "tree"
        clean = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / "packages" / package / "tests", tree / "packages" / package / "tests", ignore=clean)
        shutil.copytree(ROOT / "contract", tree / "contract", ignore=clean)
        for file in ("pyproject.toml", "params.yaml"):
            shutil.copy(ROOT / file, tree)
        where = f"import kd_{package} as k, sys; sys.exit(not k.__file__.startswith(sys.prefix))"
        run([interpreter, "-c", where], cwd=tree)
        command = [interpreter, "-m", "pytest", "-q", "-n", str(jobs), "--dist", "loadgroup", "-rs"]
        real = os.environ.get("KD_REAL_DATA", str(ROOT.parent / "shared" / "data"))
        more = {"KD_REAL_DATA": real, "OMP_NUM_THREADS": "1"}  # one thread a process, as in `make test`
        return run([*command, f"packages/{package}/tests"], cwd=tree, check=False, more=more)


def run(
    command: list[object], cwd: Path = ROOT, check: bool = True, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command without this process's own packages on its path; what it printed on the terminal where it fails."""
    hidden = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = hidden | {"UV_SYSTEM_CERTS": "1"} | (more or {})
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if check and done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        sys.exit(f"{' '.join(words)} ended with {done.returncode}")
    return done


def one(package: str, version: str, options: argparse.Namespace) -> bool:
    """One wheel under one Python, a line for it; whether it is right."""
    python = python_of(version)
    if python is None:
        print(f"{package:10} {version}  there is no Python {version} on this machine", flush=True)
        return False
    wheel = next((ROOT / "dist").glob(f"kd_{package}-*.whl"))
    if wrong := differences(wheel, ROOT / "packages" / package / "src"):
        print(f"{package:10} {version}  {'; '.join(wrong)}", flush=True)
        return False
    start = time.monotonic()
    folder = ROOT / "build" / "wheels" / f"{package}-{version}"
    interpreter = environment(folder, python, f"{wheel}{EXTRAS[package]}", COMPARED.get(package, ()))
    installed = time.monotonic() - start
    done = tested(package, interpreter, options.jobs)
    found = LAST_LINE.findall(done.stdout)
    said = found[-1] if found else "no test ran"
    print(f"{package:10} {version}  {said}, installed in {installed:.0f} s", flush=True)
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-4000:], sep="\n", flush=True)
    else:
        print("".join(f"    {line}\n" for line in done.stdout.splitlines() if line.startswith("SKIPPED")), end="")
    if not options.keep:
        shutil.rmtree(folder)
    return done.returncode == 0


def main() -> int:
    """Build the wheels that are asked for, test each alone; 1 where one is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=EXTRAS, help="a package; all four where it is left out")
    parser.add_argument("--python", action="append", help=f"a version (default: {' and '.join(PYTHONS)})")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the environments, in build/wheels")
    options = parser.parse_args()
    packages = options.only or list(EXTRAS)
    for package in packages:
        for old in (ROOT / "dist").glob(f"kd_{package}-*.whl"):
            old.unlink()
        shutil.rmtree(ROOT / "packages" / package / "build", ignore_errors=True)
        run([UV, "build", "--quiet", "--wheel", "--out-dir", ROOT / "dist", ROOT / "packages" / package])
    ends = [one(package, version, options) for package in packages for version in options.python or PYTHONS]
    return 0 if all(ends) else 1


if __name__ == "__main__":
    sys.exit(main())
