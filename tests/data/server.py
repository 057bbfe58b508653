"""A file server on loopback that can misbehave, and the part of the hub's API that fetching a data set needs."""

import hashlib
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

BLOCK = 1 << 16


class FileServer(ThreadingHTTPServer):
    """Serves `folder`. `faults[path]` are taken in turn, one a request: cut, wrong, 403, 500, 429, no-range, slow,
    and hold, which waits in the middle until `release` is set."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.sent: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.moved: dict[str, str] = {}  # path: URL that it is redirected to
        self.tokens: list[str | None] = []  # Authorization of every request for a file
        self.release = threading.Event()
        self.gated: set[str] = set()
        self.commit = "c" * 40

    def forget(self) -> None:
        """Count bytes anew; what still goes to a process that is dead counts no more."""
        self.sent = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    server = FileServer(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: FileServer
    commit = ""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/datasets/"):
            self._api(path.removeprefix("/api/datasets/"))
            return
        if "/resolve/" in path:  # /datasets/OWNER/NAME/resolve/COMMIT/FILE
            repo, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            self.commit, _, name = rest.partition("/")
            path = f"/{repo}/{name}"
        self._file(path, body=body)

    def _api(self, rest: str) -> None:
        repo = "/".join(rest.split("/")[:2])
        self.server.requests[f"/api/{repo}"] += 1
        folder = self.server.folder / repo
        if repo in self.server.gated:
            self._json({"error": "gated"}, 403, {"X-Error-Code": "GatedRepo"})
        elif not folder.is_dir():
            self._json({"error": "none"}, 404, {"X-Error-Code": "RepoNotFound"})
        else:
            files = [_described(folder, file) for file in sorted(folder.rglob("*")) if file.is_file()]
            if "/tree/" in rest:
                self._json(
                    [{"type": "file", "path": f["rfilename"], "size": f["size"], "oid": f["blobId"]} for f in files]
                )
            else:
                asked = rest.partition("/revision/")[2]
                commit = asked if len(asked) == len(self.server.commit) else self.server.commit
                self._json({"id": repo, "sha": commit, "siblings": files})

    def _json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _file(self, path: str, *, body: bool) -> None:
        self.server.requests[path] += body
        self.server.tokens.append(self.headers.get("Authorization"))
        if path in self.server.moved:
            self._json({}, 302, {"Location": self.server.moved[path]})
            return
        fault = self.server.faults[path].pop(0) if body and self.server.faults[path] else ""
        file = self.server.folder / path.lstrip("/")
        if fault.isdigit() or not file.is_file():
            self._json({}, int(fault or 404), {"Retry-After": "0"})
            return
        data = file.read_bytes()
        tag = hashlib.sha256(data).hexdigest()
        start = 0
        if (asked := self.headers.get("Range")) and fault != "no-range":
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(data) > 0:
            self._json({}, 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", self.commit)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self._body(path, data[start:], fault)

    def _body(self, path: str, data: bytes, fault: str) -> None:
        sent = self.server.sent
        if fault == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        if fault == "cut":
            data = data[: len(data) // 2]
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            self.wfile.write(block)
            sent[path] += len(block)
            if fault == "slow":
                time.sleep(0.01)
            if fault == "hold" and start >= len(data) // 2:
                self.server.release.wait(60)
        if fault == "cut":
            self.close_connection = True


def _described(folder: Path, file: Path) -> dict[str, object]:
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return {
        "rfilename": file.relative_to(folder).as_posix(),
        "size": len(data),
        "blobId": digest[:40],
        "lfs": {"sha256": digest, "size": len(data), "pointerSize": 134},
    }
