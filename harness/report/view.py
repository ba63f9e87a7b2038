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
from harness.pages.charts import Chart
from harness.pages.looks import LOOKS, Banner, Look, Tone
from harness.pages.words import say
from harness.records.lines import GuideFigures
from harness.records.reader import RunRecords
from harness.report import charts, findings, guide_tables, rows
from harness.report.cases import CaseView, CheckView, Room
from harness.report.findings import grouped
from harness.report.headline import Headline, Sum, headline, reconcile
from harness.report.provenance import Shown, key_of, shown

# Characters of HTML of all logs of a page together, of one at least, and at most; the same of the
# diagnoses: 100 cases stay well under 2 MB.
LOGS = (500_000, 400, 12_000)
DIAGNOSES = (300_000, 1_000, 20_000)
SMALL_STAGE = 1.0  # percent of the time of all stages: those below are one

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
        return "top-1" if self.check == "accuracy" else say("frames a second")


@dataclass(frozen=True)
class RunView:
    """A run as it is shown."""

    shown: Shown

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
            return say(f"{self.banners[-1].noun} report")
        return say("Acceptance report") if self.shown.kinds else say("Report")

    @property
    def run(self) -> str:
        run = self.records.run
        return formats.line(run.run if run else self.records.directory.name, 80)

    @cached_property
    def headline(self) -> Headline:
        return headline(self.shown, self.whys)

    @property
    def icon(self) -> Look:
        return LOOKS[_ICONS[self.headline.tone]]

    @cached_property
    def sum(self) -> Sum:
        return reconcile(self.shown)

    @cached_property
    def whys(self) -> tuple[findings.Why, ...]:
        return findings.whys(self.shown)

    @property
    def exit_words(self) -> str:
        return findings.exit_words(self.shown, bad=self.headline.tone == "bad")

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

        def each(count: int, total: int, least: int, most: int) -> int:
            return max(least, min(most, total // max(1, count)))

        return Room(log=each(logs, *LOGS), diagnosis=each(diagnosed, *DIAGNOSES))

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """One matrix for each target and check, in the order of the plan."""
        groups = grouped(self.cases, lambda case: (case.line.target, case.line.check))
        return tuple(_matrix(*key, cases) for key, cases in groups.items())

    def values(self, name: str) -> tuple[str, ...]:
        """Return the models, checks or targets of the cases, each once."""
        return tuple(dict.fromkeys(str(getattr(case, name)) for case in self.records.cases))

    # Tables and charts ---------------------------------------------------------------------

    @cached_property
    def guide_accuracy(self) -> tuple[list[CaseView], ...]:
        """Every accuracy of a real run, those of a model and target together."""
        return tuple(self._measured("accuracy").values()) if self.shown.real else ()

    def _measured(self, check: Check) -> dict[tuple[str, str], list[CaseView]]:
        """The cases that measured something, by model and target."""
        known = [case for case in self.cases if case.line.measured is not None]
        cases = [case for case in known if case.line.check == check]
        return grouped(cases, lambda case: (case.line.model, case.line.target))

    @cached_property
    def guide_speed(self) -> tuple[guide_tables.SpeedTable, ...]:
        timed = [case for case in self.cases if case.line.check == "throughput"]
        return guide_tables.speed_tables(timed, self._published)

    @property
    def _published(self) -> Mapping[str, GuideFigures]:
        return self.records.run.guide_figures if self.records.run is not None else {}

    @cached_property
    def speed_charts(self) -> tuple[Chart, ...]:
        """Throughput over batch size for each model and target."""
        timed = self._measured("throughput").items()
        drawn = (self._speed_chart(*key, cases) for key, cases in timed)
        return tuple(chart for chart in drawn if chart is not None)

    def _speed_chart(self, model: str, target: str, cases: list[CaseView]) -> Chart | None:
        measured, reference, held_against = {}, {}, {}
        for case in cases:
            line, held = case.line, case.reference
            known = line.throughput.timing.half_width_percent if line.throughput else 0.0
            measured[line.batch_size] = charts.Speed(
                line.measured or 0.0, known, line.outcome, not guide_tables.why_not(line)
            )
            if held is not None and held.value is not None:
                reference[line.batch_size] = held.value
                held_against[held.kind] = case.reference_name
        if "baseline" in held_against and model in self._published:
            # The guide's whole column: batch sizes that were not run as well.
            for one in self._published[model].speeds:
                if one.target == target and not one.not_comparable:
                    reference.setdefault(one.batch_size, one.fps)
        who, where = formats.line(model, 120), formats.line(target, 60)
        title = say("{who} on {targets}", who=who, targets=where)
        return charts.over_batch_size(title, measured, reference, ", ".join(held_against.values()))

    # Time ----------------------------------------------------------------------------------

    @cached_property
    def _seconds(self) -> dict[Stage, float]:
        """Seconds of each stage over all cases, the longest first."""
        totals: dict[Stage, float] = {}
        for case in self.records.cases:
            for one in case.stages:
                totals[one.stage] = totals.get(one.stage, 0.0) + max(0.0, one.seconds)
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    @property
    def stages_total(self) -> str:
        return formats.duration(sum(self._seconds.values()))

    @cached_property
    def stages(self) -> tuple[charts.Bar, ...]:
        """Where the time went."""
        parts = [(say(stage.doing), took) for stage, took in self._seconds.items()]
        return charts.bars(parts, least=SMALL_STAGE)

    # Environment ---------------------------------------------------------------------------

    @cached_property
    def environment(self) -> rows.Groups:
        """The machines, devices, versions and settings of the run."""
        run, cases = self.records.run, self.records.cases
        if run is None:
            return {}
        end, about = self.records.end, formats.line
        ran = rows.rows(
            ("run", about(run.run)),
            ("provenance", say(run.provenance)),
            ("started", formats.moment(run.started)),
            ("finished", formats.moment(end.finished) if end else say("no end line")),
            ("duration", formats.duration(end.seconds) if end and end.seconds else ""),
            ("exit status", str(end.exit_status) if end else ""),
            ("git revision", about(run.git)),
            ("catalog digest", about(run.catalog_digest)),
            ("working directory", about(run.directory)),
            ("merged from", about(", ".join(run.merged))),
        )
        others = dict.fromkeys(case.machine for case in cases)
        machines = [run.machine, *(one for one in others if one not in (run.machine, Machine()))]
        settings = {name.replace("_", " "): value for name, value in run.settings.items()}
        return {
            "Run": ran,
            **{say("Machine {n}", n=n): rows.fields(one) for n, one in enumerate(machines, 1)},
            "Devices and toolchain": rows.toolchain(cases),
            "Versions": rows.known(run.versions),
            "Settings": rows.known(settings),
        }

    @property
    def command(self) -> str:
        run = self.records.run
        return shlex.join(run.command) if run is not None else ""


def view(records: RunRecords) -> RunView:
    """Return the view of a run."""
    return RunView(shown(records))


def _matrix(target: str, check: Check, cases: Sequence[CaseView]) -> Matrix:
    sizes = tuple(sorted({case.line.batch_size for case in cases}))
    table = []
    for model, row in grouped(cases, lambda case: case.line.model).items():
        title = next((case.line.title for case in row if case.line.title), "")
        cells = tuple(tuple(case for case in row if case.line.batch_size == size) for size in sizes)
        table.append((model, title if title != model else "", cells))
    return Matrix(target, check, sizes, tuple(table))
