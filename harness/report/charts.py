"""Charts: SVG paths in a box of 100 x 100 units, which the page stretches.

Labels are HTML beside the box, so that they keep their size on a phone.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.base.stages import Stage
from harness.base.terms import Outcome
from harness.judge.statistics import percentile
from harness.pages import formats
from harness.pages.axes import SMALLEST, ticks
from harness.pages.formats import milliseconds
from harness.pages.looks import LOOKS
from harness.records.lines import CaseLine, RunLine
from harness.records.verdicts import FigureName as F

BINS = 48
BUCKETS = 120
MOST_POINTS = 60

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Places of values on a side of the box, which reaches from `low` to `high`."""

    low: float
    high: float

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    def y(self, value: float) -> float:
        return round(100 - self.x(value), 2)


@dataclass(frozen=True)
class Tick:
    """A label beside an axis, at a place from 0 to 100.

    `outcome`: how the case ended whose figure stands there; None for none.
    """

    place: float
    text: str
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Mark:
    """SVG path data in a `style` of the page. `key`: what the legend calls it."""

    style: str
    path: str
    key: str = ""


@dataclass(frozen=True)
class Chart:
    """Marks in a box with labelled axes. `summary` says in words what is drawn."""

    caption: str
    summary: str
    marks: tuple[Mark, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]


