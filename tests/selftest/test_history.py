"""Figures over time: the index of the runs, the rules of decline, the page, the command."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.__main__ import app
from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.base.terms import WHOLE_SET
from harness.history import chart, drift, series
from harness.history.index import INDEX, Row, read_history, row_of
from harness.history.trend import write_trend
from harness.records.conditions import Condition
from harness.records.measurements import OutputsCheck, Problem, ProblemCode
from harness.records.observed import DeviceInfo
from harness.records.writer import RESULTS
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest import test_report_browser as browser
from tests.selftest.running import ROOT, run_python

CATALOG = samples.catalog()


def loaded(runs: Path, provenance="real", **options):
    return series.load(read_history(runs).rows, provenance, catalog=CATALOG, **options)


def values_of(runs: Path) -> dict[str, tuple[float, ...]]:
    return {one.key.name: one.values for one in loaded(runs)}


# The index ---------------------------------------------------------------------------------------


def test_only_what_changed_is_read_again(tmp_path):
    made = nights.write_nights(tmp_path, [500, 501, 502])
    assert read_history(tmp_path).read == 3
    again = read_history(tmp_path)
    assert (again.read, again.runs) == (0, 3)
    text = (made[1] / RESULTS).read_text()
    changed = text.replace('"measured":501.0', '"measured":511.0')
    assert changed != text
    (made[1] / RESULTS).write_text(changed)  # of the same size
    nights.write_nights(tmp_path, [504], first=5)
    history = read_history(tmp_path)
    assert (history.read, history.runs) == (2, 4)
    shutil.rmtree(made[0])
    history = read_history(tmp_path)
    assert (history.read, history.runs) == (0, 3)
    assert made[0].name not in (tmp_path / INDEX).read_text()
    assert values_of(tmp_path) == {"resnest50-bs1-ascend310p3": (511, 502, 504)}
    (tmp_path / INDEX).unlink()
    rebuilt = read_history(tmp_path)
    assert rebuilt.read == 3
    assert rebuilt.rows == history.rows


def test_links_and_pipes_are_not_followed(tmp_path):
    (made,) = nights.write_nights(tmp_path, [500])
    (tmp_path / "latest").symlink_to(made.name)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / RESULTS).symlink_to(made / RESULTS)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / RESULTS)
    (tmp_path / "empty").mkdir()
    assert read_history(tmp_path).read == 1


@pytest.mark.parametrize("damage", ["other content", "noise", "cut short", "another version"])
def test_a_damaged_index_is_made_anew(tmp_path, damage):
    nights.write_nights(tmp_path, [500, 501, 502])
    rows = read_history(tmp_path).rows
    path = tmp_path / INDEX
    whole = path.read_bytes()
    path.write_bytes(
        {
            "other content": b"[]\n{}\n\xff\xfe\n",
            "noise": random.Random(1).randbytes(len(whole)),
            "cut short": whole[: len(whole) // 2],
            "another version": whole.replace(b'"version":3', b'"version":99'),
        }[damage]
    )
    assert read_history(tmp_path).rows == rows
    assert read_history(tmp_path).read == 0


def test_a_damaged_line_is_counted_and_an_older_run_is_named(tmp_path):
    half = nights.speed(300, batch=4).model_dump_json()[:700]
    nights.write_run(tmp_path, [nights.speed(500)], raw=[half, "[1]", "[" * 100_000])
    (old,) = nights.write_nights(tmp_path, [1.0], first=7)
    nights.rewrite(old, {"schema_version": 1}, "run")
    history = read_history(tmp_path)
    assert values_of(tmp_path) == {"resnest50-bs1-ascend310p3": (500,)}
    old_run, damaged = history.notes
    assert old_run.startswith("night-0007 could not be read: ")
    assert "older form" in old_run
    assert damaged == "3 damaged lines in the records could not be read"


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path):
    nights.write_nights(tmp_path, [500, 501])
    (tmp_path / INDEX).mkdir()
    assert len(read_history(tmp_path).rows) == 2
    with pytest.raises(RecordError, match="no folder of run directories"):
        read_history(tmp_path / "nothing")


def test_a_merged_run_does_not_count_twice(tmp_path):
    nights.write_run(tmp_path, [nights.speed(500)], name="a")
    miss = nights.speed(300, 1, outcome="error")
    nights.write_run(tmp_path, [miss], name="b")
    nights.write_run(tmp_path, [nights.speed(500), miss], name="both")
    (one,) = loaded(tmp_path)
    assert one.values == (500,)
    assert len(one.misses) == 1


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        ({"outputs": OutputsCheck(0.031, 0.03)}, ("wrong outputs",)),
        ({"outputs": OutputsCheck(float("nan"), 0.03)}, ("wrong outputs",)),
        ({"problems": (Problem(ProblemCode.NOT_FINITE),)}, ("wrong outputs",)),
        ({"conditions": (Condition("during", 1.0, busy="yes"),)}, ("busy",)),
        (
            {"conditions": (Condition("after", 1.0, health="Warning", throttled="yes"),)},
            ("unhealthy", "throttled"),
        ),
        ({"conditions": (Condition("before", 1.0, health="OK", busy="unknown"),)}, ()),
    ],
)
def test_what_speaks_against_a_figure_keeps_it_from_the_rules(tmp_path, change, trouble):
    nights.write_run(tmp_path, [nights.speed(500, measurement=change)])
    (row,) = read_history(tmp_path).rows
    assert row.trouble == trouble
    assert row.counted == (not trouble)


def command(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def documented(language: str) -> list[str]:
    text = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def test_the_documented_commands_run_as_written(tmp_path, monkeypatch):
    """Those of the harness, and the program; DuckDB is a tool of the user's."""
    commands = [
        words
        for line in "\n".join(documented("shell")).splitlines()
        if (words := shlex.split(line, comments=True))[:3] == ["python", "-m", "harness"]
    ]
    assert len(commands) == 4
    runs = tmp_path / "runs"
    for number, name in enumerate("AB"):
        nights.write_run(runs, [nights.speed(300, number, batch=2 + number)], name=name)
    (runs / "latest").symlink_to("B")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_RUNS", str(runs))
    for words in commands:
        done = command(*words[3:])
        assert done.exit_code == 0, (words, done.output)
    assert (runs / "trend.html").exists()
    assert (runs / "both" / "report.html").exists()
    (program,) = documented("python")
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert b"resnest50-bs2-ascend310p3 2026-09-01T02:00:00+00:00 300.0 fps\n" in done.stdout


