"""Guide 000's table of throughput with the figures of this run in it.

By batch size: the 310, the T4 and the 310P, and the ratios of the 310P to both, the best batch size
marked. A figure that counts for nothing is shown as such, and is neither the best nor in a ratio.
Published figures stand beside measured ones in a real run alone: no other carries any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.base import precision
from harness.base.families import guide_columns
from harness.catalog.schema import same_product
from harness.judge.causes import strange_times, wrong_outputs
from harness.pages import formats
from harness.pages.formats import NO_VALUE
from harness.pages.words import say
from harness.records.lines import CaseLine, GuideFigures, PublishedSpeed
from harness.report.cases import CaseView
from harness.report.findings import grouped
from harness.report.rows import chip_and_card

TIMES = "\N{MULTIPLICATION SIGN}"
_COLUMNS = guide_columns()
# The guide's ratios are those of its last column to each other one.
*_DENOMINATORS, _NUMERATOR = (one.name for one in _COLUMNS.values())


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
class Cell:
    """Throughput at one batch size: the measured figure, the published one beside or instead."""

    case: CaseView | None = None
    published: PublishedSpeed | None = None
    best: bool = False

    @property
    def why_not(self) -> str:
        if self.case is None:
            return ""
        line = self.case.line
        chip = line.throughput.setup.chip if line.throughput else ""
        if chip and self.published is not None and not same_product(chip, self.published.chip):
            return "another chip"
        return why_not(line)

    @property
    def fps(self) -> float | None:
        """What a ratio is computed with: the measured figure, else a comparable published one.

        None where the measured figure counts for nothing: no other stands in for it.
        """
        if self.case is not None:
            return None if self.why_not else self.case.line.measured
        one = self.published
        return None if one is None or one.not_comparable else one.fps

    @property
    def unit(self) -> tuple[str, int]:
        """What the figure is of, and how many chips that has."""
        # Only where a card's figure is judged does a measurement count the card's chips.
        reference = self.case.reference if self.case is not None else None
        judged = self.case is None or (reference is not None and reference.kind == "baseline")
        if self.published is not None and judged:
            return self.published.unit, self.published.chips
        return "chip", 1


Column = dict[int, Cell]  # by batch size


@dataclass(frozen=True)
class Row:
    """One batch size, or the best of each column. `style` of the page: "best", "total" or ""."""

    name: str
    cells: tuple[Cell, ...]
    ratios: tuple[str, ...]
    style: str


@dataclass(frozen=True)
class SpeedTable:
    """Throughput of one model by batch size, in frames a second."""

    model: str
    columns: tuple[str, ...]  # name, and what one figure is of
    ratios: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def heads(self) -> list[str]:
        """The columns after that of the batch sizes."""
        return [*self.columns, *self.ratios]


def speed_tables(
    cases: Sequence[CaseView], published: Mapping[str, GuideFigures]
) -> tuple[SpeedTable, ...]:
    """Return one table for each model with something to hold its measured throughput against.

    A table of one column would repeat the summary.
    """
    timed = [one for one in cases if (one.line.measured or 0) > 0]
    by_model = grouped(timed, lambda one: one.line.model)
    tables = (_table(model, views, published.get(model)) for model, views in by_model.items())
    return tuple(table for table in tables if len(table.columns) > 1)


def _table(model: str, cases: Sequence[CaseView], published: GuideFigures | None) -> SpeedTable:
    columns = _columns(cases, published.speeds if published is not None else ())
    sizes = sorted({size for column in columns.values() for size in column})
    best = {name: _best(column) if len(sizes) > 1 else None for name, column in columns.items()}
    under = [name for name in _DENOMINATORS if {name, _NUMERATOR} <= columns.keys()]

    def row(name: str, at: Mapping[str, int | None], style: str) -> Row:
        cells = {
            column: replace(columns[column].get(size or 0, Cell()), best=size == best[column])
            for column, size in at.items()
        }
        ratios = tuple(_ratio(cells[_NUMERATOR], cells[one]) for one in under)
        return Row(name, tuple(cells.values()), ratios, style)

    rows = []
    for size in sizes:
        ours = any(best[name] == size and _measured(column) for name, column in columns.items())
        rows.append(row(f"{size}", dict.fromkeys(columns, size), "best" if ours else ""))
    if any(size is not None for size in best.values()):
        total = row(say("best batch size"), best, "total")
        # The published figure of a batch size that is best for us need not be the best one.
        cells = (replace(one, best=False, published=None if one.case else one.published)
                 for one in total.cells)  # fmt: skip
        rows.append(replace(total, cells=tuple(cells)))
    return SpeedTable(
        model=model,
        columns=tuple(f"{name} {_unit(name, column)}".rstrip() for name, column in columns.items()),
        ratios=tuple(f"{_NUMERATOR}/{name}" for name in under),
        rows=tuple(rows),
        notes=tuple(_notes(columns, published)),
    )


def _columns(cases: Sequence[CaseView], published: Sequence[PublishedSpeed]) -> dict[str, Column]:
    columns: dict[str, Column] = {one.name: {} for one in _COLUMNS.values()}
    for view in cases:
        columns.setdefault(_name(view.line), {})[view.line.batch_size] = Cell(view)
    for one in published:
        name = _COLUMNS[one.target].name if one.target in _COLUMNS else one.target
        column = columns.setdefault(name, {})
        column[one.batch_size] = replace(column.get(one.batch_size, Cell()), published=one)
    return {name: column for name, column in columns.items() if column or published}


def _name(case: CaseLine) -> str:
    chip = formats.line(chip_and_card(case)[0], 40)
    column = _COLUMNS.get(case.target)
    if column is None:
        return formats.line(case.target, 40)
    if column.product and column.product not in chip.split():
        return chip or case.target  # another product's figures
    return column.name


def _measured(column: Column) -> bool:
    return any(cell.case is not None for cell in column.values())


def _best(column: Column) -> int | None:
    """The batch size of the best figure: a measured one, where there are any."""
    ours = _measured(column)
    known = {
        size: cell.fps
        for size, cell in column.items()
        if cell.fps is not None and (cell.case is not None or not ours)
    }
    return max(known, key=lambda size: known[size], default=None)


def _unit(name: str, column: Column) -> str:
    if name not in (_NUMERATOR, *_DENOMINATORS):
        return ""  # a host's CPU is no card
    units = dict.fromkeys(cell.unit for cell in column.values())
    return ", ".join(
        say(f"a {unit}") if chips == 1 else say("a {unit} of {n} chips", unit=say(unit), n=chips)
        for unit, chips in units
    )


def _ratio(over: Cell, under: Cell) -> str:
    """The ratio of two figures of which one is measured, as precise as it is known."""
    (unit, chips), (other, other_chips) = over.unit, under.unit
    alike = unit == other or chips == other_chips == 1
    measured = [cell.case.line for cell in (over, under) if cell.case is not None]
    if over.fps is None or under.fps is None or not alike or not measured:
        return NO_VALUE
    timings = [line.throughput.timing for line in measured if line.throughput is not None]
    width = math.hypot(*(timing.half_width_percent for timing in timings))
    if not precision.is_known(width):
        return precision.NOT_KNOWN
    return f"{precision.significant(over.fps / under.fps, precision.digits(width))}{TIMES}"


def _notes(columns: Mapping[str, Column], published: GuideFigures | None) -> list[str]:
    notes = []
    if published is not None and published.speeds:
        notes.append(
            say(
                "Published figures are those of {guide}; a ratio is that of the measured figures, "
                "with a published one where nothing was measured.",
                guide=published.guide,
            )
        )
    if any(cell.why_not for column in columns.values() for cell in column.values()):
        notes.append(
            say(
                "A figure that is not decided, or of a model with wrong outputs, counts for "
                "nothing: it is neither the best nor in a ratio."
            )
        )
    for name, column in columns.items():
        reasons = (one.published.not_comparable for one in column.values() if one.published)
        struck_out = "{column}, struck out: not comparable ({why})."
        notes += [say(struck_out, column=name, why=why) for why in dict.fromkeys(reasons) if why]
    return notes
