"""What a folder holds, counted, and what is wrong with it: everything at once."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.inventory import CUT, EMPTY, PICTURE, Entries, linked_folders
from pipeline.data.spec import Dataset, Holds

SHOWN = 5


@dataclass
class Content:
    """Counts by name; problems, a line each; and all names behind a line that shows only some of them."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)

    def complain(self, what: str, names: Iterable[str], allowed: int = 0) -> None:
        """Note files that are wrong, if there are more than allowed."""
        everyone = sorted(names)
        if len(everyone) > allowed:
            shown = ", ".join(everyone[:SHOWN]) + (", …" if len(everyone) > SHOWN else "")
            most = f" ({allowed} are allowed)" if allowed else ""
            self.problems.append(f"{len(everyone)} {what}{most}: {shown}")
            self.named[what] = everyone


def content_of(dataset: Dataset, folder: Path, entries: Entries, *, any_size: bool = False) -> Content:
    """Count what `folder` holds and compare it with what it must hold; `any_size` leaves out the numbers."""
    holds = dataset.holds.model_copy(update={"counts": {}, "complete": False}) if any_size else dataset.holds
    found = READERS[holds.kind](holds, folder, entries)
    for name, expected in sorted(holds.counts.items()):
        if found.counts.get(name) != expected:
            found.problems.append(f"expected {expected:,} {name}, found {found.counts.get(name, 0):,}")
    return found


def _shards(holds: Holds, folder: Path, entries: Entries) -> Content:
    found = Content()
    shards = {path: entry for path, entry in entries.items() if path.endswith(".tar") and "/" not in path}
    found.complain("shards are cut", (path for path, entry in shards.items() if entry.form in (CUT, EMPTY)))
    promised = {}
    for path in (path for path in entries if path.endswith("_stats.json") and "/" not in path):
        try:
            promised[path.removesuffix("_stats.json") + ".tar"] = int(
                json.loads((folder / path).read_text())["successes"]
            )
        except (ValueError, KeyError, TypeError):
            found.complain("manifests of img2dataset cannot be read", [path])
    found.complain("shards are missing that have a _stats.json", promised.keys() - shards.keys())
    whole = {path: int(entry.form) for path, entry in shards.items() if entry.form.isdigit()}
    other = [f"{p} ({n} of {promised[p]})" for p, n in whole.items() if p in promised and n != promised[p]]
    found.complain("shards hold another number of pairs than their _stats.json says", other)
    if not shards:
        found.problems.append("no shards (*.tar)")
    found.counts = {"shards": len(shards), "pairs": sum(whole.values())}
    return found


def _conversations(holds: Holds, folder: Path, entries: Entries) -> Content:
    from kd_vlm.rows import open_rows

    found = Content()
    found.complain("folders are links, and pictures behind them are refused: link the whole folder with `at`, or move "
                   "them here", linked_folders(folder))  # fmt: skip
    if holds.file not in entries:
        found.complain("file is missing", [holds.file])
        return found
    pictures: set[str] = set()
    text_only, rows, broken = 0, 0, []
    try:
        for number, row in enumerate(open_rows(folder / holds.file), start=1):
            rows = number
            if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
                broken.append(f"row {number}")
                continue
            named = row.get("image") or []
            names = [named] if isinstance(named, str) else named
            text_only += not names
            pictures.update(str(PurePosixPath(holds.pictures, name)) for name in names)
    except ValueError as error:
        found.problems.append(str(error))
    found.complain("rows are no conversations", broken)
    found.complain("pictures are named outside the folder", (p for p in pictures if ".." in p or p.startswith("/")))
    missing = {path for path in pictures if path not in entries}
    damaged = {path for path in pictures - missing if entries[path].form != PICTURE}
    found.complain("pictures are missing", missing, holds.may_lack)
    found.complain("pictures are damaged", damaged, max(0, holds.may_lack - len(missing)))
    if not rows:
        found.problems.append(f"{holds.file} holds no row")
    found.counts = {"rows": rows, "text_only": text_only, "pictures": len(pictures) - len(missing)}
    return found


def _classes(holds: Holds, folder: Path, entries: Entries) -> Content:
    found = Content()
    pictures = {path for path in entries if path.count("/") == 1}
    sizes = Counter(path.partition("/")[0] for path in pictures)
    found.complain("pictures are damaged", (path for path in pictures if entries[path].form != PICTURE))
    if sizes:
        usual = Counter(sizes.values()).most_common(1)[0][0]
        odd = [f"{name} ({n})" for name, n in sizes.items() if n != usual]
        found.complain(f"classes do not hold {usual} pictures as the others do", odd)
    else:
        found.problems.append("no folders of pictures, one a class")
    found.counts = {"classes": len(sizes), "pictures": len(pictures)}
    return found


def _captions(holds: Holds, folder: Path, entries: Entries) -> Content:
    found = Content()
    if holds.file not in entries:
        found.complain("file is missing", [holds.file])
        return found
    with (folder / holds.file).open("rb") as table:
        header = table.readline()
        found.counts = {"rows": sum(1 for _ in table)}
    if header != b"filepath\ttitle\n":
        found.problems.append(f"{holds.file}: expected the columns filepath and title, found {header[:80]!r}")
    return found


def _benchmarks(holds: Holds, folder: Path, entries: Entries) -> Content:
    from kd_evalsuite.tasks import TASKS

    found = Content()
    command = [
        sys.executable,
        "-m",
        "kd_evalsuite",
        "doctor",
        "--data",
        str(folder),
        "--tasks",
        ",".join(TASKS),
        "--json",
    ]
    done = subprocess.run(
        command + (["--complete"] if holds.complete else []), capture_output=True, text=True, check=False
    )
    try:
        said: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        found.problems.append(f"evalsuite doctor: {done.stderr.strip()[-500:]}")
        return found
    found.problems += [f"{one['task']}: {problem}" for one in said for problem in one["problems"]]
    good = [one for one in said if one["items"]]
    found.counts = {"benchmarks": len(good), "items": sum(one["items"] for one in good)}
    return found


READERS = {
    "shards": _shards,
    "conversations": _conversations,
    "classes": _classes,
    "captions": _captions,
    "benchmarks": _benchmarks,
}
