"""The shapes of small charts: coordinates only, drawn by the template as inline SVG.

Every chart lives in a box of 100 x 100 units that the page stretches; its labels are HTML beside
it, so that they keep their size on a phone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.base.precision import MINUS
from harness.report import figures

BINS = 48
BUCKETS = 120


@dataclass(frozen=True)
class Marker:
    """A line across a chart at `position` (0..100). `style` is `mean`, `median` or `p99`."""

    style: str
    position: float
    text: str


@dataclass(frozen=True)
class Samples:
    """Latency samples as a histogram and in the order of measuring.

    `histogram`, `envelope`: SVG path data. `low`, `high`, `top`, `bottom`: labels of the axes.
    """

    count: int
    histogram: str
    markers: tuple[Marker, ...]
    low: str
    high: str
    beyond: str
    envelope: str
    median_line: float
    bottom: str
    top: str
    summary: str


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    """Linear interpolation between closest ranks (NumPy's default)."""
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _histogram(ordered: Sequence[float], low: float, high: float) -> str:
    bins = max(4, min(BINS, len(ordered) // 2))
    counts = [0] * bins
    for value in ordered:
        if value <= high:
            counts[min(bins - 1, int((value - low) / (high - low) * bins))] += 1
    tallest = max(counts) or 1
    step = 100 / bins
    parts = []
    for index, count in enumerate(counts):
        if count:
            height = max(2.0, 100 * count / tallest)  # one sample stays visible
            left = _number(index * step + step * 0.06)
            parts.append(f"M{left} 100v-{_number(height)}h{_number(step * 0.88)}V100z")
    return "".join(parts)


def _envelope(samples: Sequence[float], low: float, high: float) -> str:
    """The range of each bucket of consecutive samples, as one closed outline."""
    buckets = min(BUCKETS, len(samples))
    upper, lower = "", ""
    for index in range(buckets):
        start = index * len(samples) // buckets
        chunk = samples[start : (index + 1) * len(samples) // buckets]
        left, right = _number(100 * index / buckets), _number(100 * (index + 1) / buckets)
        y_top = 100 - 100 * (min(max(chunk), high) - low) / (high - low)
        y_bottom = 100 - 100 * (min(min(chunk), high) - low) / (high - low)
        y_bottom = min(100.0, max(y_bottom, y_top + 1.5))  # equal samples still draw a line
        upper += f"{'V' if upper else 'M0 '}{y_top:.0f}H{right}"
        lower = f"V{y_bottom:.0f}H{left}{lower}"
    return f"{upper}{lower}z"


def samples(values: Sequence[float]) -> Samples | None:
    """Charts of latency samples in ms; `None` for fewer than four.

    The axes end a little past the 99th percentile: one slow execution would otherwise press all
    others into one bar. How many lie beyond is said in words.
    """
    if len(values) < 4:
        return None
    ordered = sorted(values)
    low, p99 = ordered[0], _quantile(ordered, 0.99)
    high = min(ordered[-1], p99 + (p99 - low) * 0.25)
    if high - low < max(abs(high), 1.0) * 1e-6:
        low, high = low - max(abs(low), 1.0) * 0.01, low + max(abs(low), 1.0) * 0.01
    middle = _quantile(ordered, 0.5)
    marked = (("mean", statistics.fmean(ordered)), ("median", middle), ("p99", p99))
    markers = tuple(
        Marker(
            name,
            round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 2),
            figures.milliseconds(value),
        )
        for name, value in marked
    )
    above = sum(1 for value in ordered if value > high)
    beyond = ""
    if above:
        beyond = (
            f"{above:,} of {len(ordered):,} samples lie beyond {figures.milliseconds(high)}, "
            f"the slowest at {figures.milliseconds(ordered[-1])}"
        )
    return Samples(
        count=len(ordered),
        histogram=_histogram(ordered, low, high),
        markers=markers,
        low=figures.milliseconds(low),
        high=figures.milliseconds(high),
        beyond=beyond,
        envelope=_envelope(values, low, high),
        median_line=round(100 - 100 * (min(middle, high) - low) / (high - low), 2),
        bottom=figures.milliseconds(low),
        top=figures.milliseconds(high),
        summary=", ".join(f"{marker.style} {marker.text}" for marker in markers),
    )


# Stages --------------------------------------------------------------------------------------

SMALLEST = 1e-9  # a height below this is none: its power of ten may not be a number
LARGEST = 1e15  # past this a float no longer tells neighbouring round numbers apart
TONES = 6
HATCHES = 3


@dataclass(frozen=True)
class Segment:
    """One part of a stacked bar. `share` is in percent of the whole.

    `tone` picks its colour and `hatch` its pattern: no two stages of a page look alike, and
    `mark`, written in both the bar and the legend, tells them apart without either.
    """

    label: str
    text: str
    share: float
    tone: int
    hatch: int = 0
    mark: str = ""
    note: str = ""


class Looks:
    """Gives each label of a page one look of its own; the same label always looks the same."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, label: str) -> int:
        """0 for the first label that was asked for, 1 for the second, ..."""
        return self._places.setdefault(label, len(self._places))


def stacked(parts: Sequence[tuple[str, float, str]], looks: Looks | None = None) -> list[Segment]:
    """Labelled seconds as segments of one bar; negative times count as zero.

    Past `TONES * HATCHES` labels a look comes again; the mark does not.
    """
    looks = looks or Looks()
    total = sum(max(0.0, seconds) for _, seconds, _ in parts)
    segments = []
    for label, seconds, note in parts:
        place = looks.place(label)
        segments.append(
            Segment(
                label,
                figures.duration(seconds),
                round(100 * max(0.0, seconds) / total, 2) if total > 0 else 0.0,
                place % TONES,
                place // TONES % HATCHES,
                f"{place + 1}",
                note,
            )
        )
    return segments


# Lines ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    """A label beside an axis at `position` (0..100).

    `outcome`: how the case ended whose figure stands above; empty for none.
    """

    position: float
    text: str
    outcome: str = ""


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


def _nice(value: float) -> float:
    """The next round number: 1, 2, 2.5, 4, 5 or 8 times a power of ten; 1 for what is no height."""
    if not (value > SMALLEST and math.isfinite(value)):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        (step * power for step in (1.0, 2.0, 2.5, 4.0, 5.0, 8.0) if value <= step * power * 1.0001),
        10.0 * power,
    )


def ticks(low: float, high: float, most: int = 4) -> tuple[tuple[float, str], ...]:
    """Round values from at or below `low` to at or above `high`, with their texts.

    They are 1, 2 or 5 times a power of ten apart, and `most` steps or one more. A text has the
    decimals of the step and no more; an axis of nothing is widened first.
    """
    size = max(abs(low), abs(high))
    if not (math.isfinite(low) and math.isfinite(high) and size < LARGEST):
        return (0.0, "0"), (1.0, "1")
    if high - low < max(size * 1e-6, SMALLEST):
        pad = max(size * 0.01, SMALLEST * 10)
        low, high = low - pad, high + pad
    rough = (high - low) / most
    power = math.floor(math.log10(rough))
    step = next(s for s in (1.0, 2.0, 5.0, 10.0) if rough <= s * 10.0**power * (1 + 1e-9))
    if step == 10.0:
        step, power = 1.0, power + 1

    def at(index: int) -> float:
        # Rounded, so that a tick is the number that its text says.
        return round(index * step * 10.0**power, max(0, -power))

    width = step * 10.0**power
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    return tuple(
        (at(index), _tick_text(at(index), max(0, -power)))
        for index in range(first, max(last, first + 1) + 1)
    )


def _tick_text(value: float, decimals: int) -> str:
    return f"{value + 0.0:,.{decimals}f}".replace("-", MINUS)


def _dots(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"M{_number(x)} {_number(y)}h0" for x, y in points)


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points) if points else ""


def over_batch_size(
    title: str,
    measured: Mapping[int, tuple[float, float]],
    reference: Mapping[int, float],
    *,
    reference_name: str,
    outcomes: Mapping[int, str] | None = None,
    worthless: Collection[int] = (),
) -> Plot | None:
    """Throughput over batch size; the sizes stand at equal distances, frames a second from 0.

    Args:
        measured: frames a second and their half-width in percent, by batch size.
        reference: frames a second of what it is held against; empty for nothing.
        outcomes: how the case of a measured figure ended, by batch size.
        worthless: batch sizes whose figure counts for nothing: no line leads there.

    `None` for fewer than two batch sizes: a table says a point better.
    """
    if len(measured) < 2:
        return None
    sizes = sorted({*measured, *reference})
    place = {size: 100 * (index + 0.5) / len(sizes) for index, size in enumerate(sizes)}
    highest = max(*(fps for fps, _ in measured.values()), *reference.values(), 0.0)
    levels = ticks(0.0, highest * 1.04 if highest > SMALLEST else 1.0)
    top = levels[-1][0]

    def height(fps: float) -> float:
        return 100 - 100 * min(max(fps, 0.0), top) / top

    points = {size: (place[size], height(measured[size][0])) for size in sizes if size in measured}
    ours = [point for size, point in points.items() if size not in worthless]
    others = [point for size, point in points.items() if size in worthless]
    whiskers = {True: "", False: ""}
    for size, (fps, half_width) in measured.items():
        reach = fps * min(max(half_width, 0.0), 100.0) / 100
        low, high = height(fps - reach), height(fps + reach)
        whisker = f"M{_number(place[size])} {_number(low)}V{_number(high)}"
        whiskers[size in worthless] += whisker
    series = []
    if ours:
        series.append(Series("measured", "measured", _line(ours), _dots(ours), whiskers[False]))
    if others:
        series.append(Series("trouble", "counts for nothing", "", _dots(others), whiskers[True]))
    theirs = [(place[size], height(reference[size])) for size in sizes if size in reference]
    if theirs:
        series.insert(0, Series("reference", reference_name, _line(theirs), _dots(theirs)))
    counting = [size for size in measured if size not in worthless]
    best = max(counting, key=lambda size: measured[size][0], default=None)
    outcomes = outcomes or {}

    def said(size: int) -> str:
        ended = outcomes.get(size, "").replace("_", " ")
        more = [ended] if ended else []
        more += ["counts for nothing"] if size in worthless else []
        return figures.rate(measured[size][0]) + (f" ({', '.join(more)})" if more else "")

    return Plot(
        title=title,
        series=tuple(series),
        x=tuple(Tick(round(place[size], 2), f"{size}", outcomes.get(size, "")) for size in sizes),
        y=tuple(Tick(round(height(fps), 2), text) for fps, text in levels),
        summary=(
            f"{title}: "
            + ", ".join(f"batch {size}: {said(size)}" for size in measured)
            + ("; no figure counts" if best is None else f"; the fastest is batch {best}")
        ),
    )


MOST_POINTS = 60


def over_time(title: str, points: Sequence[tuple[float, float, bool]], *, unit: str) -> Plot | None:
    """A reading over the seconds of a measurement; `None` for fewer than two.

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

    def at(seconds: float, value: float) -> tuple[float, float]:
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
        x=(Tick(0.0, figures.duration(max(0.0, first))), Tick(100.0, figures.duration(last))),
        y=tuple(
            Tick(round(100 - 100 * (value - floor) / (ceiling - floor), 2), text)
            for value, text in levels
        ),
        summary=f"{title} {readings} {unit}, {len(points):,} looks",
    )


# Intervals -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A difference from a reference with what is known of it, in points of top-1.

    `allowed`, `known`: low and high; an end of None reaches as far as the axis.
    """

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
    """An `Interval` on an axis: where its parts stand, in percent."""

    dot: float
    zero: float
    known: Bar | None
    allowed: Bar | None


def interval_axis(intervals: Sequence[Interval]) -> float:
    """How far, in points, an axis around 0 reaches that holds all of these."""
    ends = [0.1]
    for one in intervals:
        ends.append(abs(one.difference))
        ends += [abs(end) for end in one.known or ()]
        ends += [abs(end) for end in one.allowed or () if end is not None]
    return _nice(1.08 * max(end for end in ends if math.isfinite(end)))


def interval_shape(interval: Interval, reach: float) -> IntervalShape:
    """Where the parts of an interval stand on an axis from -reach to +reach."""

    def at(points: float) -> float:
        return round(min(100.0, max(0.0, 50 + 50 * points / reach)), 2)

    def bar(ends: tuple[float | None, float | None] | None) -> Bar | None:
        if ends is None:
            return None
        low = 0.0 if ends[0] is None else at(ends[0])
        high = 100.0 if ends[1] is None else at(ends[1])
        return Bar(low, round(max(0.0, high - low), 2))

    return IntervalShape(at(interval.difference), 50.0, bar(interval.known), bar(interval.allowed))
