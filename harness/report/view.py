"""The view of a run: what the page, the terminal, `why` and every export are made from.

It is built from what `provenance.shown` lets through and nothing else. What is costly is made when
it is first asked for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.base.host import Machine
from harness.base.stages import Stage
from harness.base.terms import OUTCOMES, Check, Outcome
from harness.pages import formats
from harness.pages.looks import LOOKS, Banner, Look, Tone
from harness.records.lines import GuideFigures
from harness.records.reader import RunRecords
from harness.report import charts, findings, guide_tables, rows
from harness.report.cases import CaseView, CheckView, Room
from harness.report.headline import Headline, Sum, headline, reconcile
from harness.report.provenance import Shown, key_of, shown
from harness.report.thumbs import PAGE_TOTAL, Thumbs

# All logs of a page together, in characters of HTML: keeps 100 cases well under 2 MB.
LOGS_TOTAL = 500_000
LOG_LONGEST = 12_000
LOG_SHORTEST = 400
# The same for the diagnoses.
DIAGNOSES_TOTAL = 300_000
DIAGNOSIS_LONGEST = 20_000
DIAGNOSIS_SHORTEST = 1_000
SMALL_STAGE = 0.005
"""Of the time of all stages: a part of the bar below this is not seen."""

_CHECKS_FIRST = ("failed", "inconclusive", "passed", "recorded")
_ICONS: dict[Tone, Outcome] = {
    "good": "passed",
    "bad": "failed",
    "warn": "inconclusive",
    "neutral": "recorded",
}


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

    # What it amounts to --------------------------------------------------------------------

    @property
    def name(self) -> str:
        if self.banners:
            return f"{self.banners[-1].noun} report"
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
    def counts(self) -> tuple[tuple[Look, int], ...]:
        """How many cases ended how."""
        counts = self.records.counts()
        return tuple((LOOKS[outcome], counts[outcome]) for outcome in OUTCOMES)

    # Its cases -----------------------------------------------------------------------------

    @cached_property
    def anchors(self) -> dict[str, str]:
        """Unique, harmless element ids, by the key of a case or check."""
        names = {case.nodeid: f"{case.case}-{case.check}" for case in self.records.cases}
        names |= {key_of(check): f"{key_of(check)}-check" for check in self.records.checks}
        taken: dict[str, str] = {}
        for key, name in names.items():
            anchor = base = "case-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:120]
            count = 1
            while anchor in taken:
                count += 1
                anchor = f"{base}-{count}"
            taken[anchor] = key
        return {key: anchor for anchor, key in taken.items()}

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

        def each(total: float, count: int, shortest: int, longest: int) -> int:
            return max(shortest, min(longest, int(total * self.share) // max(1, count)))

        return Room(
            log=each(LOGS_TOTAL, logs, LOG_SHORTEST, LOG_LONGEST),
            diagnosis=each(DIAGNOSES_TOTAL, diagnosed, DIAGNOSIS_SHORTEST, DIAGNOSIS_LONGEST),
            thumbs=Thumbs(self.records.directory, int(PAGE_TOTAL * self.share)),
        )

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """One matrix for each target and check, in the order of the plan."""
        groups: dict[tuple[str, Check], dict[str, list[CaseView]]] = {}
        for case in self.cases:
            models = groups.setdefault((case.line.target, case.line.check), {})
            models.setdefault(case.line.model, []).append(case)
        return tuple(_matrix(*key, models) for key, models in groups.items())

    def values(self, name: str) -> tuple[str, ...]:
        """Return the models, checks or targets of the cases, each once."""
        return tuple(dict.fromkeys(str(getattr(case, name)) for case in self.records.cases))

    # Tables and charts ---------------------------------------------------------------------

    @cached_property
    def guide_accuracy(self) -> tuple[list[CaseView], ...]:
        """Every accuracy case that measured something, those of a model and target together."""
        groups: dict[tuple[str, str], list[CaseView]] = {}
        for case in self.cases:
            if case.line.check == "accuracy" and case.line.measured is not None:
                groups.setdefault((case.line.model, case.line.target), []).append(case)
        return tuple(groups.values())

    @cached_property
    def guide_speed(self) -> tuple[guide_tables.SpeedTable, ...]:
        return guide_tables.speed_tables(self.cases, self._published)

    @property
    def _published(self) -> Mapping[str, GuideFigures]:
        return self.records.run.guide_figures if self.records.run is not None else {}

    @cached_property
    def speed_charts(self) -> tuple[charts.Chart, ...]:
        """Throughput over batch size for each model and target."""
        groups: dict[tuple[str, str], list[CaseView]] = {}
        for case in self.cases:
            if case.line.throughput is not None and case.line.measured is not None:
                groups.setdefault((case.line.model, case.line.target), []).append(case)
        drawn = (self._speed_chart(*key, cases) for key, cases in groups.items())
        return tuple(chart for chart in drawn if chart is not None)

    def _speed_chart(self, model: str, target: str, cases: list[CaseView]) -> charts.Chart | None:
        measured, reference, names = {}, {}, []
        for case in cases:
            line, held = case.line, case.reference
            known = line.throughput.timing.half_width_percent if line.throughput else 0.0
            measured[line.batch_size] = charts.Speed(
                line.measured or 0.0, known, line.outcome, not guide_tables.why_not(line)
            )
            if held is not None and held.value is not None:
                reference[line.batch_size] = held.value
                names.append(case.reference_name)
        if "baseline" in names and model in self._published:
            # The guide's whole column: batch sizes that were not run as well.
            for one in self._published[model].speeds:
                if one.target == target and not one.not_comparable:
                    reference.setdefault(one.batch_size, one.fps)
        title = f"{formats.line(model, 120)} on {formats.line(target, 60)}"
        return charts.over_batch_size(title, measured, reference, ", ".join(dict.fromkeys(names)))

    @cached_property
    def intervals(self) -> tuple[tuple[CaseView, charts.Interval], ...]:
        """Every interval of an accuracy."""
        return tuple((case, one) for case in self.cases for one in case.intervals)

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
        seconds, total = self._seconds, sum(self._seconds.values())
        small = {stage: took for stage, took in seconds.items() if took < SMALL_STAGE * total}
        if len(small) < 2:
            small = {}
        parts: list[tuple[Stage | None, str, float, str]] = [
            (stage, stage.doing, took, "") for stage, took in seconds.items() if stage not in small
        ]
        if small:
            names = ", ".join(stage.doing for stage in small)
            parts.append((None, "all others", sum(small.values()), names))
        return charts.stacked(parts, self._places)

    # Environment ---------------------------------------------------------------------------

    @cached_property
    def environment(self) -> rows.Groups:
        """The machines, devices, versions and settings of the run."""
        run, cases = self.records.run, self.records.cases
        if run is None:
            return {}
        others = dict.fromkeys(case.machine for case in cases)
        machines = [run.machine, *(one for one in others if one not in (run.machine, Machine()))]
        settings = (
            (formats.line(name.replace("_", " "), 80), formats.option(value))
            for name, value in run.settings.items()
        )
        return {
            **{f"Machine {n}": rows.fields(machine) for n, machine in enumerate(machines, 1)},
            "Devices and toolchain": rows.toolchain(cases),
            "Versions": rows.known(run.versions),
            "Settings": rows.rows(*settings),
        }

    @property
    def command(self) -> str:
        run = self.records.run
        return shlex.join(run.command) if run is not None else ""


def view(records: RunRecords, *, share: float = 1.0) -> RunView:
    """Return the view of a run."""
    return RunView(shown(records), share)


def _matrix(target: str, check: Check, models: Mapping[str, list[CaseView]]) -> Matrix:
    cases = [case for row in models.values() for case in row]
    sizes = tuple(sorted({case.line.batch_size for case in cases}))
    found = []
    for model, row in models.items():
        title = next((case.line.title for case in row if case.line.title), "")
        cells = tuple(tuple(case for case in row if case.line.batch_size == size) for size in sizes)
        found.append((model, title if title != model else "", cells))
    return Matrix(target, check, sizes, tuple(found))
