"""The shapes of small charts: coordinates only, drawn by the template as inline SVG.

Every chart lives in a box of 100 x 100 units that the page stretches; its labels are HTML beside
it, so that they keep their size on a phone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Segment:
    """One part of a stacked bar. `share` is in percent of the whole, `tone` picks its colour."""

    label: str
    text: str
    share: float
    tone: int
    note: str = ""


def stacked(parts: Sequence[tuple[str, float, str]], tones: int = 6) -> list[Segment]:
    """Labelled seconds as segments of one bar; negative times count as zero."""
    total = sum(max(0.0, seconds) for _, seconds, _ in parts)
    return [
        Segment(
            label,
            figures.duration(seconds),
            round(100 * max(0.0, seconds) / total, 2) if total > 0 else 0.0,
            index % tones,
            note,
        )
        for index, (label, seconds, note) in enumerate(parts)
    ]
