"""Whether the model, the toolchain, the machine or an input failed, and what a run ends with.

The stage of an error says most of it; codes of problems, the diagnosis and what was seen of the
devices say the rest. A cause is a first guess with its reason, for the one who opens a red night:
the record has the facts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from harness.base.stages import Stage
from harness.records.lines import CaseLine, CheckName, RunCheckLine
from harness.records.measurements import ProblemCode
from harness.records.observed import ErrorInfo
from harness.records.reader import RunRecords
from harness.records.verdicts import FigureName

Cause = Literal["model", "toolchain", "machine", "input", "harness"]
Why = tuple[Cause, str]


class Exit(IntEnum):
    """Exit codes of a run, for nightly pipelines; 2, 3 and 5 are pytest's own."""

    PASSED = 0
    ACCEPTANCE_FAILED = 1  # a verdict, or a stage that cannot make or run the model
    INTERRUPTED = 2
    HARNESS_FAULT = 3
    INPUT_ERROR = 4  # options, catalog, images, labels, checkpoints
    NOTHING_SELECTED = 5
    INCONCLUSIVE_ONLY = 6
    MACHINE_TROUBLE = 7  # devices, crashed workers, disk


# By the stage of an error, and of what a diagnosis found. Others are faults of the harness.
_BY_STAGE: dict[Stage, Why] = {
    Stage.DATA: ("input", "images or labels cannot be used"),
    Stage.CHECKPOINT: ("input", "the weights are absent, damaged or others"),
    Stage.CONFIGURATION: ("input", "options do not fit"),
    Stage.CATALOG: ("input", "baselines.yaml is not right"),
    Stage.NETWORK: ("input", "no installed library supplies the network under that name"),
    Stage.REHEARSAL: ("input", "stand-ins cannot tell good from bad"),
    Stage.EXPORT: ("toolchain", "PyTorch could not write the ONNX file"),
    Stage.SIMPLIFY: ("toolchain", "onnxsim could not simplify it"),
    Stage.COMPILE: ("toolchain", "the model could not be compiled"),
    Stage.LOAD: ("toolchain", "the runtime does not take the compiled model"),
    Stage.INFER: ("toolchain", "the runtime failed while it ran the model"),
    Stage.EAGER: ("toolchain", "eager PyTorch could not run the model"),
    Stage.DEVICE: ("machine", "the device is absent, busy, lost or unhealthy"),
    Stage.STORE: ("machine", "the artifact store cannot be read or written"),
    Stage.RECORDS: ("machine", "records cannot be written"),
    Stage.WORKER: ("machine", "the pytest worker died"),
}
# Where the class of an error says more than its stage.
_BY_TYPE: dict[str, Why] = {
    "CompileRefused": ("toolchain", "the compiler refused the model"),
    "CompileTimeout": ("toolchain", "the compiler did not end in time"),
    "NetworkRefused": ("input", "the network cannot be built as the catalog asks"),
    "NothingCompiled": ("toolchain", "the compiler said that it succeeded and left no new model"),
}
_FULL_DISK: Why = ("machine", "a disk is full")
_HARNESS: Why = ("harness", "a fault of the harness itself")
_RED = ("failed", "error", "crashed", "inconclusive")
# Stages that are the same for every model: equal words are one failure.
_SHARED_STAGES = (
    *(Stage.DATA, Stage.CONFIGURATION, Stage.CATALOG),
    *(Stage.DEVICE, Stage.STORE, Stage.RECORDS),
)
# Stages that fail whatever the model is.
_BEFORE_THE_MODEL = (
    *_SHARED_STAGES,
    *(Stage.CHECKPOINT, Stage.REHEARSAL, Stage.WORKER, Stage.HARNESS),
)
# What a compiled model is made from, each from the one before.
_CHAIN = (Stage.CHECKPOINT, Stage.STANDIN, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE)
# The bound of targets that compute in float16; others have less.
_FLOAT16_BOUND = 3e-2

Artifact = tuple[str, str]  # key and digest of a compiled model
Diagnosed = Mapping[Artifact, Why]


@dataclass(frozen=True)
class Finding:
    """Why one case or check is not green: the cause, and why it is thought so."""

    subject: str  # "accuracy of squeezenet1_1-bs4-cpu"
    outcome: str
    cause: Cause
    why: str
    case: CaseLine | None = None  # None of a check over the cases

    @property
    def remedy(self) -> str:
        """What to do next; empty where nobody knows."""
        return "" if self.case is None else remedy_of(self.case, self.cause)


def causes(records: RunRecords) -> tuple[Finding, ...]:
    """Return every red case and check with its cause, in the order of the records."""
    known = diagnoses(records.cases)
    findings = [one for case in records.cases if (one := cause_of(case, known)) is not None]
    findings += [
        Finding(f"{check.name} of {check.subject}", check.outcome, *_of_check(check, records))
        for check in records.checks
        if check.outcome in ("failed", "inconclusive")
    ]
    return tuple(findings)


