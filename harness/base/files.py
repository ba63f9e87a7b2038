"""Small files and time stamps that every room reads and writes alike."""

from __future__ import annotations

import errno
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
