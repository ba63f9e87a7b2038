"""Small files and time stamps that every room reads and writes alike."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from datetime import UTC, datetime
from pathlib import Path

from harness.base.errors import RecordError


def now() -> str:
    """This moment in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def regular_text(path: Path, *, errors: str = "strict") -> str:
    """Return the text of a regular file in UTF-8.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which might never end.
        UnicodeDecodeError: it is not UTF-8, where `errors` is "strict".
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_text(encoding="utf-8", errors=errors)


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is what Git keeps of a file in its Large File Storage."""
    with path.open("rb") as file:
        return file.read(23) == b"version https://git-lfs"


def replace_file(path: Path, content: str | bytes, *, remedy: str = "") -> Path:
    """Write a file in one step: a reader sees the old content or the new one.

    A link is replaced, not the file that it names.

    Raises:
        RecordError: it cannot be written, or is a device or a pipe; `remedy` says what to do.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    staged = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
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
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(f"cannot write {path}: {reason}", remedy=remedy) from error
    return path
