"""What several rules need: the provenance guard, an interval's decision."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

from harness.base.errors import ProvenanceError
from harness.base.terms import Provenance
from harness.judge.statistics import Interval
from harness.records.measurements import Datum
from harness.records.verdicts import FigureName

Figures = dict[FigureName, Datum]
Side = Literal["both", "drop"]
Decision = Literal["PASS", "FAIL", "INCONCLUSIVE"]


def require(provenance: Provenance, what: str, *wanted: Provenance) -> None:
    """Refuse to judge a measurement against a reference of another provenance. Raises
    `ProvenanceError`: `provenance` is none of those wanted.
    """
    if provenance not in wanted:
        raise ProvenanceError(
            f"a {provenance} measurement cannot be judged against {what} ({' or '.join(wanted)})"
        )


def decide(interval: Interval, tolerance: float, side: Side) -> Decision:
    """Return PASS where the whole interval lies within the tolerance, FAIL where it lies outside;
    both in one unit. With `side` "drop" a rise is no fault.
    """
    low, high = interval
    top = tolerance if side == "both" else math.inf
    if -tolerance <= low and high <= top:
        return "PASS"
    return "FAIL" if high < -tolerance or low > top else "INCONCLUSIVE"


def upwards(value: Fraction) -> float:
    """Round `value` up to four decimal digits: a tolerance of so much does pass."""
    return math.ceil(value * 10_000) / 10_000
