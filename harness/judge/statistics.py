"""The statistics that verdicts stand on: intervals, quantiles, drift, outliers.

Sources:
    Tango, T. (1998), "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design", Statistics in Medicine 17, 891-908.
    Clopper, C. J. and Pearson, E. S. (1934), "The use of confidence or fiducial limits
    illustrated in the case of the binomial", Biometrika 26, 404-413.
    Tukey, J. W. (1977), "Exploratory Data Analysis" (fences).
    Tukey, J. W. and McLaughlin, D. H. (1963), "Less vulnerable confidence and significance
    procedures for location based on a single sample: trimming/Winsorization 1", Sankhya A 25,
    331-352 (trimmed mean).

SciPy's distributions are imported where they are used: that takes a quarter of a second, and
planning needs none of them.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist, fmean, median, quantiles, stdev

Interval = tuple[float, float]


@dataclass(frozen=True)
class Paired:
    """Images that two models were shown, by who was right (top-1).

    `only_reference` and `only_compiled` are the discordant pairs: all that is known about the
    difference of the two models' scores.
    """

    n: int
    both: int
    only_reference: int
    only_compiled: int

    def __post_init__(self) -> None:
        counts = (self.both, self.only_reference, self.only_compiled)
        if self.n < 1 or min(counts) < 0 or sum(counts) > self.n:
            raise ValueError(f"{counts} are no counts of {self.n} images")

    @property
    def reference_correct(self) -> int:
        return self.both + self.only_reference

    @property
    def compiled_correct(self) -> int:
        return self.both + self.only_compiled

    @property
    def points(self) -> float:
        """Compiled score minus reference score, in points: negative for a drop."""
        return 100.0 * (self.only_compiled - self.only_reference) / self.n

    def interval(self, confidence: float) -> Interval:
        """Tango's interval for the difference of the two scores, in points."""
        return percent(tango_interval(self.only_compiled, self.only_reference, self.n, confidence))


def exact(value: float) -> Fraction:
    """Return the decimal number that a reader of `value` sees: 78.26 is 7826/100, not its binary
    neighbour. `value` is finite.
    """
    return Fraction(repr(float(value)))


def percent(interval: Interval) -> Interval:
    """Return an interval of fractions in percent or points."""
    return 100.0 * interval[0], 100.0 * interval[1]


def normal_quantile(confidence: float) -> float:
    """Return z with P(|Z| <= z) = confidence for a standard normal Z."""
    return NormalDist().inv_cdf(0.5 + confidence / 2.0)


# Proportions -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=65_536)
def tango_interval(plus: float, minus: float, n: float, confidence: float) -> Interval:
    """Return Tango's score interval for p+ - p-, from `plus` and `minus` discordant pairs of `n`.

    The counts need not be whole: those of a larger set at the same rates are asked for, too.
    Limits are good to about 1e-12.
    """
    z = normal_quantile(confidence)
    return -_tango_upper(minus, plus, n, z), _tango_upper(plus, minus, n, z)


def _tango_upper(plus: float, minus: float, n: float, z: float) -> float:
    # The score statistic falls as the difference that is tested grows; the limit is where it
    # reaches -z. Multiplied by its standard error, so that nothing is divided by zero where the
    # estimated variance vanishes (no discordant pair).
    if plus >= n:
        return 1.0
    low, high = (plus - minus) / n, 1.0
    while high - low > 1e-13:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        spread = 2.0 * _tango_minus(plus, minus, n, middle) + middle * (1.0 - middle)
        if plus - minus - n * middle + z * math.sqrt(max(0.0, n * spread)) > 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _tango_minus(plus: float, minus: float, n: float, difference: float) -> float:
    # Maximum likelihood of p- where p+ - p- = difference: the larger root of a quadratic, in the
    # form that loses no digits to cancellation.
    a = 2.0 * n
    b = -plus - minus + (2.0 * n - plus + minus) * difference
    c = -minus * difference * (1.0 - difference)
    root = math.sqrt(max(0.0, b * b - 4.0 * a * c))
    p = -2.0 * c / (b + root) if b > 0.0 else (root - b) / (2.0 * a)
    return max(p, 0.0, -difference)


@functools.lru_cache(maxsize=65_536)
def binomial_interval(successes: int, n: int, confidence: float) -> Interval:
    """Return Clopper and Pearson's exact interval for a proportion, `successes` of `n`."""
    from scipy.special import betaincinv

    tail = 0.5 * (1.0 - confidence)
    failures = n - successes
    low = betaincinv(successes, failures + 1, tail) if successes else 0.0
    high = 1.0 - betaincinv(failures, successes + 1, tail) if failures else 1.0
    return float(low), float(high)


