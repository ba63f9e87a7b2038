"""The run directory and its records: one JSON line for each case, the source of every report.

`results.jsonl` holds, in the order of writing, one `run` line, one `plan` line, one `case` line
for each case as it ends (on the side that ran it), `check` lines of the run as a whole, and one
`end` line. Lines are appended under a
lock with a single write, so that several processes can share the file and a kill loses at most
the case that was running. Nothing here imports pytest, torch or a runtime.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticSerializationError

from harness.base import locks
from harness.base.errors import RecordError

SCHEMA = 1
RESULTS = "results.jsonl"
LOCK_TIMEOUT_S = 30.0

Provenance = Literal["real", "rehearsal", "simulated"]
Outcome = Literal[
    "passed",
    "failed",
    "inconclusive",
    "recorded",
    "known_failure",
    "error",
    "crashed",
    "not_run",
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Check = Literal["accuracy", "throughput"]


class _Line(BaseModel):
    # Unknown keys are kept out rather than refused: an older harness reads a newer run.
    model_config = ConfigDict(frozen=True, extra="ignore")
    schema_version: int = SCHEMA


class Machine(BaseModel):
    """The host that ran a case."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    hostname: str = ""
    system: str = ""
    architecture: str = ""
    processor: str = ""
    cores: int = 0
    memory_gib: float = 0.0


class RunLine(_Line):
    """The first line: what was asked for, where, with what."""

    kind: Literal["run"] = "run"
    run: str
    provenance: Provenance
    started: str
    command: list[str] = Field(default_factory=list)
    directory: str = ""
    git: str = ""
    catalog_digest: str = ""
    machine: Machine = Field(default_factory=Machine)
    versions: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    # What the guides' tables need of other targets; empty in a run that is not real.
    guide_figures: dict[str, Any] = Field(default_factory=dict)


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
    cases: list[PlannedCase] = Field(default_factory=list)


class StageTime(BaseModel):
    """One stage of a case. `cached` means that the store had the artifact."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    stage: str
    seconds: float
    cached: bool = False


class ArtifactRef(BaseModel):
    """An artifact that a case stood on."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: str  # checkpoint, onnx, simplified, compiled, eager, crops
    key: str
    digest: str  # sha256 of the file
    bytes: int = 0
    cached: bool = False
    log: str = ""  # tail of the build's log
    log_file: str = ""  # relative to the run directory, when there is one


class ErrorInfo(BaseModel):
    """A `HarnessError`, as its `to_json` gives it, or an unexpected exception."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    type: str
    stage: str
    message: str
    remedy: str = ""
    log: str = ""


class VerdictInfo(BaseModel):
    """A verdict as a record keeps it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: Literal["PASS", "FAIL", "INCONCLUSIVE", "RECORDED"]
    sentence: str
    rule: str = ""  # the rule that was applied, in words, with its source
    figures: dict[str, Any] = Field(default_factory=dict)


