"""Folders for files of a moment; `sweep` removes those that a killed process left.

Who uses a folder holds a lock on it: the kernel frees it with the process, however that went.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import StoreError, on_disk

PREFIX = "npu-accept-"


@contextlib.contextmanager
def folder(name: str, parent: str | Path | None = None) -> Iterator[Path]:
    """Make a folder in the temporary folder, or in `parent`, for the length of a `with` block.

    Raises:
        StoreError: there is no usable temporary folder.
        OSError: it cannot be made in `parent`.
    """
    path, fd = make(temporary() if parent is None else Path(parent), f"{PREFIX}{name}-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)


def temporary() -> Path:
    """Return the temporary folder. Raises `StoreError` where none can be written."""
    remedy = "free disk space there, or name another folder with TMPDIR=DIR"
    with on_disk(StoreError, "no temporary folder can be used", remedy):
        return Path(tempfile.gettempdir())


def make(parent: Path, prefix: str) -> tuple[Path, int]:
    """Return a new folder of mode 0700, and the descriptor whose lock says that it is used.
    Raises `OSError`: it cannot be made.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with contextlib.suppress(FileNotFoundError):  # swept before it was locked
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # a file system without locks is never swept
                fcntl.flock(fd, fcntl.LOCK_EX)
            if path.is_dir():
                return path, fd
            os.close(fd)


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove our folders of `prefix` that no process uses."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(fd).st_uid == os.geteuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)
