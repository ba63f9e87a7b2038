"""One case of a run, and one check over its cases, as a report shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from markupsafe import Markup, escape

from harness.base.errors import RecordError
from harness.base.text import clean
from harness.pages import formats
from harness.pages.charts import Chart
from harness.pages.formats import NO_VALUE
from harness.pages.looks import ATTENTION, LOOKS, Look
from harness.pages.words import say
from harness.records import reader
from harness.records.lines import CaseLine, RunCheckLine
from harness.records.observed import Diagnosis, Section
from harness.records.reader import RunRecords
from harness.records.verdicts import BatchFlip, FigureName, Reference, ReferenceKind
from harness.report import charts, rows

FLIPS_SHOWN = 20
SECTIONS_SHOWN = 12
ROWS_SHOWN = 60

_REFERENCES: dict[ReferenceKind, str] = {
    "published": "published figure",
    "eager": "eager PyTorch",
    "onnx": "ONNX Runtime on the CPU",
    "baseline": "baseline",
    "eager-speed": "eager PyTorch",
    "batch-size": "other batch size",
    "ratio": "other chip",
    "none": "no reference",
}


@dataclass(frozen=True)
class Log:
    """The end of a log, escaped; `cut`: its beginning is left out."""

    text: Markup
    cut: bool


def tail(text: str, limit: int) -> Log | None:
    """Return the end of a log, in at most `limit` characters of HTML; None of an empty one."""
    text = text.strip("\n")
    # A log may be long: what is far before its end is not even looked at.
    html = escape(clean(text[-limit:]))
    cut = len(text) > limit or len(html) > limit
    html = html[-limit:]
    if cut:
        html = html.partition("\n")[2] or html
    return Log(html, cut) if html else None


@dataclass(frozen=True)
class Room:
    """What a page may hold: characters of one log and of one diagnosis."""

    log: int
    diagnosis: int


@dataclass(frozen=True)
class CaseView:
    """A case: its line as it may be shown, and what is drawn of it."""

    line: CaseLine
    anchor: str
    note: str
    withheld: bool
    records: RunRecords
    room: Room

    @property
    def look(self) -> Look:
        return LOOKS[self.line.outcome]

    @property
    def open(self) -> bool:
        return self.line.outcome in ATTENTION

    def class_of(self, index: int) -> str:
        """Return a class by its index, with its name where the model has names."""
        names = self.line.class_names
        name = names[index] if 0 <= index < len(names) else ""
        return formats.line(f"{index} {name}", 60).strip()

    @cached_property
    def measured(self) -> str:
        """The figure in its unit, no finer than it is known."""
        found = self.line.throughput
        known = found.timing.half_width_percent if found is not None else None
        return formats.figure(self.line.measured, self.line.unit, known)

    @cached_property
    def difference(self) -> str:
        """How far the figure is from its reference, in percent of that."""
        found = self.line.throughput
        known = found.half_width_percent if found is not None else None
        return formats.difference(self.line.difference_percent, half_width=known)

    @property
    def reference(self) -> Reference | None:
        return None if self.withheld else self.line.reference

    @property
    def reference_name(self) -> str:
        return say(_REFERENCES[self.reference.kind] if self.reference is not None else "withheld")

    @property
    def reference_value(self) -> str:
        reference = self.reference
        if reference is None:
            return NO_VALUE
        return formats.figure(reference.value, reference.unit or self.line.unit)

    @property
    def relative_error(self) -> str:
        """`0.0003 (0.03 %)`: |measured - reference| / reference, as guide 000 writes it."""
        off = self.line.difference_percent
        if off is None or not math.isfinite(off):
            return NO_VALUE
        return f"{abs(off) / 100:.4f} ({formats.percent(abs(off))})"

    @property
    def device(self) -> str:
        return rows.device_line(self.line)

    @cached_property
    def trouble(self) -> tuple[str, ...]:
        """What spoke against the device while it was measured."""
        found = self.line.throughput
        looks = dict.fromkeys(look.trouble for look in (found.conditions if found else ()))
        return tuple(text for text in looks if text)[:6]

    @cached_property
    def groups(self) -> rows.Groups:
        """Figures of the verdict and of the measurement."""
        line = self.line
        verdict = None if self.withheld else line.verdict
        figures = rows.figures_of(verdict) if verdict is not None else ()
        measured: rows.Groups = {}
        if line.accuracy is not None:
            measured = rows.accuracy(line.accuracy)
        elif line.throughput is not None:
            measured = rows.throughput(line.throughput)
        published = rows.editions(self.reference)
        return {"Figures of the verdict": figures, "Published figures": published, **measured}

    @cached_property
    def circumstances(self) -> rows.Groups:
        return rows.circumstances(self.line, self.records.run)

    @cached_property
    def latency(self) -> Chart | None:
        """The execution times, where their file lies in the run."""
        found = self.line.throughput
        if found is None or not found.samples_file:
            return None
        try:
            times = reader.read_samples(self.records.directory, found.samples_file)
        except RecordError:
            return None
        return charts.latency([sample for one in times.ours for sample in one])

    @cached_property
    def temperature(self) -> Chart | None:
        found = self.line.throughput
        looks = found.conditions if found is not None else ()
        return charts.temperature(
            [
                (look.seconds, look.temperature_c, bool(look.trouble))
                for look in looks
                if look.temperature_c is not None
            ]
        )

    @cached_property
    def intervals(self) -> tuple[charts.Interval, ...]:
        """The intervals that a real accuracy was judged by."""
        return charts.intervals(self.line, self.records.run)

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        found = self.line.diagnosis
        return None if found is None else bounded(found, self.room.diagnosis)

    def log(self, text: str) -> Log | None:
        """Return the end of a log, as much of it as there is room for."""
        return tail(text, self.room.log)

    @cached_property
    def stages(self) -> tuple[charts.Bar, ...]:
        stored = f" ({say('from the store')})"
        parts = [
            (say(one.stage.doing) + stored * one.cached, one.seconds) for one in self.line.stages
        ]
        return charts.bars(parts)

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands that do the case again: pytest's, then the tools' own."""
        own = self.line.device.commands if self.line.device is not None else {}
        items = (f"# {formats.line(name, 60)}\n{text}" for name, text in own.items())
        return *self.line.repeat, *items


