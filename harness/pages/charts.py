"""Charts: SVG paths in a box of 100 x 100 units, which the page stretches.

Labels are HTML beside the box, so that they keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.base.precision import MINUS
from harness.pages.elements import Node

SMALLEST = 1e-9  # a height below this is none: its power of ten may not be a number
LARGEST = 1e15  # past this a float no longer tells neighbouring round numbers apart

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Places of values on a side of the box, which reaches from `low` to `high`."""

    low: float
    high: float

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(100 * min(1.0, max(0.0, share)), 2)

    def y(self, value: float) -> float:
        return round(100 - self.x(value), 2)


@dataclass(frozen=True)
class Tick:
    """A label beside an axis, at a place from 0 to 100."""

    place: float
    text: str


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
    top: tuple[Tick, ...] = ()

    @property
    def node(self) -> Node:
        """The chart as a figure of the page."""
        widest = max((tick.text for tick in self.y), key=len)  # a page keeps room for it
        keys = (mark for mark in self.marks if mark.key)
        return (
            "figure.lines",
            *((_axis("top", "left", self.top),) if self.top else ()),
            _axis("y", "top", self.y, ("span.widest", widest)),
            self._plot,
            _axis("x", "left", self.x),
            (
                "figcaption",
                f"{self.caption} ",
                *((f"span.key.k-{one.style}", one.key) for one in keys),
            ),
        )

    @property
    def _plot(self) -> Node:
        box = {"viewBox": "0 0 100 100", "preserveAspectRatio": "none", "role": "img"}
        grid = (("path.grid", ("@d", f"M0 {tick.place}H100")) for tick in self.y)
        marks = ((f"path.{mark.style}", ("@d", mark.path)) for mark in self.marks)
        attributes = ((f"@{name}", text) for name, text in box.items())
        return ("svg.plot", *attributes, ("@aria-label", self.summary), *grid, *marks)


def _axis(name: str, side: str, ticks: Iterable[Tick], *before: Node) -> Node:
    def label(tick: Tick) -> Node:
        # The outermost labels of the x axis stay within the box.
        end = "" if name != "x" else ".first" if tick.place < 1 else ".last" * (tick.place > 99)
        return (f"span{end}", ("@style", f"{side}:{tick.place}%"), tick.text)

    return (f"div.{name}-axis", ("@aria-hidden", "true"), *before, *map(label, ticks))


def line(points: Iterable[Point]) -> str:
    """Path data of a line through the points."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def dots(points: Iterable[Point]) -> str:
    """Path data of strokes of no length, whose caps are not stretched with the box."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in points)


def whiskers(points: Iterable[tuple[float, float, float]], scale: Scale) -> str:
    """Path data of error bars: place on the x axis, value, and half-width in percent of it."""
    path = ""
    for x, value, percent in points:
        low, high = reach(value, percent)
        path += f"M{x:g} {scale.y(low):g}V{scale.y(high):g}"
    return path


def reach(value: float, percent: float) -> tuple[float, float]:
    """Both ends of an error bar, of at most the value itself either way."""
    half = value * min(max(percent, 0.0), 100.0) / 100
    return value - half, value + half


def ticks(low: float, high: float, most: int = 4) -> tuple[tuple[float, str], ...]:
    """Return round values from at or below `low` to at or above `high`, with their texts.

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

    width, decimals = step * 10.0**power, max(0, -power)
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    # Rounded, so that a tick is the number that its text says.
    values = [round(i * width, decimals) for i in range(first, max(last, first + 1) + 1)]
    return tuple((value, f"{value:,.{decimals}f}".replace("-", MINUS)) for value in values)


def axis(levels: Sequence[tuple[float, str]]) -> tuple[Scale, tuple[Tick, ...]]:
    """Return the scale from the first to the last of some `ticks`, and them as labels of it."""
    scale = Scale(levels[0][0], levels[-1][0])
    return scale, tuple(Tick(scale.y(value), text) for value, text in levels)
