"""Several runs (shards, devices, hosts) joined into one run directory.

The same case may come from several runs; two lines that disagree about one case are refused, since
nobody could say which of them is the result. What spans the cases of a run (batch sizes, ratios) is
judged again over the joined cases: no part could know it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.base.errors import HarnessError, RecordError, some
from harness.base.host import Machine
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.judge.causes import Exit
from harness.judge.run_checks import run_checks
from harness.records import reader, writer
from harness.records.lines import CaseLine, CheckName, PlanLine, PlannedCase, RunCheckLine, RunLine
from harness.records.reader import RunRecords
from harness.run.ending import end_records
from harness.run.merged_files import FileCopier, with_files
from harness.settings import resolve

_T = TypeVar("_T")
_CheckKey = tuple[CheckName, str]  # a check's name and subject
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
class Merged:
    """What a merge made.

    exit_status: the joined run's. duplicates: cases that several runs had, equal. notes: what was
    left out, and runs whose records are not whole.
    """

    directory: Path
    counts: Mapping[str, int]
    exit_status: int
    duplicates: int
    files: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """One run that is merged."""

    directory: Path
    records: RunRecords
    run: RunLine

    @property
    def name(self) -> str:
        return self.run.run or str(self.directory)


def merge(
    runs: Sequence[Path],
    output: Path,
    *,
    allow_other_catalog: bool = False,
    catalog: Path | None = None,
) -> Merged:
    """Join runs into `output`, which must not exist; it appears whole or not at all.

    Args:
        allow_other_catalog: join runs that were judged by catalogs of different digests.
        catalog: the catalog that ratios are judged by again, where it is the one of all runs;
            by default what the settings name. Without it the runs' own ratios stay.

    Raises:
        RecordError: a run has no records or no run line, two runs disagree about a case or a
            planned case, their provenances or catalogs differ, `output` exists or cannot be made.
    """
    if not runs:
        raise RecordError("no run to merge", remedy="name run directories")
    if os.path.lexists(output):
        raise RecordError(f"{output} exists already", remedy="name a new directory with --output")
    distinct, notes = _distinct(runs, output)
    sources = [_read(path) for path in distinct]
    _refuse_mixed(sources, other_catalog=allow_other_catalog)
    plan = _joined_plan(sources)
    cases = _joined_cases(sources)
    staged = output.with_name(f".{output.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        staged.mkdir()
        try:
            copier = FileCopier(staged)
            copied = [
                copier.take_over(case, source.directory, sources.index(source) + 1)
                for source, case in cases
            ]
            present, why_not = _same_catalog(sources, catalog)
            notes = [*why_not, *copier.notes, *notes, *_unsound_notes(sources)]
            records = _write(staged, output, sources, plan, copied, present, notes)
            # Fails where another process filled the directory meanwhile.
            staged.rename(output)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise RecordError(
            f"cannot write {output}: {error.strerror or error}",
            remedy="free disk space or name another place with --output",
        ) from error
    return Merged(
        directory=output,
        counts=records.counts(),
        exit_status=records.exit_status,
        duplicates=sum(len(one.records.cases) for one in sources) - len(copied),
        files=copier.count,
        notes=tuple(notes),
    )


# The runs ---------------------------------------------------------------------------------


def _distinct(runs: Sequence[Path], output: Path) -> tuple[list[Path], list[str]]:
    """Return each directory once, and a note for each that was named again.

    `runs/latest` and the run behind it are one.
    """
    seen: list[Path] = []
    notes = []
    for path in runs:
        real = _real(path.parent if path.is_file() else path)
        if real in seen:
            notes.append(f"{path} is a run that was named before; it counts once")
        else:
            seen.append(real)
    for parent in _real(output).parents:
        if parent in seen:
            raise RecordError(
                f"{output} lies inside {parent}, a run that is merged",
                remedy="name a directory outside of the runs with --output",
            )
    return seen, notes


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead round in a circle
        raise RecordError(
            f"{path} cannot be followed: {error}", remedy="name a run directory, e.g. runs/latest"
        ) from error


def _read(directory: Path) -> _Source:
    records = reader.read(directory)
    if records.run is None:
        raise RecordError(
            f"{directory}: the records have no run line, so nothing says what made them",
            remedy="leave this run out",
        )
    return _Source(directory, records, records.run)


def _refuse_mixed(sources: Sequence[_Source], *, other_catalog: bool) -> None:
    """Refuse runs of several provenances, and of several catalogs unless that is allowed."""
    kinds = _by_value(
        sources,
        lambda one: [
            one.run.provenance,
            *(case.provenance for case in one.records.cases),
            *(check.provenance for check in one.records.checks),
        ],
    )
    if len(kinds) > 1:
        raise RecordError(
            f"the runs mix provenances ({_listed(kinds)})",
            remedy="merge runs of one provenance only",
        )
    digests = _by_value(sources, lambda one: [one.run.catalog_digest[:12] or "none"])
    if len(digests) > 1 and not other_catalog:
        raise RecordError(
            f"the runs were judged by different catalogs ({_listed(digests)})",
            remedy="run them with one baselines.yaml, or pass --allow-other-catalog",
        )


def _by_value(
    sources: Sequence[_Source], values: Callable[[_Source], Sequence[str]]
) -> dict[str, list[str]]:
    """Return the names of the runs that have each value."""
    names: dict[str, list[str]] = {}
    for source in sources:
        for value in dict.fromkeys(values(source)):
            names.setdefault(value, []).append(source.name)
    return names


def _listed(names: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value}: {some(runs)}" for value, runs in sorted(names.items()))


def _same_catalog(
    sources: Sequence[_Source], path: Path | None
) -> tuple[Catalog | None, list[str]]:
    """Return the catalog that judged all runs; else None, and a note where that matters."""
    try:
        present = load_catalog(path or resolve({}).catalog)
    except HarnessError as error:
        why = error.message
    else:
        if {source.run.catalog_digest for source in sources} == {present.digest}:
            return present, []
        why = f"{present.path} is not the catalog that judged the runs"
    ratios = any(check.name == CheckName.RATIO for one in sources for check in one.records.checks)
    note = f"left out: ratios were not judged again, the runs' worst stay: {why}"
    return None, [note] if ratios else []


# Plan and cases ---------------------------------------------------------------------------


def _joined_plan(sources: Sequence[_Source]) -> list[PlannedCase]:
    plan: dict[str, PlannedCase] = {}
    for source in sources:
        for planned in source.records.plan:
            if plan.setdefault(planned.nodeid, planned) != planned:
                raise RecordError(
                    f"the runs disagree about what {planned.nodeid} is",
                    remedy=f"leave out {source.name}, or the run that says otherwise",
                )
    return list(plan.values())


def _joined_cases(sources: Sequence[_Source]) -> list[tuple[_Source, CaseLine]]:
    """Return each case once, with the run that it comes from."""
    cases: dict[str, tuple[_Source, CaseLine]] = {}
    clashes = []
    for source in sources:
        for case in source.records.cases:
            other, seen = cases.setdefault(case.nodeid, (source, case))
            if _content(seen) != _content(case):
                clashes.append(_disagreement((other, seen), (source, case)))
    if clashes:
        noun = "case" if len(clashes) == 1 else "cases"
        more = f"; and {len(clashes) - 3} more" if len(clashes) > 3 else ""
        raise RecordError(
            f"the runs disagree about {len(clashes)} {noun}: {'; '.join(clashes[:3])}{more}",
            remedy="leave one of the runs out: a case may be in one of them only (--models and "
            "--batch-sizes select)",
        )
    return list(cases.values())


def _content(case: CaseLine) -> dict[str, str]:
    """Return a case's fields as texts, without the names of its files, which a merge changes."""
    blank = with_files(case, lambda name: "")
    # As text: a NaN equals itself.
    return {key: repr(value) for key, value in blank}


