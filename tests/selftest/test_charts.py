"""How pages write figures, the shapes of their charts, and the guide's tables."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
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
    assert len(bars) == 20
    assert max(map(float, bars)) == 100
    places = [float(path[1:].split()[0]) for path in marks(histogram).values() if "0V100" in path]
    assert all(0 < place <= 100 for place in places)
    assert charts.latency([1.0, 2.0]) is None
    same = charts.latency([5.0] * 9)
    assert same is not None
    assert "beyond" not in same.caption


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


def test_a_real_run_has_the_distribution_of_its_times(tmp_path: Path) -> None:
    assert "Latency samples" not in page(samples.real_run()).text()  # none lie beside the records
    written = page(samples.write_samples(tmp_path, samples.real_run()))
    assert written.text().count("Distribution of 400 executions.") == 7


# --- the guide's tables ------------------------------------------------------------------------


def test_the_guides_tables_with_measured_figures() -> None:
    text = section(samples.real_run(), "guide").text()
    for said in (
        "Batch size measured 310P a chip ratio 310 a chip ratio T4 a card ratio",
        # 529.644 measured / 182.224 and / 346.484 published.
        "1 529.6 fps passed 529.115 1.001× 182.224 2.907× 346.484 1.529×",
        "4 907.1 fps passed \N{BLACK STAR} best 903.506",
    ):
        assert said in text, said


def test_only_what_is_comparable_has_a_ratio() -> None:
    line = samples.real_throughput("fixres", 1, 0.99)
    tree = section(real(line, published=samples.published("fixres")), "guide")
    assert "<s>200.616</s>" in tree.html
    # Cards with cards: 733.052.
    ratios = "893.562 0.9900× 733.052 1.207× 200.616 \N{EN DASH}"
    assert f"884.6 fps failed \N{BLACK STAR} best {ratios}" in tree.text()
    assert "Guide 001, FixRes; FixRes, edition of January 2023" in tree.text()
    assert "T4, struck out: not comparable (measured at 224 x 224" in tree.text()
    # A chip, of whose 310P nothing is published, and a card of four.
    line = samples.real_throughput("squeezenet1_1", 2)
    text = section(real(line, published=samples.published("squeezenet1_1")), "guide").text()
    assert "310 a card of 4 chips" in text
    assert "4,589.72" in text
    assert "×" not in text
    # Without published figures there is nothing to stand beside.
    assert "The guide's tables" not in page(real(line)).text()


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
    text = section(records, "guide").text()
    if not why:
        assert "9,000.0 fps failed \N{BLACK STAR} best" in text
        return
    assert f"9,000.0 fps {outcome}, {why} " in text
    assert "529.1 fps passed \N{BLACK STAR} best" in text
    assert "counts for nothing" in text
    assert text.count("×") == 3  # of the other one


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
    text = section(real(*lines, published=samples.published("seresnext101")), "guide").text()
    assert text.count("inconclusive, not decided") == 2
    assert "\N{BLACK STAR}" not in text
    assert "×" not in text
