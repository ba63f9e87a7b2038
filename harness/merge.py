"""The records of several runs (shards, devices, hosts) joined into one run directory.

A case's line is taken over as it was written. The same line may come from several runs; two lines
that disagree about one case are refused, since nobody could say which of them is the result. What
is judged over all cases of a run (batch sizes, ratios) is judged again over the joined cases: no
part could know it. The joined records pass `reader.read`, their sum comes out, and every report
renders from them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel

from harness.base import files
from harness.base.errors import HarnessError, RecordError, some
from harness.base.host import Machine
from harness.base.terms import Provenance
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.judge import causes, run_checks
from harness.records import lines, reader, writer
from harness.records.lines import (
    CaseLine,
    EndLine,
    Line,
    PlanLine,
    PlannedCase,
    RunCheckLine,
    RunLine,
)
from harness.records.reader import RunRecords
from harness.records.writer import RESULTS
from harness.report import figures
from harness.settings import resolve

# Folders of a run directory whose files records name; nothing else is taken over.
_FOLDERS = ("predictions", "logs")
_PART = re.compile(r"[^/\\\x00-\x1f:]{1,200}")
_MAX_PARTS = 4
_KINDS: Mapping[str, type[BaseModel]] = {
    "run": RunLine,
    "plan": PlanLine,
    "case": CaseLine,
    "check": RunCheckLine,
    "end": EndLine,
}
_T = TypeVar("_T")
_CheckKey = tuple[str, str]  # a check's name and subject
_SEVERITY = ("passed", "recorded", "inconclusive", "failed")
# README's order of the exit codes; what is not here (interrupted, a fault of the harness) outweighs
# all but a failed acceptance.
_LIGHTER = (
    causes.Exit.MACHINE_TROUBLE,
    causes.Exit.INPUT_ERROR,
    causes.Exit.NOTHING_SELECTED,
    causes.Exit.INCONCLUSIVE_ONLY,
    causes.Exit.PASSED,
)


@dataclass(frozen=True)
class Merged:
    """What a merge made.

    exit_status: the joined run's. duplicates: cases that several runs had, equal. notes: what was
    left out, and runs without an end.
    """

    directory: Path
    counts: Mapping[str, int]
    exit_status: int
    duplicates: int
    files: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Check:
    """A line of what was judged over all cases, and its text."""

    raw: str
    line: RunCheckLine

    @property
    def key(self) -> _CheckKey:
        return self.line.name, self.line.subject

    @property
    def severity(self) -> int:
        return _SEVERITY.index(self.line.outcome)


@dataclass
class _Source:
    """One run, read twice: as values, and the case lines as they were written."""

    directory: Path
    records: RunRecords
    run: RunLine
    lines: dict[str, tuple[str, dict[str, Any]]]  # node id -> text and JSON object
    checks: dict[_CheckKey, _Check]
    damaged: list[str]

    @property
    def name(self) -> str:
        return self.run.run or str(self.directory)


@dataclass
class _Result:
    """What goes into the new directory."""

    lines: dict[str, str] = field(default_factory=dict)
    cases: dict[str, CaseLine] = field(default_factory=dict)
    checks: dict[_CheckKey, _Check] = field(default_factory=dict)
    duplicates: int = 0
    files: int = 0
    notes: list[str] = field(default_factory=list)


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
    distinct, twice = _distinct(runs)
    inside = _real(output)
    for path in distinct:
        if path in inside.parents:
            raise RecordError(
                f"{output} lies inside {path}, a run that is merged",
                remedy="name a directory outside of the runs with --output",
            )
    sources = [_read(path) for path in distinct]
    provenance = _one_provenance(sources)
    _one_catalog(sources, allow_other_catalog)
    plan = _joined_plan(sources)
    _refuse_disagreement(sources)

    staged = output.with_name(f".{output.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        staged.mkdir()
        try:
            result = _collect(sources, staged)
            result.notes += twice
            known = _same_catalog(sources, catalog, result.notes)
            result.notes += [
                f"{source.name} {why}, so the joined run ends with exit code "
                f"{int(causes.Exit.MACHINE_TROUBLE)} at best"
                for source in sources
                for why in _unsound(source.records)
            ]
            run = _run_line(sources, provenance, output, result.notes)
            joined = RunRecords(staged, run, tuple(plan), tuple(result.cases.values()), None)
            result.checks = _joined_checks(sources, joined, known)
            status = _exit_status(sources, plan, result)
            _write(staged / RESULTS, _texts(sources, run, plan, result, status))
            counts = _checked(staged, plan, result)
            # Fails where another process filled the directory meanwhile.
            staged.rename(output)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise RecordError(
            f"cannot write {output}: {error.strerror or error}",
            remedy="free disk space or name another place with --output",
        ) from error
    return Merged(output, counts, status, result.duplicates, result.files, tuple(result.notes))


def _distinct(runs: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Each directory once, however it is spelt: `runs/latest` and the run behind it are one.

    With a note for each that was named again.
    """
    seen: list[Path] = []
    notes = []
    for path in runs:
        real = _real(path.parent if path.is_file() else path)
        if real in seen:
            notes.append(f"{path} is a run that was named before; it counts once")
        else:
            seen.append(real)
    return seen, notes


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead round in a circle
        raise RecordError(
            f"{path} cannot be followed: {error}", remedy="name a run directory, e.g. runs/latest"
        ) from error


