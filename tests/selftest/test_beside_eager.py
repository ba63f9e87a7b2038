"""A rehearsal's throughput: CPU time beside eager PyTorch's, in turns."""

from __future__ import annotations

import importlib
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.base.errors import InferError
from harness.judge.statistics import half_width_percent, trimmed_mean
from harness.judge.throughput import judge_throughput
from harness.measure import beside_eager
from harness.records.measurements import ProblemCode
from harness.targets.protocol import Times
from tests.selftest.fakes import FakeSession

# As the worker has it: without types.
eager_backend: Any = importlib.import_module("harness.stages.eager_backend")


class Worker(FakeSession):
    """Executions of `cpu_ms` of CPU time, whose clock runs `waits` times as long.

    Turns of several sessions that share a `diary` are noted there, and share its clock.
    """

    def __init__(self, cpu_ms, diary, waits=1.0, noise=0.005, seed=1):
        super().__init__(lambda batch: batch)
        self.cpu_ms, self.diary, self.waits, self.noise = cpu_ms, diary, waits, noise
        self.random = np.random.default_rng(seed)

    def time(self, loops, warmup):
        cpu = self.cpu_ms * (1 + self.noise * np.abs(self.random.standard_normal(loops)))
        self.diary.append((self, loops))
        ms = cpu * self.waits
        self.diary.seconds += ms.sum() / 1000
        return Times(tuple(map(float, ms)), tuple(map(float, cpu)))


class Diary(list[tuple[Worker, int]]):
    seconds = 0.0


def measured(cpu_ms, eager_cpu_ms, waits=1.0, eager_waits=1.0, **changes):
    diary = Diary()
    ours = Worker(cpu_ms, diary, waits)
    theirs = Worker(eager_cpu_ms, diary, eager_waits, seed=2)
    options = {"precision_percent": 10.0, "budget_s": 40.0, **changes}
    found, samples = beside_eager.measure(ours, theirs, clock=lambda: diary.seconds, **options)
    return found, samples, [(side is ours, loops) for side, loops in diary]


def kind(found):
    return judge_throughput(found, None, case="x").kind


@pytest.mark.parametrize("waits", [1.0, 3.0, 30.0])
def test_the_clock_decides_nothing(waits):
    quick, _, _ = measured(5.0, 20.0, waits, waits / 3)
    slow, _, _ = measured(20.0, 10.0, waits, waits / 3)
    assert quick.eager.ratio == pytest.approx(4.0, rel=0.02)
    assert quick.timing.fps == pytest.approx(4000 / 5.0 / waits, rel=0.02)
    assert (kind(quick), kind(slow)) == ("PASS", "FAIL")
    verdict = judge_throughput(quick, None, case="x")
    assert verdict.difference_percent == pytest.approx(300, rel=0.03)
    assert verdict.measured == quick.timing.fps


def test_a_model_that_sleeps_or_computes_elsewhere_is_not_fast():
    found, _, _ = measured(5.0, 20.0, 30.0)
    verdict = judge_throughput(found, None, case="x")
    assert (verdict.kind, [one.code for one in verdict.problems]) == ("FAIL", [ProblemCode.WAITS])
    assert "ms of CPU time and 150" in verdict.sentence
    neighbours = measured(5.0, 20.0, 3.9)[0]
    assert (neighbours.problems, kind(neighbours)) == ((), "PASS")


def test_sides_take_turns_of_equal_cpu_time_and_the_first_execution_counts_for_nothing():
    found, samples, turns = measured(5.0, 50.0)
    assert turns[:2] == [(True, 1), (False, 1)]
    assert turns[2:] == [(True, 20), (False, 2)] * found.timing.rounds
    assert found.seconds > beside_eager.LEAST_S
    assert found.timing.executions == sum(map(len, samples.ours)) == sum(map(len, samples.cpu))
    assert [len(one) for one in samples.eager] == [2] * found.timing.rounds


def test_a_budget_that_ends_too_early_decides_nothing():
    found, _, _ = measured(3000.0, 9000.0, budget_s=20.0)
    assert found.too_few_rounds == 3
    assert kind(found) == "INCONCLUSIVE"


@pytest.mark.parametrize("cpu_ms", [(), (0.0,), (float("nan"),), (float("inf"),)])
def test_no_cpu_time_is_an_error(cpu_ms, monkeypatch):
    session = FakeSession(lambda batch: batch)
    monkeypatch.setattr(session, "time", lambda loops, warmup: Times((5.0,), cpu_ms))
    with pytest.raises(InferError, match="no CPU time"):
        beside_eager.measure(session, session, precision_percent=10.0, budget_s=1.0)


@pytest.mark.parametrize("faster", list(eager_backend.FORMATS))
def test_eager_pytorch_takes_the_faster_memory_format_whatever_one_execution_took(
    monkeypatch, faster
):
    costs = {
        name: itertools.cycle([5.0, 1.0 if name == faster else 1.2])
        for name in eager_backend.FORMATS
    }
    model = object.__new__(eager_backend.EagerModel)
    clock = SimpleNamespace(seconds=0.0)

    def run(images):
        clock.seconds += next(costs[model.name])

    monkeypatch.setattr(model, "_use", lambda name: setattr(model, "name", name), raising=False)
    monkeypatch.setattr(model, "run", run, raising=False)
    timer = SimpleNamespace(process_time=lambda: clock.seconds)
    monkeypatch.setattr(eager_backend, "time", timer)
    assert model._faster(None) == faster


def test_a_trimmed_mean_bears_strange_turns_and_is_the_mean_of_few():
    steady = [4.0, 4.1, 3.9, 4.05, 3.95, 4.0, 4.1, 3.9]
    mean, width = trimmed_mean([*steady, 40.0, 0.1])
    assert mean == pytest.approx(4.0, rel=0.01)
    assert width < 5
    few = steady[:4]
    assert trimmed_mean(few) == pytest.approx((np.mean(few), half_width_percent(few)))
    assert trimmed_mean([4.0]) == (4.0, float("inf"))


def test_the_interval_of_a_trimmed_mean_covers_as_often_as_it_says():
    random = np.random.default_rng(3)
    for count in (3, 7, 15):
        draws = random.normal(1.0, 0.05, (4000, count))
        missed = sum(abs(m - 1) > m * w / 100 for m, w in map(trimmed_mean, draws.tolist()))
        assert missed / 4000 == pytest.approx(0.01, abs=0.006)
