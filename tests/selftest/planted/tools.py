"""Faults of CANN's tools and devices, played by the simulator: nothing here ran on a real NPU."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from harness.catalog.schema import InputSpec, Model
from harness.judge.accuracy import judge_accuracy
from harness.judge.throughput import judge_throughput
from harness.measure import throughput
from harness.records.measurements import OutputsCheck, ProblemCode, ThroughputMeasurement
from harness.stages.inference import Predictions
from harness.targets.ascend import target as ascend
from harness.targets.ascend.cli import Printed, Summary, execution_times
from harness.targets.protocol import Float32, Session
from tests.selftest import fakes
from tests.selftest.planted.graphs import small_onnx
from tests.selftest.planted.rows import Fault, Found, Row, judged, said
from tests.selftest.planted.speed import IDLE, measured
from tests.selftest.planted.world import BATCH, Host, World

SIDE, CLASSES = 8, 5
GAIN = 1e6  # past what float16 holds


def _model(world: World, classes: int = CLASSES) -> Model:
    """A catalog's model of the small graph's shape."""
    model = world.catalog("odd").models["odd"]
    size = InputSpec(name="image", size=SIDE)
    return model.model_copy(update={"classes": classes, "input": size})


def _onnx(world: World, batch: int, classes: int, seed: int, gain: float, half: bool) -> Path:
    return small_onnx(
        world.new_folder() / "model.onnx",
        batch=batch,
        side=SIDE,
        classes=classes,
        seed=seed,
        gain=gain,
        half=half,
    )


def _compiled(
    world: World,
    host: Host,
    *,
    batch: int = BATCH,
    classes: int = CLASSES,
    seed: int = 0,
    gain: float = 1.0,
    half: bool = False,
) -> Path:
    """The `.om` that the host's atc makes of a small graph; each once."""

    def make() -> Path:
        folder = world.new_folder()
        host.target.compile(
            _onnx(world, batch, classes, seed, gain, half),
            _model(world, classes),
            batch,
            folder,
            device=None,
            log=host.log,
        )
        (found,) = folder.glob("*.om")
        return found

    return world.once(f"om {host.folder} {batch} {classes} {seed} {gain} {half}", make)


def _opened(world: World, host: Host, file: Path) -> contextlib.closing[Session]:
    """The file opened as that of the small graph at batch size 4, as a case opens it."""
    device = host.target.devices()[0]
    session = host.target.open(file, _model(world), BATCH, device, log=host.log, lease_fds=())
    return contextlib.closing(session)


def _images(count: int = BATCH) -> Float32:
    return np.random.default_rng(1).random((count, 3, SIDE, SIDE), dtype=np.float32)


def _expected(images: Float32, seed: int = 0) -> Float32:
    """What the small graph makes of images, by NumPy."""
    matrix = np.random.default_rng(seed).standard_normal((3, CLASSES)).astype(np.float32)
    return np.asarray(images.mean((2, 3), dtype=np.float32) @ matrix)


def _runs(world: World, host: Host, file: Path) -> Found:
    """Whether the file opens and gives what it must."""
    images = _images()
    with _opened(world, host, file) as session:
        (outputs,) = session.stream([images])
    assert np.allclose(outputs, _expected(images), rtol=1e-4)
    return said("accepted", "it runs, and its outputs are right", "session")


def _om(driver: str, batch: int = BATCH, classes: int = CLASSES) -> Row:
    """An `.om` that was made for something else."""

    def row(world: World, planted: bool) -> Found:
        host = world.host("", driver)
        if planted:
            return _runs(world, host, _compiled(world, host, batch=batch, classes=classes))
        return _runs(world, host, _compiled(world, host))

    return row


def _other_chip(world: World, planted: bool) -> Found:
    host = world.host()
    maker = world.host("chip=310") if planted else host
    return _runs(world, host, _compiled(world, maker))


def _by_atc(fault: str) -> Row:
    """atc misbehaves while it makes the file."""

    def row(world: World, planted: bool) -> Found:
        maker = world.host(f"fault={fault}") if planted else world.host()
        return _runs(world, world.host(), _compiled(world, maker))

    return row


