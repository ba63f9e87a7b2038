"""Figures over time: the index of the runs, the rules of decline, the page, the command."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.__main__ import app
from harness.base.errors import RecordError
from harness.base.terms import WHOLE_SET
from harness.history import drift, series
from harness.history.index import INDEX, Row, read_history
from harness.records.conditions import Condition
from harness.records.measurements import OutputsCheck, Problem, ProblemCode
from harness.records.observed import DeviceInfo
from harness.records.writer import RESULTS
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
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


@pytest.mark.parametrize(
    "damage", ["other content", "noise", "cut short", "another version", "a digit"]
)
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
            "a digit": whole.replace(b'"measured":501', b'"measured":507'),
        }[damage]
    )
    assert path.read_bytes() != whole
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
        assert change and change.size < -drift.SMALLEST_CHANGE["throughput"]


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
        (
            {
                "setup": {"toolchain": "CANN 9"},
                "device": DeviceInfo("npu-0", "Ascend310P3", toolchain={"cann": "9"}),
            },
            "toolchain: CANN 8.0.RC2 → CANN 9",  # and nothing more
        ),
    ],
)
def test_what_else_is_marked(tmp_path, changes, text):
    before = DeviceInfo("npu-0", "Ascend310P3", toolchain={"cann": "8.0.RC2", "driver": "23.0.0"})
    nights.write_nights(tmp_path, [600.0], versions={"harness": "1"}, device=before)
    usual = {"versions": {"harness": "1"}, "device": before}
    nights.write_nights(tmp_path, [600.0], first=1, **{**usual, **changes})
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
    assert mark.texts == ("cann: 8.0 → 8.1",)


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
