"""One case of a run, and one check over its cases, as a report shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.base.errors import RecordError
from harness.pages import formats
from harness.pages.charts import Chart
from harness.pages.formats import NO_VALUE
from harness.pages.looks import ATTENTION, LOOKS, Look
from harness.pages.words import say
from harness.records import reader
from harness.records.lines import CaseLine, RunCheckLine
from harness.records.reader import RunRecords
from harness.records.verdicts import BatchFlip, FigureName, Reference, ReferenceKind
from harness.report import charts, rows

FLIPS_SHOWN = 20

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
    def needs_a_look(self) -> bool:
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

    @cached_property
    def trouble(self) -> tuple[str, ...]:
        """What spoke against the device while it was measured."""
        found = self.line.throughput
        looks = dict.fromkeys(look.trouble for look in (found.conditions if found else ()))
        return tuple(text for text in looks if text)[:6]

    @property
    def groups(self) -> rows.Groups:
        """The figures of the verdict and of the measurement, what is published, the stages."""
        line, held = self.line, self.reference
        against = f"{self.reference_value} ({self.reference_name})" if held is not None else ""
        if held is not None and held.note:
            against += f", {formats.line(held.note)}"
        figures = rows.rows(
            ("Measured", self.measured),
            ("Held against", against),
            ("Relative difference", self.difference),
        )
        if line.verdict is not None and not self.withheld:
            figures += rows.figures_of(line.verdict)
        return {
            "Figures of the verdict": figures,
            "Published figures": rows.editions(held) + rows.beside(line, self.records.run),
            **rows.measurement(line),
            "Stages": rows.stages(line),
        }

    @property
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

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands that do the case again: pytest's, then the tools' own."""
        own = self.line.device.commands if self.line.device is not None else {}
        items = (f"# {formats.line(name, 60)}\n{text}" for name, text in own.items())
        return *self.line.repeat, *items


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
