"""One case on a device: leased, looked at, opened, measured, closed, looked at again, judged.

After a failure that may be the device's the case is tried once on another, and a device that
failed is set aside for the run. Which one failed how is in the record, also when the second try
succeeds. Where the machine killed the process, nothing else runs on this host at the second try.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from harness.base import processes
from harness.base.errors import DeviceError, HarnessError, LoadError, NoSession
from harness.base.stages import Stage
from harness.judge.accuracy import judge_accuracy
from harness.judge.throughput import judge_throughput
from harness.judge.wording import joined
from harness.measure import throughput
from harness.measure.device import leased, loaded
from harness.measure.passes import take_accuracy, take_throughput
from harness.measure.watcher import look
from harness.records.measurements import (
    AccuracyMeasurement,
    Datum,
    Problem,
    ProblemCode,
    ThroughputMeasurement,
)
from harness.records.observed import Attempt
from harness.records.verdicts import Verdict
from harness.stages import checkpoint, eager
from harness.stages.inference import outputs_of
from harness.stages.pipeline import CasePipeline, Prepared
from harness.targets.protocol import Device, DeviceFault


def measure(case: CasePipeline, prepared: Prepared) -> Verdict:
    """Measure and judge the case's check on one device, or on a second one.

    A device is set aside at once only where it certainly failed itself. Where a model can cause the
    same (it hangs, it ends its stream with an error), the device is used again, unless another one
    then does what it did not: one bad model must not take every device from a run. A compiled model
    that does not load is compiled anew, once in a run: its tool may have failed without a word. Not
    where a case before has opened it: both must have run one file. Raises `HarnessError`: it could
    not be measured; of a stage, or of the device.
    """
    with case.all_unusable() if prepared.feed is not None else contextlib.nullcontext():
        try:
            return _on_one_device_or_two(case, prepared)
        except LoadError as error:
            if error.hung or error.killed or isinstance(error, NoSession):
                raise
            if prepared.compiled in case.bench.opened:
                raise
            again = case.compiled_again(f"the runtime does not load it: {error.message}")
            if again is None:
                raise
        anew = replace(prepared, compiled=again.path, facts=again.facts)
        return _on_one_device_or_two(case, anew)


class _Failed(NamedTuple):
    """A failure that may be a device's."""

    device: Device
    fault: DeviceFault
    error: HarnessError


def _on_one_device_or_two(case: CasePipeline, prepared: Prepared) -> Verdict:
    try:
        return _attempt(case, prepared, ())
    except HarnessError as error:
        first = _failed(case, error)
        if first is None or processes.ending.is_set():
            raise
        another = _another(case, first.device)
        killed = error if error.killed and (another or not first.fault.certain) else None
        if not (another or killed):
            raise
    if another:
        case.bench.progress.note(
            f"{case.case.name} failed on {first.device.id} ({first.fault.why}): "
            "it is tried on another device"
        )
    try:
        with contextlib.nullcontext() if killed is None else case.host_alone(killed):
            verdict = _attempt(case, prepared, {first.device.id} if another else ())
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
        if not (first.fault.certain or killed or error.killed):
            error.message += (
                f" (on {first.device.id} too: {first.fault.why})"
                if second is None
                else f" (on {first.device.id} and {second.device.id} alike: the model or the "
                "toolchain, not the device)"
            )
        raise
    if not (first.fault.certain or killed):
        _set_aside(case, *first)
    return verdict


def _failed(case: CasePipeline, error: HarnessError) -> _Failed | None:
    """Return what speaks against the device that the case had, which is set aside where it
    certainly failed; None where nothing does.
    """
    if case.device is None:
        return None
    fault = case.bench.target.device_fault(error, case.device)
    if fault is None and (error.signal or error.killed):
        fault = DeviceFault("its process was ended", certain=False)
    if fault is not None and fault.certain:
        _set_aside(case, case.device, fault, error)
    return None if fault is None else _Failed(case.device, fault, error)


def _set_aside(case: CasePipeline, device: Device, fault: DeviceFault, error: HarnessError) -> None:
    case.bench.pool.quarantine(device, f"{fault.why} ({case.case.name})")
    case.bench.progress.note(f"{device.id} is set aside: {fault.why}")
    case.observed.attempts.append(Attempt(device.id, error.stage, error.message, fault.why))


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
    """Return what is wrong with an ONNX file that was given to a rehearsal or a simulation.

    A file is as fast as its network, and any network's outputs equal its own: a small one would
    pass in a large one's name. So it must compute what eager PyTorch makes of the
    weights. A real run has no weights to compare with, and its sentence says that they are not
    verified. Before a device is leased: the store may build.
    """
    if prepared.probe is None or case.given_onnx is None or case.bench.provenance == "real":
        return ()
    crops, outputs = prepared.probe
    weights = case.checkpoint()
    log = case.log_path(Stage.EAGER, "outputs")
    with (
        case.stage(Stage.EAGER),
        case.share_host("the eager outputs") as lease,
        eager.open_eager(case, weights, case.case.batch_size, log, lease_fds=lease.fds) as session,
    ):
        expected = outputs_of(session, case.images_for(session.inputs[0], crops))
    check, problems = throughput.compare_outputs(outputs, expected, case.bound)
    if check.within:
        return ()
    data: dict[str, Datum] = {"model": case.model.id, **vars(check)}
    return (Problem(ProblemCode.OTHER_NETWORK, data), *problems)


# Judging -----------------------------------------------------------------------------------


def judge(case: CasePipeline, measurement: AccuracyMeasurement | ThroughputMeasurement) -> Verdict:
    """Judge by the rule that provenance, number of images and the catalog's figures call for."""
    real, own = measurement.provenance == "real", case.model.fidelity
    allowed = f"logits may differ by {own.bound:g} ({own.source})" if own else ""
    note = joined(unverified(case), allowed) if real else ""
    if isinstance(measurement, ThroughputMeasurement):
        figure = case.model.baseline(case.case.target, case.case.batch_size)
        return judge_throughput(measurement, figure, case=case.case.id, note=note)
    model = case.model
    return judge_accuracy(
        measurement, model.published, model.accuracy_rule, bound=case.bound, note=note
    )


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
