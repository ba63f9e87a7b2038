"""The intervals that a real accuracy was judged by, from the figures of its verdict."""

from __future__ import annotations

from harness.pages import formats
from harness.records.lines import CaseLine, RunLine
from harness.records.verdicts import FigureName, Verdict
from harness.report.plots import Interval


def intervals(case: CaseLine, run: RunLine | None) -> tuple[Interval, ...]:
    """Return the differences from a reference, in points: those that may be shown."""
    verdict = case.verdict
    if verdict is None or case.check != "accuracy":
        return ()
    published = run.guide_figures.get(case.model) if run is not None else None
    drop = published is not None and published.side == "drop"
    if FigureName.DIFFERENCE_INTERVAL in verdict.figures:
        return _part_of_the_set(verdict, drop)
    return _whole_set(verdict, drop)


def _number(verdict: Verdict, name: FigureName) -> float | None:
    value = verdict.figures.get(name)
    return float(value) if isinstance(value, int | float) else None


def _pair(verdict: Verdict, name: FigureName) -> tuple[float, float] | None:
    match verdict.figures.get(name):
        case (float() | int() as low, float() | int() as high):
            return low, high
    return None


def _points(value: float) -> str:
    return formats.difference(value, "points")


def _band(points: float, drop: bool) -> tuple[float | None, float | None]:
    return (-points, None) if drop else (-points, points)


def _part_of_the_set(verdict: Verdict, drop: bool) -> tuple[Interval, ...]:
    known = _pair(verdict, FigureName.DIFFERENCE_INTERVAL)
    difference = _number(verdict, FigureName.DIFFERENCE_POINTS)
    allowed = _number(verdict, FigureName.TOLERANCE_POINTS)
    if known is None or difference is None or allowed is None:
        return ()
    text = (
        f"{_points(difference)}, 99 % interval {_points(known[0])} to {_points(known[1])}, "
        f"{'a drop of' if drop else '±'} {allowed:.2f} allowed"
    )
    label = "compiled against eager, same images"
    compiled = Interval(label, text, difference, known, _band(allowed, drop))
    eager = _number(verdict, FigureName.EAGER_TOP1)
    own = _pair(verdict, FigureName.EAGER_INTERVAL)
    published = _number(verdict, FigureName.PUBLISHED_TOP1)
    if eager is None or own is None or published is None:
        return (compiled,)
    off, reach = eager - published, (own[0] - published, own[1] - published)
    text = (
        f"{_points(off)}, 99.9 % interval {_points(reach[0])} to {_points(reach[1])}: it must "
        "hold 0"
    )
    return compiled, Interval("eager against the published", text, off, reach, None)


def _whole_set(verdict: Verdict, drop: bool) -> tuple[Interval, ...]:
    measured = _number(verdict, FigureName.TOP1)
    published = _number(verdict, FigureName.PUBLISHED_TOP1)
    tolerance = _number(verdict, FigureName.TOLERANCE_PERCENT)
    if measured is None or published is None or tolerance is None:
        return ()
    off, points = measured - published, tolerance * published / 100
    text = f"{_points(off)}, {'a drop of' if drop else '±'} {points:.2f} allowed"
    label = "compiled against the published"
    return (Interval(label, text, off, None, _band(points, drop)),)
