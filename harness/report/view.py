"""The view of a run: what the page, the terminal, `why` and every export are made from.

It is built from what `provenance.shown` lets through and nothing else. What is costly is made when
it is first asked for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.base.host import Machine
from harness.base.stages import Stage
from harness.base.terms import OUTCOMES, Check, Outcome
from harness.pages import formats
from harness.pages.looks import LOOKS, Banner, Look, Tone
from harness.records.lines import GuideFigures
from harness.records.reader import RunRecords
from harness.records.verdicts import ReferenceKind
from harness.report import charts, findings, guide_tables, plots, rows
from harness.report.cases import CaseView, CheckView, Room
from harness.report.headline import Headline, Sum, headline, reconcile
from harness.report.provenance import Shown, key_of, shown
from harness.report.rows import Group
from harness.report.thumbs import PAGE_TOTAL, Thumbs

# All logs of a page together, in characters of HTML: keeps 100 cases well under 2 MB.
LOGS_TOTAL = 500_000
LOG_LONGEST = 12_000
LOG_SHORTEST = 400
# The same for the diagnoses.
DIAGNOSES_TOTAL = 300_000
DIAGNOSIS_LONGEST = 20_000
DIAGNOSIS_SHORTEST = 1_000
ROOM = LOGS_TOTAL + DIAGNOSES_TOTAL + PAGE_TOTAL
MACHINES_SHOWN = 16
SMALL_STAGE = 0.005
"""Of the time of all stages: a part of the bar below this is not seen."""

_CHECKS_FIRST = ("failed", "inconclusive", "passed", "recorded")
_ICONS: dict[Tone, Outcome] = {
    "good": "passed",
    "bad": "failed",
    "warn": "inconclusive",
    "neutral": "recorded",
}
# What the line of a throughput chart is held against.
_SPEEDS: dict[ReferenceKind, str] = {
    "baseline": "baseline",
    "eager-speed": "eager PyTorch, same host",
}


@dataclass(frozen=True)
class Count:
    """How many cases ended so; `share` in percent of all."""

    look: Look
    count: int
    share: float


@dataclass(frozen=True)
class Matrix:
    """Models by batch sizes for one target and one check; a cell holds its cases, often one."""

    target: str
    check: Check
    batch_sizes: tuple[int, ...]
    rows: tuple[tuple[str, str, tuple[tuple[CaseView, ...], ...]], ...]  # model, title, cells

    @property
    def unit(self) -> str:
        return "top-1" if self.check == "accuracy" else "frames a second"


@dataclass(frozen=True)
class RunView:
    """A run as it is shown. `share`: how much of their usual room logs and pictures get."""

    shown: Shown
    share: float = 1.0

    @property
    def records(self) -> RunRecords:
        """The records as they may be shown, every planned case among them."""
        return self.shown.records

    @property
    def banners(self) -> tuple[Banner, ...]:
        return self.shown.banners

    @property
    def real(self) -> bool:
        return self.shown.real

    # What it amounts to --------------------------------------------------------------------

    @property
    def name(self) -> str:
        if "simulated" in self.shown.kinds:
            return "Simulation report"
        if "rehearsal" in self.shown.kinds:
            return "Rehearsal report"
        return "Acceptance report" if self.shown.kinds else "Report"

    @property
    def run(self) -> str:
        run = self.records.run
        return formats.line(run.run if run else self.records.directory.name, 80)

    @cached_property
    def headline(self) -> Headline:
        return headline(self.shown)

    @property
    def icon(self) -> Look:
        return LOOKS[_ICONS[self.headline.tone]]

    @cached_property
    def sum(self) -> Sum:
        return reconcile(self.shown)

    @cached_property
    def whys(self) -> tuple[findings.Why, ...]:
        return findings.whys(self.shown)

    @cached_property
    def entries(self) -> tuple[findings.Entry, ...]:
        return findings.entries(self.shown)

    @property
    def exit_words(self) -> str:
        return findings.exit_words(self.shown)

    @cached_property
    def counts(self) -> tuple[Count, ...]:
        counts = self.records.counts()
        total = max(1, sum(counts.values()))
        return tuple(
            Count(LOOKS[outcome], counts[outcome], round(100 * counts[outcome] / total, 2))
            for outcome in OUTCOMES
        )

    # Its cases -----------------------------------------------------------------------------

    @cached_property
    def anchors(self) -> dict[str, str]:
        """Unique, harmless element ids, by the key of a case or check."""
        found: dict[str, str] = {}
        names = {case.nodeid: f"{case.case}-{case.check}" for case in self.records.cases}
        names |= {key_of(check): f"{key_of(check)}-check" for check in self.records.checks}
        taken: set[str] = set()
        for key, name in names.items():
            base = "case-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:120]
            anchor, count = base, 1
            while anchor in taken:
                count += 1
                anchor = f"{base}-{count}"
            taken.add(anchor)
            found[key] = anchor
        return found

    @cached_property
    def cases(self) -> tuple[CaseView, ...]:
        return tuple(
            CaseView(
                line=case,
                anchor=self.anchors[case.nodeid],
                note=self.shown.notes.get(case.nodeid, ""),
                withheld=case.nodeid in self.shown.withheld,
                records=self.records,
                places=self._places,
                room=self._room,
            )
            for case in self.records.cases
        )

    @cached_property
    def checks(self) -> tuple[CheckView, ...]:
        """The checks over the cases, those that do not hold first."""
        return tuple(
            CheckView(
                line=check,
                anchor=self.anchors[key_of(check)],
                note=self.shown.notes.get(key_of(check), ""),
                records=self.records,
                room=self._room,
            )
            for check in sorted(
                self.records.checks, key=lambda one: _CHECKS_FIRST.index(one.outcome)
            )
        )

    @cached_property
    def _room(self) -> Room:
        cases = self.records.cases
        logs = sum(bool(one.log) for case in cases for one in (*case.artifacts, case.error) if one)
        diagnosed = sum(case.diagnosis is not None for case in cases)
        return Room(
            log=_bounded(LOGS_TOTAL * self.share, logs, LOG_SHORTEST, LOG_LONGEST),
            diagnosis=_bounded(
                DIAGNOSES_TOTAL * self.share, diagnosed, DIAGNOSIS_SHORTEST, DIAGNOSIS_LONGEST
            ),
            thumbs=Thumbs(self.records.directory, int(PAGE_TOTAL * self.share)),
        )

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """One matrix for each target and check, in the order of the plan."""
        groups: dict[tuple[str, Check], list[CaseView]] = {}
        for case in self.cases:
            groups.setdefault((case.line.target, case.line.check), []).append(case)
        return tuple(_matrix(*key, cases) for key, cases in groups.items())

    def values(self, name: str) -> tuple[str, ...]:
        """Return the models, checks or targets of the cases, each once."""
        return tuple(dict.fromkeys(str(getattr(case, name)) for case in self.records.cases))

    # Tables and charts ---------------------------------------------------------------------

    @cached_property
    def guide_accuracy(self) -> tuple[tuple[guide_tables.AccuracyRow, ...], ...]:
        return guide_tables.accuracy_table(self.cases, self._published)

    @cached_property
    def guide_speed(self) -> tuple[guide_tables.SpeedTable, ...]:
        return guide_tables.speed_tables(self.cases, self._published)

    @property
    def _published(self) -> Mapping[str, GuideFigures]:
        return self.records.run.guide_figures if self.records.run is not None else {}

    @cached_property
    def speed_plots(self) -> tuple[plots.Plot, ...]:
        """Throughput over batch size for each model and target."""
        groups: dict[tuple[str, str], list[CaseView]] = {}
        for case in self.cases:
            if case.line.throughput is not None and case.line.measured is not None:
                groups.setdefault((case.line.model, case.line.target), []).append(case)
        found = (self._speed_plot(*key, cases) for key, cases in groups.items())
        return tuple(plot for plot in found if plot is not None)

    def _speed_plot(self, model: str, target: str, cases: Sequence[CaseView]) -> plots.Plot | None:
        measured, reference, names = {}, {}, []
        for case in cases:
            line, held = case.line, case.reference
            known = line.throughput.timing.half_width_percent if line.throughput else 0.0
            measured[line.batch_size] = plots.Speed(
                line.measured or 0.0, known, line.outcome, not guide_tables.why_not(line)
            )
            if held is not None and held.value is not None and held.kind in _SPEEDS:
                reference[line.batch_size] = held.value
                names.append(_SPEEDS[held.kind])
        if _SPEEDS["baseline"] in names and model in self._published:
            # The guide's whole column: batch sizes that were not run as well.
            for one in self._published[model].speeds:
                if one.target == target and not one.not_comparable:
                    reference.setdefault(one.batch_size, one.fps)
        name = ", ".join(dict.fromkeys(names))
        title = f"{formats.line(model, 120)} on {formats.line(target, 60)}"
        return plots.over_batch_size(title, measured, reference, name)

    @cached_property
    def intervals(self) -> tuple[tuple[CaseView, plots.IntervalShape], ...]:
        """Every interval of an accuracy, on one axis."""
        found = [(case, one.interval) for case in self.cases for one in case.intervals]
        shapes = plots.interval_shapes([interval for _, interval in found])
        return tuple(zip((case for case, _ in found), shapes, strict=True))

    # Time ----------------------------------------------------------------------------------

    @cached_property
    def _seconds(self) -> dict[Stage, float]:
        """Seconds of each stage over all cases, the longest first."""
        totals: dict[Stage, float] = {}
        for case in self.records.cases:
            for one in case.stages:
                totals[one.stage] = totals.get(one.stage, 0.0) + max(0.0, one.seconds)
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    @cached_property
    def _places(self) -> dict[Stage, int]:
        return {stage: place for place, stage in enumerate(self._seconds)}

    @property
    def stages_total(self) -> str:
        return formats.duration(sum(self._seconds.values()))

    @cached_property
    def stages(self) -> tuple[charts.Segment, ...]:
        """Where the time went; what nobody would see in the bar is one part of it."""
        total = sum(self._seconds.values())
        small = [stage for stage, took in self._seconds.items() if took < SMALL_STAGE * total]
        if len(small) < 2:
            small = []
        parts: list[tuple[Stage | None, str, float, str]] = [
            (stage, stage.doing, took, "")
            for stage, took in self._seconds.items()
            if stage not in small
        ]
        if small:
            rest = sum(self._seconds[stage] for stage in small)
            parts.append((None, "all others", rest, ", ".join(one.doing for one in small[:8])))
        return charts.stacked(parts, self._places)

    # Environment ---------------------------------------------------------------------------

    @cached_property
    def facts(self) -> tuple[str, ...]:
        run, end = self.records.run, self.records.end
        facts = []
        if run is not None:
            facts += [f"run {formats.line(run.run, 80)}", f"started {formats.moment(run.started)}"]
        if end is not None and end.seconds:
            facts.append(f"took {formats.duration(end.seconds)}")
        if run is not None and run.machine.hostname:
            facts.append(f"on {formats.line(run.machine.hostname, 80)}")
        if run is not None and run.git:
            facts.append(f"git {formats.line(run.git, 20)}")
        return tuple(facts)

    @cached_property
    def environment(self) -> tuple[Group, ...]:
        run, end, cases = self.records.run, self.records.end, self.records.cases
        if run is None:
            return ()
        about = rows.rows(
            ("run", formats.line(run.run)),
            ("provenance", run.provenance),
            ("started", formats.moment(run.started)),
            ("finished", formats.moment(end.finished) if end else "no end line"),
            ("duration", formats.duration(end.seconds) if end else ""),
            ("exit status", str(end.exit_status) if end else ""),
            ("git revision", formats.line(run.git)),
            ("catalog digest", formats.line(run.catalog_digest)),
            ("working directory", formats.line(run.directory)),
            ("merged from", formats.line(", ".join(run.merged))),
        )
        others = dict.fromkeys(
            case.machine for case in cases if case.machine not in (run.machine, Machine())
        )
        machines = (
            Group(f"Machine {number}", rows.fields(machine))
            for number, machine in enumerate(list(others)[:MACHINES_SHOWN], 2)
        )
        settings = (
            (formats.line(name.replace("_", " "), 80), formats.option(value))
            for name, value in run.settings.items()
        )
        return rows.filled(
            Group("Run", about),
            Group("Machine", rows.fields(run.machine)),
            *machines,
            Group("Devices and toolchain", rows.toolchain(cases)),
            Group("Versions", rows.known(run.versions)),
            Group("Settings", rows.rows(*settings)),
        )

    @property
    def command(self) -> str:
        run = self.records.run
        return shlex.join(run.command) if run is not None else ""

    @property
    def damaged(self) -> tuple[str, ...]:
        return tuple(formats.line(text, 300) for text in self.records.damaged[:50])


def view(records: RunRecords, *, share: float = 1.0) -> RunView:
    """Return the view of a run."""
    return RunView(shown(records), share)


def _bounded(total: float, count: int, shortest: int, longest: int) -> int:
    return max(shortest, min(longest, int(total) // max(1, count)))


def _matrix(target: str, check: Check, cases: Sequence[CaseView]) -> Matrix:
    sizes = tuple(sorted({case.line.batch_size for case in cases}))
    by_model: dict[str, list[CaseView]] = {}
    for case in cases:
        by_model.setdefault(case.line.model, []).append(case)
    found = []
    for model, views in by_model.items():
        title = next((case.line.title for case in views if case.line.title), "")
        cells = tuple(
            tuple(case for case in views if case.line.batch_size == size) for size in sizes
        )
        found.append((model, title if title != model else "", cells))
    return Matrix(target, check, sizes, tuple(found))
