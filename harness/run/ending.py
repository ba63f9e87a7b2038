"""The end of a run: what is judged over its cases, the sum, the exit code, the report.

A run and a merge of runs end through the same functions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from harness.base import files
from harness.base.errors import HarnessError, RecordError, of_machine, some
from harness.base.stages import Stage
from harness.catalog.schema import Catalog
from harness.judge import causes
from harness.judge.causes import Exit
from harness.judge.run_checks import run_checks
from harness.records import reader, writer
from harness.records.lines import (
    CaseLine,
    CheckName,
    EndLine,
    ResumeLine,
    RunCheckLine,
    RunLine,
)
from harness.records.reader import RunRecords
from harness.settings import Settings
from harness.targets import registry

_REMARKED: Mapping[CheckName, Literal["inconclusive", "recorded"]] = {
    CheckName.PLANTED_FAULT: "inconclusive",
    CheckName.RESUMED: "recorded",
}


def checks_over(
    records: RunRecords, catalog: Catalog, settings: Settings
) -> tuple[RunCheckLine, ...]:
    """Judge what no single case can know, and add what the target remarks on the run.

    Where that itself fails, return a failed line: it must not cost the end line.
    Raises `RecordError`: somebody removed the records while the run went on.
    """
    run = records.run
    if run is None:
        raise RecordError(
            f"{records.directory}: the run's first records are gone: removed while it went on?",
            remedy="run again, and leave its directory alone",
        )
    try:
        remarks = registry.provider_of(settings).remarks(settings, records.directory)
        return (
            *run_checks(records, catalog),
            *(_remark(run, CheckName.PLANTED_FAULT, "the simulated host", one) for one in remarks),
            *(
                _remark(run, CheckName.RESUMED, one.started, _resumed(run, one, records))
                for one in records.resumes
            ),
        )
    except Exception as error:
        if of_machine(error):
            raise RecordError(f"{records.directory} could not be judged: {_told(error)}") from error
        sentence = f"could not be judged: {_told(error)}"
        return (_remark(run, CheckName.RUN_CHECKS, "all cases", sentence),)


def _resumed(run: RunLine, resume: ResumeLine, records: RunRecords) -> str:
    """Say what ran again, and what is no longer what it was."""
    changed = [
        f"{what} {before or 'unknown'} is now {now or 'unknown'}"
        for what, before, now in (
            ("the catalog", run.catalog_digest[:12], resume.catalog_digest[:12]),
            ("the harness", run.git, resume.git),
        )
        if before != now
    ]
    after = [case for case in records.cases if case.started >= resume.started]
    before = [case for case in records.cases if case.started < resume.started]
    for name, then, now in _changes(before, after, _host_of):
        changed.append(f"{name} was {', '.join(sorted(then))}, is {', '.join(sorted(now))}")
    if others := [name for name, *_ in _changes(before, after, _made_of)]:
        changed.append(f"other artifacts: {some(others)}")
    said = f"{len(after)} of {len(records.plan)} cases ran after the run was resumed"
    return f"{said}; changed meanwhile: {'; '.join(changed)}" if changed else said


def _changes(
    before: Iterable[CaseLine],
    after: Iterable[CaseLine],
    facts: Callable[[CaseLine], Iterable[tuple[str, str]]],
) -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield each fact that cases on both sides have, and that differs, with what it was and is."""
    then: dict[str, set[str]] = {}
    now: dict[str, set[str]] = {}
    for cases, values in ((before, then), (after, now)):
        for name, value in (fact for case in cases for fact in facts(case)):
            values.setdefault(name, set()).add(value)
    for name in sorted(then.keys() & now.keys()):
        if then[name] != now[name]:
            yield name, then[name], now[name]


def _host_of(case: CaseLine) -> Iterator[tuple[str, str]]:
    """Yield what a figure of a case may hang on, besides the model."""
    yield "host", case.machine.hostname
    if case.device is not None:
        yield "device", case.device.name
        yield "driver", case.device.driver
        yield from case.device.tools.items()


def _made_of(case: CaseLine) -> Iterator[tuple[str, str]]:
    """Yield the digests of what a case stands on and others may, too."""
    if case.checkpoint is not None:
        yield f"checkpoint of {case.model}", case.checkpoint.sha256
    for one in case.artifacts:
        if one.stage is Stage.EXPORT:
            yield f"{one.stage.makes} of {case.model}", one.digest
        elif one.stage in (Stage.SIMPLIFY, Stage.COMPILE):
            yield f"{one.stage.makes} of {case.case}", one.digest


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"


def _remark(run: RunLine, name: CheckName, subject: str, sentence: str) -> RunCheckLine:
    """Return a check of the whole run; a fault that never struck leaves it undecided."""
    return RunCheckLine(
        run=run.run,
        name=name,
        subject=subject,
        model="",
        target=run.target,
        provenance=run.provenance,
        outcome=_REMARKED.get(name, "failed"),
        sentence=sentence,
    )


def end_records(
    directory: Path,
    checks: Iterable[RunCheckLine],
    *,
    allow_inconclusive: bool,
    stopped: str = "",
    seconds: float = 0.0,
    finished: str = "",
    decide: Callable[[Exit], int] = int,
) -> RunRecords:
    """Write the checks over the cases and the end line; return the whole records.

    Args:
        stopped: why the run was told to end before its last case; empty where it was not.
        decide: makes the exit status of what the records alone say; a caller may know more.

    Raises `RecordError`: the records cannot be written or read.
    """
    for line in checks:
        writer.append(directory, line)
    records = reader.read(directory)
    counts = records.counts()
    # Each planned case has its line, and no line is of another case.
    complete = counts["not_run"] == 0 and sum(counts.values()) == len(records.plan)
    # A shard of a selection may be empty.
    complete = complete and bool(records.plan or (records.run and records.run.selection))
    code = causes.exit_code(
        records.cases,
        records.checks,
        complete=complete,
        allow_inconclusive=allow_inconclusive,
        stopped=bool(stopped),
    )
    writer.append(
        directory,
        EndLine(
            run=records.run.run if records.run is not None else "",
            finished=finished or files.now(),
            planned=len(records.plan),
            counts=counts,
            complete=complete,
            stopped=stopped,
            exit_status=decide(code),
            seconds=round(seconds, 3),
        ),
    )
    return reader.read(directory)


def publish(records: RunRecords, language: str = "en") -> RunRecords:
    """Write the report and its exports; a run that cannot have them did not end well.

    Its end line is then written again: the last one counts. Never raises for what a report meets.
    """
    from harness.pages.words import spoken
    from harness.report import exports
    from harness.report.render import write_report

    try:
        with spoken(language):
            write_report(records)
            exports.write_all(records)
    except Exception as error:
        sys.stderr.write(f"\nno report: {_told(error)}\n")
        trouble = isinstance(error, HarnessError) or of_machine(error)
        return _ended_badly(records, Exit.MACHINE_TROUBLE if trouble else Exit.HARNESS_FAULT)
    try:
        exports.append_step_summary(records, os.environ)
    except HarnessError as error:
        sys.stderr.write(f"\n{error}\n")
    return records


def _ended_badly(records: RunRecords, status: Exit) -> RunRecords:
    if records.end is None or records.end.exit_status == Exit.ACCEPTANCE_FAILED:
        return records
    end = records.end.model_copy(update={"exit_status": int(status)})
    try:
        writer.append(records.directory, end)
    except HarnessError as error:
        sys.stderr.write(f"\n{error}\n")
    return replace(records, end=end)
