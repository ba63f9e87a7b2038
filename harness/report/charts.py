"""The charts of a run: latency, throughput over batch size, temperature, intervals, times."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.base.terms import Outcome
from harness.judge.statistics import percentile
from harness.pages import formats
from harness.pages.charts import (
    SMALLEST,
    Chart,
    Mark,
    Scale,
    Tick,
    axis,
    dots,
    line,
    reach,
    ticks,
    whiskers,
)
from harness.pages.formats import milliseconds
from harness.pages.looks import LOOKS
from harness.pages.words import say
from harness.records.lines import CaseLine, RunLine
from harness.records.verdicts import FigureName as F

BINS = 48
MOST_POINTS = 60

# Latency ---------------------------------------------------------------------------------------


def latency(samples: Sequence[float]) -> Chart | None:
    """Draw the distribution of samples in ms; None for fewer than 4.

    The axis ends a little past the 99th percentile: one slow execution would otherwise press all
    others into one bar. How many lie beyond is said in words.
    """
    if len(samples) < 4:
        return None
    ordered = sorted(samples)
    low, p99 = ordered[0], percentile(ordered, 99.0)
    high = min(ordered[-1], p99 + (p99 - low) * 0.25)
    if high - low < max(abs(high), 1.0) * 1e-6:
        pad = max(abs(low), 1.0) * 0.01
        low, high = low - pad, low + pad
    scale = Scale(low, high)
    marked = {"mean": statistics.fmean(ordered), "median": percentile(ordered, 50.0), "p99": p99}
    markers = tuple(
        Mark(f"m-{name}", f"M{scale.x(value):g} 0V100", f"{say(name)} {milliseconds(value)}")
        for name, value in marked.items()
    )
    caption = say("Distribution of {n} executions.", n=f"{len(ordered):,}")
    if above := sum(value > high for value in ordered):
        ends = {"high": milliseconds(high), "slowest": milliseconds(ordered[-1])}
        beyond = "{n} lie beyond {high}, the slowest at {slowest}."
        caption += " " + say(beyond, n=f"{above:,}", **ends)
    bars, tallest = _bars([value for value in ordered if value <= high], scale)
    return Chart(
        caption,
        f"Histogram of the latency samples: {', '.join(one.key for one in markers)}",
        (Mark("bars", bars), *markers),
        (Tick(0, milliseconds(low)), Tick(100, milliseconds(high))),
        (Tick(100, "0"), Tick(0, f"{tallest:,}")),
    )


def _bars(samples: Sequence[float], scale: Scale) -> tuple[str, int]:
    """A histogram as path data, and the samples of its highest bar."""
    bins = max(4, min(BINS, len(samples) // 2))
    counts = Counter(min(bins - 1, int(scale.x(value) * bins / 100)) for value in samples)
    tallest, step = max(counts.values()), 100 / bins
    bars = ""
    for place, count in sorted(counts.items()):
        height = max(2.0, 100 * count / tallest)  # one sample stays visible
        left, width = (place + 0.06) * step, 0.88 * step
        bars += f"M{left:.4g} 100v-{height:.4g}h{width:.4g}V100z"
    return bars, tallest


# Throughput over batch size --------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """A measured throughput. `half_width`: in percent; `counts`: it may be called the best."""

    fps: float
    half_width: float
    outcome: Outcome
    counts: bool = True

    @property
    def text(self) -> str:
        how = LOOKS[self.outcome].said + ("" if self.counts else say(", counts for nothing"))
        return f"{formats.rate(self.fps)} ({how})"


def over_batch_size(
    title: str, measured: Mapping[int, Speed], reference: Mapping[int, float], reference_name: str
) -> Chart | None:
    """Draw throughput over batch size; the sizes stand at equal distances, fps from 0.

    No line leads to a figure that counts for nothing. `None` for fewer than two batch sizes: a
    table says a point better.
    """
    if len(measured) < 2:
        return None
    sizes = sorted({*measured, *reference})
    place = {size: round(100 * (index + 0.5) / len(sizes), 2) for index, size in enumerate(sizes)}
    ends = [reach(one.fps, one.half_width)[1] for one in measured.values()]
    highest = max(*ends, *reference.values(), 0.0)
    scale, y = axis(ticks(0.0, highest * 1.04 if highest > SMALLEST else 1.0))
    marks = []
    if reference:
        points = [(place[size], scale.y(reference[size])) for size in sorted(reference)]
        marks = [
            Mark("l-reference", line(points)),
            Mark("d-reference", dots(points), reference_name),
        ]
    for counts, style, name in (
        (True, "measured", say("measured")),
        (False, "trouble", say("counts for nothing")),
    ):
        chosen = {size: measured[size] for size in sizes if size in measured}
        chosen = {size: one for size, one in chosen.items() if one.counts is counts}
        points = [(place[size], scale.y(one.fps)) for size, one in chosen.items()]
        bars = [(place[size], one.fps, one.half_width) for size, one in chosen.items()]
        if chosen:
            marks.append(Mark("l-whisker", whiskers(bars, scale)))
            marks += [Mark("l-measured", line(points))] * counts
            marks.append(Mark(f"d-{style}", dots(points), name))
    counting = {size: one.fps for size, one in measured.items() if one.counts}
    best = max(counting, key=lambda size: counting[size], default=None)
    said = say("no figure counts") if best is None else say("the fastest is batch {n}", n=best)
    figures = ", ".join(f"batch {size}: {one.text}" for size, one in measured.items())
    outcomes = {size: one.outcome for size, one in measured.items()}
    return Chart(
        caption=say("{what}, frames a second by batch size: {said}.", what=title, said=said),
        summary=f"{title}: {figures}; {said}",
        marks=tuple(marks),
        x=tuple(Tick(place[size], f"{size}", outcomes.get(size)) for size in sizes),
        y=y,
    )


# A reading over time ---------------------------------------------------------------------------


def temperature(points: Sequence[tuple[float, float, bool]]) -> Chart | None:
    """Draw degrees Celsius over the seconds of a measurement; `None` for fewer than two.

    Args:
        points: seconds, reading, and whether the device was in trouble at that moment.
    """
    ordered = sorted(points)
    if len(ordered) < 2:
        return None
    low, high = min(one[1] for one in ordered), max(one[1] for one in ordered)
    # Five degrees at least: a chip that warms by one is not to look like one that burns.
    pad = max(0.0, 5 - (high - low)) / 2
    up, y = axis(ticks(math.floor(low - pad), math.ceil(high + pad)))
    first, last = ordered[0][0], ordered[-1][0]
    along = Scale(first, last)
    step = math.ceil(len(ordered) / MOST_POINTS)
    kept = [one for index, one in enumerate(ordered) if index % step == 0 or one[2]]
    places = [(along.x(seconds), up.y(value)) for seconds, value, _ in kept]
    trouble = [place for place, one in zip(places, kept, strict=True) if one[2]]
    marks = [Mark("l-measured", line(places)), Mark("d-measured", dots(places))]
    if trouble:
        marks.append(Mark("d-trouble", dots(trouble), say("busy, throttled or unhealthy")))
    readings = f"{low:.1f} to {high:.1f}" if high > low else f"{low:.1f}"
    return Chart(
        caption=say("Temperature of the device, °C over the seconds of the measurement."),
        summary=f"Temperature of the device {readings} °C, {len(points):,} looks",
        marks=tuple(marks),
        x=(Tick(0, formats.duration(max(0.0, first))), Tick(100, formats.duration(last))),
        y=y,
    )


# The intervals that an accuracy was judged by --------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A difference from a reference with what is known of it, in points of top-1.

    `known`, `allowed`: low and high; what is allowed may have no upper end.
    """

    label: str
    text: str
    difference: float
    known: tuple[float, float] | None
    allowed: tuple[float, float] | None

    @property
    def reach(self) -> float:
        """A round number of points that holds all of it, and more than 0."""
        ends = (0.1, self.difference, *(self.known or ()), *(self.allowed or ()))
        largest = max(abs(end) for end in ends if math.isfinite(end))
        return ticks(0.0, 1.08 * largest)[-1][0]

    def marks(self, reach: float) -> tuple[Mark, ...]:
        """Draw it on an axis from `-reach` to `+reach` points."""
        scale = Scale(-reach, reach)
        marks = []
        if self.allowed is not None:
            low, high = map(scale.x, self.allowed)
            marks.append(Mark("allowed", f"M{low:g} 8H{high:g}V92H{low:g}z"))
        marks.append(Mark("zero", "M50 0V100"))
        if self.known is not None:
            low, high = map(scale.x, self.known)
            marks.append(Mark("known", f"M{low:g} 50H{high:g}M{low:g} 30V70M{high:g} 30V70"))
        return *marks, Mark("d-measured", f"M{scale.x(self.difference):g} 50h0")


