"""Whether the model, the toolchain, the machine or an input failed, and what a run ends with.

The stage of an error says most of it; codes of problems, the diagnosis and what was seen of the
devices say the rest. A file or a device has one culprit: what one case shows of it holds for every
case that stands on it. A cause is a first guess with its reason, for the one who opens a red night:
the record has the facts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

from harness.base.stages import Stage
from harness.base.terms import Check, Provenance
from harness.judge.wording import clause, one_device
from harness.records.lines import CaseLine, CheckName, RunCheckLine
from harness.records.measurements import ProblemCode
from harness.records.observed import ErrorInfo
from harness.records.reader import RunRecords

Cause = Literal["model", "toolchain", "machine", "input", "harness"]


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


class Reason(NamedTuple):
    """A cause, why it is thought so, and what to do; no `remedy` where nobody knows."""

    cause: Cause
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """Why one case or check is not green."""

    subject: str  # "accuracy of squeezenet1_1-bs4-cpu"
    outcome: str
    cause: Cause
    why: str
    remedy: str = ""
    case: CaseLine | None = None  # None of a check over the cases


# The table of causes -----------------------------------------------------------------------

# By the stage of an error, and of what a diagnosis found. Others are faults of the harness.
_BY_STAGE: dict[Stage, Reason] = {
    Stage.DATA: Reason("input", "images or labels cannot be used"),
    Stage.CHECKPOINT: Reason("input", "the weights are absent, damaged or others"),
    Stage.CONFIGURATION: Reason("input", "options do not fit"),
    Stage.CATALOG: Reason("input", "baselines.yaml is not right"),
    Stage.NETWORK: Reason("input", "no installed library supplies the network under that name"),
    Stage.REHEARSAL: Reason("input", "stand-ins cannot tell good from bad"),
    Stage.EXPORT: Reason("toolchain", "PyTorch could not write the ONNX file"),
    Stage.SIMPLIFY: Reason("toolchain", "onnxsim could not simplify it"),
    Stage.COMPILE: Reason("toolchain", "the model could not be compiled"),
    Stage.LOAD: Reason("toolchain", "the runtime does not take the compiled model"),
    Stage.INFER: Reason("toolchain", "the runtime failed while it ran the model"),
    Stage.EAGER: Reason("toolchain", "eager PyTorch could not run the model"),
    Stage.DEVICE: Reason("machine", "the device is absent, busy, lost or unhealthy"),
    Stage.STORE: Reason("machine", "the artifact store cannot be read or written"),
    Stage.RECORDS: Reason("machine", "records cannot be written"),
    Stage.WORKER: Reason("machine", "the pytest worker died"),
}
# Where the class of an error says more than its stage.
_BY_TYPE: dict[str, Reason] = {
    "CompileRefused": Reason("toolchain", "the compiler refused the model"),
    "CompileTimeout": Reason("toolchain", "the compiler did not end in time"),
    "NetworkRefused": Reason("input", "the network cannot be built as the catalog asks"),
    "NothingCompiled": Reason(
        "toolchain", "the compiler said that it succeeded and left no new model"
    ),
}
# By a problem of a case that failed: the first that the case has.
_BY_PROBLEM: dict[ProblemCode, Reason] = {
    ProblemCode.OTHER_NETWORK: Reason("input", "the file that --onnx gave is another network"),
    ProblemCode.OTHER_INPUT: Reason("input", "what is fed is not the catalog's preprocessing"),
    ProblemCode.CLASS_ORDER: Reason(
        "input",
        "the network counts its classes in another order than the images",
        "give its `class_names` in their order: docs/own-models.md",
    ),
}
_OTHER_OUTPUTS = Reason(
    "toolchain",
    "for the same inputs the ONNX model has other outputs",
    "run its accuracy as well: the diagnosis of that finds the stage that departs",
)
# The same, of times that cannot be right.
_BY_TIMES: dict[ProblemCode, Reason] = {
    ProblemCode.WAITS: Reason(
        "toolchain",
        "it waits, or computes in another process, beside eager PyTorch that does not",
        "see in the log of its session what it does there, and run this case again",
    ),
    ProblemCode.STRANGE_TIMES: Reason(
        "toolchain",
        "the times that the runtime reports do not fit the clock",
        "time it with the runtime's own tool (the record has its command) or with another "
        "--driver, and hold both figures against each other",
    ),
}
_FULL_DISK = Reason("machine", "a disk is full")
_KILLED = Reason("machine", "a process was killed, or the host refused memory, a file or a disk")
_HARNESS = Reason("harness", "a fault of the harness itself")
_NOT_BROKEN = Reason(
    "input",
    "declared in known_failures, but it did not fail there",
    "take its entry out of known_failures in the catalog",
)
_OFF = Reason("model", "it ran, and its figures do not hold")
_FEW_IMAGES = Reason(
    "input",
    "too few images to decide",
    "use more images: a larger --sample, or none of --sample and --limit for all",
)
_SHORT_BUDGET = Reason(
    "input", "the budget of time was too short to decide", "give it longer: --budget=SECONDS"
)
_NONE_RIGHT = Reason(
    "input",
    "the reference is right on no image: wrong weights, labels or preprocessing",
    "look at the label file, and whether the weights were trained on these classes",
)
_UNSTEADY = "the device was not its own, or too unsteady to measure"
_SEE_DIAGNOSIS = "the diagnosis in the report has what was compared (docs/diagnosis.md)"
_ONE_DEVICE = (
    "see what the driver's own tool says of that device, and leave it out until it is mended: "
    "--device=N takes another"
)
_OVERFLOW = (
    "on a target that computes in float16 it is likely an overflow: compile it more precisely on "
    "trial, docs/ascend-errors.md says how"
)
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
# What else stands on the stage that a diagnosis found, the first of the chain first.
_STANDS_ON = {
    Stage.EXPORT: Stage.EXPORT,
    Stage.SIMPLIFY: Stage.SIMPLIFY,
    Stage.COMPILE: Stage.COMPILE,
    Stage.INFER: Stage.COMPILE,
    Stage.DEVICE: Stage.DEVICE,
}
_OF_LOGITS = {ProblemCode.NOT_FINITE, ProblemCode.LOGITS_DIFFER, ProblemCode.PREDICTIONS_DIFFER}

# An artifact (key and digest) by its stage, or a device (host and id).
Part = tuple[Stage, tuple[str, str]]
Blamed = Mapping[Part, Reason]


# Why a case or a check is red --------------------------------------------------------------


def causes(records: RunRecords) -> tuple[Finding, ...]:
    """Return every red case and check with its cause, in the order of the records."""
    known = _blamed(records.cases)
    findings = [one for case in records.cases if (one := cause_of(case, known)) is not None]
    findings += [
        Finding(
            f"{check.name} of {check.subject}", check.outcome, *_of_check(check, records, known)
        )
        for check in records.checks
        if check.outcome in ("failed", "inconclusive")
    ]
    return tuple(findings)


def cause_of(case: CaseLine, known: Blamed | None = None) -> Finding | None:
    """Return the cause of a case that is not green; None of one that is.

    `known`: artifacts and devices that are known to be at fault, whichever case showed it.
    """
    if case.outcome not in _RED:
        return None
    if case.error is not None:
        reason = _of_error(case, case.error)
    elif case.outcome == "inconclusive":
        reason = _of_undecided(case)
    else:
        reason = _of_failed(case, known or {})
    return Finding(f"{case.check} of {case.case}", case.outcome, *reason, case=case)


def cause_of_error(error: ErrorInfo) -> Reason:
    """Return the cause of an error that says all there is."""
    if error.full_disk:
        return _FULL_DISK
    if error.killed:
        return _KILLED
    return _BY_TYPE.get(error.type) or _BY_STAGE.get(error.stage, _HARNESS)


def _of_error(case: CaseLine, error: ErrorInfo) -> Reason:
    reason = cause_of_error(error)
    aside = any(one.aside for one in case.attempts) and reason.cause == "toolchain"
    why = reason.why + "; a device was set aside before" * aside
    return Reason(reason.cause, why, error.remedy)


def _of_undecided(case: CaseLine) -> Reason:
    if case.check == "accuracy":
        eager = None if case.accuracy is None else case.accuracy.reference_scores
        return _FEW_IMAGES if eager is None or eager.correct[0] else _NONE_RIGHT
    timed = case.throughput
    looks = () if timed is None else timed.conditions
    if timed is not None and timed.too_short and not any(look.trouble for look in looks):
        return _SHORT_BUDGET
    if any(look.health.upper() not in ("", "OK") for look in looks):
        remedy = (
            "the driver's own tool says what the device has; measure on another with --device=N"
        )
    elif any(look.busy == "yes" for look in looks):
        remedy = (
            "end the process that is named, or measure on another device with --device=N; then "
            "run this case again"
        )
    elif any(look.throttled == "yes" for look in looks):
        remedy = "the device was held back: see to its cooling and power, then run this case again"
    else:
        remedy = (
            "run this case again with nothing else on the host, or give it longer: --budget=SECONDS"
        )
    return Reason("machine", _UNSTEADY, remedy)


def _of_failed(case: CaseLine, known: Blamed) -> Reason:
    """Go by what is known of the case or of what it stands on, else by the problems."""
    if case.verdict is not None and case.verdict.kind != "FAIL":
        return _NOT_BROKEN
    seen = _codes(case)
    reason = _culprit(case, known)
    if reason is None:
        reason = _first(_BY_PROBLEM, seen)
    elif reason.cause == "machine":
        return reason
    if reason is None and wrong_outputs(case):
        reason = _OTHER_OUTPUTS
    reason = reason or _first(_BY_TIMES, seen) or _OFF
    remedy = _SEE_DIAGNOSIS if case.diagnosis is not None else reason.remedy
    if ProblemCode.NOT_FINITE in seen:
        remedy = "; ".join(filter(None, (_OVERFLOW, remedy)))
    return reason._replace(remedy=remedy)


def _of_check(check: RunCheckLine, records: RunRecords, known: Blamed) -> Reason:
    """Batch sizes cannot agree where the artifact of one of them is known to be wrong."""
    if check.name is CheckName.BATCH_SIZES and check.outcome == "failed":
        for case in records.cases:
            same = (case.model, case.target) == (check.model, check.target)
            if same and case.outcome == "failed" and (reason := _culprit(case, known)):
                return reason
    if check.name is CheckName.PLANTED_FAULT:
        return Reason("input", check.sentence, "choose cases and a driver that meet the fault")
    if check.name is CheckName.SAME_ARTIFACT and check.outcome == "inconclusive":
        return Reason("toolchain", check.sentence, "run both checks of the case again")
    return Reason("model", check.sentence)


# What a case shows -------------------------------------------------------------------------


def _codes(case: CaseLine) -> set[ProblemCode]:
    """Return the codes of all problems, of the measurement and of the verdict."""
    problems = case.measurement.problems if case.measurement is not None else ()
    judged = case.verdict.problems if case.verdict is not None else ()
    return {problem.code for problem in (*problems, *judged)}


def _first(table: Mapping[ProblemCode, Reason], seen: set[ProblemCode]) -> Reason | None:
    return next((reason for code, reason in table.items() if code in seen), None)


def strange_times(case: CaseLine) -> bool:
    """Return whether a throughput failed because its times cannot be right, whatever they are."""
    return bool(_codes(case) & _BY_TIMES.keys())


def wrong_outputs(case: CaseLine) -> bool:
    """Return whether a throughput failed because the outputs are wrong, whatever the speed."""
    return case.throughput is not None and bool(_codes(case) - _BY_TIMES.keys())


# Which file or device is at fault ----------------------------------------------------------


def _blamed(cases: Sequence[CaseLine]) -> Blamed:
    """Return the artifacts and devices that are known to be at fault, each by the first case that
    shows it: a diagnosis before what the outputs alone say, an accuracy's before a throughput's.
    """
    known: dict[Part, Reason] = {}
    failed = [case for case in cases if case.outcome == "failed"]
    for case in sorted(failed, key=lambda case: (_diagnosed(case) is None, case.check)):
        reason, stage = _shown(case, cases)
        for part in _parts(case):
            if reason is not None and part[0] is stage:
                known.setdefault(part, reason)
    return known


def _culprit(case: CaseLine, known: Blamed) -> Reason | None:
    """Return who is known to be at fault for a failed case: what it stands on, where its outputs
    are wrong; else what it shows itself.
    """
    own, stage = _shown(case, ())
    if (own is None or stage) and (case.check == "accuracy" or wrong_outputs(case)):
        own = next((known[part] for part in _parts(case) if part in known), own)
    return own


def _shown(case: CaseLine, cases: Iterable[CaseLine]) -> tuple[Reason | None, Stage | None]:
    """Return what a failed case shows, alone or beside others, and at which stage lies what other
    cases share of it; None where it is this case's alone.
    """
    codes, stage = _codes(case), _diagnosed(case)
    if stage is not None:
        assert case.diagnosis is not None
        given = case.checkpoint is not None and case.checkpoint.source == "onnx"
        cause = "input" if given and stage is Stage.EXPORT else _BY_STAGE.get(stage, _HARNESS).cause
        remedy = _ONE_DEVICE if stage is Stage.DEVICE else _SEE_DIAGNOSIS
        return Reason(cause, clause(case.diagnosis.summary), remedy), _STANDS_ON.get(stage)
    if ProblemCode.OTHER_NETWORK in codes:
        return _BY_PROBLEM[ProblemCode.OTHER_NETWORK], Stage.EXPORT
    if (wrong_outputs(case) or codes & _OF_LOGITS) and ProblemCode.OTHER_INPUT not in codes:
        ours = dict(_parts(case))
        for theirs in (dict(_parts(one)) for one in cases if one.outcome == "passed"):
            same = Stage.COMPILE in ours and ours[Stage.COMPILE] == theirs.get(Stage.COMPILE)
            here, there = ours.get(Stage.DEVICE), theirs.get(Stage.DEVICE)
            if same and here and there and here != there:
                why = one_device(_named(here, there), _named(there, here))
                return Reason("machine", why, _ONE_DEVICE), Stage.DEVICE
    return None, None


def _diagnosed(case: CaseLine) -> Stage | None:
    return None if case.diagnosis is None else case.diagnosis.stage


def _parts(case: CaseLine) -> list[Part]:
    """Return the artifacts that a case stands on and its device, the first of the chain first."""
    parts = {ref.stage: (ref.key, ref.digest) for ref in case.artifacts}
    if case.device is not None:
        parts[Stage.DEVICE] = (case.machine.hostname, case.device.id)
    return [(stage, parts[stage]) for stage in dict.fromkeys(_STANDS_ON.values()) if stage in parts]


def _named(device: tuple[str, str], other: tuple[str, str]) -> str:
    """Return a device's id, with its host where the other one is another host's."""
    host, name = device
    return name if host == other[0] else f"{name} of {host}"


# What cases have in common -----------------------------------------------------------------


def says_nothing_of_the_model(error: ErrorInfo) -> bool:
    """Return whether the case ended before its model could fail: known failures stay open."""
    return error.stage in _BEFORE_THE_MODEL or error.full_disk or error.killed


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


# How a run ends ----------------------------------------------------------------------------


def excused(cases: Iterable[CaseLine]) -> tuple[CaseLine, ...]:
    """Return the cases that are undecided and fail no run for it (`undecided_by_machine`); none
    where all are: a run that decided nothing did not pass.
    """
    ended = tuple(cases)
    found = tuple(
        case
        for case in ended
        if case.outcome == "inconclusive" and undecided_by_machine(case.check, case.provenance)
    )
    return found if len(found) < len(ended) else ()


def undecided_by_machine(check: Check, provenance: Provenance) -> bool:
    """Return whether an INCONCLUSIVE verdict is the machine's doing and at no one's cost.

    A rehearsal's throughput says whether the timing path works. Where the machine is too busy to
    tell, that is said. A real or simulated run asked for a figure, and has none.
    """
    return check == "throughput" and provenance == "rehearsal"


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
    ended = tuple(cases)
    spared = excused(ended)
    findings = [one for case in ended if (one := cause_of(case)) is not None]
    outcomes = {one.outcome for one in findings if one.case not in spared}
    outcomes |= {check.outcome for check in checks}
    kinds = {one.cause for one in findings if one.outcome != "inconclusive"}
    if "failed" in outcomes:  # whatever a diagnosis found, it is a failed acceptance
        kinds.add("model")
    if not (complete or stopped):
        kinds.add("machine")
    if kinds:
        return exit_of_causes(kinds)
    if "inconclusive" in outcomes and not allow_inconclusive:
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
