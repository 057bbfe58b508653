"""The study's commands from one process that has imported everything already and forks for each of them.

Importing torch, transformers and MLflow takes longer than a small model takes to train, and a grid has hundreds of
commands. `serve` is that process; `ask` is what stands on the path as `distill`, `vlm`, `evalsuite` and `analysis`.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.rehearsal.apps import app_of, import_all

WHERE = "KD_WARM_SOCKET"
NUMBER = struct.Struct("i")


def run_app(command: str, arguments: list[str]) -> int:
    """One of the packages' commands in this process; its exit code."""
    try:
        app_of(command)(arguments, prog_name=command)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def ask(where: Path, command: str, arguments: list[str]) -> int:
    """Have the command run by the server at `where`, with this process's folder, environment and streams.

    Raises:
        OSError: If no server answers there.
    """
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(where))
        request = json.dumps([command, arguments, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(link, [NUMBER.pack(len(request))], [0, 1, 2])
        link.sendall(request)
        answer = link.recv(NUMBER.size)
    return NUMBER.unpack(answer)[0] if len(answer) == NUMBER.size else 1


def serve(where: Path, run: Callable[[str, list[str]], int] = run_app) -> None:
    """Answer until SIGTERM; each command is a child, ended when whoever asked for it goes away."""
    with socket.socket(socket.AF_UNIX) as door:
        where.unlink(missing_ok=True)
        door.bind(str(where))
        door.listen(64)
        ended, tell = os.pipe()  # a byte arrives with each signal
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        children: dict[int, socket.socket] = {}
        while True:
            watched: list[Any] = [door, ended, *children.values()]
            ready, _, _ = select.select(watched, [], [])
            if ended in ready:
                os.read(ended, 4096)
                _tell_ends(children)
            _end_orphans(children, ready)
            if door in ready:
                link, _ = door.accept()
                children[_fork(link, run)] = link


def _tell_ends(children: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if link := children.pop(found[0], None):
                with contextlib.suppress(OSError):
                    link.sendall(NUMBER.pack(os.waitstatus_to_exitcode(found[1])))
                link.close()


def _end_orphans(children: dict[int, socket.socket], ready: Sequence[Any]) -> None:
    """End the commands whose askers are gone: their sockets are readable and give nothing."""
    for pid, link in list(children.items()):
        if link in ready and not link.recv(1):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            link.close()
            del children[pid]


def _fork(link: socket.socket, run: Callable[[str, list[str]], int]) -> int:
    head, streams, _, _ = socket.recv_fds(link, NUMBER.size, 3)
    request = json.loads(_exactly(link, NUMBER.unpack(head)[0]))
    if not (pid := os.fork()):
        code = 1
        try:
            code = _become(request, streams, run)
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 255)
    for stream in streams:
        os.close(stream)
    return pid


def _become(request: list[Any], streams: Sequence[int], run: Callable[[str, list[str]], int]) -> int:
    """Take over the asker's folder, environment and streams, and run its command."""
    command, arguments, folder, environment = request
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for own, theirs in enumerate(streams):
        os.dup2(theirs, own)
        os.close(theirs)
    # streams made anew: the server's would go on taking an asker's pipe for the file, with places to seek, of its log
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return run(command, arguments)


def _exactly(link: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size and (more := link.recv(size - len(content))):
        content += more
    return content


@contextlib.contextmanager
def warm(root: Path, log: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A server while inside; yields the environment in which `main` finds it.

    Raises:
        RuntimeError: If it ends before it answers.
    """
    with tempfile.TemporaryDirectory(prefix="kd-warm-") as folder, log.open("wb") as said:
        where = Path(folder, "socket")  # a path of a socket has 107 characters at most
        env = {**environment, WHERE: str(where)}
        command = [sys.executable, "-m", "pipeline.rehearsal.warm", "serve"]
        server = subprocess.Popen(command, cwd=root, env=env, stdout=said, stderr=subprocess.STDOUT)
        try:
            while not where.exists():
                if server.poll() is not None:
                    raise RuntimeError(f"the server of commands ended with {server.returncode}; see {log}")
                time.sleep(0.1)
            yield env
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """`serve`, or a command and its arguments: run by the server, or here where there is none."""
    where, (command, *arguments) = os.environ.get(WHERE), sys.argv[1:]
    if command == "serve":
        import_all()
        serve(Path(os.environ[WHERE]))
    try:
        sys.exit(ask(Path(where or ""), command, arguments))
    except OSError:
        sys.exit(run_app(command, arguments))


if __name__ == "__main__":
    main()