def _disagreement(one: tuple[_Source, CaseLine], two: tuple[_Source, CaseLine]) -> str:
    """Name the two outcomes of a case, or the two figures, or the fields that differ."""
    (source, seen), (other, case) = one, two
    here, there = source.name, other.name
    if here == there:
        here, there = f"{here} in {source.directory}", f"{there} in {other.directory}"
    name = f"{case.case} ({case.check})"
    if seen.outcome != case.outcome:
        return f"{name}: {here} says {seen.outcome}, {there} says {case.outcome}"
    was, now = (f"{line.measured:.5g} {line.unit}" if line.measured is not None else ""
                for line in (seen, case))  # fmt: skip
    both = f"{here} and {there} both measured {case.check} of {case.case}"
    if was and now and was != now:
        return f"{both}: {was} and {now}"
    before, after = _content(seen), _content(case)
    keys = some([key for key in before if before[key] != after[key]])
    if was and now:
        return f"{both}: {was} each, but their lines differ in {keys}"
    return f"{name}: both say {case.outcome} ({here}, {there}), but their lines differ in {keys}"


# Checks over the cases --------------------------------------------------------------------


def _joined_checks(
    sources: Sequence[_Source], joined: RunRecords, catalog: Catalog | None
) -> list[RunCheckLine]:
    """Judge the joined cases; keep the worst line of a run where that decides nothing."""
    checks: dict[_CheckKey, RunCheckLine] = {}

    def keep_worst(line: RunCheckLine) -> None:
        kept = checks.setdefault((line.name, line.subject), line)
        if _SEVERITY.index(line.outcome) > _SEVERITY.index(kept.outcome):
            checks[line.name, line.subject] = line

    for source in sources:
        for line in source.records.checks:
            keep_worst(line)
    for line in run_checks(joined, catalog or _without_models()):
        if line.verdict is None and _judged_by_a_run(sources, joined, line):
            continue
        if line.measured is None and line.outcome == "recorded":
            keep_worst(line)  # nothing could be compared: that clears nobody
        else:
            checks[line.name, line.subject] = line
    return list(checks.values())


