"""The trend page and its command: what falls and why, and nothing that is not known."""

from __future__ import annotations

import os
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.history import chart, series
from harness.history.index import row_of
from harness.history.trend import write_trend
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest.test_history import CATALOG, command, loaded


def page_of(runs: Path, **options: Any) -> str:
    made = write_trend(runs, catalog=CATALOG, **options)
    return made.path.read_text(encoding="utf-8")


def tone_and_headline(html: str) -> tuple[str, str]:
    tone = re.search(r'<header class="page tone-(\w+)">', html)
    text = re.search(r"<h1.*?>(.*?)</h1>", html)
    assert tone is not None
    assert text is not None
    return tone[1], unescape(text[1])


def failed_night(folder: Path, number: int, outcome="error", **changes: Any) -> Path:
    """A night in which the case ended in an error, before it knew its chip."""
    line = nights.speed(1.0, number, outcome=outcome, **changes)
    return nights.write_run(folder, [line.model_copy(update={"measurement": None, "device": None})])


def test_the_page_says_what_falls_and_why(tmp_path):
    nights.write_nights(tmp_path, [600.0 + n % 3 for n in range(12)])
    falling = [600 * 0.99**n for n in range(1, 9)]
    nights.write_nights(tmp_path, falling, first=12, toolchain="CANN 8.1")
    html = page_of(tmp_path)
    assert tone_and_headline(html) == ("bad", "1 series: 1 falling")
    assert 'class="floor"' in html or "the floor, 435.0" in html
    assert 'class="band"' in html
    assert "CANN 8.0.RC2 → CANN 8.1" in html
    assert "<script" not in html
    assert 'href="night-0003/report.html"' in html
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)
    assert "REHEARSAL" not in html


@pytest.mark.parametrize(("kind", "word"), [("rehearsal", "REHEARSAL"), ("simulated", "SIMULATED")])
def test_a_page_that_is_not_real_carries_the_banner_and_no_floor(tmp_path, kind, word):
    nights.write_nights(tmp_path, [600.0, 601.0], provenance=kind)
    html = page_of(tmp_path)
    assert html.count(f"<strong>{word}") == 2
    assert 'class="floor"' not in html
    assert "435" not in html
    assert "guide-002" not in html
    assert "accepted" not in html.lower()


def test_real_figures_have_a_page_without_the_others(tmp_path):
    nights.write_nights(tmp_path, [600.0, 601.0])
    nights.write_nights(tmp_path, [77.0, 78.0], first=3, provenance="rehearsal")
    html = page_of(tmp_path)
    assert "77.00" not in html
    assert "2 runs of provenance rehearsal left out" in html
    assert "77.00" in page_of(tmp_path, provenance="rehearsal")


STEADY = [600.0 + n % 3 for n in range(9)]
FALLING = [600.0 + n % 3 for n in range(12)] + [590.0 - 6 * n for n in range(8)]
LOW = [70.0 + n % 3 / 10 for n in range(9)]


@pytest.mark.parametrize(
    ("figures", "tone", "headline"),
    [
        ([{"values": STEADY[:6]}, {"values": [700.0], "model": "m"}],
         "few", "2 series: 2 with too few runs to tell (6 of at least 7)"),
        ([{"values": STEADY[:5]}, {"values": STEADY[:5], "outcome": "inconclusive"}],
         "few", "1 series: 1 with too few runs to tell (5 of at least 7)"),
        ([{"values": STEADY}, {"values": [700.0], "model": "m"}],
         "good", "2 series: none falling, 1 with too few runs to tell"),
        ([{"values": LOW[:2], "model": "fixres"}],
         "warn", "1 series: 1 below the floor, 1 with too few runs to tell (2 of at least 7)"),
        ([{"values": FALLING}, {"values": LOW, "model": "fixres"}],
         "bad", "2 series: 1 falling, 1 below the floor"),
        ([{"values": [value / 3 for value in FALLING], "batch": 8}],
         "bad", "1 series: 1 falling, 1 below the floor"),
        ([{"values": STEADY}, {"values": [600.0], "outcome": "failed"}],
         "bad", "1 series: none falling, 1 failed in the newest run"),
        ([{"values": [600.0], "outcome": "failed"}, {"values": STEADY}],
         "good", "1 series: none falling"),
        ([], "neutral", "There is no figure yet"),
    ],
)  # fmt: skip
def test_the_headline(tmp_path, figures, tone, headline):
    first = 0
    for one in figures:
        changes = {name: value for name, value in one.items() if name != "values"}
        nights.write_nights(tmp_path, one["values"], first=first, **changes)
        first += len(one["values"])
    assert tone_and_headline(page_of(tmp_path)) == (tone, headline)


