"""The chart of a throughput: how the times of its executions are distributed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from harness.judge.statistics import percentile
from harness.pages.charts import Chart, Mark, Scale, Tick
from harness.pages.formats import milliseconds
from harness.pages.words import say

BINS = 24


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
    width = (scale.high - scale.low) / bins
    counts = Counter(min(bins - 1, int((value - scale.low) / width)) for value in samples)
    tallest, step = max(counts.values()), 100 / bins
    bars = ""
    for place, count in sorted(counts.items()):
        height = max(2.0, 100 * count / tallest)  # one sample stays visible
        bars += f"M{(place + 0.06) * step:.3g} 100v-{height:.3g}h{0.88 * step:.3g}V100z"
    return bars, tallest