def _read(directory: Path) -> _Source:
    found = reader.read(directory)
    if found.run is None:
        raise RecordError(
            f"{directory}: the records have no run line, so nothing says what made them",
            remedy="leave this run out",
        )
    source = _Source(directory, found, found.run, {}, {}, [])
    try:
        text = files.regular_text(directory / RESULTS, errors="replace")
    except OSError as error:
        raise RecordError(
            f"{directory / RESULTS} cannot be read: {error.strerror or error}",
            remedy="merge it when its run has ended",
        ) from error
    # As `reader.read` does: its cases decide which line counts.
    for raw in text.split("\n"):
        if not raw.strip():
            continue
        try:
            data = json.loads(raw)
            line = _KINDS[data["kind"]].model_validate(data)
            if isinstance(line, CaseLine):
                source.lines.setdefault(line.nodeid, (raw, data))
            elif isinstance(line, RunCheckLine):
                _keep_worst(source.checks, _Check(raw, line))
        except (ValueError, KeyError, TypeError, RecursionError):
            source.damaged.append(raw)
    missing = [case.nodeid for case in found.cases if case.nodeid not in source.lines]
    if missing:
        raise RecordError(
            f"{directory} changed while it was read: {some(missing)}",
            remedy="merge it when its run has ended",
        )
    return source


def _one_provenance(sources: Sequence[_Source]) -> Provenance:
    kinds: dict[Provenance, list[str]] = {}
    for source in sources:
        said_by = {case.provenance for case in source.records.cases}
        said_by |= {check.provenance for check in source.records.checks}
        for kind in {source.run.provenance} | said_by:
            kinds.setdefault(kind, []).append(source.name)
    if len(kinds) > 1:
        said = "; ".join(f"{kind}: {some(names)}" for kind, names in sorted(kinds.items()))
        raise RecordError(
            f"the runs mix provenances ({said})",
            remedy="merge runs of one provenance only",
        )
    return next(iter(kinds))


def _one_catalog(sources: Sequence[_Source], allowed: bool) -> None:
    digests: dict[str, list[str]] = {}
    for source in sources:
        digests.setdefault(source.run.catalog_digest, []).append(source.name)
    if len(digests) > 1 and not allowed:
        said = "; ".join(f"{digest[:12] or 'none'}: {some(n)}" for digest, n in digests.items())
        raise RecordError(
            f"the runs were judged by different catalogs ({said})",
            remedy="run them with one baselines.yaml, or pass --allow-other-catalog",
        )


def _joined_plan(sources: Sequence[_Source]) -> list[PlannedCase]:
    plan: dict[str, PlannedCase] = {}
    for source in sources:
        for planned in source.records.plan:
            held = plan.setdefault(planned.nodeid, planned)
            if held != planned:
                raise RecordError(
                    f"the runs disagree about what {planned.nodeid} is",
                    remedy=f"leave out {source.name}, or the run that says otherwise",
                )
    return list(plan.values())


