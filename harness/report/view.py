"""The view of a run: what the page, the terminal, `why` and every export are made from.

It is built from what `provenance.shown` lets through and nothing else. What is costly is made when
it is first asked for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.base.host import Machine
from harness.base.terms import OUTCOMES, Check
from harness.pages import formats
from harness.pages.looks import LOOKS, Banner, Look
from harness.pages.words import say
from harness.records.reader import RunRecords
from harness.report import findings, rows
from harness.report.cases import CaseView, CheckView, Room
from harness.report.findings import grouped
from harness.report.headline import Headline, Sum, headline, reconcile
from harness.report.provenance import Shown, key_of, shown

# Characters of all logs of a page together, of one at least, and at most; the same of the
# diagnoses: 1,000 cases stay below 4 MB.
LOGS = (500_000, 400, 12_000)
DIAGNOSES = (300_000, 1_000, 20_000)
MOST_OPEN = 20
"""Cases that need a look and stand open; more of them would bury the page."""
UNGROUPED = 12
"""Models of a matrix that needs no families."""

_CHECKS_FIRST = ("failed", "inconclusive", "passed", "recorded")


@dataclass(frozen=True)
class Row:
    """One model of a matrix: its cases by batch size, often one."""

    model: str
    title: str
    cells: tuple[tuple[CaseView, ...], ...]

    @property
    def family(self) -> str:
        """`resnet` of `resnet50` and `resnet101_v2`: the letters that the name begins with."""
        letters = re.match(r"[A-Za-z]+", self.model)
        return letters[0].lower() if letters else self.model


@dataclass(frozen=True)
class Matrix:
    """Models by batch sizes for one target and one check."""

    target: str
    check: Check
    batch_sizes: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def unit(self) -> str:
        return "top-1" if self.check == "accuracy" else say("frames a second")

    @property
    def families(self) -> dict[str, list[Row]]:
        """The rows by family; few models are one without a name."""
        if len(self.rows) <= UNGROUPED:
            return {"": list(self.rows)}
        return dict(sorted(grouped(self.rows, lambda row: row.family).items()))


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
        """How many cases ended how, without those that none did."""
        counts = self.records.counts()
        return tuple((LOOKS[outcome], counts[outcome]) for outcome in OUTCOMES if counts[outcome])

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
    def open(self) -> frozenset[str]:
        """Anchors of the cases that stand open."""
        return frozenset([case.anchor for case in self.cases if case.needs_a_look][:MOST_OPEN])

    @cached_property
    def checks(self) -> tuple[CheckView, ...]:
        """The checks over the cases, those that do not hold first."""
        ordered = sorted(self.records.checks, key=lambda one: _CHECKS_FIRST.index(one.outcome))
        return tuple(
            CheckView(check, self.anchors[key_of(check)], self.shown.notes.get(key_of(check), ""))
            for check in ordered
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
        """Return the checks or targets of the cases, each once."""
        return tuple(dict.fromkeys(str(getattr(case, name)) for case in self.records.cases))

    # The run itself ------------------------------------------------------------------------

    @cached_property
    def groups(self) -> rows.Groups:
        """Where the time went; the machines, devices, versions and settings of the run."""
        run, cases = self.records.run, self.records.cases
        times = {"Where the time went": rows.times(cases)}
        if run is None:
            return times
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
            **times,
            "Run": ran,
            **{say("Machine {n}", n=n): rows.fields(one) for n, one in enumerate(machines, 1)},
            "Devices and toolchain": rows.devices(cases),
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
        by_size = grouped(row, lambda case: case.line.batch_size)
        cells = tuple(tuple(by_size.get(size, ())) for size in sizes)
        table.append(Row(model, title if title != model else "", cells))
    return Matrix(target, check, sizes, tuple(table))
