"""The chart of one series: coordinates only, drawn by the template as inline SVG.

The drawing is `WIDTH` x `HEIGHT` units and keeps its proportions; dates and figures stand beside it
as HTML, so that they keep their size on a phone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from harness.history import drift
from harness.history.series import Point, Series
from harness.report import charts, figures

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
    """What the figures were before the last few, and how far they scatter."""

    level: float
    noise: float
    runs: int


def band_of(values: tuple[float, ...]) -> Band | None:
    """Level and noise of the figures that the last four are held against; None for too few.

    The level is the median of up to 16 figures before the last four (of all where there are fewer
    than five before); the noise is that of all of them together.
    """
    seen = values[-drift.RECENT - drift.BEFORE_MOST :]
    noise = drift.noise(seen)
    if noise is None:
        return None
    before = seen[: -drift.RECENT] if len(seen) >= drift.RECENT + 5 else seen
    return Band(statistics.median(before), noise, len(seen))


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
        f"the floor, {figures.figure(floor.value, series.unit)}, lies {percent:.0f} % {way} "
        "this chart"
    )


def draw(series: Series) -> Chart:
    """The chart of a series that has at least one point."""
    points = series.points
    band = band_of(series.values)
    levels = charts.ticks(*_span(series, band))
    low, high = levels[0][0], levels[-1][0]
    begin, end = points[0].moment, points[-1].moment

    def x_of(moment: float) -> float:
        share = (moment - begin) / (end - begin) if end > begin else 0.5
        return _LEFT + (_RIGHT - _LEFT) * share

    def y_of(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return _BOTTOM - (_BOTTOM - _TOP) * share

    dots, crosses, rings, line, whiskers = "", "", "", "", ""
    for point in points:
        x, y = x_of(point.moment), y_of(point.value)
        here = f"{_short(x)} {_short(y)}"
        if not point.counted:
            rings += f"M{_short(x - 3)} {_short(y)}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"
            continue
        line += f"{'L' if line else 'M'}{here}"
        whiskers += _whisker(point, x, y_of)
        if point.outcome == "failed":
            crosses += f"M{_short(x - 4)} {_short(y - 4)}l8 8m0 -8l-8 8"
        else:
            dots += f"M{here}h0"

    marks = series.marks[-MARKS_SHOWN:]
    floor = series.floor
    box = None
    if band is not None:
        left = x_of(series.counted[-band.runs].moment)
        top = y_of(band.level + BAND_WIDTH * band.noise)
        bottom = y_of(band.level - BAND_WIDTH * band.noise)
        box = (round(left, 1), round(top, 1), round(_RIGHT - left, 1), round(bottom - top, 1))
    return Chart(
        dots=dots,
        crosses=crosses,
        rings=rings,
        line=line,
        whiskers=whiskers,
        band=box,
        level=None if band is None else round(y_of(band.level), 1),
        floor=round(y_of(floor.value), 1) if floor and low <= floor.value <= high else None,
        floor_note=_floor_note(series, low, high),
        marks=tuple(
            MarkLine(
                round(x_of(points[mark.index].moment), 1),
                round(100 * x_of(points[mark.index].moment) / WIDTH, 2),
                chr(ord("A") + number),
                points[mark.index].started[:10],
                tuple(figures.line(text, 200) for text in mark.texts),
            )
            for number, mark in enumerate(marks)
        ),
        marks_left=len(series.marks) - len(marks),
        ticks=tuple(
            Tick(round(y_of(value), 1), round(100 * y_of(value) / HEIGHT, 2), text)
            for value, text in levels
        ),
        widest=max((text for _, text in levels), key=len),
        first=figures.line(points[0].started[:10], 10),
        last=figures.line(points[-1].started[:10], 10),
    )


def _whisker(point: Point, x: float, y_of: Callable[[float], float]) -> str:
    if not point.half_width_percent or point.half_width_percent > 100:
        return ""
    half = point.value * point.half_width_percent / 100.0
    top, bottom = y_of(point.value + half), y_of(point.value - half)
    return f"M{_short(x)} {_short(top)}V{_short(bottom)}" if bottom - top >= 1 else ""