def bounded(diagnosis: Diagnosis, limit: int) -> Diagnosis:
    """Return a diagnosis whose tables are cut to about `limit` characters of HTML."""
    left = limit
    sections = []
    for section in diagnosis.sections[:SECTIONS_SHOWN]:
        kept: list[tuple[str, ...]] = []
        for row in section.rows[:ROWS_SHOWN]:
            cells = tuple(formats.line(cell, 200) for cell in row)
            left -= sum(len(escape(cell)) + 20 for cell in cells)  # with the cell's own markup
            if left < 0:
                break
            kept.append(cells)
        if kept:
            columns = tuple(formats.line(one, 80) for one in section.columns)
            sections.append(Section(formats.line(section.title, 200), columns, tuple(kept)))
    return replace(diagnosis, sections=tuple(sections))


@dataclass(frozen=True)
class CheckView:
    """A check over the cases: its line as it may be shown, and what is drawn of it."""

    line: RunCheckLine
    anchor: str
    note: str

    @property
    def look(self) -> Look:
        return LOOKS[self.line.outcome]

    @property
    def good(self) -> bool:
        return self.line.outcome == "passed"

    @property
    def figures(self) -> rows.Rows:
        return () if self.line.verdict is None else rows.figures_of(self.line.verdict)

    @property
    def flips(self) -> Sequence[BatchFlip]:
        """Images whose prediction is not the same at every batch size."""
        verdict = self.line.verdict
        return () if verdict is None else verdict.batch_flips[:FLIPS_SHOWN]

    @property
    def flips_total(self) -> int:
        verdict = self.line.verdict
        total = None if verdict is None else verdict.figures.get(FigureName.FLIPS)
        return total if isinstance(total, int) else 0

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple({size: None for flip in self.flips for size in flip.answers})