def _while_it_runs(fault: str) -> Row:
    """The command-line tool misbehaves after the model was opened."""

    def row(world: World, planted: bool) -> Found:
        host = world.host("time=2", "cli")
        images = _images(2 * BATCH)
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(_opened(world, host, _compiled(world, host)))
            if planted:
                stack.enter_context(host.misbehaving(fault))
            found = np.concatenate(list(session.stream(np.split(images, 2))))
        assert np.allclose(found, _expected(images), rtol=1e-4)
        return said("accepted", "two batches, and their outputs are right", "session")

    return row


def _wrong_batch_in_the_formula(world: World, planted: bool) -> Found:
    """The tool prints a throughput of four times the batch."""
    host = world.host("time=2", "cli")
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(_opened(world, host, _compiled(world, host)))
        if planted:
            stack.enter_context(host.misbehaving("wrong-throughput"))
        times = session.time(5, 1)
    return said("accepted", f"{times} ms", "session")


def _overflow(world: World, planted: bool) -> Found:
    """Numbers past float16's range inside the network, kept in float16 or not."""
    host = world.host()
    images = _images()
    with _opened(world, host, _compiled(world, host, gain=GAIN, half=planted)) as session:
        (outputs,) = session.stream([images])
    labels = fakes.image_set([1, 2, 3, 4])
    expected = _expected(images)
    found = fakes.measured(
        Predictions(labels.names, outputs),
        labels,
        0,
        provenance="simulated",
        reference=Predictions(labels.names, expected),
        fidelity_bound=host.target.traits.fidelity_bound,
        seconds=1.0,
    )
    spec = _model(world).accuracy
    return judged(
        judge_accuracy(found, spec.published, spec.rule, bound=host.target.traits.fidelity_bound)
    )


def _fast_and_wrong(world: World, planted: bool) -> Found:
    """The throughput of another model's `.om` with the same tensors."""
    host = world.host()
    images = _images()
    with _opened(world, host, _compiled(world, host, seed=int(planted))) as session:
        (outputs,) = session.stream([images])
    difference, problems = throughput.compare_outputs(outputs, _expected(images))
    found = replace(
        measured(4.4),
        outputs=OutputsCheck(difference, host.target.traits.fidelity_bound),
        problems=problems,
    )
    return _against_the_figure(world, found)


def _against_the_figure(world: World, found: ThroughputMeasurement) -> Found:
    model = world.catalog("seresnext101").models["seresnext101"]
    figure = model.baseline("ascend310p3", BATCH)
    verdict = judge_throughput(found, figure, case="seresnext101-bs4-ascend310p3")
    return judged(verdict, found)


# Devices -----------------------------------------------------------------------------------


def _before(fault: str) -> Row:
    """npu-smi before a measurement, and the verdict of what was measured then."""

    def row(world: World, planted: bool) -> Found:
        host = world.host(f"fault={fault}" if planted else "")
        with mock.patch.object(ascend, "LOOK_PAUSE_S", 0.0):
            seen = host.target.look(host.target.devices()[0], "before", -1.0, None)
        return _against_the_figure(world, measured(4.4, conditions=(seen, *IDLE[1:])))

    return row


def _meanwhile(fault: str) -> Row:
    """npu-smi while the device computes, and the verdict of what was measured then."""

    def row(world: World, planted: bool) -> Found:
        host = world.host(f"time=spin:50,fault={fault}" if planted else "time=spin:50")
        device = host.target.devices()[0]
        ended = threading.Event()
        with _opened(world, host, _compiled(world, host)) as session:

            def work() -> None:
                for _ in range(100):  # bounded, whatever npu-smi says
                    if not ended.is_set():
                        session.time(4, 0)

            working = threading.Thread(target=work, daemon=True)
            working.start()
            try:
                seen = host.target.look(device, "during", 1.0, session)
                while working.is_alive() and seen.throttled == "unknown":
                    seen = host.target.look(device, "during", 1.0, session)
            finally:
                ended.set()
                working.join(60.0)
        assert seen.throttled != "unknown"
        return _against_the_figure(world, measured(4.4, conditions=(IDLE[0], seen, IDLE[2])))

    return row


def _ill(world: World, planted: bool) -> Found:
    host = world.host("fault=unhealthy" if planted else "")
    return said("accepted", f"{len(host.target.devices())} device", "device")


