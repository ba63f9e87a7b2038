"""Text files about images: read whole, in UTF-8, by numbered lines."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import DataError, some
from harness.base.files import open_binary

LARGEST = 32 << 20  # bytes: a million images; what is made of a line is ten times as large


def read_text(path: Path, what: str) -> str:
    """Read a file in UTF-8; a byte order mark is dropped, line ends become `\\n`.

    what: what the file is, for messages: "label file". Raises `DataError`: no file, not readable,
    too large, or not text.
    """
    try:
        if not path.is_file():  # a pipe would be waited for for ever
            state = "is not a file" if path.exists() else "does not exist"
            raise DataError(f"the {what} {path} {state}", remedy=f"name the {what}")
        with open_binary(path) as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise DataError(
                f"the {what} {path} is larger than {LARGEST >> 20} MiB",
                remedy=f"a line an image is far less: name the {what}",
            )
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        is_text = isinstance(error, OSError)
        raise DataError(
            f"the {what} {path} {'cannot be read' if is_text else 'is not text'}: {error}",
            remedy="copy it again as UTF-8, readable for this user",
        ) from error


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, without space around them, with their numbers from 1."""
    for number, line in enumerate(io.StringIO(text), 1):  # a list would be three times the text
        if stripped := line.strip():
            yield number, stripped


def parsed_lines(
    path: Path, text: str, form: re.Pattern[str], remedy: str
) -> Iterator[tuple[int, re.Match[str]]]:
    """Lines of one form with their numbers. Raises `DataError` at the end, that names those of
    another.
    """
    malformed = []
    for number, line in numbered_lines(text):
        if match := form.fullmatch(line):
            yield number, match
        else:
            malformed.append(f"line {number} {line[:60]!r}")
    if malformed:
        raise DataError(f"malformed in {path}: {some(malformed)}", remedy=remedy)
