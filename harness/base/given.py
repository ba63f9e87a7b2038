"""Values of options as they were given, as text or as pytest parses them, made a field's."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError
from harness.base.options import Option

_SECRETS = re.compile(r"://[^@]*:[^@]*@|^https?://[^@]*@|\?")


@dataclass(frozen=True)
class Given:
    """One value as it was given, and where: `source`; paths are relative to `base`."""

    row: Option
    raw: Any
    source: str
    base: Path

    def value(self) -> Any:
        """Return what the field takes. Raises `ConfigError`."""
        match self.row.kind:
            case "flag":
                return self._flag()
            case "text":
                text = str(self.raw).strip()
                if self.row.choices and text not in self.row.choices:
                    raise self._bad(f"one of {', '.join(self.row.choices)}")
                return text
            case "url":
                return self._url(str(self.raw).strip())
            case "path":
                return self._path(str(self.raw))
            case "paths":
                return self._paths()
            case "list":
                return self._list()
            case "pairs":
                return self._pairs()
            case "int" | "float":
                return self._number()

    def _bad(self, expected: str) -> ConfigError:
        return ConfigError(
            f"{self.source}: {self.raw!r} is not {expected}",
            remedy=f"{self.row.flag}: {self.row.help}",
        )

    def _within(self, number: float, what: str) -> Any:
        low, high = self.row.limits or (float("-inf"), float("inf"))
        if not low <= number <= high:
            raise self._bad(f"{what} from {low:g} to {high:g}")
        return number

    def _flag(self) -> bool:
        text = str(self.raw).strip().lower()
        if text not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise self._bad("yes or no")
        return text in ("1", "true", "yes", "on")

    def _path(self, text: str) -> Path:
        try:
            return (self.base / Path(text).expanduser()).absolute()
        except (RuntimeError, ValueError, OSError):  # a home directory that nobody has
            raise self._bad("a path that can be used") from None

    def _url(self, text: str) -> str:
        # Records and lists of processes show command lines.
        if _SECRETS.search(text):
            raise ConfigError(
                f"{self.source}: a URL with a password or a query, which may be a secret",
                remedy="credentials belong where its medium looks for them (docs/fleet.md)",
            )
        return text

    def _paths(self) -> tuple[Path, ...]:
        # An option is repeated; a variable has one path beside the other, as $PATH.
        several = isinstance(self.raw, list | tuple)
        items = self.raw if several else str(self.raw).split(os.pathsep)
        return tuple(dict.fromkeys(self._path(str(item)) for item in items if str(item)))

    def _list(self) -> tuple[str, ...] | tuple[int, ...]:
        items: Sequence[str] = self.raw if isinstance(self.raw, list | tuple) else [str(self.raw)]
        parts = [part.strip() for item in items for part in item.split(",") if part.strip()]
        if not parts:
            raise self._bad("a list of names separated by commas")
        if not self.row.numbers:
            return tuple(dict.fromkeys(parts))
        numbers = [int(part) if part.isascii() and part.isdigit() else -1 for part in parts]
        what = f"a list of {self.row.numbers}"
        return tuple(dict.fromkeys(self._within(number, what) for number in numbers))

    def _pairs(self) -> tuple[tuple[str, Path], ...]:
        pairs = {}
        for item in self.raw if isinstance(self.raw, list | tuple) else str(self.raw).split(","):
            name, separator, file = str(item).partition("=")
            if not separator or not name.strip() or not file.strip():
                raise self._bad("MODEL=FILE")
            pairs[name.strip()] = self._path(file.strip())
        return tuple(pairs.items())

    def _number(self) -> Any:
        try:
            number = int(str(self.raw)) if self.row.kind == "int" else float(str(self.raw))
        except ValueError:
            raise self._bad("a number") from None
        return self._within(number, "a number")


def plain(value: Any, row: Option) -> Any:
    """Return an option's value as JSON has it."""
    if isinstance(value, Path):
        return str(value)
    if row.kind == "pairs":
        return {name: str(path) for name, path in value}
    if row.kind == "paths":
        return [str(path) for path in value]
    return list(value) if isinstance(value, tuple) else value
