"""Throughput: a session's execution times become a measurement. Judging is in `harness.judge`.

The figure is the guides': `1000 * batch / mean(execution time in ms)` in frames a second. Rounds
go on until the half-width of the mean's 99 % interval is small enough and the figure has settled,
or the budget ends: they stop on precision, never on the verdict, which would inflate the errors.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from harness.base.errors import InferError
from harness.base.terms import Provenance
from harness.judge.statistics import drift, half_width_percent, outliers, spread
from harness.records.measurements import (
    Problem,
    ProblemCode,
    Samples,
    ThroughputMeasurement,
    Timing,
)
from harness.targets.protocol import Float32, Session

MIN_ROUNDS = 5
# A rehearsal's ratio may be decided by fewer: large batches of slow models make no more within the
# budget on a small host. Two are known by luck, if at all: Student's t is 64 there, 9.9 at three.
REHEARSAL_MIN_ROUNDS = 3
# Threads of a runtime spin for a while after their last execution. Without a pause they take a
# core from the other side's turn: measured on two cores, its mean grew by half, its slowest
# execution tenfold; after 0.1 s nothing was left of that.
TURN_PAUSE_S = 0.1
# The first executions after the other side's turn find cold caches and sleeping threads: eager
# SqueezeNet's first took 31 ms, where its mean alone is 11. Each turn begins with about so many
# seconds of executions that are not timed; those of a slow model are so long that it makes little
# of a difference, and costs a budget half of its rounds.
LEAD_S = 0.1
MOST_LEADING = 10
# Executions of each memory format by which a quick rival's turn is sized: by the quickest, since
# a moment of other work would make every turn a short one.
PILOTS = 3
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
Rounds = list[tuple[float, ...]]


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
    turn_pause_s: seconds between the session's and a rival's turns.
    """

    provenance: Provenance
    precision_percent: float = 1.0
    budget_s: float = 120.0
    least_s: float = 0.0
    round_s: float = 0.25
    warmup: int = WARMUP
    wall_check: WallCheck = "off"
    turn_pause_s: float = TURN_PAUSE_S

    @property
    def least_rounds(self) -> int:
        """Rounds without which a figure decides nothing."""
        return REHEARSAL_MIN_ROUNDS if self.provenance == "rehearsal" else MIN_ROUNDS


@dataclass(frozen=True)
class Rival:
    """A session to time in alternation; its execution `i` belongs to `names[i % len(names)]`."""

    session: Session
    names: tuple[str, ...]


def compare_outputs(outputs: Float32, expected: Float32) -> tuple[float, tuple[Problem, ...]]:
    """Return the relative L2 of outputs `float32[B, C]` to those expected, and what is wrong."""
    if outputs.shape != expected.shape:
        shapes = {"shape": _shape(outputs), "expected": _shape(expected)}
        return math.inf, (Problem(ProblemCode.WRONG_SHAPE, shapes),)
    if not np.isfinite(outputs).all():
        return math.inf, (Problem(ProblemCode.NOT_FINITE),)
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    delta = float(np.linalg.norm(outputs.astype(np.float64) - expected))
    return (delta / norm if norm else math.inf), ()


def _shape(outputs: Float32) -> tuple[float, ...]:
    return tuple(float(side) for side in outputs.shape)


def timing_of(
    batch_size: int, warmup: int, rounds: Sequence[Sequence[float]], executions: int | None = None
) -> Timing:
    """Return the summary of rounds of execution times in ms.

    `executions`: how many each round had, where a tool gives means of several as one sample.
    """
    samples = [sample for one in rounds for sample in one]
    total = len(samples) if executions is None else executions * len(rounds)
    means = tuple(statistics.fmean(one) for one in rounds)
    means_only = len(samples) < total
    return Timing(
        batch_size=batch_size,
        warmup=warmup,
        executions=total,
        round_means=means,
        mean_ms=statistics.fmean(means),  # rounds have equally many, whatever the samples of each
        half_width_percent=half_width_percent(means),
        means_only=means_only,
        outliers=0 if means_only else len(outliers(samples)),
        **({} if means_only else spread(samples)),
    )


