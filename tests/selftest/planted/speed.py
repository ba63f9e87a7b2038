"""Faults in timing and in what a speed is held against."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.base.terms import Provenance
from harness.catalog.load import parse_catalog
from harness.catalog.schema import Baseline
from harness.judge.throughput import judge_throughput
from harness.measure import beside_eager, throughput
from harness.measure.throughput import TimingPlan
from harness.records.conditions import Condition, Setup
from harness.records.measurements import ProblemCode, ThroughputMeasurement
from harness.stages.inference import outputs_of
from harness.targets import host
from harness.targets.protocol import (
    Filler,
    Float32,
    Images,
    Session,
    SessionInfo,
    TensorSpec,
    Times,
)
from tests.selftest.planted.graphs import convolution_onnx, rewritten, swap_channels
from tests.selftest.planted.rows import Fault, Found, Row, judged, said
from tests.selftest.planted.world import BASELINES, BATCH, World

IDLE = tuple(Condition(moment, 0.0, "OK", "no", "no") for moment in ("before", "during", "after"))
CHIP = Setup(driver="api", chip="Ascend310P3", card="Atlas 300I Pro", toolchain="CANN 5.1.RC2")
OLD_CHIP = Setup(driver="api", chip="Ascend310", chips=4, method="whole-dataset")

FLOAT16 = 3e-2  # what a float16 target's arithmetic may cost, relative L2

Told = Callable[[list[float], int], list[float]]


def _as_timed(times: list[float], warmup: int) -> list[float]:
    return times[warmup:]


class Clocked:
    """A session of executions of `ms` each; its clock moves by them, and by `opening_s` a call.

    `told` makes of the times, those of the warm-up first, what the session says of them.
    """

    about = SessionInfo(driver="clocked")

    def __init__(self, ms: float, told: Told = _as_timed, opening_s: float = 0.0) -> None:
        self.inputs: Sequence[TensorSpec] = (TensorSpec("image", (BATCH, 3, 8, 8), "float32"),)
        self.outputs: Sequence[TensorSpec] = (TensorSpec("class", (BATCH, 5), "float32"),)
        self._ms, self._told, self._opening_s = ms, told, opening_s
        self._executions = 0
        self.seconds = 0.0

    def clock(self) -> float:
        return self.seconds

    def time(self, loops: int, warmup: int) -> Times:
        times = []
        for _ in range(warmup + loops):
            self._executions += 1
            # A ripple: an interval of no width would be no interval.
            ripple = 1.0 + 1e-4 * (self._executions % 7)
            times.append(self._ms * ripple)
        self.seconds += self._opening_s + sum(times) / 1000.0
        return Times(tuple(self._told(times, warmup)))

    def stream(self, batches: Iterable[Images]) -> Iterator[Float32]:
        raise AssertionError("nothing is inferred here")

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        raise AssertionError("nothing is inferred here")

    def close(self) -> None: ...


def timed(
    session: Clocked,
    *,
    conditions: tuple[Condition, ...] = IDLE,
    setup: Setup = CHIP,
    provenance: Provenance = "real",
    **plan: Any,
) -> ThroughputMeasurement:
    """A measurement of a session, by its own clock."""
    given = {"least_s": throughput.LEAST_S, "wall_check": "near", **plan}
    measured, _ = throughput.measure(session, TimingPlan(provenance, **given), clock=session.clock)
    return dataclasses.replace(measured, conditions=conditions, setup=setup)


def measured(ms: float, **changes: Any) -> ThroughputMeasurement:
    """A real measurement of executions of `ms`, on an idle device unless told otherwise."""
    return timed(Clocked(ms), **changes)


def _figure(world: World, model: str, target: str, batch: int) -> Baseline:
    found = world.catalog(model).models[model].baseline(target, batch)
    assert found is not None
    return found


def _against(world: World, found: ThroughputMeasurement) -> Found:
    """Against the figure of 903.506 fps, which asks for 4.427 ms a batch of 4."""
    figure = _figure(world, "seresnext101", "ascend310p3", BATCH)
    return judged(judge_throughput(found, figure, case="seresnext101-bs4-ascend310p3"))


def _timer(told: Told, *, opening_s: float = 0.0, **options: Any) -> Row:
    """A session whose times are told otherwise."""

    def row(world: World, planted: bool) -> Found:
        session = Clocked(4.4, told if planted else _as_timed, opening_s)
        return _against(world, timed(session, **options))

    return row


def _in_units(factor: float) -> Told:
    return lambda times, warmup: [factor * time for time in times[warmup:]]


def _submitted(times: list[float], warmup: int) -> list[float]:
    """How long it takes to hand an execution to a device that nobody waits for."""
    return [0.02 for _ in times[warmup:]]


def _card(chips: int | None) -> Row:
    """Guide 001's figure of a card of four chips, 733.052 fps, held against one chip's 184."""

    def row(world: World, planted: bool) -> Found:
        figure = _figure(world, "fixres", "ascend310", 1)
        setup = dataclasses.replace(OLD_CHIP, chips=chips if planted else 4)
        found = timed(Clocked(4 * 4.34), setup=setup)
        return judged(judge_throughput(found, figure, case="fixres-bs1-ascend310"))

    return row


def _chip_times_four(world: World, planted: bool) -> Found:
    text = BASELINES.read_text(encoding="utf-8")
    right = "chip_fps: {1: 183.263}"
    assert text.count(right) == 1
    changed = text.replace(right, "chip_fps: {1: 733.052}") if planted else text
    catalog = parse_catalog(changed.encode(), BASELINES)
    return said("accepted", f"{len(catalog.models)} models", "catalog")


def _other_chip(world: World, planted: bool) -> Found:
    setup = dataclasses.replace(CHIP, chip="Ascend310" if planted else "Ascend310P3")
    return _against(world, measured(4.4, setup=setup))


def _simulated(world: World, planted: bool) -> Found:
    return _against(world, measured(4.4, provenance="simulated" if planted else "real"))


def _noisy(world: World, planted: bool) -> Found:
    """A machine with other work: rounds that differ by a third."""
    turns = itertools.cycle([1.0, 1.3, 0.7])

    def told(times: list[float], warmup: int) -> list[float]:
        mood = next(turns) if planted else 1.0
        return [mood * time for time in times[warmup:]]

    return _against(world, timed(Clocked(4.4, told), wall_check="off", budget_s=12.0))


def _beside_eager(ours: Session, eager: Session, **options: Any) -> Found:
    found, _ = beside_eager.measure(
        ours, eager, precision_percent=10.0, budget_s=40.0, least_s=0.5, **options
    )
    return judged(judge_throughput(found, None, case="a rehearsal"))


def _dead_convolution(world: World, planted: bool) -> Found:
    """A file that does what it should, and a heavy convolution besides that changes nothing."""
    folder = world.new_folder()
    ours = convolution_onnx(folder / "ours.onnx", channels=16, dead=96 if planted else 0)
    eager = convolution_onnx(folder / "eager.onnx", channels=48)
    with contextlib.ExitStack() as stack:
        sessions = [
            stack.enter_context(
                contextlib.closing(host.open_onnx(file, log=folder / "log", threads=1))
            )
            for file in (ours, eager)
        ]
        return _beside_eager(*sessions)


def _outputs(change: Callable[[Any], None] | None, order: tuple[int, ...] = (0, 1, 2, 3)) -> Row:
    """The throughput of a file that was changed, or whose outputs come in another order, by
    float16's bound: nothing but the output check can see it.
    """

    def row(world: World, planted: bool) -> Found:
        def make() -> tuple[Images, Float32, Path]:
            case, _ = world.prepared("odd")
            crops, _ = case.probe()
            images = case.images_for(case.bench.target.input_of(case.model, 1), crops)
            file = convolution_onnx(world.new_folder() / "model.onnx", channels=32)
            return images, _computed(world, file, images), file

        images, expected, file = world.once("a convolution's outputs", make)
        changed = rewritten(file, world.new_folder() / "model.onnx", change if planted else None)
        outputs = _computed(world, changed, images)
        outputs = outputs[list(order)] if planted else outputs
        check, problems = throughput.compare_outputs(outputs, expected, FLOAT16)
        found = dataclasses.replace(measured(4.4), outputs=check, problems=problems)
        return _against(world, found)

    return row


def _computed(world: World, file: Path, images: Images) -> Float32:
    session = host.open_onnx(file, log=world.folder / "log", threads=1)
    with contextlib.closing(session):
        return outputs_of(session, images)


class Neighboured(Clocked):
    """Executions of `ms` of CPU time, which take the clock `waits` times as long."""

    def __init__(self, ms: float, waits: float) -> None:
        super().__init__(ms, opening_s=0.1)
        self._waits = waits

    def time(self, loops: int, warmup: int) -> Times:
        cpu = super().time(loops, warmup).ms
        return Times(tuple(self._waits * ms for ms in cpu), cpu)


def _half_as_fast(world: World, planted: bool) -> Found:
    """Half of eager's speed, where other work takes ten times as much of the clock from eager."""
    ours, eager = Neighboured(8.0 if planted else 2.0, 1.5), Neighboured(4.0, 15.0)
    return _beside_eager(ours, eager, clock=ours.clock)


