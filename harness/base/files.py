"""Small files and time stamps that every room reads and writes alike."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from datetime import UTC, datetime
from pathlib import Path


def now() -> str:
    """This moment in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def regular_text(path: Path, *, errors: str = "strict") -> str:
    """The text of a regular file in UTF-8.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which might never end.
        UnicodeDecodeError: it is not UTF-8, where `errors` is "strict".
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_text(encoding="utf-8", errors=errors)


def replace_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 in one step: a reader sees the old text or the new one.

    A link stays, and the file that it names is replaced.

    Raises:
        OSError: it cannot be written, or is a device, a pipe or a folder.
    """
    # Of `path` and not of where it leads: /dev/stdout leads to no name that can be opened.
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    target = Path(os.path.realpath(path))
    staged = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        staged.write_text(text, encoding="utf-8", errors="replace")
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
