"""Copy the files of `contract/shared` into the four packages, and those of `contract/fuzz` into their tests.

`--check` only compares.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
USERS = {
    "params.py": ("distill", "vlm", "evalsuite", "analysis"),
    "reading.py": ("distill", "vlm", "evalsuite", "analysis"),
    "tracking.py": ("distill", "vlm", "evalsuite", "analysis"),
    "commit.py": ("distill", "vlm", "evalsuite", "analysis"),
    "database.py": ("distill", "vlm", "evalsuite", "analysis"),
    "journal.py": ("distill", "vlm"),
    "shipping.py": ("distill", "vlm"),
    "durable.py": ("distill", "vlm", "evalsuite", "analysis"),
    "lock.py": ("distill", "vlm"),
    "signals.py": ("distill", "vlm"),
    "vision_cache.py": ("vlm", "analysis"),
    "parent.py": ("distill", "vlm", "evalsuite", "analysis"),
}


def copies() -> list[tuple[Path, Path]]:
    """Each shared file with each of its copies."""
    shared = [
        (ROOT / "contract" / "shared" / name, ROOT / "packages" / package / "src" / f"kd_{package}" / name)
        for name, packages in USERS.items()
        for package in packages
    ]
    tests = [
        (file, ROOT / "packages" / package / "tests" / "fuzz" / file.name)
        for file in sorted((ROOT / "contract" / "fuzz").glob("*.py"))
        for package in USERS["params.py"]
    ]
    return [*shared, *tests]


def stale() -> list[Path]:
    """Copies that are missing or differ."""
    return [copy for source, copy in copies() if not copy.exists() or copy.read_bytes() != source.read_bytes()]


if __name__ == "__main__":
    if "--check" in sys.argv:
        if differing := stale():
            sys.exit(
                f"These differ from contract/shared; run python contract/sync.py: {', '.join(map(str, differing))}"
            )
    else:
        for source, copy in copies():
            copy.write_bytes(source.read_bytes())
