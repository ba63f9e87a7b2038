"""A private folder for the files of a tool, and what is left of such folders swept away.

The folder is made for the strictest of the tools: real path, ASCII, mode 0750, files 0640.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from harness.base import scratch
from harness.base.errors import ConfigError, InferError, LoadError, on_disk

FOLDER_MODE = 0o750
FILE_MODE = 0o640

PLAIN_PLACE = "--runs=DIR: a folder whose real path has only A-Z a-z 0-9 _ - / ."
MORE_SPACE = "free disk space there, or choose another folder for the run"
_PREFIX = "exchange-"
_SAFE_PATH = re.compile(r"[A-Za-z0-9_./-]+")


def is_plain(real: Path) -> bool:
    """Return whether CANN's tools take a path."""
    return _SAFE_PATH.fullmatch(str(real)) is not None


class Workspace:
    """A folder that only we and the tool use; removed as a whole by `close`."""

    def __init__(self, parent: Path) -> None:
        """Raises `ConfigError` for a folder that the tools would refuse or that cannot be made."""
        what = f"no folder for a tool's files can be made in {parent}"
        with on_disk(ConfigError, what, "choose another folder, with free space"):
            parent.mkdir(parents=True, exist_ok=True)
            real = parent.resolve(strict=True)
            if not is_plain(real):
                raise ConfigError(
                    f"the tools of CANN refuse paths like {str(real)!r}",
                    remedy=PLAIN_PLACE,
                )
            scratch.sweep(real, _PREFIX)  # up to two chunks each
            made = scratch.make(real, _PREFIX)
            self.path: Path = made[0]
            self._lock: int | None = made[1]
        self._folders = 0

    def folder(self) -> Path:
        """Return a new, empty folder of mode 0750. Raises `InferError`."""
        self._folders += 1
        path = self.path / f"c{self._folders:06d}"
        what = f"no folder for a tool's files can be made in {self.path}"
        with on_disk(InferError, what, MORE_SPACE):
            make_folder(path)
        return path

    def own_copy(self, file: Path) -> Path:
        """Return a copy of a model as `model.om`.

        The tools refuse links, group-writable files and names with unusual characters; a store may
        have all of them. Raises `LoadError`: it cannot be read or copied.
        """
        copy = self.path / "model.om"
        remedy = "see that the file is there and the disk has room for it"
        with on_disk(LoadError, f"{file.name} cannot be copied to {self.path}", remedy):
            shutil.copyfile(file, copy)
            copy.chmod(FILE_MODE)
        return copy

    def clear(self) -> None:
        """Remove all folders; the model stays."""
        for path in self.path.glob("c*"):
            remove(path)

    def free_bytes(self) -> int:
        """Return what the file system has left."""
        return shutil.disk_usage(self.path).free

    def close(self) -> None:
        """Remove it with all that is in it; safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        remove(self.path)


def remove(path: Path) -> None:
    """Remove a folder; what cannot be removed is left."""
    shutil.rmtree(path, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder of mode 0750, unless it is there. Raises `OSError`."""
    path.mkdir(FOLDER_MODE, exist_ok=True)


def write_file(path: Path, data: memoryview | bytes) -> None:
    """Write a new file of mode 0640, whatever the process's umask is. Raises `OSError`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, FILE_MODE)
    with open(fd, "wb") as file:
        os.fchmod(fd, FILE_MODE)
        file.write(data)
