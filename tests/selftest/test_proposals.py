"""Baselines from measurement: what is proposed, what is refused; a run against its history."""

from __future__ import annotations

import copy
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.__main__ import app
from harness.base.errors import ConfigError, RecordError
from harness.catalog.load import parse_catalog
from harness.catalog.schema import Catalog
from harness.history.check import check
from harness.history.proposals import Proposed, propose
from harness.records.conditions import Condition
from harness.records.measurements import OutputsCheck
from harness.records.observed import CheckpointInfo, DeviceInfo
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples

CATALOG = samples.catalog()
ORIGINAL = samples.CATALOG.read_text(encoding="utf-8")
DATA = yaml.safe_load(ORIGINAL)


def runs_of(folder: Path, values: list[float], *, batch: int = 2, **changes: Any) -> list[Path]:
    """Nights of a batch size that the catalog has no figure of."""
    return nights.write_nights(folder, values, batch=batch, **changes)


def pasted(made: Proposed) -> Catalog:
    """The catalog with the printed YAML pasted into it, as its comments say."""
    data, new = copy.deepcopy(DATA), yaml.safe_load(made.text)
    data["sources"] |= new["sources"]
    for name, model in new["models"].items():
        tables = data["models"][name].setdefault("throughput", [])
        tables += model["throughput"]
    return parse_catalog(yaml.safe_dump(data).encode(), Path("pasted.yaml"))


# What is proposed --------------------------------------------------------------------------------


def test_a_figure_where_there_is_none(tmp_path):
    runs = runs_of(tmp_path, [300.0, 306.0, 303.0])
    made = propose(runs, CATALOG)
    (one,) = made.proposals
    assert (one.fps, len(one.samples)) == (303, 3)
    baseline = pasted(made).models["resnest50"].baseline("ascend310p3", 2)
    assert baseline is not None
    assert (baseline.fps, baseline.judged, baseline.toolchain) == (303, True, "CANN 8.0.RC2")
    evidence = "batch 2: median of 3 runs, 1,200 executions, 2 % from the lowest to the highest"
    assert f"      # {evidence}\n" in made.text
    assert baseline.note == f"B{evidence[1:]}."
    source = pasted(made).sources[baseline.source]
    assert source.title == "Measured by this harness, 2026-09-03"
    assert "night-0000, night-0001, night-0002; on bench-03; harness at 4f2c9e1" in source.where
    # A second proposal of the day has a source of its own.
    other = propose(runs_of(tmp_path, [70.0], first=2, run="y", batch=3), pasted(made))
    assert list(yaml.safe_load(other.text)["sources"]) == [f"{baseline.source}-2"]


def test_a_figure_that_is_there_is_never_touched(tmp_path):
    made = propose(runs_of(tmp_path, [430.0], batch=1), CATALOG)
    assert made.text == ""
    assert made.left == (("resnest50-bs1-ascend310p3", "has a figure, 435 fps (guide-002)"),)


def test_another_chip_of_the_same_target_is_recorded(tmp_path):
    made = propose(runs_of(tmp_path, [430.0], batch=1, chip="Ascend310P1"), CATALOG)
    figures = pasted(made).models["resnest50"].figures("ascend310p3")
    chips = {(f.chip, f.fps, f.judged) for f in figures if f.batch_size == 1}
    assert chips == {("Ascend310P3", 435, True), ("Ascend310P1", 430, False)}
    assert "tolerance_percent before" not in made.text  # nothing here judges


def test_figures_that_were_made_alike_share_a_table(tmp_path):
    cases = [
        nights.speed(300.0, batch=2),
        nights.speed(310.0, batch=3),
        nights.speed(99.0, batch=5, toolchain="CANN 9"),
    ]
    made = propose([nights.write_run(tmp_path, cases)], CATALOG)
    tables = yaml.safe_load(made.text)["models"]["resnest50"]["throughput"]
    assert [table["fps"] for table in tables] == [{2: 300, 3: 310}, {5: 99}]


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rehearsal", "simulated"])
def test_a_run_that_is_not_real_is_refused(tmp_path, kind):
    real = runs_of(tmp_path, [300.0])
    other = runs_of(tmp_path, [300.0], first=1, provenance=kind)
    with pytest.raises(ConfigError, match=f"not a real run \\({kind}\\)"):
        propose([*real, *other], CATALOG)
    # Also where the run says real and one of its cases does not, and the reverse.
    cases = [nights.speed(300, 5), nights.speed(300, 5, batch=4, provenance=kind)]
    with pytest.raises(ConfigError, match="not a real run"):
        propose([nights.write_run(tmp_path, cases, provenance="real")], CATALOG)
    claimed = nights.write_run(tmp_path, [nights.speed(300, 6)], provenance=kind)
    with pytest.raises(ConfigError, match="not a real run"):
        propose([claimed], CATALOG)


