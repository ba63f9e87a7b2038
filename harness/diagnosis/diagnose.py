"""Diagnosis of a case whose accuracy failed: which stage broke it, which suspect explains it.

The same few images go through eager PyTorch, the exported ONNX file, the simplified one and the
compiled model on its device; then the usual mistakes are tried on the compiled model. What cannot
be tried is said and costs nothing else: the verdict stands whatever happens here. No step begins
after `LIMIT_S`; one that has begun ends by its own deadline.
"""

from __future__ import annotations

from harness.base import scratch
from harness.base.stages import Stage
from harness.diagnosis import chain, trials
from harness.diagnosis.evidence import Evidence, best_class
from harness.diagnosis.words import words
from harness.records.measurements import AccuracyMeasurement
from harness.records.observed import Diagnosis
from harness.stages.inference import batches
from harness.stages.pipeline import CasePipeline, Prepared

IMAGES = 16
LIMIT_S = 180.0


def diagnose(case: CasePipeline, prepared: Prepared, images: int = IMAGES) -> Diagnosis:
    """Find where an accuracy went wrong.

    `images` is how many go through the stages; those whose prediction flipped come first. No
    device may be leased by the caller. Never raises a `HarnessError`: what could not be tried is a
    row of the answer, and the record of the case does not change but for the stage's time.
    """
    measurement = case.observed.measurement
    with (
        case.stage(Stage.DIAGNOSE),
        case.unrecorded(),
        scratch.folder("diagnosis") as folder,
    ):
        evidence = Evidence(
            case=case,
            prepared=prepared,
            recorded=measurement if isinstance(measurement, AccuracyMeasurement) else None,
            limit_s=case.deadline(LIMIT_S),
            scratch=folder,
            count=max(2, images),
        )
        with evidence.trying("images"):
            evidence.choose()
            for what, step in (
                ("stages before the compiler", chain.host_stages),
                ("compiled model", chain.compiled_stage),
                ("agreement", chain.agreement),
                ("pairing and labels", trials.paired),
                ("whether the run can be repeated", trials.count_unrepeatable),
                ("operator by operator", _operator_by_operator),
            ):
                with evidence.trying(what):
                    step(evidence)
            _image_table(evidence)
    evidence.section("Not tried", ["what", "why"], evidence.failed)
    stage, suspect, summary = words(evidence.findings, len(evidence.index), evidence.bound)
    return Diagnosis(summary, stage, suspect, tuple(evidence.sections), tuple(evidence.commands))


def _image_table(evidence: Evidence) -> None:
    recorded = evidence.predicted
    then = {} if recorded is None else dict(zip(recorded.names, recorded.compiled, strict=True))
    best = {name: best_class(logits) for name, logits in evidence.logits.items()}
    rows = [
        [
            name,
            str(evidence.labels[i]),
            *(str(classes[at]) for classes in best.values()),
            str(then.get(name, "")),
        ]
        for at, (i, name) in enumerate(zip(evidence.index, evidence.names, strict=True))
    ]
    evidence.section("Best class of each image", ["image", "label", *best, "in the run"], rows)


def _operator_by_operator(evidence: Evidence) -> None:
    """Offer the command of the target's own tool that compares operators on the device."""
    case = evidence.case
    batch = next(batches(evidence.right, case.case.batch_size))
    comparison = case.bench.target.compare_operators(
        case.simplified(),
        evidence.prepared.compiled,
        case.model,
        batch,
        case.device,
        case.bench.run_dir / "diagnosis" / case.case.id,
    )
    if comparison is None:
        return
    evidence.commands += comparison.commands
    pasted = "paste the command; it was not run here, and needs a device that is free"
    evidence.section(
        "Operator by operator on the device",
        ["what", "how"],
        [[comparison.tool, comparison.why_not or pasted]],
    )
