"""One case of a run, and one check over its cases, as a report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.pages import formats
from harness.pages.formats import NO_VALUE
from harness.pages.html import Whole
from harness.pages.looks import ATTENTION, LOOKS, Look
from harness.records import reader
from harness.records.lines import CaseLine, RunCheckLine
from harness.records.measurements import Flip
from harness.records.observed import Diagnosis, Section
from harness.records.reader import RunRecords
from harness.records.verdicts import BatchFlip, FigureName, Reference, ReferenceKind
from harness.report import charts, plots, rows
from harness.report.intervals import intervals
from harness.report.rows import Group, Row
from harness.report.thumbs import Thumbs, images_of

FLIPS_SHOWN = 20
SECTIONS_SHOWN = 12
ROWS_SHOWN = 60
SIZES_SHOWN = 12

# What a reference is called; the short form stands in the cells of the summary.
_REFERENCES: dict[ReferenceKind, tuple[str, str]] = {
    "published": ("the published figure", "published"),
    "eager": ("eager PyTorch on the same images", "eager"),
    "baseline": ("the baseline", "baseline"),
    "eager-speed": ("eager PyTorch's speed on the same host", "eager"),
    "batch-size": ("another batch size", "batch size"),
    "ratio": ("another chip's figure", "ratio"),
    "none": ("nothing comparable", "no reference"),
}


def measured(case: CaseLine) -> str:
    """Write the figure of a case in its unit, no finer than it is known."""
    known = case.throughput.timing.half_width_percent if case.throughput is not None else None
    return formats.figure(case.measured, case.unit, known)


def difference(case: CaseLine) -> str:
    """Write how far a figure is from its reference, in percent of that."""
    known = case.throughput.half_width_percent if case.throughput is not None else None
    return formats.difference(case.difference_percent, half_width=known)


@dataclass(frozen=True)
class Log:
    """The end of a log; `note` says what was cut."""

    text: Whole
    note: str = ""


def tail(text: str, limit: int) -> Log | None:
    """Return the last part of a log, bounded to about `limit` characters of HTML."""
    # A log may be long: what is far before its end is not even looked at.
    text = text.strip("\n")
    before = max(0, len(text) - 4 * limit)
    text = formats.clean(text[before:])
    if not text:
        return None
    kept = text[-limit:]
    while len(escape(kept)) > limit and len(kept) > 1:
        kept = kept[-max(1, len(kept) * limit // len(escape(kept)) - 1) :]
    if len(kept) == before + len(text):
        return Log(Whole(kept))
    _, newline, rest = kept.partition("\n")
    kept = rest if newline and rest else kept
    cut = before + len(text) - len(kept)
    return Log(Whole(kept), f"The first {cut:,} characters are cut here.")


@dataclass(frozen=True)
class Room:
    """What a page may hold: characters of one log and of one diagnosis, and its thumbnails."""

    log: int
    diagnosis: int
    thumbs: Thumbs


@dataclass(frozen=True)
class CaseView:
    """A case: its line as it may be shown, and what is drawn of it."""

    line: CaseLine
    anchor: str
    note: str
    withheld: bool
    records: RunRecords
    places: Mapping[Stage, int]
    room: Room

    @property
    def look(self) -> Look:
        return LOOKS[self.line.outcome]

    @property
    def open(self) -> bool:
        return self.line.outcome in ATTENTION

    @cached_property
    def measured(self) -> str:
        return measured(self.line)

    @cached_property
    def difference(self) -> str:
        return difference(self.line)

    @property
    def reference(self) -> Reference | None:
        return None if self.withheld else self.line.reference

    @property
    def reference_words(self) -> str:
        return _REFERENCES[self.reference.kind][0] if self.reference is not None else ""

    @property
    def reference_name(self) -> str:
        return _REFERENCES[self.reference.kind][1] if self.reference is not None else ""

    @property
    def reference_value(self) -> str:
        reference = self.reference
        if reference is None:
            return NO_VALUE
        return formats.figure(reference.value, reference.unit or self.line.unit)

    @property
    def reference_short(self) -> str:
        """`eager 78.32 %`, as a cell of the summary has it."""
        value = self.reference_value
        if self.withheld:
            return "withheld"
        return self.reference_name if value == NO_VALUE else f"{self.reference_name} {value}"

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
    def groups(self) -> tuple[Group, ...]:
        """Figures of the verdict and of the measurement."""
        line = self.line
        found: tuple[Group, ...] = ()
        if line.verdict is not None and not self.withheld:
            figures = rows.figures_of(line.verdict, measured=line.measurement is not None)
            found = rows.filled(Group("Figures of the verdict", figures))
        if line.accuracy is not None:
            return *found, *rows.accuracy(line.accuracy)
        return found if line.throughput is None else (*found, *rows.throughput(line.throughput))

    @cached_property
    def circumstances(self) -> tuple[Group, ...]:
        return rows.circumstances(self.line, self.records.run)

    @property
    def flips(self) -> tuple[Flip, ...]:
        """Images on which the compiled and the eager model differ."""
        found = self.line.accuracy
        return () if found is None or found.fidelity is None else found.fidelity.flips[:FLIPS_SHOWN]

    @property
    def flips_left(self) -> int:
        found = self.line.accuracy
        if found is None or found.fidelity is None:
            return 0
        return max(0, found.fidelity.flips_total - len(self.flips))

    def thumb(self, name: str) -> str:
        """Return the thumbnail of an image as a data URI; empty where there is none."""
        return self.room.thumbs.uri(self.line.images, name)

    @cached_property
    def samples(self) -> charts.Samples | None:
        """Charts of the execution times, where their file lies in the run."""
        found = self.line.throughput
        if found is None or not found.samples_file:
            return None
        try:
            times = reader.read_samples(self.records.directory, found.samples_file)
        except RecordError:
            return None
        return charts.samples([sample for one in times.ours for sample in one])

    @cached_property
    def temperature(self) -> plots.Plot | None:
        found = self.line.throughput
        points = [
            (look.seconds, look.temperature_c, bool(look.trouble))
            for look in (found.conditions if found is not None else ())
            if look.temperature_c is not None
        ]
        return plots.over_time("Temperature of the device", points, unit="°C")

    @cached_property
    def intervals(self) -> tuple[plots.IntervalShape, ...]:
        """The intervals that a real accuracy was judged by, each on an axis of its own."""
        found = intervals(self.line, self.records.run)
        return tuple(shape for one in found for shape in plots.interval_shapes([one]))

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        found = self.line.diagnosis
        return None if found is None else bounded(found, self.room.diagnosis)

    @cached_property
    def error_log(self) -> Log | None:
        return None if self.line.error is None else tail(self.line.error.log, self.room.log)

    @cached_property
    def artifact_logs(self) -> tuple[tuple[str, str, Log | None], ...]:
        """Of each artifact that has a log: what it is, the file with all of it, and its end."""
        return tuple(
            (one.stage.makes, one.log_file, tail(one.log, self.room.log))
            for one in self.line.artifacts
            if one.log or one.log_file
        )

    @cached_property
    def stages(self) -> tuple[charts.Segment, ...]:
        parts = [
            (one.stage, one.stage.doing, one.seconds, "from the store" if one.cached else "")
            for one in self.line.stages
        ]
        return charts.stacked(parts, self.places)

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands that do the case again: pytest's, then the tools' own."""
        own = self.line.device.commands if self.line.device is not None else {}
        items = (f"# {formats.line(name, 60)}\n{text}" for name, text in own.items())
        return *self.line.repeat, *items


