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
from dataclasses import dataclass
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
        shapes = {"shape": tuple(outputs.shape), "expected": tuple(expected.shape)}
        return math.inf, (Problem(ProblemCode.WRONG_SHAPE, shapes),)
    if not np.isfinite(outputs).all():
        return math.inf, (Problem(ProblemCode.NOT_FINITE),)
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    delta = float(np.linalg.norm(outputs.astype(np.float64) - expected))
    return (delta / norm if norm else math.inf), ()


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
    trial = _times(session, 1, plan.warmup)
    trial_s = clock() - begin
    own = _Side(session, ("",), plan, trial, plan.warmup + 1)
    other = None if rival is None else _Side.of_rival(rival, plan)
    problems: tuple[Problem, ...] = ()
    while True:
        turn_s = own.turn(plan, clock, in_turns=other is not None)
        if not problems:  # one of many alike is enough
            problems = _compared_with_clock(own, plan.wall_check, turn_s, trial_s)
        if other is not None:
            other.turn(plan, clock, in_turns=True)
        if len(own.rounds[""]) < 2:
            continue
        series = _judged_series(own.means[""], {} if other is None else other.means)
        width = half_width_percent(series)
        progress(len(series), width)
        seconds = clock() - begin
        if seconds >= plan.budget_s:
            break
        enough = len(series) >= MIN_ROUNDS and seconds >= plan.least_s
        precise = width <= plan.precision_percent and _settled(series, plan.precision_percent)
        if enough and precise and ready():
            break
    few_rounds, few_seconds = len(series) < plan.least_rounds, seconds < plan.least_s
    measurement = ThroughputMeasurement(
        provenance=plan.provenance,
        timing=own.timing("", own.executions),
        rivals={} if other is None else {name: other.timing(name) for name in other.rounds},
        precision_percent=plan.precision_percent,
        budget_s=plan.budget_s,
        seconds=seconds,
        half_width_percent=width,
        too_few_rounds=plan.least_rounds if few_rounds else 0,
        too_few_seconds=plan.least_s if few_seconds else 0.0,
        problems=problems,
    )
    rivals = {} if other is None else {name: tuple(one) for name, one in other.rounds.items()}
    return measurement, Samples(tuple(own.rounds[""]), rivals)


class _Side:
    """One session's part of the rounds; its execution `i` belongs to `names[i % len(names)]`.

    `trial`: times of executions before, equally many of each name, by which a turn is sized.
    """

    def __init__(
        self,
        session: Session,
        names: tuple[str, ...],
        plan: TimingPlan,
        trial: tuple[float, ...],
        warmup: int,
    ) -> None:
        kinds = len(names)
        slower = max(min(trial[i::kinds]) for i in range(kinds))
        self.session, self.warmup = session, warmup
        self._loops = kinds * _loops(plan.round_s, slower)
        self._leading = kinds * _leading(slower)
        self.executions = session.executions(self._loops)
        self.rounds: dict[str, Rounds] = {name: [] for name in names}
        self.means: dict[str, list[float]] = {name: [] for name in names}

    @classmethod
    def of_rival(cls, rival: Rival, plan: TimingPlan) -> _Side:
        """Size a rival's turns by a trial, or by several where it is quick."""
        kinds = len(rival.names)
        trial = _times(rival.session, kinds, kinds)
        if _leading(max(trial)):
            trial += _times(rival.session, (PILOTS - 1) * kinds, 0)
        return cls(rival.session, rival.names, plan, trial, 1 + len(trial) // kinds)

    def turn(self, plan: TimingPlan, clock: Callable[[], float], *, in_turns: bool) -> float:
        """Time one round; return the seconds that the session took for it.

        `in_turns` with another session: after a pause, and executions that are not timed.
        """
        if in_turns:
            time.sleep(plan.turn_pause_s)
        begin = clock()
        samples = _times(self.session, self._loops, self._leading if in_turns else 0)
        seconds = clock() - begin
        for i, name in enumerate(self.rounds):
            own = samples[i :: len(self.rounds)]
            self.rounds[name].append(own)
            self.means[name].append(statistics.fmean(own))
        return seconds

    def timing(self, name: str, executions: int | None = None) -> Timing:
        batch_size = self.session.inputs[0].shape[0]
        return timing_of(batch_size, self.warmup, self.rounds[name], executions)


def _compared_with_clock(
    own: _Side, check: WallCheck, turn_s: float, trial_s: float
) -> tuple[Problem, ...]:
    """Return what is wrong where the times of a turn are no milliseconds by the clock around it.

    `trial_s`: seconds that the warm-up and one execution took.
    """
    if check == "off":
        return ()
    mean, executions = own.means[""][-1], own.executions
    reported, passed = mean * executions, 1000.0 * turn_s
    strange = reported > passed * _CLOCK_SLACK + _CLOCK_SLACK_MS or (
        check == "near" and reported * _CLOCK_NEAR + _CLOCK_SLACK_MS < passed
    )
    if not strange:
        # A session that loads in each call hides how long a few executions take, not many.
        executions -= own.session.executions(1) + own.warmup - 1
        reported, passed = mean * executions, 1000.0 * (turn_s - trial_s)
        strange = executions > 0 and reported * _CLOCK_NEAR + _LOADING_VARIES_MS < passed
    if not strange:
        return ()
    data = {"executions": executions, "reported_ms": reported, "passed_ms": passed}
    return (Problem(ProblemCode.STRANGE_TIMES, data),)


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
