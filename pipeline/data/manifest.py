"""The manifest of a data set: what was found whole, small enough to be committed; and how a folder differs from it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_distill.durable import write_whole

from pipeline.data.errors import DataError
from pipeline.data.inventory import Entries, digest_of_all

SCHEMA = "kd-data/1"
SHOWN = 5


def manifest_of(
    name: str, entries: Entries, counts: Mapping[str, int], sources: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What `data/<name>.json` holds: no path, time or name of a machine, so that the same data give the same bytes."""
    return {
        "schema": SCHEMA,
        "name": name,
        "sha256": digest_of_all(entries),
        "files": len(entries),
        "bytes": sum(entry.size for entry in entries.values()),
        "counts": dict(sorted(counts.items())),
        "sources": sources,
    }


def read_manifest(file: Path) -> dict[str, Any] | None:
    """A manifest; None where there is none.

    Raises:
        DataError: If the file is something else.
    """
    if not file.is_file():
        return None
    found = read_note(file, dict)
    if found.get("schema") != SCHEMA or not {"sha256", "files", "bytes", "counts", "sources"} <= found.keys():
        raise DataError(f"{file}: no manifest of a data set: schema {found.get('schema')!r}. Restore it, or remove it.")
    return dict(found)


def read_note(file: Path, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    """What we wrote in JSON; empty where there is no file.

    Raises:
        DataError: If it is something else by now.
    """
    if not file.is_file():
        return kind()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not valid JSON: {error}. Restore it, or remove it.") from None
    if not isinstance(found, kind):
        raise DataError(f"{file}: expected a {kind.__name__}, got {type(found).__name__}. Restore it, or remove it.")
    return found


def write_manifest(file: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the file, if its content changes."""
    text = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_file() or file.read_bytes() != text:
        write_whole(file, text)


def differences(manifest: Mapping[str, Any], accepted: Entries, now: Entries) -> list[str]:
    """How a folder differs from its manifest. Files are named where this machine knows what was accepted.

    Args:
        manifest: The manifest.
        accepted: The files that it was written for; empty on another machine.
        now: The files that are there.
    """
    if digest_of_all(accepted) != manifest["sha256"]:
        size = sum(entry.size for entry in now.values())
        return [
            f"expected {manifest['files']:,} files of {manifest['bytes']:,} bytes, digest {manifest['sha256'][:12]}, "
            f"found {len(now):,} of {size:,}, digest {digest_of_all(now)[:12]}"
        ]
    groups = {
        "missing": sorted(accepted.keys() - now.keys()),
        "extra": sorted(now.keys() - accepted.keys()),
        "changed": sorted(p for p in accepted.keys() & now.keys() if accepted[p].sha256 != now[p].sha256),
    }
    return [
        f"{len(names)} {what}: {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}"
        for what, names in groups.items()
        if names
    ]