def test_a_run_without_a_first_line_is_refused(tmp_path):
    (run,) = runs_of(tmp_path, [300.0])
    lines = (run / "results.jsonl").read_text().splitlines(keepends=True)
    (run / "results.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(RecordError, match="no run line"):
        propose([run], CATALOG)
    with pytest.raises(RecordError, match="no run line"):
        check(run, tmp_path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"measurement": {"half_width_percent": 2.0}}, "precision"),
        ({"measurement": {"too_few_rounds": 5}}, "precision"),
        ({"measurement": {"outputs": OutputsCheck(0.5, 0.03)}}, "wrong outputs"),
        ({"measurement": {"outputs": None}}, "not compared"),
        ({"measurement": {"conditions": (Condition("before", 1, busy="yes"),)}}, "busy"),
        ({"outcome": "inconclusive"}, "inconclusive"),
        ({"outcome": "crashed"}, "crashed: nothing to build on"),
        ({"setup": {"chip": ""}, "device": DeviceInfo("")}, "chip"),
        ({"setup": {"toolchain": ""}}, "toolchain"),
        ({"setup": {"tuning": "hand"}}, "no word"),
        ({"model": "unknown"}, "no such model"),
        ({"checkpoint": CheckpointInfo("onnx", "small.onnx", "")}, "not verified: --onnx"),
    ],
)
def test_a_figure_to_build_nothing_on_is_left_out(tmp_path, changes, why):
    made = propose(runs_of(tmp_path, [300.0], **changes), CATALOG)
    assert made.text == ""
    assert why in made.left[0][1]


@pytest.mark.parametrize(
    ("what", "setup"),
    [
        ("toolchain", {"toolchain": "CANN 9"}),
        ("card", {"card": "A"}),
        ("tuning", {"tuning": "aoe"}),
        ("dynamic_batch", {"dynamic_batch": "1,2"}),
    ],
)
def test_runs_that_were_not_made_alike_are_not_thrown_together(tmp_path, what, setup):
    runs = runs_of(tmp_path, [300.0]) + runs_of(tmp_path, [301.0], first=1, setup=setup)
    with pytest.raises(ConfigError, match=f"differ in their {what}"):
        propose(runs, CATALOG)


@pytest.mark.parametrize(("sizes", "flags"), [("1,2", 1), ("none", 0), ("1 $(x)", 0)])
def test_a_file_for_several_batch_sizes_is_told_by_its_flag(tmp_path, sizes, flags):
    made = propose(runs_of(tmp_path, [300.0], setup={"dynamic_batch": sizes}), CATALOG)
    given = pasted(made).models["resnest50"].throughput[-1].compiler_flags
    assert given == ("--dynamic_batch_size=1,2",) * flags


def test_the_same_run_counts_once(tmp_path):
    (run,) = runs_of(tmp_path / "runs", [300.0])
    shutil.copytree(run, tmp_path / "copy")
    (one,) = propose([run, run / "results.jsonl", tmp_path / "copy"], CATALOG).proposals
    assert len(one.samples) == 1
    assert "spread between runs unknown" in one.evidence


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=250)


@settings(max_examples=10, deadline=None)
@given(toolchain=WORDS, chip=WORDS, card=WORDS, host=WORDS)
def test_whatever_a_record_says_the_pasted_file_loads(
    tmp_path_factory, toolchain, chip, card, host
):
    folder = tmp_path_factory.mktemp("runs")
    setup = {"toolchain": toolchain, "chip": chip, "card": card}
    machine = samples.MACHINE.__class__(hostname=host)
    made = propose(runs_of(folder, [300.0], setup=setup, machine=machine), CATALOG)
    if made.left:
        return  # a name of blanks is none
    table = pasted(made).models["resnest50"].throughput[-1]
    assert table.fps == {2: 300}
    if toolchain.isalnum() and len(toolchain) < 199:
        assert table.toolchain == toolchain


# A run against figures and history ---------------------------------------------------------------


def declining(nights_of_decline: int) -> list[float]:
    draw = random.Random(7)
    flat = [600 * (1 + draw.gauss(0, 0.005)) for _ in range(25)]
    falling = [
        600 * 0.99**night * (1 + draw.gauss(0, 0.005)) for night in range(1, nights_of_decline + 1)
    ]
    return flat + falling


def test_a_slow_decline_is_found_while_the_floor_stands_below(tmp_path):
    runs = nights.write_nights(tmp_path, declining(8))
    (one,) = check(runs[-1], tmp_path, CATALOG)
    assert (one.state, one.bad) == ("falls", True)
    assert not one.series.below_floor  # 435 is far below: alone it would say nothing
    assert one.series.floor and one.series.floor.value == 435
    assert "lower than" in one.sentence or "falls slowly" in one.sentence
    # The nights before the decline are clean, also with what came after them in the history.
    for run in runs[15:25]:
        (one,) = check(run, tmp_path, CATALOG)
        assert not one.bad


