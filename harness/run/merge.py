"""Several runs (shards, devices, hosts) joined into one run directory.

The same case may come from several runs; two lines that disagree about one case are refused, since
nobody could say which of them is the result. What spans the cases of a run (batch sizes, ratios) is
judged again over the joined cases: no part could know it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import shards
from harness.base.errors import RecordError, some
from harness.base.host import Machine
from harness.catalog.schema import Catalog
from harness.judge.causes import Exit
from harness.judge.run_checks import run_checks
from harness.records import reader, writer
from harness.records.lines import CaseLine, CheckName, PlanLine, RunCheckLine, RunLine
from harness.records.reader import RunRecords
from harness.run.ending import end_records
from harness.run.merged_files import copy_files

_SEVERITY = ("passed", "recorded", "inconclusive", "failed")
_MOST_NOTES = 20
# As the README has it: which exit code wins where several are true.
_WEIGHTIEST_FIRST = (
    Exit.ACCEPTANCE_FAILED,
    Exit.HARNESS_FAULT,
    Exit.INTERRUPTED,
    Exit.MACHINE_TROUBLE,
    Exit.INPUT_ERROR,
    Exit.NOTHING_SELECTED,
    Exit.INCONCLUSIVE_ONLY,
    Exit.PASSED,
)


@dataclass(frozen=True)
class _Part:
    """One run that is merged."""

    records: RunRecords
    run: RunLine

    @property
    def name(self) -> str:
        return str(self.records.directory)

    @property
    def catalogs(self) -> frozenset[str]:
        """Digests of the catalogs that judged its cases: several, where one was resumed."""
        return frozenset(
            {self.run.catalog_digest, *(one.catalog_digest for one in self.records.resumes)}
        )

    def faults(self) -> list[str]:
        """Return why the records are not whole."""
        why = []
        if self.records.end is None:
            why.append("was killed or still goes on: its records have no end")
        elif not self.records.end_agrees():
            why.append("has an end line that counts what its records lack")
        if self.records.damaged:
            why.append(f"has damaged lines in its records ({len(self.records.damaged):,})")
        return why


def merge(
    runs: Sequence[Path],
    output: Path,
    *,
    catalog: Catalog | None = None,
    allow_other_catalog: bool = False,
) -> RunRecords:
    """Join runs into `output`, which must not exist; it appears whole or not at all.

    Args:
        catalog: judges ratios again, where it is the one that judged all runs; without it the
            worst of the runs' own stay.
        allow_other_catalog: join runs that were judged by catalogs of different digests.

    Returns:
        The joined records; `run.notes` say what was left out, and which runs are not whole.

    Raises `RecordError`: a run has no records or no run line, two runs disagree about a case or a
    planned case, their provenances or catalogs differ, `output` exists or cannot be made.
    """
    parts = _read(runs, output)
    _refuse_mixed(parts, other_catalog=allow_other_catalog)
    cases = _joined_cases(parts)
    if catalog is not None and {one for part in parts for one in part.catalogs} != {catalog.digest}:
        catalog = None
    staged = output.with_name(f".{output.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        staged.mkdir(parents=True)
        notes = _notes(parts, with_ratios=catalog is not None)
        for part, case in cases:
            notes += copy_files(case, part.records.directory, staged)
        run = _run_line(parts, output, list(dict.fromkeys(notes)))
        _write(staged, run, parts, [case for _, case in cases], catalog)
        staged.rename(output)  # fails where another process filled the directory meanwhile
    except OSError as error:
        raise RecordError(
            f"cannot make {output}: {error}",
            remedy="free disk space or name another place with --output",
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return reader.read(output)


# The runs ---------------------------------------------------------------------------------


def _read(runs: Sequence[Path], output: Path) -> list[_Part]:
    """Read each run once: `runs/latest` and the run behind it are one."""
    if not runs:
        raise RecordError("no run to merge", remedy="name run directories")
    if os.path.lexists(output):
        raise RecordError(f"{output} exists already", remedy="name a new directory with --output")
    parts: dict[str, _Part] = {}
    for path in runs:
        records = reader.read(path)
        if records.run is None:
            raise RecordError(
                f"{path}: the records have no run line, so nothing says what made them",
                remedy="leave this run out",
            )
        place = os.path.realpath(records.directory)
        parts.setdefault(place, _Part(records, records.run))
    for folder in Path(os.path.realpath(output)).parents:
        if str(folder) in parts:
            raise RecordError(
                f"{output} lies inside {folder}, a run that is merged",
                remedy="name a directory outside of the runs with --output",
            )
    return list(parts.values())


def _refuse_mixed(parts: Sequence[_Part], *, other_catalog: bool) -> None:
    """Refuse runs of several provenances, and of several catalogs unless that is allowed."""
    for part in parts:
        first = parts[0]
        if part.run.provenance != first.run.provenance:
            raise RecordError(
                f"the runs mix provenances: {first.name} is {first.run.provenance}, "
                f"{part.name} is {part.run.provenance}",
                remedy="merge runs of one provenance only",
            )
        if len(part.catalogs | first.catalogs) > 1 and not other_catalog:
            raise RecordError(
                f"{first.name} and {part.name} were judged by different catalogs",
                remedy="run them with one baselines.yaml, or pass --allow-other-catalog",
            )


def _notes(parts: Sequence[_Part], *, with_ratios: bool) -> list[str]:
    notes = [
        f"{part.name} {why}, so the joined run ends with exit code "
        f"{int(Exit.MACHINE_TROUBLE)} at best"
        for part in parts
        for why in part.faults()
    ]
    notes += [
        f"{part.name}: {check.sentence}"
        for part in parts
        for check in part.records.checks
        if check.name is CheckName.RESUMED
    ]
    names = {check.name for part in parts for check in part.records.checks}
    if CheckName.RATIO in names and not with_ratios:
        notes.append(
            "ratios were not judged again, the runs' worst stay: the catalog is not the one that "
            "judged the runs"
        )
    return notes + shards.lacking([part.records for part in parts])


# Cases ------------------------------------------------------------------------------------


def _joined_cases(parts: Sequence[_Part]) -> list[tuple[_Part, CaseLine]]:
    """Return each case once, with the run that it comes from."""
    cases: dict[str, tuple[_Part, CaseLine]] = {}
    clashes = []
    for part in parts:
        for case in part.records.cases:
            # The same whatever folder pytest took for its root.
            name = case.nodeid.rpartition("::")[2]
            other, known = cases.setdefault(name, (part, case))
            # As text: a NaN equals itself.
            after = {name: repr(value) for name, value in case}
            differ = [name for name, value in known if repr(value) != after[name]]
            if differ:
                says = f"{other.name} says {_result(known)}, {part.name} says {_result(case)}"
                clashes.append(f"{case.case} ({case.check}): {says}; they differ in {some(differ)}")
    if clashes:
        noun = "case" if len(clashes) == 1 else "cases"
        more = f"; and {len(clashes) - 3} more" if len(clashes) > 3 else ""
        raise RecordError(
            f"the runs disagree about {len(clashes)} {noun}: {'; '.join(clashes[:3])}{more}",
            remedy="leave one of the runs out: a case may be in one of them only (--models and "
            "--batch-sizes select)",
        )
    return list(cases.values())


def _result(case: CaseLine) -> str:
    figure = "" if case.measured is None else f", {case.measured:.5g} {case.unit}"
    return f"{case.outcome}{figure}"


# Checks over the cases --------------------------------------------------------------------


def _joined_checks(
    parts: Sequence[_Part], joined: RunRecords, catalog: Catalog | None
) -> Iterable[RunCheckLine]:
    """Judge the joined cases; keep the worst line of a run where that decides nothing."""
    checks: dict[tuple[CheckName, str], RunCheckLine] = {}

    def keep_worst(line: RunCheckLine) -> None:
        kept = checks.setdefault((line.name, line.subject), line)
        if _SEVERITY.index(line.outcome) > _SEVERITY.index(kept.outcome):
            checks[line.name, line.subject] = line

    for part in parts:
        for line in part.records.checks:
            keep_worst(line)
    for line in run_checks(joined, catalog):
        key = line.name, line.subject
        if line.measured is None and line.outcome == "recorded":
            keep_worst(line)  # nothing could be compared: that clears nobody
        else:
            checks[key] = line
    return checks.values()


# Writing ----------------------------------------------------------------------------------


def _write(
    staged: Path,
    run: RunLine,
    parts: Sequence[_Part],
    cases: Sequence[CaseLine],
    catalog: Catalog | None,
) -> None:
    """Write the joined records, and read them back to see that nothing was lost."""
    plan = {planned.nodeid: planned for part in parts for planned in part.records.plan}
    writer.append(staged, run, PlanLine(run=run.run, cases=tuple(plan.values())), *cases)
    checks = tuple(_joined_checks(parts, reader.read(staged), catalog))
    ends = [part.records.end for part in parts if part.records.end is not None]
    records = end_records(
        staged,
        checks,
        allow_inconclusive=run.allow_inconclusive,
        stopped=_each(end.stopped for end in ends if end.stopped),
        seconds=sum(end.seconds for end in ends),
        finished=max((end.finished for end in ends), default=""),
        decide=lambda code: _exit_status(parts, code),
    )
    lost = len(cases) - len(records.cases), len(checks) - len(records.checks)
    if any(lost):
        raise RecordError(
            "the merge lost {} cases and {} checks".format(*lost),
            remedy="report this: nothing was written",
        )


def _exit_status(parts: Sequence[_Part], joined: Exit) -> int:
    """Return the weightiest exit code; at best 7 (the machine) where records are not whole.

    Nobody knows that a killed run (no end, or a signal) was good; its cases say what failed.
    """
    statuses = [int(joined), *(part.records.exit_status for part in parts)]
    codes = [one if one in _WEIGHTIEST_FIRST else Exit.MACHINE_TROUBLE for one in statuses]
    if any(part.faults() for part in parts) or shards.lacking([one.records for one in parts]):
        codes.append(Exit.MACHINE_TROUBLE)
    return min(codes, key=lambda code: _WEIGHTIEST_FIRST.index(Exit(code)))


def _run_line(parts: Sequence[_Part], output: Path, notes: Sequence[str]) -> RunLine:
    """Return what is true of all runs; what differs is listed, or left out of the settings."""
    runs = [part.run for part in parts]
    machines = list(dict.fromkeys(run.machine for run in runs))
    return RunLine(
        run=writer.new_run_id(),
        provenance=runs[0].provenance,
        guide_figures={name: one for run in runs for name, one in run.guide_figures.items()},
        started=min(run.started for run in runs),
        command=(
            *("python", "-m", "harness", "merge"),
            *(part.name for part in parts),
            *("--output", str(output)),
        ),
        directory=str(output),
        git=_each(run.git for run in runs),
        catalog_digest=_each(run.catalog_digest for run in runs),
        machine=machines[0] if len(machines) == 1 else Machine(_each(m.hostname for m in machines)),
        versions={
            name: _each(run.versions.get(name, "none") for run in runs)
            for name in dict.fromkeys(name for run in runs for name in run.versions)
        },
        settings={
            name: value
            for name, value in runs[0].settings.items()
            if all(run.settings.get(name, ...) == value for run in runs)
        },
        target=runs[0].target if len({run.target for run in runs}) == 1 else "",
        allow_inconclusive=all(run.allow_inconclusive for run in runs),
        merged=tuple(_about(part) for part in parts),
        notes=tuple(notes[:_MOST_NOTES]),
    )


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _about(part: _Part) -> str:
    records, run = part.records, part.run
    host = run.machine.hostname or "host unknown"
    ended = "no end line" if records.end is None else f"exit status {records.exit_status}"
    count = f"{len(records.cases)} of {len(records.plan)} cases"
    return f"{run.run}: {count}, {host}, {run.started}, {ended}"
