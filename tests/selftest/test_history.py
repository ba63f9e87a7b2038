"""Figures over time: the index, the rules of decline, the page."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.base.errors import RecordError
from harness.catalog.load import load_catalog
from harness.cli import history as history_commands
from harness.history import chart, drift, series, store
from harness.history.store import DATABASE, open_history
from harness.history.trend import write_trend
from harness.records.writer import RESULTS
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest import test_report_browser as browser
from tests.selftest.running import ROOT, run_python

CATALOG = load_catalog(ROOT / "baselines.yaml")


def values_of(runs: Path, provenance="real", catalog=None):
    with open_history(runs) as history:
        return {
            one.key.name: one.values for one in series.load(history, provenance, catalog=catalog)
        }


def updated(runs: Path, **options):
    with open_history(runs, **options) as history:
        return history.update


# --- The index ------------------------------------------------------------------------------


def test_only_what_changed_is_read_again(tmp_path):
    made = nights.write_nights(tmp_path, [500, 501, 502])
    assert updated(tmp_path).read == 3
    again = updated(tmp_path)
    assert (again.read, again.unchanged) == (0, 3)
    text = (made[1] / RESULTS).read_text()
    (made[1] / RESULTS).write_text(text.replace('"measured":501.0', '"measured":511.5'))
    shutil.rmtree(made[0])
    nights.write_nights(tmp_path, [504], first=5)
    update = updated(tmp_path)
    assert (update.read, update.unchanged, update.removed) == (2, 1, 1)
    assert values_of(tmp_path) == {"resnest50-bs1-ascend310p3": (511.5, 502, 504)}


def test_a_rebuilt_index_says_what_the_updated_one_says(tmp_path):
    nights.write_nights(tmp_path, [500, 501])
    updated(tmp_path)
    nights.write_nights(tmp_path, [502], first=2)

    def rows():
        with open_history(tmp_path) as history:
            return [{k: v for k, v in row.items() if k not in ("id", "setup")}
                    for row in history.figures("real")]  # fmt: skip

    before = rows()
    assert updated(tmp_path, rebuild=True).read == 3
    assert rows() == before
    assert len(before) == 3


def test_a_run_that_goes_on_is_read_again(tmp_path):
    directory = nights.write_run(tmp_path, [nights.speed(500)], end=False)
    assert len(values_of(tmp_path)) == 1
    with (directory / RESULTS).open("a") as file:
        file.write(nights.speed(300, batch=4).model_dump_json() + "\n")
    assert len(values_of(tmp_path)) == 2


def test_links_and_pipes_are_not_followed(tmp_path):
    (made,) = nights.write_nights(tmp_path, [500])
    (tmp_path / "latest").symlink_to(made.name)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / RESULTS).symlink_to(made / RESULTS)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / RESULTS)
    (tmp_path / "empty").mkdir()
    assert updated(tmp_path).read == 1


@pytest.mark.parametrize("damage", ["other content", "noise", "a page of zeros", "cut short"])
def test_a_corrupt_database_is_set_aside_and_rebuilt(tmp_path, damage):
    nights.write_nights(tmp_path, [500, 501, 502])
    updated(tmp_path)
    path = tmp_path / DATABASE
    whole = path.read_bytes()
    content = {
        "other content": b"this is no database" * 100,
        "noise": whole[:4096] + random.Random(1).randbytes(len(whole) - 4096),
        "a page of zeros": whole[:-4096] + bytes(4096),  # not read when nothing is new
        "cut short": whole[: len(whole) // 2],
    }[damage]
    path.write_bytes(content)
    update = updated(tmp_path)
    assert update.read == 3
    assert any("set aside" in note for note in update.notes)
    (aside,) = tmp_path.glob(f"{DATABASE}.damaged-*")
    assert aside.read_bytes() == content
    assert updated(tmp_path).read == 0


def test_a_database_of_another_version_is_set_aside(tmp_path):
    nights.write_nights(tmp_path, [500])
    updated(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert any("version 99" in note for note in updated(tmp_path).notes)
    assert updated(tmp_path).notes == ()


def test_a_damaged_line_is_counted_and_costs_no_other(tmp_path):
    half = nights.speed(300, batch=4).model_dump_json()[:700]
    odd = ['{"kind": "case"}', '{"kind": "odd"}', "[1]", "null", '{"kind": "case", "check": []}']
    nights.write_run(tmp_path, [nights.speed(500)], raw=[half, *odd, "[" * 100_000])
    update = updated(tmp_path)
    assert update.damaged_lines == 7
    assert values_of(tmp_path) == {"resnest50-bs1-ascend310p3": (500,)}


def test_runs_that_end_at_the_same_moment(tmp_path):
    nights.write_nights(tmp_path, [500.0 + n for n in range(30)])
    found, errors = [], []

    def look() -> None:
        try:
            found.append(values_of(tmp_path))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(found) == 6
    assert all(one == found[0] for one in found)
    assert len(found[0]["resnest50-bs1-ascend310p3"]) == 30


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch):
    nights.write_nights(tmp_path, [500, 501])
    monkeypatch.setattr(os, "access", lambda *_: False)
    with open_history(tmp_path) as history:
        assert history.provenances() == {"real": 2}
        assert any("not kept" in note for note in history.update.notes)
    assert not (tmp_path / DATABASE).exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RecordError, match="not a folder"):
        open_history(tmp_path / "nothing")


def test_a_merged_run_does_not_count_twice(tmp_path):
    from harness.merge import merge

    made = [
        nights.write_run(tmp_path, [nights.speed(500)], name="a"),
        nights.write_run(tmp_path, [nights.speed(300, batch=4)], name="b"),
    ]
    merge(made, tmp_path / "both")
    assert updated(tmp_path).read == 3
    assert values_of(tmp_path) == {
        "resnest50-bs1-ascend310p3": (500,),
        "resnest50-bs4-ascend310p3": (300,),
    }


def test_samples_are_cut_out_and_nothing_else():
    text = '{"a": "\\"samples_ms\\":[1,2]", "samples_ms":[1.5,2.5],"e":{"samples_ms":[3],"b":1}}'
    assert store._parse(text) == {
        "a": '"samples_ms":[1,2]',
        "samples_ms": [],
        "e": {"samples_ms": [], "b": 1},
    }
    assert store._parse('{"samples_ms":["]",2]}') == {"samples_ms": ["]", 2]}
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        store._parse('{"samples_ms":[1,2')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just('"samples_ms":[1]'),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["samples_ms", "a"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_cutting_samples_never_changes_another_value(value):
    def without(item, key=""):
        if isinstance(item, dict):
            return {k: without(v, k) for k, v in item.items()}
        if isinstance(item, list):
            return "gone" if key == "samples_ms" else [without(one) for one in item]
        return item

    text = json.dumps(value, separators=(",", ":"))
    assert without(store._parse(text)) == without(value)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from((*store._CASE_COLUMNS, "kind", "case")), JSON))
def test_any_line_is_a_case_or_damaged(tmp_path_factory, given_keys):
    folder = tmp_path_factory.mktemp("runs")
    data = json.loads(nights.speed(500).model_dump_json())
    for key, value in given_keys.items():
        data["check" if key == "check_name" else "case" if key == "case_name" else key] = value
    nights.write_run(folder, [nights.speed(400, batch=4)], raw=[json.dumps(data)])
    with open_history(folder) as history:
        rows = [row for kind in ("real", "rehearsal", "simulated") for row in history.figures(kind)]
    assert any(row["measured"] == 400 for row in rows)


def test_the_documented_queries_run(tmp_path):
    text = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    queries = re.findall(r"```sql\n(.*?)```", text, re.S)
    assert len(queries) >= 4
    nights.write_nights(tmp_path, [500, 501, 502])
    updated(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    for query in queries:
        assert connection.execute(query).description
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for name in ("runs", "cases", "setups", "figures"):
        assert name in tables
        assert f"`{name}`" in text
    for name in store._CASE_COLUMNS:
        assert f"`{name}`" in text, name
    for table in ("runs", "setups"):
        for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"):
            assert f"`{name}`" in text or name in ("id", "digest"), name
    connection.close()


def test_an_older_sqlite_reads_the_index(tmp_path):
    """STRICT tables came with SQLite 3.37: an older one calls the whole file malformed."""
    nights.write_nights(tmp_path, [500])
    updated(tmp_path)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        schema = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql]
    assert len(schema) >= 4
    assert not any(re.search(r"\bSTRICT\b|\bGENERATED\b", sql) for sql in schema)


def test_the_documented_commands_run_as_written(tmp_path):
    text = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    commands = [
        words
        for block in re.findall(r"```shell\n(.*?)```", text, re.S)
        for line in block.splitlines()
        if (words := shlex.split(line, comments=True))
    ]
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    commands.append(["python", "-c", program])
    assert len(commands) >= 8
    runs = tmp_path / "runs"
    for number, name in enumerate("AB"):
        nights.write_run(runs, [nights.speed(500, number, batch=1 + number)], name=name)
    (runs / "latest").symlink_to("B")
    shutil.copy(ROOT / "baselines.yaml", tmp_path)
    said = {}
    for words in commands:
        if words[0] == "python":
            words = [sys.executable, *words[1:]]
        if shutil.which(words[0]) is None:
            assert words[0] == "sqlite3", words  # the one program that a machine may lack
            continue
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HARNESS_RUNS": str(runs)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said[" ".join(words[1:])] = done.stdout
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert (runs / "trend.html").exists()
    assert (runs / "both" / "report.html").exists()
    assert (tmp_path / "history-copy.sqlite").exists()
    assert "resnest50-bs1-ascend310p3" in said[f"-c {program}"]
    if shutil.which("sqlite3"):
        assert any("directory" in text and "\nA " in text for text in said.values())


# --- The rules ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_the_chance_is_counted_exactly(n):
    def inversions(order):
        return sum(1 for a, b in itertools.combinations(order, 2) if b < a)

    found = [inversions(order) for order in itertools.permutations(range(n))]
    for least in range(n * (n - 1) // 2 + 1):
        share = sum(1 for one in found if one >= least) / len(found)
        assert drift.chance_of_inversions(n, least) == pytest.approx(share)


def noisy(draw: random.Random, percent: float, kind: str) -> float:
    if kind == "outliers":
        return 1 + draw.gauss(0, percent / 100) - (percent / 20 if draw.random() < 0.05 else 0)
    if kind == "skewed":
        return 1 - draw.expovariate(100 / percent)
    return 1 + draw.gauss(0, percent / 100)


@pytest.mark.parametrize("kind", ["normal", "outliers", "skewed"])
@pytest.mark.parametrize("percent", [0.3, 1, 3])
def test_noise_is_not_taken_for_a_decline(kind, percent):
    """At most 5 in 1,000 nights of a series; docs/history.md has the measured rates."""
    draw = random.Random(f"{kind} {percent}")
    alarms = looked = 0
    for _ in range(40):
        figures = [1000 * noisy(draw, percent, kind) for _ in range(150)]
        for night in range(drift.REACH, len(figures)):
            looked += 1
            alarms += (
                drift.decline(figures[night - drift.REACH : night + 1], "throughput") is not None
            )
    assert looked > 5000
    assert 1000 * alarms / looked <= 5


@pytest.mark.parametrize(("percent", "most"), [(0.3, 4), (0.5, 5), (1, 8), (2, 13)])
def test_one_percent_a_night_is_found(percent, most):
    """Within so many nights in each of 40 simulated declines."""
    draw = random.Random(percent)
    for _ in range(40):
        figures = [1000 * noisy(draw, percent, "normal") for _ in range(30)]
        for night in range(1, most + 1):
            figures.append(1000 * 0.99**night * noisy(draw, percent, "normal"))
            found = drift.decline(figures, "throughput")
            if found:
                break
        assert found is not None
        assert found.decline
        assert found.size < -drift.SMALLEST_CHANGE["throughput"]


def test_a_step_is_found_on_its_second_night_and_one_bad_night_is_none():
    draw = random.Random(1)
    flat = [1000 * noisy(draw, 0.5, "normal") for _ in range(30)]
    assert drift.changes([*flat, 900], "throughput") == ()
    (step,) = drift.changes([*flat, 900, 902], "throughput")
    assert (step.rule, step.decline) == ("step", True)
    assert step.size == pytest.approx(-10, abs=1)
    assert drift.changes([*flat, 900, 1000, 1001], "throughput") == ()


def test_a_rise_is_no_decline():
    rising = [1000 * 1.01**night for night in range(20)]
    assert drift.changes(rising, "throughput")
    assert drift.decline(rising, "throughput") is None


def test_a_change_that_is_too_small_to_matter_is_none():
    assert drift.changes([1000 - 0.2 * night for night in range(20)], "throughput") == ()
    assert drift.changes([78.24 - 0.001 * night for night in range(20)], "accuracy") == ()
    assert drift.decline([78.24] * 18 + [78.1, 78.1], "accuracy") is not None


def test_equal_figures_and_few_figures_are_no_change():
    assert drift.changes([78.24] * 40, "accuracy") == ()
    for count in range(7):
        assert drift.changes([1000 - 50 * n for n in range(count)], "throughput") == ()


@settings(max_examples=200, deadline=None)
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
    if figures:
        turned = [1e8 - value for value in figures]
        assert {(c.rule, c.decline) for c in drift.changes(turned, "accuracy")} >= {
            (c.rule, not c.decline) for c in drift.changes(figures, "accuracy") if abs(c.size) > 1
        }


# --- Series ---------------------------------------------------------------------------------


def loaded(runs: Path, provenance="real", **options):
    with open_history(runs) as history:
        return series.load(history, provenance, catalog=CATALOG, **options)


def test_provenances_are_never_in_one_series(tmp_path):
    nights.write_nights(tmp_path, [500, 501])
    nights.write_nights(tmp_path, [900, 901], first=2, provenance="simulated")
    # A line that claims to be real in a rehearsal's records.
    nights.write_run(tmp_path, [nights.speed(10, 9)], provenance="rehearsal")
    assert [one.values for one in loaded(tmp_path)] == [(500, 501)]
    assert [one.values for one in loaded(tmp_path, "simulated")] == [(900, 901)]
    assert [one.values for one in loaded(tmp_path, "rehearsal")] == [(10,)]


def test_another_chip_batch_or_number_of_images_is_another_series(tmp_path):
    accuracy: dict[str, Any] = {
        "provenance": "real",
        "device": {"name": "Ascend310P3"},
        "target": "ascend310p3",
    }
    nights.write_run(
        tmp_path,
        [
            nights.speed(500),
            nights.speed(800, batch=4),
            nights.speed(400, target="ascend310", chip="Ascend310"),
            samples.case(
                "resnest50",
                1,
                "accuracy",
                measured=81.1,
                **accuracy,
                measurement={"images": 50_000},
            ),
        ],
        name="a",
    )
    nights.write_run(
        tmp_path,
        [
            samples.case(
                "resnest50",
                1,
                "accuracy",
                measured=70.0,
                **accuracy,
                measurement={"images": 1_000},
                run="b",
            )
        ],
        name="b",
        provenance="real",
    )
    assert len(loaded(tmp_path)) == 5
    whole = next(one for one in loaded(tmp_path) if one.key.images == 50_000)
    assert whole.floor is not None
    assert whole.floor.value == pytest.approx(81.13 * 0.99)
    part = next(one for one in loaded(tmp_path) if one.key.images == 1_000)
    assert part.floor is None


def test_the_floor_stays_while_the_figures_fall(tmp_path):
    nights.write_nights(tmp_path, [600 * 0.99**night for night in range(15)])
    (one,) = loaded(tmp_path)
    assert one.floor is not None
    assert one.floor.value == 435
    assert one.decline is not None
    assert one.decline.decline


def test_a_change_of_toolchain_is_marked_and_named(tmp_path):
    nights.write_nights(tmp_path, [600.0 + n % 3 for n in range(20)])
    nights.write_nights(tmp_path, [560.0, 561.0, 559.0, 560.5], first=20, toolchain="CANN 8.1")
    (one,) = loaded(tmp_path)
    (mark,) = one.marks
    assert mark.index == 20
    assert mark.texts == ("toolchain: CANN 8.0.RC2 → CANN 8.1",)
    assert one.decline is not None
    assert any("CANN 8.1" in text for text in one.explanations(one.decline))


def test_a_disturbed_or_undecided_figure_is_shown_and_not_judged(tmp_path):
    nights.write_nights(tmp_path, [600.0 + n % 3 for n in range(20)])
    busy = {"conditions": [{"moment": "during", "busy": "yes"}]}
    nights.write_nights(tmp_path, [300, 301], first=20, measurement=busy)
    nights.write_nights(tmp_path, [300, 301], first=22, outcome="inconclusive")
    (one,) = loaded(tmp_path)
    assert len(one.points) == 24
    assert len(one.values) == 20
    assert one.changes == ()


# --- The page -------------------------------------------------------------------------------


def page_of(runs: Path, **options) -> str:
    made = write_trend(runs, catalog=CATALOG, **options)
    return made.path.read_text(encoding="utf-8")


def test_the_page_says_what_falls_and_why(tmp_path):
    nights.write_nights(tmp_path, [600.0 + n % 3 for n in range(12)])
    nights.write_nights(
        tmp_path, [600 * 0.99**n for n in range(1, 9)], first=12, toolchain="CANN 8.1"
    )
    html = page_of(tmp_path)
    assert "1 of 1 series falls" in html
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
    assert "2 figures of provenance rehearsal left out" in html
    assert "77.00" in page_of(tmp_path, provenance="rehearsal")


def tone_of(html: str) -> str:
    found = re.search(r'<header class="page tone-(\w+)">', html)
    assert found is not None
    return found[1]


def headline_of(html: str) -> str:
    found = re.search(r"<h1><span>(.*?)</span></h1>", html)
    assert found is not None
    return unescape(found[1])


@pytest.mark.parametrize("count", [1, 3, 6])
def test_series_that_are_all_too_short_are_grey_and_say_so(tmp_path, count):
    nights.write_nights(tmp_path, [600.0 + n for n in range(count)])
    nights.write_nights(tmp_path, [700.0], first=50, batch=8, provenance="real", model="m")
    html = page_of(tmp_path)
    assert headline_of(html) == f"Too few runs to tell ({count} of at least 7)"
    assert tone_of(html) == "few"
    assert "falls" not in headline_of(html)


def test_runs_that_no_rule_looks_at_do_not_make_a_series_long_enough(tmp_path):
    nights.write_nights(tmp_path, [600.0 + n % 2 for n in range(5)])
    nights.write_nights(tmp_path, [600.0] * 5, first=5, outcome="inconclusive")
    assert headline_of(page_of(tmp_path)) == "Too few runs to tell (5 of at least 7)"


def test_enough_runs_of_one_series_speak_for_that_one_alone(tmp_path):
    nights.write_nights(tmp_path, [600.0 + n % 3 for n in range(7)])
    assert headline_of(page_of(tmp_path)) == "None of 1 series falls"
    assert tone_of(page_of(tmp_path)) == "good"
    nights.write_nights(tmp_path, [700.0, 701.0], first=50, model="m")
    html = page_of(tmp_path)
    assert headline_of(html) == "None of 1 series falls; 1 has too few runs to tell"
    assert tone_of(html) == "good"
    nights.write_nights(tmp_path, [70.0, 70.1], first=60, model="fixres")
    html = page_of(tmp_path)
    said = "None of 1 series falls; 1 below the floor; 2 have too few runs to tell"
    assert headline_of(html) == said
    assert tone_of(html) == "warn"


def test_a_figure_below_its_floor_is_said_however_few_there_are(tmp_path):
    nights.write_nights(tmp_path, [70.0, 70.1], model="fixres")
    html = page_of(tmp_path)
    said = "1 of 1 series below the floor; for a trend too few runs (2 of at least 7)"
    assert headline_of(html) == said
    assert tone_of(html) == "warn"


def test_a_fall_hides_no_figure_below_its_floor(tmp_path):
    falling = [600.0 + n % 3 for n in range(12)] + [590.0 - 6 * n for n in range(8)]
    nights.write_nights(tmp_path, falling)
    nights.write_nights(tmp_path, [70.0 + n % 3 / 10 for n in range(9)], first=50, model="fixres")
    html = page_of(tmp_path)
    assert headline_of(html) == "1 of 2 series falls; 1 below the floor"
    assert tone_of(html) == "bad"
    # The one that falls has a floor, too: far below it, it is one of the low ones.
    nights.write_nights(tmp_path, [value / 3 for value in falling], first=100, batch=8)
    assert headline_of(page_of(tmp_path)) == "2 of 3 series fall; 2 below the floor"


def axis_of(html: str) -> list[str]:
    found = re.search(r'<div class="y-axis"[^>]*><span class="widest">(.*?)</div>', html)
    assert found is not None
    return [unescape(text) for text in re.findall(r"<span style=[^>]*>(.*?)</span>", found[1])]


def test_the_axis_has_round_figures(tmp_path):
    nights.write_nights(tmp_path, [512.3371, 508.1234567, 519.87, 515.0])
    html = page_of(tmp_path)
    assert axis_of(html) == ["505", "510", "515", "520"]
    assert html.count('<path class="grid"') == 4
    assert '<span class="unit" aria-hidden="true">fps</span>' in html


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-2, 1e7), min_size=1, max_size=12))
def test_the_figures_and_their_band_lie_between_the_ends_of_the_axis(values):
    drawn = chart.draw(made_of(values))
    tops = [tick.y for tick in drawn.ticks]
    assert tops == sorted(tops, reverse=True)
    assert 2 <= len(tops) <= 7
    for y in re.findall(r"M[\d.]+ ([\d.]+)h0", drawn.dots):
        assert min(tops) - 0.1 <= float(y) <= max(tops) + 0.1
    if drawn.band is not None:
        assert drawn.band[1] >= min(tops) - 0.1
        assert drawn.band[1] + drawn.band[3] <= max(tops) + 0.2


def made_of(values: list[float]) -> series.Series:
    points = tuple(
        series.Point(f"r{n}", "d", nights.night(n), float(n), value, "fps", 0.4, "passed", "", ())
        for n, value in enumerate(values)
    )
    key = series.Key("throughput", "ascend310p3", "Ascend310P3", "m", 1, 0, "real")
    return series.Series(key, "m", points, None)


def test_nothing_in_a_record_becomes_markup(tmp_path):
    evil = "<img src=x onerror=alert(1)>\x1b[31m\u202e" + "W" * 300
    for number in range(3):
        nights.write_run(
            tmp_path,
            [
                nights.speed(
                    500,
                    number,
                    model="m",
                    toolchain=f"{evil}{number}",
                    chip=evil,
                    run=f"{number}{evil}",
                )
            ],
            name=f"{number}",
        )
    html = page_of(tmp_path)
    assert "<img" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_a_page_without_figures_replaces_none_that_has_some(tmp_path):
    runs = nights.write_nights(tmp_path, [600.0, 601.0])
    full = page_of(tmp_path)
    for directory in runs:
        shutil.rmtree(directory)
    made = write_trend(tmp_path, catalog=CATALOG)
    assert (made.written, made.count) == (False, 0)
    assert made.path.read_text(encoding="utf-8") == full
    done = command("trend", "--runs", str(tmp_path))
    assert done.exit_code == 0
    assert "trend.html: left as it was" in done.output
    assert "has no real figure now" in done.output
    # Nor a page that the user named, nor one of a check that was not run.
    other = (
        "--provenance",
        "simulated",
        "-m",
        "accuracy",
        "--output",
        str(tmp_path / "trend.html"),
    )
    done = command("trend", "--runs", str(tmp_path), *other)
    assert "has no simulated figure of accuracy now" in done.output
    assert made.path.read_text(encoding="utf-8") == full


def test_a_page_without_figures_replaces_another_without(tmp_path):
    page_of(tmp_path)
    path = tmp_path / "trend.html"
    path.write_text(path.read_text().replace("<footer>", "<footer>an older page "))
    made = write_trend(tmp_path, catalog=CATALOG)
    assert made.written
    assert "an older page" not in path.read_text()


def failed_night(folder: Path, number: int, outcome="error", **changes: Any) -> Path:
    """A night in which the case ended in an error, before it knew its chip."""
    line = nights.speed(
        1.0, number, outcome=outcome, error=nights.speed(1.0, outcome="error").error, **changes
    )
    line = line.model_copy(update={"measured": None, "measurement": {}, "device": {}})
    return nights.write_run(folder, [line])


@pytest.mark.parametrize("few", [True, False])
def test_a_newest_night_without_a_figure_is_not_hidden(tmp_path, few):
    count = 2 if few else 9
    nights.write_nights(tmp_path, [600.0 + n % 3 for n in range(count)])
    others = [900.0 + n % 3 for n in range(count + 1)]
    nights.write_nights(tmp_path, others, first=20, batch=8, model="m")
    failed_night(tmp_path, count)
    html = page_of(tmp_path)
    trend = "Too few runs to tell (3 of at least 7)" if few else "None of 2 series falls"
    without = f"the newest run of 1 series gave no figure (error, 2026-09-{count + 1:02d})"
    assert headline_of(html) == f"{trend}; {without}"
    assert tone_of(html) == "warn"
    where = f'<a href="night-{count:04d}/report.html">2026-09-{count + 1:02d} 02:00:00 UTC</a>'
    said = f"the newest run ({where}) gave no figure: error in stage compile"
    assert html.count(said) == 2  # in the table and beside the chart of that series alone
    assert html.count('aria-hidden="true">!</span>no figure') == 2
    first = html[html.index("<tbody>") :]
    assert "resnest50-bs1" in first[: first.index("</tr>")]
    # A figure after it: nothing is left to say.
    nights.write_nights(tmp_path, [601.0], first=count + 1)
    assert "no figure" not in page_of(tmp_path)


def test_nights_without_a_figure_are_counted_and_others_are_not_blamed(tmp_path):
    nights.write_nights(tmp_path, [600.0, 601.0])
    nights.write_nights(tmp_path, [77.0], first=8, provenance="rehearsal")
    failed_night(tmp_path, 3)
    failed_night(tmp_path, 4, outcome="crashed")
    failed_night(tmp_path, 5, batch=64)  # never had a figure: it has no series
    failed_night(tmp_path, 9, provenance="rehearsal")
    html = page_of(tmp_path)
    assert "gave no figure: crashed in stage compile; none of the last 2 did" in html
    without = "; the newest run of 1 series gave no figure (crashed, 2026-09-05)"
    assert headline_of(html).endswith(without)
    assert "night-0009" not in html
    done = command("trend", "--runs", str(tmp_path))
    assert without in done.output


def test_the_miss_of_a_chip_belongs_to_the_series_of_that_chip(tmp_path):
    nights.write_nights(tmp_path, [600.0])
    nights.write_nights(tmp_path, [300.0], first=1, chip="Ascend310P1")
    line = nights.speed(1.0, 2, outcome="error")
    nights.write_run(tmp_path, [line.model_copy(update={"measured": None, "measurement": {}})])
    found = {one.key.chip: one.misses for one in loaded(tmp_path)}
    assert [len(found[chip]) for chip in ("Ascend310P3", "Ascend310P1")] == [1, 0]


def test_a_merged_run_does_not_count_a_miss_twice(tmp_path):
    nights.write_nights(tmp_path, [600.0])
    directory = failed_night(tmp_path, 1)
    shutil.copytree(directory, tmp_path / "merged")
    (one,) = loaded(tmp_path)
    assert len(one.misses) == 1


def test_an_empty_history_has_a_page(tmp_path):
    assert "There is no figure yet" in page_of(tmp_path)
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
    accuracy = samples.real_accuracy("inceptionv4", 1, run="r", started=nights.night(25))
    nights.write_run(runs, [accuracy])
    html = page_of(runs)
    with tempfile.TemporaryDirectory(prefix="trend-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        found = browser._browser()
        frames = '<iframe src="untouched.html" style="width:390px;height:800px"></iframe>\n'
        (folder / "untouched.html").write_text(html, encoding="utf-8")
        for width in PHONES:
            name = str(width)
            (folder / f"{name}.html").write_text(browser._probed(html, name), encoding="utf-8")
            style = f"width:{width}px;height:800px"
            frames += f'<iframe src="{name}.html" style="{style}"></iframe>\n'
        (folder / "wall.html").write_text(browser.WALL + frames, encoding="utf-8")
        dom, log = browser._dump(found, folder / "wall.html", folder / "profile")
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)
    assert text is not None, log[-2000:]
    for width in PHONES:
        seen = json.loads(unescape(text[1]))[str(width)]
        assert seen["wide"] == []
        assert seen["scroll"] <= seen["width"] == width
        assert seen["outside"] == []
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []


# --- The command ----------------------------------------------------------------------------


def command(*arguments: str):
    app = typer.Typer()
    history_commands.register(app)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_writes_the_page(tmp_path):
    nights.write_nights(tmp_path, [600 * 0.99**n for n in range(20)])
    done = command("trend", "--runs", str(tmp_path), "--rebuild")
    assert done.exit_code == 0, done.output
    assert "declining: resnest50-bs1-ascend310p3 (throughput)" in done.output
    assert "too few" not in done.output
    assert (tmp_path / "trend.html").exists()
    other = tmp_path / "elsewhere" / "other.html"
    other.parent.mkdir()
    done = command("trend", "--runs", str(tmp_path), "--output", str(other), "--model", "resnest50")
    assert done.exit_code == 0
    assert "report.html" not in other.read_text()


def test_the_command_names_the_runs_that_have_a_page_of_their_own(tmp_path):
    nights.write_nights(tmp_path, [77.0, 78.0, 79.0], provenance="rehearsal")
    done = command("trend", "--runs", str(tmp_path))
    assert "also:" not in done.output
    nights.write_nights(tmp_path, [600.0], first=3, provenance="simulated")
    done = command("trend", "--runs", str(tmp_path))
    assert "trend-simulated.html: 1 series of simulated figures" in done.output
    assert "also: 3 rehearsals, --provenance=rehearsal\n" in done.output
    done = command("trend", "--runs", str(tmp_path), "--provenance=rehearsal")
    assert "trend-rehearsal.html" in done.output
    assert "also:" not in done.output  # who names one knows of the others
    nights.write_nights(tmp_path, [600.0], first=9)
    done = command("trend", "--runs", str(tmp_path))
    said = "also: 1 simulation, --provenance=simulated\nalso: 3 rehearsals, --provenance=rehearsal"
    assert said in done.output


def test_the_command_says_that_runs_are_too_few(tmp_path):
    nights.write_nights(tmp_path, [600.0, 601.0])
    done = command("trend", "--runs", str(tmp_path))
    assert "1 series of real figures; too few runs to tell (2 of at least 7)" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--runs", "/nowhere/at/all"),
        ("--provenance", "imagined"),
        ("-m", "speed"),
        ("--models", "nothing"),
        ("--output", "/nowhere/at/all/trend.html"),
    ],
)
def test_a_command_that_cannot_work_ends_with_a_line_and_code_4(tmp_path, arguments):
    nights.write_nights(tmp_path, [600])
    given_runs = () if "--runs" in arguments else ("--runs", str(tmp_path))
    done = command("trend", *given_runs, *arguments)
    assert done.exit_code == 4
    assert "what to do" in done.output
    assert "Traceback" not in done.output


def test_a_page_is_no_device_and_a_link_to_it_stays(tmp_path):
    nights.write_nights(tmp_path / "runs", [600])
    pipe, page, link = (tmp_path / name for name in ("pipe", "page.html", "link.html"))
    os.mkfifo(pipe)
    done = command("trend", "--runs", str(tmp_path / "runs"), "--output", str(pipe))
    assert done.exit_code != 0
    assert "is not a regular file" in done.output
    assert "--output" in done.output
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
    small = ("--runs=3", "--cases=6", "--samples=20", f"--work={tmp_path}")
    code, output = run_python(["benchmarks/history.py", *small])
    assert code == 0, output
    assert "3 runs of 6 cases" in output
    assert "page 0." in output
    assert "with 6 series" in output
    assert list(tmp_path.iterdir()) == []
    code, output = run_python(["benchmarks/history.py", "--rules", "--series=2"])
    assert code == 0, output
    assert output.count("\n| ") == 9 + 4 + 3


def test_lines_of_the_run_as_a_whole_are_no_damage(tmp_path):
    run = nights.write_run(tmp_path, [nights.speed(500)])
    with (run / "results.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "check", "run": "r", "name": "batch sizes"}) + "\n")
    updated(tmp_path)
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        assert connection.execute("SELECT damaged FROM runs").fetchall() == [(0,)]


@pytest.mark.parametrize("outputs", [1.5, 0.031])
def test_the_speed_of_a_wrong_model_counts_for_nothing(outputs):
    from harness.history.store import trouble_of

    assert trouble_of({"outputs_check": {"relative_l2": 1e-3}}) == ""
    assert trouble_of({"outputs_check": {"relative_l2": outputs}}) == "wrong outputs"
    own = {"relative_l2": 8e-3, "bound": 1e-3}  # the cpu target's
    assert trouble_of({"outputs_check": own}) == "wrong outputs"
    assert trouble_of({"problems": ["NaN"]}) == "wrong outputs"
