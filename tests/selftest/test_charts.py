"""How pages write figures, and the shapes of their charts."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.base.stages import Stage
from harness.base.terms import Outcome
from harness.pages import axes, formats
from harness.report import charts


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.percent(71.254), "71.25 %"),
        (formats.percent(None), "\N{EN DASH}"),
        (formats.percent(float("nan")), "\N{EN DASH}"),
        (formats.difference(0.0), "+0.00 %"),
        (formats.difference(-0.001), "+0.00 %"),
        (formats.difference(-3.207), "\N{MINUS SIGN}3.21 %"),
        (formats.difference(0.5, "points"), "+0.50 points"),
        (formats.rate(12345.6), "12,346 fps"),
        (formats.rate(312.54), "312.5 fps"),
        (formats.rate(3.1415), "3.142 fps"),
        (formats.milliseconds(3.14159), "3.142 ms"),
        (formats.duration(0.4), "0.40 s"),
        (formats.duration(59.97), "1 min 00 s"),
        (formats.duration(184), "3 min 04 s"),
        (formats.duration(float("inf")), formats.NO_VALUE),
        (formats.duration(3599.9), "1 h 00 min"),
        (formats.size(512), "512 B"),
        (formats.size(4_970_112), "4.7 MiB"),
        (formats.size(5000 * 2**40), "5,000.0 TiB"),
        (formats.plain(0.0021), "0.0021"),
        (formats.plain(6.8e-7), "6.80e\N{MINUS SIGN}7"),
        (formats.plain(0.0), "0"),
        (formats.plain(float("nan")), "not a finite number"),
        (formats.datum(True), "yes"),
        (formats.datum((-0.72, 0.94), "points"), "\N{MINUS SIGN}0.72 to 0.94 points"),
        (formats.datum(("a", "b")), "a, b"),
        (formats.datum(78.26, "%"), "78.26 %"),
        (formats.option({"a": [1, 2], "b": None}), "a: 1, 2, b: \N{EN DASH}"),
        (formats.moment("2026-11-20T07:30:00+00:00"), "2026-11-20 07:30:00 UTC"),
        (formats.moment("yesterday"), "yesterday"),
        (formats.clip("x" * 377, 300), "x" * 300 + "… (77 more characters)"),
        (formats.clip("x" * 11, 10), "x" * 10 + "… (1 more character)"),
    ],
)
def test_figures_are_written_for_a_reader(written: str, expected: str) -> None:
    assert written.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_charts_hold_every_sample() -> None:
    values = [10.0 + 0.01 * (index % 50) for index in range(399)] + [95.0]
    chart = charts.samples(values)
    assert chart is not None
    assert chart.count == 400
    assert "1 of 400 samples lie beyond" in chart.beyond
    assert "95.000" in chart.beyond
    assert all(0 <= marker.position <= 100 for marker in chart.markers)
    assert re.fullmatch(r"(M[\d.]+ 100v-[\d.]+h[\d.]+V100z)+", chart.histogram)
    assert re.fullmatch(r"M0 \d+H[\d.]+(V-?\d+H[\d.]+)*z", chart.envelope)
    assert charts.samples([1.0, 2.0]) is None
    same = charts.samples([5.0] * 9)
    assert same is not None
    assert same.beyond == ""


def test_no_two_stages_of_a_page_look_alike_and_their_shares_add_up() -> None:
    stages = list(Stage)[: charts.TONES * charts.HATCHES]
    places = {stage: place for place, stage in enumerate(stages)}
    parts = charts.stacked([(stage, stage.doing, 1.0, "") for stage in stages], places)
    assert len({(part.tone, part.hatch) for part in parts}) == len(stages)
    assert len({part.mark for part in parts}) == len(stages)
    seconds = (1.0, 3.0, -1.0)
    parts = charts.stacked(
        [(stage, "", took, "") for stage, took in zip(stages, seconds, strict=False)], places
    )
    assert [part.share for part in parts] == [25.0, 75.0, 0.0]
    assert [part.share for part in charts.stacked([(None, "", 0.0, "")], places)] == [0.0]


def speeds(*figures: tuple[int, float, float, Outcome, bool]) -> dict[int, plots.Speed]:
    return {size: plots.Speed(*rest) for size, *rest in figures}  # type: ignore[arg-type]


def test_throughput_over_batch_size() -> None:
    measured = speeds((1, 100.0, 1.0, "passed", True), (4, 400.0, 0.0, "passed", True))
    chart = plots.over_batch_size("m on t", measured, {1: 120.0, 8: 300.0}, "baseline")
    assert chart is not None
    assert [tick.text for tick in chart.x] == ["1", "4", "8"]
    assert [tick.text for tick in chart.y] == ["0", "200", "400", "600"]
    reference, ours = chart.series
    assert (reference.name, ours.name) == ("baseline", "measured")
    assert ours.dots == "M16.67 83.33h0M50 33.33h0"
    assert ours.whiskers.startswith("M16.67 83.5V83.17")
    assert "the fastest is batch 4" in chart.summary
    measured = speeds((1, 100.0, 1.0, "passed", True), (4, 400.0, 0.0, "inconclusive", False))
    chart = plots.over_batch_size("m on t", measured, {}, "")
    assert chart is not None
    ours, worthless = chart.series
    assert (ours.dots, ours.line) == ("M25 83.33h0", "M25 83.33")
    assert (worthless.style, worthless.dots, worthless.line) == ("trouble", "M75 33.33h0", "")
    assert [tick.outcome for tick in chart.x] == ["passed", "inconclusive"]
    assert chart.best == "the fastest is batch 1"
    assert plots.over_batch_size("m", {4: measured[4]}, {1: 1.0}, "") is None


@example({1: (0.0, 0.0), 2: (5e-324, 0.0)}, {})
@given(
    st.dictionaries(
        st.integers(1, 4096),
        st.tuples(st.floats(0, 1e7), st.floats(0, 1e4)),
        min_size=2,
        max_size=8,
    ),
    st.dictionaries(st.integers(1, 4096), st.floats(0, 1e7), max_size=8),
)
def test_a_line_stays_in_its_box(
    measured: dict[int, tuple[float, float]], reference: dict[int, float]
) -> None:
    known = {size: plots.Speed(fps, width, "passed") for size, (fps, width) in measured.items()}
    chart = plots.over_batch_size("m", known, reference, "r")
    assert chart is not None
    for one in chart.series:
        for number in re.findall(r"-?[\d.]+", f"{one.line} {one.dots} {one.whiskers}"):
            assert 0 <= float(number) <= 100


def test_a_long_measurement_is_thinned_out_and_its_trouble_is_not() -> None:
    points = [(float(n), 40.0 + n / 100, n == 777) for n in range(1_000)]
    chart = plots.over_time("Temperature", points, unit="°C")
    assert chart is not None
    measured, trouble = chart.series
    assert 50 < measured.dots.count("M") < 70
    assert trouble.dots.count("M") == 1
    assert "40.0 to 50.0 °C, 1,000 looks" in chart.summary
    assert plots.over_time("Temperature", points[:1], unit="°C") is None
    flat = plots.over_time("T", [(0.0, 43.0, False), (1.0, 43.0, False)], unit="°C")
    assert flat is not None
    assert [tick.text for tick in flat.y] == ["40", "42", "44", "46"]


def test_intervals_share_an_axis_that_holds_them() -> None:
    one = plots.Interval("", "", -0.1, (-0.4, 0.2), (-0.5, None))
    other = plots.Interval("", "", 3.0, None, (-0.5, 0.5))
    first, second = plots.interval_shapes([one, other])
    assert first.reach == second.reach == 4.0
    assert first.dot == 48.75
    assert first.known == plots.Bar(45.0, 7.5)
    assert first.allowed == plots.Bar(43.75, 56.25)  # a gain is no fault: to the axis' end
    assert second.known is None


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 325.0, ["0", "100", "200", "300", "400"]),
        (596.4, 653.4, ["580", "600", "620", "640", "660"]),
        (81.06, 81.15, ["81.05", "81.10", "81.15"]),
        (41.0, 53.0, ["40", "45", "50", "55"]),
        (-3.0, 4.0, ["−4", "−2", "0", "2", "4"]),
        (5.0, 5.0, ["4.95", "5.00", "5.05"]),
        (0.0, 1e300, ["0", "1"]),
    ],
)
def test_ticks_are_round(low: float, high: float, texts: list[str]) -> None:
    assert [text for _, text in axes.ticks(low, high)] == texts


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(2, 6))
def test_ticks_hold_what_they_are_for(low: float, width: float, most: int) -> None:
    found = axes.ticks(low, low + width, most)
    values = [value for value, _ in found]
    slack = 1e-6 * (abs(low) + width) + 1e-8
    assert values[0] <= low + slack
    assert values[-1] >= low + width - slack
    assert 2 <= len(found) <= most + 3
    assert values == sorted(set(values))
    assert len({text for _, text in found}) == len(found)
