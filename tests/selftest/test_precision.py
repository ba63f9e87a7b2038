"""Figures that are known only so well: no false digit, and nothing of what is not known."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base import precision
from harness.pages import formats
from harness.report import rows
from harness.report.view import view
from tests.selftest import report_samples as samples

SPACE = "\N{NO-BREAK SPACE}"


def words(text: str) -> str:
    return text.replace(SPACE, " ").replace(precision.MINUS, "-")


@pytest.mark.parametrize(
    ("half_width", "said"),
    [
        (0.421, "known to ±0.42 %"),
        (4.61, "known to ±4.6 %"),
        (9.97, "known to ±10 %"),
        (100.0, "known to ±100 %"),
        (100.1, "never known"),
        (math.inf, "never known"),
        (math.nan, "never known"),
    ],
)
def test_how_well_something_is_known(half_width: float, said: str) -> None:
    assert words(precision.known_to(half_width, "never known")) == said


@pytest.mark.parametrize(
    ("value", "unit", "half_width", "said"),
    [
        (1504.10, "%", 41.0, "16 ×, ±41 %"),
        (1504.10, "%", 4608.0, "not known"),
        (1504.10, "%", None, "16.0 ×"),
        (452.13, "%", 3.0, "5.52 ×"),
        (123_456.0, "%", 3.0, "1,240 ×"),
        (4.71, "%", None, "+4.71 %"),
        (4.71, "%", 0.05, "+4.71 %"),
        (4.71, "%", 0.5, "+4.7 %"),
        (4.71, "%", 9.0, "+5 %"),
        (4.71, "%", 41.0, "+5 %, ±41 %"),
        (-19.24, "%", 9.0, "-19 %"),
        (-0.001, "%", None, "+0.00 %"),
        (99.99, "%", 20.0, "+100 %, ±20 %"),
        (-0.126, "points", None, "-0.13 points"),
        (250.0, "points", None, "+250.00 points"),
        (None, "%", 5.0, formats.NO_VALUE),
        (31.543, "fps", None, "31.54 fps"),
        (31.543, "fps", 0.4, "31.54 fps"),
        (31.543, "fps", 4.0, "31.5 fps"),
        (31.543, "fps", 41.0, "32 fps"),
        (31.543, "fps", 141.0, "not known"),
        (1507.8, "fps", 41.0, "1,500 fps"),
        (1507.8, "fps", None, "1,507.8 fps"),
        (12345.6, "fps", None, "12,346 fps"),
        (0.0, "fps", 41.0, "0.000 fps"),
    ],
)
def test_a_figure_has_no_false_digit(value, unit, half_width, said):
    if unit == "fps":
        assert words(formats.figure(value, unit, half_width)) == said
    else:
        assert words(formats.difference(value, unit, half_width=half_width)) == said


@pytest.mark.parametrize(
    ("half_width", "figure", "ratio"),
    [
        (0.4, "529.6 fps", "ours is 2.907 times that"),
        (41.0, "530 fps", "ours is 2.9 times that"),
        (math.inf, "not known", "182.2 fps a chip"),
    ],
)
def test_a_case_beside_another_chip_has_no_false_digit(half_width, figure, ratio):
    line = samples.real_throughput("seresnext101", 1, 1.001)
    assert line.throughput is not None
    timing = replace(line.throughput.timing, half_width_percent=half_width)
    line = samples.measured(line, timing=timing)
    published = samples.published("seresnext101")
    records = samples.run_records([line], provenance="real", guide_figures=published)
    (case,) = view(records).cases
    assert words(case.measured) == figure
    (_, text), _ = rows.beside(line, records.run)
    assert words(text).strip("()").endswith(ratio)


@given(
    st.floats(min_value=-100, max_value=1e9),
    st.none() | st.floats(min_value=0, max_value=1e6) | st.just(math.nan),
)
def test_any_difference_is_one_short_word(percent: float, half_width: float | None) -> None:
    text = words(precision.difference(percent, half_width))
    if not precision.is_known(half_width):
        assert text == "not known"
        return
    match = re.fullmatch(r"([+-]?)([\d,]+(\.\d+)?) [%×](, ±\d+ %)?", text)
    assert match, text
    assert len(text) <= 30
    value = float(match[2].replace(",", ""))
    if "×" in text:
        assert value == pytest.approx(1 + percent / 100, rel=0.06)
    else:
        assert value == pytest.approx(abs(percent), abs=0.51)


@given(st.floats(min_value=1e-6, max_value=1e9), st.integers(1, 6))
def test_significant_digits_keep_the_value(value: float, count: int) -> None:
    text = precision.significant(value, count)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.5 * 10 ** (1 - count) + 1e-9)
