"""The statistics that verdicts stand on: intervals, quantiles, drift, outliers. Python alone.

Sources:
    Tango, T. (1998), "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design", Statistics in Medicine 17, 891-908.
    Clopper, C. J. and Pearson, E. S. (1934), "The use of confidence or fiducial limits
    illustrated in the case of the binomial", Biometrika 26, 404-413.
    NIST Digital Library of Mathematical Functions, 8.17 (incomplete beta function).
    Tukey, J. W. (1977), "Exploratory Data Analysis" (fences).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist, fmean, quantiles

Interval = tuple[float, float]

OUTLIER_RULE = "more than 3 interquartile ranges outside the quartiles, and 1 % off the median"
MOST_ROUNDS = 10_000_000


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
    def discordant(self) -> int:
        return self.only_reference + self.only_compiled

    @property
    def difference(self) -> Fraction:
        """Compiled score minus reference score, a fraction of 1: negative for a drop."""
        return Fraction(self.only_compiled - self.only_reference, self.n)

    def interval(self, confidence: float) -> Interval:
        """Tango's interval for the difference of the two scores."""
        return tango_interval(self.only_compiled, self.only_reference, self.n, confidence)


def exact(value: float) -> Fraction:
    """The decimal number that a reader of `value` sees: 78.26 is 7826/100, not its binary
    neighbour. `value` is finite.
    """
    return Fraction(repr(float(value)))


def normal_quantile(confidence: float) -> float:
    """z with P(|Z| <= z) = confidence for a standard normal Z."""
    return NormalDist().inv_cdf(0.5 + confidence / 2.0)


# Paired proportions ------------------------------------------------------------------------


@functools.lru_cache(maxsize=65_536)
def tango_interval(plus: float, minus: float, n: float, confidence: float) -> Interval:
    """Tango's score interval for p+ - p-, from `plus` and `minus` discordant pairs of `n`.

    The counts need not be whole: those of a larger set at the same rates are asked for, too.
    Limits are good to about 1e-12.

    Raises:
        ValueError: the counts are no counts, or the confidence is not between 0 and 1.
    """
    if not (n > 0 and plus >= 0 and minus >= 0 and plus + minus <= n * (1 + 1e-12)):
        raise ValueError(f"{plus} and {minus} are no counts of {n} pairs")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence of {confidence}")
    z = normal_quantile(confidence)
    return -_tango_upper(minus, plus, n, z), _tango_upper(plus, minus, n, z)


def _tango_upper(plus: float, minus: float, n: float, z: float) -> float:
    # The score statistic falls as the difference that is tested grows; the limit is where it
    # reaches -z. Multiplied by its standard error, so that nothing is divided by zero where the
    # estimated variance vanishes (no discordant pair).
    if plus >= n:
        return 1.0

    def above(difference: float) -> bool:
        spread = 2.0 * _tango_minus(plus, minus, n, difference) + difference * (1.0 - difference)
        return plus - minus - n * difference + z * math.sqrt(max(0.0, n * spread)) > 0.0

    return _bisect(above, (plus - minus) / n, 1.0, 1e-13)


def _tango_minus(plus: float, minus: float, n: float, difference: float) -> float:
    # Maximum likelihood of p- where p+ - p- = difference: the larger root of a quadratic, in the
    # form that loses no digits to cancellation.
    a = 2.0 * n
    b = -plus - minus + (2.0 * n - plus + minus) * difference
    c = -minus * difference * (1.0 - difference)
    root = math.sqrt(max(0.0, b * b - 4.0 * a * c))
    found = -2.0 * c / (b + root) if b > 0.0 else (root - b) / (2.0 * a)
    return max(found, 0.0, -difference)


def _bisect(above: Callable[[float], bool], low: float, high: float, width: float) -> float:
    """Where `above` turns from true (towards `low`) to false (towards `high`)."""
    while high - low > width:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if above(middle):
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


# Binomial ----------------------------------------------------------------------------------


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0 (DLMF 8.17.22)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast on the other side alone
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    scale += a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    # Modified Lentz: the fraction 1 / (1 + d1 / (1 + d2 / (1 + ...))) from its front.
    front, back, value = 1.0, 0.0, 1.0
    for step in range(1, 100_000):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        back = 1.0 / (1.0 + d * back or tiny)
        front = 1.0 + d / front or tiny
        value *= front * back
        if abs(front * back - 1.0) < 1e-15:
            break
    return math.exp(scale) / (a * value)


@functools.lru_cache(maxsize=65_536)
def binomial_interval(successes: int, n: int, confidence: float) -> Interval:
    """Clopper and Pearson's exact interval for a proportion, `successes` of `n`.

    Raises:
        ValueError: the counts are no counts, or the confidence is not between 0 and 1.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"{successes} of {n} are no counts")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence of {confidence}")
    tail = 0.5 * (1.0 - confidence)
    # P(X >= k) = I_p(k, n - k + 1) for a binomial X.
    low = high = successes / n
    if successes > 0:
        low = _bisect(
            lambda p: incomplete_beta(successes, n - successes + 1, p) < tail, 0.0, low, 1e-13
        )
    if successes < n:
        high = _bisect(
            lambda p: incomplete_beta(n - successes, successes + 1, 1.0 - p) > tail,
            high,
            1.0,
            1e-13,
        )
    return low, high


# Means -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=65_536)
def student_t(confidence: float, degrees: int) -> float:
    """t with P(|T| <= t) = confidence for Student's T; infinite without a degree of freedom."""
    if degrees < 1:
        return math.inf
    # P(|T| <= t) = I_y(1/2, degrees/2) with y = t^2 / (degrees + t^2).
    y = _bisect(lambda y: incomplete_beta(0.5, 0.5 * degrees, y) < confidence, 0.0, 1.0, 0.0)
    return math.sqrt(degrees * y / (1.0 - y))


def t99(degrees: int) -> float:
    """Two-sided 99 % quantile of Student's t."""
    return student_t(0.99, degrees)


def half_width_percent(values: Sequence[float]) -> float:
    """Half of the 99 % interval of the mean of `values`, in percent of the mean."""
    if len(values) < 2:
        return math.inf
    mean = fmean(values)
    if not mean > 0.0:
        return math.inf
    return 100.0 * t99(len(values) - 1) * _deviation(values, mean) / math.sqrt(len(values)) / mean


def rounds_to_reach(rounds: int, half_width: float, wanted: float) -> int | None:
    """Rounds after which a half-width of `half_width` at `rounds` rounds is `wanted`, if the
    spread stays as it is; None when it cannot be said, or never.
    """
    if rounds < 2 or not math.isfinite(half_width) or wanted <= 0.0:
        return None
    spread = half_width * math.sqrt(rounds) / t99(rounds - 1)

    def reached(n: int) -> bool:
        # Past this the quantile differs from the normal one in the fifth digit.
        return spread * t99(min(n - 1, 100_000)) / math.sqrt(n) <= wanted

    return smallest(reached, rounds, MOST_ROUNDS)


def smallest(good: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest integer in low..high that is good, where all above a good one are good."""
    if low > high or not good(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if good(middle):
            high = middle
        else:
            low = middle + 1
    return high


@dataclass(frozen=True)
class Drift:
    """Second half of a series against its first half."""

    percent: float  # of the first half's mean; positive where values grew
    significant: bool  # t test of the two halves at 99 %

    def strong(self, at_least_percent: float) -> bool:
        """Whether it is no chance and large enough to speak of."""
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
    """Positions of the values that `OUTLIER_RULE` calls outliers; none of fewer than five.

    The second half of the rule is for series so steady that a tick of the timer would be one.
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
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
