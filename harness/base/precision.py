"""How a figure is said that is known only so well: no digit that the next run would change.

A half-width is half of a 99 % interval, in percent of the figure; None where none was taken.
"""

from __future__ import annotations

import math

NOT_KNOWN = "not known"
MINUS = "\N{MINUS SIGN}"
_SPACE = "\N{NO-BREAK SPACE}"
_BEYOND = 100.0  # an interval that reaches down to nothing says nothing
_WIDE = 10.0  # from here on the interval stands beside its figure


def is_known(half_width: float | None) -> bool:
    """Return whether a figure says anything; one without an interval does."""
    return half_width is None or 0 <= half_width <= _BEYOND


def reach(half_width: float) -> str:
    """`±41 %`, `±4.6 %`, `±0.42 %`; `not known` beyond ±100 %."""
    if not is_known(half_width):
        return NOT_KNOWN
    digits = 0 if half_width >= 9.95 else 1 if half_width >= 0.995 else 2
    return f"\N{PLUS-MINUS SIGN}{half_width:.{digits}f}{_SPACE}%"


def known_to(half_width: float, otherwise: str = "not known yet") -> str:
    """`known to ±4.6 %`; `otherwise` beyond ±100 %: the usual one is for what is still measured."""
    return f"known to {reach(half_width)}" if is_known(half_width) else otherwise


def digits(half_width: float | None) -> int:
    """Significant digits of a figure that are worth writing: 4, or fewer where less is known."""
    if half_width is None or half_width < 1:
        return 4
    return 3 if half_width < _WIDE else 2


def significant(value: float, count: int) -> str:
    """`value` in so many significant digits, `1,234,000` in full and never in powers of ten."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    decimals = count - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def difference(percent: float, half_width: float | None = None) -> str:
    """A difference from a reference, in percent of it: `+4.71 %`, `+5 %`, `16 ×, ±41 %`.

    From twice the reference on it is said as a multiple. `half_width` is that of the quotient, in
    percent of the quotient; beyond ±100 % nothing is known.
    """
    if not is_known(half_width):
        return NOT_KNOWN
    quotient = 1 + percent / 100
    beside = f", {reach(half_width)}" if half_width is not None and half_width >= _WIDE else ""
    if percent >= 100:
        text = significant(quotient, min(3, digits(half_width)))
        return f"{text}{_SPACE}\N{MULTIPLICATION SIGN}{beside}"
    width = 0.0 if half_width is None else half_width * abs(quotient)
    decimals = 0 if width >= 1 else 1 if width >= 0.1 else 2
    # Rounded first, so that a difference of -0.001 is not printed as "-0.00".
    rounded = round(percent, decimals) + 0.0
    sign = "+" if rounded >= 0 else MINUS
    return f"{sign}{abs(rounded):,.{decimals}f}{_SPACE}%{beside}"