def _content(data: Mapping[str, Any]) -> str:
    """A case as one text, without the places of its files, which a merge may change."""
    content = dict(data)
    measurement = content.get("measurement")
    if isinstance(measurement, dict):
        content["measurement"] = {k: v for k, v in measurement.items() if k != "predictions_file"}
    artifacts = content.get("artifacts")
    if isinstance(artifacts, list):
        content["artifacts"] = [
            {k: v for k, v in one.items() if k != "log_file"} if isinstance(one, dict) else one
            for one in artifacts
        ]
    return json.dumps(content, sort_keys=True)  # as text, a NaN equals itself


def _refuse_disagreement(sources: Sequence[_Source]) -> None:
    held: dict[str, tuple[_Source, dict[str, Any]]] = {}
    clashes = []
    for source in sources:
        for nodeid, (_, data) in source.lines.items():
            if nodeid not in held:
                held[nodeid] = (source, data)
                continue
            other, seen = held[nodeid]
            if _content(seen) != _content(data):
                clashes.append(_disagreement((other, seen), (source, data)))
    if clashes:
        raise RecordError(
            f"the runs disagree about {len(clashes)} "
            f"{'case' if len(clashes) == 1 else 'cases'}: {'; '.join(clashes[:3])}"
            + (f"; and {len(clashes) - 3} more" if len(clashes) > 3 else ""),
            remedy="leave one of the runs out: a case may be in one of them only (--models and "
            "--batch-sizes select)",
        )


def _disagreement(*said: tuple[_Source, dict[str, Any]]) -> str:
    """What two runs say of one case: outcomes, or figures, or where else their lines differ."""
    (one, seen), (other, data) = said
    name, check = data["case"], data["check"]
    here, there = (one.name, other.name) if one.name != other.name else (
        f"{one.name} in {one.directory}", f"{other.name} in {other.directory}"
    )  # fmt: skip
    if seen["outcome"] != data["outcome"]:
        return f"{name} ({check}): {here} says {seen['outcome']}, {there} says {data['outcome']}"
    both = f"{here} and {there} both measured {check} of {name}"
    was, now = (_measured(line) for line in (seen, data))
    if was and now and was != now:
        return f"{both}: {was} and {now}"
    keys = [key for key in {**seen, **data} if _content_of(seen, key) != _content_of(data, key)]
    if was and now:
        return f"{both}: {was} each, but their lines differ in {some(keys)}"
    return f"{name} ({check}): both say {data['outcome']} ({here}, {there}), but their lines " \
           f"differ in {some(keys)}"  # fmt: skip


def _measured(data: Mapping[str, Any]) -> str:
    """A line's figure as a report writes it; empty where it has none."""
    value = figures.number(data.get("measured"))
    unit = data.get("unit")
    return "" if value is None else figures.figure(value, unit if isinstance(unit, str) else "")


def _content_of(data: Mapping[str, Any], key: str) -> str:
    return _content({key: data[key]}) if key in data else ""


# --- What is judged over all cases ----------------------------------------------------------


def _keep_worst(held: dict[_CheckKey, _Check], check: _Check) -> None:
    if check.key not in held or check.severity > held[check.key].severity:
        held[check.key] = check


def _same_catalog(
    sources: Sequence[_Source], path: Path | None, notes: list[str]
) -> Catalog | None:
    """The catalog that all runs were judged by, or None, with a note where that matters."""
    try:
        found = load_catalog(path or resolve({}).catalog)
    except HarnessError as error:
        why = error.message
    else:
        if {source.run.catalog_digest for source in sources} == {found.digest}:
            return found
        why = f"{found.path} is not the catalog that judged the runs"
    if any(name == run_checks.RATIO for source in sources for name, _ in source.checks):
        notes.insert(0, f"left out: ratios were not judged again, the runs' worst stay: {why}")
    return None


