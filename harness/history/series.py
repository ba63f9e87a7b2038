"""The figures of one case over time, and what changed between them.

A series holds what can be compared: one model, batch size, target, chip and check, of one
provenance; accuracies over the same number of images. Real, rehearsed and simulated figures are
never in one series.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.base.terms import WHOLE_SET, Check, Provenance
from harness.catalog.schema import Catalog
from harness.history import drift
from harness.history.index import Row

LAST = 200
"""Figures of a series: more than that no chart of a phone's width can show."""


@dataclass(frozen=True, order=True)
class Key:
    """What makes figures comparable. `images` is 0 for a throughput, or when it is unknown."""

    check: Check
    target: str
    chip: str
    model: str
    batch_size: int
    images: int
    provenance: Provenance

    @property
    def name(self) -> str:
        """`resnest50-bs4-ascend310p3`, as the case is called."""
        return f"{self.model}-bs{self.batch_size}-{self.target}"


@dataclass(frozen=True)
class Mark:
    """What is different from one figure on; `texts`: `toolchain: A -> B`."""

    row: Row
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Floor:
    """What a figure must reach, as the catalog has it today: it does not follow the figures."""

    value: float
    text: str


@dataclass(frozen=True)
class Series:
    """Figures over time, oldest first. `misses`: the cases without a figure after the last one."""

    key: Key
    points: tuple[Row, ...]
    floor: Floor | None
    misses: tuple[Row, ...] = ()

    @property
    def unit(self) -> str:
        """`%` or `fps`."""
        return self.points[-1].unit

    @cached_property
    def counted(self) -> tuple[Row, ...]:
        """Return the points that the rules look at."""
        return tuple(point for point in self.points if point.counted)

    @cached_property
    def values(self) -> tuple[float, ...]:
        """Return the figures that the rules look at."""
        return tuple(point.value for point in self.counted)

    @property
    def below_floor(self) -> bool:
        """Return whether the last figure lies below the floor."""
        return bool(
            self.floor and self.values and self.values[-1] < self.floor.value * (1.0 - 1e-12)
        )

    @property
    def failed(self) -> bool:
        """Return whether the newest run measured a figure and its case failed all the same."""
        return not self.misses and self.points[-1].outcome == "failed"

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """Where what a figure was made with is not what the figure before it was made with."""
        pairs = zip(self.points, self.points[1:], strict=False)
        marks = (Mark(row, _differences(before.made_with, row.made_with)) for before, row in pairs)
        return tuple(mark for mark in marks if mark.texts)

    @cached_property
    def changes(self) -> tuple[drift.Change, ...]:
        """Return what the rules find at the end of the series."""
        return drift.changes(self.values, self.key.check)

    @cached_property
    def decline(self) -> drift.Change | None:
        """Return the decline at the end of the series, if there is one."""
        return drift.decline(self.values, self.key.check)

    def explanations(self, change: drift.Change) -> tuple[str, ...]:
        """Return what else changed within the runs that a rule looked at, each with its date."""
        first = self.counted[-change.runs]
        return tuple(
            f"{mark.row.day} {text}"
            for mark in self.marks
            if mark.row.moment > first.moment
            for text in mark.texts
        )


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    # What is unknown is no change: an older run may not have recorded it.
    return tuple(
        f"{name}: {before[name]} \N{RIGHTWARDS ARROW} {value}"
        for name, value in after.items()
        if name in before and before[name] != value
    )


def load(
    rows: Iterable[Row],
    provenance: Provenance,
    *,
    catalog: Catalog | None = None,
    models: Collection[str] = (),
    check: Check | None = None,
) -> list[Series]:
    """Make every series of one provenance, in the order of checks, targets, models, batch sizes.

    Args:
        rows: oldest first, as `read_history` gives them.
        catalog: floors, drawn for real figures alone.
        models: all where none is named; `check`: both where it is None.
    """
    figures: dict[Key, list[Row]] = {}
    misses: list[Row] = []
    for row in rows:
        if row.provenance != provenance or check not in (None, row.check):
            continue
        if models and row.model not in models:
            continue
        if row.measured is None:
            misses.append(row)
        else:
            figures.setdefault(key_of(row), []).append(row)
    missed = _misses(misses, figures)
    return [
        Series(key, tuple(figures[key][-LAST:]), floor_of(key, catalog), tuple(missed.get(key, ())))
        for key in sorted(figures)
    ]


def key_of(row: Row) -> Key:
    """Return the series that a case belongs to."""
    return Key(
        row.check, row.target, row.chip, row.model, row.batch_size, row.images, row.provenance
    )


def _misses(rows: Iterable[Row], figures: Mapping[Key, list[Row]]) -> dict[Key, list[Row]]:
    """Return the cases without a figure that are newer than the last figure of their series.

    Such a case may not know its chip, and never the number of its images: it belongs to the series
    of its case that has the newest figure, of its chip where that is known.
    """
    of_case: dict[tuple[Check, str], list[Key]] = {}
    for key in figures:
        of_case.setdefault((key.check, key.name), []).append(key)
    missed: dict[Key, list[Row]] = {}
    for row in rows:
        keys = of_case.get((row.check, key_of(row).name), [])
        keys = [key for key in keys if row.chip and key.chip == row.chip] or keys
        if not keys:
            continue
        newest = max(keys, key=lambda key: figures[key][-1].moment)
        if row.moment > figures[newest][-1].moment:
            missed.setdefault(newest, []).append(row)
    return missed


def floor_of(key: Key, catalog: Catalog | None) -> Floor | None:
    """Return what the catalog asks of a real figure; None where it asks nothing comparable."""
    model = catalog.models.get(key.model) if catalog else None
    if model is None or key.provenance != "real":
        return None
    if key.check == "accuracy":
        if key.images != WHOLE_SET:
            return None  # the published figure says nothing exact about a part of the set
        published, tolerance = model.published, model.accuracy_rule.tolerance_percent
        if published is None:
            return None
        value, text = published.top1, f"top-1 {published.top1:g} %"
        source = published.source
    else:
        baseline = model.baseline(key.target, key.batch_size)
        if baseline is None or not baseline.judged or baseline.provenance != "real":
            return None
        if not baseline.is_of(key.chip):
            return None  # another chip's speed, which is only recorded
        value, text = baseline.fps, f"{baseline.fps:.10g} fps a {baseline.unit}"
        source, tolerance = baseline.source, baseline.tolerance_percent
    return Floor(value * (1.0 - tolerance / 100.0), f"{text} less {tolerance:g} % ({source})")
