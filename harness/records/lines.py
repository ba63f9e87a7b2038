"""The lines of a run's records, each a typed value: `run`, `plan`, `case`, `check`, `end`.

`results.jsonl` holds, in the order of writing, one `run` line, one `plan` line, one `case` line
for each case as it ends (on the side that ran it), `check` lines of the run as a whole, and one
`end` line. `writer` appends them and `reader` reads them; nobody else does either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.base.host import Machine
from harness.base.terms import OUTCOMES, Check, Outcome, Provenance
from harness.records.measurements import AccuracyMeasurement, ThroughputMeasurement
from harness.records.observed import (
    ArtifactRef,
    Attempt,
    CheckpointInfo,
    DeviceInfo,
    Diagnosis,
    ErrorInfo,
    HeldLease,
    ImagesInfo,
    StageTime,
)
from harness.records.verdicts import Reference, Verdict

SCHEMA = 2


@dataclass(frozen=True)
class PublishedSpeed:
    """One throughput figure. `chips`: how many one `unit` adds up."""

    target: str
    batch_size: int
    fps: float
    unit: str
    chips: int
    chip: str
    source: str
    judged: bool
    not_comparable: str = ""


@dataclass(frozen=True)
class GuideFigures:
    """What is published for one model; a run that is not real carries none."""

    title: str
    guide: str
    top1: float  # percent
    source: str
    note: str
    tolerance_percent: float
    side: Literal["both", "drop"]
    speeds: tuple[PublishedSpeed, ...] = ()


class _Line(BaseModel):
    # Unknown keys are kept out rather than refused: an older harness reads a newer run.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")
    schema_version: int = Field(default=SCHEMA, ge=SCHEMA)


class RunLine(_Line):
    """The first line: what was asked for, where, with what."""

    kind: Literal["run"] = "run"
    run: str
    provenance: Provenance
    started: str
    command: tuple[str, ...] = ()
    directory: str = ""
    git: str = ""
    catalog_digest: str = ""
    machine: Machine = Field(default_factory=Machine)
    versions: Mapping[str, str] = Field(default_factory=dict)
    target: str = ""  # of all its cases; empty where a merged run has several
    settings: Mapping[str, Any] = Field(default_factory=dict)  # by option; shown, and compared
    allow_inconclusive: bool = False
    # What the guides' tables need of other targets; empty in a run that is not real.
    guide_figures: Mapping[str, GuideFigures] = Field(default_factory=dict)
    selection: str = ""  # digest of the names of all cases of which this run has a shard
    merged: tuple[str, ...] = ()  # the runs that this one was merged from
    notes: tuple[str, ...] = ()  # what a reader of a merged run must know


class _Judged:
    """A line with a verdict, and what is asked of it most."""

    verdict: Verdict | None

    @property
    def unit(self) -> str:
        """Unit of `measured`: "%" of top-1, or "fps"."""
        return "" if self.verdict is None else self.verdict.unit

    @property
    def measured(self) -> float | None:
        return None if self.verdict is None else self.verdict.measured

    @property
    def reference(self) -> Reference | None:
        return None if self.verdict is None else self.verdict.reference

    @property
    def difference_percent(self) -> float | None:
        """100 * (measured - reference) / reference."""
        return None if self.verdict is None else self.verdict.difference_percent


class PlannedCase(BaseModel):
    """One case that was asked for."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    nodeid: str
    case: str
    model: str
    batch_size: int
    target: str
    check: Check


class PlanLine(_Line):
    """The cases that were asked for; each must end in exactly one `case` line."""

    kind: Literal["plan"] = "plan"
    run: str
    cases: tuple[PlannedCase, ...] = ()


class ResumeLine(_Line):
    """The run goes on: these cases run again, and what was said of them no longer counts."""

    kind: Literal["resume"] = "resume"
    run: str
    started: str
    command: tuple[str, ...] = ()
    git: str = ""
    catalog_digest: str = ""
    nodeids: tuple[str, ...] = ()


class CaseLine(_Judged, _Line):
    """One case, whole: what is needed to redo it or to dispute it."""

    kind: Literal["case"] = "case"
    run: str
    nodeid: str
    case: str  # squeezenet1_1-bs4-cpu
    model: str
    title: str = ""
    batch_size: int
    target: str
    check: Check
    provenance: Provenance
    outcome: Outcome
    sentence: str
    verdict: Verdict | None = None
    error: ErrorInfo | None = None
    measurement: AccuracyMeasurement | ThroughputMeasurement | None = Field(
        default=None, discriminator="kind"
    )
    checkpoint: CheckpointInfo | None = None
    images: ImagesInfo | None = None
    preprocessing: str = ""
    class_names: tuple[str, ...] = ()  # by index, the first thousand, of a model of one's own
    assumed: tuple[str, ...] = ()  # of it, what no file says
    artifacts: tuple[ArtifactRef, ...] = ()
    stages: tuple[StageTime, ...] = ()
    device: DeviceInfo | None = None
    attempts: tuple[Attempt, ...] = ()  # on devices that failed
    leases: tuple[HeldLease, ...] = ()
    machine: Machine = Field(default_factory=Machine)
    versions: Mapping[str, str] = Field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    worker: str = ""
    started: str = ""
    seconds: float = 0.0
    repeat: tuple[str, ...] = ()  # commands that do the case again

    @property
    def accuracy(self) -> AccuracyMeasurement | None:
        one = self.measurement
        return one if isinstance(one, AccuracyMeasurement) else None

    @property
    def throughput(self) -> ThroughputMeasurement | None:
        one = self.measurement
        return one if isinstance(one, ThroughputMeasurement) else None


class CheckName(StrEnum):
    """What is judged over the cases of a run."""

    BATCH_SIZES = "batch sizes"
    RATIO = "ratio"
    SAME_ARTIFACT = "same artifact"
    RUN_CHECKS = "run checks"  # the checks themselves could not be judged
    PLANTED_FAULT = "planted fault"  # one of a simulated host that never struck
    RESUMED = "resumed"  # what changed since the part of the run that came before


class RunCheckLine(_Judged, _Line):
    """What no single case can know, judged over the run's cases."""

    kind: Literal["check"] = "check"
    run: str
    name: CheckName
    subject: str  # "squeezenet1_1 on ascend310p3"
    model: str
    target: str
    provenance: Provenance
    outcome: Literal["passed", "failed", "inconclusive", "recorded"]
    sentence: str
    verdict: Verdict | None = None


class EndLine(_Line):
    """The last line: the sum that must come out."""

    kind: Literal["end"] = "end"
    run: str
    finished: str
    planned: int
    counts: Mapping[str, int] = Field(default_factory=dict)
    complete: bool = False
    # Where somebody asked for an end before the last case: "early (stopping after 1 failures)".
    stopped: str = ""
    exit_status: int = 0
    seconds: float = 0.0


Line = RunLine | PlanLine | ResumeLine | CaseLine | RunCheckLine | EndLine


def count(plan: Sequence[PlannedCase], cases: Iterable[CaseLine]) -> dict[str, int]:
    """Count the cases by outcome. The sum equals the number of planned cases when all is well."""
    counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    seen: set[str] = set()
    for case in cases:
        counts[case.outcome] += 1
        seen.add(case.nodeid)
    counts["not_run"] += sum(1 for planned in plan if planned.nodeid not in seen)
    return counts
