"""Round numbers for the axes of charts."""

from __future__ import annotations

import math

from harness.base.precision import MINUS

SMALLEST = 1e-9  # a height below this is none: its power of ten may not be a number
LARGEST = 1e15  # past this a float no longer tells neighbouring round numbers apart


def ticks(low: float, high: float, most: int = 4) -> tuple[tuple[float, str], ...]:
    """Return round values from at or below `low` to at or above `high`, with their texts.

    They are 1, 2 or 5 times a power of ten apart, and `most` steps or one more. A text has the
    decimals of the step and no more; an axis of nothing is widened first.
    """
    size = max(abs(low), abs(high))
    if not (math.isfinite(low) and math.isfinite(high) and size < LARGEST):
        return (0.0, "0"), (1.0, "1")
    if high - low < max(size * 1e-6, SMALLEST):
        pad = max(size * 0.01, SMALLEST * 10)
        low, high = low - pad, high + pad
    rough = (high - low) / most
    power = math.floor(math.log10(rough))
    step = next(s for s in (1.0, 2.0, 5.0, 10.0) if rough <= s * 10.0**power * (1 + 1e-9))
    if step == 10.0:
        step, power = 1.0, power + 1

    width, decimals = step * 10.0**power, max(0, -power)
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    # Rounded, so that a tick is the number that its text says.
    values = [round(i * width, decimals) for i in range(first, max(last, first + 1) + 1)]
    return tuple((value, f"{value:,.{decimals}f}".replace("-", MINUS)) for value in values)
