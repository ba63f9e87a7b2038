"""What a row of the table of planted faults is, and what came of running it."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Literal

from harness.base.errors import (
    CatalogError,
    CheckpointError,
    CompileError,
    DataError,
    DeviceError,
    ExportError,
    HarnessError,
    InferError,
    LoadError,
    ProvenanceError,
    RecordError,
    SimplifyError,
    StoreError,
)
from harness.records.measurements import ProblemCode, ThroughputMeasurement
from harness.records.verdicts import Verdict
from tests.selftest.planted.guides import ConformanceError
from tests.selftest.planted.world import World

Part = Literal[
    "catalog",
    "data",
    "loading",
    "preprocessing conformance",
    "build",
    "session",
    "fidelity",
    "verdict",
    "records",
    "device",
]
Outcome = Literal[
    "PASS", "FAIL", "INCONCLUSIVE", "RECORDED", "error", "accepted", "rebuilt", "from the store"
]

# Who speaks by raising: nobody else raises these.
_RAISED_BY: dict[type[HarnessError], Part] = {
    CatalogError: "catalog",
    DataError: "data",
    CheckpointError: "loading",
    ConformanceError: "preprocessing conformance",
    ExportError: "build",
    SimplifyError: "build",
    CompileError: "build",
    StoreError: "build",
    LoadError: "session",
    InferError: "session",
    DeviceError: "device",
    ProvenanceError: "verdict",
    RecordError: "records",
}
# Whose problem it is that a verdict names; the verdict's own rule's where it is nobody's here.
_PROBLEM_OF: dict[ProblemCode, Part] = {
    ProblemCode.LOGITS_DIFFER: "fidelity",
    ProblemCode.PREDICTIONS_DIFFER: "fidelity",
    ProblemCode.OTHER_INPUT: "preprocessing conformance",
}


@dataclass(frozen=True)
class Found:
    """What came out, in what words, which parts said so, and the problems of a verdict."""

    outcome: Outcome
    sentence: str
    by: frozenset[Part]
    problems: frozenset[ProblemCode] = frozenset()


Row = Callable[[World, bool], Found]


@dataclass(frozen=True)
class Fault:
    """One planted fault: what must come of it, and from whom.

    run: plants it (True) or leaves it out (False), which is its sound twin.
    sign: what the responsible part says of it: a problem of the verdict, or words of the error.
    sound: what must come of the twin.
    """

    name: str
    planted: str
    part: Part
    outcome: Outcome
    sign: str | ProblemCode
    run: Row
    sound: Outcome = "PASS"

    @property
    def id(self) -> str:
        """For a test's name."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())


def attempt(fault: Fault, world: World, *, planted: bool) -> Found:
    """Run a row; an error of the harness is an outcome, anything else a fault of the suite."""
    try:
        return fault.run(world, planted)
    except HarnessError as error:
        kind = next((k for k in type(error).__mro__ if k in _RAISED_BY), None)
        if kind is None:
            raise
        # What a tool said is in the log that goes with the error into the record.
        text = "\n".join(filter(None, (error.message, error.remedy, error.log)))
        return Found("error", text, frozenset({_RAISED_BY[kind]}))


def problem_of(fault: Fault, found: Found, *, planted: bool) -> str:
    """Why what came out is not what the row asks for; empty when it is."""
    wanted = fault.outcome if planted else fault.sound
    if found.outcome != wanted:
        return f"{found.outcome} where {wanted} must be: {found.sentence}"
    if not planted:
        return ""
    if fault.part not in found.by:
        who = ", ".join(sorted(found.by)) or "nobody"
        return f"{who} spoke, {fault.part} must: {found.sentence}"
    said_so: Container[str] = found.sentence
    if isinstance(fault.sign, ProblemCode):
        said_so = found.problems
    return "" if fault.sign in said_so else f"{fault.sign!r} is not in: {found.sentence}"


def judged(verdict: Verdict, measurement: ThroughputMeasurement | None = None) -> Found:
    """A verdict, with the parts that speak in it: by its problems, or by the device's trouble."""
    codes = frozenset(problem.code for problem in verdict.problems)
    by: set[Part] = {_PROBLEM_OF.get(code, "verdict") for code in codes}
    if not by and verdict.kind == "INCONCLUSIVE" and measurement is not None:
        by.update("device" for look in measurement.conditions if look.trouble)
    return Found(verdict.kind, verdict.sentence, frozenset(by or {"verdict"}), codes)


def said(outcome: Outcome, sentence: str, *by: Part) -> Found:
    """What parts say that give no verdict and raise nothing."""
    return Found(outcome, sentence, frozenset(by))
