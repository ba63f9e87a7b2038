"""How a report writes numbers, times, sizes and foreign text.

Records hold any JSON value where a measurement is kept, so every reader here takes `Any` and
answers `None` or a plain text instead of raising.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MINUS = "\N{MINUS SIGN}"
NO_VALUE = "\N{EN DASH}"
LONGEST_TEXT = 4_000
LONGEST_SCALAR = 400

_TERMINAL_CODE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# Control characters, and those that turn the direction of text and so could forge a line.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Row:
    """One labelled figure. `href` is set where the value names a file of the run."""

    label: str
    value: str
    href: str = ""


def clean(text: str) -> str:
    """`text` without terminal codes; what HTML or UTF-8 cannot carry becomes U+FFFD."""
    text = _TERMINAL_CODE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clip(text: str, limit: int = LONGEST_TEXT) -> str:
    """`text` bounded to `limit` characters; a cut is said at its end."""
    text = clean(text)
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\N{HORIZONTAL ELLIPSIS} (cut: {len(text):,} characters)"


def line(text: str, limit: int = LONGEST_SCALAR) -> str:
    """`text` on one line, bounded to `limit` characters."""
    return clip(" ".join(clean(text).split()), limit)


def number(value: Any) -> float | None:
    """`value` as a finite float; `None` for anything else, booleans included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def numbers(value: Any, limit: int = 200_000) -> list[float]:
    """The finite numbers of a list; an empty list for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    found = (number(item) for item in value[:limit])
    return [item for item in found if item is not None]


def mapping(value: Any) -> dict[str, Any]:
    """A JSON object, or an empty one for anything else."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


def plain(value: float) -> str:
    """A number of unknown unit: at most four decimals, scientific where those would hide it."""
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e9):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return _signed(f"{mantissa}e{int(exponent)}")
    text = f"{value:,.4f}".rstrip("0").rstrip(".")
    return _signed(text)


def percent(value: float | None) -> str:
    """`71.25 %`."""
    return NO_VALUE if value is None else _signed(f"{value:,.2f}\N{NO-BREAK SPACE}%")


def difference(value: float | None, unit: str = "%") -> str:
    """`+0.12 %`: the sign is always written; `unit` may be `points`."""
    if value is None:
        return NO_VALUE
    # Rounded first, so that a difference of -0.001 is not printed as "-0.00".
    rounded = round(value, 2) + 0.0
    sign = "+" if rounded >= 0 else MINUS
    return f"{sign}{abs(rounded):,.2f}\N{NO-BREAK SPACE}{unit}"


def rate(value: float | None) -> str:
    """Frames a second: four significant digits, never fewer than the whole number."""
    if value is None:
        return NO_VALUE
    size = abs(value)
    digits = 0 if size >= 10_000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return _signed(f"{value:,.{digits}f}\N{NO-BREAK SPACE}fps")


def milliseconds(value: float | None) -> str:
    """`3.142 ms`."""
    if value is None:
        return NO_VALUE
    digits = 1 if abs(value) >= 1000 else 2 if abs(value) >= 100 else 3
    return _signed(f"{value:,.{digits}f}\N{NO-BREAK SPACE}ms")


def duration(value: float | None) -> str:
    """Seconds for a reader: `0.42 s`, `12.3 s`, `3 min 04 s`, `1 h 02 min`."""
    if value is None:
        return NO_VALUE
    space = "\N{NO-BREAK SPACE}"
    if value < 10:
        return _signed(f"{value:.2f}{space}s")
    if value < 59.95:
        return f"{value:.1f}{space}s"
    seconds = round(value)
    if seconds < 3600:
        return f"{seconds // 60}{space}min {seconds % 60:02d}{space}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}{space}h {minutes % 60:02d}{space}min"


def moment(text: str) -> str:
    """An ISO 8601 moment for a reader; anything else unchanged."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(.*)", text)
    if match is None:
        return clip(text, 60)
    zone = {"+00:00": "UTC", "Z": "UTC", "": ""}.get(match[3], clip(match[3], 12))
    return f"{match[1]} {match[2]} {zone}".rstrip()


def size(value: float | None) -> str:
    """Bytes for a reader: `4.7 MiB`."""
    if value is None:
        return NO_VALUE
    amount, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024:
            break
        amount, unit = amount / 1024, larger
    digits = 0 if unit == "B" else 1
    return f"{amount:,.{digits}f}\N{NO-BREAK SPACE}{unit}"


def figure(value: float | None, unit: str) -> str:
    """A measured figure or a reference in its unit: `%`, `fps`, or any other."""
    value = number(value)
    if value is None:
        return NO_VALUE
    if unit == "%":
        return percent(value)
    if unit == "fps":
        return rate(value)
    return f"{plain(value)}\N{NO-BREAK SPACE}{clip(unit, 20)}".rstrip()


def scalar(value: Any, limit: int = LONGEST_SCALAR) -> str:
    """Any JSON value as one bounded line."""
    if value is None or value == "":
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        known = number(value)
        if known is None:
            return "not a finite number"
        if isinstance(value, int) and abs(value) < 1e15:
            return _signed(f"{value:,}")
        return plain(known)
    if isinstance(value, str):
        return clip(value, limit)
    if isinstance(value, Mapping):
        return clip(", ".join(f"{key}: {scalar(item, 80)}" for key, item in value.items()), limit)
    if isinstance(value, Sequence):
        if len(value) > 8:
            return f"{len(value):,} values"
        return clip(", ".join(scalar(item, 80) for item in value), limit) or NO_VALUE
    return clip(str(value), limit)


def words(key: str) -> str:
    """A label for a key of a record: `half_width` -> `half width`."""
    return clip(key.replace("_", " ").strip() or NO_VALUE, 80)


def flatten(value: Mapping[str, Any], limit: int = 60) -> list[Row]:
    """A JSON object as labelled lines, one level of nesting written as `outer: inner`."""
    rows: list[Row] = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            rows += [Row(f"{words(str(key))}: {words(str(k))}", scalar(v)) for k, v in item.items()]
        else:
            rows.append(Row(words(str(key)), scalar(item)))
    if len(rows) > limit:
        left = len(rows) - limit
        rows = [*rows[:limit], Row("not shown", f"{left:,} more, in the records")]
    return rows