def test_a_failed_newest_run_is_not_called_steady(tmp_path):
    nights.write_nights(tmp_path, STEADY)
    nights.write_nights(tmp_path, [600.0], first=9, outcome="failed")
    html = page_of(tmp_path)
    assert "steady" not in html
    where = '<a href="night-0009/report.html">2026-09-10 02:00:00 UTC</a>'
    assert html.count(f"the newest run ({where}) failed") == 2
    # A crash after it is what the newest run came to.
    failed_night(tmp_path, 10, outcome="crashed")
    html = page_of(tmp_path)
    assert "1 failed" not in html
    assert "1 without a figure in the newest run" in html


def test_a_newest_night_without_a_figure_is_not_hidden(tmp_path):
    nights.write_nights(tmp_path, STEADY)
    nights.write_nights(tmp_path, [900.0 + n for n in range(9)], first=20, batch=8, model="m")
    nights.write_nights(tmp_path, [77.0], first=30, provenance="rehearsal")
    failed_night(tmp_path, 9)
    failed_night(tmp_path, 10, outcome="crashed")
    failed_night(tmp_path, 11, batch=64)  # never had a figure: it has no series
    failed_night(tmp_path, 12, provenance="rehearsal")
    html = page_of(tmp_path)
    headline = "2 series: none falling, 1 without a figure in the newest run"
    assert tone_and_headline(html) == ("warn", headline)
    where = '<a href="night-0010/report.html">2026-09-11 02:00:00 UTC</a>'
    said = f"the newest run ({where}) gave no figure: crashed in stage compile; none of the last 2"
    assert html.count(said) == 2  # in the table and beside the chart of that series alone
    assert html.count(">no figure</span>") == 2
    first = html[html.index("<tbody>") :]
    assert "resnest50-bs1" in first[: first.index("</tr>")]
    assert "night-0012" not in html
    # A figure after it: nothing is left to say.
    nights.write_nights(tmp_path, [601.0], first=13)
    assert "no figure" not in page_of(tmp_path)


def test_the_miss_of_a_chip_belongs_to_the_series_of_that_chip(tmp_path):
    nights.write_nights(tmp_path, [600.0])
    nights.write_nights(tmp_path, [300.0], first=1, chip="Ascend310P1")
    line = nights.speed(1.0, 2, outcome="error")
    nights.write_run(tmp_path, [line.model_copy(update={"measurement": None})])
    misses = {one.key.chip: one.misses for one in loaded(tmp_path)}
    assert [len(misses[chip]) for chip in ("Ascend310P3", "Ascend310P1")] == [1, 0]
    assert misses["Ascend310P3"][0].error_stage is Stage.COMPILE


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-2, 1e7), min_size=1, max_size=12))
def test_figures_error_bars_and_noise_band_stay_in_the_box(values):
    records = samples.run_records([nights.speed(value, n) for n, value in enumerate(values)])
    rows = [row_of(records, case, 0.0) for case in records.cases]
    (one,) = series.load(rows, "rehearsal")
    drawn = chart.draw(one, "steady")
    places = [tick.place for tick in drawn.y]
    assert places == sorted(places, reverse=True)
    assert 2 <= len(places) <= 7
    numbers = [float(n) for mark in drawn.marks for n in re.findall(r"-?[\d.]+", mark.path)]
    assert all(0 <= number <= 100 for number in numbers)
    (whiskers,) = (mark.path for mark in drawn.marks if mark.style == "whisker")
    ends = re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", whiskers)
    assert len(ends) == len(values)
    # None is cut: each is as far above its figure as below, but for the rounding of both.
    dots = re.findall(r"M[\d.]+ ([\d.]+)h0", next(m.path for m in drawn.marks if m.style == "dots"))
    for (low, high), dot in zip(ends, dots, strict=True):
        assert float(low) + float(high) == pytest.approx(2 * float(dot), abs=0.03)


def test_nothing_in_a_record_becomes_markup(tmp_path):
    evil = "<img src=x onerror=alert(1)>\x1b[31m\u202e" + "W" * 300
    for number in range(3):
        line = nights.speed(
            *(500, number), model="m", toolchain=f"{evil}{number}", chip=evil, run=f"{number}{evil}"
        )
        nights.write_run(tmp_path, [line], name=f"javascript:{number}")
    html = page_of(tmp_path)
    assert "<img" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert 'href="javascript:' not in html