def _judged_by_a_run(sources: Sequence[_Source], joined: RunRecords, line: RunCheckLine) -> bool:
    """Return whether one run judged all of these cases; their predictions may be gone since."""
    needed = {
        case.nodeid
        for case in joined.cases
        if case.check == "accuracy" and (case.model, case.target) == (line.model, line.target)
    }
    key = line.name, line.subject
    return any(
        key in {(check.name, check.subject) for check in source.records.checks}
        and needed <= {case.nodeid for case in source.records.cases}
        for source in sources
    )


def _without_models() -> Catalog:
    """Return a catalog without ratios: none is judged by figures of another catalog."""
    # Not validated: no file of a catalog may be empty.
    return Catalog.model_construct(
        path=Path(), digest="", version=1, sources={}, models={}, known_failures=()
    )


# The exit code ----------------------------------------------------------------------------


def _ended_with(records: RunRecords) -> Exit:
    """Return a run's exit code; at best 7 (the machine) where its records are not whole.

    Nobody knows that a killed run (no end, or a signal) was good; its cases say what failed.
    """
    known = records.end is not None and records.exit_status in tuple(Exit)
    status = Exit(records.exit_status) if known else Exit.MACHINE_TROUBLE
    return _weightiest(status, Exit.MACHINE_TROUBLE) if _unsound(records) else status


def _weightiest(*codes: Exit) -> Exit:
    return min(codes, key=_WEIGHTIEST_FIRST.index)


def _unsound(records: RunRecords) -> list[str]:
    """Return why the records of a run are not whole."""
    why = []
    if records.end is None:
        why.append("was killed or still goes on: its records have no end")
    elif not records.end_agrees():
        why.append("has an end line that counts what its records lack")
    if records.damaged:
        why.append(f"has damaged lines in its records ({len(records.damaged):,})")
    return why


def _unsound_notes(sources: Sequence[_Source]) -> list[str]:
    at_best = f"so the joined run ends with exit code {int(Exit.MACHINE_TROUBLE)} at best"
    return [
        f"{source.name} {why}, {at_best}" for source in sources for why in _unsound(source.records)
    ]