# Diagnosis -------------------------------------------------------------------------------------


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


# Checks over the cases -------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckView:
    """A check over the cases: its line as it may be shown, and what is drawn of it."""

    line: RunCheckLine
    anchor: str
    note: str
    records: RunRecords
    room: Room

    @property
    def look(self) -> Look:
        return LOOKS[self.line.outcome]

    @property
    def rule(self) -> str:
        return self.line.verdict.allowed if self.line.verdict is not None else ""

    @property
    def rows(self) -> tuple[Row, ...]:
        verdict = self.line.verdict
        return () if verdict is None else rows.figures_of(verdict, measured=False)

    @property
    def flips(self) -> Sequence[BatchFlip]:
        """Images whose prediction is not the same at every batch size."""
        verdict = self.line.verdict
        return () if verdict is None else verdict.batch_flips[:FLIPS_SHOWN]

    @property
    def flips_left(self) -> int:
        verdict = self.line.verdict
        counted = None if verdict is None else verdict.figures.get(FigureName.FLIPS)
        return max(0, counted - len(self.flips)) if isinstance(counted, int) else 0

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple({size: None for flip in self.flips for size in flip.answers})[:SIZES_SHOWN]

    def thumb(self, name: str) -> str:
        """Return the thumbnail of an image as a data URI; empty where there is none."""
        return self.room.thumbs.uri(images_of(self.records, self.line), name)
