"""Any bytes to a reader of outside data: what may happen, what must not, and how bytes are made up.

A reader gives a value or refuses with an error of its package that names the file. It takes little time, writes only
beside the file, and starts nothing. `attempt` holds one input against that. The same targets run in seconds under
hypothesis (`test_fuzz.py`) and for minutes by `make fuzz`, guided by coverage where atheris is installed.

This file is the same in the tests of every package; its source is contract/fuzz/harness.py.
"""

import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .mutation import mutated

LARGEST = 1 << 16  # bytes of an input
STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
)
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink", "os.link", "shutil.rmtree")


class Finding(AssertionError):  # noqa: N818  what fuzzing finds is not an error of this module
    """A promise that an input broke. `signature` is the same for the same fault."""

    def __init__(self, signature: str, message: str) -> None:
        super().__init__(f"{signature}: {message}")
        self.signature = signature


@dataclass(frozen=True)
class Target:
    """One reader of outside data.

    Attributes:
        name: Of the target; unique in its package.
        file: The name of the file that the bytes are written to.
        read: Takes the path of that file; whatever it gives back is a value.
        seeds: Valid content: inputs are made from these.
        refused: Whether an error is one that the reader promises.
        beside: Other files in the same folder, by name.
        named: What a refusal must name: the file where this is empty; nothing where it is None (bytes of no file).
        seconds: Of processor time that one input may take.
    """

    name: str
    file: str
    read: Callable[[Path], Any]
    seeds: tuple[bytes, ...]
    refused: Callable[[Exception], bool]
    beside: Mapping[str, bytes] = field(default_factory=dict)
    named: str | None = ""
    seconds: float = 2.0


def attempt(target: Target, data: bytes, folder: Path, *, watched: bool = True) -> bool:
    """Let the target read `data` in a folder of its own below `folder`; whether it gave a value.

    Unwatched it may do anything, as libraries do that are imported late and make folders for themselves.

    Raises:
        Finding: If a promise is broken.
    """
    home = folder / "in"
    shutil.rmtree(home, ignore_errors=True)
    place = home / "outside" / target.file
    for name, content in {**target.beside, target.file: data}.items():
        (home / "outside" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "outside" / name).write_bytes(content)
    began = time.process_time()
    try:
        with _watched(folder, 3 * target.seconds) if watched else nullcontext():
            target.read(place)
        value = True
    except _Stop as stop:
        raise Finding(stop.signature, stop.says) from None
    except Exception as error:  # the promise is about all of them
        if not target.refused(error):
            raise Finding(signature_of(error), f"{error}"[:300]) from error
        if target.named is not None and (target.named or Path(target.file).name) not in str(error):
            raise Finding(
                f"unnamed {signature_of(error)}", f"the refusal does not name the file: {error}"[:300]
            ) from error
        value = False
    if (spent := time.process_time() - began) > target.seconds:
        raise Finding(
            f"slow {target.name}", f"{spent:.1f} s for {len(data)} bytes, at most {target.seconds} s are promised"
        )
    return value


def signature_of(error: BaseException) -> str:
    """The kind of an error and where in the project's code it came up: the last frame that is no library's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    ours = [f for f in frames if "/src/kd_" in f.filename or "/pipeline/" in f.filename or "/real/" in f.filename]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}"


# ---------------------------------------------------------------- what a reader does beside reading

_allowed: list[Path] = []  # the folder that may be written to while a reader is watched; a hook cannot be taken out
_hooked: list[bool] = []


class _Stop(BaseException):  # passes by the readers' own `except Exception`
    def __init__(self, signature: str, says: str) -> None:
        super().__init__(signature, says)
        self.signature, self.says = signature, says


@contextmanager
def _watched(folder: Path, seconds: float) -> Iterator[None]:
    """While inside, code that runs for longer, starts something or writes outside `folder` is stopped."""
    if not _hooked:
        sys.addaudithook(_heard)
        _hooked.append(True)
    before = signal.signal(signal.SIGPROF, _too_long)
    _allowed.append(folder.resolve())
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _allowed.pop()
        signal.signal(signal.SIGPROF, before)


def _too_long(number: int, frame: Any) -> None:
    at = [f for f in traceback.extract_stack(frame) if "/src/kd_" in f.filename or "/pipeline/" in f.filename]
    where = f" in {Path(at[-1].filename).name}:{at[-1].name}" if at else ""
    raise _Stop(f"slow{where}", "stopped, it takes three times as long as is promised, or for ever")


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _allowed:
        return
    if event in STARTS:
        raise _Stop(f"starts {event}", f"{arguments!r:.200}")
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in CHANGES:
        for name in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            if isinstance(name, str | bytes | os.PathLike) and _elsewhere(Path(os.fsdecode(name))):
                raise _Stop(f"writes elsewhere ({event})", f"{name!r:.200}")


def _elsewhere(path: Path) -> bool:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  links are part of the question, so they stay
    inside = absolute.is_relative_to(_allowed[-1]) or absolute.parts[:2] == ("/", "dev")
    return not inside and "__pycache__" not in path.parts


def limit(more: int) -> None:
    """Let this process take `more` bytes of address space beyond what it has, and write files no larger than that."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_FSIZE, (more, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    resource.setrlimit(resource.RLIMIT_AS, (held + more, resource.getrlimit(resource.RLIMIT_AS)[1]))


def smallest(target: Target, data: bytes, folder: Path, seconds: float = 20.0) -> bytes:
    """A part of `data` that breaks the same promise: pieces are left out as long as it still does."""
    wanted, until = found_by(target, data, folder), time.monotonic() + seconds
    size = len(data) // 2
    while size and time.monotonic() < until:
        at = 0
        while at < len(data) and time.monotonic() < until:
            shorter = data[:at] + data[at + size :]
            if found_by(target, shorter, folder) == wanted:
                data = shorter
            else:
                at += size
        size //= 2
    return data


def found_by(target: Target, data: bytes, folder: Path) -> str | None:
    """The signature of what an input finds, if it finds something."""
    try:
        attempt(target, data, folder)
    except Finding as found:
        return found.signature
    return None


def made_up(target: Target, seed: int) -> bytes:
    """An input that depends on the target's seeds and the number `seed` alone."""
    rng = random.Random(seed)
    return changed(target, rng.choice(target.seeds), rng)


def changed(target: Target, data: bytes, rng: random.Random) -> bytes:
    """`data` in another form."""
    return mutated(data, rng, target.seeds)[:LARGEST]


def try_examples(target: Target, folder: Path, examples: int) -> int:
    """So many inputs from hypothesis, the same every time: changed seeds and plain bytes; how many gave a value."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as some

    for seed in target.seeds:
        with suppress(Finding):
            attempt(target, seed, folder, watched=False)
    values = [attempt(target, seed, folder) for seed in target.seeds]
    inputs = some.integers(0, 2**32).map(lambda seed: made_up(target, seed)) | some.binary(max_size=200)

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(inputs)
    def one(data: bytes) -> None:
        values.append(attempt(target, data, folder))

    one()
    return sum(values)
