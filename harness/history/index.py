"""One flat row for each case of every run, kept in `runs/history.jsonl`.

The records stay the source: rows are made of what the one reader reads. The file spares a command
the runs that it has read before. A line is valid while the `results.jsonl` of its directory has
the size and the time that the line names; whoever deletes the file loses only time.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from harness.base import files
from harness.base.errors import RecordError, on_disk
from harness.base.stages import Stage
from harness.base.terms import Check, Outcome, Provenance
from harness.pages.formats import plural
from harness.records import reader
from harness.records.conditions import Setup
from harness.records.lines import CaseLine, RunLine
from harness.records.observed import DeviceInfo
from harness.records.reader import RunRecords
from harness.records.writer import RESULTS

INDEX = "history.jsonl"
COUNTED: frozenset[Outcome] = frozenset({"passed", "failed", "recorded"})
"""Outcomes whose figure says how good the artifact was; an inconclusive one says how busy the
machine was."""

Trouble = Literal["unhealthy", "busy", "throttled", "wrong outputs"]


@dataclass(frozen=True, slots=True)
class Row:
    """One case of a run. `measured` is in `unit`; None where the case gave no figure."""

    directory: str  # of the run, below the folder of runs
    run: str  # that measured it; a merged run keeps it
    nodeid: str
    case: str
    model: str
    batch_size: int
    target: str
    chip: str
    check: Check
    provenance: Provenance
    outcome: Outcome
    started: str  # ISO 8601
    moment: float  # seconds since 1970
    unit: str  # "%" or "fps"
    measured: float | None
    half_width_percent: float | None  # of a throughput's 99 % interval
    images: int  # of an accuracy; 0 for a throughput, or when unknown
    trouble: tuple[Trouble, ...]  # what speaks against the figure
    error_stage: Stage | None
    made_with: Mapping[str, str]  # what is marked when it changes; without what is unknown

    @property
    def day(self) -> str:
        """`2026-11-30`."""
        return self.started[:10]

    @property
    def counted(self) -> bool:
        """Return whether a rule looks at the figure."""
        return self.measured is not None and self.outcome in COUNTED and not self.trouble

    @property
    def value(self) -> float:
        """Return the figure of a row that has one."""
        assert self.measured is not None
        return self.measured


@dataclass(frozen=True, slots=True)
class _Run:
    """A line of the file: the rows of one run directory."""

    version: Literal[3]
    directory: str
    size: int  # of results.jsonl, in bytes, when it was read
    mtime_ns: int
    damaged: int  # lines that could not be read
    cases: tuple[Row, ...]


_RUN = TypeAdapter(_Run)
_CHECK = ',"crc32":'


@dataclass(frozen=True)
class History:
    """Every case of a folder of runs, oldest first; one that a merged run repeats comes once."""

    rows: tuple[Row, ...]
    runs: int
    read: int  # run directories that were read now
    notes: tuple[str, ...]  # what could not be read


def read_history(folder: Path) -> History:
    """Read all runs below a folder, those that did not change from its `history.jsonl`. Raises
    `RecordError`: there is no such folder, or it cannot be read.
    """
    index = folder / INDEX
    known = dict(_known(index))
    current: dict[str, tuple[str, _Run | None]] = {}
    unread: dict[str, str] = {}
    read = 0
    for name, size, mtime_ns in _results(folder):
        raw, run = known.get(name, ("", None))
        if run is None or (run.size, run.mtime_ns) != (size, mtime_ns):
            try:
                raw, run = _line(reader.read(folder / name), size, mtime_ns), None
            except RecordError as error:
                unread[name] = error.message
                continue
            read += 1
        current[name] = raw, run
    if read or len(known) != len(current):
        with contextlib.suppress(RecordError):  # another user's folder: nothing is kept
            files.replace_file(index, "".join(f"{raw}\n" for raw, _ in current.values()))
    # Made of the line: rows that are kept while records are read double the reader's time.
    runs = [run or _RUN.validate_json(raw) for raw, run in current.values()]
    once: dict[tuple[str, str], Row] = {}
    for row in sorted((row for run in runs for row in run.cases), key=lambda row: row.moment):
        once.setdefault((row.run, row.nodeid), row)
    notes = [f"{name} could not be read: {why}" for name, why in unread.items()]
    damaged = sum(run.damaged for run in runs)
    if damaged:
        notes.append(f"{plural(damaged, 'damaged line')} in the records could not be read")
    return History(tuple(once.values()), len(runs), read, tuple(notes))


def _known(index: Path) -> Iterator[tuple[str, tuple[str, _Run]]]:
    """Return the lines of the file by directory; none that is damaged or of another version."""
    try:
        text = files.regular_text(index, errors="replace")
    except OSError:
        return
    for raw in text.split("\n"):
        body, _, check = raw.rpartition(_CHECK)
        if check != _check(body):
            continue
        with contextlib.suppress(ValidationError):
            run = _RUN.validate_json(raw)
            yield run.directory, (raw, run)


def _line(records: RunRecords, size: int, mtime_ns: int) -> str:
    rows = tuple(row_of(records, case, mtime_ns / 1e9) for case in records.cases)
    run = _Run(3, records.directory.name, size, mtime_ns, len(records.damaged), rows)
    body = _RUN.dump_json(run).decode()[:-1]
    return f"{body}{_CHECK}{_check(body)}"


def _check(body: str) -> str:
    """Return the end of a line: a figure with one wrong digit is valid JSON too."""
    return f"{zlib.crc32(body.encode(errors='replace'))}}}"


def _results(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each run directory's records, by name.

    Links are not followed: `latest` would count its run twice.
    """
    what = f"{folder} is no folder of run directories"
    with on_disk(RecordError, what, "name one with --runs DIR"):
        entries = list(os.scandir(folder))
    for name in sorted(one.name for one in entries if one.is_dir(follow_symlinks=False)):
        with contextlib.suppress(OSError):
            status = os.lstat(folder / name / RESULTS)
            if stat.S_ISREG(status.st_mode):
                yield name, status.st_size, status.st_mtime_ns


