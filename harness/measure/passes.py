"""What an open session gives: one accuracy pass over the images, or timed executions."""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import replace

from harness.base import precision
from harness.base.stages import Stage
from harness.measure import accuracy, beside_eager, throughput
from harness.measure.input_check import InputCheck
from harness.measure.throughput import TimingPlan
from harness.measure.watcher import Watcher
from harness.records import writer
from harness.records.measurements import (
    AccuracyMeasurement,
    Samples,
    ThroughputMeasurement,
)
from harness.stages import eager
from harness.stages.inference import infer, outputs_of
from harness.stages.pipeline import CasePipeline, Prepared
from harness.stages.weights import Checkpoint
from harness.targets.protocol import Device, Session


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
        fidelity_bound=case.bound,
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
        reference_kind=case.model.reference_kind,
        reference_by="" if prepared.reference is None else prepared.reference.by,
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
    target, (crops, expected) = case.bench.target, prepared.probe
    images = case.images_for(session.inputs[0], crops)
    outputs, problems = throughput.compare_outputs(
        outputs_of(session, images), expected, case.bound
    )
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
        outputs=outputs,
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
