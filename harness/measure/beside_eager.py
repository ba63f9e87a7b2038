"""A rehearsal's throughput: the CPU time of a compiled model beside eager PyTorch's.

Each computes on one thread of a process of its own, in short turns. What is judged is the ratio of
the CPU times that the two processes spent on an execution: a neighbour takes the clock's time from
both, and next to none of theirs. Frames a second are taken from the clock all the same, and a model
that waits, or computes in another process, while eager PyTorch does not, is no fast one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import fmean

from harness.base.errors import InferError
from harness.judge.statistics import trimmed_mean
from harness.measure.throughput import loops_of, times_of, timing_of
from harness.records.measurements import (
    EagerSpeed,
    Problem,
    ProblemCode,
    Samples,
    ThroughputMeasurement,
    Timing,
)
from harness.targets.protocol import Session, Times

# CPU time of a turn: ten ticks where a kernel counts it in ticks of 10 ms; most are far finer.
TURN_S = 0.1
# Three turns of a slow model have an interval already, wide as Student's t makes it.
LEAST_TURNS = 3
# A quick model's turns go on for so long: a moment of other work must be the exception.
LEAST_S = 2.0
# A session that has less than a fourth of the other's share of a core, in every turn, waits.
_WAITS = 4.0


def measure(
    session: Session,
    eager: Session,
    *,
    precision_percent: float,
    budget_s: float,
    least_s: float = LEAST_S,
    progress: Callable[[int, float], None] = lambda turns, half_width: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[ThroughputMeasurement, Samples]:
    """Time a session and eager PyTorch in turns; returns the summary and all samples.

    Turns stop when the ratio is as precise as was asked for, whatever it is, or `budget_s` ends.
    `progress` gets the number of turns and the half-width reached. Raises `InferError`: a session
    failed, or gave no CPU times.
    """
    begin = clock()
    ours, other = _Side(session), _Side(eager)
    while True:
        ours.turn()
        other.turn()
        turns = len(ours.cpu)
        cpu_ms, eager_cpu_ms = ours.cpu_means(), other.cpu_means()
        ratio, width = trimmed_mean(
            [theirs / own for own, theirs in zip(cpu_ms, eager_cpu_ms, strict=True)]
        )
        progress(turns, width)
        seconds = clock() - begin
        if seconds >= budget_s:
            break
        if turns >= LEAST_TURNS and seconds >= least_s and width <= precision_percent:
            break
    speed = EagerSpeed(
        memory_format=str(eager.about.runtime.get("memory_format", "")),
        timing=other.timing(),
        cpu_ms=cpu_ms,
        eager_cpu_ms=eager_cpu_ms,
        ratio=ratio,
    )
    measurement = ThroughputMeasurement(
        provenance="rehearsal",
        timing=ours.timing(),
        eager=speed,
        precision_percent=precision_percent,
        budget_s=budget_s,
        seconds=seconds,
        half_width_percent=width,
        too_few_rounds=LEAST_TURNS if turns < LEAST_TURNS else 0,
        problems=_waiting(ours, other),
    )
    samples = Samples(
        tuple(ours.ms), cpu=tuple(ours.cpu), eager=tuple(other.ms), eager_cpu=tuple(other.cpu)
    )
    return measurement, samples


def _waiting(ours: _Side, eager: _Side) -> tuple[Problem, ...]:
    """Return what is wrong where CPU time does not tell how long an execution takes.

    A neighbour would have to come for each of our turns and to leave for each of eager's.
    """
    both = list(zip(ours.waits(), eager.waits(), strict=True))
    if len(both) < LEAST_TURNS or not all(own > _WAITS * theirs for own, theirs in both):
        return ()
    data = {"cpu_ms": fmean(ours.cpu_means()), "clock_ms": fmean(map(fmean, ours.ms))}
    return (Problem(ProblemCode.WAITS, data),)


class _Side:
    """One session's turns, sized by a first execution that counts for nothing."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.ms: list[tuple[float, ...]] = []
        self.cpu: list[tuple[float, ...]] = []
        self._loops = loops_of(TURN_S, self._times(1).cpu_ms[0])

    def turn(self) -> None:
        times = self._times(self._loops)
        self.ms.append(times.ms)
        self.cpu.append(times.cpu_ms)

    def cpu_means(self) -> tuple[float, ...]:
        """CPU time of an execution in ms, by turn."""
        return tuple(map(fmean, self.cpu))

    def timing(self) -> Timing:
        return timing_of(self._session.inputs[0].shape[0], 1, self.ms)

    def waits(self) -> list[float]:
        """Milliseconds by the clock to one of CPU time, by turn."""
        return [sum(ms) / sum(cpu) for ms, cpu in zip(self.ms, self.cpu, strict=True)]

    def _times(self, loops: int) -> Times:
        times = times_of(self._session, loops, 0)
        if len(times.cpu_ms) != loops or not 0.0 < sum(times.cpu_ms) < math.inf:
            raise InferError(
                f"{loops} executions took no CPU time that this host could tell",
                remedy="a rehearsal's throughput needs the CPU clock of processes",
            )
        return times
