"""One case on a device: leased, looked at, opened, measured, closed, looked at again, judged.

After a failure that may be the device's the case is tried once on another, and a device that
failed is set aside for the run. Which one failed how is in the record, also when the second try
succeeds.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from harness.base import precision
from harness.base.errors import DeviceError, HarnessError, LoadError
from harness.base.stages import Stage
from harness.judge.accuracy import judge_accuracy
from harness.judge.throughput import judge_throughput
from harness.measure import accuracy, beside_eager, throughput
from harness.measure.input_check import InputCheck
from harness.measure.throughput import TimingPlan
from harness.measure.watcher import Watcher, look
from harness.records import writer
from harness.records.measurements import (
    AccuracyMeasurement,
    Datum,
    OutputsCheck,
    Problem,
    ProblemCode,
    Samples,
    ThroughputMeasurement,
)
from harness.records.observed import Attempt, DeviceInfo
from harness.records.verdicts import Verdict
from harness.stages import checkpoint, eager
from harness.stages.inference import infer
from harness.stages.pipeline import CasePipeline, Prepared
from harness.stages.weights import Checkpoint
from harness.targets.pool import TIMEOUT_S
from harness.targets.protocol import Device, DeviceFault, Session


def measure(case: CasePipeline, prepared: Prepared) -> Verdict:
    """Measure and judge the case's check on one device, or on a second one.

    A device is set aside at once only where it certainly failed itself. Where a model can cause
    the same (it hangs, it ends its stream with an error), the device is used again, unless
    another one then does what it did not: one bad model must not take every device from a run.

    Raises:
        HarnessError: it could not be measured; of a stage, or of the device.
    """
    with case.all_unusable() if prepared.feed is not None else contextlib.nullcontext():
        return _on_one_device_or_two(case, prepared)


@dataclass(frozen=True)
class _Failed:
    """A failure that may be a device's."""

    device: Device
    fault: DeviceFault
    error: HarnessError


def _on_one_device_or_two(case: CasePipeline, prepared: Prepared) -> Verdict:
    try:
        return _attempt(case, prepared, ())
    except HarnessError as error:
        first = _failed(case, error)
        if first is None or not _another(case, first.device):
            raise
    case.bench.progress.note(
        f"{case.case.name} failed on {first.device.id} ({first.fault.why}): "
        "it is tried on another device"
    )
    try:
        verdict = _attempt(case, prepared, {first.device.id})
    except HarnessError as error:
        second = _failed(case, error)
        if second is not None and second.fault.certain:
            lost = [one.device.id for one in (first, second) if one.fault.certain]
            raise DeviceError(
                f"{case.case.name} failed on {first.device.id} and {second.device.id}: "
                f"{error.message}",
                remedy=f"{error.remedy}; set aside for this run: {', '.join(lost)}",
                log=error.log,
            ) from error
        if not first.fault.certain:
            error.message += (
                f" (on {first.device.id} too: {first.fault.why})"
                if second is None
                else f" (on {first.device.id} and {second.device.id} alike: the model or the "
                "toolchain, not the device)"
            )
        raise
    if not first.fault.certain:
        _set_aside(case, first)
    return verdict


def _failed(case: CasePipeline, error: HarnessError) -> _Failed | None:
    """Return what speaks against the device that the case had, which is set aside where it
    certainly failed; None where nothing does.
    """
    if case.device is None:
        return None
    fault = case.bench.target.device_fault(error, case.device)
    if fault is None:
        return None
    failed = _Failed(case.device, fault, error)
    if fault.certain:
        _set_aside(case, failed)
    return failed


def _set_aside(case: CasePipeline, failed: _Failed) -> None:
    device, error, why = failed.device, failed.error, failed.fault.why
    case.bench.pool.quarantine(device, f"{why} ({case.case.name})")
    case.bench.progress.note(f"{device.id} is set aside: {why}")
    case.observed.attempts.append(Attempt(device.id, error.stage, error.message, why))


