"""Throughput: statistics, stopping on precision, alternation, the output check."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import throughput
from harness.throughput import Timing
from tests.selftest.fakes import FakeSession


def timing(*rounds, batch_size=4):
    return Timing(batch_size, 1, tuple(tuple(one) for one in rounds))


def test_throughput_is_the_guides_formula():
    # Guide 000 prints 729.2599603105127 for batch 16 and a mean of 21.94005001068115 ms.
    found = timing([21.94005001068115], batch_size=16)
    assert found.fps == pytest.approx(729.2599603105127, rel=1e-12)


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=50))
def test_percentiles_equal_numpys(samples):
    found = timing(samples)
    for p in (0, 1, 50, 99, 100):
        assert found.percentile(p) == pytest.approx(float(np.percentile(samples, p)), rel=1e-9)


def test_half_width_is_that_of_the_round_means():
    means = [10.0, 10.1, 9.9, 10.05, 9.95]
    found = timing(*([m - 1, m + 1] for m in means))
    expected = 4.604 * statistics.stdev(means) / math.sqrt(5) / 10.0 * 100
    assert found.half_width_percent == pytest.approx(expected, rel=1e-9)
    assert timing([1.0]).half_width_percent == math.inf


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 63.657), (4, 4.604), (30, 2.750), (60, 2.660), (1000, 2.581)]
)
def test_quantiles_of_students_t(degrees, quantile):
    assert throughput.t99(degrees) == pytest.approx(quantile, abs=2e-3)


def noisy(mean, spread, seed=1):
    rng = np.random.default_rng(seed)
    while True:
        yield float(mean * (1 + spread * rng.standard_normal()))


def measure(session, **changes):
    options = {
        "provenance": "rehearsal",
        "precision_percent": 1.0,
        "budget_s": 60.0,
        "round_s": 0.1,
        "turn_pause_s": 0.0,
        "warmup": 2,
        **changes,
    }
    return throughput.measure(session, **options)


def test_rounds_stop_at_the_precision_asked_for():
    quiet = measure(FakeSession(lambda b: b, times=noisy(10.0, 0.001)))
    loud = measure(FakeSession(lambda b: b, times=noisy(10.0, 0.05)))
    assert quiet.precise
    assert loud.precise
    assert len(quiet.timing.rounds) == throughput.MIN_ROUNDS
    assert len(loud.timing.rounds) > throughput.MIN_ROUNDS
    assert loud.timing.half_width_percent <= 1.0


def test_the_budget_ends_what_never_gets_precise():
    wild = itertools.cycle([1.0, 100.0] * 1 + [10.0, 500.0, 3.0])
    found = measure(FakeSession(lambda b: b, times=wild), budget_s=0.05, round_s=0.001)
    assert not found.precise


def test_warm_up_is_not_in_the_mean():
    times = itertools.chain([1000.0, 1000.0], itertools.repeat(5.0))
    session = FakeSession(lambda b: b, times=times)
    found = measure(session)
    assert found.timing.mean_ms == 5.0
    assert session.warmups[0] == 2
    assert set(session.warmups[1:]) == {0}


def test_a_rival_is_timed_in_alternation_and_its_formats_are_kept_apart():
    calls = []

    class Noting(FakeSession):
        def __init__(self, name, times):
            super().__init__(lambda b: b, times=times)
            self.name = name

        def time(self, loops, warmup):
            calls.append(self.name)
            return super().time(loops, warmup)

    ours = Noting("ours", itertools.repeat(5.0))
    theirs = Noting("theirs", itertools.cycle([20.0, 10.0]))
    found = measure(ours, rival=theirs, rival_names=("a", "b"))
    assert found.rivals["a"].mean_ms == 20.0
    assert found.rivals["b"].mean_ms == 10.0
    assert found.fastest_rival is not None
    assert found.fastest_rival[0] == "b"
    assert calls[2:] == ["ours", "theirs"] * throughput.MIN_ROUNDS
    assert found.to_json()["ratio"] == pytest.approx(2.0)


def test_raw_samples_are_kept():
    found = measure(FakeSession(lambda b: b, times=itertools.repeat(5.0))).to_json()
    assert len(found["samples_ms"]) == found["loops"] == sum(found["round_sizes"])


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (lambda wanted: wanted * np.nan, "NaN"),
        (lambda wanted: wanted[:, :-1], "shape"),
    ],
)
def test_outputs_that_cannot_be_compared_are_problems(outputs, words):
    wanted = np.ones((4, 10), np.float32)
    session = FakeSession(lambda batch: outputs(wanted))
    difference, problems = throughput.check_outputs(session, np.zeros((4, 3, 2, 2), "f4"), wanted)
    assert difference == math.inf
    assert words in problems[0]


def test_a_fast_wrong_model_is_noticed():
    wanted = np.ones((4, 10), np.float32)
    session = FakeSession(lambda batch: wanted * 1.1)
    difference, problems = throughput.check_outputs(session, np.zeros((4, 3, 2, 2), "f4"), wanted)
    assert difference == pytest.approx(0.1, rel=1e-4)
    assert problems == ()


def test_a_slow_moment_that_falls_on_both_does_not_spoil_the_ratio():
    moods = itertools.cycle([1.0, 2.0, 1.0, 3.0, 1.5])
    shared: list[float] = []

    class Moody(FakeSession):
        def __init__(self, base, leads):
            super().__init__(lambda b: b)
            self.base, self.leads = base, leads

        def time(self, loops, warmup):
            if self.leads:
                shared.append(next(moods))
            return [self.base * (shared[-1] if shared else 1.0)] * loops

    found = measure(Moody(5.0, True), rival=Moody(10.0, False), rival_names=("a",))
    assert found.precise
    assert len(found.timing.rounds) == throughput.MIN_ROUNDS
    assert found.timing.half_width_percent > 10
