"""Reads a run's records: the one parser that report, merge, history, estimates and `why` share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from harness.base.errors import RecordError, on_disk
from harness.base.files import regular_text
from harness.base.terms import OUTCOMES
from harness.records.lines import (
    SCHEMA,
    CaseLine,
    EndLine,
    Line,
    PlanLine,
    PlannedCase,
    ResumeLine,
    RunCheckLine,
    RunLine,
    count,
)
from harness.records.measurements import Rounds, Samples
from harness.records.writer import RESULTS

# Of any bytes as samples.
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
# From text to values in one step: it takes a quarter of the time of `json.loads` and validation.
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


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
    resumes: tuple[ResumeLine, ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """Cases for each outcome; planned cases without a line count as `not_run`."""
        return count(self.plan, self.cases)

    def unfinished(self, *, undecided: bool = False) -> tuple[str, ...]:
        """Return the node ids of planned cases without a line, or with an error or a crash;
        `undecided`: of those that are inconclusive, too.
        """
        again = {"error", "crashed", *(["inconclusive"] if undecided else [])}
        ended = {one.nodeid for one in self.cases if one.outcome not in again}
        return tuple(one.nodeid for one in self.plan if one.nodeid not in ended)

    @property
    def exit_status(self) -> int:
        """Return what the run ended with; 7, the machine's trouble, without an end line."""
        return 7 if self.end is None else self.end.exit_status

    def end_agrees(self) -> bool:
        """Return whether the end line counts what the plan and the case lines have."""
        if self.end is None:
            return False
        stated, counts = self.end.counts, self.counts()
        same = not stated or all(stated.get(name, 0) == counts[name] for name in OUTCOMES)
        return same and self.end.planned == len(self.plan)


def read(directory: Path) -> RunRecords:
    """Read a run's records: of its directory, or of the `results.jsonl` in it.

    A case that was written twice (a crash noticed by both sides) keeps its first line; a line that
    cannot be read is reported in `damaged`. Raises `RecordError`: the run has no records at all, no
    regular file of them, or an older form.
    """
    # No other file is taken for records: a report would be written beside it.
    path = directory if directory.name == RESULTS else directory / RESULTS
    what, remedy = f"no records of a run at {path}", "name a run directory, e.g. runs/latest"
    with on_disk(RecordError, what, remedy):
        text = regular_text(path, errors="replace")
    damaged: list[str] = []
    run: RunLine | None = None
    end: EndLine | None = None
    plan: dict[str, PlannedCase] = {}
    cases: dict[str, CaseLine] = {}
    checks: dict[tuple[str, str], RunCheckLine] = {}
    resumes: list[ResumeLine] = []
    for line in _lines(text, path, damaged):
        match line:
            case RunLine():
                run = run or line
            case PlanLine():
                plan.update((planned.nodeid, planned) for planned in line.cases)
            case ResumeLine():
                resumes.append(line)
                for nodeid in line.nodeids:
                    cases.pop(nodeid, None)
                checks.clear()
                end = None
            case CaseLine():
                cases.setdefault(line.nodeid, line)
            case RunCheckLine():
                checks[line.name, line.subject] = line
            case EndLine():
                end = line
    return RunRecords(
        path.parent,
        run,
        tuple(plan.values()),
        tuple(cases.values()),
        end,
        tuple(damaged),
        tuple(checks.values()),
        tuple(resumes),
    )


def _lines(text: str, path: Path, damaged: list[str]) -> Iterator[Line]:
    """Yield the lines of a run's records; what is wrong with the others goes to `damaged`."""
    # Not `splitlines`: for it a line also ends at U+2028 or U+0085, which JSON leaves as they are.
    for number, raw in enumerate(text.split("\n"), 1):
        if not raw.strip():
            continue
        try:
            yield _LINE.validate_json(raw)
        except ValidationError as error:
            _refuse_older_form(raw, path)
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"]))
            damaged.append(f"line {number}: {f'{place}: ' if place else ''}{fault['msg']}"[:200])


def read_samples(directory: Path, file: str) -> Samples:
    """Return the execution times that `writer.write_samples` kept. Raises `RecordError`: the file
    is absent, outside of the run, or no such file.
    """
    path = directory / file
    try:
        if not path.resolve().is_relative_to(directory.resolve()):
            raise ValueError("it lies outside of the run")
        data = json.loads(regular_text(path))

        def rounds(value: Any) -> Rounds:
            return tuple(tuple(float(sample) for sample in one) for one in value)

        known = {one.name for one in fields(Samples)}
        return Samples(**{name: rounds(data[name]) for name in known & set(data)})
    except _UNUSABLE as error:
        raise RecordError(f"no samples at {path}: {error}") from error


def _refuse_older_form(raw: str, path: Path) -> None:
    """Refuse a file of another version: its values have another form."""
    try:
        version = json.loads(raw).get("schema_version", SCHEMA)
    except (ValueError, AttributeError, RecursionError):
        return  # no line of any version
    if isinstance(version, int) and version < SCHEMA:
        raise RecordError(
            f"{path} has records of an older form ({version}, this harness reads {SCHEMA})",
            remedy="read it with the version that wrote it, or run again",
        )
