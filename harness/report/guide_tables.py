"""Guide 000's table of throughput: the figures of this run beside the published ones.

By batch size: what was measured, and for each target with published figures its figure and the
ratio of ours to it. A figure that counts for nothing is shown as such, and is neither the best nor
in a ratio. A run that is not real carries no published figures, and has no such table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.base import precision
from harness.base.families import guide_columns
from harness.catalog.schema import same_product
from harness.judge.causes import strange_times, wrong_outputs
from harness.pages.elements import Node, table
from harness.pages.formats import NO_VALUE
from harness.pages.words import say
from harness.records.lines import CaseLine, GuideFigures, PublishedSpeed
from harness.report.cases import CaseView
from harness.report.findings import grouped

TIMES = "\N{MULTIPLICATION SIGN}"
Column = dict[int, PublishedSpeed]
"""Published figures of one target by batch size."""


def why_not(case: CaseLine) -> str:
    """Return why a measured throughput counts for nothing, in a word or two; empty where it does.

    A slow one counts: it is a figure of the model. One that is undecided (the device was busy, the
    samples too unsteady) is a figure of the machine, and that of a wrong model is none at all.
    """
    if wrong_outputs(case):
        return "wrong outputs"
    if strange_times(case):
        return "wrong times"
    if case.verdict is None:
        return "no verdict"
    if case.verdict.kind == "INCONCLUSIVE" or case.outcome == "inconclusive":
        return "not decided"
    return ""


@dataclass(frozen=True)
class SpeedTable:
    """Throughput of one model on one target by batch size, in frames a second."""

    model: str
    target: str
    measured: Mapping[int, CaseView]
    columns: Mapping[str, Column]
    guide: str

    def why_not(self, size: int) -> str:
        """Return why the measured figure of a batch size counts for nothing."""
        line = self.measured[size].line
        chip = line.throughput.setup.chip if line.throughput is not None else ""
        published = self._own.get(size)
        if chip and published is not None and not same_product(chip, published.chip):
            return "another chip"
        return why_not(line)

    @property
    def best(self) -> int | None:
        """The batch size of the best measured figure that counts."""
        known = {n: one.line.measured or 0.0 for n, one in self.measured.items()}
        counting = [size for size in known if not self.why_not(size)]
        return max(counting, key=lambda size: known[size], default=None)

    @property
    def node(self) -> Node:
        """The table with its notes."""
        heads = [say("Batch size"), say("measured")]
        for name, column in self.columns.items():
            heads += [f"{_column_name(name)} {_unit(column)}", say("ratio")]
        sizes = sorted({*self.measured, *(n for one in self.columns.values() for n in one)})
        label = f"Throughput of {self.model} on {self.target}"
        notes = (("p.small", text) for text in self._notes())
        return ("div", table(label, heads, [tuple(self._row(size)) for size in sizes]), *notes)

    @property
    def _own(self) -> Column:
        return self.columns.get(self.target, {})

    def _row(self, size: int) -> Iterator[Node]:
        yield str(size)
        yield self._figure(size)
        for column in self.columns.values():
            one = column.get(size)
            text = NO_VALUE if one is None else f"{one.fps:,.10g}"
            yield ("s", text) if one is not None and one.not_comparable else text
            yield self._ratio(size, one)

    def _figure(self, size: int) -> Node:
        case = self.measured.get(size)
        if case is None:
            return NO_VALUE
        look, against = case.look, self.why_not(size)
        said = f" {look.said}{say(', ') + say(against) if against else ''}"
        best = (("span.star", f" \N{BLACK STAR} {say('best')}"),) if size == self.best else ()
        link = (f"a.mark.o-{look.outcome}", ("@href", f"#{case.anchor}"), ("b", case.measured))
        return ("span", link, ("span.small", said), *best)

    def _ratio(self, size: int, over: PublishedSpeed | None) -> str:
        """The ratio of the measured figure to a published one, as precise as it is known."""
        case = self.measured.get(size)
        if case is None or over is None or over.not_comparable or self.why_not(size):
            return NO_VALUE
        # Only where a card's figure is judged does a measurement count the card's chips.
        judged = case.reference is not None and case.reference.kind == "baseline"
        own = self._own.get(size) if judged else None
        unit, chips = ("chip", 1) if own is None else (own.unit, own.chips)
        if unit != over.unit and not chips == over.chips == 1:
            return NO_VALUE
        speed = case.line.throughput
        width = speed.timing.half_width_percent if speed is not None else math.inf
        if not precision.is_known(width):
            return precision.NOT_KNOWN
        ratio = (case.line.measured or 0.0) / over.fps
        return f"{precision.significant(ratio, precision.digits(width))}{TIMES}"

    def _notes(self) -> Iterator[str]:
        yield say("Published figures are those of {guide}.", guide=self.guide)
        if any(self.why_not(size) for size in self.measured):
            yield say(
                "A figure that is not decided, or of a model with wrong outputs, counts for "
                "nothing: it is neither the best nor in a ratio."
            )
        struck_out = "{column}, struck out: not comparable ({why})."
        for name, column in self.columns.items():
            for why in dict.fromkeys(filter(None, (one.not_comparable for one in column.values()))):
                yield say(struck_out, column=_column_name(name), why=why)


def speed_tables(
    cases: Sequence[CaseView], published: Mapping[str, GuideFigures]
) -> tuple[SpeedTable, ...]:
    """Return one table for each model and target that measured a speed and has published ones."""
    timed = (one for one in cases if one.line.check == "throughput" and one.line.measured)
    groups = grouped(timed, lambda one: (one.line.model, one.line.target))
    tables = []
    for (model, target), views in groups.items():
        guide = published.get(model)
        if guide is None or not guide.speeds:
            continue
        columns: dict[str, Column] = {}
        for one in guide.speeds:
            columns.setdefault(one.target, {})[one.batch_size] = one
        measured = {view.line.batch_size: view for view in views}
        tables.append(SpeedTable(model, target, measured, columns, guide.guide))
    return tuple(tables)


def _column_name(target: str) -> str:
    known = guide_columns().get(target)
    return target if known is None else known.name


def _unit(column: Column) -> str:
    units = dict.fromkeys((one.unit, one.chips) for one in column.values())
    return say(", ").join(
        say(f"a {unit}") if chips == 1 else say("a {unit} of {n} chips", unit=say(unit), n=chips)
        for unit, chips in units
    )