# Means -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=65_536)
def t99(degrees: int) -> float:
    """Return the two-sided 99 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.995))


def half_width_percent(values: Sequence[float]) -> float:
    """Return half of the 99 % interval of the mean of `values`, in percent of the mean."""
    if len(values) < 2:
        return math.inf
    mean = fmean(values)
    if not mean > 0.0:
        return math.inf
    return 100.0 * t99(len(values) - 1) * _deviation(values, mean) / math.sqrt(len(values)) / mean


def trimmed_mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of `values` without the lowest and the highest fifth, and half of its 99 %
    interval in percent of it (Tukey and McLaughlin). Up to four values none is left out.
    """
    ordered, cut = sorted(values), len(values) // 5
    kept = ordered[cut : len(ordered) - cut]
    mean = fmean(kept)
    if len(kept) < 2 or not mean > 0.0:
        return mean, math.inf
    # Those left out count as the nearest that is kept.
    winsorized = [kept[0]] * cut + kept + [kept[-1]] * cut
    error = _deviation(winsorized, fmean(winsorized)) * math.sqrt(len(values)) / len(kept)
    return mean, 100.0 * t99(len(kept) - 1) * error / mean


def rounds_to_reach(rounds: int, half_width: float, wanted: float) -> int:
    """Return about how many rounds have a half-width of `wanted`, where so many have `half_width`.

    By the normal quantile, which Student's comes near: right to a few rounds.
    """
    scale = normal_quantile(0.99) / t99(rounds - 1)
    return max(rounds + 1, math.ceil(rounds * (scale * half_width / wanted) ** 2))


def smallest(good: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the smallest integer in low..high that is good, where all above a good one are."""
    found = low + bisect_left(range(low, high + 1), True, key=good)
    return found if found <= high else None


@dataclass(frozen=True)
class Drift:
    """Second half of a series against its first half."""

    percent: float  # of the first half's mean; positive where values grew
    significant: bool  # t test of the two halves at 99 %

    def strong(self, at_least_percent: float) -> bool:
        """Return whether it is no chance and large enough to speak of."""
        return self.significant and abs(self.percent) >= at_least_percent


def drift(values: Sequence[float]) -> Drift | None:
    """Compare the halves of a series; of an odd number the middle one is left out.

    None with fewer than four values, or values whose mean is not positive.
    """
    half = len(values) // 2
    if half < 2:
        return None
    first, second = values[:half], values[-half:]
    before, after = fmean(first), fmean(second)
    if not before > 0.0:
        return None
    pooled = math.hypot(_deviation(first, before), _deviation(second, after)) / math.sqrt(half)
    return Drift(
        percent=100.0 * (after / before - 1.0),
        significant=abs(after - before) > t99(2 * half - 2) * pooled,
    )


def outliers(values: Sequence[float]) -> tuple[int, ...]:
    """Return the positions of outliers: more than 3 interquartile ranges outside the quartiles,
    and more than 1 % off the median, as no tick of a steady timer is. None of fewer than five.
    """
    if len(values) < 5:
        return ()
    low, median, high = quantiles(values, n=4, method="inclusive")
    reach = 3.0 * (high - low)
    return tuple(
        index
        for index, value in enumerate(values)
        if not low - reach <= value <= high + reach and abs(value - median) > 0.01 * abs(median)
    )


def _deviation(values: Sequence[float], mean: float) -> float:
    # Five times faster than the standard library's, and called after each round of a timing.
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def percentile(ordered: Sequence[float], p: float) -> float:
    """Return the p-th percentile of sorted values, linear between them (NumPy's default rule)."""
    position = (len(ordered) - 1) * p / 100.0
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def spread(samples: Sequence[float]) -> dict[str, float]:
    """`median_ms`, `p99_ms`, `min_ms`, `max_ms` and `cv_percent` of single executions."""
    ordered = sorted(samples)
    deviation = stdev(ordered) if len(ordered) > 1 else 0.0
    return {
        "median_ms": median(ordered),
        "p99_ms": percentile(ordered, 99.0),
        "min_ms": ordered[0],
        "max_ms": ordered[-1],
        "cv_percent": 100.0 * deviation / fmean(ordered),
    }
