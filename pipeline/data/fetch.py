"""Bring files: ask what there is to fetch, say how many bytes, fetch several at a time, unpack."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import httpx
from kd_distill.durable import write_whole

from pipeline.data import hub
from pipeline.data.check import PINNED, pinned
from pipeline.data.download import Remote, digest_of, download, part_of
from pipeline.data.errors import DataError, IntegrityError, SpaceError
from pipeline.data.inventory import walk
from pipeline.data.manifest import read_manifest, read_note
from pipeline.data.spec import DataFile, Source
from pipeline.data.unpack import unpack

UNPACKED = "unpacked.json"


class Shown(Protocol):
    """The progress of one file: called with bytes gained, or lost."""

    def __call__(self, gained: int) -> None: ...
    def end(self, note: str) -> None: ...


class Board(Protocol):
    """Where progress is shown."""

    def begin(self, name: str, total: int | None, done: int) -> Shown: ...


@dataclass(frozen=True)
class Piece:
    """A file to fetch: `path` in the `pin` of its source."""

    remote: Remote
    target: Path
    pin: dict[str, Any]
    path: str

    @property
    def here(self) -> int:
        """Bytes that are here already."""
        file = self.target if self.target.is_file() else part_of(self.target)
        return file.stat().st_size if file.is_file() else 0

    @property
    def left(self) -> int:
        """Bytes to fetch, as far as is known."""
        return max(0, (self.remote.size or 0) - self.here)


@dataclass(frozen=True)
class Archive:
    """Pieces that are one archive, and where it is unpacked, below the data set's folder."""

    pieces: tuple[Piece, ...]
    folder: Path
    unpack_in: str

    @property
    def into(self) -> Path:
        """The folder that it is unpacked in."""
        return self.folder / self.unpack_in