def _joined_checks(
    sources: Sequence[_Source], joined: RunRecords, catalog: Catalog | None
) -> dict[_CheckKey, _Check]:
    """The joined cases judged again; of what cannot be, the worst that a run said."""
    checks: dict[_CheckKey, _Check] = {}
    for source in sources:
        for check in source.checks.values():
            _keep_worst(checks, check)
    for group in _groups(joined):
        for line in _judge_again(sources, group, catalog or _no_models()):
            check = _Check(_text(line), line)
            if line.measured is None and line.outcome == "recorded":
                # Nothing could be compared: that clears nobody.
                _keep_worst(checks, check)
            else:
                checks[check.key] = check
    return checks


def _groups(joined: RunRecords) -> Iterator[RunRecords]:
    """The records of each model on each target: what is damaged in one spoils no other."""
    for model, target in dict.fromkeys((case.model, case.target) for case in joined.cases):
        yield replace(
            joined,
            plan=tuple(p for p in joined.plan if (p.model, p.target) == (model, target)),
            cases=tuple(c for c in joined.cases if (c.model, c.target) == (model, target)),
        )


def _no_models() -> Catalog:
    """A catalog that asks for no ratio: none is judged by figures of another catalog."""
    # Not validated: no file of a catalog may be empty.
    return Catalog.model_construct(
        path=Path(), digest="", version=1, sources={}, models={}, known_failures=()
    )


def _judge_again(
    sources: Sequence[_Source], group: RunRecords, catalog: Catalog
) -> Iterator[RunCheckLine]:
    needed = {case.nodeid for case in group.cases if case.check == "accuracy"}
    for line in run_checks.run_checks(group, catalog):
        key = line.name, line.subject
        # Predictions that cannot be read any more: a run that had all of these cases compared
        # them itself.
        known = any(key in source.checks and needed <= set(source.lines) for source in sources)
        if line.verdict is not None or not known:
            yield line


def _stopped(sources: Sequence[_Source], plan: Sequence[PlannedCase], result: _Result) -> str:
    """Why cases did not run, where runs that were told to end early planned all of these."""
    early = {
        planned.nodeid: source.records.end.stopped
        for source in sources
        if source.records.end is not None and source.records.end.stopped
        for planned in source.records.plan
    }
    lost = [planned.nodeid for planned in plan if planned.nodeid not in result.cases]
    if not all(nodeid in early for nodeid in lost):
        return ""
    return ", ".join(dict.fromkeys(early[nodeid] for nodeid in lost))


def _exit_status(sources: Sequence[_Source], plan: Sequence[PlannedCase], result: _Result) -> int:
    """The worst of what the joined records say and what the runs ended with."""
    counts = lines.count(plan, result.cases.values())
    joined = causes.exit_code(
        result.cases.values(),
        (check.line for check in result.checks.values()),
        complete=not counts["not_run"],
        allow_inconclusive=all(
            source.run.settings.get("allow_inconclusive") is True for source in sources
        ),
        stopped=bool(_stopped(sources, plan, result)),
    )
    return min(int(joined), *map(_ended_with, sources), key=_order)


def _ended_with(source: _Source) -> int:
    """A run's exit code; at best that of the machine for one whose records are not whole, and that
    of the machine for one that was killed, which has no end or a signal.

    A killed run is not known to be good, and what it says of a model is in its cases.
    """
    end = source.records.end
    known = end is not None and end.exit_status in tuple(causes.Exit)
    machine = int(causes.Exit.MACHINE_TROUBLE)
    if end is None or not known:
        return machine
    return (
        min(end.exit_status, machine, key=_order) if _unsound(source.records) else end.exit_status
    )


def _unsound(found: RunRecords) -> list[str]:
    """Why the records of a run are not what it wrote, whatever they say it ended with."""
    why = []
    if found.end is None:
        why.append("was killed or still goes on: its records have no end")
    elif not found.end_agrees():
        why.append("has an end line that counts what its records lack")
    if found.damaged:
        why.append(f"has damaged lines in its records ({len(found.damaged):,})")
    return why


def _order(status: int) -> tuple[int, int]:
    """Sorts exit codes, the weightiest first."""
    if status == causes.Exit.ACCEPTANCE_FAILED:
        return 0, 0
    return (2 + _LIGHTER.index(causes.Exit(status)), 0) if status in _LIGHTER else (1, -abs(status))