def measure(
    session: Session,
    plan: TimingPlan,
    *,
    rival: Rival | None = None,
    progress: Callable[[int, float], None] = lambda rounds, half_width: None,
    ready: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[ThroughputMeasurement, Samples]:
    """Time a session, and a rival in alternation with it; returns the summary and all samples.

    Rounds stop when the figure is as precise as was asked for and has settled: halves of the
    rounds that differ by more than the precision are a sign of a device that slows down. Neither
    looks at the figure's reference. They do not stop before `ready()` says that enough was seen
    of the device. `progress` gets the number of rounds and the half-width reached.

    Raises:
        InferError: the session failed, or gave what cannot be times of its executions.
    """
    begin = clock()
    own = _Timed(session, plan, clock)
    other = None if rival is None else _RivalTimed(rival, plan)
    while True:
        if other is None:
            own.round()
        else:
            own.round(leading=_leading(own.trial_ms), pause_s=plan.turn_pause_s)
            other.round()
        if len(own.rounds) < 2:
            continue
        series = _judged_series(own.means, {} if other is None else other.means)
        width = half_width_percent(series)
        progress(len(own.rounds), width)
        seconds = clock() - begin
        if seconds >= plan.budget_s:
            break
        enough = len(own.rounds) >= MIN_ROUNDS and seconds >= plan.least_s
        precise = width <= plan.precision_percent and _settled(series, plan.precision_percent)
        if enough and precise and ready():
            break
    seconds = clock() - begin
    few_rounds, few_seconds = len(own.rounds) < plan.least_rounds, seconds < plan.least_s
    measurement = ThroughputMeasurement(
        provenance=plan.provenance,
        timing=own.timing(),
        rivals={} if other is None else other.timings(own.batch_size),
        precision_percent=plan.precision_percent,
        budget_s=plan.budget_s,
        seconds=seconds,
        half_width_percent=width,
        too_few_rounds=plan.least_rounds if few_rounds else 0,
        too_few_seconds=plan.least_s if few_seconds else 0.0,
        problems=own.problems,
    )
    rivals = {} if other is None else {name: tuple(one) for name, one in other.rounds.items()}
    return measurement, Samples(tuple(own.rounds), rivals)


@dataclass
class _Timed:
    """The session's part of the rounds; its times are compared with the clock."""

    session: Session
    plan: TimingPlan
    clock: Callable[[], float]
    rounds: Rounds = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        begin = self.clock()
        self.trial_ms = _times(self.session, 1, self.plan.warmup)[0]
        self.trial_s = self.clock() - begin
        self.batch_size = self.session.inputs[0].shape[0]
        self.loops = _loops(self.plan.round_s, self.trial_ms)
        self.executions = self.session.executions(self.loops)

    def round(self, *, leading: int = 0, pause_s: float = 0.0) -> None:
        """Time one round after `leading` executions that are not timed."""
        if pause_s:
            time.sleep(pause_s)
        begin = self.clock()
        samples = _times(self.session, self.loops, leading)
        if not self.problems:  # one of many alike is enough
            self.problems = self._compared_with_clock(samples, self.clock() - begin)
        self.rounds.append(samples)
        self.means.append(statistics.fmean(samples))

    def timing(self) -> Timing:
        return timing_of(self.batch_size, self.plan.warmup + 1, self.rounds, self.executions)

    def _compared_with_clock(self, samples: Sequence[float], seconds: float) -> tuple[Problem, ...]:
        """Whether the session's own times can be milliseconds, as the clock around it says."""
        check, mean = self.plan.wall_check, statistics.fmean(samples)
        if check == "off":
            return ()
        reported, passed = mean * self.executions, 1000.0 * seconds
        if reported > passed * _CLOCK_SLACK + _CLOCK_SLACK_MS:
            return _strange_times(self.executions, reported, passed)
        if check == "near" and reported * _CLOCK_NEAR + _CLOCK_SLACK_MS < passed:
            return _strange_times(self.executions, reported, passed)
        # A session that loads in each call hides how long a few executions take, not many.
        more = self.executions - self.session.executions(1) - self.plan.warmup
        reported, passed = mean * more, 1000.0 * (seconds - self.trial_s)
        if more > 0 and reported * _CLOCK_NEAR + _LOADING_VARIES_MS < passed:
            return _strange_times(more, reported, passed)
        return ()


class _RivalTimed:
    """The rival's part of the rounds, by name."""

    def __init__(self, rival: Rival, plan: TimingPlan) -> None:
        self._rival, self._plan = rival, plan
        kinds = len(rival.names)
        pilots = _times(rival.session, kinds, kinds)
        if _leading(max(pilots)):
            pilots += _times(rival.session, (PILOTS - 1) * kinds, 0)
        slower = max(min(pilots[i::kinds]) for i in range(kinds))
        self._warmup = 1 + len(pilots) // kinds
        self._loops = kinds * _loops(plan.round_s, slower)
        self._leading = kinds * _leading(slower)
        self.rounds: dict[str, Rounds] = {name: [] for name in rival.names}
        self.means: dict[str, list[float]] = {name: [] for name in rival.names}

    def round(self) -> None:
        time.sleep(self._plan.turn_pause_s)
        samples = _times(self._rival.session, self._loops, self._leading)
        for i, name in enumerate(self._rival.names):
            own = samples[i :: len(self._rival.names)]
            self.rounds[name].append(own)
            self.means[name].append(statistics.fmean(own))

    def timings(self, batch_size: int) -> dict[str, Timing]:
        return {n: timing_of(batch_size, self._warmup, r) for n, r in self.rounds.items()}


def _judged_series(ours: Sequence[float], rivals: Mapping[str, Sequence[float]]) -> Sequence[float]:
    """Return what is judged, round by round: times, or their ratio to the fastest rival's.

    The two are timed in turns, so that a slow moment of the machine falls on both: the ratio of
    neighbouring rounds is known better than either mean.
    """
    if not rivals:
        return ours
    fastest = min(rivals.values(), key=statistics.fmean)
    return [theirs / own for own, theirs in zip(ours, fastest, strict=True)]


def _loops(seconds: float, ms: float) -> int:
    """Return how many executions of `ms` take about `seconds`."""
    return max(1, min(1000, round(1000.0 * seconds / max(ms, 1e-3))))


def _leading(ms: float) -> int:
    """Return with how many executions of `ms` a turn begins that are not timed."""
    return min(MOST_LEADING, round(1000.0 * LEAD_S / max(ms, 1e-3)))


def _settled(series: Sequence[float], precision_percent: float) -> bool:
    """Whether the second half of the rounds equals the first, as far as is asked for."""
    moved = drift(series)
    return moved is None or not moved.strong(precision_percent)


def _times(session: Session, loops: int, warmup: int) -> tuple[float, ...]:
    """Return what `session.time` gives, when it can be times of its executions."""
    samples = tuple(float(sample) for sample in session.time(loops, warmup))
    if not samples:
        raise InferError("the session ran, and gave no time", remedy="see the log of the session")
    executions = session.executions(loops)
    if len(samples) > executions:
        raise InferError(
            f"the session gave {len(samples)} times for {executions} executions: "
            "are those of the warm-up among them?"
        )
    for sample in samples:
        if not (math.isfinite(sample) and sample > 0.0):
            raise InferError(f"the session says that an execution took {sample} ms")
    return samples


def _strange_times(executions: int, reported_ms: float, passed_ms: float) -> tuple[Problem, ...]:
    data = {"executions": executions, "reported_ms": reported_ms, "passed_ms": passed_ms}
    return (Problem(ProblemCode.STRANGE_TIMES, data),)
