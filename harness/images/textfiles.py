"""Small text files that people hand over: lists of labels, of classes, of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import DataError


def read_text(path: Path, what: str) -> str:
    """Read a file in UTF-8; a byte order mark is dropped, line ends become `\\n`.

    what: what the file is, for messages: "label file".

    Raises:
        DataError: no file, not readable, or not text.
    """
    try:
        if not path.is_file():  # a pipe would be waited for for ever
            state = "is not a file" if path.exists() else "does not exist"
            raise DataError(f"the {what} {path} {state}", remedy=f"name the {what}")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the {what} {path} is not text: {error.reason} at byte {error.start}",
            remedy="save it as UTF-8, or copy it again",
        ) from error
    except OSError as error:
        raise DataError(
            f"the {what} {path} cannot be read: {error.strerror or error}",
            remedy="make it readable for this user, or name another file",
        ) from error


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, without space around them, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), 1):
        if stripped := line.strip():
            yield number, stripped
