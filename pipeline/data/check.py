"""Is a data set there, whole, and the one that its manifest names? Never touches the network."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_distill.lock import sole_writer

from pipeline.data.content import Content, content_of
from pipeline.data.errors import DataError, IntegrityError
from pipeline.data.inventory import Entries, Listing, digest_of_all, of_links
from pipeline.data.manifest import differences, manifest_of, read_manifest, read_note, write_manifest
from pipeline.data.spec import DataFile

PINNED, LISTING, ACCEPTED = "pinned.json", "listing.jsonl", "accepted.jsonl"


@dataclass(frozen=True)
class Found:
    """A data set that is as it should be: its manifest, and whether that was just written."""

    name: str
    manifest: dict[str, Any]
    new: bool


@dataclass(frozen=True)
class How:
    """How to look: processes that read; all files read again; another content or other numbers taken for right."""

    workers: int = 1
    anew: bool = False
    accept: bool = False
    any_size: bool = False
    on_bytes: Callable[[int, int], None] = field(default=lambda done, total: None)


def check(spec: DataFile, name: str, how: How = How()) -> Found:
    """Verify a data set and write its manifest, if it has none.

    Raises:
        DataError: With everything that is wrong: not there, counts, files missing or damaged.
        IntegrityError: If files are not those of the manifest, or not those that were promised where they came from.
        LockHeldError: If another process fetches or checks it.
    """
    link(spec, name)
    require_there(spec, name)
    with sole_writer(spec.state(name)):
        return checked(spec, name, how)


def checked(spec: DataFile, name: str, how: How) -> Found:
    """As `check`, by who holds the lock."""
    require_there(spec, name)
    folder, state = spec.folder(name), spec.state(name)
    entries = files_of(spec, name, how)
    before = read_manifest(spec.manifest(name))
    if before and before["sha256"] == digest_of_all(entries):
        if not (state / ACCEPTED).is_file():
            Listing(state / ACCEPTED).write(entries)
        return Found(name, before, new=False)
    if before and not how.accept:
        lines = differences(before, Listing(state / ACCEPTED).read(), entries)
        raise IntegrityError(
            "\n  ".join([f"{name}: {folder} is not what {spec.manifest(name)} names:", *lines])
            + "\nPut it back, or take it as it is with --accept; what was trained on it is then out of date."
        )
    content = content_of(spec.datasets[name], folder, entries, any_size=how.any_size)
    wrong = _not_as_promised(spec, name, entries)
    if content.problems or wrong:
        problems = "\n  ".join([f"{name}: {folder}", *wrong, *content.problems])
        raise (IntegrityError if wrong else DataError)(f"{problems}{_written(state, content)}\n{to_do(spec, name)}")
    manifest = manifest_of(name, entries, content.counts, pinned(state))
    write_manifest(spec.manifest(name), manifest)
    Listing(state / ACCEPTED).write(entries)
    return Found(name, manifest, new=True)


def require_there(spec: DataFile, name: str) -> None:
    """Raise a DataError where there is no folder, or an empty one, with what brings it."""
    folder = spec.folder(name)
    if not folder.is_dir() or not any(folder.iterdir()):
        raise DataError(f"{name}: expected it in {folder}, found nothing.\n{to_do(spec, name)}")


def link(spec: DataFile, name: str) -> None:
    """Make the folder of a data set a link to `at`, where that is given.

    Raises:
        DataError: If `at` is not there, or the folder is something else already.
    """
    at, folder = spec.datasets[name].at, spec.folder(name)
    if at is None:
        return
    if not at.is_dir():
        raise DataError(f"{name}: `at` names {at}, which is no folder.")
    if folder.is_symlink() and folder.resolve() != at.resolve():
        folder.unlink()
    if not folder.is_symlink():
        if folder.exists():
            raise DataError(f"{name}: {folder} exists and is no link to {at}. Move it away, or leave out `at`.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(at.resolve(), target_is_directory=True)


def files_of(spec: DataFile, name: str, how: How) -> Entries:
    """The files of a data set; of one that is made of links, what its base knows of them."""
    folder, holds, base = spec.folder(name), spec.datasets[name].holds, spec.datasets[name].base
    known = of_links(folder, Listing(spec.state(base) / LISTING).read()) if base else None
    only = holds.file if holds.kind == "captions" else ""
    return Listing(spec.state(name) / LISTING).refresh(
        folder, workers=how.workers, anew=how.anew, known=known, only=only, on_bytes=how.on_bytes
    )


def pinned(state: Path) -> list[dict[str, Any]]:
    """Commits, sizes and digests of what was fetched; empty for a folder that was there."""
    return list(read_note(state / PINNED, list))


def to_do(spec: DataFile, name: str) -> str:
    """What brings a data set: commands, and what a person has to do."""
    sources = spec.datasets[name].sources
    lines = [f"By hand: {source.hand.strip()}" for source in sources if source.hand]
    if any(source.hand is None for source in sources):
        lines.insert(0, f"To bring what can be brought: python -m pipeline.data fetch {name}")
    return "\n".join(lines)


def _not_as_promised(spec: DataFile, name: str, entries: Entries) -> list[str]:
    """Files with another digest than their source gave."""
    promised = {
        path: file["sha256"]
        for source in pinned(spec.state(name))
        for path, file in source["files"].items()
        if file.get("sha256") and path in entries
    }
    wrong = {path: digest for path, digest in promised.items() if entries[path].sha256 != digest}
    return [f"{p}: expected sha256 {digest}, found {entries[p].sha256}" for p, digest in sorted(wrong.items())]


def _written(state: Path, content: Content) -> str:
    """Write down the names that did not fit in the message, and say where."""
    if not content.named:
        return ""
    file = state / "problems.txt"
    lines = [f"{name}\t{what}" for what, names in content.named.items() for name in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"\n  (all names: {file})"
