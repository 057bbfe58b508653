"""A server of files with ranges, on loopback, that can be told to fail."""

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """A folder behind `url`, and what goes wrong with it.

    Attributes:
        ranges: Whether a range is honoured.
        failures: Requests for bytes yet to be answered with 503.
        drops: Requests for bytes yet to be cut off in the middle.
        gets: Requests for bytes, each as (path, range).
    """

    folder: Path
    url: str = ""
    ranges: bool = True
    failures: int = 0
    drops: int = 0
    gets: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def less(self, name: str) -> bool:
        """Take one from a counter; False where there is none left."""
        with self.lock:
            left = getattr(self, name)
            setattr(self, name, max(0, left - 1))
            return left > 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        file = self.file()
        if file.is_file():
            self.send(200, file.read_bytes(), self.state(file), body=False)
        else:
            self.send(404, b"", body=False)

    def do_GET(self) -> None:
        file, about = self.file(), self.server.about
        if file.is_dir():
            names = "".join(f'<a href="{f.name}">{f.name}</a>' for f in sorted(file.iterdir()))
            self.send(200, f"<html>{names}</html>".encode(), {"Content-Type": "text/html"})
        elif not file.is_file():
            self.send(404, b"")
        else:
            about.gets.append((file.name, self.headers.get("Range", "")))
            if about.less("failures"):
                self.send(503, b"busy")
            else:
                self.send_range(file.read_bytes(), self.state(file))

    def file(self) -> Path:
        return self.server.about.folder / self.path.lstrip("/").partition("?")[0]

    def state(self, file: Path) -> dict[str, str]:
        return {"ETag": f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"', "Accept-Ranges": "bytes"}

    def send_range(self, data: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked or not self.server.about.ranges:
            self.send(200, data, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.send(206, data[first : last + 1], headers, drop=self.server.about.less("drops"))

    def send(self, status: int, data: bytes, headers=(), *, body: bool = True, drop: bool = False) -> None:
        self.send_response(status)
        for name, value in {**dict(headers), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if drop else data)
        if drop:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    def __init__(self, about: Served) -> None:
        self.about = about
        super().__init__(("127.0.0.1", 0), Handler)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    about = Served(folder)
    server = Server(about)
    about.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield about
    finally:
        server.shutdown()
        server.server_close()