class ReferenceInfo(BaseModel):
    """What a measurement was held against.

    kind: `published`, `eager` (same images), `baseline`, `eager-speed`; `none` when nothing
    comparable exists. `value` is in percent for accuracy, in frames a second for throughput.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: str
    value: float | None = None
    unit: str = ""
    source: str = ""
    note: str = ""
    provenance: Provenance = "real"


class CaseLine(_Line):
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
    unit: str = ""  # "%" or "fps"
    measured: float | None = None  # top-1 in percent, or frames a second
    reference: ReferenceInfo | None = None
    difference_percent: float | None = None  # 100 * (measured - reference) / reference
    verdict: VerdictInfo | None = None
    error: ErrorInfo | None = None
    measurement: dict[str, Any] = Field(default_factory=dict)
    checkpoint: dict[str, Any] = Field(default_factory=dict)
    images: dict[str, Any] = Field(default_factory=dict)
    preprocessing: str = ""
    artifacts: list[ArtifactRef] = Field(default_factory=list)
    stages: list[StageTime] = Field(default_factory=list)
    device: dict[str, Any] = Field(default_factory=dict)
    machine: Machine = Field(default_factory=Machine)
    versions: dict[str, str] = Field(default_factory=dict)
    # Where a wrong result went wrong: agreement of the stages, suspects; empty when nobody asked.
    diagnosis: dict[str, Any] = Field(default_factory=dict)
    worker: str = ""
    started: str = ""
    seconds: float = 0.0
    repeat: list[str] = Field(default_factory=list)  # commands that do the case again


class RunCheckLine(_Line):
    """What no single case can know, judged over the run's cases: batch sizes that agree, the
    ratio between two chips.
    """

    kind: Literal["check"] = "check"
    run: str
    name: str  # "batch sizes", "ratio"
    subject: str  # "squeezenet1_1 on ascend310p3"
    model: str
    target: str
    provenance: Provenance
    outcome: Literal["passed", "failed", "inconclusive", "recorded"]
    sentence: str
    unit: str = ""
    measured: float | None = None
    reference: ReferenceInfo | None = None
    verdict: VerdictInfo | None = None


class EndLine(_Line):
    """The last line: the sum that must come out."""

    kind: Literal["end"] = "end"
    run: str
    finished: str
    planned: int
    counts: dict[str, int] = Field(default_factory=dict)
    complete: bool = False
    # Where somebody asked for an end before the last case: "after the first failure (-x)".
    stopped: str = ""
    exit_status: int = 0
    seconds: float = 0.0


Line = RunLine | PlanLine | CaseLine | RunCheckLine | EndLine
_KINDS: dict[str, type[Line]] = {
    "run": RunLine,
    "plan": PlanLine,
    "case": CaseLine,
    "check": RunCheckLine,
    "end": EndLine,
}


def now() -> str:
    """This moment in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_run_id() -> str:
    """`20261120-073000-1a2b`: sorts by time, unique on a host."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def append(directory: Path, line: Line) -> None:
    """Append one line to the run's records and flush it to disk.

    Raises:
        RecordError: the file cannot be written.
    """
    payload = _encoded(line)
    path = directory / RESULTS
    try:
        directory.stat()  # the lock must not make a run that is gone
        # Bounded: a process that was stopped while it wrote must not stop the others.
        with locks.locked(directory / ".results.lock", timeout_s=LOCK_TIMEOUT_S, what="a record"):
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # A process killed in the middle of a write leaves half a line: the next line
                # must not be glued to it.
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    payload = b"\n" + payload
                view = memoryview(payload)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
    except locks.LockTimeout as error:
        raise RecordError(
            f"cannot append to {path}: {error}", remedy="end the process that holds the lock"
        ) from error
    except OSError as error:
        raise RecordError(
            f"cannot append to {directory / RESULTS}: {error}",
            remedy="free disk space or choose another place with --runs=DIR",
        ) from error


def _encoded(line: Line) -> bytes:
    try:
        text = line.model_dump_json()
    except PydanticSerializationError:
        # A name that is not UTF-8: Python holds its bytes as lone surrogates.
        text = json.dumps(line.model_dump(mode="json"), ensure_ascii=False)
    return f"{text}\n".encode(errors="replace")


@dataclass(frozen=True)
class RunRecords:
    """Everything one run wrote, in order; damaged lines are counted, never hidden."""

    directory: Path
    run: RunLine | None
    plan: tuple[PlannedCase, ...]
    cases: tuple[CaseLine, ...]
    end: EndLine | None
    damaged: tuple[str, ...] = field(default=())
    checks: tuple[RunCheckLine, ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """Cases for each outcome; planned cases without a line count as `not_run`."""
        return count(self.plan, self.cases)

    def end_agrees(self) -> bool:
        """Whether the end line counts what the plan and the case lines have."""
        if self.end is None:
            return False
        stated, counts = self.end.counts, self.counts()
        same = not stated or all(stated.get(name, 0) == counts[name] for name in OUTCOMES)
        return same and self.end.planned == len(self.plan)


def count(plan: Sequence[PlannedCase], cases: Iterable[CaseLine]) -> dict[str, int]:
    """How many cases ended how. The sum equals the number of planned cases when all is well."""
    counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    seen: set[str] = set()
    for case in cases:
        counts[case.outcome] += 1
        seen.add(case.nodeid)
    counts["not_run"] += sum(1 for planned in plan if planned.nodeid not in seen)
    return counts


def regular_text(path: Path, *, errors: str = "strict") -> str:
    """The text of a regular file in UTF-8.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which might never end.
        UnicodeDecodeError: it is not UTF-8, where `errors` is "strict".
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_text(encoding="utf-8", errors=errors)


def read(directory: Path) -> RunRecords:
    """Read a run's records: of its directory, or of the `results.jsonl` in it.

    A case that was written twice (a crash noticed by both sides) keeps its first line; a line
    that cannot be read is reported in `damaged`.

    Raises:
        RecordError: the run has no records at all, or no regular file of them.
    """
    # No other file is taken for records: a report would be written beside it.
    path = directory if directory.name == RESULTS else directory / RESULTS
    try:
        text = regular_text(path, errors="replace")
    except OSError as error:
        raise RecordError(
            f"no records of a run at {path}: {error.strerror or error}",
            remedy="name a run directory, e.g. runs/latest",
        ) from error
    run: RunLine | None = None
    end: EndLine | None = None
    plan: dict[str, PlannedCase] = {}
    cases: dict[str, CaseLine] = {}
    checks: dict[tuple[str, str], RunCheckLine] = {}
    damaged: list[str] = []
    # Not `splitlines`: for it a line also ends at U+2028 or U+0085, which JSON leaves as they are.
    for number, raw in enumerate(text.split("\n"), 1):
        if not raw.strip():
            continue
        try:
            data = json.loads(raw)
            line = _KINDS[data["kind"]].model_validate(data)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            damaged.append(f"line {number}: {str(error).splitlines()[0][:160]}")
            continue
        if isinstance(line, RunLine):
            run = run or line
        elif isinstance(line, PlanLine):
            plan.update((planned.nodeid, planned) for planned in line.cases)
        elif isinstance(line, CaseLine):
            cases.setdefault(line.nodeid, line)
        elif isinstance(line, RunCheckLine):
            checks[line.name, line.subject] = line
        else:
            end = line
    return RunRecords(
        path.parent,
        run,
        tuple(plan.values()),
        tuple(cases.values()),
        end,
        tuple(damaged),
        tuple(checks.values()),
    )
