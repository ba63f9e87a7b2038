"""The figures of one case over time, and what changed between them.

A series holds what can be compared: one model, batch size, target, chip and check, of one
provenance; accuracies over the same number of images. Real, rehearsed and simulated figures are
never in one series.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.base.terms import Check, Outcome, Provenance
from harness.catalog.schema import Catalog
from harness.history import drift
from harness.history.store import History, chip_of
from harness.records.lines import CaseLine

# Outcomes whose figure says how good the artifact was. An inconclusive one says how busy the
# machine was: it is shown, and no rule looks at it.
COUNTED: frozenset[Outcome] = frozenset({"passed", "failed", "recorded"})
WHOLE_SET = 50_000

# What is marked in a series when it changes, and what a reader calls it.
_MARKED = {
    "toolchain": "toolchain",
    "driver": "tool",
    "method": "method",
    "tuning": "tuning",
    "card": "card",
    "device": "device",
    "hostname": "host",
    "checkpoint": "checkpoint",
}


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
class Point:
    """One figure. `half_width_percent`: of its own 99 % interval, where it has one."""

    run: str
    directory: str
    started: str
    moment: float
    value: float
    unit: str
    half_width_percent: float | None
    outcome: Outcome
    trouble: str
    made_with: tuple[tuple[str, str], ...]

    @property
    def counted(self) -> bool:
        """Whether a rule looks at it."""
        return self.outcome in COUNTED and not self.trouble


@dataclass(frozen=True)
class Mark:
    """Something that is different from one point on (`index`); `texts`: `toolchain: A -> B`."""

    index: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Floor:
    """What a figure must reach, as the catalog has it today: it does not follow the figures."""

    value: float
    reference: float
    text: str


@dataclass(frozen=True)
class Miss:
    """A case of a series that was run and gave no figure."""

    run: str
    directory: str
    started: str
    outcome: Outcome
    stage: str  # of its error; empty for none


@dataclass(frozen=True)
class Series:
    """Figures over time, oldest first. `misses`: the cases without a figure after the last one."""

    key: Key
    title: str
    points: tuple[Point, ...]
    floor: Floor | None
    misses: tuple[Miss, ...] = ()

    @property
    def unit(self) -> str:
        """`%` or `fps`."""
        return self.points[-1].unit

    @cached_property
    def counted(self) -> tuple[Point, ...]:
        """The points that the rules look at."""
        return tuple(point for point in self.points if point.counted)

    @cached_property
    def values(self) -> tuple[float, ...]:
        """The figures that the rules look at."""
        return tuple(point.value for point in self.counted)

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """Where what a figure was made with is not what the figure before it was made with."""
        found = []
        for index, (before, point) in enumerate(zip(self.points, self.points[1:], strict=False), 1):
            texts = _differences(before.made_with, point.made_with)
            if texts:
                found.append(Mark(index, texts))
        return tuple(found)

    @cached_property
    def changes(self) -> tuple[drift.Change, ...]:
        """What the rules find at the end of the series."""
        return drift.changes(self.values, self.key.check)

    @cached_property
    def decline(self) -> drift.Change | None:
        """The decline at the end of the series, if there is one."""
        return next((change for change in self.changes if change.decline), None)

    def explanations(self, change: drift.Change) -> tuple[str, ...]:
        """What else changed within the runs that a finding looked at: its likely causes."""
        first = self.counted[-change.runs]
        begin = self.points.index(first)
        return tuple(
            f"{self.points[mark.index].started[:10]} {text}"
            for mark in self.marks
            if mark.index > begin
            for text in mark.texts
        )


def _differences(
    before: tuple[tuple[str, str], ...], after: tuple[tuple[str, str], ...]
) -> tuple[str, ...]:
    earlier = dict(before)
    return tuple(
        f"{name}: {earlier[name]} \N{RIGHTWARDS ARROW} {value}"
        for name, value in after
        if name in earlier and earlier[name] != value
    )


def load(
    history: History,
    provenance: Provenance,
    *,
    catalog: Catalog | None = None,
    models: Collection[str] | None = None,
    checks: Collection[str] | None = None,
    last: int | None = None,
) -> list[Series]:
    """Every series of one provenance, in the order of checks, targets, models, batch sizes.

    `last` bounds the points of each. Floors are drawn from the catalog, for real figures alone.
    """
    grouped: dict[Key, list[Mapping[str, Any]]] = {}
    for row in history.figures(provenance):
        if models is not None and row["model"] not in models:
            continue
        if checks is not None and row["check_name"] not in checks:
            continue
        grouped.setdefault(_key(row), []).append(row)
    misses = _misses(history, provenance, grouped)
    return [
        Series(
            key,
            _title(key, catalog),
            tuple(_points(rows[-last:] if last else rows)),
            floor_of(key, catalog),
            tuple(misses.get(key, ())),
        )
        for key, rows in sorted(grouped.items(), key=lambda item: item[0])
    ]


def _misses(
    history: History, provenance: Provenance, grouped: Mapping[Key, list[Mapping[str, Any]]]
) -> dict[Key, list[Miss]]:
    """The cases without a figure that are newer than the last figure of their series.

    Such a case may not know its chip, and never the number of its images: it belongs to the series
    of its case that has the newest figure, of its chip where that is known.
    """
    last = {key: rows[-1]["moment"] for key, rows in grouped.items()}
    of_case: dict[tuple[Any, ...], list[Key]] = {}
    for key in grouped:
        of_case.setdefault((key.check, key.target, key.model, key.batch_size), []).append(key)
    found: dict[Key, list[Miss]] = {}
    for row in history.misses(provenance):
        case = (row["check_name"], row["target"], row["model"], row["batch_size"])
        keys = of_case.get(case)
        if not keys:
            continue
        mine = [key for key in keys if row["chip"] and key.chip == row["chip"]] or keys
        newest = max(mine, key=lambda key: last[key])
        if row["moment"] > last[newest]:
            found.setdefault(newest, []).append(
                Miss(
                    run=row["run"],
                    directory=row["directory"],
                    started=row["started"],
                    outcome=row["outcome"],
                    stage=row["error_stage"],
                )
            )
    return found


def _key(row: Mapping[str, Any]) -> Key:
    accuracy = row["check_name"] == "accuracy"
    return Key(
        check=row["check_name"],
        target=row["target"],
        chip=row["chip"],
        model=row["model"],
        batch_size=row["batch_size"],
        images=(row["images"] or 0) if accuracy else 0,
        provenance=row["provenance"],
    )


def key_of(case: CaseLine, provenance: Provenance) -> Key:
    """The series that a case of a run belongs to; the same as the index finds for its line."""
    images = case.measurement.get("images")
    return Key(
        check=case.check,
        target=case.target,
        chip=chip_of(case.measurement, case.device),
        model=case.model,
        batch_size=case.batch_size,
        images=images if case.check == "accuracy" and type(images) is int else 0,
        provenance=provenance,
    )


def _points(rows: Iterable[Mapping[str, Any]]) -> Iterator[Point]:
    versions: dict[str, dict[str, str]] = {}  # few setups stand behind many rows
    for row in rows:
        text = row["versions"]
        if text not in versions:
            versions[text] = json.loads(text)
        # What is unknown is left out: it is no change when an older run did not say it.
        made_with = {name: row[column] for column, name in _MARKED.items() if row[column]}
        made_with.update((name, value) for name, value in versions[text].items() if value)
        yield Point(
            run=row["run"],
            directory=row["directory"],
            started=row["started"],
            moment=row["moment"],
            value=row["measured"],
            unit=row["unit"],
            half_width_percent=row["half_width_percent"],
            outcome=row["outcome"],
            trouble=row["trouble"],
            made_with=tuple(made_with.items()),
        )


def _title(key: Key, catalog: Catalog | None) -> str:
    model = catalog.models.get(key.model) if catalog else None
    return model.title if model else key.model


def floor_of(key: Key, catalog: Catalog | None) -> Floor | None:
    """What the catalog asks of a real figure; None where it asks nothing comparable."""
    model = catalog.models.get(key.model) if catalog else None
    if model is None or key.provenance != "real":
        return None
    if key.check == "accuracy":
        rule, published = model.accuracy.rule, model.accuracy.published
        if key.images != WHOLE_SET:
            return None  # the published figure says nothing exact about a part of the set
        return Floor(
            published.top1 * (1.0 - rule.tolerance_percent / 100.0),
            published.top1,
            f"top-1 {published.top1:g} % less {rule.tolerance_percent:g} % ({published.source})",
        )
    baseline = model.baseline(key.target, key.batch_size)
    if baseline is None or not baseline.judged or baseline.provenance != "real":
        return None
    if not baseline.is_of(key.chip):
        return None  # another chip's speed, which is recorded and held against nothing
    return Floor(
        baseline.fps * (1.0 - baseline.tolerance_percent / 100.0),
        baseline.fps,
        f"{baseline.fps:.10g} fps a {baseline.unit} less {baseline.tolerance_percent:g} % "
        f"({baseline.source})",
    )
