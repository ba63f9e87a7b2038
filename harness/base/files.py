"""Small files and time stamps that every room reads and writes alike."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from harness.base.errors import RecordError, on_disk


def now() -> str:
    """This moment in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def open_regular(
    path: str | Path, flags: int = os.O_RDONLY, *, own: bool = False, dir_fd: int | None = None
) -> int:
    """Return a descriptor of a regular file, whatever somebody put in its place.

    A pipe that nobody writes is not waited for. `own`, as for all that is to be written: it is no
    link and no hard link to a file of another place.
    Raises `OSError`: it cannot be opened, or is no such file.
    """
    own = own or bool(flags & (os.O_WRONLY | os.O_RDWR))
    safe = os.O_NONBLOCK | (os.O_NOFOLLOW if own else 0)
    fd = os.open(path, flags | safe, 0o666, dir_fd=dir_fd)
    at = os.fstat(fd)
    if stat.S_ISREG(at.st_mode) and not (own and at.st_nlink > 1):
        return fd
    os.close(fd)
    if stat.S_ISDIR(at.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = "a hard link" if stat.S_ISREG(at.st_mode) else "not a regular file"
    raise OSError(errno.EINVAL, kind, str(path))


def open_binary(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes; see `open_regular`."""
    return open(open_regular(path), "rb")


def open_log(path: Path) -> BinaryIO:
    """Open a log to write at its end, and make it and its folder where they are absent.
    Raises `OSError`: it cannot be opened, or is a link or no regular file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path == Path(os.devnull):
        return path.open("ab")
    return open(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")


def regular_text(path: Path, *, errors: str = "strict") -> str:
    """Return the text of a regular file in UTF-8.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which might never end.
        UnicodeDecodeError: it is not UTF-8, where `errors` is "strict".
    """
    with open(open_regular(path), encoding="utf-8", errors=errors) as file:
        return file.read()


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is what Git keeps of a file in its Large File Storage."""
    with open_binary(path) as file:
        return file.read(23) == b"version https://git-lfs"


def starts_programs(folder: Path) -> bool:
    """Return whether programs in a folder can be started: its file system is not mounted noexec.

    The folder need not be there yet.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return not os.statvfs(there).f_flag & os.ST_NOEXEC


def replace_file(path: Path, content: str | bytes, *, remedy: str = "") -> Path:
    """Write a file in one step: a reader sees the old content or the new one.

    A link is replaced, not the file that it names.
    Raises `RecordError`: it cannot be written, or is a device or a pipe; `remedy` says what to do.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    staged = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with on_disk(RecordError, f"cannot write {path}", remedy):
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file")
        try:
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(path)
        finally:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
    return path
