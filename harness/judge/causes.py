"""Whether the model, the toolchain, the machine or an input failed, and what a run ends with.

The stage of an error says most of it; what the devices said says the rest. A cause is a first
guess with its reason, for the one who opens a red night: the record has the facts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from harness.records.lines import CaseLine, RunCheckLine
from harness.records.reader import RunRecords
from harness.records.values import ErrorInfo

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


_BY_STAGE: dict[str, tuple[Cause, str]] = {
    "data": ("input", "images or labels cannot be used"),
    "checkpoint": ("input", "the weights are absent, damaged or others"),
    "configuration": ("input", "options do not fit"),
    "catalog": ("input", "baselines.yaml is not right"),
    "network": ("input", "no installed library supplies the network under that name"),
    "export": ("toolchain", "PyTorch could not write the ONNX file"),
    "simplify": ("toolchain", "onnxsim could not simplify it"),
    "compile": ("toolchain", "the model could not be compiled"),
    "load": ("toolchain", "the runtime does not take the compiled model"),
    "infer": ("toolchain", "the runtime failed while it ran the model"),
    "eager": ("toolchain", "eager PyTorch could not run the model"),
    "rehearsal": ("input", "stand-ins cannot tell good from bad"),
    "device": ("machine", "the device is absent, busy, lost or unhealthy"),
    "store": ("machine", "the artifact store cannot be read or written"),
    "records": ("machine", "records cannot be written"),
    "worker": ("machine", "the pytest worker died"),
    "harness": ("harness", "a fault of the harness itself"),
}
# Where the class of an error says more than its stage.
_BY_TYPE: dict[str, tuple[Cause, str]] = {
    "CompileRefused": ("toolchain", "the compiler refused the model"),
    "CompileTimeout": ("toolchain", "the compiler did not end in time"),
    "NetworkRefused": ("input", "the network cannot be built as the catalog asks"),
    "NothingCompiled": ("toolchain", "the compiler said that it succeeded and left no new model"),
}
# Whatever stage meets a full disk: as the C library says it (ENOSPC, EDQUOT).
_FULL = ("No space left on device", "Disk quota exceeded")
_FULL_DISK: tuple[Cause, str] = ("machine", "a disk is full")
_DIAGNOSED: dict[str, Cause] = {
    "export": "toolchain",
    "simplify": "toolchain",
    "compile": "toolchain",
    "run": "toolchain",
    "input": "input",
}
_RED = ("failed", "error", "crashed", "inconclusive")

# Relative L2 of outputs beyond which they are wrong, where a record does not say: the bound of
# targets that compute in float16.
_OUTPUTS_BOUND = 3e-2
# How the problem begins that a measurement has with a file that is not the model's.
OTHER_NETWORK = "--onnx gave another network"
# How the problem begins of a session whose own times do not fit the clock around it.
STRANGE_TIMES = "the session says that"
# How the problem begins of a session that is fed otherwise than the catalog says.
OTHER_INPUT = "what is fed is not the catalog's preprocessing"
# How the source of the weights begins where there are none, but a file that `--onnx` gave.
GIVEN_FILE = "the ONNX file"
# What the store says of a build that it does not try again within a run.
REMEMBERED = " (failed earlier in this run; not tried again)"
# Stages that fail whatever the model is.
_BEFORE_THE_MODEL = (
    *("data", "checkpoint", "configuration", "catalog", "rehearsal"),
    *("device", "store", "records", "worker", "harness"),
)
# Stages that are the same for every model: equal words are one failure.
_SHARED_STAGES = ("data", "configuration", "catalog", "device", "store", "records")
# What a compiled model is made from, each from the one before.
_CHAIN = ("checkpoint", "standin", "onnx", "simplified", "compiled")
# The check over the cases that a wrong artifact of one batch size fails as well.
_BATCH_SIZES = "batch sizes"

Artifact = tuple[str, str]  # key and digest of a compiled model
Diagnosed = Mapping[Artifact, tuple[Cause, str]]


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


def cause_of(case: CaseLine, diagnosed: Diagnosed | None = None) -> Finding | None:
    """The cause of a case that is not green; None of one that is.

    `diagnosed`: see `diagnoses`. Wrong outputs of an artifact that another case diagnosed have
    the cause that was found there.
    """
    if case.outcome not in _RED:
        return None
    subject = f"{case.check} of {case.case}"
    if case.outcome == "inconclusive":
        cause, why = _of_inconclusive(case)
    elif case.error is not None:
        cause, why = _of_error(case, case.error)
    else:
        cause, why = _of_failed(case, diagnosed or {})
    return Finding(subject, case.outcome, cause, why, case)


def _of_error(case: CaseLine, error: ErrorInfo) -> tuple[Cause, str]:
    if is_full_disk(error):
        return _FULL_DISK
    unknown: tuple[Cause, str] = ("harness", f"stage {error.stage}")
    cause, why = _BY_TYPE.get(error.type) or _BY_STAGE.get(error.stage, unknown)
    if case.device.get("failed_before") and cause == "toolchain":
        why += "; a device was set aside before"
    return cause, why


def says_nothing_of_the_model(error: ErrorInfo) -> bool:
    """Whether the case ended before its model could fail: what is declared of it stays open."""
    return error.stage in _BEFORE_THE_MODEL or is_full_disk(error)


def is_full_disk(error: ErrorInfo) -> bool:
    """Whether a full disk, or a quota, is what a stage failed of."""
    return any(words in text for words in _FULL for text in (error.message, error.log))


def _of_failed(case: CaseLine, diagnosed: Diagnosed) -> tuple[Cause, str]:
    """What the diagnosis found, where there is one: of the case, or of its artifact."""
    if case.verdict is not None and case.verdict.kind != "FAIL":
        # Nothing is wrong with such a case but that the catalog says it fails.
        return "input", "declared in known_failures, but it did not fail there"
    if found := _diagnosis(case):
        return found
    if any(str(problem).startswith(OTHER_INPUT) for problem in _problems(case)):
        return "input", OTHER_INPUT
    if case.check == "throughput" and wrong_outputs(case):
        if any(str(problem).startswith(OTHER_NETWORK) for problem in _problems(case)):
            return "input", "the file that --onnx gave is another network"
        for artifact in _compiled(case):
            if artifact in diagnosed:
                return diagnosed[artifact]
        return "toolchain", "for the same inputs the ONNX model has other outputs"
    if case.check == "throughput" and strange_times(case):
        return "toolchain", "the times that the runtime tells do not fit the clock"
    return "model", "it ran, and its figures do not hold"


def _diagnosis(case: CaseLine) -> tuple[Cause, str] | None:
    stage, summary = case.diagnosis.get("stage"), case.diagnosis.get("summary")
    if isinstance(summary, str) and isinstance(stage, str) and stage in _DIAGNOSED:
        return _DIAGNOSED[stage], summary
    return None


def remedy_of(case: CaseLine, cause: Cause) -> str:
    """What to do about a case that is not green: its error's own words, or what helps most often
    with such a verdict.
    """
    if case.error is not None:
        return case.error.remedy
    if case.outcome == "inconclusive":
        return _STEADY[_device_trouble(case)] if case.check == "throughput" else _MORE_IMAGES
    if case.outcome != "failed":
        return ""
    if case.verdict is not None and case.verdict.kind != "FAIL":
        return "take its entry out of known_failures in the catalog"
    if _not_finite(case) and case.target.startswith("ascend"):
        return _OVERFLOW
    if case.diagnosis:
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
# By what was seen of the device; no word where it was its own and the figure would not settle.
_STEADY: dict[str, str] = {
    "unhealthy": "npu-smi info says what the device has; measure on another with --device=N",
    "busy": "end the process that is named, or measure on another device with --device=N; then "
    "run this case again",
    "throttled": "the device was held back: see to its cooling and power, then run this case again",
    "": "run this case again with nothing else on the host, or give it longer: --budget=SECONDS",
}


def _device_trouble(case: CaseLine) -> str:
    looks = case.measurement.get("conditions")
    looks = [look for look in looks if isinstance(look, dict)] if isinstance(looks, list) else []
    if any(str(look.get("health") or "OK").upper() != "OK" for look in looks):
        return "unhealthy"
    for word in ("busy", "throttled"):
        if any(look.get(word) == "yes" for look in looks):
            return word
    return ""


def _not_finite(case: CaseLine) -> bool:
    """Whether outputs were no numbers, as accuracy and throughput both say it."""
    problems = case.measurement.get("problems")
    return isinstance(problems, list) and any("NaN or infinity" in str(one) for one in problems)


def _compiled(case: CaseLine) -> list[Artifact]:
    return [(ref.key, ref.digest) for ref in case.artifacts if ref.kind == "compiled"]


def diagnoses(cases: Iterable[CaseLine]) -> Diagnosed:
    """What was found out about compiled models whose accuracy failed: cause and summary."""
    return {
        artifact: found
        for case in cases
        if case.outcome == "failed" and (found := _diagnosis(case)) is not None
        for artifact in _compiled(case)
    }


def _problems(case: CaseLine) -> list[object]:
    found = case.measurement.get("problems")
    return found if isinstance(found, list) else [found] if found else []


def _tells_of_times(problem: object) -> bool:
    return str(problem).startswith(STRANGE_TIMES)


def strange_times(case: CaseLine) -> bool:
    """Whether a throughput failed because its times cannot be right, whatever they are."""
    return any(_tells_of_times(problem) for problem in _problems(case))


def wrong_outputs(case: CaseLine) -> bool:
    """Whether a throughput failed because the outputs are wrong, whatever the speed.

    A diagnosis of wrong outputs explains no slowness.
    """
    if not all(_tells_of_times(problem) for problem in _problems(case)):
        return True
    check = case.measurement.get("outputs_check")
    if not isinstance(check, dict) or "relative_l2" not in check:
        return False
    far, bound = check["relative_l2"], check.get("bound", _OUTPUTS_BOUND)
    if not isinstance(far, int | float) or not isinstance(bound, int | float):
        return True  # JSON has no infinity: it is null there
    return far > bound


def failure(case: CaseLine) -> Hashable | None:
    """What cases that failed for one reason have in common; None of a case that stands alone.

    The same stage said the same words, and what it worked on was made from the same artifact: a
    build that failed fails for both checks, an export for every batch size. Cases that were never
    reached are alike as well.
    """
    if case.outcome == "not_run":
        return "not_run", case.sentence
    error = case.error
    if case.outcome != "error" or error is None:
        return None
    same = (error.stage, error.message.removesuffix(REMEMBERED))
    if error.stage in _SHARED_STAGES or is_full_disk(error):
        return same
    keys = [ref.key for kind in _CHAIN for ref in case.artifacts if ref.kind == kind]
    return *same, case.model, case.target, keys[-1] if keys else ""


def _of_inconclusive(case: CaseLine) -> tuple[Cause, str]:
    if case.check == "throughput":
        return "machine", "the device was not its own, or too unsteady to measure"
    return "input", "too few images to decide"


def causes(records: RunRecords) -> tuple[Finding, ...]:
    """Every red case and check with its cause, in the order of the records."""
    known = diagnoses(records.cases)
    found = [finding for case in records.cases if (finding := cause_of(case, known)) is not None]
    found += [
        Finding(f"{check.name} of {check.subject}", check.outcome, *_of_check(check, records))
        for check in records.checks
        if check.outcome in ("failed", "inconclusive")
    ]
    return tuple(found)


def _of_check(check: RunCheckLine, records: RunRecords) -> tuple[Cause, str]:
    """Batch sizes cannot agree where the artifact of one of them is known to be wrong."""
    if check.name == _BATCH_SIZES and check.outcome == "failed":
        for case in records.cases:
            mine = (case.model, case.target) == (check.model, check.target)
            if mine and case.outcome == "failed" and (found := _diagnosis(case)):
                return found
    return "model", check.sentence


def exit_code(
    cases: Iterable[CaseLine],
    checks: Iterable[RunCheckLine],
    *,
    complete: bool,
    allow_inconclusive: bool,
    stopped: bool = False,
) -> Exit:
    """What a run ends with. A failed acceptance outweighs trouble, trouble what is undecided.

    `stopped`: the run was told to end before its last case, so that what did not run is nobody's
    fault; without a red case such a run is not green all the same.
    """
    # Whatever a diagnosis found, a failed case is a failed acceptance: none is asked for here.
    found = [finding for case in cases if (finding := cause_of(case)) is not None]
    outcomes = [check.outcome for check in checks]
    red = [finding for finding in found if finding.outcome != "inconclusive"]
    kinds = {finding.cause for finding in red}
    judged = any(finding.outcome == "failed" for finding in red)
    if judged or kinds & {"model", "toolchain"} or "failed" in outcomes:
        return Exit.ACCEPTANCE_FAILED
    if "harness" in kinds:
        return Exit.HARNESS_FAULT
    if "machine" in kinds or not (complete or stopped):
        return Exit.MACHINE_TROUBLE
    if "input" in kinds:
        return Exit.INPUT_ERROR
    undecided = len(found) > len(red) or "inconclusive" in outcomes
    if undecided and not allow_inconclusive:
        return Exit.INCONCLUSIVE_ONLY
    return Exit.PASSED if complete else Exit.MACHINE_TROUBLE