def intervals(case: CaseLine, run: RunLine | None) -> tuple[Interval, ...]:
    """Return the differences by which an accuracy was judged, from the figures of its verdict."""
    published = run.guide_figures.get(case.model) if run is not None else None
    drop = published is not None and published.side == "drop"
    figures = case.verdict.figures if case.verdict is not None else {}
    found = []
    match figures:
        case {
            F.DIFFERENCE_INTERVAL: (float() | int() as low, float() | int() as high),
            F.DIFFERENCE_POINTS: float() | int() as off,
            F.TOLERANCE_POINTS: float() | int() as tolerance,
        }:
            label = say("compiled against eager, same images")
            found.append(_judged(label, off, (low, high), tolerance, drop))
        case {
            F.TOP1: float() | int() as top1,
            F.PUBLISHED_TOP1: float() | int() as target,
            F.TOLERANCE_PERCENT: float() | int() as percent,
        }:
            label = say("compiled against the published")
            found.append(_judged(label, top1 - target, None, percent * target / 100, drop))
    match figures:
        case {
            F.EAGER_INTERVAL: (float() | int() as low, float() | int() as high),
            F.EAGER_TOP1: float() | int() as eager,
            F.PUBLISHED_TOP1: float() | int() as target,
        }:
            off, known = eager - target, (low - target, high - target)
            text = say("{difference}: it must hold 0", difference=_known(off, known, "99.9 %"))
            label = say("eager against the published")
            found.append(Interval(label, text, off, known, None))
    return tuple(found)


