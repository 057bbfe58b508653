"""Files behind an fsspec URL: which there are, in which state they are, and stretches of their bytes."""

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from posixpath import commonpath, dirname
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import Field

from kd_distill.tracking import IntegrityError

log = logging.getLogger(__name__)
T = TypeVar("T")
SCHEME = r"^[A-Za-z][A-Za-z0-9+.:-]*://"  # with the `::` of chains, which are refused
Url = Annotated[str, Field(pattern=SCHEME)]
# what the file systems call the state of a file's content, best first
VERSIONS = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "mtime",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "created",
)
EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}
ASKED_AT_ONCE = 16
TOO_MANY, TOO_LATE = 429, 408  # HTTP states that pass


class UnreachableStoreError(OSError):
    """The storage did not answer in several tries (exit code 75: run again)."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as it was when it was looked at.

    Attributes:
        name: Below the folder that all files of a set have in common.
        url: Where it is.
        size: In bytes.
        version: Its ETag or time of change, whatever the storage tells; empty where it tells nothing.
    """

    name: str
    url: str
    size: int
    version: str

    @cached_property
    def key(self) -> str:
        """Of this content: changes when it does."""
        return hashlib.sha256(f"{shown(self.url)} {self.size} {self.version}".encode()).hexdigest()[:24]


def is_url(place: object) -> bool:
    """Whether this is a URL and not a path."""
    return isinstance(place, str) and re.match(SCHEME, place) is not None