def _absent(world: World, planted: bool) -> Found:
    """A host whose chip is not the target's."""
    host = world.host("chip=310P1" if planted else "")
    return said("accepted", f"{len(host.target.devices())} device", "device")


def _lost(world: World, planted: bool) -> Found:
    host = world.host("fault=device-lost" if planted else "")
    return _runs(world, host, _compiled(world, world.host()))


# What a tool says of itself ----------------------------------------------------------------


def _summary(mean: float, count: int) -> Summary:
    return Summary((mean,) * count, mean, count, 1000.0 * BATCH / mean)


def _warm_up_listed(world: World, planted: bool) -> Found:
    """The tool's list of times holds those of the warm-up."""
    loops = 10
    summary = _summary(4.4, loops + 5 * planted)
    times = execution_times(
        "model.om: ais_bench", Printed(1000.0 * BATCH / 4.4, 4.0), summary, batch=BATCH, loops=loops
    )
    return said("accepted", f"{len(times)} times", "session")


def _seconds_listed(world: World, planted: bool) -> Found:
    """The tool lists seconds, and prints a throughput that is right."""
    mean = 0.0044 if planted else 4.4
    summary = Summary((mean,) * 10, mean, 10, 1000.0 * BATCH / 4.4)
    times = execution_times(
        "model.om: ais_bench", Printed(1000.0 * BATCH / 4.4, 4.0), summary, batch=BATCH, loops=10
    )
    return said("accepted", f"{len(times)} times", "session")


_TOOL = "ais_bench's command line"
_ATC = "atc"

FAULTS = (
    Fault("OM of another model", "the `.om`", "session", "error", "[4, 7]",
          _om("api", classes=7), "accepted"),
    Fault("OM of another batch size", "the `.om`", "session", "error", "[16, 3, 8, 8]",
          _om("api", batch=16), "accepted"),
    Fault("OM of another batch size, over files", "the `.om`", "session", "error",
          "another size than the model's", _om("cli", batch=16), "accepted"),
    Fault("OM of another chip", "the `.om`", "session", "error", "compiled for Ascend310,",
          _other_chip, "accepted"),
    Fault("A truncated OM", _ATC, "session", "error", "the file is truncated",
          _by_atc("truncated-om"), "accepted"),
    Fault("A stale OM: atc succeeds without a new file", _ATC, "build", "error", "left no model.om",
          _by_atc("stale-files"), "accepted"),
    Fault("One output file missing", _TOOL, "session", "error", "missing: ",
          _while_it_runs("missing-outputs"), "accepted"),
    Fault("Stale output of an earlier run", _TOOL, "session", "error", "no input accounts for",
          _while_it_runs("stale-files"), "accepted"),
    Fault("Wrong batch size in the throughput formula", _TOOL, "session", "error",
          "its times give", _wrong_batch_in_the_formula, "accepted"),
    Fault("Warm-up among the tool's times", _TOOL, "session", "error",
          "timed 15 executions, 10 were asked for", _warm_up_listed, "accepted"),
    Fault("Seconds among the tool's times", _TOOL, "session", "error", "its times give",
          _seconds_listed, "accepted"),
    Fault("float16 overflow inside the network", "the chip's arithmetic", "verdict", "FAIL",
          ProblemCode.NOT_FINITE, _overflow),
    Fault("The speed of another model", "the `.om`", "verdict", "FAIL",
          ProblemCode.OUTPUTS_DIFFER, _fast_and_wrong),
    Fault("A busy device", "npu-smi's table", "device", "INCONCLUSIVE",
          "busy before the measurement", _before("busy")),
    Fault("A device that others use meanwhile", "npu-smi's table", "device", "INCONCLUSIVE",
          "busy during the measurement", _meanwhile("busy")),
    Fault("A throttled device", "the AI core's frequency", "device", "INCONCLUSIVE",
          "throttled during the measurement", _meanwhile("throttled")),
    Fault("An unhealthy device", "npu-smi's table", "device", "error", "Alarm", _ill, "accepted"),
    Fault("A chip that is not the target's", "npu-smi's table", "device", "error",
          "this host has no Ascend310P3", _absent, "accepted"),
    Fault("A lost device", "the driver", "device", "error", "507033", _lost, "accepted"),
)  # fmt: skip
