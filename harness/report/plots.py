"""The shapes of line and interval charts: coordinates in a box of 100 x 100 units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.base.terms import Outcome
from harness.pages import formats
from harness.pages.axes import SMALLEST, round_up, ticks
from harness.pages.looks import LOOKS
from harness.report.charts import number

MOST_POINTS = 60

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A label beside an axis at `position` (0..100).

    `outcome`: how the case ended whose figure stands above; None for none.
    """

    position: float
    text: str
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Series:
    """One line of a chart. `style` is `measured`, `reference` or `trouble`.

    `dots` is SVG path data of points: zero-length strokes, whose caps are not stretched.
    """

    style: str
    name: str
    line: str
    dots: str
    whiskers: str = ""


@dataclass(frozen=True)
class Plot:
    """Lines in a box, with labels for its axes; `summary` says in words what is drawn."""

    title: str
    series: tuple[Series, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    summary: str
    best: str = ""


def _dots(points: Sequence[Point]) -> str:
    return "".join(f"M{number(x)} {number(y)}h0" for x, y in points)


def _line(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) if points else ""


# Throughput over batch size ------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """A measured throughput. `half_width`: in percent; `counts`: it may be called the best."""

    fps: float
    half_width: float
    outcome: Outcome
    counts: bool = True

    @property
    def text(self) -> str:
        how = LOOKS[self.outcome].word + ("" if self.counts else ", counts for nothing")
        return f"{formats.rate(self.fps)} ({how})"


def over_batch_size(
    title: str, measured: Mapping[int, Speed], reference: Mapping[int, float], reference_name: str
) -> Plot | None:
    """Plot throughput over batch size; the sizes stand at equal distances, fps from 0.

    No line leads to a figure that counts for nothing. `None` for fewer than two batch sizes: a
    table says a point better.
    """
    if len(measured) < 2:
        return None
    sizes = sorted({*measured, *reference})
    place = {size: 100 * (index + 0.5) / len(sizes) for index, size in enumerate(sizes)}
    highest = max(*(one.fps for one in measured.values()), *reference.values(), 0.0)
    levels = ticks(0.0, highest * 1.04 if highest > SMALLEST else 1.0)

    def height(fps: float) -> float:
        return 100 - 100 * min(max(fps, 0.0), levels[-1][0]) / levels[-1][0]

    series = []
    for counts, style, name in (
        (True, "measured", "measured"),
        (False, "trouble", "counts for nothing"),
    ):
        chosen = [size for size in sizes if size in measured and measured[size].counts == counts]
        points = [(place[size], height(measured[size].fps)) for size in chosen]
        whiskers = "".join(_whisker(place[size], measured[size], height) for size in chosen)
        if points:
            line = _line(points) if counts else ""
            series.append(Series(style, name, line, _dots(points), whiskers))
    theirs = [(place[size], height(reference[size])) for size in sizes if size in reference]
    if theirs:
        series.insert(0, Series("reference", reference_name, _line(theirs), _dots(theirs)))
    counting = {size: one.fps for size, one in measured.items() if one.counts}
    best = max(counting, key=lambda size: counting[size], default=None)
    said = "no figure counts" if best is None else f"the fastest is batch {best}"
    figures = ", ".join(f"batch {size}: {one.text}" for size, one in measured.items())
    return Plot(
        title=title,
        series=tuple(series),
        x=tuple(
            Tick(round(place[n], 2), f"{n}", measured[n].outcome if n in measured else None)
            for n in sizes
        ),
        y=tuple(Tick(round(height(fps), 2), text) for fps, text in levels),
        summary=f"{title}: {figures}; {said}",
        best=said,
    )


def _whisker(x: float, speed: Speed, height: Callable[[float], float]) -> str:
    reach = speed.fps * min(max(speed.half_width, 0.0), 100.0) / 100
    low, high = height(speed.fps - reach), height(speed.fps + reach)
    return f"M{number(x)} {number(low)}V{number(high)}"


# A reading over time -------------------------------------------------------------------------


def over_time(title: str, points: Sequence[tuple[float, float, bool]], *, unit: str) -> Plot | None:
    """Plot a reading over the seconds of a measurement; `None` for fewer than two.

    Args:
        points: seconds, reading, and whether the device was in trouble at that moment.
    """
    ordered = sorted(points)
    if len(ordered) < 2:
        return None
    if len(ordered) > MOST_POINTS:  # trouble is never thinned out
        step = len(ordered) / MOST_POINTS
        kept = {int(index * step) for index in range(MOST_POINTS)} | {len(ordered) - 1}
        ordered = [one for index, one in enumerate(ordered) if index in kept or one[2]]
    first, last = ordered[0][0], ordered[-1][0]
    low, high = min(one[1] for one in ordered), max(one[1] for one in ordered)
    # Five units at least: a chip that warms by one degree is not to look like one that burns.
    if high - low < 5:
        levels = ticks(math.floor((low + high) / 2 - 2.5), math.ceil((low + high) / 2 + 2.5))
    else:
        levels = ticks(low, high)
    floor, ceiling = levels[0][0], levels[-1][0]
    span = max(last - first, 1e-9)

    def at(seconds: float, value: float) -> Point:
        share = (min(max(value, floor), ceiling) - floor) / (ceiling - floor)
        return 100 * (seconds - first) / span, 100 - 100 * share

    places = [at(seconds, value) for seconds, value, _ in ordered]
    series = [Series("measured", title, _line(places), _dots(places))]
    trouble = [at(seconds, value) for seconds, value, bad in ordered if bad]
    if trouble:
        series.append(Series("trouble", "busy, throttled or unhealthy", "", _dots(trouble)))
    readings = f"{low:.1f} to {high:.1f}" if high > low else f"{low:.1f}"
    return Plot(
        title=title,
        series=tuple(series),
        x=(
            Tick(0.0, formats.duration(max(0.0, first))),
            Tick(100.0, formats.duration(last)),
        ),
        y=tuple(Tick(round(at(first, value)[1], 2), text) for value, text in levels),
        summary=f"{title} {readings} {unit}, {len(points):,} looks",
    )


# Intervals -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A difference from a reference with what is known of it, in points of top-1.

    `known`, `allowed`: low and high; an end of None reaches as far as the axis.
    """

    label: str
    text: str
    difference: float
    known: tuple[float, float] | None
    allowed: tuple[float | None, float | None] | None


@dataclass(frozen=True)
class Bar:
    """From `left` on, `width` wide, in percent of the axis."""

    left: float
    width: float


@dataclass(frozen=True)
class IntervalShape:
    """An `Interval` on an axis from `-reach` to `+reach` points: its parts, in percent of it."""

    interval: Interval
    reach: float
    dot: float
    known: Bar | None
    allowed: Bar | None


def interval_shapes(intervals: Sequence[Interval]) -> tuple[IntervalShape, ...]:
    """Return these intervals on one axis that holds all of them."""
    ends = [0.1]
    for one in intervals:
        ends.append(abs(one.difference))
        ends += [abs(end) for end in one.known or ()]
        ends += [abs(end) for end in one.allowed or () if end is not None]
    reach = round_up(1.08 * max(end for end in ends if math.isfinite(end)))

    def at(points: float) -> float:
        return round(min(100.0, max(0.0, 50 + 50 * points / reach)), 2)

    def bar(pair: tuple[float | None, float | None] | None) -> Bar | None:
        if pair is None:
            return None
        low = 0.0 if pair[0] is None else at(pair[0])
        high = 100.0 if pair[1] is None else at(pair[1])
        return Bar(low, round(max(0.0, high - low), 2))

    return tuple(
        IntervalShape(one, reach, at(one.difference), bar(one.known), bar(one.allowed))
        for one in intervals
    )