def test_the_run_need_not_lie_in_the_history(tmp_path):
    runs = nights.write_nights(tmp_path / "runs", declining(8))
    shutil.move(runs[-1], tmp_path / "elsewhere")
    (one,) = check(tmp_path / "elsewhere", tmp_path / "runs")
    assert one.decline is not None
    assert len(one.before) == 22


def test_a_figure_below_the_floor_is_bad_without_any_history(tmp_path):
    (run,) = nights.write_nights(tmp_path, [430.0])
    (one,) = check(run, tmp_path, CATALOG)
    assert (one.state, one.level) == ("low", None)
    assert one.sentence == "below the floor of 435 fps"


def test_another_chips_figure_is_no_floor(tmp_path):
    """As the verdict has it: what another chip reaches is recorded, and held against nothing."""
    (run,) = nights.write_nights(tmp_path, [430.0], chip="Ascend310P1")
    (one,) = check(run, tmp_path, CATALOG)
    assert one.series.floor is None
    assert not one.bad
    (named,) = nights.write_nights(tmp_path / "other", [430.0], chip="ASCEND 310P3")
    (one,) = check(named, tmp_path / "other", CATALOG)
    assert one.state == "low"


def test_an_undecided_figure_is_no_decline(tmp_path):
    nights.write_nights(tmp_path, [0.7 * value for value in declining(8)])  # below the floor too
    (run,) = nights.write_nights(tmp_path, [300.0], first=40, outcome="inconclusive")
    (one,) = check(run, tmp_path, CATALOG)
    assert (one.state, one.decline, one.bad) == ("undecided", None, False)


# The commands ------------------------------------------------------------------------------------


def command(*arguments: str):
    return CliRunner().invoke(app, ["baselines", *arguments])


def test_propose_prints_yaml_and_nothing_else_on_stdout(tmp_path):
    runs = [str(run) for run in runs_of(tmp_path, [300.0, 301.0])]
    done = command("propose", *runs, "--catalog", str(samples.CATALOG))
    assert done.exit_code == 0
    assert set(yaml.safe_load(done.stdout)) == {"sources", "models"}
    assert "proposed: resnest50, batch 2, Ascend310P3: 300.5 fps a chip" in done.stderr
    assert samples.CATALOG.read_text(encoding="utf-8") == ORIGINAL


def test_check_ends_with_1_for_a_decline_and_0_without(tmp_path):
    runs = nights.write_nights(tmp_path, declining(8))
    done = command("check", str(runs[-1]), "--runs", str(tmp_path))
    assert done.exit_code == 1
    assert "FALLS" in done.output
    done = command("check", str(runs[24]), "--runs", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "none of 1 compared figures declines or is too low" in done.output
    done = command("check", str(tmp_path / "none"), "--runs", str(tmp_path))
    assert done.exit_code == 4


def test_check_calls_no_figure_ok_whose_case_failed_or_is_undecided_or_that_is_new(tmp_path):
    nights.write_run(tmp_path, [nights.speed(300.0, batch=2)])
    cases = [
        nights.speed(300.0, 1, batch=2),
        nights.speed(300.0, 1, batch=4, chip="Ascend310P1", outcome="failed"),
        nights.speed(300.0, 1, batch=8, chip="Ascend310P1", outcome="inconclusive"),
        nights.speed(300.0, 1, batch=16, chip="Ascend310P1", outcome="recorded"),
    ]
    run = nights.write_run(tmp_path, cases)
    compared = check(run, tmp_path)
    assert [one.state for one in compared] == ["ok", "failed", "undecided", "new"]
    assert compared[1].sentence == "the case failed: its figure is not judged"
    assert compared[2].sentence == "the case is undecided: its figure is not judged"
    done = command("check", str(run), "--runs", str(tmp_path))
    assert done.exit_code == 0, done.output
    said = done.output.strip().splitlines()[-1]
    text = "none of 1 compared figures declines or is too low"
    assert said == f"{text}; not compared: 1 failed, 1 undecided, 1 new"


def test_check_of_a_rehearsal_says_so(tmp_path):
    runs = nights.write_nights(tmp_path, declining(8), provenance="rehearsal")
    done = command("check", str(runs[-1]), "--runs", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.startswith("REHEARSAL")
    assert "435" not in done.output


def test_check_of_a_run_that_measured_nothing_is_one_line(tmp_path):
    folder = nights.write_run(tmp_path, [samples.case(outcome="error", run="broken")])
    done = command("check", str(folder), "--runs", str(tmp_path))
    assert done.exit_code == 4
    assert done.stdout == ""
    assert "measured nothing" in done.stderr
    assert "its cases: 1 error" in done.stderr
    assert f"python -m harness why {folder}" in done.stderr