def test_the_documented_queries_name_the_keys_of_a_row():
    text = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    names = [field.name for field in dataclasses.fields(Row)]
    assert [name for name in names if f"`{name}`" not in text] == []
    words = set(re.findall(r"\b[a-z_]+\b", re.sub(r"'[^']*'", "", " ".join(documented("sql")))))
    of_end_lines = {"kind", "filename", "finished", "exit_status", "complete"}
    of_sql = {"unnest", "cases", "max_depth", "rows", "count", "avg", "round", "min", "max"}
    aliases = {"toolchain", "runs", "fps", "last", "read_json", "format", "columns", "true"}
    assert words - of_end_lines - of_sql - aliases <= set(names)


# The rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_the_chance_is_counted_exactly(n):
    def inversions(order):
        return sum(1 for a, b in itertools.combinations(order, 2) if b < a)

    counts = [inversions(order) for order in itertools.permutations(range(n))]
    for least in range(n * (n - 1) // 2 + 1):
        share = sum(1 for one in counts if one >= least) / len(counts)
        assert drift.chance_of_inversions(n, least) == pytest.approx(share)


@pytest.mark.parametrize("kind", nights.NOISE)
@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_noise_is_not_taken_for_a_decline(kind, noise):
    """At most 5 in 1,000 nights of a series; docs/history.md has the measured rates."""
    draw = random.Random(f"{kind} {noise}")
    alarms = looked = 0
    for _ in range(30):
        figures = [1000 * nights.NOISE[kind](draw, noise) for _ in range(150)]
        for night in range(drift.REACH, len(figures)):
            looked += 1
            window = figures[night - drift.REACH : night + 1]
            alarms += drift.decline(window, "throughput") is not None
    assert 1000 * alarms / looked <= 5


@pytest.mark.parametrize(("noise", "most"), [(0.003, 4), (0.005, 5), (0.01, 8), (0.02, 13)])
def test_one_percent_a_night_is_found(noise, most):
    """Within so many nights in each of 40 simulated declines."""
    draw = random.Random(100 * noise)
    for _ in range(40):
        figures = [1000 * (1 + draw.gauss(0, noise)) for _ in range(30)]
        change = None
        for night in range(1, most + 1):
            figures.append(1000 * 0.99**night * (1 + draw.gauss(0, noise)))
            change = change or drift.decline(figures, "throughput")
        assert change is not None
        assert change.size < -drift.SMALLEST_CHANGE["throughput"]


def test_a_step_is_found_on_its_second_night_and_one_bad_night_is_none():
    draw = random.Random(1)
    flat = [1000 * (1 + draw.gauss(0, 0.005)) for _ in range(30)]
    assert drift.changes([*flat, 900], "throughput") == ()
    (step,) = drift.changes([*flat, 900, 902], "throughput")
    assert (step.rule, step.decline) == ("step", True)
    assert step.size == pytest.approx(-10, abs=1)
    assert drift.changes([*flat, 900, 1000, 1001], "throughput") == ()


@pytest.mark.parametrize(
    ("figures", "check", "changes", "declines"),
    [
        ([1000 * 1.01**night for night in range(20)], "throughput", True, False),
        ([1000 - 0.2 * night for night in range(20)], "throughput", False, False),  # too small
        ([78.24 - 0.001 * night for night in range(20)], "accuracy", False, False),
        ([78.24] * 18 + [78.1, 78.1], "accuracy", True, True),
        ([78.24] * 40, "accuracy", False, False),
        ([1000 - 50 * night for night in range(6)], "throughput", False, False),  # too few
        ([1000 - 50 * night for night in range(7)], "throughput", True, True),
    ],
)
def test_what_is_a_change_and_what_a_decline(figures, check, changes, declines):
    assert bool(drift.changes(figures, check)) == changes
    assert (drift.decline(figures, check) is not None) == declines


@settings(max_examples=100, deadline=None)
@given(
    # So coarse that turning the figures upside down below makes no two of them equal.
    st.lists(st.floats(1e-3, 1e7).map(lambda value: round(value, 3)), max_size=45),
    st.sampled_from(["throughput", "accuracy"]),
)
def test_the_rules_take_any_figures(figures, check):
    for change in drift.changes(figures, check):
        assert abs(change.size) >= drift.SMALLEST_CHANGE[check]
        assert change.runs <= len(figures)
        assert change.sentence
    turned = [1e8 - value for value in figures]
    assert {(c.rule, c.decline) for c in drift.changes(turned, "accuracy")} >= {
        (c.rule, not c.decline) for c in drift.changes(figures, "accuracy") if abs(c.size) > 1
    }


# Series ------------------------------------------------------------------------------------------


def test_provenances_are_never_in_one_series(tmp_path):
    nights.write_nights(tmp_path, [500, 501])
    nights.write_nights(tmp_path, [900, 901], first=2, provenance="simulated")
    # A line that claims to be real in a rehearsal's records.
    nights.write_run(tmp_path, [nights.speed(10, 9)], provenance="rehearsal")
    assert [one.values for one in loaded(tmp_path)] == [(500, 501)]
    assert [one.values for one in loaded(tmp_path, "simulated")] == [(900, 901)]
    assert [one.values for one in loaded(tmp_path, "rehearsal")] == [(10,)]


def test_another_chip_batch_or_number_of_images_is_another_series(tmp_path):
    def accuracy(top1: float, images: int, **changes: Any):
        return samples.case(
            *("resnest50", 1, "accuracy"),
            target="ascend310p3",
            provenance="real",
            measured=top1,
            device=DeviceInfo("npu-0", "Ascend310P3"),
            measurement=samples.accuracy_measurement(images, 1, provenance="real"),
            **changes,
        )

    cases = [
        nights.speed(500),
        nights.speed(800, batch=4),
        nights.speed(400, target="ascend310", chip="Ascend310"),
        accuracy(81.1, WHOLE_SET),
    ]
    nights.write_run(tmp_path, cases, name="a")
    nights.write_run(tmp_path, [accuracy(70.0, 1_000, run="b")], name="b")
    floors = {one.key.images: one.floor for one in loaded(tmp_path, check="accuracy")}
    assert len(loaded(tmp_path)) == 5
    assert floors[1_000] is None
    assert floors[WHOLE_SET].value == pytest.approx(81.13 * 0.99)


def test_a_change_of_toolchain_is_marked_and_named(tmp_path):
    nights.write_nights(tmp_path, [600.0], toolchain="CANN 7")
    nights.write_nights(tmp_path, [600.0 + n % 3 for n in range(19)], first=1)
    nights.write_nights(tmp_path, [560.0, 561.0, 559.0, 560.5], first=20, toolchain="CANN 8.1")
    (one,) = loaded(tmp_path)
    earlier, mark = one.marks  # the earlier one explains nothing
    assert (earlier.row, mark.row) == (one.points[1], one.points[20])
    assert mark.texts == ("toolchain: CANN 8.0.RC2 → CANN 8.1",)
    assert one.decline is not None
    assert one.explanations(one.decline) == (f"2026-09-21 {mark.texts[0]}",)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"device": DeviceInfo("npu-1", "Ascend310P3")}, "device: Ascend310P3 (npu-0) → "),
        (
            {"device": DeviceInfo("npu-0", "Ascend310P3", toolchain={"driver": "24"})},
            "driver: 23.0.0 → 24",
        ),
        ({"versions": {"harness": "2"}}, "harness: 1 → 2"),
        ({"setup": {"tuning": "aoe"}}, "tuning: none → aoe"),
        ({"setup": {"card": ""}}, None),  # what is not known is no change
    ],
)
def test_what_else_is_marked(tmp_path, changes, text):
    nights.write_nights(tmp_path, [600.0], versions={"harness": "1"})
    nights.write_nights(tmp_path, [600.0], first=1, **{"versions": {"harness": "1"}, **changes})
    (one,) = loaded(tmp_path)
    assert len(one.marks) == (text is not None)
    assert all(text in line for mark in one.marks for line in mark.texts)


