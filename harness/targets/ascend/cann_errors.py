"""What CANN prints of an error: its code and its words.

Three generations spell it `E10007: ...`, `E10007: [PID: 7] 2025-03-18-09:02:18.501.341 ...` and
`Title(E10007): ...`. Of an inner error (`EZ9999: Inner Error!`) the lines after it have the words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

CHARACTERS = 300  # of an error's words in a first line

_ERROR = re.compile(r"\b(E[0-9A-Z]\d{4})\b\)?\s*:\s*(\S.*)", re.ASCII)
_STAMP = r"(?:\[PID:\s*\d+\]\s*)?(?:\d{4}-\d\d-\d\d-[\d:.]+\s*)?"
_BEFORE_WORDS = re.compile(
    rf"\s*(?:E[0-9A-Z]\d{{4}}\b)?:?\s*{_STAMP}(?:\(E[0-9A-Z]\d{{4}}\):)?\s*", re.ASCII
)
_LOG_LINE = re.compile(r"\s*\[(?:DEBUG|INFO|WARNING|EVENT|TRACE)\]")
_PLACE = re.compile(r"\[FUNC:[^\]]*\]\[FILE:[^\]]*\]\[LINE:[^\]]*\]")
_INNER = re.compile(r"Inner Error\b.*", re.IGNORECASE)
_TRACE = "TraceBack (most recent call last)"
_TRACE_LINES = 20  # after an inner error, among which one may name the operator
_NAMES_OPERATOR = re.compile(r"\b(?:op|node|operator)\s?[\[:(]|\bop ?type\b", re.IGNORECASE)


class CannError(NamedTuple):
    """A code and its words, on one line."""

    code: str
    words: str

    @property
    def inner(self) -> bool:
        """Return whether CANN stumbled itself: E19999, EZ9999, EE9999, E89999."""
        return self.code.endswith("9999")


def first_error(lines: Sequence[str]) -> CannError | None:
    """Return the first error that lines of a tool's output tell, lines of its log left out."""
    for at, line in enumerate(lines):
        match = _ERROR.search(line)
        if match and not _LOG_LINE.match(line):
            words = _words(match[2])
            if _INNER.fullmatch(words):
                words = " ".join([words, _inner_words(lines[at + 1 : at + 1 + _TRACE_LINES])])
            return CannError(match[1], words.strip()[:CHARACTERS])
    return None


def _inner_words(lines: Sequence[str]) -> str:
    """Return the first words after an inner error, and the first that name an operator."""
    said = [words for line in lines if (words := _words(line)) and not words.startswith(_TRACE)]
    named = [words for words in said if _NAMES_OPERATOR.search(words)]
    return "; ".join(dict.fromkeys([*said[:1], *named[:1]]))


def _words(text: str) -> str:
    return _PLACE.sub("", _BEFORE_WORDS.sub("", text, count=1)).strip()
