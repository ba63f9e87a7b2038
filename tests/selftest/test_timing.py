"""Throughput: statistics, stopping on precision, alternation, the output check."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InferError
from harness.judge import causes
from harness.judge.statistics import t99
from harness.measure import throughput
from harness.records.conditions import Condition, Setup
from harness.records.values import Timing
from tests.selftest import report_samples as samples
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
    expected = t99(4) * statistics.stdev(means) / math.sqrt(5) / 10.0 * 100
    assert found.half_width_percent == pytest.approx(expected, rel=1e-9)
    assert timing([1.0]).half_width_percent == math.inf


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
    assert calls[3:] == ["ours", "theirs"] * throughput.MIN_ROUNDS
    assert found.to_json()["ratio"] == pytest.approx(2.0)


class ColdAfterATurn(FakeSession):
    """Whose first execution of each call takes long, and one other once."""

    def __init__(self, ms, cold_ms, hiccup_at=-1):
        super().__init__(lambda b: b)
        self.ms, self.cold_ms, self.hiccup_at = ms, cold_ms, hiccup_at
        self.loops = []

    def time(self, loops, warmup):
        self.loops.append(loops)
        times = [self.cold_ms, *[self.ms] * (warmup + loops - 1)]
        if len(self.loops) == 2 and self.hiccup_at >= 0:
            times[min(self.hiccup_at, len(times) - 1)] = 1000.0
        return times[warmup:]


def test_what_is_cold_after_the_others_turn_is_not_timed():
    found = measure(ColdAfterATurn(5.0, 50.0), rival=ColdAfterATurn(10.0, 90.0), rival_names=("a",))
    assert found.timing.mean_ms == 5.0
    assert found.rivals["a"].mean_ms == 10.0


def test_a_slow_rival_is_not_run_more_often_than_it_is_timed():
    rival = ColdAfterATurn(400.0, 420.0)
    found = measure(ColdAfterATurn(5.0, 5.0), rival=rival, rival_names=("a", "b"))
    assert set(rival.loops) == {2}
    assert found.rivals["b"].mean_ms == 400.0


def test_a_hiccup_does_not_make_each_turn_of_a_rival_a_short_one():
    rival = ColdAfterATurn(10.0, 100.0, hiccup_at=2)
    measure(ColdAfterATurn(5.0, 5.0), rival=rival, rival_names=("a",))
    assert set(rival.loops[2:]) == {10}  # as many as a round of 0.1 s has


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


class Clocked(FakeSession):
    """Rounds that tell their mean alone, and move a clock by what they took."""

    def __init__(self, means, told=lambda mean, loops: [mean]):
        super().__init__(lambda b: b)
        self.means = iter(means)
        self.told = told
        self.seconds = 0.0
        self.loops = []

    def clock(self):
        return self.seconds

    def time(self, loops, warmup):
        mean = next(self.means)
        self.seconds += (loops + warmup) * mean / 1000.0
        self.loops.append(loops)
        return self.told(mean, loops)


def clocked(session, **changes):
    return measure(session, clock=session.clock, **changes)


# Tools that print only a mean --------------------------------------------------------------


def test_a_tool_that_prints_only_a_mean_is_right():
    found = clocked(Clocked(itertools.cycle([10.0, 10.0, 10.0, 10.1, 9.9])), round_s=0.1)
    assert found.precise
    assert found.timing.loops_per_round == 10
    assert found.timing.executions == 10 * len(found.timing.rounds)
    data = found.to_json()
    assert data["loops"] == found.timing.executions
    # One figure for ten executions has no percentile of an execution.
    assert "p99_ms" not in data
    assert data["samples_are"] == "means of several executions"


class OwnNumber(Clocked):
    """A tool that executes a data set of 64 batches, whatever number is asked for."""

    def executions(self, loops):
        return 64

    def time(self, loops, warmup):
        return super().time(64, 0)


@pytest.mark.parametrize(("factor", "wrong"), [(1.0, False), (1000.0, True), (0.001, True)])
def test_a_tool_with_a_number_of_its_own_is_held_against_that(factor, wrong):
    session = OwnNumber(itertools.repeat(6.4), lambda mean, loops: [mean * factor])
    found = clocked(session, wall_check="near", round_s=5.0)
    assert bool(found.problems) == wrong, found.problems
    assert found.timing.loops_per_round == 64
    assert found.to_json()["loops"] == 64 * len(found.timing.rounds)


def test_rounds_weigh_the_same_whatever_the_samples_of_each():
    # The same four executions a round, told as a mean by one round and one by one by the other.
    mixed = Timing(4, 1, ((20.0,), (10.0, 10.0, 10.0, 10.0)), 4)
    assert mixed.mean_ms == 15.0
    assert mixed.fps == pytest.approx(1000 * 4 / 15.0)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (lambda mean, loops: [], "told no time"),
        (lambda mean, loops: [mean] * (loops + 2), "warm-up"),
        (lambda mean, loops: [float("nan")], "nan ms"),
        (lambda mean, loops: [0.0], "0.0 ms"),
        (lambda mean, loops: [-1.0], "-1.0 ms"),
        (lambda mean, loops: [float("inf")], "inf ms"),
    ],
)
def test_what_cannot_be_times_of_executions_is_an_error(told, words):
    with pytest.raises(InferError, match=words):
        clocked(Clocked(itertools.repeat(5.0), told))


@pytest.mark.parametrize(
    ("factor", "check", "wrong"),
    [
        (1.0, "near", False),
        (1000.0, "at-most", True),  # microseconds
        (1000.0, "near", True),
        (0.001, "at-most", True),
        (0.001, "near", True),  # seconds
        (1000.0, "off", False),
    ],
)
def test_a_timer_of_another_unit_is_held_against_the_clock(factor, check, wrong):
    session = Clocked(itertools.repeat(5.0), lambda mean, loops: [mean * factor] * min(loops, 3))
    # Enough executions a round, whatever the session says of one.
    found = clocked(session, wall_check=check, round_s=0.1 * max(1.0, factor))
    assert bool(found.problems) == wrong
    assert all("not milliseconds" in problem for problem in found.problems)
    assert len(found.problems) <= 1


# When rounds stop --------------------------------------------------------------------------


def test_a_figure_that_has_not_settled_is_not_done():
    # Ten rounds of 0.1 s at 10 ms, then slower by 3 %: precise at once, true later.
    def means():
        yield 10.0  # the trial
        yield from [10.0, 10.001, 9.999] * 4
        yield from itertools.cycle([10.3, 10.301, 10.299])

    early = clocked(Clocked(means()), round_s=0.1)
    late = clocked(Clocked(means()), round_s=0.1, least_s=2.0)
    assert len(early.timing.rounds) == throughput.MIN_ROUNDS
    assert late.precise
    assert late.seconds > 3.0  # not at two seconds: its halves differed by 2 %
    assert late.timing.mean_ms == pytest.approx(10.3, rel=0.012)


def test_rounds_go_on_for_the_least_time():
    found = clocked(Clocked(itertools.repeat(10.0)), round_s=0.1, least_s=5.0)
    assert 5.0 <= found.seconds < 5.3


def test_the_budget_ends_before_the_least_time():
    found = clocked(Clocked(itertools.repeat(10.0)), round_s=0.1, least_s=5.0, budget_s=1.0)
    assert found.seconds < 1.3


@pytest.mark.parametrize("provenance", ["real", "simulated", "rehearsal"])
def test_a_budget_that_ends_too_early_leaves_what_decides_nothing(provenance):
    def found(budget_s):
        return clocked(
            Clocked(itertools.repeat(10.0)),
            provenance=provenance,
            round_s=0.1,
            least_s=throughput.LEAST_S if provenance == "real" else 0.0,
            budget_s=budget_s,
        )

    quick = found(0.1)
    assert quick.precise  # two equal rounds: the width is nothing
    assert quick.too_short.startswith("2 rounds were timed in a budget of 0.1 s")
    assert quick.to_json()["precision_reached"] is False
    assert ("timed for" in found(5.0).too_short) == (provenance == "real")
    assert found(60.0).too_short == ""


# Looks at the device -----------------------------------------------------------------------


def test_rounds_go_on_until_the_device_was_met_at_work():
    session = Clocked(itertools.repeat(10.0))
    found = clocked(session, round_s=0.1, ready=lambda: session.seconds > 5.0)
    assert 5.0 < found.seconds < 5.3
    assert found.precise


def test_the_budget_ends_the_rounds_of_a_device_that_was_never_met_at_work():
    session = Clocked(itertools.repeat(10.0))
    assert clocked(session, round_s=0.1, ready=lambda: False, budget_s=2.0).seconds < 2.3


def test_conditions_and_setup_are_recorded():
    found = dataclasses.replace(
        clocked(Clocked(itertools.repeat(10.0))),
        setup=Setup(driver="api", chip="Ascend310P3", toolchain="CANN 8.0.RC2"),
        conditions=(Condition("during", 0.0, health="OK", busy="no", throttled="no"),),
    )
    data = found.to_json()
    assert data["setup"]["chip"] == "Ascend310P3"
    assert data["conditions"][0]["busy"] == "no"
    assert measure(FakeSession(lambda b: b, times=itertools.repeat(5.0))).to_json()["setup"]


def test_the_record_says_by_what_bound_outputs_are_wrong():
    """Targets that compute in float32 allow less: 8e-3 is wrong there, and no slow model."""
    found = measure(FakeSession(lambda b: b, times=itertools.repeat(5.0)), outputs_relative_l2=8e-3)
    cpu = dataclasses.replace(found, outputs_bound=1e-3)
    assert cpu.to_json()["outputs_check"] == {"relative_l2": 8e-3, "bound": 1e-3}
    case = samples.case("fixres", 1, "throughput", "failed", measurement=cpu.to_json())
    assert causes.wrong_outputs(case)
    finding = causes.cause_of(case)
    assert finding is not None
    assert finding.cause == "toolchain"