def _another(case: CasePipeline, device: Device) -> bool:
    try:
        return bool(case.bench.pool.usable({device.id}))
    except DeviceError:
        return False


def _attempt(case: CasePipeline, prepared: Prepared, without: Collection[str]) -> Verdict:
    case.device = None  # until there is a lease, no failure is a device's
    problems = _other_network(case, prepared)
    with leased(case, without) as device:
        if case.case.check == "accuracy":
            with loaded(case, prepared, device) as session:
                return judge(case, take_accuracy(case, session, prepared))
        before = look(case.bench.target, device, "before", 0.0, None)
        with loaded(case, prepared, device) as session:
            measurement = take_throughput(case, session, prepared, device)
            # Closed before the last look: what then uses the device is not the measurement.
            session.close()
        after = look(case.bench.target, device, "after", measurement.seconds, None)
        measurement = replace(
            measurement,
            problems=(*problems, *measurement.problems),
            conditions=(before, *measurement.conditions, after),
        )
        case.observed.measurement = measurement
        return judge(case, measurement)


def _other_network(case: CasePipeline, prepared: Prepared) -> tuple[Problem, ...]:
    """Return what is wrong with an ONNX file that was given to a run on stand-ins.

    A file is as fast as its network, and any network's outputs equal its own: a small one would
    pass in a large one's name. So it must compute what eager PyTorch makes of the stand-in's
    weights. A real run has no weights to compare with, and its sentence says that they are not
    verified. Before a device is leased: the store may build.
    """
    stand_ins = case.bench.settings.stand_ins
    if prepared.probe is None or case.given_onnx is None or not stand_ins:
        return ()
    images, outputs = prepared.probe
    weights = case.checkpoint()
    log = case.log_path(Stage.EAGER, "outputs")
    with (
        case.stage(Stage.EAGER),
        case.share_host("the eager outputs") as lease,
        eager.open_eager(case, weights, case.case.batch_size, log, lease_fds=lease.fds) as session,
    ):
        (expected,) = session.stream([images])
    difference, problems = throughput.compare_outputs(outputs, expected)
    bound = case.bench.target.traits.fidelity_bound
    if not problems and difference <= bound:
        return ()
    data: dict[str, Datum] = {"model": case.model.id, "relative_l2": difference, "bound": bound}
    return (Problem(ProblemCode.OTHER_NETWORK, data), *problems)


# Judging -----------------------------------------------------------------------------------


def judge(case: CasePipeline, measurement: AccuracyMeasurement | ThroughputMeasurement) -> Verdict:
    """Judge by the rule that provenance, number of images and the catalog's figures call for."""
    note = unverified(case) if measurement.provenance == "real" else ""
    if isinstance(measurement, ThroughputMeasurement):
        figure = case.model.baseline(case.case.target, case.case.batch_size)
        return judge_throughput(measurement, figure, case=case.case.id, note=note)
    spec, bound = case.model.accuracy, case.bench.target.traits.fidelity_bound
    return judge_accuracy(measurement, spec.published, spec.rule, bound=bound, note=note)


def unverified(case: CasePipeline) -> str:
    """Return why nobody knows whether the weights are the published ones; empty if they are.

    A checkpoint loads into its own network alone; a given ONNX file may be any network with the
    right tensors, which nothing in a real run would show.
    """
    if case.given_onnx is not None:
        what = "weights" if case.case.check == "accuracy" else "network and weights"
        return f"{what} not verified: the ONNX file was given"
    if not checkpoint.has_digest(case.model.checkpoint):
        return "weights not verified: no digest is published"
    return ""


# A session on a leased device --------------------------------------------------------------