# --- Files ----------------------------------------------------------------------------------


def _collect(sources: Sequence[_Source], staged: Path) -> _Result:
    """Every case's line, each once, and the files that it names."""
    result = _Result()
    for number, source in enumerate(sources, 1):
        for nodeid, (raw, data) in source.lines.items():
            if nodeid in result.lines:
                result.duplicates += 1
                continue
            copier = _Copier(source.directory, staged, number, result)
            result.lines[nodeid] = copier.take_over(raw, data)
            result.cases[nodeid] = CaseLine.model_validate(data)
    return result


@dataclass
class _Copier:
    """Takes over the files of one run's cases."""

    directory: Path
    staged: Path
    number: int
    result: _Result

    def take_over(self, raw: str, data: dict[str, Any]) -> str:
        """Copy the files that a line names, and give the line, with new names where it must."""
        changed = False
        for holder, key in _names(data):
            old = holder[key]
            new = self._copy(old)
            if new and new != old:
                holder[key], changed = new, True
        for name in self._logs(data):
            self._copy(name)
        return json.dumps(data, ensure_ascii=False) if changed else raw

    def _logs(self, data: Mapping[str, Any]) -> list[str]:
        """Logs that bear the case's name: the records do not list them one by one."""
        prefix = f"{data['check']}-{data['case']}-"
        folder = self.directory / "logs"
        if folder.is_symlink() or not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            return sorted(f"logs/{e.name}" for e in entries if e.name.startswith(prefix))

    def _copy(self, name: str) -> str:
        """Copy `name`; the name that the copy has, empty when it was left out, with a note."""
        if not _harmless(name):
            self._note(name, "no name of a file of a run")
            return ""
        try:
            with _opened(self.directory, name) as source:
                target = self.staged / name
                if target.exists():
                    if _same(source, target):
                        return name
                    first, _, rest = name.partition("/")
                    name = f"{first}/from-{self.number}/{rest}"
                    target = self.staged / name
                    if target.exists():
                        return name
                target.parent.mkdir(parents=True, exist_ok=True)
                source.seek(0)
                with target.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
        except OSError as error:
            reasons = {
                errno.ENOENT: "is missing",
                errno.ELOOP: "is or lies behind a symbolic link",
                errno.ENOTDIR: "is or lies behind a symbolic link",
                errno.EINVAL: "is no regular file",
            }
            if error.errno not in reasons:
                raise
            self._note(name, reasons[error.errno])
            return ""
        self.result.files += 1
        return name

    def _note(self, name: str, why: str) -> None:
        shown = name if _harmless(name) else repr(name)[:80]
        note = f"left out: {shown} of {self.directory.name} {why}"
        if note not in self.result.notes:
            self.result.notes.append(note)


