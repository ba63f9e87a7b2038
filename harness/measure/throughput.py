"""Throughput: session -> measurement. Judging is in `verdicts`.

The figure is the guides': `1000 * batch / mean(execution time in ms)` in frames a second. Rounds
go on until the half-width of the mean's 99 % interval is small enough and the figure has settled,
or the budget ends: they stop on precision, never on the verdict, which would inflate the errors.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from harness.base.errors import InferError
from harness.base.terms import Provenance
from harness.judge.causes import STRANGE_TIMES
from harness.judge.statistics import drift, half_width_percent
from harness.records.conditions import Condition, Setup
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
# A session's own times, held against the clock: slack for a timer's ticks and a queue.
_CLOCK_SLACK = 1.05
_CLOCK_SLACK_MS = 1.0
# Loading, copying and talking to a worker cost time, but not twenty times the executions.
_CLOCK_NEAR = 20.0
# Loading takes as long in each call, give or take this much: what a call of more executions takes
# longer is theirs.
_LOADING_VARIES_MS = 1000.0

WallCheck = Literal["off", "at-most", "near"]


@dataclass(frozen=True)
class Timing:
    """Execution times of one model: `rounds` of samples in ms, warm-up not among them.

    A tool that prints only a mean gives one sample for a round of `loops_per_round` executions,
    which may be the tool's own number.
    """

    batch_size: int
    warmup: int
    rounds: tuple[tuple[float, ...], ...]
    loops_per_round: int | None = None  # None: as many as there are samples

    @property
    def samples(self) -> tuple[float, ...]:
        return tuple(sample for one in self.rounds for sample in one)

    @functools.cached_property
    def round_means(self) -> tuple[float, ...]:
        """The mean of each round, in ms."""
        return tuple(statistics.fmean(one) for one in self.rounds)

    @property
    def executions(self) -> int:
        """Executions that were timed, whether or not each of them has a sample."""
        if self.loops_per_round is None:
            return len(self.samples)
        return self.loops_per_round * len(self.rounds)

    @property
    def means_only(self) -> bool:
        """Whether samples are means of several executions: their spread is not a latency's."""
        return len(self.samples) < self.executions

    @property
    def mean_ms(self) -> float:
        """Mean over all executions: rounds have equally many, whatever the samples of each."""
        return statistics.fmean(self.round_means)

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
        return half_width_percent(self.round_means)

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
        """For a record. Of means of executions no percentile is given: it would say nothing."""
        samples = self.samples
        data: dict[str, Any] = {
            "batch_size": self.batch_size,
            "fps": self.fps,
            "mean_ms": self.mean_ms,
            "half_width_percent": self.half_width_percent,
            "rounds": len(self.rounds),
            "loops": self.executions,
            "warmup": self.warmup,
            "samples_ms": [round(sample, 5) for sample in samples],
            "round_sizes": [len(one) for one in self.rounds],
        }
        if self.means_only:
            data["samples_are"] = "means of several executions"
        else:
            data |= {
                "median_ms": statistics.median(samples),
                "p99_ms": self.percentile(99),
                "min_ms": min(samples),
                "max_ms": max(samples),
                "cv_percent": self.cv_percent,
            }
        return data


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
    outputs_bound: float | None = None  # what is allowed of that, the target's
    problems: tuple[str, ...] = field(default=())
    conditions: tuple[Condition, ...] = ()
    setup: Setup = field(default_factory=Setup)

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
        return half_width_percent(
            _judged_series(
                self.timing.round_means,
                {name: one.round_means for name, one in self.rivals.items()},
            )
        )

    @property
    def precise(self) -> bool:
        """Whether the figure that is judged is as precise as was asked for."""
        return self.half_width_percent <= self.precision_percent

    @property
    def too_short(self) -> str:
        """Why this decides nothing, however precise it looks; empty where it was timed long enough.

        A budget may end the rounds before `MIN_ROUNDS` or `LEAST_S`: a few quick rounds agree by
        chance, and end before a cool device has slowed down.
        """
        rounds = len(self.timing.rounds)
        least = REHEARSAL_MIN_ROUNDS if self.provenance == "rehearsal" else MIN_ROUNDS
        if rounds < least:
            counted = "1 round was" if rounds == 1 else f"{rounds} rounds were"
            return f"{counted} timed in a budget of {self.budget_s:g} s, it takes {least}"
        if self.provenance == "real" and self.seconds < LEAST_S:
            seconds = math.floor(10.0 * self.seconds) / 10.0  # never "10.0 s, it takes 10 s"
            return (
                f"it was timed for {seconds:g} s in a budget of {self.budget_s:g} s, "
                f"it takes {LEAST_S:g} s"
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        data = {
            **self.timing.to_json(),
            "precision_percent": self.precision_percent,
            "precision_reached": self.precise and not self.too_short,
            "budget_s": self.budget_s,
            "seconds": round(self.seconds, 3),
            "problems": list(self.problems),
            "conditions": [condition.to_json() for condition in self.conditions],
            "setup": self.setup.to_json(),
        }
        if self.outputs_relative_l2 is not None:
            data["outputs_check"] = {"relative_l2": self.outputs_relative_l2}
            if self.outputs_bound is not None:
                data["outputs_check"]["bound"] = self.outputs_bound
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
    return compare_outputs(outputs, wanted)


def compare_outputs(outputs: Float32, wanted: Float32) -> tuple[float, tuple[str, ...]]:
    """Relative L2 of outputs `float32[B, C]` to those `wanted`, and what else is wrong."""
    if outputs.shape != wanted.shape:
        return math.inf, (f"outputs have shape {outputs.shape}, the ONNX model's {wanted.shape}",)
    if not np.isfinite(outputs).all():
        return math.inf, ("NaN or infinity in the outputs for seeded inputs",)
    norm = float(np.linalg.norm(wanted.astype(np.float64)))
    delta = float(np.linalg.norm(outputs.astype(np.float64) - wanted))
    return (delta / norm if norm else math.inf), ()


def _judged_series(ours: Sequence[float], rivals: Mapping[str, Sequence[float]]) -> Sequence[float]:
    """What is judged, round by round: times, or their ratio to the fastest rival's."""
    if not rivals:
        return ours
    fastest = min(rivals.values(), key=statistics.fmean)
    return [theirs / mine for mine, theirs in zip(ours, fastest, strict=True)]


def _loops(seconds: float, ms: float) -> int:
    """How many executions of `ms` take about `seconds`."""
    return max(1, min(1000, round(1000.0 * seconds / max(ms, 1e-3))))


def _leading(ms: float) -> int:
    """With how many executions of `ms` a turn begins that are not timed."""
    return min(MOST_LEADING, round(1000.0 * LEAD_S / max(ms, 1e-3)))


def _settled(series: Sequence[float], precision_percent: float) -> bool:
    """Whether the second half of the rounds is no other than the first, as far as is asked for."""
    moved = drift(series)
    return moved is None or not moved.strong(precision_percent)


def _timed(session: Session, loops: int, warmup: int) -> tuple[float, ...]:
    """What `session.time` gives, when it can be times of its executions."""
    samples = tuple(float(sample) for sample in session.time(loops, warmup))
    if not samples:
        raise InferError("the session ran, and told no time", remedy="see the log of the session")
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


def _clock_problem(
    samples: Sequence[float], executions: int, seconds: float, check: WallCheck
) -> str | None:
    """Whether a session's own times can be milliseconds, as the clock around it says."""
    told, passed = statistics.fmean(samples) * executions, 1000.0 * seconds
    if check != "off" and told > passed * _CLOCK_SLACK + _CLOCK_SLACK_MS:
        return (
            f"{STRANGE_TIMES} {executions} executions took {told:.4g} ms, and {passed:.4g} ms "
            "passed: its times are not milliseconds, or not its own"
        )
    if check == "near" and told * _CLOCK_NEAR + _CLOCK_SLACK_MS < passed:
        return (
            f"{STRANGE_TIMES} {executions} executions took {told:.4g} ms, but {passed:.4g} ms "
            "passed: its times are not milliseconds, or it does not wait for the device"
        )
    return None


def _growth_problem(
    samples: Sequence[float], more: int, longer_s: float, check: WallCheck
) -> str | None:
    """Whether `more` executions can have made a call longer by `longer_s`, as the session says.

    For sessions that load in each call, which hides how long a few executions take.
    """
    told, passed = statistics.fmean(samples) * more, 1000.0 * longer_s
    if check == "off" or told * _CLOCK_NEAR + _LOADING_VARIES_MS >= passed:
        return None
    return (
        f"{STRANGE_TIMES} {more} executions more took {told:.4g} ms, but the call took "
        f"{passed:.4g} ms longer: its times are not milliseconds, or it does not wait for the "
        "device"
    )


def measure(
    session: Session,
    *,
    provenance: Provenance,
    precision_percent: float,
    budget_s: float,
    rival: Session | None = None,
    rival_names: tuple[str, ...] = (),
    least_s: float = 0.0,
    round_s: float = 0.25,
    warmup: int = 5,
    turn_pause_s: float = TURN_PAUSE_S,
    outputs_relative_l2: float | None = None,
    problems: tuple[str, ...] = (),
    progress: Callable[[int, float], None] | None = None,
    ready: Callable[[], bool] = lambda: True,
    wall_check: WallCheck = "off",
    clock: Callable[[], float] = time.monotonic,
) -> ThroughputMeasurement:
    """Time a session, and a rival in alternation with it.

    Rounds stop when the figure is as precise as was asked for and has settled: halves of the
    rounds that differ by more than the precision tell of a device that slows down. Neither
    looks at what the figure will be held against.

    Args:
        precision_percent: half-width of the 99 % interval at which rounds stop.
        warmup: executions before anything is timed; an NPU's first ones are many times slower.
        budget_s: seconds after which no further round begins, however few there were: what was
            timed too little decides nothing (`ThroughputMeasurement.too_short`).
        least_s: seconds before which rounds do not stop; `LEAST_S` for a published figure.
        rival: a session whose execution `i` belongs to `rival_names[i % len(rival_names)]`. Then
            each turn of either begins with executions that are not timed.
        turn_pause_s: seconds between the session's and the rival's turns.
        round_s: aim for the seconds that the session's part of a round takes.
        progress: called after each round with its number and the half-width reached.
        ready: whether enough was seen of the device meanwhile: rounds do not stop before that.
        wall_check: `at-most`: the session's times may not add up to more than the clock's;
            `near`: nor to a small part of them (for sessions that load nothing in a call).
        clock: seconds that only grow.

    Raises:
        InferError: the session failed, or gave what cannot be times of its executions.
    """
    batch_size = session.inputs[0].shape[0]
    begin = clock()
    trial = _timed(session, 1, warmup)
    trial_s = clock() - begin
    loops = _loops(round_s, trial[0])
    executions = session.executions(loops)
    kinds = len(rival_names)
    lead = rival_lead = rival_loops = 0
    pilots: tuple[float, ...] = ()
    if rival is not None:
        pilots = _timed(rival, kinds, kinds)
        if _leading(max(pilots)):
            pilots += _timed(rival, (PILOTS - 1) * kinds, 0)
        slower = max(min(pilots[i::kinds]) for i in range(kinds))
        rival_loops = kinds * _loops(round_s, slower)
        lead, rival_lead = _leading(trial[0]), kinds * _leading(slower)
    rounds: list[tuple[float, ...]] = []
    rival_rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in rival_names}
    means: list[float] = []
    rival_means: dict[str, list[float]] = {name: [] for name in rival_names}
    wrong = list(problems)
    while True:
        if rival is not None:
            time.sleep(turn_pause_s)
        started = clock()
        samples = _timed(session, loops, lead)
        took_s, more = clock() - started, executions - session.executions(1) - warmup
        problem = _clock_problem(samples, executions, took_s, wall_check)
        if problem is None and more > 0:
            problem = _growth_problem(samples, more, took_s - trial_s, wall_check)
        if problem is not None and len(wrong) == len(problems):  # said once
            wrong.append(problem)
        rounds.append(samples)
        means.append(statistics.fmean(samples))
        if rival is not None:
            time.sleep(turn_pause_s)
            theirs = _timed(rival, rival_loops, rival_lead)
            for i, name in enumerate(rival_names):
                rival_rounds[name].append(tuple(theirs[i::kinds]))
                rival_means[name].append(statistics.fmean(theirs[i::kinds]))
        if len(rounds) < 2:
            continue
        series = _judged_series(means, rival_means)
        width = half_width_percent(series)
        if progress is not None:
            progress(len(rounds), width)
        seconds = clock() - begin
        if seconds >= budget_s:
            break
        enough = len(rounds) >= MIN_ROUNDS and seconds >= least_s and width <= precision_percent
        if enough and _settled(series, precision_percent) and ready():
            break
    return ThroughputMeasurement(
        provenance=provenance,
        timing=Timing(batch_size, warmup + 1, tuple(rounds), executions),
        rivals={
            n: Timing(batch_size, 1 + len(pilots) // kinds, tuple(r))
            for n, r in rival_rounds.items()
        },
        precision_percent=precision_percent,
        budget_s=budget_s,
        seconds=clock() - begin,
        outputs_relative_l2=outputs_relative_l2,
        problems=tuple(wrong),
    )