@contextlib.contextmanager
def leased(
    case: CasePipeline, without: Collection[str] = (), *, timeout_s: float = TIMEOUT_S
) -> Iterator[Device]:
    """Lease a device for the case's check. Everything must have been built before.

    Raises:
        DeviceError: none is usable, or none became free within `timeout_s` seconds.
    """
    bench = case.bench
    with contextlib.ExitStack() as stack:
        with case.stage(Stage.DEVICE):
            device, lease = stack.enter_context(
                bench.pool.for_case(case.case.check, case.case.name, without, timeout_s=timeout_s)
            )
        case.device, case.lease_fds = device, lease.fds
        # No longer held afterwards; which device it was stays known.
        stack.callback(setattr, case, "lease_fds", ())
        unused = bench.target.left_out()
        for name, why in unused.items():
            text = f"{name} is not used: {why}"
            bench.once(text, functools.partial(bench.progress.note, text))
        case.observed.device = DeviceInfo(
            id=device.id,
            name=device.name,
            card=device.group,
            alone=lease.exclusive,
            waited_s=round(lease.waited_s, 3),
            toolchain=dict(bench.target.identity()),
            left_out=dict(unused),
        )
        yield device


@contextlib.contextmanager
def loaded(case: CasePipeline, prepared: Prepared, device: Device) -> Iterator[Session]:
    """Open the compiled model on the leased device.

    Raises:
        LoadError: the runtime does not take the file, or it is another model's.
    """
    target, model, batch_size = case.bench.target, case.model, case.case.batch_size
    with contextlib.ExitStack() as stack:
        with case.stage(Stage.LOAD), _remedied(case, prepared):
            session = target.open(
                prepared.compiled,
                model,
                batch_size,
                device,
                log=case.log_path(Stage.LOAD),
                lease_fds=case.lease_fds,
            )
            stack.callback(session.close)
            _check_tensors(case, session)
        assert case.observed.device is not None
        case.observed.device = replace(
            case.observed.device,
            driver=session.about.driver,
            runtime=dict(session.about.runtime),
            commands=dict(
                target.commands(prepared.simplified, prepared.compiled, model, batch_size, device)
            ),
        )
        yield session


@contextlib.contextmanager
def opened(
    case: CasePipeline, prepared: Prepared, *, timeout_s: float = TIMEOUT_S
) -> Iterator[Session]:
    """Lease a device and open the compiled model on it: see `leased` and `loaded`."""
    with (
        leased(case, timeout_s=timeout_s) as device,
        loaded(case, prepared, device) as session,
    ):
        yield session


@contextlib.contextmanager
def _remedied(case: CasePipeline, prepared: Prepared) -> Iterator[None]:
    """Say how to be rid of a compiled file that no runtime takes: its key never goes stale."""
    try:
        yield
    except LoadError as error:
        key = prepared.compiled.parent.name
        store = shlex.quote(f"--store={case.bench.settings.store}")
        anew = (
            f"where the compiled file may be damaged: python -m harness cache gc --key={key} "
            f"{store}, and the next run compiles it anew"
        )
        error.remedy = "; ".join(filter(None, [error.remedy, anew]))
        raise


def _check_tensors(case: CasePipeline, session: Session) -> None:
    batch, size = case.case.batch_size, case.model.input.size
    expected = (
        ("input", case.model.input.name, (batch, 3, size, size), session.inputs),
        ("output", case.model.output.name, (batch, case.model.classes), session.outputs),
    )
    for role, name, shape, tensors in expected:
        specs = [(spec.name, tuple(spec.shape), spec.dtype) for spec in tensors]
        # A compiler may rename tensors (atc does): with one of each, shapes and types say which.
        renamed = [(name, shape, dtype) for _, shape, dtype in specs]
        if renamed != [(name, shape, "float32")]:
            raise LoadError(
                f"{case.case.id}: the compiled model's {role}s are {specs}, they must be "
                f"[({name!r}, {shape}, 'float32')]",
                remedy="the compiled file is another model's or another batch size's",
            )


# What a session gives ----------------------------------------------------------------------