@dataclass
class Plan:
    """What a data set still needs. `elsewhere` are bytes that another command fetches."""

    name: str
    pins: list[dict[str, Any]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    archives: list[Archive] = field(default_factory=list)
    elsewhere: int = 0

    @property
    def bytes(self) -> int:
        """To fetch."""
        return sum(piece.left for piece in self.pieces) + self.elsewhere

    @property
    def room(self) -> int:
        """To have free: what is fetched, and what is unpacked (pictures are hardly smaller in an archive)."""
        return self.bytes + sum(piece.remote.size or 0 for archive in self.archives for piece in archive.pieces)


def plan(spec: DataFile, name: str, http: httpx.Client) -> Plan:
    """Ask the servers what there is to fetch, at the commits that were pinned before, if any were.

    Raises:
        DataError: If a server has not what `data.yaml` names.
    """
    state, result = spec.state(name), Plan(name)
    known = pinned(state) or (read_manifest(spec.manifest(name)) or {}).get("sources", [])
    before = {pin["source"]: pin for pin in known}
    for source in spec.datasets[name].sources:
        if source.benchmarks:
            result.elsewhere += _benchmarks_left(spec.folder(name), source.benchmarks)
        elif source.hub or source.url:  # a source that is unpacked already still has its pin
            key = str(source.hub or source.url)
            pin, remotes = _asked(source, before.get(key), http)
            if key in before and before[key] in result.pins:  # another part of the same repository
                pin["files"] = before[key]["files"] | pin["files"]
                result.pins.remove(before[key])
            before[key] = pin
            result.pins.append(pin)
            _add(result, source, spec.folder(name), state, remotes)
    targets = [piece.target for piece in result.pieces]
    if twice := {target.name for target in targets if targets.count(target) > 1}:
        raise DataError(f"{name}: {', '.join(twice)} would be written twice; tell them apart with save_as.")
    return result


def _asked(
    source: Source, before: dict[str, Any] | None, http: httpx.Client
) -> tuple[dict[str, Any], dict[str, Remote]]:
    """The pin of a source, and its files by their names here."""
    if source.hub:
        revision = source.revision or (before["revision"] if before else None)
        commit, found = hub.listed(source.hub, revision, source.files)
        remotes = {path.removeprefix(source.drop): remote for path, remote in found.items()}
        pin = {"source": source.hub, "revision": commit}
    else:
        url = str(source.url)
        path = source.save_as or PurePosixPath(httpx.URL(url).path).name
        known = before["files"].get(path, {}) if before else {}
        size = source.bytes or known.get("bytes") or _size(http, url)
        remotes = {path: Remote(url, size, source.sha256 or known.get("sha256"))}
        pin = {"source": url}
    files = {path: {"bytes": remote.size, "sha256": remote.sha256} for path, remote in sorted(remotes.items())}
    return pin | {"files": files}, remotes


def _size(http: httpx.Client, url: str) -> int | None:
    """What a server says of a file's size; None where it does not say, or does not answer: the fetch will tell."""
    try:
        answer = http.head(url, headers={"Accept-Encoding": "identity"})
    except httpx.TransportError:
        return None
    length = answer.headers.get("Content-Length", "")
    return int(length) if answer.status_code == 200 and length.isdigit() else None


def _benchmarks_left(folder: Path, keys: Sequence[str]) -> int:
    """Bytes of the benchmarks that `evalsuite fetch` has not brought yet."""
    from kd_evalsuite.hub import SOURCE
    from kd_evalsuite.tasks import TASKS

    wanted = TASKS if tuple(keys) == ("all",) else {key: TASKS[key] for key in keys}
    left = [t.hub for k, t in wanted.items() if not (folder / (t.folder or k) / SOURCE).is_file()]
    files = {
        (h.dataset, p): r.size or 0 for h in left for p, r in hub.listed(h.dataset, h.revision, h.files)[1].items()
    }
    return sum(files.values())


def _add(result: Plan, source: Source, folder: Path, state: Path, remotes: dict[str, Remote]) -> None:
    """Archives go to the state's folder and are unpacked from there; other files go to their place."""
    home = folder if source.unpack is None else state
    pieces = tuple(Piece(remote, home / path, result.pins[-1], path) for path, remote in sorted(remotes.items()))
    for piece in pieces:
        if ".." in PurePosixPath(piece.path).parts or piece.path.startswith("/"):
            raise DataError(f"{piece.remote.url} would be written to {piece.path}, outside its folder.")
    if source.unpack is None:
        result.pieces += pieces
    elif not _is_unpacked(pieces, result.pieces, folder, source.unpack, _unpacked(state)):
        result.pieces += pieces
        result.archives.append(Archive(pieces, folder, source.unpack))


def _is_unpacked(
    parts: Sequence[Piece], others: Sequence[Piece], folder: Path, unpack_in: str, done: Mapping[str, Any]
) -> bool:
    """Whether an archive was unpacked, and its folder holds as many files as then, `others` left out."""
    into = folder / unpack_in
    held = sum(entry["files"] for entry in done.values() if entry["into"] == unpack_in)
    there = sum(1 for _ in walk(into)) if into.is_dir() else 0
    there -= sum(other.target.is_relative_to(into) and other.target.is_file() for other in others)
    return {part.path for part in parts} <= done.keys() and there >= held


def _unpacked(state: Path) -> dict[str, Any]:
    return dict(read_note(state / UNPACKED, dict))


def require_room(root: Path, plans: Sequence[Plan]) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        SpaceError: With both numbers.
    """
    root.mkdir(parents=True, exist_ok=True)
    need, free = sum(plan.room for plan in plans), shutil.disk_usage(root).free
    if need > free:
        held = "archives and what they hold"
        raise SpaceError(f"{root}: {need / 1e9:,.1f} GB are needed ({held}), {free / 1e9:,.1f} GB are free.")


@dataclass(frozen=True)
class Bringing:
    """How to fetch: by which client, shown where, so many files at a time, until `stopped`."""

    http: httpx.Client
    board: Board
    stopped: Callable[[], bool]
    jobs: int = 4
    drop_archives: bool = False


def bring(spec: DataFile, plans: Sequence[Plan], how: Bringing) -> dict[str, list[DataError]]:
    """Fetch and unpack. What fails does not stop the others; it is given back, by data set.

    Raises:
        StoppedError: If `how.stopped`.
    """
    failed: dict[str, list[DataError]] = {one.name: [] for one in plans}
    for one in plans:
        _pin(spec.state(one.name), one.pins)
    with ThreadPoolExecutor(how.jobs) as pool:
        futures = [(one.name, piece, pool.submit(_fetched, piece, how)) for one in plans for piece in one.pieces]
        for name, piece, future in futures:
            try:
                piece.pin["files"][piece.path] = future.result()
            except DataError as error:
                failed[name].append(error)
    for one in plans:
        _pin(spec.state(one.name), one.pins)
        for archive in one.archives:
            if all(piece.target.is_file() for piece in archive.pieces):
                try:
                    _unpack(spec.state(one.name), archive, how)
                except IntegrityError as error:
                    failed[one.name].append(error)
    return {name: errors for name, errors in failed.items() if errors}


def _fetched(piece: Piece, how: Bringing) -> dict[str, Any]:
    """Size and digest of a file that is here or is fetched; one that somebody put there has to be the right one."""
    target, remote = piece.target, piece.remote
    if target.is_file():
        digest = digest_of(target)
        if remote.sha256 not in (None, digest):
            raise IntegrityError(f"{target}: expected sha256 {remote.sha256}, found {digest}. Remove it.")
        return {"bytes": target.stat().st_size, "sha256": digest}
    shown = how.board.begin(f"{target.parent.name}/{target.name}", remote.size, piece.here)
    try:
        digest = download(how.http, remote, target, on_bytes=shown, stopped=how.stopped)
    except BaseException as error:
        shown.end(f"not fetched: {type(error).__name__}")
        raise
    size = target.stat().st_size
    shown.end(f"{size:,} bytes, sha256 {digest[:12]}")
    return {"bytes": size, "sha256": digest}


def _pin(state: Path, pins: list[dict[str, Any]]) -> None:
    if pins:
        state.mkdir(parents=True, exist_ok=True)
        write_whole(state / PINNED, (json.dumps(pins, indent=1, sort_keys=True) + "\n").encode())


def _unpack(state: Path, archive: Archive, how: Bringing) -> None:
    archive.into.mkdir(parents=True, exist_ok=True)
    files = [piece.target for piece in archive.pieces]
    shown = how.board.begin(f"unpack {files[0].name}", sum(file.stat().st_size for file in files), 0)
    held = unpack(files, archive.into, on_file=shown, stopped=how.stopped)
    shown.end(f"{held.files:,} files, {held.bytes:,} bytes in {archive.into}")
    os.sync()  # half a million files last before it is written that they do
    entry = {"files": held.files, "bytes": held.bytes, "into": archive.unpack_in}
    others = {piece.path: entry | {"files": 0, "bytes": 0} for piece in archive.pieces[1:]}  # parts, counted once
    done = _unpacked(state) | others | {archive.pieces[0].path: entry}
    write_whole(state / UNPACKED, (json.dumps(done, indent=1, sort_keys=True) + "\n").encode())
    if how.drop_archives:
        for file in files:
            file.unlink()
