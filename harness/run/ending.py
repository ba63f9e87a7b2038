"""The end of a run: what is judged over its cases, the sum, the exit code, the report.

A run and a merge of runs end through the same functions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.base import files
from harness.base.errors import HarnessError
from harness.catalog.schema import Catalog
from harness.judge import causes
from harness.judge.causes import Exit
from harness.judge.run_checks import run_checks
from harness.records import reader, writer
from harness.records.lines import CheckName, EndLine, RunCheckLine, RunLine
from harness.records.reader import RunRecords


def checks_over(records: RunRecords, catalog: Catalog) -> tuple[RunCheckLine, ...]:
    """Judge what no single case can know; a failed line where that itself fails."""
    try:
        return run_checks(records, catalog)
    except Exception as error:
        assert records.run is not None
        why = (
            error.message if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        )
        return (
            run_line(records.run, CheckName.RUN_CHECKS, "all cases", f"could not be judged: {why}"),
        )


def run_line(run: RunLine, name: CheckName, subject: str, sentence: str) -> RunCheckLine:
    """Make the line of a remark on the whole run, and on no model.

    A planted fault that never struck is recorded; anything else failed.
    """
    return RunCheckLine(
        run=run.run,
        name=name,
        subject=subject,
        model="",
        target=str(run.settings.get("target") or ""),
        provenance=run.provenance,
        outcome="recorded" if name is CheckName.PLANTED_FAULT else "failed",
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

    Raises:
        RecordError: the records cannot be written or read.
    """
    for line in checks:
        writer.append(directory, line)
    records = reader.read(directory)
    counts = records.counts()
    # Each planned case has its line, and no line is of another case.
    complete = counts["not_run"] == 0 and sum(counts.values()) == len(records.plan)
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


def publish(records: RunRecords) -> RunRecords:
    """Write the report and its exports; a run that cannot have them did not end well.

    Its end line is then written again: the last one counts. Never raises for what a report meets.
    """
    from harness.report import exports, write_report

    directory = records.directory
    try:
        write_report(directory, images_at_hand=True)
        exports.write_all(directory)
    except Exception as error:
        ours = isinstance(error, HarnessError)
        sys.stderr.write(f"\n{error if ours else f'no report: {type(error).__name__}: {error}'}\n")
        return _ended_badly(records, Exit.MACHINE_TROUBLE if ours else Exit.HARNESS_FAULT)
    try:
        exports.append_step_summary(records, os.environ)
    except HarnessError as error:
        sys.stderr.write(f"\n{error}\n")
    return records


def _ended_badly(records: RunRecords, status: Exit) -> RunRecords:
    if records.end is None or records.end.exit_status == Exit.ACCEPTANCE_FAILED:
        return records
    try:
        end = records.end.model_copy(update={"exit_status": int(status)})
        writer.append(records.directory, end)
        return reader.read(records.directory)
    except HarnessError as error:
        sys.stderr.write(f"\n{error}\n")
        return records