def _slow(world: World, planted: bool) -> Found:
    """Below the figure by less than the guides' tables round."""
    return _against(world, measured(4.44 if planted else 4.42))


_TIMES = "the session's times"
_STRANGE = ProblemCode.STRANGE_TIMES

FAULTS = (
    Fault("Warm-up included in the mean", _TIMES, "session", "error",
          "are those of the warm-up among them?", _timer(lambda times, warmup: times)),
    Fault("Timer in microseconds", _TIMES, "verdict", "FAIL", _STRANGE, _timer(_in_units(1000))),
    Fault("Timer in seconds", _TIMES, "verdict", "FAIL", _STRANGE, _timer(_in_units(0.001))),
    Fault("A timer that does not wait for the device", _TIMES, "verdict", "FAIL",
          _STRANGE, _timer(_submitted)),
    Fault("Timer in microseconds, of a tool that loads for 2 s a call", _TIMES, "verdict", "FAIL",
          _STRANGE, _timer(_in_units(1000), opening_s=2.0, round_s=5.0, wall_check="at-most")),
    Fault("Timer in seconds, of a tool that loads for 2 s a call", _TIMES, "verdict", "FAIL",
          _STRANGE, _timer(_in_units(0.001), opening_s=2.0, round_s=5.0, wall_check="at-most")),
    Fault("Per-chip figure held against a per-card baseline", "the count of chips", "verdict",
          "INCONCLUSIVE", "a card with 4 chips, and 1 counted", _card(1)),
    Fault("Chips of a card that nobody counted", "the count of chips", "verdict", "INCONCLUSIVE",
          "the chips of this card were not counted", _card(None)),
    Fault("A card's figure written as a chip's", "`baselines.yaml`", "catalog", "error",
          "733.052 times 4 is 2932.21", _chip_times_four, "accepted"),
    Fault("Another chip's figure", "the target", "verdict", "RECORDED",
          "is a Ascend310P3's, this is a Ascend310", _other_chip),
    Fault("A simulated speed held against a published one", "the provenance", "verdict",
          "RECORDED", "held against nothing", _simulated),
    Fault("Other work on the machine", "the session's times", "verdict", "INCONCLUSIVE",
          "is only known to", _noisy),
    Fault("Channels swapped in the first convolution, throughput alone", "the compiled file",
          "verdict", "FAIL", ProblemCode.OUTPUTS_DIFFER, _outputs(swap_channels)),
    Fault("Outputs of two inputs exchanged, throughput alone", "the session's outputs", "verdict",
          "FAIL", ProblemCode.OUTPUTS_DIFFER, _outputs(None, (1, 0, 2, 3))),
    Fault("A speed 0.3 % below its figure", "the device", "verdict", "FAIL", "too slow", _slow),
    Fault("A dead heavy convolution, in a rehearsal", "the ONNX file", "verdict", "FAIL",
          "too slow", _dead_convolution),
    Fault("Half of eager's speed beside other work, in a rehearsal", "the session's times",
          "verdict", "FAIL", "too slow", _half_as_fast),
)  # fmt: skip