def cause_of(case: CaseLine, diagnosed: Diagnosed | None = None) -> Finding | None:
    """Return the cause of a case that is not green; None of one that is.

    `diagnosed`: see `diagnoses`. Wrong outputs of an artifact that another case diagnosed have
    the cause that was found there.
    """
    if case.outcome not in _RED:
        return None
    if case.outcome == "inconclusive":
        cause, why = _of_inconclusive(case)
    elif case.error is not None:
        cause, why = _of_error(case, case.error)
    else:
        cause, why = _of_failed(case, diagnosed or {})
    return Finding(f"{case.check} of {case.case}", case.outcome, cause, why, case)


def _of_inconclusive(case: CaseLine) -> Why:
    if case.check == "throughput":
        return "machine", "the device was not its own, or too unsteady to measure"
    return "input", "too few images to decide"


def cause_of_error(error: ErrorInfo) -> Why:
    """Return the cause of an error that says all there is, and why it is thought so."""
    if error.full_disk:
        return _FULL_DISK
    return _BY_TYPE.get(error.type) or _BY_STAGE.get(error.stage, _HARNESS)


def _of_error(case: CaseLine, error: ErrorInfo) -> Why:
    cause, why = cause_of_error(error)
    if case.attempts and cause == "toolchain":
        why += "; a device was set aside before"
    return cause, why


def _of_failed(case: CaseLine, diagnosed: Diagnosed) -> Why:
    """Take what the diagnosis found of the case or its artifact, else go by the problems."""
    if case.verdict is not None and case.verdict.kind != "FAIL":
        # Nothing is wrong with such a case but that the catalog says it fails.
        return "input", "declared in known_failures, but it did not fail there"
    if found := _diagnosis(case):
        return found
    codes = _codes(case)
    if ProblemCode.OTHER_INPUT in codes:
        return "input", "what is fed is not the catalog's preprocessing"
    if ProblemCode.OTHER_NETWORK in codes:
        return "input", "the file that --onnx gave is another network"
    if wrong_outputs(case):
        known = (diagnosed[one] for one in _compiled(case) if one in diagnosed)
        return next(known, ("toolchain", "for the same inputs the ONNX model has other outputs"))
    if strange_times(case):
        return "toolchain", "the times that the runtime reports do not fit the clock"
    return "model", "it ran, and its figures do not hold"


def _of_check(check: RunCheckLine, records: RunRecords) -> Why:
    """Batch sizes cannot agree where the artifact of one of them is known to be wrong."""
    if check.name is CheckName.BATCH_SIZES and check.outcome == "failed":
        for case in records.cases:
            same = (case.model, case.target) == (check.model, check.target)
            if same and case.outcome == "failed" and (found := _diagnosis(case)):
                return found
    return "model", check.sentence


def diagnoses(cases: Iterable[CaseLine]) -> Diagnosed:
    """Return what was found out about compiled models whose accuracy failed: cause and summary."""
    return {
        artifact: found
        for case in cases
        if case.outcome == "failed" and (found := _diagnosis(case)) is not None
        for artifact in _compiled(case)
    }


def _diagnosis(case: CaseLine) -> Why | None:
    found = case.diagnosis
    if found is None or found.stage is None:
        return None
    return _BY_STAGE.get(found.stage, _HARNESS)[0], found.summary


def _compiled(case: CaseLine) -> list[Artifact]:
    return [(ref.key, ref.digest) for ref in case.artifacts if ref.stage is Stage.COMPILE]


def _codes(case: CaseLine) -> set[ProblemCode]:
    """Return the codes of all problems, of the measurement and of the verdict."""
    problems = case.measurement.problems if case.measurement is not None else ()
    judged = case.verdict.problems if case.verdict is not None else ()
    return {problem.code for problem in (*problems, *judged)}


# What cases have in common -----------------------------------------------------------------


def says_nothing_of_the_model(error: ErrorInfo) -> bool:
    """Whether the case ended before its model could fail: what is declared of it stays open."""
    return error.stage in _BEFORE_THE_MODEL or error.full_disk


def strange_times(case: CaseLine) -> bool:
    """Whether a throughput failed because its times cannot be right, whatever they are."""
    return ProblemCode.STRANGE_TIMES in _codes(case)


def wrong_outputs(case: CaseLine) -> bool:
    """Whether a throughput failed because the outputs are wrong, whatever the speed.

    A diagnosis of wrong outputs explains no slowness.
    """
    measured = case.throughput
    if measured is None:
        return False
    outputs = measured.outputs
    return bool(_codes(case) - {ProblemCode.STRANGE_TIMES}) or (
        outputs is not None and not outputs.within
    )