def take_accuracy(case: CasePipeline, session: Session, prepared: Prepared) -> AccuracyMeasurement:
    """Run every image once; predictions are kept in the run directory.

    A few images are decoded afresh, and compared with what the session is fed.
    """
    assert prepared.feed is not None
    images = case.images()
    check = InputCheck(images, case.model.preprocessing)
    seen = accuracy.Observation(
        images,
        case.model.label_offset,
        reference=prepared.reference,
        fidelity_bound=case.bench.target.traits.fidelity_bound,
    )
    with case.stage(Stage.INFER), case.feeding(prepared.feed, case.decoding):
        begin = time.monotonic()
        infer(
            session,
            prepared.feed,
            seen.add,
            look=check.look,
            progress=lambda n: case.bench.progress.update(n, len(images), "images"),
        )
        seconds = time.monotonic() - begin
    measurement = seen.measurement(provenance=case.bench.provenance, seconds=seconds)
    path = case.bench.run_dir / "predictions" / f"{case.case.id}.csv"
    seen.write(path)
    measurement = replace(
        measurement,
        problems=(*measurement.problems, *check.problems()),
        predictions_file=path.relative_to(case.bench.run_dir).as_posix(),
    )
    assert case.observed.images is not None
    contents = prepared.feed.crops.contents()
    case.observed.images = replace(case.observed.images, contents=contents)
    case.observed.measurement = measurement
    return measurement


def take_throughput(
    case: CasePipeline, session: Session, prepared: Prepared, device: Device
) -> ThroughputMeasurement:
    """Time executions with looks at the device; a rehearsal times eager PyTorch in turns."""
    assert prepared.probe is not None
    target, (images, expected) = case.bench.target, prepared.probe
    (outputs,) = session.stream([images])
    difference, problems = throughput.compare_outputs(outputs, expected)
    if prepared.rival is not None:
        measurement, samples = _beside_eager(case, session, prepared.rival)
    else:
        with case.stage(Stage.TIME), Watcher(target, device, session) as watcher:
            measurement, samples = throughput.measure(
                session,
                _plan(case, session),
                progress=functools.partial(_progress, case),
                ready=watcher.ready,
            )
        measurement = replace(measurement, conditions=tuple(watcher.seen))
    return replace(
        measurement,
        outputs=OutputsCheck(difference, target.traits.fidelity_bound),
        problems=(*problems, *measurement.problems),
        setup=target.setup(device, prepared.facts, session),
        samples_file=writer.write_samples(case.bench.run_dir, case.case.id, samples),
    )


def _progress(case: CasePipeline, rounds: int, width: float) -> None:
    asked = f"(asked for: \N{PLUS-MINUS SIGN}{case.bench.settings.timing_precision:g} %)"
    case.bench.progress.say(f"{rounds} rounds, {precision.known_to(width)} {asked}")


def _plan(case: CasePipeline, session: Session) -> TimingPlan:
    settings, about = case.bench.settings, session.about
    return TimingPlan(
        provenance=case.bench.provenance,
        precision_percent=settings.timing_precision,
        budget_s=settings.budget,
        least_s=throughput.LEAST_S if case.bench.provenance == "real" else 0.0,
        round_s=about.round_s or case.bench.target.traits.round_s,
        wall_check="at-most" if about.pid is None else "near",
    )


def _beside_eager(
    case: CasePipeline, session: Session, weights: Checkpoint
) -> tuple[ThroughputMeasurement, Samples]:
    """Time a session and eager PyTorch in turns, on one thread each."""
    log, size, fds = case.log_path(Stage.LOAD_EAGER), case.case.batch_size, case.lease_fds
    with contextlib.ExitStack() as stack:
        with case.stage(Stage.LOAD_EAGER):
            opening = eager.open_eager(case, weights, size, log, lease_fds=fds, faster_format=True)
            rival = stack.enter_context(opening)
        with case.stage(Stage.TIME):
            return beside_eager.measure(
                session,
                rival,
                precision_percent=case.bench.settings.timing_precision,
                budget_s=case.bench.settings.budget,
                progress=functools.partial(_progress, case),
            )
