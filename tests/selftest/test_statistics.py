"""Statistics: published examples, independent computation, properties, edges."""

import math
import random
import statistics as standard
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judge import statistics
from harness.judge.statistics import tango_interval

# Tango's interval ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plus", "minus", "n", "low", "high", "digits"),
    [
        # R. G. Newcombe's example for Tango's method: 0.20, 0.0611 to 0.3447.
        (12, 2, 50, 0.0611, 0.3447, 4),
        # Fagerland, Lydersen and Laake 2014, airway responsiveness (1, 1, 7, 12).
        (1, 7, 21, -0.517, -0.026, 3),
    ],
)
def test_published_examples_at_95_percent(plus, minus, n, low, high, digits):
    found = tango_interval(plus, minus, n, 0.95)
    assert tuple(round(limit, digits) for limit in found) == (low, high)


@given(st.data(), st.integers(1, 300), st.sampled_from([0.8, 0.95, 0.99, 0.999]))
def test_it_contains_the_estimate_and_is_antisymmetric(data, n, confidence):
    plus = data.draw(st.integers(0, n))
    minus = data.draw(st.integers(0, n - plus))
    low, high = tango_interval(plus, minus, n, confidence)
    assert -1.0 <= low <= (plus - minus) / n + 1e-12
    assert (plus - minus) / n - 1e-12 <= high <= 1.0
    assert low < high
    assert tango_interval(minus, plus, n, confidence) == (-high, -low)


@pytest.mark.parametrize("n", [1, 2, 10, 50_000])
def test_edges_have_the_closed_form(n):
    # Tango 1998, no discordant pair: limits of +-z^2 / (n + z^2).
    z2 = statistics.normal_quantile(0.99) ** 2
    assert tango_interval(0, 0, n, 0.99)[1] == pytest.approx(z2 / (n + z2), abs=1e-11)
    low, high = tango_interval(n, 0, n, 0.99)  # all pairs are discordant
    assert -1.0 < low < high == 1.0


# Pairs -----------------------------------------------------------------------------------


def test_exact_is_the_decimal_number_and_not_its_binary_neighbour():
    assert statistics.exact(78.26) == Fraction(7826, 100)
    assert statistics.exact(1e-05) == Fraction(1, 100_000)


# Binomial --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998 (single proportion), the exact method's column.
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684),
     (1, 29, 0.0009, 0.1776), (29, 29, 0.8806, 1.0)],
)  # fmt: skip
def test_exact_binomial_intervals_as_published(successes, n, low, high):
    found = statistics.binomial_interval(successes, n, 0.95)
    assert tuple(round(limit, 4) for limit in found) == (low, high)


# Means -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 63.657), (2, 9.925), (30, 2.750), (120, 2.617)]
)
def test_quantiles_of_students_t_are_the_tables(degrees, quantile):
    assert statistics.t99(degrees) == pytest.approx(quantile, abs=6e-4)


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=60))
def test_half_widths_are_those_of_the_textbook(values):
    found = statistics.half_width_percent(values)
    error = standard.stdev(values) / math.sqrt(len(values))
    expected = 100 * statistics.t99(len(values) - 1) * error / standard.fmean(values)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0]])
def test_of_one_value_or_none_that_is_positive_nothing_is_known(values):
    assert statistics.half_width_percent(values) == math.inf


@given(st.integers(2, 500), st.floats(0.01, 20), st.floats(0.5, 10))
def test_rounds_that_would_reach_a_precision_come_near_it(rounds, width, wanted):
    enough = statistics.rounds_to_reach(rounds, width, wanted)
    spread = width * math.sqrt(rounds) / statistics.t99(rounds - 1)
    reached = [spread * statistics.t99(n - 1) / math.sqrt(n) for n in (enough + 6, enough - 1)]
    assert reached[0] <= wanted * 1.001
    assert enough == rounds + 1 or reached[1] > wanted * 0.999


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60))
def test_smallest(low, high, first):
    found = statistics.smallest(lambda n: n >= first, low, high)
    assert found == next((n for n in range(low, high + 1) if n >= first), None)


# Drift and outliers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "percent", "significant"),
    [
        ([10.0, 10.01, 9.99, 10.0, 10.5, 10.51, 10.49, 10.5], 5.0, True),
        ([10.0 - 0.1 * i for i in range(20)], -10.5, True),
        ([10.0, 14.0, 8.0, 12.0, 9.0, 13.5, 10.0, 14.0], 5.7, False),
        ([10.0, 10.0, 99.0, 10.0, 10.0], 0.0, False),  # of an odd number the middle is left out
    ],
)
def test_halves_of_a_series_are_compared(values, percent, significant):
    found = statistics.drift(values)
    assert found is not None
    assert (round(found.percent, 1), found.significant) == (percent, significant)
    assert found.strong(abs(percent) + 1) is False
    assert found.strong(abs(percent) - 1) is significant


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [0.0] * 6])
def test_too_few_rounds_have_no_drift(values):
    assert statistics.drift(values) is None


@pytest.mark.parametrize(
    ("values", "outliers"),
    [
        ([10.0 + 0.1 * (i % 5) for i in range(50)], ()),
        ([*(10.0 + 0.1 * (i % 5) for i in range(50)), 30.0, 1.0], (50, 51)),
        ([10.0] * 20 + [10.05], ()),  # a tick of the timer
        ([10.0] * 20 + [10.2], (20,)),
        ([1.0, 100.0, 1.0], ()),
    ],
)
def test_outliers_are_far_outside_the_quartiles(values, outliers):
    assert statistics.outliers(values) == outliers


def test_a_steady_device_drifts_in_one_of_a_hundred_series():
    generator = random.Random(3)
    found = [statistics.drift([10 + generator.gauss(0, 1) for _ in range(20)]) for _ in range(2000)]
    assert 0.003 < sum(one is not None and one.significant for one in found) / 2000 < 0.02