def test_an_accuracy_names_the_compiler_of_its_device(tmp_path):
    for number, version in enumerate(("8.0", "8.1")):
        device = DeviceInfo("npu-0", "Ascend310P3", toolchain={"cann": version})
        line = samples.case(provenance="real", device=device, run=f"{number}",
                            started=nights.night(number))  # fmt: skip
        nights.write_run(tmp_path, [line])
    ((mark,),) = (one.marks for one in loaded(tmp_path))
    assert mark.texts == ("toolchain: cann 8.0 → cann 8.1",)


# The page ----------------------------------------------------------------------------------------


def page_of(runs: Path, **options: Any) -> str:
    made = write_trend(runs, catalog=CATALOG, **options)
    return made.path.read_text(encoding="utf-8")


def tone_and_headline(html: str) -> tuple[str, str]:
    tone = re.search(r'<header class="page tone-(\w+)">', html)
    text = re.search(r"<h1><span>(.*?)</span></h1>", html)
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
    assert html.count('aria-hidden="true">!</span>no figure') == 2
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
def test_the_figures_and_their_band_lie_between_the_ends_of_the_axis(values):
    records = samples.run_records([nights.speed(value, n) for n, value in enumerate(values)])
    rows = [row_of(records, case, 0.0) for case in records.cases]
    (one,) = series.load(rows, "rehearsal")
    drawn = chart.draw(one)
    tops = [tick.y for tick in drawn.ticks]
    assert tops == sorted(tops, reverse=True)
    assert 2 <= len(tops) <= 7
    for y in re.findall(r"M[\d.]+ ([\d.]+)h0", drawn.paths["dots"]):
        assert min(tops) - 0.1 <= float(y) <= max(tops) + 0.1
    if drawn.band is not None:
        assert drawn.band[1] >= min(tops) - 0.1
        assert drawn.band[1] + drawn.band[3] <= max(tops) + 0.2


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