def _names(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a case's line holds names of files, as (object, key)."""
    measurement = data.get("measurement")
    if isinstance(measurement, dict) and isinstance(measurement.get("predictions_file"), str):
        yield measurement, "predictions_file"
    artifacts = data.get("artifacts")
    for artifact in artifacts if isinstance(artifacts, list) else []:
        name = artifact.get("log_file") if isinstance(artifact, dict) else None
        if isinstance(name, str) and name:
            yield artifact, "log_file"


def _harmless(name: str) -> bool:
    parts = name.split("/")
    return (
        1 < len(parts) <= _MAX_PARTS
        and parts[0] in _FOLDERS
        and all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    )


@contextlib.contextmanager
def _opened(directory: Path, name: str) -> Iterator[BinaryIO]:
    """A regular file below `directory`, opened part by part so that no link is followed."""
    *folders, last = name.split("/")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, flags | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        # O_NONBLOCK: a pipe must not make us wait for its writer.
        descriptor = os.open(last, flags | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        yield file


def _same(source: BinaryIO, target: Path) -> bool:
    with target.open("rb") as file:
        while True:
            ours, theirs = file.read(1 << 16), source.read(1 << 16)
            if ours != theirs:
                return False
            if not ours:
                return True


# --- Lines ----------------------------------------------------------------------------------


def _common(values: Sequence[_T], otherwise: Callable[[list[_T]], _T]) -> _T:
    """The value that all share, or what `otherwise` makes of the different ones."""
    distinct: list[_T] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct[0] if len(distinct) == 1 else otherwise(distinct)


def _run_line(
    sources: Sequence[_Source], provenance: Provenance, output: Path, notes: Sequence[str]
) -> RunLine:
    runs = [source.run for source in sources]

    def listed(values: list[str]) -> str:
        return ", ".join(value for value in values if value)

    versions: dict[str, str] = {}
    for name in dict.fromkeys(key for run in runs for key in run.versions):
        versions[name] = _common([run.versions.get(name, "none") for run in runs], " / ".join)
    settings = {
        name: runs[0].settings[name]
        for name in runs[0].settings
        if all(
            name in run.settings and run.settings[name] == runs[0].settings[name] for run in runs
        )
    }
    settings.pop("merged", None)
    settings["merged"] = {
        f"{number}. {source.name}": (
            f"{len(source.records.cases)} of {len(source.records.plan)} cases, "
            f"{source.run.machine.hostname or 'host unknown'}, {source.run.started}, "
            + (
                f"exit status {source.records.end.exit_status}"
                if source.records.end
                else "no end line"
            )
        )
        for number, source in enumerate(sources, 1)
    }
    if notes:
        settings["notes of the merge"] = list(notes[:20])
    return RunLine(
        run=writer.new_run_id(),
        provenance=provenance,
        guide_figures={key: value for run in runs for key, value in run.guide_figures.items()},
        started=min(run.started for run in runs),
        command=[
            *("python", "-m", "harness", "merge"),
            *(str(source.directory) for source in sources),
            *("--output", str(output)),
        ],
        directory=str(output),
        git=_common([run.git for run in runs], listed),
        catalog_digest=_common([run.catalog_digest for run in runs], listed),
        machine=_common(
            [run.machine for run in runs],
            lambda machines: Machine(hostname=listed([one.hostname for one in machines])),
        ),
        versions=versions,
        settings=settings,
    )


def _text(line: Line) -> str:
    return json.dumps(line.model_dump(mode="json"), ensure_ascii=False)


def _texts(
    sources: Sequence[_Source],
    run: RunLine,
    plan: list[PlannedCase],
    result: _Result,
    exit_status: int,
) -> Iterator[str]:
    ends = [source.records.end for source in sources]
    counts = lines.count(plan, result.cases.values())
    yield _text(run)
    yield _text(PlanLine(run=run.run, cases=plan))
    yield from result.lines.values()
    yield from (check.raw for check in result.checks.values())
    for source in sources:
        yield from source.damaged  # counted in the joined records, too
    yield _text(
        EndLine(
            run=run.run,
            finished=max((end.finished for end in ends if end), default=files.now()),
            planned=len(plan),
            counts=counts,
            complete=not counts["not_run"],
            stopped=_stopped(sources, plan, result),
            exit_status=exit_status,
            seconds=sum(end.seconds for end in ends if end),
        )
    )


def _write(path: Path, lines: Iterator[str]) -> None:
    with path.open("x", encoding="utf-8", errors="replace", newline="\n") as file:
        for line in lines:
            file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def _checked(staged: Path, plan: Sequence[PlannedCase], result: _Result) -> dict[str, int]:
    """Read back what was written: no case and no check may be lost on the way.

    Raises:
        RecordError: the sum does not come out.
    """
    back = reader.read(staged)
    wanted = lines.count(plan, result.cases.values())
    names = {case.nodeid for case in back.cases}
    lost = sorted(set(result.cases) - names)
    checks = {(check.name, check.subject): check.outcome for check in back.checks}
    same_checks = checks == {key: check.line.outcome for key, check in result.checks.items()}
    if lost or not same_checks or back.counts() != wanted or len(back.plan) != len(plan):
        raise RecordError(
            f"the merge lost {len(lost)} cases: {some(lost)}"
            if lost
            else "the merge's records do not add up",
            remedy="report this: nothing was written",
        )
    return wanted
