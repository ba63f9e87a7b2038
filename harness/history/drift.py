"""When a series of figures has changed: three rules, none of which needs to know the noise.

All three only compare figures with each other, so that how often they are wrong where nothing
changed follows from counting orders, whatever the noise looks like:

- drift: over the last 7 to 20 figures so many later ones are lower (or higher) than earlier ones
  that fewer than 1 in 5,000 random orders show it (Mann and Kendall's test, counted exactly), and
  the Theil-Sen line through them loses at least the smallest change that counts. Tried at every
  length, it would find what is not there more often: it is tried at 7, 10, 14 and 20.
- shift: each of the last 4 figures is lower than each of the 10 to 16 before them (1 in 1,001 to
  1 in 4,845 random orders), and their median by at least the smallest change that counts.
- step: both of the last 2 figures lie below the lowest of the 10 to 20 before them, by more than
  half of their whole range and by at least the smallest change that counts. (One alone would be
  wrong each time that a night was disturbed.)

The smallest change that counts is 1 % of a throughput and 0.1 points of an accuracy: less is not
worth a red night. `docs/history.md` has the rates of false alarms and of detection, simulated.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from harness.base.terms import Check

WINDOWS = (7, 10, 14, 20)
CHANCE = 1 / 5000
RECENT = 4
BEFORE_LEAST, BEFORE_MOST = 10, 16
STEP_RECENT, STEP_MOST = 2, 20
REACH = STEP_RECENT + STEP_MOST
"""How many of the last figures the rules look at."""
SMALLEST_CHANGE: dict[Check, float] = {"throughput": 1.0, "accuracy": 0.1}
"""In percent for throughput, in percentage points for accuracy."""

Rule = Literal["drift", "shift", "step"]


@dataclass(frozen=True)
class Change:
    """A change that a rule found at the end of a series.

    `size` is signed: percent of the level before for throughput, points for accuracy. `runs` is
    the number of figures that the rule looked at.
    """

    rule: Rule
    size: float
    runs: int
    check: Check

    @property
    def decline(self) -> bool:
        """Return whether the figures went down."""
        return self.size < 0

    @property
    def amount(self) -> str:
        """`-3.1 %` or `-0.2 points`."""
        return f"{self.size:+.1f} %" if self.check == "throughput" else f"{self.size:+.2f} points"

    @property
    def sentence(self) -> str:
        """Return what was found and by which rule, for a reader."""
        way = "lower" if self.decline else "higher"
        if self.rule == "drift":
            verb = "falls" if self.decline else "rises"
            return f"{verb} slowly: {self.amount} over the last {self.runs} runs"
        last, far = (RECENT, "") if self.rule == "shift" else (STEP_RECENT, "far ")
        return (
            f"each of the last {last} runs is {far}{way} than each of the {self.runs - last} "
            f"before: {self.amount}"
        )


@cache
def _orders_with_inversions(n: int) -> tuple[int, ...]:
    """How many orders of n different values have 0, 1, 2, ... inversions (Mahonian numbers)."""
    counts = [1]
    for length in range(2, n + 1):
        grown = [0] * (len(counts) + length - 1)
        for index, count in enumerate(counts):
            for more in range(length):
                grown[index + more] += count
        counts = grown
    return tuple(counts)


def chance_of_inversions(n: int, inversions: int) -> float:
    """Return the share of all orders of `n` values with at least so many inversions.

    Exact where no two values are equal; with equal ones, which count as no inversion, the true
    share is smaller.
    """
    counts = _orders_with_inversions(n)
    return sum(counts[max(0, inversions) :]) / math.factorial(n)


def slope(values: Sequence[float]) -> float:
    """Theil and Sen's: the median slope between two figures, per run."""
    return statistics.median(
        (later - earlier) / (j - i)
        for i, earlier in enumerate(values)
        for j, later in enumerate(values[i + 1 :], i + 1)
    )


def noise(values: Sequence[float]) -> float | None:
    """Return the standard deviation of the figures from run to run; None for fewer than five.

    From the differences of neighbours (their median absolute deviation, scaled to a normal
    distribution's standard deviation), so that neither a slow drift nor a single step counts as
    noise.
    """
    if len(values) < 5:
        return None
    steps = [later - earlier for earlier, later in pairwise(values)]
    middle = statistics.median(steps)
    deviation = statistics.median(abs(step - middle) for step in steps)
    return 1.4826 * deviation / math.sqrt(2)


def changes(values: Sequence[float], check: Check) -> tuple[Change, ...]:
    """Return what has changed at the end of a series, oldest figure first; each rule once."""
    each = (
        _drift(values, check),
        _separated("shift", values[-RECENT - BEFORE_MOST :], RECENT, 0.0, check),
        _separated("step", values[-REACH:], STEP_RECENT, 0.5, check),
    )
    return tuple(change for change in each if change is not None)


def decline(values: Sequence[float], check: Check) -> Change | None:
    """Return the decline at the end of a series, the slowest kind first; None without one."""
    return next((change for change in changes(values, check) if change.decline), None)


def _size(change: float, level: float, check: Check) -> float:
    if check == "accuracy":
        return change
    return 100.0 * change / level if level > 0 else 0.0


def _drift(values: Sequence[float], check: Check) -> Change | None:
    drifts: list[Change] = []
    for length in WINDOWS:
        if length > len(values):
            break
        window = values[-length:]
        pairs = [(a, b) for i, a in enumerate(window) for b in window[i + 1 :]]
        falling = sum(1 for a, b in pairs if b < a)
        rising = sum(1 for a, b in pairs if b > a)
        if chance_of_inversions(length, max(falling, rising)) > CHANCE:
            continue
        total = slope(window) * (length - 1)
        size = _size(total, statistics.median(window), check)
        if abs(size) >= SMALLEST_CHANGE[check]:
            drifts.append(Change("drift", size, length, check))
    return max(drifts, key=lambda change: abs(change.size), default=None)


def _separated(
    rule: Rule, values: Sequence[float], recent: int, margin: float, check: Check
) -> Change | None:
    """Compare the last `recent` figures with those before: apart by `margin` times their range."""
    before, last = values[:-recent], values[-recent:]
    if len(before) < BEFORE_LEAST:
        return None
    low, high = min(before), max(before)
    gap = margin * (high - low)
    if not (max(last) < low - gap or min(last) > high + gap):
        return None
    level = statistics.median(before)
    size = _size(statistics.median(last) - level, level, check)
    if abs(size) < SMALLEST_CHANGE[check]:
        return None
    return Change(rule, size, len(values), check)
