"""A disk that fills up: a small tmpfs where this process may mount one, else a limit on the size of files."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A folder whose disk can be filled and emptied."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, leave: int) -> None:
        """Leave about `leave` bytes."""
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (leave, self._limits[1]))
            return
        block = b"0" * 4096
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(block)
            except OSError:
                pass
            ballast.truncate(max(0, ballast.tell() - leave))

    def make_room(self) -> None:
        """Take away what `fill` put there."""
        (self.folder / "ballast").unlink(missing_ok=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A disk of that size at `folder`; where nobody may mount, a folder in which files cannot grow once it is full."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    disk = SmallDisk(folder, mounted=mounted)
    try:
        yield disk
    finally:
        disk.make_room()
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
