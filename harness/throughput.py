"""Throughput: session -> measurement. Judging is in `verdicts`.

The figure is the guides': `1000 * batch / mean(execution time in ms)` in frames a second. Rounds
go on until the half-width of the mean's 99 % interval is small enough or the budget ends: they
stop on precision, never on the verdict, which would inflate the errors.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.records import Provenance
from harness.targets.protocol import Float32, Session

MIN_ROUNDS = 5
# Threads of a runtime spin for a while after their last execution. Without a pause they take a
# core from the other side's turn: measured on two cores, its mean grew by half, its slowest
# execution tenfold; after 0.1 s nothing was left of that.
TURN_PAUSE_S = 0.1
# Two-sided 99 % quantiles of Student's t for 1..30 degrees of freedom (any statistics table).
_T99 = (
    63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169,
    3.106, 3.055, 3.012, 2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845,
    2.831, 2.819, 2.807, 2.797, 2.787, 2.779, 2.771, 2.763, 2.756, 2.750,
)  # fmt: skip
_Z99 = 2.5758


def t99(degrees: int) -> float:
    """Two-sided 99 % quantile of Student's t; past 30 by the expansion in 1/degrees
    (Abramowitz and Stegun, 26.7.5).
    """
    if degrees < 1:
        return math.inf
    if degrees <= len(_T99):
        return _T99[degrees - 1]
    z = _Z99
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def _half_width_percent(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.inf
    error = statistics.stdev(values) / math.sqrt(len(values))
    return 100.0 * t99(len(values) - 1) * error / statistics.fmean(values)


@dataclass(frozen=True)
class Timing:
    """Execution times of one model: `rounds` of samples in ms, warm-up not among them."""

    batch_size: int
    warmup: int
    rounds: tuple[tuple[float, ...], ...]

    @property
    def samples(self) -> tuple[float, ...]:
        return tuple(sample for one in self.rounds for sample in one)

    @property
    def mean_ms(self) -> float:
        return statistics.fmean(self.samples)

    @property
    def fps(self) -> float:
        """Frames a second: `1000 * batch / mean`."""
        return 1000.0 * self.batch_size / self.mean_ms

    @property
    def half_width_percent(self) -> float:
        """Half of the mean's 99 % interval, in percent of the mean.

        From the means of the rounds: samples of one round share the machine's mood and are not
        independent.
        """
        return _half_width_percent([statistics.fmean(one) for one in self.rounds])

    @property
    def cv_percent(self) -> float:
        """Coefficient of variation of all samples, in percent."""
        samples = self.samples
        return 100.0 * statistics.stdev(samples) / self.mean_ms if len(samples) > 1 else 0.0

    def percentile(self, p: float) -> float:
        """The p-th percentile in ms, linear between samples (NumPy's default rule)."""
        ordered = sorted(self.samples)
        position = (len(ordered) - 1) * p / 100.0
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    def to_json(self) -> dict[str, Any]:
        samples = self.samples
        return {
            "batch_size": self.batch_size,
            "fps": self.fps,
            "mean_ms": self.mean_ms,
            "median_ms": statistics.median(samples),
            "p99_ms": self.percentile(99),
            "min_ms": min(samples),
            "max_ms": max(samples),
            "cv_percent": self.cv_percent,
            "half_width_percent": self.half_width_percent,
            "rounds": len(self.rounds),
            "loops": len(samples),
            "warmup": self.warmup,
            "samples_ms": [round(sample, 5) for sample in samples],
            "round_sizes": [len(one) for one in self.rounds],
        }


@dataclass(frozen=True)
class ThroughputMeasurement:
    """What a throughput run observed; `rivals` were timed in alternation with it."""

    provenance: Provenance
    timing: Timing
    rivals: dict[str, Timing]
    precision_percent: float  # asked for
    budget_s: float
    seconds: float
    outputs_relative_l2: float | None = None  # seeded inputs, against the ONNX model
    problems: tuple[str, ...] = field(default=())

    @property
    def fastest_rival(self) -> tuple[str, Timing] | None:
        if not self.rivals:
            return None
        name = max(self.rivals, key=lambda name: self.rivals[name].fps)
        return name, self.rivals[name]

    @property
    def half_width_percent(self) -> float:
        """How well the figure that is judged is known: the mean, or the ratio to the rival.

        The two are timed in turns, so that a slow moment of the machine falls on both: the ratio
        of neighbouring rounds is known better than either mean.
        """
        rival = self.fastest_rival
        if rival is None:
            return self.timing.half_width_percent
        return _half_width_percent(
            [
                statistics.fmean(theirs) / statistics.fmean(ours)
                for ours, theirs in zip(self.timing.rounds, rival[1].rounds, strict=True)
            ]
        )

    @property
    def precise(self) -> bool:
        """Whether the figure that is judged is as precise as was asked for."""
        return self.half_width_percent <= self.precision_percent

    def to_json(self) -> dict[str, Any]:
        data = {
            **self.timing.to_json(),
            "precision_percent": self.precision_percent,
            "precision_reached": self.precise,
            "budget_s": self.budget_s,
            "seconds": round(self.seconds, 3),
            "problems": list(self.problems),
        }
        if self.outputs_relative_l2 is not None:
            data["outputs_check"] = {"relative_l2": self.outputs_relative_l2}
        rival = self.fastest_rival
        if rival is not None:
            name, timing = rival
            data["eager"] = {
                **timing.to_json(),
                "memory_format": name,
                "by_format": {n: round(t.fps, 3) for n, t in self.rivals.items()},
            }
            data["ratio"] = self.timing.fps / timing.fps
            data["ratio_half_width_percent"] = self.half_width_percent
        return data


def check_outputs(
    session: Session, images: Float32, wanted: Float32
) -> tuple[float, tuple[str, ...]]:
    """Run seeded `images` and compare with the ONNX model's outputs `wanted`, so that a fast
    wrong model cannot pass. Returns the relative L2 and what else is wrong.
    """
    (outputs,) = session.stream([images])
    if outputs.shape != wanted.shape:
        return math.inf, (f"outputs have shape {outputs.shape}, the ONNX model's {wanted.shape}",)
    if not np.isfinite(outputs).all():
        return math.inf, ("NaN or infinity in the outputs for seeded inputs",)
    norm = float(np.linalg.norm(wanted.astype(np.float64)))
    delta = float(np.linalg.norm(outputs.astype(np.float64) - wanted))
    return (delta / norm if norm else math.inf), ()


def measure(
    session: Session,
    *,
    provenance: Provenance,
    precision_percent: float,
    budget_s: float,
    rival: Session | None = None,
    rival_names: tuple[str, ...] = (),
    round_s: float = 0.25,
    warmup: int = 5,
    turn_pause_s: float = TURN_PAUSE_S,
    outputs_relative_l2: float | None = None,
    problems: tuple[str, ...] = (),
    progress: Callable[[int, float], None] | None = None,
) -> ThroughputMeasurement:
    """Time a session, and a rival in alternation with it.

    Args:
        precision_percent: half-width of the 99 % interval at which rounds stop.
        warmup: executions before anything is timed; an NPU's first ones are many times slower.
        budget_s: seconds after which no further round begins.
        rival: a session whose execution `i` belongs to `rival_names[i % len(rival_names)]`.
        turn_pause_s: seconds between the session's and the rival's turns.
        round_s: aim for the seconds that the session's part of a round takes.
        progress: called after each round with its number and the half-width reached.
    """
    batch_size = session.inputs[0].shape[0]
    begin = time.monotonic()
    trial = session.time(1, warmup)
    loops = max(1, min(1000, round(1000.0 * round_s / max(trial[0], 1e-3))))
    kinds = len(rival_names)
    rival_loops = 1
    if rival is not None:
        first = rival.time(kinds, kinds)
        rival_loops = max(1, min(1000, round(1000.0 * round_s / max(max(first), 1e-3))))
    rounds: list[tuple[float, ...]] = []
    rival_rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in rival_names}

    def state() -> ThroughputMeasurement:
        return ThroughputMeasurement(
            provenance=provenance,
            timing=Timing(batch_size, warmup + 1, tuple(rounds)),
            rivals={n: Timing(batch_size, 2, tuple(r)) for n, r in rival_rounds.items()},
            precision_percent=precision_percent,
            budget_s=budget_s,
            seconds=time.monotonic() - begin,
            outputs_relative_l2=outputs_relative_l2,
            problems=problems,
        )

    while True:
        if rival is not None:
            time.sleep(turn_pause_s)
        rounds.append(tuple(session.time(loops, 0)))
        if rival is not None:
            time.sleep(turn_pause_s)
            samples = rival.time(rival_loops * kinds, 0)
            for i, name in enumerate(rival_names):
                rival_rounds[name].append(tuple(samples[i::kinds]))
        if len(rounds) < 2:
            continue
        measured = state()
        if progress is not None:
            progress(len(rounds), measured.half_width_percent)
        if len(rounds) >= MIN_ROUNDS and measured.precise:
            return measured
        if time.monotonic() - begin >= budget_s:
            return measured
