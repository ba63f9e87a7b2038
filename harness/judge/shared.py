"""What several rules need: the provenance guard, problems as data, an interval's decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from harness.base.errors import ProvenanceError
from harness.base.terms import Provenance
from harness.judge.statistics import Interval
from harness.records.measurements import Datum, Problem, ProblemCode
from harness.records.verdicts import FigureName

Figures = dict[FigureName, Datum]
Side = Literal["both", "drop"]
Decision = Literal["PASS", "FAIL", "INCONCLUSIVE"]

NAMES_KEPT = 10


def require(provenance: Provenance, what: str, *wanted: Provenance) -> None:
    """Refuse to judge a measurement against a reference of another provenance.

    Raises:
        ProvenanceError: `provenance` is none of those wanted.
    """
    if provenance not in wanted:
        raise ProvenanceError(
            f"a {provenance} measurement cannot be judged against {what} ({' or '.join(wanted)})"
        )


def named(code: ProblemCode, names: Sequence[str], **data: Datum) -> Problem:
    """Return a problem of some images; the first few are named."""
    return Problem(code, {"images": len(names), **data, "names": tuple(names[:NAMES_KEPT])})


def decide(interval: Interval, tolerance: float, side: Side) -> Decision:
    """Return PASS where the whole interval lies within the tolerance, FAIL where it lies outside;
    both in one unit. With `side` "drop" a rise is no fault.
    """
    low, high = interval
    if side == "drop":
        high_inside, too_high = True, False
    else:
        high_inside, too_high = high <= tolerance, low > tolerance
    if low >= -tolerance and high_inside:
        return "PASS"
    if high < -tolerance or too_high:
        return "FAIL"
    return "INCONCLUSIVE"


def percent(interval: Interval) -> Interval:
    """Return an interval of fractions in percent or points."""
    return 100.0 * interval[0], 100.0 * interval[1]


def upwards(value: Fraction, digits: int = 4) -> float:
    """Round `value` up to some decimal digits: a tolerance of so much does pass."""
    scale = 10.0**digits
    return math.ceil(value * int(scale)) / scale
