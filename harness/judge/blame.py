"""Who is at fault for wrong outputs: an artifact, or a device, whichever check showed it.

One file has one culprit: what a diagnosis found out about it, or another device, holds for every
case that stands on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from harness.base.stages import Stage
from harness.judge.wording import clause, one_device
from harness.records.lines import CaseLine
from harness.records.measurements import ProblemCode

Cause = Literal["model", "toolchain", "machine", "input", "harness"]


class Reason(NamedTuple):
    """A cause, why it is thought so, and what to do; no `remedy` where nobody knows."""

    cause: Cause
    why: str
    remedy: str = ""


SEE_DIAGNOSIS = "the diagnosis in the report has what was compared (docs/diagnosis.md)"
_ONE_DEVICE = (
    "see what the driver's own tool says of that device, and leave it out until it is mended: "
    "--device=N takes another"
)
_OTHER_NETWORK = Reason("input", "the file that --onnx gave is another network")
# By the stage that a diagnosis found.
_CAUSES: dict[Stage, Cause] = {
    Stage.DATA: "input",
    Stage.EXPORT: "toolchain",
    Stage.SIMPLIFY: "toolchain",
    Stage.COMPILE: "toolchain",
    Stage.INFER: "toolchain",
    Stage.DEVICE: "machine",
}
# What of it other cases stand on, too, the first of the chain first.
_SHARED = {
    Stage.EXPORT: Stage.EXPORT,
    Stage.SIMPLIFY: Stage.SIMPLIFY,
    Stage.COMPILE: Stage.COMPILE,
    Stage.INFER: Stage.COMPILE,
    Stage.DEVICE: Stage.DEVICE,
}
_OF_TIMES = {ProblemCode.STRANGE_TIMES, ProblemCode.WAITS}
_OF_LOGITS = {ProblemCode.NOT_FINITE, ProblemCode.LOGITS_DIFFER, ProblemCode.PREDICTIONS_DIFFER}

# An artifact by stage, key and digest; or a device: its host and its id.
Suspect = tuple[Stage, str, str]
Blamed = Mapping[Suspect, Reason]


# What a case shows -------------------------------------------------------------------------


def codes(case: CaseLine) -> set[ProblemCode]:
    """Return the codes of all problems, of the measurement and of the verdict."""
    problems = case.measurement.problems if case.measurement is not None else ()
    judged = case.verdict.problems if case.verdict is not None else ()
    return {problem.code for problem in (*problems, *judged)}


def strange_times(case: CaseLine) -> bool:
    """Return whether a throughput failed because its times cannot be right, whatever they are."""
    return bool(codes(case) & _OF_TIMES)


def wrong_outputs(case: CaseLine) -> bool:
    """Return whether a throughput failed because the outputs are wrong, whatever the speed."""
    measured = case.throughput
    if measured is None:
        return False
    outside = measured.outputs is not None and not measured.outputs.within
    return outside or bool(codes(case) - _OF_TIMES)


# Who is at fault ---------------------------------------------------------------------------


def blamed(cases: Sequence[CaseLine]) -> Blamed:
    """Return the artifacts and devices that are known to be at fault, each by the first case that
    shows it: a diagnosis before what the outputs alone say, an accuracy's before a throughput's.
    """
    known: dict[Suspect, Reason] = {}
    failed = [case for case in cases if case.outcome == "failed"]
    for case in sorted(failed, key=lambda case: (_diagnosed(case) is None, case.check)):
        reason, stage = _found(case, cases)
        if reason is not None and stage is not None:
            for one in _suspects(case, stage):
                known.setdefault(one, reason)
    return known


def culprit(case: CaseLine, known: Blamed) -> Reason | None:
    """Return who is known to be at fault for a failed case: what it stands on, where its outputs
    are wrong; else what it shows itself.
    """
    own, stage = _found(case, ())
    if (own is None or stage) and (case.check == "accuracy" or wrong_outputs(case)):
        order = dict.fromkeys(_SHARED.values())
        suspects = (one for stage in order for one in _suspects(case, stage))
        own = next((known[one] for one in suspects if one in known), own)
    return own


def _found(case: CaseLine, cases: Iterable[CaseLine]) -> tuple[Reason | None, Stage | None]:
    """Return what a failed case shows, alone or beside others, and at which stage lies what other
    cases share of it; None where it is this case's alone.
    """
    if (stage := _diagnosed(case)) is not None:
        assert case.diagnosis is not None
        given = case.checkpoint is not None and case.checkpoint.source == "onnx"
        made = _CAUSES.get(stage, "harness")
        cause: Cause = "input" if given and stage is Stage.EXPORT else made
        remedy = _ONE_DEVICE if stage is Stage.DEVICE else SEE_DIAGNOSIS
        return Reason(cause, clause(case.diagnosis.summary), remedy), _SHARED.get(stage)
    if ProblemCode.OTHER_NETWORK in codes(case):
        return _OTHER_NETWORK, Stage.EXPORT
    wrong = wrong_outputs(case) or codes(case) & _OF_LOGITS
    if wrong and ProblemCode.OTHER_INPUT not in codes(case):
        here, file = _suspects(case, Stage.DEVICE), _suspects(case, Stage.COMPILE)[-1:]
        for other in cases:
            there, same = _suspects(other, Stage.DEVICE), _suspects(other, Stage.COMPILE)[-1:]
            right = other.outcome == "passed" and file == same != []
            if right and here and there and here != there:
                why = one_device(_named(here[0], there[0]), _named(there[0], here[0]))
                return Reason("machine", why, _ONE_DEVICE), Stage.DEVICE
    return None, None


def _diagnosed(case: CaseLine) -> Stage | None:
    return None if case.diagnosis is None else case.diagnosis.stage


def _named(device: Suspect, other: Suspect) -> str:
    """Return a device's id, with its host where the other one is another host's."""
    _, host, name = device
    return name if host == other[1] else f"{name} of {host}"


def _suspects(case: CaseLine, stage: Stage) -> list[Suspect]:
    """Return the artifacts of a stage that a case stands on, or its device."""
    if stage is Stage.DEVICE:
        device = case.device
        return [] if device is None else [(stage, case.machine.hostname, device.id)]
    return [(stage, ref.key, ref.digest) for ref in case.artifacts if ref.stage is stage]
