"""What a row of the table of planted faults is, and what came of running it."""

from __future__ import annotations

from collections.abc import Callable
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
    RecordError,
    SimplifyError,
    StoreError,
)
from harness.judge.causes import OTHER_INPUT
from harness.judge.verdicts import ProvenanceError
from harness.records.values import Verdict
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
# What parts other than the verdict's own rule say in a verdict's sentence, clause by clause.
_SAID_BY: tuple[tuple[str, Part], ...] = (
    ("logits differ by", "fidelity"),
    ("predictions differ from eager", "fidelity"),
    (OTHER_INPUT, "preprocessing conformance"),
    ("this decides nothing: the device was", "device"),
)


@dataclass(frozen=True)
class Found:
    """What came out, in what words, and which parts said so."""

    outcome: Outcome
    sentence: str
    by: frozenset[Part]


Row = Callable[[World, bool], Found]


@dataclass(frozen=True)
class Fault:
    """One planted fault: what must come of it, and from whom.

    run: plants it (True) or leaves it out (False), which is its sound twin.
    words: what the responsible part says of it.
    sound: what must come of the twin.
    missed: why it is not caught today; empty when it is.
    """

    name: str
    planted: str
    part: Part
    outcome: Outcome
    words: str
    run: Row
    sound: Outcome = "PASS"
    missed: str = ""

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
    if fault.words not in found.sentence:
        return f"{fault.words!r} is not in: {found.sentence}"
    return ""


def judged(verdict: Verdict) -> Found:
    """A verdict, with the parts that speak in its sentence."""
    by: set[Part] = set()
    for clause in verdict.sentence.split("; "):
        by.add(next((part for sign, part in _SAID_BY if sign in clause), "verdict"))
    return Found(verdict.kind, verdict.sentence, frozenset(by))


def said(outcome: Outcome, sentence: str, *by: Part) -> Found:
    """What parts say that give no verdict and raise nothing."""
    return Found(outcome, sentence, frozenset(by))
