"""Text of others for people: of tools, drivers, file names and lock files."""

from __future__ import annotations

import re

_TERMINAL_CODE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# Control characters, and those that turn the direction of text and so could forge a line.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Return `text` without terminal codes; what HTML or UTF-8 cannot carry becomes U+FFFD."""
    text = _TERMINAL_CODE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def first_line(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
