"""How a page writes numbers, times, sizes and foreign text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from harness.base import precision
from harness.base.precision import MINUS
from harness.base.text import clean
from harness.pages.words import language, say

NO_VALUE = "\N{EN DASH}"
NOT_FINITE = "not a finite number"
LONGEST_TEXT = 4_000
LONGEST_LINE = 400
_READ = 10  # times as many characters are looked at: a tool may print a line of megabytes
SPACE = "\N{NO-BREAK SPACE}"


# Text ----------------------------------------------------------------------------------------


def clip(text: str, limit: int = LONGEST_TEXT) -> str:
    """Return clean text of at most `limit` characters; a cut is said at its end."""
    return _cut(clean(text[: _READ * limit]), limit, len(text) - _READ * limit)


def line(text: str, limit: int = LONGEST_LINE) -> str:
    """Return clean text on one line, of at most `limit` characters."""
    words = clean(text[: _READ * limit]).split()
    return _cut(" ".join(words), limit, len(text) - _READ * limit)


def _cut(text: str, limit: int, unread: int) -> str:
    left = len(text) - limit + max(0, unread)
    if left <= 0:
        return text
    more = plural(left, "more character")
    return f"{text[:limit]}\N{HORIZONTAL ELLIPSIS} ({more})"


def plural(count: int, noun: str) -> str:
    """`1 case`, `2,000 cases`; in Chinese a noun stands with its measure word."""
    ending = "" if count == 1 or language() == "zh" else "s"
    return f"{count:,} {say(noun)}{ending}"


# Figures -------------------------------------------------------------------------------------


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


def plain(value: float) -> str:
    """A number of any unit: at most four decimals, scientific where those would hide it."""
    if not math.isfinite(value):
        return NOT_FINITE
    if isinstance(value, int) and abs(value) < 1e15:
        return _signed(f"{value:,}")
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e9):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return _signed(f"{mantissa}e{int(exponent)}")
    return _signed(f"{value:,.4f}".rstrip("0").rstrip("."))


def percent(value: float | None) -> str:
    """`71.25 %`."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    return _signed(f"{value:,.2f}{SPACE}%")


def difference(value: float | None, unit: str = "%", *, half_width: float | None = None) -> str:
    """`+0.12 %`: the sign is always written; `unit` may be `points`.

    In percent, a value is written no finer than it is known, as `precision.difference` has it:
    `16 ×, ±41 %`. `half_width`: that of the quotient, in percent of it.
    """
    if value is None or not math.isfinite(value):
        return NO_VALUE
    if unit == "%":
        return precision.difference(value, half_width)
    # Rounded first, so that a difference of -0.001 is not printed as "-0.00".
    rounded = round(value, 2) + 0.0
    return f"{'+' if rounded >= 0 else MINUS}{abs(rounded):,.2f}{SPACE}{unit}"


def rate(value: float | None, half_width: float | None = None) -> str:
    """Frames a second: four significant digits, or fewer where less is known; `not known`
    beyond ±100 %.
    """
    if value is None or not math.isfinite(value):
        return NO_VALUE
    if not precision.is_known(half_width):
        return precision.NOT_KNOWN
    count = precision.digits(half_width)
    if count == 4 or not value:
        size = abs(value)
        decimals = 0 if size >= 10_000 else 1 if size >= 100 else 2 if size >= 10 else 3
        return _signed(f"{value:,.{decimals}f}{SPACE}fps")
    return _signed(f"{precision.significant(value, count)}{SPACE}fps")


def milliseconds(value: float | None) -> str:
    """`3.142 ms`."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    digits = 1 if abs(value) >= 1000 else 2 if abs(value) >= 100 else 3
    return _signed(f"{value:,.{digits}f}{SPACE}ms")


def duration(value: float | None) -> str:
    """Seconds for a reader: `0.42 s`, `12.3 s`, `3 min 04 s`, `1 h 02 min`."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    if value < 10:
        return _signed(f"{value:.2f}{SPACE}s")
    if value < 59.95:
        return f"{value:.1f}{SPACE}s"
    seconds = round(value)
    if seconds < 3600:
        return f"{seconds // 60}{SPACE}min {seconds % 60:02d}{SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}{SPACE}h {minutes % 60:02d}{SPACE}min"


def moment(text: str) -> str:
    """Write an ISO 8601 moment for a reader; anything else unchanged."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(.*)", text)
    if match is None:
        return clip(text, 60)
    zone = {"+00:00": "UTC", "Z": "UTC", "": ""}.get(match[3], clip(match[3], 12))
    return f"{match[1]} {match[2]} {zone}".rstrip()


def size(amount: float) -> str:
    """Bytes for a reader: `4.7 MiB`."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:,.{0 if unit == 'B' else 1}f}{SPACE}{unit}"


def figure(value: float | None, unit: str, half_width: float | None = None) -> str:
    """Write a measured figure or a reference in its unit: `%`, `fps`, or any other.

    `half_width`: of frames a second, how well they are known, in percent.
    """
    if value is None or not math.isfinite(value):
        return NO_VALUE
    if unit == "%":
        return percent(value)
    if unit == "fps":
        return rate(value, half_width)
    return f"{plain(value)}{SPACE}{clip(unit, 20)}".rstrip()


def datum(value: object, unit: str = "") -> str:
    """Write a figure of a verdict, or the value of an option, on one line.

    Two numbers are an interval.
    """
    if value is None or value == "":
        return NO_VALUE
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    if isinstance(value, Mapping):
        return line(", ".join(f"{key}: {datum(one)}" for key, one in value.items())) or NO_VALUE
    if isinstance(value, int | float):
        text = plain(value)
    elif isinstance(value, tuple) and [isinstance(one, int | float) for one in value] == [True] * 2:
        text = say("{low} to {high}", low=plain(value[0]), high=plain(value[1]))
    elif isinstance(value, list | tuple):
        return line(", ".join(map(datum, value))) or NO_VALUE
    else:
        return line(str(value))
    return f"{text}{SPACE}{unit}" if unit else text