def shown(url: str) -> str:
    """The URL without what may be secret: user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def name_of(url: str) -> str:
    """What data at this URL is called: its last folder, or the host."""
    parts = urlsplit(shown(url))
    folder = dirname(parts.path.split("{")[0].split("*")[0] + "x") if _names_files(url) else parts.path
    return folder.rstrip("/").rpartition("/")[2] or parts.netloc.split("{")[0] or parts.scheme


def root_of(urls: Sequence[str]) -> str:
    """The folder that all files have in common, without the scheme."""
    return commonpath([dirname(_place(url)) for url in urls])


def _place(url: str) -> str:
    return urlsplit(url).netloc + urlsplit(url).path


def _names_files(url: str) -> bool:
    return urlsplit(url).path.endswith(".tar")


class Remote:
    """The files of one URL, asked for with patience.

    Args:
        url: A folder, or files by braces (`{00000..00099}`, `{a,b}`) or `*`.
        tries: For each request; between them it waits up to 30 seconds, longer each time.
        timeout: Seconds without a byte after which an HTTP request has failed.

    Raises:
        ValueError: If no file system knows the URL, or it is a chain (`::`).
    """

    def __init__(self, url: str, *, tries: int = 8, timeout: float = 60.0) -> None:
        import fsspec

        if "::" in url:
            raise ValueError(
                f"{shown(url)}: expected one URL, got a chain of them (::). What is read is cached anyway."
            )
        self.url, self.tries = url, tries
        scheme = url.partition("://")[0].lower()
        try:
            self._fs = fsspec.filesystem(scheme, use_listings_cache=False, **_options(scheme, timeout))
        except ImportError as error:
            hint = f"pip install 'kd-distill[{EXTRAS[scheme]}]'. " if scheme in EXTRAS else ""
            raise ValueError(f"{shown(url)}: {hint}({error})") from None
        except ValueError as error:
            raise ValueError(f"{shown(url)}: {error}") from None

    @property
    def is_folder(self) -> bool:
        """Whether the URL names a folder, and not files by braces or `*`."""
        return not _names_files(self.url)

    def urls(self, suffix: str = ".tar") -> list[str]:
        """All files with this suffix, sorted; those that braces name are not looked for."""
        from braceexpand import braceexpand

        found: set[str] = set()
        for pattern in braceexpand(self.url):
            if _names_files(pattern) and "*" not in pattern:
                found.add(pattern)
                continue
            if not _names_files(pattern):
                pattern = f"{pattern.rstrip('/')}/*{suffix}"
            bare = self._fs._strip_protocol(pattern)
            listed = self._tried(lambda bare=bare: self._fs.glob(bare), pattern)  # type: ignore[misc]
            found |= {self._fs.unstrip_protocol(path) for path in listed}
        return sorted(found)

    def files(self, urls: Sequence[str], root: str = "", *, missing: bool = False) -> list[RemoteFile]:
        """The state of each file, named from `root` on (`root_of`); with `missing`, of those that are there.

        Raises:
            FileNotFoundError: If one is missing, and must not be.
        """

        def look(url: str) -> RemoteFile | None:
            try:
                return self._tried(lambda: self._state(_place(url)[len(root) :].lstrip("/"), url), url)
            except FileNotFoundError:
                if missing:
                    return None
                raise

        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            return [file for file in pool.map(look, urls) if file is not None]

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`.

        Raises:
            IntegrityError: If the file is no longer what it was.
            UnreachableStoreError: If the storage fails.
        """
        return self._tried(lambda: self._range(file, start, stop), file.url)

    def _range(self, file: RemoteFile, start: int, stop: int) -> bytes:
        try:
            data = bytes(self._fs.cat_file(file.url, start=start, end=stop))
        except Exception:
            with suppress(OSError):  # a storage that fails altogether is not one that has changed
                self._refuse_changed(file)
            raise
        self._refuse_changed(file)
        if len(data) == file.size > stop - start:
            raise ValueError(f"{shown(file.url)}: the server sent the whole file where a range was asked for.")
        if len(data) != stop - start:
            raise OSError(f"expected {stop - start} bytes at {start}, got {len(data)}")
        return data

    def _refuse_changed(self, file: RemoteFile) -> None:
        try:
            now = self._state(file.name, file.url)
        except FileNotFoundError:
            raise IntegrityError(f"{shown(file.url)}: the file was here when it was indexed, and is gone.") from None
        if (now.size, now.version) != (file.size, file.version):
            raise IntegrityError(
                f"{shown(file.url)} was replaced while it was read: expected {file.size} bytes, version "
                f"{file.version or '?'}, found {now.size}, {now.version or '?'}. Start again; it will be indexed anew."
            )

    def _state(self, name: str, url: str) -> RemoteFile:
        info = self._info(url)
        if info.get("size") is None:
            raise ValueError(f"{shown(url)}: the server does not say how large the file is, so ranges cannot be read.")
        version = next((str(info[key]) for key in VERSIONS if info.get(key)), "")
        return RemoteFile(name, url, int(info["size"]), version)

    def _info(self, url: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._fs.info(url)
        except FileNotFoundError as error:
            if error.__cause__ is not None and _passes(error.__cause__):
                raise error.__cause__ from None  # fsspec takes a server that fails for a file that is not there
            raise FileNotFoundError(f"Expected a file at {shown(url)}, found none.") from None
        return found

    def _tried(self, ask: Callable[[], T], url: str) -> T:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        waiting = wait_random_exponential(multiplier=0.25, max=30)
        try:
            for attempt in Retrying(
                stop=stop_after_attempt(self.tries), wait=waiting, retry=retry_if_exception(_passes), reraise=True
            ):
                with attempt:
                    return ask()
        except Exception as error:
            if not _passes(error):
                raise
            raise UnreachableStoreError(f"{shown(url)}: {self.tries} tries failed, the last with: {error}") from error
        raise AssertionError("unreachable")


def _options(scheme: str, timeout: float) -> dict[str, Any]:
    if scheme not in ("http", "https"):
        return {}
    import aiohttp

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)}}


def _passes(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(
        error, IntegrityError | FileNotFoundError | PermissionError | IsADirectoryError | UnreachableStoreError
    ):
        return False
    state = getattr(error, "status", None)
    if isinstance(state, int):
        return state >= 500 or state in (TOO_LATE, TOO_MANY)
    network = type(error).__module__.partition(".")[0] in ("aiohttp", "botocore", "aiobotocore", "gcsfs", "requests")
    return network or isinstance(error, OSError | TimeoutError | EOFError)