def _judged(
    label: str, off: float, known: tuple[float, float] | None, tolerance: float, drop: bool
) -> Interval:
    allowed = "{difference}, a drop of {n} allowed" if drop else "{difference}, ± {n} allowed"
    text = say(allowed, difference=_known(off, known, "99 %"), n=f"{tolerance:.2f}")
    return Interval(label, text, off, known, (-tolerance, math.inf if drop else tolerance))


def _known(off: float, known: tuple[float, float] | None, level: str) -> str:
    points = say("points")
    text = formats.difference(off, points)
    if known is None:
        return text
    low, high = (formats.difference(end, points) for end in known)
    return say(
        "{text}, {level} interval {low} to {high}", text=text, level=level, low=low, high=high
    )


# Times -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """One part of a whole: `share` in percent of it."""

    label: str
    text: str
    share: float


def bars(parts: Sequence[tuple[str, float]], *, least: float = 0.0) -> tuple[Bar, ...]:
    """Return labelled seconds as bars; those below `least` percent of all are one."""
    total = sum(max(0.0, seconds) for _, seconds in parts)
    shares = [
        (label, took, 100 * max(0.0, took) / total if total else 0.0) for label, took in parts
    ]
    small = [one for one in shares if one[2] < least]
    if len(small) > 1:
        rest = say("all others"), sum(one[1] for one in small), sum(one[2] for one in small)
        shares = [*(one for one in shares if one not in small), rest]
    return tuple(
        Bar(label, formats.duration(took), round(share, 2)) for label, took, share in shares
    )
