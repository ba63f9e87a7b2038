"""Throughput by the clock: summaries, stopping on precision, strange times, the output check."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InferError
from harness.judge.statistics import percentile, t99
from harness.measure import throughput
from harness.measure.throughput import MIN_ROUNDS, TimingPlan, timing_of
from harness.records.measurements import ProblemCode
from harness.targets.protocol import Times
from tests.selftest.fakes import FakeSession
from tests.selftest.judge_samples import BOUND


def timing(*rounds, batch_size=4):
    return timing_of(batch_size, 1, rounds)


def test_throughput_is_the_guides_formula():
    # Guide 000 prints 729.2599603105127 for batch 16 and a mean of 21.94005001068115 ms.
    summary = timing([21.94005001068115], batch_size=16)
    assert summary.fps == pytest.approx(729.2599603105127, rel=1e-12)


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=50))
def test_percentiles_equal_numpys(samples):
    for p in (0, 1, 50, 99, 100):
        expected = float(np.percentile(samples, p))
        assert percentile(sorted(samples), p) == pytest.approx(expected, rel=1e-9)
    summary = timing(samples)
    assert (summary.min_ms, summary.max_ms) == (min(samples), max(samples))
    assert summary.p99_ms == pytest.approx(float(np.percentile(samples, 99)), rel=1e-9)


def test_half_width_is_that_of_the_round_means():
    means = [10.0, 10.1, 9.9, 10.05, 9.95]
    summary = timing(*([m - 1, m + 1] for m in means))
    expected = t99(4) * statistics.stdev(means) / math.sqrt(5) / 10.0 * 100
    assert summary.half_width_percent == pytest.approx(expected, rel=1e-9)
    assert timing([1.0]).half_width_percent == math.inf


def noisy(mean, spread, seed=1):
    rng = np.random.default_rng(seed)
    while True:
        yield float(mean * (1 + spread * rng.standard_normal()))


def measure(session, **changes):
    options = {"provenance": "real", "budget_s": 60.0, "round_s": 0.1, "warmup": 2}
    passed = {key: changes.pop(key) for key in ("clock", "ready") if key in changes}
    return throughput.measure(session, TimingPlan(**{**options, **changes}), **passed)[0]


def test_rounds_stop_at_the_precision_asked_for_or_with_the_budget():
    quiet = measure(FakeSession(lambda b: b, times=noisy(10.0, 0.001)))
    loud = measure(FakeSession(lambda b: b, times=noisy(10.0, 0.05)))
    assert quiet.precise
    assert loud.precise
    assert loud.timing.rounds > quiet.timing.rounds == MIN_ROUNDS
    assert loud.timing.half_width_percent <= 1.0
    wild = itertools.cycle([1.0, 100.0, 10.0, 500.0, 3.0])
    assert not measure(FakeSession(lambda b: b, times=wild), budget_s=0.05, round_s=0.001).precise


# The output check --------------------------------------------------------------------------


APART = np.eye(4, 10, dtype=np.float32)  # by the root of 2
ALIKE = np.ones((4, 10), np.float32)
NEAR = ALIKE + 0.05 * APART  # 2.2 % of a row's length from each other


@pytest.mark.parametrize(
    ("expected", "change", "departs", "allowed", "codes"),
    [
        (APART, lambda right: right * np.float32(1.1), 0.1, BOUND, []),
        # One row of them is enough.
        (APART, lambda right: right[[0, 1, 3, 2]], 2**0.5, BOUND, []),
        # No row may come nearer to another one's outputs than to its own.
        (NEAR, lambda right: right, 0.0, 0.0111, []),
        (NEAR, lambda right: right[[0, 1, 3, 2]], 0.0222, 0.0111, []),
        # Where a network tells nothing apart, that is left to what rounding does.
        (ALIKE, lambda right: right, 0.0, BOUND / 10, []),
        (APART, lambda right: right * np.nan, math.inf, BOUND, [ProblemCode.NOT_FINITE]),
        (APART, lambda right: right[:, :-1], math.inf, BOUND, [ProblemCode.WRONG_SHAPE]),
    ],
)
def test_outputs_of_a_fast_wrong_model_are_noticed(expected, change, departs, allowed, codes):
    check, problems = throughput.compare_outputs(change(expected), expected, BOUND)
    assert check.relative_l2 == pytest.approx(departs, rel=2e-2)
    assert check.bound == pytest.approx(allowed, rel=2e-2)
    assert [one.code for one in problems] == codes


# The clock ---------------------------------------------------------------------------------


class Clocked(FakeSession):
    """Rounds of executions that take their mean, and move a clock by it."""

    def __init__(self, means, reports=lambda mean, loops: [mean] * loops):
        super().__init__(lambda b: b)
        self.means = iter(means)
        self.reports = reports
        self.seconds = 0.0

    def clock(self):
        return self.seconds

    def time(self, loops, warmup):
        mean = next(self.means)
        self.seconds += (loops + warmup) * mean / 1000.0
        return Times(tuple(self.reports(mean, loops)))


def clocked(session, **changes):
    return measure(session, clock=session.clock, **changes)


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        (lambda mean, loops: [], "gave no time"),
        (lambda mean, loops: [mean] * (loops + 2), "warm-up"),
        (lambda mean, loops: [mean], "1 times for"),
        (lambda mean, loops: [float("nan")] * loops, "nan ms"),
        (lambda mean, loops: [0.0] * loops, "0.0 ms"),
        (lambda mean, loops: [-1.0] * loops, "-1.0 ms"),
        (lambda mean, loops: [float("inf")] * loops, "inf ms"),
    ],
)
def test_what_cannot_be_times_of_executions_is_an_error(reports, words):
    with pytest.raises(InferError, match=words):
        clocked(Clocked(itertools.repeat(5.0), reports))


# When rounds stop --------------------------------------------------------------------------


def test_a_figure_that_has_not_settled_is_not_done():
    # Ten rounds of 0.1 s at 10 ms, then slower by 3 %: precise at once, true later.
    def means():
        yield 10.0  # the trial
        yield from [10.0, 10.001, 9.999] * 4
        yield from itertools.cycle([10.3, 10.301, 10.299])

    early = clocked(Clocked(means()))
    late = clocked(Clocked(means()), least_s=2.0)
    assert early.timing.rounds == MIN_ROUNDS
    assert late.precise
    assert late.seconds > 3.0  # not at two seconds: its halves differed by 2 %
    assert late.timing.mean_ms == pytest.approx(10.3, rel=0.012)


@pytest.mark.parametrize("provenance", ["real", "simulated"])
def test_a_budget_that_ends_too_early_leaves_what_decides_nothing(provenance):
    real = provenance == "real"

    def timed(budget_s):
        session = Clocked(itertools.repeat(10.0))
        least_s = throughput.LEAST_S if real else 0.0
        return clocked(session, provenance=provenance, least_s=least_s, budget_s=budget_s)

    quick = timed(0.1)
    assert quick.precise  # two equal rounds: the width is nothing
    assert quick.too_few_rounds == 5
    assert not quick.counts
    assert timed(5.0).too_few_seconds == (10.0 if real else 0.0)
    enough = timed(60.0)
    assert not enough.too_short
    assert enough.seconds == pytest.approx(10.1 if real else 0.6, abs=0.15)


@pytest.mark.parametrize(("at_work_s", "ends_s"), [(5.0, 5.3), (math.inf, 20.3)])
def test_rounds_go_on_until_the_device_was_met_at_work_or_the_budget_ends(at_work_s, ends_s):
    session = Clocked(itertools.repeat(10.0))
    measured = clocked(session, ready=lambda: session.seconds > at_work_s, budget_s=20.0)
    assert min(at_work_s, 20.0) < measured.seconds < ends_s
