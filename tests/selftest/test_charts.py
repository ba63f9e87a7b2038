"""How pages write figures, the shapes of their charts, and what is published beside a figure."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pages import charts as shapes
from harness.pages import formats
from harness.records.lines import CaseLine
from harness.records.measurements import OutputsCheck, Problem, ProblemCode
from harness.records.reader import RunRecords
from harness.report import charts, rows
from tests.selftest import report_samples as samples
from tests.selftest.pages import page


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


# --- published figures of other chips ------------------------------------------------------------


def beside(line: CaseLine) -> list[str]:
    """What is published of other chips for the batch size of a case, one text for each."""
    records = real(line, guide_figures=samples.published(line.model))
    return [f"{chip} {text}".replace("\N{NO-BREAK SPACE}", " ")
            for chip, text in rows.beside(line, records.run)]  # fmt: skip


def test_a_case_stands_beside_what_is_published_of_other_chips() -> None:
    # 529.644 measured / 182.224 and / 346.484 published.
    line = samples.real_throughput("seresnext101", 1, 1.001)
    assert beside(line) == [
        "Ascend310 182.2 fps a chip (ours is 2.907 times that)",
        "Tesla T4 346.5 fps a card (ours is 1.529 times that)",
    ]
    assert (
        "ours is 2.907 times that"
        in page(real(line, guide_figures=samples.published(line.model))).text()
    )


def test_only_what_is_comparable_has_a_ratio() -> None:
    of_310, t4 = beside(samples.real_throughput("fixres", 1, 0.99))
    assert "733.1 fps a card (ours is 1.207 times that)" in of_310  # cards with cards
    assert "(not comparable: measured at 224 x 224" in t4
    # A chip with a card of four, and with another chip.
    of_310, of_310b = beside(samples.real_throughput("squeezenet1_1", 1))
    assert of_310 == "Ascend310 4,589.7 fps a card"
    assert "a chip (ours is 1.572 times that)" in of_310b


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": OutputsCheck(float("nan"), 0.03)},
        {"outputs": OutputsCheck(0.4, 0.03)},
        {"problems": (Problem(ProblemCode.STRANGE_TIMES),)},
        {"conditions": samples.conditions(busy=True)},
        {"half_width_percent": 9.0},
        {"setup": replace(samples.SETUP, chip="vNPU vir02 of an Ascend310P3")},
    ],
)
def test_a_figure_that_counts_for_nothing_has_no_ratio(changes: dict[str, Any]) -> None:
    texts = beside(samples.real_throughput("seresnext101", 1, **changes))
    assert len(texts) == 2
    assert not any("times" in text for text in texts)
