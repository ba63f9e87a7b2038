"""The shapes of small charts: coordinates only, drawn by the template as inline SVG.

Every chart lives in a box of 100 x 100 units that the page stretches; its labels are HTML beside
it, so that they keep their size on a phone.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.base.stages import Stage
from harness.judge.statistics import percentile
from harness.pages import formats

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


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


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
            left = number(index * step + step * 0.06)
            parts.append(f"M{left} 100v-{number(height)}h{number(step * 0.88)}V100z")
    return "".join(parts)


def _envelope(samples: Sequence[float], low: float, high: float) -> str:
    """The range of each bucket of consecutive samples, as one closed outline."""
    buckets = min(BUCKETS, len(samples))
    upper, lower = "", ""
    for index in range(buckets):
        start = index * len(samples) // buckets
        chunk = samples[start : (index + 1) * len(samples) // buckets]
        left, right = number(100 * index / buckets), number(100 * (index + 1) / buckets)
        y_top = 100 - 100 * (min(max(chunk), high) - low) / (high - low)
        y_bottom = 100 - 100 * (min(min(chunk), high) - low) / (high - low)
        y_bottom = min(100.0, max(y_bottom, y_top + 1.5))  # equal samples still draw a line
        upper += f"{'V' if upper else 'M0 '}{y_top:.0f}H{right}"
        lower = f"V{y_bottom:.0f}H{left}{lower}"
    return f"{upper}{lower}z"


def samples(values: Sequence[float]) -> Samples | None:
    """Return charts of latency samples in ms; `None` for fewer than four.

    The axes end a little past the 99th percentile: one slow execution would otherwise press all
    others into one bar. How many lie beyond is said in words.
    """
    if len(values) < 4:
        return None
    ordered = sorted(values)
    low, p99 = ordered[0], percentile(ordered, 99.0)
    high = min(ordered[-1], p99 + (p99 - low) * 0.25)
    if high - low < max(abs(high), 1.0) * 1e-6:
        low, high = low - max(abs(low), 1.0) * 0.01, low + max(abs(low), 1.0) * 0.01
    middle = percentile(ordered, 50.0)
    marked = (("mean", statistics.fmean(ordered)), ("median", middle), ("p99", p99))
    markers = tuple(
        Marker(
            name,
            round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 2),
            formats.milliseconds(value),
        )
        for name, value in marked
    )
    above = sum(1 for value in ordered if value > high)
    beyond = ""
    if above:
        beyond = (
            f"{above:,} of {len(ordered):,} samples lie beyond {formats.milliseconds(high)}, "
            f"the slowest at {formats.milliseconds(ordered[-1])}"
        )
    return Samples(
        count=len(ordered),
        histogram=_histogram(ordered, low, high),
        markers=markers,
        low=formats.milliseconds(low),
        high=formats.milliseconds(high),
        beyond=beyond,
        envelope=_envelope(values, low, high),
        median_line=round(100 - 100 * (min(middle, high) - low) / (high - low), 2),
        bottom=formats.milliseconds(low),
        top=formats.milliseconds(high),
        summary=", ".join(f"{marker.style} {marker.text}" for marker in markers),
    )


# Stages --------------------------------------------------------------------------------------

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
