"""Baselines from measurement: what is proposed, what is refused, what the text keeps."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.base.errors import CatalogError, ConfigError, RecordError
from harness.catalog.load import load_catalog, parse_catalog
from harness.cli import history as history_commands
from harness.history import proposals
from harness.history.proposals import check, propose
from harness.records import writer
from harness.settings import resolve
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest.running import ROOT

BASELINES = ROOT / "baselines.yaml"
ORIGINAL = BASELINES.read_text(encoding="utf-8")


@pytest.fixture
def catalog(tmp_path):
    """A copy of the catalog, to be patched."""
    path = tmp_path / "catalog" / "baselines.yaml"
    path.parent.mkdir()
    path.write_text(ORIGINAL, encoding="utf-8")
    return path


def parsed(made):
    return parse_catalog(made.text.encode(), Path("patched.yaml"))


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("#")]


# --- What is proposed -----------------------------------------------------------------------


def test_a_figure_where_there_is_none(tmp_path, catalog):
    runs = nights.write_nights(tmp_path / "runs", [300.0, 306.0, 303.0], batch=2)
    made = propose(runs, catalog)
    (one,) = made.proposals
    assert (one.fps, len(one.samples), one.old) == (303, 3, None)
    assert one.spread_percent == pytest.approx(100 * 6 / 303)
    baseline = parsed(made).models["resnest50"].baseline("ascend310p3", 2)
    assert baseline is not None
    assert baseline.judged
    assert baseline.fps == 303
    assert baseline.toolchain == "CANN 8.0.RC2"
    for text in ("median of 3 runs", "1,200 executions", "2 % from", "night-0001"):
        assert text in baseline.note
    source = parsed(made).sources[baseline.source]
    assert "night-0000" in source.where
    assert "bench-03" in source.where
    # The catalog itself is not touched.
    assert catalog.read_text(encoding="utf-8") == ORIGINAL


def test_comments_and_order_stay(tmp_path, catalog):
    text = ORIGINAL.replace(
        "  squeezenet1_1:\n", "  # A comment on what follows.\n\n  squeezenet1_1:  # and here\n"
    ).replace("        fps: {1: 435, 4:", "        # Above the figures.\n        fps: {1: 435, 4:")
    text = text.replace("64: 1107}\n", "64: 1107}  # behind them\n        # below, of this table\n")
    catalog.write_text(text, encoding="utf-8")
    runs = nights.write_nights(tmp_path / "runs", [300.0], batch=2)
    runs += nights.write_nights(tmp_path / "runs", [430.0], batch=1, first=1)
    made = propose(runs, catalog, lower=True)
    assert comments(made.text) == comments(text)
    kept = iter(made.text.splitlines())
    assert all(line in kept for line in text.splitlines())  # every line, in order
    position = made.text.index
    assert (
        position("# below, of this table")
        < position("source: measured-")
        < position("# A comment on what follows.")
    )


def test_the_patch_applies(tmp_path, catalog):
    if shutil.which("patch") is None:
        pytest.skip("needs patch")
    runs = nights.write_nights(tmp_path / "runs", [300.0], batch=2)
    made = propose(runs, catalog)
    subprocess.run(
        ["patch", "-p1", "--silent"], input=made.patch.encode(), cwd=catalog.parent, check=True,
        timeout=30,
    )  # fmt: skip
    assert catalog.read_text(encoding="utf-8") == made.text
    assert load_catalog(catalog).models["resnest50"].baseline("ascend310p3", 2) is not None
    # Proposed once, it is there.
    again = propose(runs, catalog)
    assert again.patch == ""
    assert again.proposals == ()


def test_a_lower_figure_needs_a_word_and_keeps_the_old_one(tmp_path, catalog):
    runs = nights.write_nights(tmp_path / "runs", [430.0, 431.0, 432.0])
    made = propose(runs, catalog)
    assert made.patch == ""
    assert "--lower" in dict(made.left)["resnest50-bs1-ascend310p3 (Ascend310P3)"]
    made = propose(runs, catalog, lower=True)
    model = parsed(made).models["resnest50"]
    baseline = model.baseline("ascend310p3", 1)
    assert baseline is not None
    assert (baseline.fps, baseline.source[:8]) == (431, "measured")
    assert "435 fps (guide-002) before" in baseline.note
    figures = {(f.fps, f.judged) for f in model.figures("ascend310p3") if f.batch_size == 1}
    assert figures == {(435, False), (431, True)}
    assert model.baseline("ascend310p3", 4).judged
    removed = [line for line in made.patch.splitlines() if line.startswith("-")]
    assert removed == ["--- a/baselines.yaml"]


def test_a_higher_figure_is_never_proposed(tmp_path, catalog):
    runs = nights.write_nights(tmp_path / "runs", [600.0])
    made = propose(runs, catalog, lower=True)
    assert made.proposals == ()
    assert "not above what was measured" in made.left[0][1]


def test_a_card_s_figure_stays_a_card_s(tmp_path, catalog):
    tuned = {"method": "whole-dataset", "tuning": "RL,GA"}
    runs = nights.write_nights(
        tmp_path / "runs", [2000.1234], batch=16, model="squeezenet1_1", target="ascend310",
        chip="Ascend310", setup=tuned,
    )  # fmt: skip
    made = propose(runs, catalog, lower=True)
    baseline = parsed(made).models["squeezenet1_1"].baseline("ascend310", 16)
    assert baseline is not None
    assert (baseline.unit, baseline.chips_per_card, baseline.tuning) == ("card", 4, "RL,GA")
    assert baseline.chip_fps == 2000.123
    assert baseline.fps == 8000.492
    assert "times 4" in baseline.note


def test_a_figure_that_was_measured_otherwise_is_not_lowered(tmp_path, catalog):
    runs = nights.write_nights(tmp_path / "runs", [430.0], setup={"method": "whole-dataset"})
    assert "not comparable" in propose(runs, catalog, lower=True).left[0][1]
    runs = nights.write_nights(tmp_path / "tuned", [430.0], setup={"tuning": "RL,GA"})
    assert "not comparable" in propose(runs, catalog, lower=True).left[0][1]


def test_another_chip_of_the_same_target_is_recorded(tmp_path, catalog):
    runs = nights.write_nights(tmp_path / "runs", [430.0], chip="Ascend310P1")
    model = parsed(propose(runs, catalog)).models["resnest50"]
    assert model.baseline("ascend310p3", 1).fps == 435
    assert [f.judged for f in model.figures("ascend310p3") if f.chip == "Ascend310P1"] == [False]


def test_a_model_without_a_table_gets_one(tmp_path, catalog):
    match = re.search(
        r"    throughput:\n(?:      .*\n)+", ORIGINAL[ORIGINAL.index("  resnest50:") :]
    )
    assert match is not None
    for instead in ("", "    throughput: []  # none yet\n"):
        catalog.write_text(ORIGINAL.replace(match[0], instead), encoding="utf-8")
        runs = nights.write_nights(tmp_path / f"runs{len(instead)}", [300.0])
        baseline = parsed(propose(runs, catalog)).models["resnest50"].baseline("ascend310p3", 1)
        assert baseline is not None
        assert baseline.fps == 300


def test_line_ends_and_marks_stay(tmp_path, catalog):
    runs = nights.write_nights(tmp_path / "runs", [300.0], batch=2)
    catalog.write_bytes(b"\xef\xbb\xbf" + ORIGINAL.replace("\n", "\r\n").encode())
    made = propose(runs, catalog)
    assert made.text.startswith("\ufeff# Every model")
    assert made.text.count("\n") == made.text.count("\r\n")
    catalog.write_text(ORIGINAL.rstrip("\n"), encoding="utf-8")
    assert parsed(propose(runs, catalog)).models["resnest50"].baseline("ascend310p3", 2)


# --- What is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rehearsal", "simulated"])
def test_a_run_that_is_not_real_is_refused(tmp_path, catalog, kind):
    real = nights.write_nights(tmp_path / "runs", [300.0], batch=2)
    other = nights.write_nights(tmp_path / "runs", [300.0], first=1, batch=2, provenance=kind)
    with pytest.raises(ConfigError, match=f"not a real run \\({kind}\\)"):
        propose([*real, *other], catalog)
    # Also where the run says real and one of its cases does not, and the reverse.
    mixed = nights.write_run(
        tmp_path / "runs",
        [nights.speed(300, 5), nights.speed(300, 5, batch=2, provenance=kind)],
        provenance="real",
    )
    with pytest.raises(ConfigError, match="not a real run"):
        propose([mixed], catalog)
    claimed = nights.write_run(tmp_path / "runs", [nights.speed(300, 6)], provenance=kind)
    with pytest.raises(ConfigError, match="not a real run"):
        propose([claimed], catalog)


def test_a_run_without_a_first_line_is_refused(tmp_path, catalog):
    (run,) = nights.write_nights(tmp_path / "runs", [300.0])
    lines = (run / "results.jsonl").read_text().splitlines(keepends=True)
    (run / "results.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(RecordError, match="no run line"):
        propose([run], catalog)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"measurement": {"precision_reached": False}}, "precision"),
        ({"measurement": {"problems": ["NaN"]}}, "wrong model"),
        ({"measurement": {"outputs_check": {"relative_l2": 0.5}}}, "wrong model"),
        ({"measurement": {"outputs_check": {"relative_l2": 8e-3, "bound": 1e-3}}}, "wrong model"),
        ({"measurement": {"outputs_check": {"relative_l2": float("nan")}}}, "not compared"),
        ({"measurement": {"outputs_check": {}}}, "not compared"),
        ({"measurement": {"conditions": [{"busy": "yes"}]}}, "busy"),
        ({"measurement": {"conditions": [{"health": "Warning"}]}}, "unhealthy"),
        ({"measurement": {"fps": float("inf")}}, "no throughput"),
        ({"measurement": {"fps": "300"}}, "no throughput"),
        ({"outcome": "inconclusive"}, "inconclusive"),
        ({"outcome": "crashed"}, "crashed"),
        ({"setup": {"chip": ""}, "device": {}}, "chip"),
        ({"setup": {"toolchain": ""}}, "toolchain"),
        ({"setup": {"tuning": "hand"}}, "no word"),
        ({"model": "unknown"}, "no such model"),
        ({"checkpoint": {"source": "the ONNX file /x/small.onnx"}}, "not verified: --onnx"),
    ],
)
def test_a_figure_to_build_nothing_on_is_left_out(tmp_path, catalog, changes, why):
    runs = nights.write_nights(tmp_path / "runs", [300.0], **{"batch": 2, **changes})
    made = propose(runs, catalog)
    assert made.patch == ""
    assert why in made.left[0][1]


def test_runs_of_different_toolchains_are_not_thrown_together(tmp_path, catalog):
    runs = nights.write_nights(tmp_path / "runs", [300.0], batch=2)
    runs += nights.write_nights(tmp_path / "runs", [301.0], batch=2, first=1, toolchain="CANN 9")
    with pytest.raises(ConfigError, match="differ in their toolchain"):
        propose(runs, catalog)


def test_the_same_run_counts_once(tmp_path, catalog):
    (run,) = nights.write_nights(tmp_path / "runs", [300.0], batch=2)
    shutil.copytree(run, tmp_path / "copy")
    (one,) = propose([run, run / "results.jsonl", tmp_path / "copy"], catalog).proposals
    assert len(one.samples) == 1
    assert "spread between runs unknown" in one.note()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    throughput:\n      - target: ascend310p3\n        chip: Ascend310P3\n"
         "        card: not stated\n        unit: chip\n        toolchain: CANN 6.0.RC1\n",
         None),
        ("        fps: {1: 435,", "        judged:\n          - 1\n        fps: {1: 435,"),
    ],
)  # fmt: skip
def test_a_style_that_is_not_edited_is_refused_with_its_line(tmp_path, catalog, old, new):
    text = ORIGINAL
    assert old in text
    if new is None:  # the whole list in one flow
        begin = text.index("    throughput:", text.index("  resnest50:"))
        end = text.index("\n\n  squeezenet1_1:")
        entry = (
            "    throughput: [{target: ascend310p3, chip: Ascend310P3, card: c, unit: chip, "
            "toolchain: t, method: pure-inference, tuning: none, source: guide-002, "
            "fps: {1: 435}}]"
        )
        text = text[:begin] + entry + text[end:]
    else:
        text = text.replace(old, new)
    catalog.write_text(text, encoding="utf-8")
    load_catalog(catalog)
    runs = nights.write_nights(tmp_path / "runs", [430.0])
    with pytest.raises(CatalogError, match=r"baselines.yaml:\d+: models.resnest50.throughput"):
        propose(runs, catalog, lower=True)


def test_a_patch_that_would_change_something_else_is_refused(tmp_path, catalog, monkeypatch):
    """The fault that the check of the patched text exists to catch."""
    runs = nights.write_nights(tmp_path / "runs", [430.0])
    real = proposals._table_lines

    def also(group, source):
        return [*real(group, source), "  judged: []"]

    monkeypatch.setattr(proposals, "_table_lines", also)
    catalog_text = catalog.read_text(encoding="utf-8")
    made = proposals._Layout.model_edits

    def wrong(self, model, ours, source):
        line = self.document.line(("models", "fixres", "accuracy", "published", "top1"))
        return [
            *made(self, model, ours, source),
            proposals._Edit(line, ("        top1: 70.0",), replaces=True),
        ]

    monkeypatch.setattr(proposals._Layout, "model_edits", wrong)
    with pytest.raises(CatalogError, match=r"cannot be patched safely: .* would change"):
        propose(runs, catalog, lower=True)
    assert catalog.read_text(encoding="utf-8") == catalog_text


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(toolchain=WORDS, chip=WORDS, card=WORDS, host=WORDS)
def test_whatever_a_record_says_the_patched_file_loads(
    tmp_path_factory, toolchain, chip, card, host
):
    folder = tmp_path_factory.mktemp("runs")
    setup = {"toolchain": toolchain, "chip": chip, "card": card}
    runs = nights.write_nights(
        folder, [300.0], batch=2, setup=setup, machine=samples.MACHINE.model_copy(
            update={"hostname": host}),
    )  # fmt: skip
    made = propose(runs, BASELINES)
    table = parsed(made).models["resnest50"].throughput[-1]
    assert table.fps == {2: 300}
    if re.fullmatch(r"[A-Za-z0-9 ._-]*[A-Za-z0-9]", toolchain):
        assert table.toolchain == " ".join(toolchain.split())


# --- Checks against history -----------------------------------------------------------------


def declining(nights_of_decline: int) -> list[float]:
    draw = random.Random(7)
    flat = [600 * (1 + draw.gauss(0, 0.005)) for _ in range(25)]
    falling = [
        600 * 0.99**night * (1 + draw.gauss(0, 0.005)) for night in range(1, nights_of_decline + 1)
    ]
    return flat + falling


def test_a_slow_decline_is_found_while_the_floor_stands_below(tmp_path):
    runs = nights.write_nights(tmp_path, declining(8))
    (one,) = check(runs[-1], tmp_path, load_catalog(BASELINES))
    assert one.decline is not None
    assert one.bad
    assert not one.low  # the floor of 435 is far below: alone it would say nothing
    assert one.floor is not None
    assert one.floor.value == 435
    assert "lower than" in one.sentence or "falls slowly" in one.sentence
    # The nights before the decline are clean, also with what came after them in the history.
    for run in runs[15:25]:
        (one,) = check(run, tmp_path, load_catalog(BASELINES))
        assert not one.bad


def test_the_run_need_not_lie_in_the_history(tmp_path):
    runs = nights.write_nights(tmp_path / "runs", declining(8))
    shutil.move(runs[-1], tmp_path / "elsewhere")
    (one,) = check(tmp_path / "elsewhere", tmp_path / "runs")
    assert one.decline is not None
    assert one.runs == 22


def test_a_change_of_toolchain_is_named_with_the_decline(tmp_path):
    nights.write_nights(tmp_path, [600.0 + n % 4 for n in range(20)])
    runs = nights.write_nights(tmp_path, [560.0, 561.0], first=20, toolchain="CANN 9")
    (one,) = check(runs[-1], tmp_path)
    assert "toolchain: CANN 8.0.RC2 → CANN 9" in one.sentence


def test_a_figure_below_the_floor_is_bad_without_any_history(tmp_path):
    (run,) = nights.write_nights(tmp_path, [430.0])
    (one,) = check(run, tmp_path, load_catalog(BASELINES))
    assert one.low
    assert one.bad
    assert one.before is None


def test_an_onnx_file_that_was_given_proposes_nothing(tmp_path, catalog):
    """It may be any network with the right tensors, and a small one is fast."""
    chosen = resolve({"onnx": [f"resnest50={tmp_path / 'small.onnx'}"]}, environment={})
    other = nights.speed(300.0, batch=2, model="squeezenet1_1")
    cases = [nights.speed(99999.0, batch=2, outcome="recorded"), other]
    run = nights.write_run(tmp_path / "runs", cases, settings=chosen.to_json())
    made = propose([run], catalog)
    assert [one.model for one in made.proposals] == ["squeezenet1_1"]
    ((case, why),) = made.left
    assert case.startswith("resnest50-bs2-")
    assert "network and weights not verified" in why


def test_another_chips_figure_is_no_floor(tmp_path):
    """As the verdict has it: what another chip reaches is recorded, and held against nothing."""
    (run,) = nights.write_nights(tmp_path, [430.0], chip="Ascend310P1")
    (one,) = check(run, tmp_path, load_catalog(BASELINES))
    assert one.floor is None
    assert not one.bad
    (named,) = nights.write_nights(tmp_path / "other", [430.0], chip="ASCEND 310P3")
    (one,) = check(named, tmp_path / "other", load_catalog(BASELINES))
    assert one.low


def test_other_provenances_are_no_history(tmp_path):
    nights.write_nights(tmp_path, [600.0] * 20, provenance="simulated")
    (run,) = nights.write_nights(tmp_path, [500.0], first=20)
    (one,) = check(run, tmp_path)
    assert one.runs == 0


# --- The commands ---------------------------------------------------------------------------


def command(*arguments: str):
    app = typer.Typer()
    history_commands.register(app)
    return CliRunner().invoke(app, ["baselines", *arguments])


def test_propose_prints_a_patch_and_nothing_else_on_stdout(tmp_path, catalog):
    runs = [str(run) for run in nights.write_nights(tmp_path / "runs", [300.0, 301.0], batch=2)]
    done = command("propose", *runs, "--catalog", str(catalog))
    assert done.exit_code == 0
    assert done.stdout.startswith("--- a/baselines.yaml\n+++ b/baselines.yaml\n")
    assert "proposed: resnest50, batch 2, Ascend310P3: 300.5 fps a chip" in done.stderr
    assert "a floor that half of all equal runs miss. Set tolerance_percent" in done.stderr
    output = tmp_path / "a.patch"
    done = command("propose", *runs, "--catalog", str(catalog), "--output", str(output))
    assert output.read_text().startswith("--- a/baselines.yaml\n")


def test_propose_warns_of_no_floor_where_none_judges(tmp_path, catalog):
    runs = nights.write_nights(tmp_path / "runs", [430.0], chip="Ascend310P1")
    done = command("propose", *map(str, runs), "--catalog", str(catalog))
    assert "proposed: " in done.stderr
    assert "tolerance_percent" not in done.stderr
    assert propose(runs, catalog).warning == ""


def test_propose_refuses_a_rehearsal_with_code_4(tmp_path, catalog):
    (run,) = nights.write_nights(tmp_path / "runs", [300.0], provenance="rehearsal")
    done = command("propose", str(run), "--catalog", str(catalog))
    assert done.exit_code == 4
    assert done.stdout == ""
    assert "not a real run" in done.stderr


def test_check_ends_with_1_for_a_decline_and_0_without(tmp_path):
    runs = nights.write_nights(tmp_path, declining(8))
    done = command("check", str(runs[-1]), "--runs", str(tmp_path))
    assert done.exit_code == 1
    assert "FALLS" in done.output
    done = command("check", str(runs[24]), "--runs", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "none of 1 figures declines" in done.output
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
    found = check(run, tmp_path)
    assert [one.state for one in found] == ["ok", "failed", "undecided", "new"]
    assert found[1].sentence == "the case failed: its figure is not judged"
    assert found[2].sentence == "the case is undecided: its figure is not judged"
    done = command("check", str(run), "--runs", str(tmp_path))
    assert done.exit_code == 0, done.output
    said = done.output.strip().splitlines()[-1]
    assert said == "none of 1 figures declines; not compared: 1 failed, 1 undecided, 1 new"
    alone = nights.write_run(tmp_path / "other", cases[1:2])
    done = command("check", str(alone), "--runs", str(tmp_path / "other"))
    assert done.output.strip().splitlines()[-1] == "no figure was compared: 1 failed"


def test_check_of_a_rehearsal_says_so(tmp_path):
    runs = nights.write_nights(tmp_path, declining(8), provenance="rehearsal")
    done = command("check", str(runs[-1]), "--runs", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.startswith("REHEARSAL")
    assert "435" not in done.output


def test_check_of_a_run_that_measured_nothing_is_one_line(tmp_path):
    folder = tmp_path / "20261120-000000-aaaa"
    folder.mkdir()
    nothing = samples.run_records([samples.case(outcome="error", measured=None)], exit_status=1)
    assert nothing.run is not None
    for line in (nothing.run, nothing.cases[0]):
        writer.append(folder, line)
    done = command("check", str(folder), "--runs", str(tmp_path))
    assert done.exit_code == 4
    assert done.stdout == ""
    assert "measured nothing" in done.stderr
    assert "its cases: 1 error" in done.stderr
    assert f"python -m harness why {folder}" in done.stderr
