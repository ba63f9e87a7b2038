"""Throughput by the clock: a session's execution times become a measurement, which is judged in
`harness.judge`. A rehearsal's is in `beside_eager`.

The figure is the guides': `1000 * batch / mean(execution time in ms)` in frames a second. Rounds
go on until the half-width of the mean's 99 % interval is small enough and the figure has settled,
or the budget ends: they stop on precision, never on the verdict, which would inflate the errors.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.base.errors import InferError
from harness.base.terms import Provenance
from harness.judge.statistics import drift, half_width_percent, outliers, spread
from harness.records.measurements import (
    OutputsCheck,
    Problem,
    ProblemCode,
    Samples,
    ThroughputMeasurement,
    Timing,
)
from harness.targets.protocol import Float32, Session, Times

MIN_ROUNDS = 5
# What a device is timed for at least where a published figure is at stake: a few quick rounds are
# precise, and end before a cool device has slowed down (docs/judging.md shows the difference).
LEAST_S = 10.0
WARMUP = 5
# A session's own times against the clock: slack for a timer's ticks and a queue.
_CLOCK_SLACK = 1.05
_CLOCK_SLACK_MS = 1.0
# Loading, copying and talking to a worker cost time, but not twenty times the executions.
_CLOCK_NEAR = 20.0
# Loading takes as long in each call, give or take this much: what a call of more executions takes
# longer is theirs.
_LOADING_VARIES_MS = 1000.0

WallCheck = Literal["off", "at-most", "near"]


@dataclass(frozen=True)
class TimingPlan:
    """How a session is timed.

    precision_percent: half-width of the 99 % interval at which rounds stop.
    budget_s: seconds after which no further round begins, however few there were.
    least_s: seconds before which rounds do not stop; `LEAST_S` for a published figure.
    round_s: seconds that the session's part of a round should take.
    warmup: executions before anything is timed; an NPU's first ones are many times slower.
    wall_check: `at-most`: the session's times may not add up to more than the clock's; `near`: nor
        to a small part of them (for sessions that load nothing in a call).
    """

    provenance: Provenance
    precision_percent: float = 1.0
    budget_s: float = 120.0
    least_s: float = 0.0
    round_s: float = 0.25
    warmup: int = WARMUP
    wall_check: WallCheck = "off"


def compare_outputs(
    outputs: Float32, expected: Float32, bound: float
) -> tuple[OutputsCheck, tuple[Problem, ...]]:
    """Compare outputs `float32[N, C]` of several inputs with those expected; returns the row that
    departs most, by what is allowed, and what else is wrong.

    A row may depart by a relative L2 of `bound`, and by no more than half of the way to the nearest
    other row: what is nearer to another input's outputs is no rounding. A tenth of the bound is
    allowed even where a network hardly tells its inputs apart.
    """
    if outputs.shape != expected.shape:
        shapes = {"shape": tuple(outputs.shape), "expected": tuple(expected.shape)}
        return OutputsCheck(math.inf, bound), (Problem(ProblemCode.WRONG_SHAPE, shapes),)
    if not np.isfinite(outputs).all():
        return OutputsCheck(math.inf, bound), (Problem(ProblemCode.NOT_FINITE),)
    right = expected.astype(np.float64)
    apart = np.array([np.linalg.norm(right - row, axis=1) for row in right])
    np.fill_diagonal(apart, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        norms = np.linalg.norm(right, axis=1)
        allowed = np.clip(apart.min(axis=1) / norms / 2.0, bound / 10.0, bound)
        departs = np.linalg.norm(outputs - right, axis=1) / norms
        worst = int(np.argmax(departs / allowed))
    return OutputsCheck(float(departs[worst]), float(allowed[worst])), ()


def timing_of(batch_size: int, warmup: int, rounds: Sequence[Sequence[float]]) -> Timing:
    """Return the summary of rounds of as many execution times in ms."""
    samples = [sample for one in rounds for sample in one]
    means = tuple(statistics.fmean(one) for one in rounds)
    return Timing(
        batch_size=batch_size,
        warmup=warmup,
        executions=len(samples),
        round_means=means,
        mean_ms=statistics.fmean(means),
        half_width_percent=half_width_percent(means),
        outliers=len(outliers(samples)),
        **spread(samples),
    )


def measure(
    session: Session,
    plan: TimingPlan,
    *,
    progress: Callable[[int, float], None] = lambda rounds, half_width: None,
    ready: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[ThroughputMeasurement, Samples]:
    """Time a session by the clock; returns the summary and all samples.

    Rounds stop when the mean is as precise as was asked for and has settled: halves of the rounds
    that differ by more than the precision are a sign of a device that slows down. Neither looks at
    the figure's reference. They do not stop before `ready()` says that enough was seen of the
    device. `progress` gets the number of rounds and the half-width reached. Raises `InferError`:
    the session failed, or gave what cannot be times of its executions.
    """
    begin = clock()
    trial = times_of(session, 1, plan.warmup).ms
    trial_s = clock() - begin
    loops = loops_of(plan.round_s, min(trial))
    rounds: list[tuple[float, ...]] = []
    means: list[float] = []
    problems: tuple[Problem, ...] = ()
    while True:
        turn = clock()
        rounds.append(times_of(session, loops, 0).ms)
        means.append(statistics.fmean(rounds[-1]))
        if not problems:  # one of many alike is enough
            seconds = clock() - turn
            problems = _compared_with_clock(plan, loops, means[-1], seconds, trial_s)
        if len(means) < 2:
            continue
        width = half_width_percent(means)
        progress(len(means), width)
        seconds = clock() - begin
        if seconds >= plan.budget_s:
            break
        enough = len(means) >= MIN_ROUNDS and seconds >= plan.least_s
        precise = width <= plan.precision_percent and _settled(means, plan.precision_percent)
        if enough and precise and ready():
            break
    measurement = ThroughputMeasurement(
        provenance=plan.provenance,
        timing=timing_of(session.inputs[0].shape[0], plan.warmup + 1, rounds),
        precision_percent=plan.precision_percent,
        budget_s=plan.budget_s,
        seconds=seconds,
        half_width_percent=width,
        too_few_rounds=MIN_ROUNDS if len(means) < MIN_ROUNDS else 0,
        too_few_seconds=plan.least_s if seconds < plan.least_s else 0.0,
        problems=problems,
    )
    return measurement, Samples(tuple(rounds))


def _compared_with_clock(
    plan: TimingPlan, loops: int, mean: float, seconds: float, trial_s: float
) -> tuple[Problem, ...]:
    """Return what is wrong where a round's times are no milliseconds by the clock around it.

    `mean`: of the round's times, in ms; `seconds`: that it took; `trial_s`: that the warm-up and
    one execution took.
    """
    if plan.wall_check == "off":
        return ()
    executions, reported, passed = loops, mean * loops, 1000.0 * seconds
    strange = reported > passed * _CLOCK_SLACK + _CLOCK_SLACK_MS or (
        plan.wall_check == "near" and reported * _CLOCK_NEAR + _CLOCK_SLACK_MS < passed
    )
    if not strange:
        # A session that loads in each call hides how long a few executions take, not many.
        executions -= 1 + plan.warmup
        reported, passed = mean * executions, 1000.0 * (seconds - trial_s)
        strange = executions > 0 and reported * _CLOCK_NEAR + _LOADING_VARIES_MS < passed
    if not strange:
        return ()
    data = {"executions": executions, "reported_ms": reported, "passed_ms": passed}
    return (Problem(ProblemCode.STRANGE_TIMES, data),)


def loops_of(seconds: float, ms: float) -> int:
    """Return how many executions of `ms` take about `seconds`."""
    return max(1, min(1000, round(1000.0 * seconds / max(ms, 1e-3))))


def _settled(series: Sequence[float], precision_percent: float) -> bool:
    """Whether the second half of the rounds equals the first, as far as is asked for."""
    moved = drift(series)
    return moved is None or not moved.strong(precision_percent)


def times_of(session: Session, loops: int, warmup: int) -> Times:
    """Return what `session.time` gives, when it can be times of its executions."""
    times = session.time(loops, warmup)
    if not times.ms:
        raise InferError("the session ran, and gave no time", remedy="see the log of the session")
    if len(times.ms) != loops:
        raise InferError(
            f"the session gave {len(times.ms)} times for {loops} executions: "
            "are those of the warm-up among them?"
        )
    for ms in times.ms:
        if not (math.isfinite(ms) and ms > 0.0):
            raise InferError(f"the session says that an execution took {ms} ms")
    return times