def test_a_page_stays_where_there_are_no_figures_any_more(tmp_path):
    runs = nights.write_nights(tmp_path, [600.0, 601.0])
    full = page_of(tmp_path)
    for directory in runs:
        shutil.rmtree(directory)
    done = command("trend", "--runs", str(tmp_path))
    assert done.exit_code == 0
    assert "trend.html: left as it was" in done.output
    assert "has no such real figure now" in done.output
    # Nor a page that the user named, nor one of a check that was not run.
    other = ("--provenance=simulated", "-m", "accuracy", f"--output={tmp_path / 'trend.html'}")
    done = command("trend", "--runs", str(tmp_path), *other)
    assert "has no such simulated figure now" in done.output
    assert (tmp_path / "trend.html").read_text(encoding="utf-8") == full
    with pytest.raises(RecordError, match="no real figure of resnest50"):
        write_trend(tmp_path, models=["resnest50"])


# The command -------------------------------------------------------------------------------------


def test_the_command_writes_the_page(tmp_path):
    nights.write_nights(tmp_path, [600 * 0.99**n for n in range(20)])
    declines = tmp_path / "declines.txt"
    done = command("trend", "--runs", str(tmp_path), "--declines", str(declines))
    assert done.exit_code == 0, done.output
    assert declines.read_text() == "resnest50-bs1-ascend310p3 (throughput)\n"
    assert "declining: resnest50-bs1-ascend310p3 (throughput)" in done.output
    assert (tmp_path / "trend.html").exists()
    other = tmp_path / "elsewhere" / "other.html"
    other.parent.mkdir()
    done = command("trend", "--runs", str(tmp_path), "--output", str(other), "--model", "resnest50")
    assert done.exit_code == 0
    assert "report.html" not in other.read_text()


def test_the_command_names_the_runs_that_have_a_page_of_their_own(tmp_path):
    nights.write_nights(tmp_path, [77.0, 78.0, 79.0], provenance="rehearsal")
    done = command("trend", "--runs", str(tmp_path))
    assert "too few runs to tell (3 of at least 7)" in done.output
    assert "also:" not in done.output
    nights.write_nights(tmp_path, [600.0], first=3, provenance="simulated")
    done = command("trend", "--runs", str(tmp_path))
    assert "trend-simulated.html: simulated figures, 1 series: " in done.output
    assert "also: 3 rehearsals, --provenance=rehearsal\n" in done.output
    done = command("trend", "--runs", str(tmp_path), "--provenance=rehearsal")
    assert "trend-rehearsal.html" in done.output
    assert "also:" not in done.output  # who names one knows of the others
    nights.write_nights(tmp_path, [600.0], first=9)
    done = command("trend", "--runs", str(tmp_path))
    said = "also: 1 simulation, --provenance=simulated\nalso: 3 rehearsals, --provenance=rehearsal"
    assert said in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--runs", "/nowhere/at/all"), "what to do: name one with --runs"),
        (("--provenance", "imagined"), "'imagined' is not one of"),
        (("-m", "speed"), "'speed' is not one of"),
        (("--models", "nothing"), "would replace the page of all"),
        (("-m", "accuracy"), "would replace the page of all"),
        (("--models", "nothing", "--output", "other.html"), "no real figure of nothing"),
        (("--output", "/nowhere/at/all/trend.html"), "what to do: name a file with --output"),
    ],
)
def test_a_command_that_cannot_work_says_why_and_ends_with_4(tmp_path, arguments, said):
    nights.write_nights(tmp_path, [600])
    given_runs = () if "--runs" in arguments else ("--runs", str(tmp_path))
    done = command("trend", *given_runs, *arguments)
    assert done.exit_code == 4
    assert said in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "trend.html").exists()


def test_a_page_is_no_device_and_a_link_to_it_stays(tmp_path):
    nights.write_nights(tmp_path / "runs", [600])
    pipe, page, link = (tmp_path / name for name in ("pipe", "page.html", "link.html"))
    os.mkfifo(pipe)
    done = command("trend", "--runs", str(tmp_path / "runs"), "--output", str(pipe))
    assert done.exit_code == 4
    assert "not a regular file" in done.output
    assert pipe.is_fifo()
    link.symlink_to(page.name)
    for _ in range(2):  # the first writes what the link names, the second replaces it
        done = command("trend", "--runs", str(tmp_path / "runs"), "--output", str(link))
        assert done.exit_code == 0, done.output
        assert link.is_symlink()
        assert "<html" in page.read_text()
        page.write_text("<html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("link.html", "page.html", "pipe", "runs")
    ]
