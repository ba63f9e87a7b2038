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

from harness.base import precision

MINUS = precision.MINUS
NO_VALUE = "\N{EN DASH}"
LONGEST_TEXT = 4_000
LONGEST_SCALAR = 400

_TERMINAL_CODE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# Control characters, and those that turn the direction of text and so could forge a line.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_BRACKETED = re.compile(r" \(([^()]*)\)")
_AND_MORE = re.compile(r" and [0-9,]+ more$")
_IMAGES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


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
    """`text` bounded to `limit` characters; a cut is said at its end.

    Lists of image names go first: what a sentence says after them matters more.
    """
    text = clean(text)
    if len(text) > limit:
        text = _BRACKETED.sub(_without_names, text)
    if len(text) <= limit:
        return text
    left = len(text) - limit
    noun = "character" if left == 1 else "characters"
    return f"{text[:limit]}\N{HORIZONTAL ELLIPSIS} ({left:,} more {noun})"


def _without_names(bracket: re.Match[str]) -> str:
    """Nothing in place of ` (a.JPEG, b.JPEG and 43 more)`; any other bracket unchanged."""
    names = _AND_MORE.sub("", bracket[1]).split(", ")
    return "" if all(name.lower().endswith(_IMAGES) for name in names) else bracket[0]


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


def difference(value: float | None, unit: str = "%", *, half_width: float | None = None) -> str:
    """`+0.12 %`: the sign is always written; `unit` may be `points`.

    In percent, a value is written no finer than it is known, as `precision.difference` has it:
    `16 ×, ±41 %`. `half_width`: that of the quotient, in percent of it; see `half_width_of`.
    """
    if value is None:
        return NO_VALUE
    if unit == "%":
        return precision.difference(value, half_width)
    # Rounded first, so that a difference of -0.001 is not printed as "-0.00".
    rounded = round(value, 2) + 0.0
    sign = "+" if rounded >= 0 else MINUS
    return f"{sign}{abs(rounded):,.2f}\N{NO-BREAK SPACE}{unit}"


def half_width_of(measurement: Mapping[str, Any], *, quotient: bool = False) -> float | None:
    """How well a throughput is known, in percent; None where the record has no interval.

    Infinity where it has one that is no number. `quotient`: of the ratio to what was timed in
    turns with it, which is known better than either.
    """
    for key in ("ratio_half_width_percent", "half_width_percent")[not quotient :]:
        if key in measurement:
            known = number(measurement[key])
            return math.inf if known is None or known < 0 else known
    return None


def rate(value: float | None, half_width: float | None = None) -> str:
    """Frames a second: four significant digits, or fewer where less is known; `not known`
    beyond ±100 %.
    """
    if value is None:
        return NO_VALUE
    if not precision.is_known(half_width):
        return precision.NOT_KNOWN
    space = "\N{NO-BREAK SPACE}"
    count = precision.digits(half_width)
    if count == 4 or not value:
        size = abs(value)
        decimals = 0 if size >= 10_000 else 1 if size >= 100 else 2 if size >= 10 else 3
        return _signed(f"{value:,.{decimals}f}{space}fps")
    return _signed(f"{precision.significant(value, count)}{space}fps")


def milliseconds(value: float | None) -> str:
    """`3.142 ms`."""
    if value is None:
        return NO_VALUE
    digits = 1 if abs(value) >= 1000 else 2 if abs(value) >= 100 else 3
    return _signed(f"{value:,.{digits}f}\N{NO-BREAK SPACE}ms")


def duration(value: float | None) -> str:
    """Seconds for a reader: `0.42 s`, `12.3 s`, `3 min 04 s`, `1 h 02 min`."""
    if value is None or not math.isfinite(value):
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
    amount, unit = number(value), "B"
    if amount is None:
        return NO_VALUE
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024:
            break
        amount, unit = amount / 1024, larger
    digits = 0 if unit == "B" else 1
    return f"{amount:,.{digits}f}\N{NO-BREAK SPACE}{unit}"


def figure(value: float | None, unit: str, half_width: float | None = None) -> str:
    """A measured figure or a reference in its unit: `%`, `fps`, or any other.

    `half_width`: of frames a second, how well they are known, in percent.
    """
    value = number(value)
    if value is None:
        return NO_VALUE
    if unit == "%":
        return percent(value)
    if unit == "fps":
        return rate(value, half_width)
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
