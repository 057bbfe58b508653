"""A power cut at every moment of a write: what was not synced by then may be lost, and is.

The calls that change the disk are recorded and played into a model of a disk: contents last once their file is synced,
names once their folder is; of changes of names before that any number, in their order, may have reached the disk.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.shared import durable
from contract.shared.durable import whole_folder, write_whole

OLD, NEW = b"the old content", b"the new content, which is longer"
Event = tuple[str, ...]


class Recorder:
    """Notes every write, sync, rename and removal below a folder while it happens."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.events = root, []
        fsync, rename, replace, rmtree, unlink = os.fsync, Path.rename, Path.replace, shutil.rmtree, Path.unlink

        def synced(handle: int) -> None:
            fsync(handle)
            self.note("sync", Path(f"/proc/self/fd/{handle}").readlink())

        def moved(how: Callable) -> Callable:
            def move(source: Path, target: Path) -> Path:
                self.note("write", source)  # whatever it holds by now
                done = how(source, target)
                self.note("move", source, target)
                return done

            return move

        def removed(folder: Path, ignore_errors: bool = False) -> None:
            if folder.exists():
                self.note("remove", folder)
            rmtree(folder, ignore_errors=ignore_errors)

        def unlinked(file: Path, missing_ok: bool = False) -> None:
            self.note("remove", file)
            unlink(file, missing_ok=missing_ok)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "rename", moved(rename))
        monkeypatch.setattr(Path, "replace", moved(replace))
        monkeypatch.setattr(Path, "unlink", unlinked)
        monkeypatch.setattr(shutil, "rmtree", removed)

    def note(self, what: str, *places: Path) -> None:
        names = [str(place.relative_to(self.root)) for place in places]
        if what in ("sync", "write"):
            for file in sorted(places[0].rglob("*")) if places[0].is_dir() else [places[0]]:
                if file.is_file():
                    self.events.append(("write", str(file.relative_to(self.root)), file.read_bytes().decode()))
        if what != "write":
            self.events.append((what, *names))


class Disk:
    """What may be found after a cut: for each name the contents that it can have, None for no such name."""

    def __init__(self, before: dict[str, str]) -> None:
        self.synced = dict(before)  # file -> content that lasts
        self.names = {name: name for name in before}  # name -> the file that it leads to, as the program sees it
        self.lasting = dict(self.names)  # and as it lasts
        self.pending: list[Event] = []  # changes of names that may or may not have reached the disk
        self.fresh = itertools.count()

    def play(self, event: Event) -> None:
        kind, name, *more = event
        if kind == "write":
            if name not in self.names:
                self.names[name] = f"#{next(self.fresh)}"
                self.pending.append(("link", name, self.names[name]))
                self.synced.setdefault(self.names[name], "")  # empty until it is synced
            self.last_written = (self.names[name], more[0])
        elif kind == "sync" and name in self.names:
            self.synced[self.names[name]] = self.last_written[1]
        elif kind == "sync":  # of a folder: its names last
            self.pending = [change for change in self.pending if not self._apply(change, name)]
        else:
            below = [n for n in self.names if n == name or n.startswith(f"{name}/")]
            for old in below:
                file = self.names.pop(old)
                target = more[0] + old[len(name) :] if kind == "move" else None
                if target:
                    self.names[target] = file
            self.pending.append((kind, name, *more))

    def _apply(self, change: Event, folder: str) -> bool:
        """Let a change of names last, where one of its ends lies in `folder`."""
        if not any(str(Path(end).parent) == folder for end in change[1 : 3 if change[0] == "move" else 2]):
            return False
        self.lasting = changed(self.lasting, change)
        return True

    def found(self) -> Iterator[dict[str, str]]:
        """Every state that a cut can leave: any prefix of the pending changes of names reached the disk."""
        names = self.lasting
        yield {name: self.synced.get(file, "") for name, file in names.items()}
        for change in self.pending:
            names = changed(names, change)
            yield {name: self.synced.get(file, "") for name, file in names.items()}


def changed(names: dict[str, str], change: Event) -> dict[str, str]:
    kind, name, *more = change
    if kind == "link":
        return names | {name: more[0]}
    below = {n: f for n, f in names.items() if n == name or n.startswith(f"{name}/")}
    rest = {n: f for n, f in names.items() if n not in below}
    return rest | ({more[0] + n[len(name) :]: f for n, f in below.items()} if kind == "move" else {})


def cuts(before: dict[str, str], events: list[Event]) -> Iterator[dict[str, str]]:
    """What may be found after a cut behind each event."""
    disk = Disk(before)
    yield from disk.found()
    for event in events:
        disk.play(event)
        yield from disk.found()


def test_a_file_is_the_old_or_the_new_one_at_every_moment(tmp_path, monkeypatch):
    file = tmp_path / "manifest.json"
    file.write_bytes(OLD)
    trace = Recorder(tmp_path, monkeypatch)
    write_whole(file, NEW)
    states = [state["manifest.json"] for state in cuts({"manifest.json": OLD.decode()}, trace.events)]
    assert set(states) == {OLD.decode(), NEW.decode()}
    assert states[-1] == NEW.decode(), "after it returns the new one lasts"
    assert [event[0] for event in trace.events if event[0] != "write"] == ["sync", "move", "sync"]


def test_control_a_file_that_is_renamed_before_it_is_synced_is_found_empty(tmp_path, monkeypatch):
    file = tmp_path / "manifest.json"
    file.write_bytes(OLD)
    trace = Recorder(tmp_path, monkeypatch)
    monkeypatch.setattr(durable.os, "fsync", lambda handle: None)
    write_whole(file, NEW)
    states = [state["manifest.json"] for state in cuts({"manifest.json": OLD.decode()}, trace.events)]
    assert "" in states


FOLDER = {"model/a.json": "old a", "model/weights/b.bin": "old b"}
WRITTEN = {"model/a.json": "new a", "model/weights/b.bin": "new b"}


def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What can be found of `model` after a cut at any moment of its replacement."""
    for name, content in FOLDER.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    trace = Recorder(tmp_path, monkeypatch)
    with whole_folder(tmp_path / "model") as part:
        (part / "weights").mkdir()
        (part / "a.json").write_text("new a")
        (part / "weights" / "b.bin").write_text("new b")
    states = cuts(FOLDER, trace.events)
    return [{n: c for n, c in state.items() if n.startswith("model/")} for state in states]


def test_a_folder_is_the_old_one_or_none_or_the_new_one_at_every_moment_and_never_a_part(tmp_path, monkeypatch):
    states = replaced(tmp_path, monkeypatch)
    assert all(state in (FOLDER, {}, WRITTEN) for state in states)
    assert states[-1] == WRITTEN


def test_control_a_folder_whose_files_are_not_synced_is_found_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "sync_folder", lambda folder: None)
    assert any(state not in (FOLDER, {}, WRITTEN) for state in replaced(tmp_path, monkeypatch))


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it_and_names_it(tmp_path, monkeypatch):
    file = tmp_path / "manifest.json"
    file.write_bytes(OLD)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match=r"manifest\.json") as error:
        write_whole(file, NEW)
    assert error.value.errno == 28
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"manifest.json": OLD}