def _line(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _dots(points: Sequence[Point]) -> str:
    # Strokes of no length, whose caps are not stretched with the box.
    return "".join(f"M{x:g} {y:g}h0" for x, y in points)


# Latency ---------------------------------------------------------------------------------------


def latency(samples: Sequence[float]) -> tuple[Chart, ...]:
    """Return samples in ms as a histogram and in the order of measuring; nothing of fewer than 4.

    The axes end a little past the 99th percentile: one slow execution would otherwise press all
    others into one bar. How many lie beyond is said in words.
    """
    if len(samples) < 4:
        return ()
    ordered = sorted(samples)
    low, p99 = ordered[0], percentile(ordered, 99.0)
    high = min(ordered[-1], p99 + (p99 - low) * 0.25)
    if high - low < max(abs(high), 1.0) * 1e-6:
        pad = max(abs(low), 1.0) * 0.01
        low, high = low - pad, low + pad
    scale, median = Scale(low, high), percentile(ordered, 50.0)
    marked = {"mean": statistics.fmean(ordered), "median": median, "p99": p99}
    markers = tuple(
        Mark(f"m-{name}", f"M{scale.x(value):g} 0V100", f"{name} {milliseconds(value)}")
        for name, value in marked.items()
    )
    caption = f"Distribution of {len(ordered):,} executions."
    if above := sum(value > high for value in ordered):
        caption += (
            f" {above:,} of {len(ordered):,} samples lie beyond {milliseconds(high)}, the slowest "
            f"at {milliseconds(ordered[-1])}."
        )
    bars, tallest = _bars([value for value in ordered if value <= high], scale)
    bottom, top = milliseconds(low), milliseconds(high)
    middle = Mark("m-median", f"M0 {scale.y(median):g}H100", "median")
    return (
        Chart(
            caption,
            f"Histogram of the latency samples: {', '.join(one.key for one in markers)}",
            (Mark("bars", bars), *markers),
            (Tick(0, bottom), Tick(100, top)),
            (Tick(100, "0"), Tick(0, f"{tallest:,}")),
        ),
        Chart(
            "In the order of measuring; each step spans its samples.",
            f"Latency samples in the order of measuring, between {bottom} and {top}",
            (Mark("envelope", _envelope(samples, scale)), middle),
            (Tick(0, "first"), Tick(100, "last")),
            (Tick(100, bottom), Tick(0, top)),
        ),
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


def _envelope(samples: Sequence[float], scale: Scale) -> str:
    """The range of each bucket of consecutive samples, as one closed outline."""
    buckets = min(BUCKETS, len(samples))
    upper, lower = "", ""
    for index in range(buckets):
        start, stop = (n * len(samples) // buckets for n in (index, index + 1))
        left, right = 100 * index / buckets, 100 * (index + 1) / buckets
        top, bottom = (scale.y(pick(samples[start:stop])) for pick in (max, min))
        bottom = min(100.0, max(bottom, top + 1.5))  # equal samples still draw a line
        upper += f"{'V' if upper else 'M0 '}{top:.0f}H{right:.4g}"
        lower = f"V{bottom:.0f}H{left:.4g}{lower}"
    return f"{upper}{lower}z"


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
        how = LOOKS[self.outcome].word + ("" if self.counts else ", counts for nothing")
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
    highest = max(*(one.fps for one in measured.values()), *reference.values(), 0.0)
    levels = ticks(0.0, highest * 1.04 if highest > SMALLEST else 1.0)
    scale = Scale(0.0, levels[-1][0])
    marks = []
    if reference:
        points = [(place[size], scale.y(reference[size])) for size in sorted(reference)]
        marks = [
            Mark("l-reference", _line(points)),
            Mark("d-reference", _dots(points), reference_name),
        ]
    for counts, style, name in (
        (True, "measured", "measured"),
        (False, "trouble", "counts for nothing"),
    ):
        chosen = [size for size in sizes if size in measured and measured[size].counts is counts]
        if not chosen:
            continue
        points = [(place[size], scale.y(measured[size].fps)) for size in chosen]
        whiskers = (_whisker(place[size], measured[size], scale) for size in chosen)
        marks.append(Mark("l-whisker", "".join(whiskers)))
        if counts:
            marks.append(Mark("l-measured", _line(points)))
        marks.append(Mark(f"d-{style}", _dots(points), name))
    counting = {size: one.fps for size, one in measured.items() if one.counts}
    best = max(counting, key=lambda size: counting[size], default=None)
    said = "no figure counts" if best is None else f"the fastest is batch {best}"
    figures = ", ".join(f"batch {size}: {one.text}" for size, one in measured.items())
    outcomes = {size: one.outcome for size, one in measured.items()}
    return Chart(
        caption=f"{title}, frames a second by batch size: {said}.",
        summary=f"{title}: {figures}; {said}",
        marks=tuple(marks),
        x=tuple(Tick(place[size], f"{size}", outcomes.get(size)) for size in sizes),
        y=tuple(Tick(scale.y(fps), text) for fps, text in levels),
    )


def _whisker(x: float, speed: Speed, scale: Scale) -> str:
    reach = speed.fps * min(max(speed.half_width, 0.0), 100.0) / 100
    return f"M{x:g} {scale.y(speed.fps - reach):g}V{scale.y(speed.fps + reach):g}"


# A reading over time ---------------------------------------------------------------------------


def over_time(title: str, points: Sequence[tuple[float, float, bool]], unit: str) -> Chart | None:
    """Draw a reading over the seconds of a measurement; `None` for fewer than two.

    Args:
        points: seconds, reading, and whether the device was in trouble at that moment.
    """
    ordered = sorted(points)
    if len(ordered) < 2:
        return None
    low, high = min(one[1] for one in ordered), max(one[1] for one in ordered)
    # Five units at least: a chip that warms by one degree is not to look like one that burns.
    pad = max(0.0, 5 - (high - low)) / 2
    levels = ticks(math.floor(low - pad), math.ceil(high + pad))
    up = Scale(levels[0][0], levels[-1][0])
    first, last = ordered[0][0], ordered[-1][0]
    along = Scale(first, max(last, first + 1e-9))
    step = math.ceil(len(ordered) / MOST_POINTS)
    kept = [one for index, one in enumerate(ordered) if index % step == 0 or one[2]]
    places = [(along.x(seconds), up.y(value)) for seconds, value, _ in kept]
    trouble = [place for place, one in zip(places, kept, strict=True) if one[2]]
    marks = [Mark("l-measured", _line(places)), Mark("d-measured", _dots(places))]
    if trouble:
        marks.append(Mark("d-trouble", _dots(trouble), "busy, throttled or unhealthy"))
    readings = f"{low:.1f} to {high:.1f}" if high > low else f"{low:.1f}"
    ends = (Tick(0, formats.duration(max(0.0, first))), Tick(100, formats.duration(last)))
    return Chart(
        caption=f"{title}, {unit} over the seconds of the measurement.",
        summary=f"{title} {readings} {unit}, {len(points):,} looks",
        marks=tuple(marks),
        x=ends,
        y=tuple(Tick(up.y(value), text) for value, text in levels),
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
            label = "compiled against eager, same images"
            found.append(_judged(label, off, (low, high), tolerance, drop))
        case {
            F.TOP1: float() | int() as top1,
            F.PUBLISHED_TOP1: float() | int() as target,
            F.TOLERANCE_PERCENT: float() | int() as percent,
        }:
            label = "compiled against the published"
            found.append(_judged(label, top1 - target, None, percent * target / 100, drop))
    match figures:
        case {
            F.EAGER_INTERVAL: (float() | int() as low, float() | int() as high),
            F.EAGER_TOP1: float() | int() as eager,
            F.PUBLISHED_TOP1: float() | int() as target,
        }:
            known = low - target, high - target
            text = f"{_known(eager - target, known, '99.9 %')}: it must hold 0"
            found.append(Interval("eager against the published", text, eager - target, known, None))
    return tuple(found)


def _judged(
    label: str, off: float, known: tuple[float, float] | None, tolerance: float, drop: bool
) -> Interval:
    text = f"{_known(off, known, '99 %')}, {'a drop of' if drop else '±'} {tolerance:.2f} allowed"
    return Interval(label, text, off, known, (-tolerance, math.inf if drop else tolerance))


def _known(off: float, known: tuple[float, float] | None, level: str) -> str:
    text = formats.difference(off, "points")
    if known is None:
        return text
    low, high = (formats.difference(end, "points") for end in known)
    return f"{text}, {level} interval {low} to {high}"


# Stages ----------------------------------------------------------------------------------------

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
    hatch: int
    mark: str
    note: str


def stacked(
    parts: Sequence[tuple[Stage | None, str, float, str]], places: Mapping[Stage, int]
) -> tuple[Segment, ...]:
    """Return stages, each with its label, seconds and a note, as segments of one bar.

    Negative times count as zero. `places`: the number of each stage on the page, so that it looks
    the same everywhere; None is what stands for several stages. Past `TONES * HATCHES` a look
    comes again; the number does not.
    """
    total = sum(max(0.0, seconds) for _, _, seconds, _ in parts)
    found = []
    for stage, label, seconds, note in parts:
        place = len(places) if stage is None else places[stage]
        share = round(100 * max(0.0, seconds) / total, 2) if total > 0 else 0.0
        look = (place % TONES, place // TONES % HATCHES, f"{place + 1}")
        found.append(Segment(label, formats.duration(seconds), share, *look, note))
    return tuple(found)