def _stopped(sources: Sequence[_Source], not_run: Sequence[str]) -> str:
    """Return why cases did not run, where runs that were stopped early planned all of them."""
    early = {
        planned.nodeid: source.records.end.stopped
        for source in sources
        if source.records.end is not None and source.records.end.stopped
        for planned in source.records.plan
    }
    if not all(nodeid in early for nodeid in not_run):
        return ""
    return ", ".join(dict.fromkeys(early[nodeid] for nodeid in not_run))


# Writing ----------------------------------------------------------------------------------


def _write(
    staged: Path,
    output: Path,
    sources: Sequence[_Source],
    plan: Sequence[PlannedCase],
    cases: Sequence[CaseLine],
    catalog: Catalog | None,
    notes: Sequence[str],
) -> RunRecords:
    """Write the joined records, and read them back to see that nothing was lost."""
    run = _run_line(sources, output, notes)
    writer.append(staged, run, PlanLine(run=run.run, cases=tuple(plan)), *cases)
    checks = _joined_checks(sources, reader.read(staged), catalog)
    ended = {case.nodeid for case in cases}
    ends = [source.records.end for source in sources if source.records.end is not None]
    records = end_records(
        staged,
        checks,
        allow_inconclusive=run.allow_inconclusive,
        stopped=_stopped(sources, [one.nodeid for one in plan if one.nodeid not in ended]),
        seconds=sum(end.seconds for end in ends),
        finished=max((end.finished for end in ends), default=""),
        decide=lambda code: int(
            _weightiest(code, *(_ended_with(source.records) for source in sources))
        ),
    )
    if {case.nodeid for case in records.cases} != ended or len(records.checks) != len(checks):
        lost = sorted(ended - {case.nodeid for case in records.cases})
        raise RecordError(
            f"the merge lost {len(lost)} cases: {some(lost)}"
            if lost
            else "the merge's records do not add up",
            remedy="report this: nothing was written",
        )
    return records


def _run_line(sources: Sequence[_Source], output: Path, notes: Sequence[str]) -> RunLine:
    runs = [source.run for source in sources]
    names = dict.fromkeys(name for run in runs for name in run.versions)
    settings = runs[0].settings
    return RunLine(
        run=writer.new_run_id(),
        provenance=runs[0].provenance,
        guide_figures={key: value for run in runs for key, value in run.guide_figures.items()},
        started=min(run.started for run in runs),
        command=(
            *("python", "-m", "harness", "merge"),
            *(str(source.directory) for source in sources),
            *("--output", str(output)),
        ),
        directory=str(output),
        git=_common([run.git for run in runs], ", ".join),
        catalog_digest=_common([run.catalog_digest for run in runs], ", ".join),
        machine=_common(
            [run.machine for run in runs],
            lambda machines: Machine(hostname=", ".join(one.hostname for one in machines)),
        ),
        versions={
            name: _common([run.versions.get(name, "none") for run in runs], " / ".join)
            for name in names
        },
        settings={
            name: value
            for name, value in settings.items()
            if all(name in run.settings and run.settings[name] == value for run in runs)
        },
        allow_inconclusive=all(run.allow_inconclusive for run in runs),
        merged=tuple(_about(source) for source in sources),
        notes=tuple(notes[:_MOST_NOTES]),
    )


def _about(source: _Source) -> str:
    records, run = source.records, source.run
    host = run.machine.hostname or "host unknown"
    ended = "no end line" if records.end is None else f"exit status {records.exit_status}"
    count = f"{len(records.cases)} of {len(records.plan)} cases"
    return f"{source.name}: {count}, {host}, {run.started}, {ended}"


def _common(values: Sequence[_T], otherwise: Callable[[list[_T]], _T]) -> _T:
    """Return the value that all share, or what `otherwise` makes of the different ones."""
    distinct: list[_T] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct[0] if len(distinct) == 1 else otherwise(distinct)
