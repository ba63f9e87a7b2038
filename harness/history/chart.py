"""The chart of one series: figures over time with level, noise, floor and what changed."""

from __future__ import annotations

import statistics
import string
from collections.abc import Iterable
from dataclasses import dataclass

from harness.history import drift
from harness.history.index import Row
from harness.history.series import Series
from harness.pages import charts, formats
from harness.pages.charts import Chart, Mark, Scale, Tick

MARKS_SHOWN = 12
BAND_WIDTH = 2.0
"""The noise band: the level, plus and minus so many standard deviations."""


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


def draw(series: Series, state: str) -> Chart:
    """Draw a series that has at least one point; `state`: the word for it."""
    points, band = series.points, band_of(series.values)
    up, y = charts.axis(charts.ticks(*_span(series, band)))
    along = Scale(points[0].moment, points[-1].moment)
    marks = []
    if band is not None:
        left, (bottom, top) = along.x(series.counted[-band.runs].moment), map(up.y, band.ends)
        area = f"M{left:g} {top:g}H100V{bottom:g}H{left:g}z"
        level = f"M{left:g} {up.y(band.level):g}H100"
        marks += [Mark("band", area, "noise band"), Mark("level", level, "level")]
    note = ""
    if series.floor is not None and up.low <= series.floor.value <= up.high:
        path = f"M0 {up.y(series.floor.value):g}H100"
        marks.append(Mark("floor", path, f"floor: {series.floor.text}"))
    elif series.floor is not None:
        way = "below" if series.floor.value < up.low else "above"
        figure = formats.figure(series.floor.value, series.unit)
        note = f"the floor, {figure}, lies {way} this chart"
    top_axis = tuple(
        Tick(along.x(mark.row.moment), letter)
        for letter, mark in zip(string.ascii_uppercase, series.marks[-MARKS_SHOWN:], strict=False)
    )
    if top_axis:
        marks.append(Mark("mark", "".join(f"M{one.place:g} 0V100" for one in top_axis), "change"))
    days = tuple(dict.fromkeys((points[0].day, points[-1].day)))
    last = formats.figure(points[-1].value, series.unit)
    return Chart(
        caption="; ".join(filter(None, (series.unit, note))),
        summary=f"{series.key.name} {series.key.check} over time: {len(points)} figures, "
        f"the last {last}: {state}",
        marks=(*marks, *_figures(points, along, up)),
        x=tuple(Tick(100.0 * number, day) for number, day in enumerate(days)),
        y=y,
        top=top_axis,
    )


def _figures(points: Iterable[Row], along: Scale, up: Scale) -> list[Mark]:
    counted = [point for point in points if point.counted]

    def places(rows: Iterable[Row]) -> str:
        return charts.dots((along.x(row.moment), up.y(row.value)) for row in rows)

    bars = [(along.x(one.moment), one.value, one.half_width_percent or 0.0) for one in counted]
    marks = [
        Mark("whisker", charts.whiskers(bars, up)),
        Mark("line", charts.line((along.x(one.moment), up.y(one.value)) for one in counted)),
        Mark("dots", places(one for one in counted if one.outcome != "failed"), "run"),
        Mark("d-trouble", places(one for one in counted if one.outcome == "failed"), "failed"),
        Mark(
            "uncounted",
            places(one for one in points if not one.counted),
            "undecided or disturbed: no rule looks at it",
        ),
    ]
    return [mark for mark in marks if len(mark.path) > 1]


def _span(series: Series, band: Band | None) -> tuple[float, float]:
    """Return the lowest and the highest value on the chart."""
    values = [point.value for point in series.points]
    for point in series.counted:
        values += charts.reach(point.value, point.half_width_percent or 0.0)
    if band is not None:
        values += band.ends
    low, high = min(values), max(values)
    if series.floor is not None:
        # A floor far below would press all figures into one line: it is then said in words.
        margin = max(2 * (high - low), 0.05 * abs(high))
        if low - margin <= series.floor.value <= high + margin:
            low, high = min(low, series.floor.value), max(high, series.floor.value)
    # Never so close that noise looks like a cliff: a change that counts takes half of the height.
    smallest = drift.SMALLEST_CHANGE[series.key.check]
    least = 2 * (smallest if series.key.check == "accuracy" else abs(high) * smallest / 100)
    pad = max(0.0, least - (high - low)) / 2
    return low - pad, high + pad
