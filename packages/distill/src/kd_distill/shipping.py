"""Sending a journal to MLflow: what the server lacks, once, however often it fails in between.

This file is the same in every package that trains; its source is contract/shared/shipping.py.
"""

import contextlib
import json
import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic asks for these below Python 3.12
)

from filelock import FileLock
from pydantic import ConfigDict, Field, StringConstraints, with_config
from typing_extensions import TypedDict

from .reading import FileError, checked
from .tracking import JOURNAL, client, log_metrics, run_of, uri

SECONDS = 5.0  # between two messages
LONGEST_PAUSE = 60.0  # between two attempts while the server does not answer
LOCK_SECONDS = 60.0  # to wait for another sender of the same journal
REQUEST = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # MLflow's own: 120 s, 7 times

log = logging.getLogger(__name__)


class UnreachableError(ConnectionError):
    """MLflow does not answer; nothing is lost, and the same command later sends it."""


Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]  # goes into names of files and into queries
Step = Annotated[int, Field(ge=0, lt=1 << 63)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
STRICT = ConfigDict(extra="forbid")  # a key that is not named here would be dropped, and with it what it promises


@with_config(STRICT)
class Start(TypedDict):
    event: Literal["start"]
    schema: Literal["kd-journal/1"]
    key: Word
    time: Step
    experiment: Word
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    datasets: list[dict[Literal["name", "digest", "path"], str]]
    models: list[dict[str, str]]


@with_config(STRICT)
class Metrics(TypedDict):
    event: Literal["metrics"]
    step: Step
    time: Step
    values: dict[str, float]


@with_config(STRICT)
class Table(TypedDict):
    event: Literal["table"]
    step: Step
    name: Word
    rows: list[dict[str, Any]]


@with_config(STRICT)
class Declared(TypedDict):
    event: Literal["model"]
    kind: Word
    name: str
    tags: dict[str, str]
    sha256: NotRequired[Sha256]  # of the folder as the training left it


@with_config(STRICT)
class End(TypedDict):
    event: Literal["end"]
    status: str
    time: NotRequired[Step]


Event = Annotated[Start | Metrics | Table | Declared | End, Field(discriminator="event")]


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The events of a journal, the start first; a last line that a kill cut short is dropped.

    Raises:
        FileError: If it is something else; a ValueError.
    """
    return _events(path.read_bytes(), path)


def _parsed(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)  # a loss that is no number is written as NaN
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where}: expected JSON, got something else: {error}.") from None


def _events(data: bytes, path: Path, *, behind: int = 0) -> list[dict[str, Any]]:
    """The events in `data`, before which the journal has `behind` bytes."""
    *lines, torn = data.split(b"\n")  # behind the last newline there is nothing, or what a kill left of a line
    events = [_parsed(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    with contextlib.suppress(FileError):
        events += [_parsed(torn, "")] if torn else []
    found: list[dict[str, Any]] = checked(list[Event], events, str(path))
    if not behind and (not found or found[0]["event"] != "start"):
        raise FileError(f"{path}: expected a journal of schema kd-journal/1, which begins with its start.")
    return found


def send(path: Path) -> int:
    """Make MLflow hold all that a journal says of its run; returns how many events it lacked.

    Raises:
        Exception: Whatever MLflow raises where it does not answer; call again later.
    """
    return _Sender(path).send()


def send_all(folders: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """`send` every journal below `folders`; yields the name of each run and how many events MLflow lacked.

    Raises:
        FileNotFoundError: If there is no journal.
        UnreachableError: If MLflow does not answer.
    """
    journals = sorted(path for folder in folders for path in folder.rglob(JOURNAL))
    if not journals:
        raise FileNotFoundError(f"Expected journals below {', '.join(map(str, folders))}, found no {JOURNAL}.")
    for path in journals:
        try:
            lacked = send(path)
        except (ValueError, FileNotFoundError):
            raise
        except Exception as error:  # MLflow raises many kinds
            raise UnreachableError(f"MLflow ({uri()}) does not take {path}; try again later: {error}") from error
        yield read_journal(path)[0]["name"], lacked


class _Sender:
    """Knows how much of a growing journal the server has."""

    def __init__(self, path: Path) -> None:
        self.path, self.run_id, self._key = path, "", ""
        self._id = uuid.uuid4().hex
        self._logged: dict[str, set[int]] = {}  # steps of each metric that the server has, or is being sent
        self._offset = 0  # bytes of the journal that the server has
        self._sure = False  # whether we can have sent nothing behind the offset: not after a start, not after a failure

    def send(self) -> int:
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]  # the writer may be in the middle of a line
        events = _events(data, self.path, behind=self._offset) if data else []
        if not events:
            return 0
        sure, self._sure = self._sure, False
        self._key = self._key or events[0]["key"]
        place = Path(tempfile.gettempdir()) / f"kd-journal-{self._key}"
        with FileLock(place.with_suffix(".lock"), timeout=LOCK_SECONDS):
            last = place.with_suffix(".sender")  # who sent last: somebody else may have sent what we are about to
            sure = sure and last.is_file() and last.read_text() == self._id
            last.write_text(self._id)
            lacked = self._deliver(events, sure)
        self._offset, self._sure = self._offset + len(data), True
        return lacked

    def _deliver(self, events: Sequence[Mapping[str, Any]], sure: bool) -> int:
        self.run_id = self.run_id or run_of(events[0])
        metrics: Sequence[Mapping[str, Any]] = [e for e in events if e["event"] == "metrics"]
        tables = [e for e in events if e["event"] == "table"]
        ended = [e for e in events if e["event"] == "end"]
        if sure or client().get_run(self.run_id).info.status != "FINISHED":
            metrics = self._not_logged(metrics, sure)
            log_metrics(self.run_id, metrics)
            for table in tables:
                _log_table(self.run_id, f"{table['name']}/{table['step']:08d}.json", table["rows"])
            if ended:
                client().set_terminated(self.run_id, "FINISHED", end_time=ended[0].get("time"))
            return len(metrics)
        return 0

    def _not_logged(self, events: Sequence[Mapping[str, Any]], sure: bool) -> list[Mapping[str, Any]]:
        """The events without the values whose step the run or an event before has: a killed training repeats steps.

        What the run had is asked once a metric, and again where somebody else may have sent.
        """
        if not sure:
            self._logged.clear()
        for key in {k for e in events for k in e["values"]} - self._logged.keys():
            self._logged[key] = {m.step for m in client().get_metric_history(self.run_id, key)}
        lacking: list[Mapping[str, Any]] = []
        for event in events:
            values = {k: v for k, v in event["values"].items() if event["step"] not in self._logged[k]}
            for key in values:
                self._logged[key].add(event["step"])
            if values:
                lacking.append({**event, "values": values})
        return lacking


def _log_table(run_id: str, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Make the run hold `rows` as the table `file`; one that is there is left as it is."""
    folder = file.rpartition("/")[0]
    if file not in {found.path for found in client().list_artifacts(run_id, folder or None)}:
        columns = {key: [row.get(key) for row in rows] for key in dict.fromkeys(k for row in rows for k in row)}
        client().log_table(run_id, columns, artifact_file=file)


class Shipper:
    """A thread that sends a journal while it grows. It never raises, and nobody waits for it but `finish`."""

    def __init__(self, path: Path) -> None:
        self._sender = _Sender(path)
        self._wake, self._ending = threading.Event(), threading.Event()
        self._deadline = float("inf")
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """There is something to send; returns at once."""
        if self._thread is None:
            for name, value in REQUEST.items():
                os.environ.setdefault(name, value)
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        self._wake.set()

    def finish(self, seconds: float) -> bool:
        """Wait at most `seconds` for the rest to arrive; whether it did. What did not stays in the journal."""
        self._deadline = time.monotonic() + seconds
        self._ending.set()
        self.wake()
        assert self._thread  # noqa: S101  wake made it
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("MLflow (%s) has not taken all of the run yet; `sync` or `register` sends the rest.", uri())
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = SECONDS
        while True:
            self._wake.wait()
            self._wake.clear()
            ending = self._ending.is_set()
            try:
                self._sender.send()
                pause = SECONDS
                if ending:
                    return
            except FileNotFoundError:  # the run is over and its folder removed
                return
            except Exception as error:  # MLflow raises many kinds, and none may reach the training
                if pause == SECONDS:
                    log.warning("MLflow (%s) does not answer; the journal goes on and is sent later: %s", uri(), error)
                if time.monotonic() > self._deadline:
                    return
                pause = min(2 * pause, LONGEST_PAUSE)
                self._wake.set()
            self._rest(pause)

    def _rest(self, seconds: float) -> None:
        """Pause; not longer than a moment once the training ends."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._ending.wait(min(seconds, 0.5)):
            pass
        if self._ending.is_set():
            time.sleep(0.2)
