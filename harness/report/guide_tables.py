"""Guide 000's two tables with the figures of this run in them.

Accuracy: what was measured at each batch size, its target, the relative error. Throughput by
batch size: the 310, the T4 and the 310P, and the ratios of the 310P to both, the best batch size
marked. A figure that counts for nothing is shown as such, and is neither the best nor in a ratio.
Published figures stand beside measured ones in a real run alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.base import precision
from harness.records.lines import CaseLine
from harness.report import figures, worth
from harness.report.cases import CaseView
from harness.report.figures import NO_VALUE
from harness.report.guide_figures import ModelFigures, PublishedSpeed
from harness.report.headline import Look

WHOLE_SET = 50_000
TIMES = "\N{MULTIPLICATION SIGN}"
# The guide's columns: our target, the guide's word for it.
_COLUMNS = (("ascend310", "310"), ("cuda", "T4"), ("ascend310p3", "310P"))
_NUMERATOR, _DENOMINATORS = "310P", ("310", "T4")


@dataclass(frozen=True)
class AccuracyRow:
    """One batch size of a model. `error`: |measured - target| / target."""

    case: CaseView
    images: str
    measured: str
    target: str
    target_note: str
    error: str


@dataclass(frozen=True)
class AccuracyGroup:
    """The rows of one model on one target of the harness."""

    model: str
    title: str
    device: str
    rows: tuple[AccuracyRow, ...]


@dataclass(frozen=True)
class SpeedCell:
    """One figure. `measured` leads to its case; `published` stands beside or instead of it.

    `look`: how the case of the measured figure ended; `why_not`: why the figure counts for nothing.
    """

    measured: str = ""
    anchor: str = ""
    published: str = ""
    struck: bool = False  # the published figure is not comparable
    best: bool = False
    look: Look | None = None
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
    title: str
    columns: tuple[tuple[str, str], ...]  # name, what one figure is of
    ratios: tuple[str, ...]
    rows: tuple[SpeedRow, ...]
    notes: tuple[str, ...]


Pair = tuple[CaseView, CaseLine]


# Accuracy ------------------------------------------------------------------------------------


def accuracy_table(
    cases: Sequence[Pair], known: Mapping[str, ModelFigures]
) -> tuple[AccuracyGroup, ...]:
    """Every accuracy case that measured something, by model and target of the harness."""
    groups: dict[tuple[str, str], list[AccuracyRow]] = {}
    titles: dict[str, str] = {}
    for view, case in cases:
        if case.check != "accuracy" or figures.number(case.measured) is None:
            continue
        titles.setdefault(view.model, view.title)
        row = _accuracy_row(view, case, known.get(case.model))
        groups.setdefault((view.model, view.target), []).append(row)
    return tuple(
        AccuracyGroup(model, titles[model], device, tuple(rows))
        for (model, device), rows in groups.items()
    )


def _accuracy_row(view: CaseView, case: CaseLine, known: ModelFigures | None) -> AccuracyRow:
    measured = figures.number(case.measured)
    images = figures.number(case.measurement.get("images"))
    reference = None if view.withheld else case.reference
    value = None if reference is None else figures.number(reference.value)
    note = view.reference.short if view.reference is not None else ""
    part = images is not None and images != WHOLE_SET
    if view.provenance == "real" and known is not None and known.top1 is not None and part:
        # A published figure says nothing exact about a part of its set: it is named, not used.
        note = f"eager, same images; {known.top1:g}\N{NO-BREAK SPACE}% is published for all"
    error = ""
    if measured is not None and value:
        relative = abs(measured - value) / value
        error = f"{relative:.4f} ({figures.percent(100 * relative)})"
    return AccuracyRow(
        case=view,
        images=NO_VALUE if images is None else f"{images:,.0f}",
        measured=view.measured,
        target=NO_VALUE if value is None else figures.percent(value),
        # In a run that is not real, the column's head says it.
        target_note=note if value is not None and view.provenance == "real" else "",
        error=error or NO_VALUE,
    )


# Throughput ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Figure:
    """A figure with what it is of: `chips` chips of a `unit`."""

    fps: float
    unit: str
    chips: int
    anchor: str = ""
    half_width: float | None = None  # in percent; a published figure has none
    look: Look | None = None
    why_not: str = ""

    def of(self) -> str:
        return f"a {self.unit}" if self.chips == 1 else f"a {self.unit} of {self.chips} chips"


@dataclass
class _Column:
    name: str
    measured: dict[int, _Figure]
    published: dict[int, _Figure]
    not_comparable: dict[int, str]

    def value(self, size: int) -> _Figure | None:
        """What a ratio is computed with: the measured figure, else a comparable published one.

        None where the measured figure counts for nothing: no other stands in for it.
        """
        found = self.measured.get(size)
        if found is not None and found.why_not:
            return None
        if found is None and size not in self.not_comparable:
            found = self.published.get(size)
        return found

    def best(self) -> int | None:
        """The batch size of the column's best figure; measured ones alone where there are any, and
        of these those that count. None where there is none.
        """
        if self.measured:
            sizes = {size: one for size, one in self.measured.items() if not one.why_not}
        else:
            sizes = {
                size: one for size, one in self.published.items() if size not in self.not_comparable
            }
        return max(sizes, key=lambda size: sizes[size].fps, default=None)


def speed_tables(
    cases: Sequence[Pair], known: Mapping[str, ModelFigures]
) -> tuple[SpeedTable, ...]:
    """One table for each model with a measured throughput."""
    by_model: dict[str, list[Pair]] = {}
    for view, case in cases:
        if case.check == "throughput" and (figures.number(case.measured) or 0) > 0:
            by_model.setdefault(case.model, []).append((view, case))
    return tuple(_speed_table(mine, known.get(model)) for model, mine in by_model.items())


def _speed_table(cases: Sequence[Pair], known: ModelFigures | None) -> SpeedTable:
    real = all(view.provenance == "real" for view, _ in cases)
    published = known.speeds if real and known is not None else ()
    columns = _columns(cases, published, always=real)
    sizes = sorted({size for one in columns for size in (*one.measured, *one.published)})
    best = {one.name: one.best() if len(sizes) > 1 else None for one in columns}
    ratios = _ratio_names(columns) if real else ()
    rows = [
        SpeedRow(
            name=f"{size}",
            cells=tuple(_cell(one, size, best[one.name]) for one in columns),
            ratios=tuple(_ratio(columns, name, {c.name: size for c in columns}) for name in ratios),
            best=any(one.measured and best[one.name] == size for one in columns),
        )
        for size in sizes
    ]
    if any(size is not None for size in best.values()):
        rows.append(_best_row(columns, best, ratios))
    view = cases[0][0]
    return SpeedTable(
        model=view.model,
        title=view.title,
        columns=tuple((one.name, _unit(one)) for one in columns),
        ratios=ratios,
        rows=tuple(rows),
        notes=tuple(_notes(columns, known if published else None)),
    )


def _columns(
    cases: Sequence[Pair], published: Sequence[PublishedSpeed], *, always: bool
) -> list[_Column]:
    found = {name: _Column(name, {}, {}, {}) for _, name in _COLUMNS}
    names = dict(_COLUMNS)
    ascend = any(case.target.startswith("ascend") for _, case in cases)
    units = {(one.target, one.batch_size): (one.unit, one.chips) for one in published}
    for view, case in cases:
        name = _column_name(case)
        column = found.setdefault(name, _Column(name, {}, {}, {}))
        held = case.reference is not None and case.reference.kind == "baseline"
        # Only where a card's figure is judged does a measurement count the card's chips.
        unit, chips = units.get((case.target, case.batch_size), ("chip", 1))
        if not held:
            unit, chips = "chip", 1
        value = figures.number(case.measured) or 0.0
        width = figures.half_width_of(case.measurement)
        column.measured[case.batch_size] = _Figure(
            value, unit, chips, view.anchor, width, view.look, worth.why_not(case)
        )
    for one in published:
        name = names.get(one.target, one.target)
        column = found.setdefault(name, _Column(name, {}, {}, {}))
        column.published[one.batch_size] = _Figure(one.fps, one.unit, one.chips)
        if one.not_comparable:
            column.not_comparable[one.batch_size] = one.not_comparable
    kept = always and (ascend or bool(published))
    return [one for one in found.values() if kept or one.measured or one.published]


def _column_name(case: CaseLine) -> str:
    setup = figures.mapping(case.measurement.get("setup"))
    chip = figures.line(str(setup.get("chip") or case.device.get("name") or ""), 40)
    if case.target == "cuda" and "T4" not in chip.split():
        return chip or "cuda"  # another GPU's figures are no T4's
    return dict(_COLUMNS).get(case.target, figures.line(case.target, 40))


def _unit(column: _Column) -> str:
    if column.name not in dict(_COLUMNS).values():
        return ""  # a host's CPU is no card
    found = dict.fromkeys(
        one.of() for one in (*column.measured.values(), *column.published.values())
    )
    return ", ".join(found)


def _cell(column: _Column, size: int, best: int | None) -> SpeedCell:
    measured, published = column.measured.get(size), column.published.get(size)
    return SpeedCell(
        measured="" if measured is None else figures.rate(measured.fps, measured.half_width),
        anchor="" if measured is None else measured.anchor,
        published="" if published is None else f"{published.fps:,.10g}",
        struck=size in column.not_comparable,
        best=size == best,
        look=None if measured is None else measured.look,
        why_not="" if measured is None else measured.why_not,
    )


def _best_row(
    columns: Sequence[_Column], best: Mapping[str, int | None], ratios: Sequence[str]
) -> SpeedRow:
    cells = []
    for column in columns:
        size = best[column.name]
        cell = SpeedCell() if size is None else _cell(column, size, None)
        if cell.measured:  # the published figure of that batch size need not be the best one
            cell = replace(cell, published="")
        cells.append(cell)
    return SpeedRow(
        name="best batch size",
        cells=tuple(cells),
        ratios=tuple(_ratio(columns, name, best) for name in ratios),
        total=True,
    )


def _ratio_names(columns: Sequence[_Column]) -> tuple[str, ...]:
    there = {one.name for one in columns if one.measured or one.published}
    if _NUMERATOR not in there:
        return ()
    return tuple(f"{_NUMERATOR}/{name}" for name in _DENOMINATORS if name in there)


def _ratio(columns: Sequence[_Column], name: str, at: Mapping[str, int | None]) -> str:
    """The ratio of two columns, each at its batch size; it needs a measured figure in it."""
    by_name = {one.name: one for one in columns}
    over, under = (by_name[part] for part in name.split("/"))
    sizes = at[over.name], at[under.name]
    if sizes[0] is None or sizes[1] is None:
        return NO_VALUE
    if sizes[0] not in over.measured and sizes[1] not in under.measured:
        return NO_VALUE
    upper, lower = over.value(sizes[0]), under.value(sizes[1])
    if upper is None or lower is None or not _alike(upper, lower):
        return NO_VALUE
    widths = [one.half_width for one in (upper, lower) if one.half_width is not None]
    width = math.hypot(*widths) if widths else None
    if not precision.is_known(width):
        return precision.NOT_KNOWN
    return f"{precision.significant(upper.fps / lower.fps, precision.digits(width))}{TIMES}"


def _alike(one: _Figure, other: _Figure) -> bool:
    return one.unit == other.unit or one.chips == other.chips == 1


def _notes(columns: Sequence[_Column], known: ModelFigures | None) -> list[str]:
    notes = []
    if known is not None:
        notes.append(
            f"Published figures are those of {known.guide or 'the guide'}; a ratio is that of the "
            "measured figures, with a published one where nothing was measured."
        )
    if any(one.why_not for column in columns for one in column.measured.values()):
        notes.append(
            "A figure that is not decided, or of a model with wrong outputs, counts for nothing: "
            "it is neither the best nor in a ratio."
        )
    for column in columns:
        notes += [
            f"{column.name}, struck out: not comparable ({why})."
            for why in dict.fromkeys(column.not_comparable.values())
        ]
    for pair in _DENOMINATORS:
        by_name = {one.name: one for one in columns}
        over, under = by_name.get(_NUMERATOR), by_name.get(pair)
        if over is None or under is None:
            continue
        upper = next(iter([*over.measured.values(), *over.published.values()]), None)
        lower = next(iter([*under.measured.values(), *under.published.values()]), None)
        if upper and lower and not _alike(upper, lower):
            notes.append(
                f"No ratio to the {pair}: one figure is {upper.of()}'s, the other {lower.of()}'s."
            )
    return notes
