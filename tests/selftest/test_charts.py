"""How pages write figures, the shapes of their charts, and the guide's tables."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.base.terms import Outcome
from harness.pages import charts as shapes
from harness.pages import formats
from harness.records.lines import CaseLine
from harness.records.measurements import OutputsCheck, Problem, ProblemCode
from harness.records.reader import RunRecords
from harness.report import charts
from tests.selftest import report_samples as samples
from tests.selftest.pages import page, section


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.percent(71.254), "71.25 %"),
        (formats.percent(float("nan")), "\N{EN DASH}"),
        (formats.difference(0.0), "+0.00 %"),
        (formats.difference(-0.001), "+0.00 %"),
        (formats.difference(-3.207), "\N{MINUS SIGN}3.21 %"),
        (formats.difference(0.5, "points"), "+0.50 points"),
        (formats.rate(12345.6), "12,346 fps"),
        (formats.rate(3.1415), "3.142 fps"),
        (formats.milliseconds(3.14159), "3.142 ms"),
        (formats.duration(59.97), "1 min 00 s"),
        (formats.duration(float("inf")), formats.NO_VALUE),
        (formats.duration(3599.9), "1 h 00 min"),
        (formats.size(4_970_112), "4.7 MiB"),
        (formats.size(5000 * 2**40), "5,000.0 TiB"),
        (formats.plain(0.0021), "0.0021"),
        (formats.plain(6.8e-7), "6.80e\N{MINUS SIGN}7"),
        (formats.plain(float("nan")), "not a finite number"),
        (formats.datum(True), "yes"),
        (formats.datum((-0.72, 0.94), "points"), "\N{MINUS SIGN}0.72 to 0.94 points"),
        (formats.datum(("a", "b")), "a, b"),
        (formats.datum(78.26, "%"), "78.26 %"),
        (formats.datum({"a": [1, 2], "b": None}), "a: 1, 2, b: \N{EN DASH}"),
        (formats.moment("2026-11-20T07:30:00+00:00"), "2026-11-20 07:30:00 UTC"),
        (formats.clip("x" * 377, 300), "x" * 300 + "… (77 more characters)"),
        (formats.clip("x" * 11, 10), "x" * 10 + "… (1 more character)"),
        (formats.clip("x" * 1234, 10), "x" * 10 + "… (1,224 more characters)"),
        (formats.line("x\n" * 617, 10), "x x x x x … (1,223 more characters)"),
        (formats.line(" " * 1234, 10), "… (1,124 more characters)"),
    ],
)
def test_figures_are_written_for_a_reader(written: str, expected: str) -> None:
    assert written.replace("\N{NO-BREAK SPACE}", " ") == expected


# --- shapes ------------------------------------------------------------------------------------


def marks(chart: shapes.Chart) -> dict[str, str]:
    return {mark.style: mark.path for mark in chart.marks}


def test_latency_charts_hold_every_sample() -> None:
    values = [10.0 + 0.01 * (index % 50) for index in range(399)] + [95.0]
    histogram = charts.latency(values)
    assert histogram is not None
    assert "1 lie beyond" in histogram.caption
    assert "95.000" in histogram.caption
    assert histogram.summary.endswith(
        "median 10.245\N{NO-BREAK SPACE}ms, p99 10.490\N{NO-BREAK SPACE}ms"
    )
    bars = re.findall(r"M[\d.]+ 100v-([\d.]+)h[\d.]+V100z", marks(histogram)["bars"])
    assert len(bars) > 30
    assert max(map(float, bars)) == 100
    places = [float(path[1:].split()[0]) for path in marks(histogram).values() if "0V100" in path]
    assert all(0 < place <= 100 for place in places)
    assert charts.latency([1.0, 2.0]) is None
    same = charts.latency([5.0] * 9)
    assert same is not None
    assert "beyond" not in same.caption


def test_times_are_shares_of_a_whole_and_small_ones_are_one() -> None:
    parts = charts.bars([("a", 1.0), ("b", 3.0), ("c", -1.0)])
    assert [(bar.label, bar.share) for bar in parts] == [("a", 25.0), ("b", 75.0), ("c", 0.0)]
    assert [bar.share for bar in charts.bars([("a", 0.0)])] == [0.0]
    parts = charts.bars([("a", 98.0), ("b", 1.5), ("c", 0.5)], least=2.0)
    assert [(bar.label, bar.share) for bar in parts] == [("a", 98.0), ("all others", 2.0)]
    assert len(charts.bars([("a", 99.0), ("b", 1.0)], least=2.0)) == 2  # one alone keeps its name


def test_throughput_over_batch_size() -> None:
    measured = {1: charts.Speed(100.0, 1.0, "passed"), 4: charts.Speed(400.0, 0.0, "passed")}
    chart = charts.over_batch_size("m on t", measured, {1: 120.0, 8: 300.0}, "baseline")
    assert chart is not None
    assert [tick.text for tick in chart.x] == ["1", "4", "8"]
    assert [tick.text for tick in chart.y] == ["0", "200", "400", "600"]
    assert [mark.key for mark in chart.marks if mark.key] == ["baseline", "measured"]
    assert marks(chart)["d-measured"] == "M16.67 83.33h0M50 33.33h0"
    assert marks(chart)["l-whisker"].startswith("M16.67 83.5V83.17")
    assert "the fastest is batch 4" in chart.summary
    measured[4] = charts.Speed(400.0, 0.0, "inconclusive", counts=False)
    chart = charts.over_batch_size("m on t", measured, {}, "")
    assert chart is not None
    assert marks(chart)["d-measured"] == "M25 83.33h0"
    assert marks(chart)["l-measured"] == "M25 83.33"  # no line leads to the other
    assert marks(chart)["d-trouble"] == "M75 33.33h0"
    assert [tick.outcome for tick in chart.x] == ["passed", "inconclusive"]
    assert "the fastest is batch 1" in chart.caption
    assert charts.over_batch_size("m", {4: measured[4]}, {1: 1.0}, "") is None
    # An error bar has its place on the chart: as far above the figure as below.
    wide = {1: charts.Speed(100.0, 69.0, "passed"), 4: charts.Speed(100.0, 0.0, "passed")}
    chart = charts.over_batch_size("m", wide, {}, "")
    assert chart is not None
    assert marks(chart)["l-whisker"].startswith("M25 84.5V15.5")


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
    known = {size: charts.Speed(fps, width, "passed") for size, (fps, width) in measured.items()}
    chart = charts.over_batch_size("m", known, reference, "r")
    assert chart is not None
    for mark in chart.marks:
        for number in re.findall(r"-?[\d.]+", mark.path):
            assert 0 <= float(number) <= 100


def test_a_long_measurement_is_thinned_out_and_its_trouble_is_not() -> None:
    points = [(float(n), 40.0 + n / 100, n == 777) for n in range(1_000)]
    chart = charts.temperature(points)
    assert chart is not None
    assert 50 < marks(chart)["d-measured"].count("M") < 70
    assert marks(chart)["d-trouble"].count("M") == 1
    assert "40.0 to 50.0 °C, 1,000 looks" in chart.summary
    assert charts.temperature(points[:1]) is None
    flat = charts.temperature([(0.0, 43.0, False), (1.0, 43.0, False)])
    assert flat is not None
    assert [tick.text for tick in flat.y] == ["40", "42", "44", "46"]


def test_an_interval_fits_on_its_axis() -> None:
    one = charts.Interval("", "", -0.1, (-0.4, 0.2), (-0.5, float("inf")))
    other = charts.Interval("", "", 3.0, None, (-0.5, 0.5))
    assert (one.reach, other.reach) == (0.6, 4.0)
    drawn = {mark.style: mark.path for mark in one.marks(4.0)}
    assert drawn["d-measured"] == "M48.75 50h0"
    assert drawn["known"].startswith("M45 50H52.5")
    assert drawn["allowed"].startswith("M43.75 8H100V92")  # a gain is no fault: to the axis' end
    assert "known" not in {mark.style for mark in other.marks(4.0)}


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (596.4, 653.4, ["580", "600", "620", "640", "660"]),
        (81.06, 81.15, ["81.05", "81.10", "81.15"]),
        (41.0, 53.0, ["40", "45", "50", "55"]),
        (-3.0, 4.0, ["−4", "−2", "0", "2", "4"]),
        (5.0, 5.0, ["4.95", "5.00", "5.05"]),
        (0.0, 1e300, ["0", "1"]),
    ],
)
def test_ticks_are_round(low: float, high: float, texts: list[str]) -> None:
    assert [text for _, text in shapes.ticks(low, high)] == texts


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(2, 6))
def test_ticks_hold_what_they_are_for(low: float, width: float, most: int) -> None:
    found = shapes.ticks(low, low + width, most)
    values = [value for value, _ in found]
    slack = 1e-6 * (abs(low) + width) + 1e-8
    assert values[0] <= low + slack
    assert values[-1] >= low + width - slack
    assert 2 <= len(found) <= most + 3
    assert values == sorted(set(values))
    assert len({text for _, text in found}) == len(found)


# --- charts on the page ------------------------------------------------------------------------


def real(*cases: CaseLine, **changes: Any) -> RunRecords:
    return samples.run_records(cases, provenance="real", **changes)


def test_a_real_run_has_its_charts(tmp_path: Path) -> None:
    tree = page(samples.real_run())
    assert tree.html.count('class="l-reference"') == 1  # one model with several batch sizes
    assert tree.html.count('<svg class="interval"') == 5
    assert 'class="d-trouble"' in tree.html
    assert "Temperature of the device 43.0 to 56.8 °C, 40 looks" in tree.html
    assert "Latency samples" not in tree.text()  # none lie beside the records
    written = page(samples.write_samples(tmp_path, samples.real_run()))
    assert written.text().count("Distribution of 400 executions.") == 7


@pytest.mark.parametrize(("side", "said"), [("both", "± 0.78 allowed"), ("drop", "a drop of 0.78")])
def test_the_side_of_a_tolerance_is_that_of_the_guide(side: Any, said: str) -> None:
    guide = replace(samples.published("seresnext101")["seresnext101"], side=side)
    case = samples.part_accuracy("seresnext101", 16)
    records = real(case, published={"seresnext101": guide})
    assert said in page(records).text()
    judged, _ = charts.intervals(case, records.run)
    assert judged.allowed == (-0.7826, 0.7826 if side == "both" else math.inf)


# --- the guide's tables ------------------------------------------------------------------------


def test_the_guides_tables_with_measured_figures() -> None:
    text = section(samples.real_run(), "guide").text()
    for said in (
        "Batch size Acc@Top1 Target Relative error Images",
        "78.24 % passed 78.26 % published figure 0.0003 (0.03 %) 50,000",
        # A part of the set is held against eager PyTorch on the same images.
        "78.10 % inconclusive 78.00 % eager PyTorch 0.0013 (0.13 %) 1,000",
        "79.00 % published figure 0.0200 (2.00 %)",
        "Batch size 310 a chip T4 a card 310P a chip 310P/310 310P/T4",
        # 529.644 measured / 182.224 and / 346.484 published.
        "1 published 182.224 published 346.484 529.6 fps passed published 529.115 2.907× 1.529×",
        # The best batch size of each column, and the ratios of the bests.
        "907.1 fps passed ★ best published 903.506",
        "published 225.18 ★ best",
        "best batch size published 225.18 published 789.784 907.1 fps passed 4.028× 1.149×",
    ):
        assert said in text, said


def test_only_what_is_comparable_has_a_ratio() -> None:
    line = samples.real_throughput("fixres", 1, 0.99)
    tree = section(real(line, published=samples.published("fixres")), "guide")
    assert "<s>200.616</s>" in tree.html
    # Cards with cards: 733.052.
    assert "884.6 fps failed ★ best published 893.562 1.207× \N{EN DASH}" in tree.text()
    assert "Guide 001, FixRes; FixRes, edition of January 2023" in tree.text()
    assert "T4, struck out: not comparable (measured at 224 x 224" in tree.text()
    # A chip, of whose 310P nothing is published, and a card of four.
    line = samples.real_throughput("squeezenet1_1", 2)
    text = section(real(line, published=samples.published("squeezenet1_1")), "guide").text()
    assert "310 a card of 4 chips" in text
    assert "published 4,589.72" in text
    assert "×" not in text
    # A table of one column would repeat the summary.
    assert "Throughput of" not in page(real(samples.real_throughput("seresnext101", 1))).text()


WORTHLESS: dict[str, tuple[str, Outcome, dict[str, Any]]] = {
    "nan": ("wrong outputs", "failed", {"outputs": OutputsCheck(float("nan"), 0.03)}),
    "far": ("wrong outputs", "failed", {"outputs": OutputsCheck(0.4, 0.03)}),
    "damaged": ("wrong outputs", "failed", {"problems": (Problem(ProblemCode.NOT_FINITE),)}),
    "times": ("wrong times", "failed", {"problems": (Problem(ProblemCode.STRANGE_TIMES),)}),
    "busy": ("not decided", "inconclusive", {"conditions": samples.conditions(busy=True)}),
    "slow": ("", "failed", {}),  # it merely failed
}


def _spoiled(how: str, batch: int) -> CaseLine:
    """A throughput of 9,000 fps whose figure counts for nothing, but for `slow`."""
    _, outcome, changes = WORTHLESS[how]
    given = {"measured": 9000.0, "outcome": outcome, **changes}
    return samples.real_throughput("seresnext101", batch, **given)


@pytest.mark.parametrize("how", WORTHLESS)
def test_a_figure_that_counts_for_nothing_is_never_the_best(how: str) -> None:
    why, outcome, _ = WORTHLESS[how]
    good = samples.real_throughput("seresnext101", 1, 1.0)
    records = real(good, _spoiled(how, 4), published=samples.published("seresnext101"))
    tree, drawn = page(records), section(records, "charts")
    (chart,) = (one for one in tree.values("aria-label") if one.startswith("seresnext101 on "))
    chart = chart.replace("\N{NO-BREAK SPACE}", " ")
    if not why:
        assert "9,000.0 fps failed ★ best" in tree.text()
        assert "the fastest is batch 4" in chart
        return
    assert f"9,000.0 fps {outcome} {why}" in tree.text()
    assert "529.1 fps passed ★ best" in tree.text()
    assert "counts for nothing" in tree.text()
    assert f"9,000.0 fps ({outcome}, counts for nothing); the fastest is batch 1" in chart
    assert 'class="d-trouble"' in drawn.html
    assert f'<i class="o-{outcome}"><svg class="sign">' in drawn.html


def test_the_figure_of_a_slice_of_a_chip_is_in_no_ratio() -> None:
    for chip, ratios in (("Ascend310P3", True), ("vNPU vir02 of an Ascend310P3", False)):
        setup = replace(samples.SETUP, chip=chip)
        lines = [samples.real_throughput("seresnext101", n, setup=setup) for n in (1, 4)]
        records = real(*lines, published=samples.published("seresnext101"))
        assert ("×" in section(records, "guide").text()) == ratios
        assert ("another chip" in page(records).text()) != ratios
        assert chip in page(records).text()


def test_where_no_figure_counts_there_is_no_best_and_no_ratio() -> None:
    lines = [_spoiled("busy", n) for n in (1, 4)]
    records = real(*lines, published=samples.published("seresnext101"))
    tree = page(records)
    assert "not decided published 529.115 \N{EN DASH} \N{EN DASH}" in tree.text()
    assert "fps inconclusive ★ best" not in tree.text()
    assert "×" not in section(records, "guide").text()
    assert "no figure counts" in tree.html
    assert 'k-d-trouble">counts for nothing' in tree.html
    assert 'k-d-measured">measured' not in tree.html
