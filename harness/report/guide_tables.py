"""Guide 000's two tables with the figures of this run in them.

Accuracy: what was measured at each batch size, its target, the relative error. Throughput by
batch size: the 310, the T4 and the 310P, and the ratios of the 310P to both, the best batch size
marked. A figure that counts for nothing is shown as such, and is neither the best nor in a ratio.
Published figures stand beside measured ones in a real run alone: no other carries any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.base import precision
from harness.base.families import guide_columns
from harness.base.terms import WHOLE_SET
from harness.judge import causes
from harness.pages import formats
from harness.pages.formats import NO_VALUE
from harness.records.lines import CaseLine, GuideFigures, PublishedSpeed
from harness.report.cases import CaseView

TIMES = "\N{MULTIPLICATION SIGN}"
_COLUMNS = guide_columns()
# The guide's ratios are those of its last column to each other one.
*_DENOMINATORS, _NUMERATOR = (one.name for one in _COLUMNS.values())


# Accuracy ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AccuracyRow:
    """One batch size of a model. `error`: |measured - target| / target."""

    case: CaseView
    images: str
    target: str
    target_note: str
    error: str


def accuracy_table(
    cases: Sequence[CaseView], published: Mapping[str, GuideFigures]
) -> tuple[tuple[AccuracyRow, ...], ...]:
    """Return every accuracy case that measured something, those of a model and target together."""
    groups: dict[tuple[str, str], list[AccuracyRow]] = {}
    for view in cases:
        line = view.line
        if line.check == "accuracy" and line.measured is not None:
            row = _accuracy_row(view, published.get(line.model))
            groups.setdefault((line.model, line.target), []).append(row)
    return tuple(map(tuple, groups.values()))


def _accuracy_row(view: CaseView, published: GuideFigures | None) -> AccuracyRow:
    line, reference = view.line, view.reference
    images = line.accuracy.scores.images if line.accuracy is not None else None
    value = None if reference is None else reference.value
    note = view.reference_name
    if published is not None and images is not None and images != WHOLE_SET:
        # A published figure says nothing exact about a part of its set: it is named, not used.
        space = formats.SPACE
        note = f"eager, same images; {published.top1:g}{space}% is published for all"
    error = NO_VALUE
    if line.measured is not None and math.isfinite(line.measured) and value:
        relative = abs(line.measured - value) / value
        error = f"{relative:.4f} ({formats.percent(100 * relative)})"
    return AccuracyRow(
        case=view,
        images=NO_VALUE if images is None else f"{images:,}",
        target=formats.percent(value),
        # In a run that is not real, the column's head says it.
        target_note=note if value is not None and line.provenance == "real" else "",
        error=error,
    )


# Throughput ----------------------------------------------------------------------------------


def why_not(case: CaseLine) -> str:
    """Return why a measured throughput counts for nothing, in a word or two; empty where it does.

    A slow one counts: it is a figure of the model. One that is undecided (the device was busy, the
    samples too unsteady) is a figure of the machine, and that of a wrong model is none at all.
    """
    if causes.wrong_outputs(case):
        return "wrong outputs"
    if causes.strange_times(case):
        return "wrong times"
    if case.verdict is None:
        return "no verdict"
    if case.verdict.kind == "INCONCLUSIVE" or case.outcome == "inconclusive":
        return "not decided"
    return ""


@dataclass(frozen=True)
class SpeedCell:
    """One figure: the measured one of a case, the published one beside or instead of it.

    `struck`: the published one is not comparable; `why_not`: why the measured counts for nothing.
    """

    case: CaseView | None = None
    published: str = ""
    struck: bool = False
    best: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class SpeedRow:
    """One batch size, or the best of each column."""

    name: str
    cells: tuple[SpeedCell, ...]
    ratios: tuple[str, ...]
    best: bool = False  # of the column that was measured
    total: bool = False  # the row of the bests


@dataclass(frozen=True)
class SpeedTable:
    """Throughput of one model by batch size, in frames a second."""

    model: str
    columns: tuple[tuple[str, str], ...]  # name, what one figure is of
    ratios: tuple[str, ...]
    rows: tuple[SpeedRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Figure:
    """A figure with what it is of: `chips` chips of a `unit`."""

    fps: float
    unit: str
    chips: int
    view: CaseView | None = None  # of a measured one
    half_width: float | None = None  # in percent; a published figure has none
    why_not: str = ""

    def of(self) -> str:
        return f"a {self.unit}" if self.chips == 1 else f"a {self.unit} of {self.chips} chips"


@dataclass
class _Column:
    name: str
    measured: dict[int, _Figure] = field(default_factory=dict)
    published: dict[int, _Figure] = field(default_factory=dict)
    not_comparable: dict[int, str] = field(default_factory=dict)

    def comparable(self) -> dict[int, _Figure]:
        return {n: one for n, one in self.published.items() if n not in self.not_comparable}

    def value(self, size: int) -> _Figure | None:
        """What a ratio is computed with: the measured figure, else a comparable published one.

        None where the measured figure counts for nothing: no other stands in for it.
        """
        found = self.measured.get(size)
        if found is not None:
            return None if found.why_not else found
        return self.comparable().get(size)

    def best(self) -> int | None:
        """The batch size of the best figure: of the measured ones that count, where there are any
        measured ones.
        """
        sizes = self.comparable()
        if self.measured:
            sizes = {size: one for size, one in self.measured.items() if not one.why_not}
        return max(sizes, key=lambda size: sizes[size].fps, default=None)

    def first(self) -> _Figure | None:
        return next(iter([*self.measured.values(), *self.published.values()]), None)

    def unit(self) -> str:
        if self.name not in (_NUMERATOR, *_DENOMINATORS):
            return ""  # a host's CPU is no card
        units = (one.of() for one in (*self.measured.values(), *self.published.values()))
        return ", ".join(dict.fromkeys(units))


def speed_tables(
    cases: Sequence[CaseView], published: Mapping[str, GuideFigures]
) -> tuple[SpeedTable, ...]:
    """Return one table for each model with something to hold its measured throughput against.

    A table of one column would repeat the summary.
    """
    by_model: dict[str, list[CaseView]] = {}
    for view in cases:
        if view.line.check == "throughput" and (view.line.measured or 0) > 0:
            by_model.setdefault(view.line.model, []).append(view)
    tables = (_speed_table(views, published.get(model)) for model, views in by_model.items())
    return tuple(table for table in tables if len(table.columns) > 1)


def _speed_table(cases: Sequence[CaseView], published: GuideFigures | None) -> SpeedTable:
    columns = _columns(cases, published.speeds if published is not None else ())
    sizes = sorted({size for one in columns.values() for size in (*one.measured, *one.published)})
    best = {name: one.best() if len(sizes) > 1 else None for name, one in columns.items()}
    ratios = tuple(name for name in _DENOMINATORS if _NUMERATOR in columns and name in columns)
    rows = [
        SpeedRow(
            name=f"{size}",
            cells=tuple(_cell(one, size, best[name]) for name, one in columns.items()),
            ratios=tuple(_ratio(columns, name, dict.fromkeys(columns, size)) for name in ratios),
            best=any(one.measured and best[name] == size for name, one in columns.items()),
        )
        for size in sizes
    ]
    if any(size is not None for size in best.values()):
        rows.append(_best_row(columns, best, ratios))
    return SpeedTable(
        model=cases[0].line.model,
        columns=tuple((name, one.unit()) for name, one in columns.items()),
        ratios=tuple(f"{_NUMERATOR}/{name}" for name in ratios),
        rows=tuple(rows),
        notes=tuple(_notes(columns, published)),
    )


def _columns(cases: Sequence[CaseView], published: Sequence[PublishedSpeed]) -> dict[str, _Column]:
    found = {one.name: _Column(one.name) for one in _COLUMNS.values()}
    units = {(one.target, one.batch_size): (one.unit, one.chips) for one in published}
    for view in cases:
        line = view.line
        name = _column_name(line)
        column = found.setdefault(name, _Column(name))
        # Only where a card's figure is judged does a measurement count the card's chips.
        unit, chips = "chip", 1
        if view.reference is not None and view.reference.kind == "baseline":
            unit, chips = units.get((line.target, line.batch_size), (unit, chips))
        width = line.throughput.timing.half_width_percent if line.throughput is not None else None
        column.measured[line.batch_size] = _Figure(
            line.measured or 0.0, unit, chips, view, width, why_not(line)
        )
    for one in published:
        name = _COLUMNS[one.target].name if one.target in _COLUMNS else one.target
        column = found.setdefault(name, _Column(name))
        column.published[one.batch_size] = _Figure(one.fps, one.unit, one.chips)
        if one.not_comparable:
            column.not_comparable[one.batch_size] = one.not_comparable
    kept = {name: one for name, one in found.items() if one.measured or one.published}
    return found if published else kept


def _column_name(case: CaseLine) -> str:
    setup = case.throughput.setup if case.throughput is not None else None
    name = case.device.name if case.device is not None else ""
    chip = formats.line((setup.chip if setup is not None else "") or name, 40)
    column = _COLUMNS.get(case.target)
    if column is None:
        return formats.line(case.target, 40)
    if column.product and column.product not in chip.split():
        return chip or case.target  # another product's figures
    return column.name


def _cell(column: _Column, size: int, best: int | None) -> SpeedCell:
    measured, published = column.measured.get(size), column.published.get(size)
    return SpeedCell(
        case=None if measured is None else measured.view,
        published="" if published is None else f"{published.fps:,.10g}",
        struck=size in column.not_comparable,
        best=size == best,
        why_not="" if measured is None else measured.why_not,
    )


def _best_row(
    columns: Mapping[str, _Column], best: Mapping[str, int | None], ratios: Sequence[str]
) -> SpeedRow:
    cells = []
    for name, column in columns.items():
        size = best[name]
        cell = SpeedCell() if size is None else _cell(column, size, None)
        if (
            cell.case is not None
        ):  # the published figure of that batch size need not be the best one
            cell = replace(cell, published="")
        cells.append(cell)
    found = tuple(_ratio(columns, name, best) for name in ratios)
    return SpeedRow("best batch size", tuple(cells), found, total=True)


def _ratio(columns: Mapping[str, _Column], under: str, at: Mapping[str, int | None]) -> str:
    """The ratio to another column, each at its batch size; it needs a measured figure in it."""
    over, below = columns[_NUMERATOR], columns[under]
    sizes = at[_NUMERATOR], at[under]
    if sizes[0] is None or sizes[1] is None:
        return NO_VALUE
    if sizes[0] not in over.measured and sizes[1] not in below.measured:
        return NO_VALUE
    upper, lower = over.value(sizes[0]), below.value(sizes[1])
    if upper is None or lower is None or not _alike(upper, lower):
        return NO_VALUE
    widths = [one.half_width for one in (upper, lower) if one.half_width is not None]
    width = math.hypot(*widths) if widths else None
    if not precision.is_known(width):
        return precision.NOT_KNOWN
    return f"{precision.significant(upper.fps / lower.fps, precision.digits(width))}{TIMES}"


def _alike(one: _Figure, other: _Figure) -> bool:
    return one.unit == other.unit or one.chips == other.chips == 1


def _notes(columns: Mapping[str, _Column], published: GuideFigures | None) -> list[str]:
    notes = []
    if published is not None and published.speeds:
        notes.append(
            f"Published figures are those of {published.guide or 'the guide'}; a ratio is that of "
            "the measured figures, with a published one where nothing was measured."
        )
    if any(one.why_not for column in columns.values() for one in column.measured.values()):
        notes.append(
            "A figure that is not decided, or of a model with wrong outputs, counts for nothing: "
            "it is neither the best nor in a ratio."
        )
    for column in columns.values():
        notes += [
            f"{column.name}, struck out: not comparable ({why})."
            for why in dict.fromkeys(column.not_comparable.values())
        ]
    upper = columns[_NUMERATOR].first() if _NUMERATOR in columns else None
    for name in _DENOMINATORS:
        lower = columns[name].first() if name in columns else None
        if upper is not None and lower is not None and not _alike(upper, lower):
            notes.append(
                f"No ratio to the {name}: one figure is {upper.of()}'s, the other {lower.of()}'s."
            )
    return notes