def run_line(records: RunRecords) -> RunLine:
    """Return the line that says what made a run. Raises `RecordError`: the records lost it."""
    if records.run is None:
        raise RecordError(
            f"{records.directory}: the records have no run line, so nothing says what made them",
            remedy="leave this run out",
        )
    return records.run


def row_of(records: RunRecords, case: CaseLine, otherwise: float) -> Row:
    """Return the row of a case. `otherwise`: its moment where no start is known."""
    run = records.run
    provenance = case.provenance
    if provenance == "real" and run is not None:
        provenance = run.provenance  # nothing is real in a run that is not
    measured, throughput = case.measured, case.throughput
    started = case.started or (run.started if run else "")
    moment = _moment(started)
    return Row(
        directory=records.directory.name,
        run=case.run,
        nodeid=case.nodeid,
        case=case.case,
        model=case.model,
        batch_size=case.batch_size,
        target=case.target,
        chip=chip_of(case),
        check=case.check,
        provenance=provenance,
        outcome=case.outcome,
        started=started,
        moment=otherwise if moment is None else moment,
        unit=case.unit,
        measured=measured if measured is not None and math.isfinite(measured) else None,
        half_width_percent=throughput.half_width_percent if throughput else None,
        images=case.accuracy.scores.images if case.accuracy else 0,
        trouble=_trouble(case),
        error_stage=case.error.stage if case.error else None,
        made_with=_made_with(case),
    )


def chip_of(case: CaseLine) -> str:
    """Return the chip that a case ran on: as its setup says, or else the device's name."""
    chip = case.throughput.setup.chip if case.throughput else ""
    return chip or (case.device.name if case.device else "")


def _trouble(case: CaseLine) -> tuple[Trouble, ...]:
    speed = case.throughput
    looks = speed.conditions if speed is not None else ()
    # The speed of a wrong model counts for nothing, in the history too.
    wrong = case.measurement is not None and bool(case.measurement.problems)
    met: dict[Trouble, bool] = {
        "unhealthy": any(look.health and look.health.upper() != "OK" for look in looks),
        "busy": any(look.busy == "yes" for look in looks),
        "throttled": any(look.throttled == "yes" for look in looks),
        "wrong outputs": wrong or bool(speed and speed.outputs and not speed.outputs.within),
    }
    return tuple(name for name, true in met.items() if true)


def _made_with(case: CaseLine) -> Mapping[str, str]:
    """Return what a figure was made with, by the name that a reader sees when it changes."""
    setup = case.throughput.setup if case.throughput else Setup(method="", tuning="")
    device = case.device or DeviceInfo("")
    values = {
        "toolchain": setup.toolchain,
        "tool": setup.driver,
        "method": setup.method,
        "tuning": setup.tuning,
        "input": setup.input if setup.input != "float32" else "",
        "dynamic batch": setup.dynamic_batch if setup.dynamic_batch != "none" else "",
        "card": setup.card,
        "device": f"{device.name} ({device.id})" if device.id else device.name,
        "host": case.machine.hostname,
        "checkpoint": case.checkpoint.sha256 if case.checkpoint else "",
        "harness": case.versions.get("harness", ""),
        # What the toolchain names already is not said twice.
        **{name: text for name, text in device.tools.items() if text not in setup.toolchain},
    }
    return {name: text for name, text in values.items() if text}


def _moment(text: str) -> float | None:
    """An ISO 8601 moment in seconds since 1970; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