def failure(case: CaseLine) -> Hashable | None:
    """Return what cases that failed for one reason have in common; None of a case that stands
    alone.

    The same stage failed with the same message, and what it worked on was made from the same
    artifact: a build that failed fails for both checks, an export for every batch size. Cases
    that were never reached are alike as well.
    """
    if case.outcome == "not_run":
        return "not_run", case.sentence
    error = case.error
    if case.outcome != "error" or error is None:
        return None
    same = (error.stage, error.message)
    if error.stage in _SHARED_STAGES or error.full_disk:
        return same
    keys = [ref.key for stage in _CHAIN for ref in case.artifacts if ref.stage is stage]
    return *same, case.model, case.target, keys[-1] if keys else ""


# What to do --------------------------------------------------------------------------------


def remedy_of(case: CaseLine, cause: Cause) -> str:
    """Return what to do about a case that is not green: its error's remedy, or what helps most
    often with such a verdict.
    """
    if case.error is not None:
        return case.error.remedy
    if case.outcome == "inconclusive":
        return _steady(case) if case.check == "throughput" else _MORE_IMAGES
    if case.outcome != "failed":
        return ""
    if case.verdict is not None and case.verdict.kind != "FAIL":
        return "take its entry out of known_failures in the catalog"
    if ProblemCode.NOT_FINITE in _codes(case) and _may_be_float16(case):
        return _OVERFLOW
    if case.diagnosis is not None:
        return "the case's diagnosis in the report has what was compared (docs/diagnosis.md)"
    if strange_times(case) and not wrong_outputs(case):
        return _OTHER_TIMER
    if cause == "toolchain":
        return "run its accuracy as well: the diagnosis of that finds the stage that departs"
    return ""


_OTHER_TIMER = (
    "time it with the runtime's own tool (the record has its command) or with another --driver, "
    "and hold both figures against each other"
)
_MORE_IMAGES = "use more images: a larger --sample, or none of --sample and --limit for all"
_OVERFLOW = (
    "likely float16 that overflows: compile it more precisely on trial, docs/ascend.md says how "
    '("What each error means")'
)
_UNHEALTHY = "the driver's own tool says what the device has; measure on another with --device=N"
_BUSY = (
    "end the process that is named, or measure on another device with --device=N; then run this "
    "case again"
)
_THROTTLED = "the device was held back: see to its cooling and power, then run this case again"
_UNSTEADY = "run this case again with nothing else on the host, or give it longer: --budget=SECONDS"


def _steady(case: CaseLine) -> str:
    """Go by what was seen of the device: busy, held back, or a figure that would not settle."""
    looks = () if case.throughput is None else case.throughput.conditions
    if any(look.health and look.health.upper() != "OK" for look in looks):
        return _UNHEALTHY
    if any(look.busy == "yes" for look in looks):
        return _BUSY
    if any(look.throttled == "yes" for look in looks):
        return _THROTTLED
    return _UNSTEADY


def _may_be_float16(case: CaseLine) -> bool:
    """Whether the target's bound is float16's, or not known: the whole set has no eager pass."""
    bound: object = None
    if case.throughput is not None and case.throughput.outputs is not None:
        bound = case.throughput.outputs.bound
    elif case.verdict is not None:
        bound = case.verdict.figures.get(FigureName.LOGITS_L2_ALLOWED)
    return not isinstance(bound, int | float) or bound >= _FLOAT16_BOUND


# How a run ends ----------------------------------------------------------------------------


def exit_code(
    cases: Iterable[CaseLine],
    checks: Iterable[RunCheckLine],
    *,
    complete: bool,
    allow_inconclusive: bool,
    stopped: bool = False,
) -> Exit:
    """Return what a run ends with: the first of 1, 3, 7, 4, 6 that applies, else 0.

    `stopped`: the run was asked to end before its last case, so that what did not run is nobody's
    fault; without a red case such a run is not green all the same.
    """
    # Whatever a diagnosis found, a failed case is a failed acceptance: none is asked for here.
    findings = [one for case in cases if (one := cause_of(case)) is not None]
    outcomes = [check.outcome for check in checks]
    red = [one for one in findings if one.outcome != "inconclusive"]
    kinds = {one.cause for one in red}
    judged = any(one.outcome == "failed" for one in red)
    if judged or "failed" in outcomes:
        kinds.add("model")
    if not (complete or stopped):
        kinds.add("machine")
    if kinds:
        return exit_of_causes(kinds)
    undecided = len(findings) > len(red) or "inconclusive" in outcomes
    if undecided and not allow_inconclusive:
        return Exit.INCONCLUSIVE_ONLY
    return Exit.PASSED if complete else Exit.MACHINE_TROUBLE


_CODES: dict[Cause, Exit] = {
    "model": Exit.ACCEPTANCE_FAILED,
    "toolchain": Exit.ACCEPTANCE_FAILED,
    "harness": Exit.HARNESS_FAULT,
    "machine": Exit.MACHINE_TROUBLE,
    "input": Exit.INPUT_ERROR,
}


def exit_of_causes(kinds: Iterable[Cause]) -> Exit:
    """Return what something ends with that failed for these causes: the weightiest wins."""
    codes = {_CODES[cause] for cause in kinds}
    return next((code for code in _CODES.values() if code in codes), Exit.PASSED)
