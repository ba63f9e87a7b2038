"""Catalog values -> YAML text in which each value can carry where it is from, as a comment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.base.text import clean
from harness.catalog.yaml_document import BLANK

_LONGEST_COMMENT = 140
_PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Digits:
    """A number as its source writes it, digit for digit: `1603.70`."""

    text: str


@dataclass(frozen=True)
class Cited:
    """A value, and where it is from or what it must be: `line 250: | 310P3 | 1 | 384 |`."""

    value: Any
    origin: str


def blank(wanted: str) -> Cited:
    """Return what validation refuses until somebody has filled it in."""
    return Cited(Digits(BLANK), wanted)


def written(data: Mapping[Any, Any]) -> str:
    """Return the YAML of mappings, lists and scalars; no line breaks within a text."""
    return "".join(f"{line}\n" for line in _mapping(data, ""))


def _mapping(data: Mapping[Any, Any], indent: str) -> Iterator[str]:
    for key, value in data.items():
        name = str(key) if isinstance(key, int) or _is_plain(key) else json.dumps(key)
        yield from _entry(f"{indent}{name}:", value, f"{indent}  ")


def _entry(start: str, value: Any, indent: str) -> Iterator[str]:
    """Yield the lines of one value after `start`, a key or a dash."""
    comment = ""
    if isinstance(value, Cited):
        comment, value = f"  # {_shortened(value.origin)}", value.value
    if isinstance(value, Mapping) and value:
        inner = list(_mapping(value, indent))
        if start.endswith("-"):
            yield f"{start} {inner[0].lstrip()}{comment}"
            yield from inner[1:]
        else:
            yield f"{start}{comment}"
            yield from inner
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | Cited) for v in value):
        yield f"{start}{comment}"
        for one in value:
            yield from _entry(f"{indent}-", one, f"{indent}  ")
    else:
        yield f"{start} {_scalar(value)}{comment}"


def _scalar(value: Any) -> str:
    if isinstance(value, Digits):
        return value.text
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, str) and _is_plain(value):
        return value
    return json.dumps(clean(value) if isinstance(value, str) else value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """Return whether YAML takes a word for text without quotes."""
    words = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
    return bool(_PLAIN_WORD.fullmatch(text)) and text.lower() not in words


def _shortened(text: str) -> str:
    """Return one line of a text, no longer than a comment is read."""
    line = " ".join(clean(text).split())
    return line if len(line) <= _LONGEST_COMMENT else f"{line[: _LONGEST_COMMENT - 3]}..."
