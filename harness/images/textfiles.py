"""Text files about images: read whole, in UTF-8, by numbered lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import DataError, some


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
    except (OSError, UnicodeDecodeError) as error:
        is_text = isinstance(error, OSError)
        raise DataError(
            f"the {what} {path} {'cannot be read' if is_text else 'is not text'}: {error}",
            remedy="copy it again as UTF-8, readable for this user",
        ) from error


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, without space around them, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), 1):
        if stripped := line.strip():
            yield number, stripped


def parsed_lines(
    path: Path, text: str, form: re.Pattern[str], remedy: str
) -> list[tuple[int, re.Match[str]]]:
    """Lines of one form with their numbers. Raises `DataError` that names those of another."""
    matches = [(number, line, form.fullmatch(line)) for number, line in numbered_lines(text)]
    malformed = [f"line {number} {line[:60]!r}" for number, line, match in matches if not match]
    if malformed:
        raise DataError(f"malformed in {path}: {some(malformed)}", remedy=remedy)
    return [(number, match) for number, _, match in matches if match]
