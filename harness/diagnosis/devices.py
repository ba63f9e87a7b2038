"""The same compiled file on another device: whether one device alone gives wrong outputs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.base.errors import DeviceError
from harness.base.stages import Stage
from harness.diagnosis.agreement import number
from harness.diagnosis.words import COMPILED, SIMPLIFIED
from harness.judge.wording import one_device
from harness.measure import device as leasing
from harness.measure import throughput
from harness.records.measurements import ThroughputMeasurement
from harness.records.observed import Diagnosis, Section
from harness.stages.inference import outputs_of
from harness.stages.pipeline import CasePipeline, Prepared
from harness.targets.protocol import Device, Float32, Images, Session

WAIT_S = 60.0  # for the other device


@dataclass(frozen=True)
class Elsewhere:
    """Outputs of `device` for what the case was run with `not_on` it."""

    device: str
    not_on: Device
    outputs: Float32


def opened_where_it_ran(
    case: CasePipeline, prepared: Prepared, wait_s: float
) -> AbstractContextManager[Session]:
    """Open the compiled model on the device that the case ran on; on any, where it had none."""
    ran_on, devices = case.device, case.bench.target.devices()
    others = {one.id for one in devices if ran_on is not None and one.id != ran_on.id}
    return leasing.opened(case, prepared, others, timeout_s=wait_s)


def elsewhere(
    case: CasePipeline, prepared: Prepared, images: Images, wait_s: float
) -> Elsewhere | None:
    """Run `images` on another device than the case's; None where it has no other. Raises
    `HarnessError`: the other one could not be had within `wait_s` seconds, or failed.
    """
    ours = case.device
    if ours is None:
        return None
    try:
        case.bench.pool.usable({ours.id})
    except DeviceError:
        return None
    try:
        with leasing.opened(case, prepared, {ours.id}, timeout_s=wait_s) as session:
            assert case.device is not None
            return Elsewhere(case.device.id, ours, outputs_of(session, images))
    finally:
        case.device = ours


def blame(case: CasePipeline, device: Device, right: str) -> tuple[str, str]:
    """Set a device aside that gives wrong outputs where `right` gives the right ones, so that no
    later case of the run is measured on it; returns both names.
    """
    why = one_device(device.id, right)
    case.bench.pool.quarantine(device, why)
    case.bench.progress.note(f"{device.id} is set aside: {why}")
    return device.id, right


def diagnose_outputs(case: CasePipeline, prepared: Prepared) -> Diagnosis | None:
    """Find whether wrong outputs of a throughput are the device's; None where there is no other
    device, or the outputs are right.

    No device may be leased by the caller. The record of the case does not change but for the
    stage's time. Raises `HarnessError`: the other device could not be had, or failed.
    """
    measured = case.observed.measurement
    outputs = measured.outputs if isinstance(measured, ThroughputMeasurement) else None
    if outputs is None or outputs.within or prepared.probe is None:
        return None
    crops, expected = prepared.probe
    target, size = case.bench.target, case.case.batch_size
    images = case.images_for(target.input_of(case.model, size), crops)
    with case.stage(Stage.DIAGNOSE), case.unrecorded():
        other = elsewhere(case, prepared, images, case.deadline(WAIT_S))
    if other is None:
        return None
    check, _ = throughput.compare_outputs(other.outputs, expected, case.bound)
    row = (other.device, number(check.relative_l2), number(check.bound))
    table = Section("The same on another device", ("device", "relative L2", "allowed"), (row,))
    if check.within:
        summary = one_device(*blame(case, other.not_on, other.device)) + "."
        return Diagnosis(summary, Stage.DEVICE, sections=(table,))
    summary = (
        f"The {COMPILED} departs from the {SIMPLIFIED} on {other.not_on.id} and on "
        f"{other.device}: not a device's fault."
    )
    return Diagnosis(summary, Stage.COMPILE, sections=(table,))
