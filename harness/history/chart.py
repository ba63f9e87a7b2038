"""The chart of one series: coordinates only, drawn by the template as inline SVG.

The drawing is `WIDTH` x `HEIGHT` units and keeps its proportions; dates and figures stand beside it
as HTML, so that they keep their size on a phone.
"""

from __future__ import annotations

import statistics
import string
from collections.abc import Sequence
from dataclasses import dataclass

from harness.history import drift
from harness.history.index import Row
from harness.history.series import Series
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
    when: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Tick:
    """A round figure on the axis: `y` in units, `percent` of the height for its text."""

    y: float
    percent: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Paths in SVG's language and the texts around them; an empty path is not drawn.

    `band` is x, y, width, height. `floor_note` says where the floor is when it is off the chart.
    `widest` is the longest text of `ticks`.
    """

    dots: str
    crosses: str
    rings: str
    line: str
    whiskers: str
    band: tuple[float, float, float, float] | None
    level: float | None
    floor: float | None
    floor_note: str
    marks: tuple[MarkLine, ...]
    marks_left: int
    ticks: tuple[Tick, ...]
    widest: str
    first: str
    last: str


@dataclass(frozen=True)
class Band:
    """The level that the last four of `runs` figures are compared with, and their noise."""

    level: float
    noise: float
    runs: int


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


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _span(series: Series, band: Band | None) -> tuple[float, float]:
    """The lowest and the highest value on the chart."""
    values = [point.value for point in series.points]
    low, high = min(values), max(values)
    if band is not None:
        low = min(low, band.level - BAND_WIDTH * band.noise)
        high = max(high, band.level + BAND_WIDTH * band.noise)
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


def _floor_note(series: Series, low: float, high: float) -> str:
    floor = series.floor
    if floor is None or low <= floor.value <= high:
        return ""
    edge, way = (low, "below") if floor.value < low else (high, "above")
    percent = abs(100 * (floor.value - edge) / edge) if edge else 0.0
    return (
        f"the floor, {formats.figure(floor.value, series.unit)}, lies {percent:.0f} % {way} "
        "this chart"
    )


@dataclass(frozen=True)
class _Scales:
    """From moments and figures to units of the drawing."""

    begin: float
    end: float
    low: float
    high: float

    def x(self, moment: float) -> float:
        share = (moment - self.begin) / (self.end - self.begin) if self.end > self.begin else 0.5
        return _LEFT + (_RIGHT - _LEFT) * share

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return _BOTTOM - (_BOTTOM - _TOP) * share


def draw(series: Series) -> Chart:
    """Draw a series that has at least one point."""
    points, floor = series.points, series.floor
    band = band_of(series.values)
    levels = axes.ticks(*_span(series, band))
    low, high = levels[0][0], levels[-1][0]
    scales = _Scales(points[0].moment, points[-1].moment, low, high)
    box = None
    if band is not None:
        left = scales.x(series.counted[-band.runs].moment)
        top = scales.y(band.level + BAND_WIDTH * band.noise)
        bottom = scales.y(band.level - BAND_WIDTH * band.noise)
        box = (round(left, 1), round(top, 1), round(_RIGHT - left, 1), round(bottom - top, 1))
    marks = _marks(series, scales)
    return Chart(
        **_paths(points, scales),
        band=box,
        level=None if band is None else round(scales.y(band.level), 1),
        floor=round(scales.y(floor.value), 1) if floor and low <= floor.value <= high else None,
        floor_note=_floor_note(series, low, high),
        marks=marks,
        marks_left=len(series.marks) - len(marks),
        ticks=tuple(
            Tick(round(scales.y(value), 1), round(100 * scales.y(value) / HEIGHT, 2), text)
            for value, text in levels
        ),
        widest=max((text for _, text in levels), key=len),
        first=formats.line(points[0].started[:10], 10),
        last=formats.line(points[-1].started[:10], 10),
    )


def _paths(points: Sequence[Row], scales: _Scales) -> dict[str, str]:
    paths = dict.fromkeys(("dots", "crosses", "rings", "line", "whiskers"), "")
    for point in points:
        x, y = scales.x(point.moment), scales.y(point.value)
        here = f"{_short(x)} {_short(y)}"
        if not point.counted:
            paths["rings"] += f"M{_short(x - 3)} {_short(y)}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"
            continue
        paths["line"] += f"{'L' if paths['line'] else 'M'}{here}"
        paths["whiskers"] += _whisker(point, x, scales)
        if point.outcome == "failed":
            paths["crosses"] += f"M{_short(x - 4)} {_short(y - 4)}l8 8m0 -8l-8 8"
        else:
            paths["dots"] += f"M{here}h0"
    return paths


def _whisker(point: Row, x: float, scales: _Scales) -> str:
    if not point.half_width_percent or point.half_width_percent > 100:
        return ""
    half = point.value * point.half_width_percent / 100.0
    top, bottom = scales.y(point.value + half), scales.y(point.value - half)
    return f"M{_short(x)} {_short(top)}V{_short(bottom)}" if bottom - top >= 1 else ""


def _marks(series: Series, scales: _Scales) -> tuple[MarkLine, ...]:
    lines = []
    for letter, mark in zip(string.ascii_uppercase, series.marks[-MARKS_SHOWN:], strict=False):
        point = series.points[mark.index]
        x = scales.x(point.moment)
        texts = tuple(formats.line(text, 200) for text in mark.texts)
        when = formats.line(point.started[:10], 10)
        lines.append(MarkLine(round(x, 1), round(100 * x / WIDTH, 2), letter, when, texts))
    return tuple(lines)