PHONES = (browser.PHONE, 360, 320)


def test_the_page_in_a_browser_on_phones(tmp_path):
    runs = tmp_path / "runs"
    nights.write_nights(runs, [600 * 0.99**n for n in range(20)])
    nights.write_nights(runs, [500.0, 480.0], first=20, toolchain="CANN " + "9" * 150)
    nights.write_nights(runs, [500.0], first=23, outcome="failed")
    nights.write_nights(runs, [500.0], first=24, outcome="inconclusive")
    # The longest words that stand beside a chart: those of a floor.
    measurement = samples.accuracy_measurement(WHOLE_SET, 40_000, provenance="real")
    accuracy = samples.case("inceptionv4", 1, provenance="real", measurement=measurement,
                            run="r", started=nights.night(25))  # fmt: skip
    nights.write_run(runs, [accuracy])
    html = page_of(runs)
    with tempfile.TemporaryDirectory(prefix="trend-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        program = browser._browser()
        frames = '<iframe src="untouched.html" style="width:390px;height:800px"></iframe>\n'
        (folder / "untouched.html").write_text(html, encoding="utf-8")
        for width in PHONES:
            name = str(width)
            (folder / f"{name}.html").write_text(browser._probed(html, name), encoding="utf-8")
            style = f"width:{width}px;height:800px"
            frames += f'<iframe src="{name}.html" style="{style}"></iframe>\n'
        (folder / "wall.html").write_text(browser.WALL + frames, encoding="utf-8")
        dom, log = browser._dump(program, folder / "wall.html", folder / "profile")
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)
    assert text is not None, log[-2000:]
    for width in PHONES:
        seen = json.loads(unescape(text[1]))[str(width)]
        assert seen["wide"] == []
        assert seen["scroll"] <= seen["width"] == width
        assert seen["outside"] == []
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []


# The command -------------------------------------------------------------------------------------


def test_the_command_writes_the_page(tmp_path):
    nights.write_nights(tmp_path, [600 * 0.99**n for n in range(20)])
    done = command("trend", "--runs", str(tmp_path))
    assert done.exit_code == 0, done.output
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


def test_the_benchmark_runs_and_prints_its_tables(tmp_path):
    code, output = run_python(
        ["benchmarks/history.py", "--runs=3", "--cases=6", f"--work={tmp_path}"]
    )
    assert code == 0, output
    assert "3 runs of 6 cases" in output
    assert "page 0." in output
    assert "with 6 series" in output
    assert list(tmp_path.iterdir()) == []
    code, output = run_python(["benchmarks/history.py", "--rules", "--series=1"])
    assert code == 0, output
    assert output.count("\n| ") == 9 + 4 + 3
