"""Faults of CANN's tools and devices, played by the simulator: nothing here ran on a real NPU."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from harness.catalog.schema import InputSpec, Model
from harness.judge.accuracy import judge_accuracy
from harness.judge.throughput import judge_throughput
from harness.measure import throughput
from harness.records.measurements import ProblemCode, ThroughputMeasurement
from harness.stages.inference import Predictions
from harness.targets.ascend import target as ascend
from harness.targets.ascend.times import ComputeTime, Summary, execution_times
from harness.targets.protocol import Float32, Session
from tests.selftest import fakes, image_folders
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


def _compiled(
    world: World, host: Host, batch: int = BATCH, classes: int = CLASSES, **graph: Any
) -> Path:
    """The `.om` that the host's atc makes of a small graph; each once."""

    def make() -> Path:
        folder = world.new_folder()
        onnx = small_onnx(
            world.new_folder() / "model.onnx", batch=batch, side=SIDE, classes=classes, **graph
        )
        model = _model(world, classes)
        host.target.compile(onnx, model, batch, folder, device=None, log=host.log)
        (om,) = folder.glob("*.om")
        return om

    return world.once(f"om {host.folder} {batch} {classes} {graph}", make)


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


def _om(driver: str = "api", *, maker: str = "", runs: str = "", **other: int) -> Row:
    """A file by another atc (`maker`), for something else, or on another host (`runs`)."""

    def row(world: World, planted: bool) -> Found:
        sound = world.host("", driver)
        if not planted:
            return _runs(world, sound, _compiled(world, sound))
        file = _compiled(world, world.host(maker, driver), **other)
        return _runs(world, world.host(runs, driver), file)

    return row


def _while_it_runs(fault: str, use: Callable[[Session], Sequence[Float32 | float]]) -> Row:
    """The command-line tool misbehaves after the model was opened."""

    def row(world: World, planted: bool) -> Found:
        host = world.host("time=2", "cli")
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(_opened(world, host, _compiled(world, host)))
            if planted:
                stack.enter_context(host.misbehaving(fault))
            got = use(session)
        return said("accepted", f"{len(got)} times or outputs are right", "session")

    return row


def _two_batches(session: Session) -> Sequence[Float32]:
    images = _images(2 * BATCH)
    outputs = list(session.stream(np.split(images, 2)))
    assert np.allclose(np.concatenate(outputs), _expected(images), rtol=1e-4)
    return outputs


def _five_times(session: Session) -> Sequence[float]:
    return session.time(5, 1).ms


def _overflow(world: World, planted: bool) -> Found:
    """Numbers past float16's range inside the network, kept in float16 or not."""
    host = world.host()
    images = _images()
    with _opened(world, host, _compiled(world, host, gain=GAIN, half=planted)) as session:
        (outputs,) = session.stream([images])
    labels = image_folders.image_set([1, 2, 3, 4])
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
    spec = _model(world).stated
    return judged(
        judge_accuracy(found, spec.published, spec.rule, bound=host.target.traits.fidelity_bound)
    )


def _fast_and_wrong(world: World, planted: bool) -> Found:
    """The throughput of another model's `.om` with the same tensors."""
    host = world.host()
    images = _images()
    with _opened(world, host, _compiled(world, host, seed=int(planted))) as session:
        (outputs,) = session.stream([images])
    bound = host.target.traits.fidelity_bound
    check, problems = throughput.compare_outputs(outputs, _expected(images), bound)
    found = replace(measured(4.4), outputs=check, problems=problems)
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


def _devices(config: str) -> Row:
    """What npu-smi says of a host before it is used."""

    def row(world: World, planted: bool) -> Found:
        devices = world.host(config if planted else "").target.devices()
        return said("accepted", f"{len(devices)} device", "device")

    return row


# What a tool says of itself ----------------------------------------------------------------


def _listed(mean: float, executions: int) -> Row:
    """The tool lists so many times of `mean`; it ran 10 of 4.4 ms, and prints their throughput."""

    def row(world: World, planted: bool) -> Found:
        ms, count = (mean, executions) if planted else (4.4, 10)
        fps = 1000.0 * BATCH / 4.4
        summary = Summary(
            NPU_compute_time=ComputeTime(mean=ms, count=count),
            npu_compute_time_list=[ms] * count,
            throughput=fps,
        )
        times = execution_times("model.om: ais_bench", fps, summary, batch=BATCH, loops=10)
        return said("accepted", f"{len(times)} times", "session")

    return row


_TOOL = "ais_bench's command line"
_ATC = "atc"

FAULTS = (
    Fault("OM of another model", "the `.om`", "session", "error", "[4, 7]",
          _om(classes=7), "accepted"),
    Fault("OM of another batch size", "the `.om`", "session", "error", "[16, 3, 8, 8]",
          _om(batch=16), "accepted"),
    Fault("OM of another batch size, over files", "the `.om`", "session", "error",
          "another size than the model's", _om("cli", batch=16), "accepted"),
    Fault("OM of another chip", "the `.om`", "session", "error", "compiled for Ascend310,",
          _om(maker="chip=310"), "accepted"),
    Fault("A truncated OM", _ATC, "session", "error", "the file is truncated",
          _om(maker="fault=truncated-om"), "accepted"),
    Fault("A stale OM: atc succeeds without a new file", _ATC, "build", "error", "left no model.om",
          _om(maker="fault=stale-files"), "accepted"),
    Fault("One output file missing", _TOOL, "session", "error", "missing: ",
          _while_it_runs("missing-outputs", _two_batches), "accepted"),
    Fault("Stale output of an earlier run", _TOOL, "session", "error", "no input accounts for",
          _while_it_runs("stale-files", _two_batches), "accepted"),
    Fault("Wrong batch size in the throughput formula", _TOOL, "session", "error",
          "its times give", _while_it_runs("wrong-throughput", _five_times), "accepted"),
    Fault("Warm-up among the tool's times", _TOOL, "session", "error",
          "timed 15 executions, 10 were asked for", _listed(4.4, 15), "accepted"),
    Fault("Seconds among the tool's times", _TOOL, "session", "error", "its times give",
          _listed(0.0044, 10), "accepted"),
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
    Fault("An unhealthy device", "npu-smi's table", "device", "error", "Alarm",
          _devices("fault=unhealthy"), "accepted"),
    Fault("A chip that is not the target's", "npu-smi's table", "device", "error",
          "this host has no Ascend310P3", _devices("chip=310P1"), "accepted"),
    Fault("A lost device", "the driver", "device", "error", "507033",
          _om(runs="fault=device-lost"), "accepted"),
)  # fmt: skip
