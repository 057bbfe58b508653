"""`make fuzz`: every target for some minutes of processor time, guided by coverage where atheris is installed.

    python -m tests.fuzz --minutes 10 distill.shards vlm.conversations

What breaks a promise is kept below `out/fuzz/<target>/`: the input, made as small as it gets, and in `record.json` how
often the target ran and what was found. Exits with 1 if something was.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contract.fuzz import harness
from contract.fuzz.harness import LARGEST, Finding, Target

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "out" / "fuzz"
GROUPS = ("distill", "vlm", "evalsuite", "analysis", "pipeline")
MEMORY_DISK = "/dev/shm"  # noqa: S108  a folder of its own is made in it
MEMORY = 2 << 30  # bytes that an input may ask for


def targets_of(group: str) -> dict[str, Target]:
    """The targets of a package, or of what stands outside the packages, by their full names."""
    if group == "distill":
        from packages.distill.tests.fuzz import targets
    elif group == "vlm":
        from packages.vlm.tests.fuzz import targets
    elif group == "evalsuite":
        from packages.evalsuite.tests.fuzz import targets
    elif group == "analysis":
        from packages.analysis.tests.fuzz import targets
    else:
        from tests.fuzz import targets
    return {f"{group}.{target.name}": target for target in targets.TARGETS}


class Run:
    """One target under fire, and its record."""

    def __init__(self, name: str, target: Target, minutes: float, engine: str) -> None:
        self.name, self.target, self.minutes = name, target, minutes
        self.folder = OUT / name
        self.scratch = Path(
            tempfile.mkdtemp(prefix="kd-fuzz-", dir=MEMORY_DISK if Path(MEMORY_DISK).is_dir() else None)
        )
        self.began = time.process_time()
        self.record: dict[str, Any] = {
            "target": name, "engine": engine, "executions": 0, "values": 0, "cpu_seconds": 0.0, "findings": {},
        }  # fmt: skip

    def one(self, data: bytes) -> None:
        """Try an input and note what it finds; ends the process when its time is up."""
        self.record["executions"] += 1
        try:
            self.record["values"] += harness.attempt(self.target, data, self.scratch)
        except Finding as found:
            self._note(found, data)
        if self.record["executions"] % 64 == 0 and (time.process_time() - self.began) > self.minutes * 60:
            self.end()

    def _note(self, found: Finding, data: bytes) -> None:
        known = self.record["findings"].setdefault(found.signature, {"times": 0, "says": str(found), "input": ""})
        known["times"] += 1
        if not known["input"]:
            known["input"] = f"{len(self.record['findings']):02d}.bin"
            (self.folder / known["input"]).write_bytes(data)
            self.save()

    def save(self) -> None:
        """Write the record so far."""
        self.record["cpu_seconds"] = round(time.process_time() - self.began, 1)
        (self.folder / "record.json").write_text(json.dumps(self.record, indent=1) + "\n")

    def end(self) -> None:
        """Make the inputs that found something smaller, write the record, and leave: libFuzzer never returns."""
        self.save()
        for known in self.record["findings"].values():
            file = self.folder / known["input"]
            file.write_bytes(harness.smallest(self.target, file.read_bytes(), self.scratch, 10))
        self.record["ended"] = True
        self.save()
        sys.stderr.flush()
        os._exit(0)


def fuzz_one(name: str, minutes: float) -> None:
    """Fuzz a target in this process; does not return."""
    (OUT / name).mkdir(parents=True, exist_ok=True)
    group = name.partition(".")[0]
    try:
        import atheris
    except ImportError:
        target = targets_of(group)[name]
        _at_random(Run(name, target, minutes, "random"))
        return
    packages = ["pipeline"] if group == "pipeline" else [f"kd_{group}"]
    with atheris.instrument_imports(include=[*packages, "ruamel", "tarfile", "csv"], enable_loader_override=False):
        target = targets_of(group)[name]
    corpus = Path(tempfile.mkdtemp(prefix="kd-corpus-"))
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
        harness.attempt(target, seed, corpus.parent / f"{corpus.name}-warm", watched=False)
    run = Run(name, target, minutes, "atheris")
    harness.limit(MEMORY)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return harness.changed(target, data, rng)[:most]

    options = [
        f"-max_len={LARGEST}",
        "-timeout=120",
        "-rss_limit_mb=0",
        f"-artifact_prefix={OUT / name}/",
        "-print_final_stats=0",
    ]
    atheris.Setup([name, str(corpus), *options], run.one, custom_mutator=mutate)
    atheris.Fuzz()


def _at_random(run: Run) -> None:
    harness.limit(MEMORY)
    seed = 0
    while True:
        run.one(harness.made_up(run.target, seed))
        seed += 1


def fuzz(name: str, minutes: float) -> dict[str, Any]:
    """Fuzz a target in a process of its own; its record, with the coverage that libFuzzer told of."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    command = [sys.executable, "-m", "tests.fuzz", "--here", name, "--minutes", str(minutes)]
    with (folder / "log").open("wb") as log:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False).returncode
    record: dict[str, Any] = {"target": name, "findings": {}, "executions": 0, "cpu_seconds": 0.0}
    if (folder / "record.json").is_file():
        record = json.loads((folder / "record.json").read_text())
    if code or not record.get("ended"):
        record["findings"]["the process died"] = {
            "times": 1,
            "says": f"exit code {code}, see {folder / 'log'}",
            "input": "",
        }
    said = re.findall(rb"cov: (\d+) ft: (\d+)", (folder / "log").read_bytes())
    record["coverage"] = max((int(edges) for edges, _ in said), default=0)
    (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def main() -> int:
    """Fuzz what is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="targets or groups; all if none is named")
    parser.add_argument("--minutes", type=float, default=10.0, help="of processor time for each target")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        fuzz_one(given.here, given.minutes)
    groups = [group for group in GROUPS if not given.names or group in {n.partition(".")[0] for n in given.names}]
    known = [name for group in groups for name in targets_of(group)]
    chosen = [name for name in known if not given.names or {name, name.partition(".")[0]} & set(given.names)]
    if not chosen:
        parser.error(f"no such target; there are {', '.join(known or GROUPS)}")
    found = 0
    for name in chosen:
        record = fuzz(name, given.minutes)
        found += len(record["findings"])
        inputs, seconds = record["executions"], record["cpu_seconds"]
        print(f"{name}: {inputs:,} inputs in {seconds:.0f} s, {len(record['findings'])} findings", flush=True)
        for signature, one in record["findings"].items():
            print(f"    {signature} ({one['times']} times, {OUT / name / one['input']}): {one['says']}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
