"""The chart of one series: coordinates only, drawn by the template as inline SVG.

The drawing is `WIDTH` x `HEIGHT` units and keeps its proportions; dates and figures stand beside it
as HTML, so that they keep their size on a phone.
"""

from __future__ import annotations

import statistics
import string
from collections.abc import Mapping
from dataclasses import dataclass

from harness.history import drift
from harness.history.index import Row
from harness.history.series import Mark, Series
from harness.pages import axes, formats

WIDTH, HEIGHT = 640, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 10.0, 630.0, 12.0, 188.0
MARKS_SHOWN = 12
BAND_WIDTH = 2.0
"""The noise band: the level, plus and minus so many standard deviations."""


@dataclass(frozen=True)
class MarkLine:
    """Where something changed: `x` in units, `percent` of the width for the letter above it."""

    x: float
    percent: float
    letter: str
    mark: Mark


@dataclass(frozen=True)
class Tick:
    """A round figure on the axis: `y` in units, `percent` of the height for its text."""

    y: float
    percent: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Paths in SVG's language by style, and the texts around them.

    `band` is x, y, width, height. `floor_note` says where the floor is when it is off the chart.
    """

    paths: Mapping[str, str]
    band: tuple[float, float, float, float] | None
    level: float | None
    floor: float | None
    floor_note: str
    marks: tuple[MarkLine, ...]
    ticks: tuple[Tick, ...]

    @property
    def widest(self) -> str:
        """Return the longest text of the axis, for which a page keeps room."""
        return max((tick.text for tick in self.ticks), key=len)


@dataclass(frozen=True)
class Band:
    """The level that the last four of `runs` figures are compared with, and their noise."""

    level: float
    noise: float
    runs: int

    @property
    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest figure inside."""
        return self.level - BAND_WIDTH * self.noise, self.level + BAND_WIDTH * self.noise


def band_of(values: tuple[float, ...]) -> Band | None:
    """Return level and noise of the latest figures; None for too few.

    The level is the median of up to 16 figures before the last four (of all where there are fewer
    than five before); the noise is that of all of them together.
    """
    latest = values[-drift.RECENT - drift.BEFORE_MOST :]
    noise = drift.noise(latest)
    if noise is None:
        return None
    before = latest[: -drift.RECENT] if len(latest) >= drift.RECENT + 5 else latest
    return Band(statistics.median(before), noise, len(latest))


def _span(series: Series, band: Band | None) -> tuple[float, float]:
    """Return the lowest and the highest value on the chart."""
    values = [point.value for point in series.points]
    if band is not None:
        values += band.ends
    low, high = min(values), max(values)
    if series.floor is not None:
        # A floor far below would press all figures into one line: it is then said in words.
        reach = max(2 * (high - low), 0.05 * abs(high))
        if low - reach <= series.floor.value <= high + reach:
            low, high = min(low, series.floor.value), max(high, series.floor.value)
    # Never so close that noise looks like a cliff: a change that counts takes half of the height.
    smallest = drift.SMALLEST_CHANGE[series.key.check]
    least = 2 * (smallest if series.key.check == "accuracy" else abs(high) * smallest / 100)
    pad = max(0.0, least - (high - low)) / 2
    return low - pad, high + pad


@dataclass(frozen=True)
class _Scales:
    """From moments and figures to units of the drawing."""

    begin: float
    end: float
    low: float
    high: float

    def x(self, moment: float) -> float:
        share = (moment - self.begin) / (self.end - self.begin) if self.end > self.begin else 0.5
        return round(_LEFT + (_RIGHT - _LEFT) * share, 1)

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(_BOTTOM - (_BOTTOM - _TOP) * share, 1)


def draw(series: Series) -> Chart:
    """Draw a series that has at least one point."""
    points = series.points
    band = band_of(series.values)
    levels = axes.ticks(*_span(series, band))
    low, high = levels[0][0], levels[-1][0]
    scales = _Scales(points[0].moment, points[-1].moment, low, high)
    box = None
    if band is not None:
        left, (bottom, top) = scales.x(series.counted[-band.runs].moment), map(scales.y, band.ends)
        box = (left, top, round(_RIGHT - left, 1), round(bottom - top, 1))
    floor, note = None, ""
    if series.floor is not None and low <= series.floor.value <= high:
        floor = scales.y(series.floor.value)
    elif series.floor is not None:
        way = "below" if series.floor.value < low else "above"
        figure = formats.figure(series.floor.value, series.unit)
        note = f"the floor, {figure}, lies {way} this chart"
    marks = zip(string.ascii_uppercase, series.marks[-MARKS_SHOWN:], strict=False)
    return Chart(
        paths=_paths(points, scales),
        band=box,
        level=None if band is None else scales.y(band.level),
        floor=floor,
        floor_note=note,
        marks=tuple(_mark_line(letter, mark, scales) for letter, mark in marks),
        ticks=tuple(
            Tick(scales.y(value), round(100 * scales.y(value) / HEIGHT, 2), text)
            for value, text in levels
        ),
    )


def _mark_line(letter: str, mark: Mark, scales: _Scales) -> MarkLine:
    x = scales.x(mark.row.moment)
    return MarkLine(x, round(100 * x / WIDTH, 2), letter, mark)


def _paths(points: tuple[Row, ...], scales: _Scales) -> Mapping[str, str]:
    paths = dict.fromkeys(("line", "whisker", "dots", "crosses", "rings"), "")
    for point in points:
        x, y = scales.x(point.moment), scales.y(point.value)
        if not point.counted:
            paths["rings"] += f"M{x - 3:g} {y:g}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"
            continue
        paths["line"] += f"{'L' if paths['line'] else 'M'}{x:g} {y:g}"
        half = point.value * min(point.half_width_percent or 0.0, 100.0) / 100.0
        top, bottom = scales.y(point.value + half), scales.y(point.value - half)
        if bottom - top >= 1:
            paths["whisker"] += f"M{x:g} {top:g}V{bottom:g}"
        if point.outcome == "failed":
            paths["crosses"] += f"M{x - 4:g} {y - 4:g}l8 8m0 -8l-8 8"
        else:
            paths["dots"] += f"M{x:g} {y:g}h0"
    return paths
