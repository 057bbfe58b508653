"""One file by HTTP: resumed where it stopped, even after a kill; in its place once it is whole and its digest right.

huggingface_hub 2.4 begins a file again after a kill (its partial files have random names), so files of the hub are
fetched here, too; where they lie and with which token, the library says (`hub.py`).
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from kd_distill.durable import sync_names
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from pipeline.data.errors import DataError, GatedError, IntegrityError, StoppedError

TRIES = 6  # without a byte of progress between them
TIMEOUT = httpx.Timeout(30, read=60)


@dataclass(frozen=True)
class Remote:
    """A file that can be fetched.

    Attributes:
        size: In bytes, where known.
        sha256: Where known.
        page: Where a person can read, and accept, its terms.
    """

    url: str
    size: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    page: str = ""


class TransientError(Exception):
    """Worth another try, after so many seconds at least."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


def client() -> httpx.Client:
    """A client that follows redirects; tokens do not cross to another host."""
    return httpx.Client(follow_redirects=True, timeout=TIMEOUT)


def part_of(target: Path) -> Path:
    """Where the bytes of an unfinished file are."""
    return target.with_name(f".{target.name}.part")


def download(
    http: httpx.Client,
    remote: Remote,
    target: Path,
    *,
    on_bytes: Callable[[int], None],
    stopped: Callable[[], bool],
    patience: float = 1.0,
) -> str:
    """Fetch `remote` to `target` and give its sha256.

    Args:
        http: See `client`.
        remote: What.
        target: Where to; its folder is made.
        on_bytes: Called with bytes gained, or lost where a server makes us begin again.
        stopped: Asked at each chunk.
        patience: Seconds before the second try; it doubles from there.

    Raises:
        GatedError: If the server wants a token or terms accepted.
        DataError: If it has no such file, or fails again and again.
        IntegrityError: If the bytes are wrong twice.
        StoppedError: If `stopped`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    for once_more in (False, True):
        _fill(http, remote, part, on_bytes, stopped, patience)
        digest = digest_of(part)
        if remote.sha256 in (None, digest):
            break
        on_bytes(-part.stat().st_size)
        part.unlink()
        if once_more:
            raise IntegrityError(f"{remote.url}: expected sha256 {remote.sha256}, got {digest}, twice. Not kept.")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    part.with_suffix(".etag").unlink(missing_ok=True)
    sync_names(target.parent)
    return digest


def digest_of(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fill(
    http: httpx.Client,
    remote: Remote,
    part: Path,
    on_bytes: Callable[[int], None],
    stopped: Callable[[], bool],
    patience: float,
) -> None:
    """Bring the missing bytes of `part`, trying again as long as some come."""
    gained_at = 0
    backoff = wait_random_exponential(multiplier=patience, max=60 * patience)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), error.after if isinstance(error, TransientError) else 0.0)

    attempts = Retrying(
        retry=retry_if_exception_type((httpx.TransportError, TransientError)),
        stop=lambda state: state.attempt_number - gained_at >= TRIES,
        wait=wait,
        reraise=True,
    )
    try:
        for attempt in attempts:
            with attempt:
                number = attempt.retry_state.attempt_number

                def count(n: int, number: int = number) -> None:
                    nonlocal gained_at
                    gained_at = number if n > 0 else gained_at
                    on_bytes(n)

                _once(http, remote, part, count, stopped)
    except (httpx.TransportError, TransientError) as error:
        raise DataError(
            f"{remote.url}: {error or type(error).__name__}, {TRIES} times without a byte between them. "
            "The same command goes on where it stopped."
        ) from None


def _once(
    http: httpx.Client, remote: Remote, part: Path, on_bytes: Callable[[int], None], stopped: Callable[[], bool]
) -> None:
    have = part.stat().st_size if part.exists() else 0
    if remote.size is not None and have == remote.size and part.exists():
        return
    headers = {**remote.headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with http.stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416 or not _same_file(response, remote, part, have):
            part.unlink(missing_ok=True)
            on_bytes(-have)
            raise TransientError("the file on the server is another one now; beginning again")
        _refuse(response, remote)
        start = have if response.status_code == 206 else 0
        on_bytes(start - have)
        with part.open("r+b" if start else "wb", buffering=0) as file:
            file.seek(start)
            for block in response.iter_raw():
                if stopped():
                    raise StoppedError
                file.write(block)
                on_bytes(len(block))
            reached = file.tell()
    if remote.size is not None and reached != remote.size:
        if reached > remote.size:
            part.unlink()
            on_bytes(-reached)
        raise TransientError(f"expected {remote.size} bytes, got {reached}")


def _same_file(response: httpx.Response, remote: Remote, part: Path, have: int) -> bool:
    """Whether an answer goes on where `part` ends. Where no digest will tell, the server's tag is kept and compared."""
    note, tag = part.with_suffix(".etag"), response.headers.get("ETag", "")
    if response.status_code == 206:
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        before = note.read_text() if note.exists() and remote.sha256 is None else tag
        return start is not None and int(start[1]) == have and before == tag
    if response.status_code == 200:
        note.write_text(tag)
    return True


def _refuse(response: httpx.Response, remote: Remote) -> None:
    """Raise for every answer that holds no part of the file."""
    status = response.status_code
    if status in (200, 206):
        return
    if status in (401, 403):
        where = (
            f" Accept the terms at {remote.page} and set HF_TOKEN to a token of that account." if remote.page else ""
        )
        raise GatedError(f"{remote.url}: refused ({status}).{where}")
    if status in (408, 429) or status >= 500:
        after = response.headers.get("Retry-After", "")
        raise TransientError(f"the server answered {status}", float(after) if after.isdigit() else 0.0)
    raise DataError(
        f"{remote.url}: the server answered {status}. Was it moved? Another place can be named in data.yaml."
    )
