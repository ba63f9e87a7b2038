"""Rules of throughput, each at its edge: eager's speed, a baseline, recorded."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import ProvenanceError
from harness.judge import throughput
from harness.judge.throughput import judge_baseline, judge_eager_speed, record_speed
from harness.records.conditions import Condition, Setup
from harness.records.measurements import OutputsCheck, Problem, ProblemCode
from harness.records.verdicts import FigureName
from tests.selftest.judge_samples import (
    BOUND,
    baseline,
    codes,
    figures,
    floor_of,
    real,
    steady,
    timed,
    timing,
)

SMALLEST = FigureName.SMALLEST_PERCENT
EAGER = steady(10.0)
WRONG_SHAPE = Problem(ProblemCode.WRONG_SHAPE, {"shape": (4, 10), "expected": (4, 5)})
IDLE = tuple(
    Condition(moment, 0.0, health="OK", busy="no", throttled="no")
    for moment in ("before", "during", "after")
)
BUSY = (dataclasses.replace(IDLE[0], busy="yes"),)


def rules(fps, **changes):
    """What each of the three rules makes of a speed of an artifact."""
    return (
        judge_baseline(real(fps, **changes), floor_of()),
        judge_eager_speed(timed(steady(4000.0 / fps), EAGER, **changes)),
        record_speed(real(fps, **changes), "why"),
    )


# The floor ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "tolerance", "kind"),
    [
        (903.506, 0, "PASS"),
        (903.505, 0, "FAIL"),
        (903.506 * (1 - 1e-9), 0, "FAIL"),
        (894.48, 1, "PASS"),
        (894.46, 1, "FAIL"),
    ],
)
def test_a_baseline_is_a_floor(fps, tolerance, kind):
    verdict = judge_baseline(real(fps), floor_of(tolerance_percent=tolerance))
    assert (verdict.kind, verdict.rule) == (kind, "throughput-baseline")
    assert verdict.reference.value == 903.506


@pytest.mark.parametrize(
    ("mean_ms", "kind"), [(10 / 0.9001, "PASS"), (10 / 0.8999, "FAIL"), (5.0, "PASS")]
)
def test_eager_speed_less_ten_percent(mean_ms, kind):
    verdict = judge_eager_speed(timed(steady(mean_ms), EAGER))
    assert (verdict.kind, verdict.rule) == (kind, "throughput-rehearsal")
    assert verdict.reference.value == 400.0
    assert "channels-last" in verdict.reference.source


@given(st.floats(100, 2000).map(lambda fps: round(fps, 2)))
def test_the_smallest_tolerance_of_a_speed_passes(fps):
    smallest = figures(judge_baseline(real(fps), floor_of()))[SMALLEST]
    assert judge_baseline(real(fps), floor_of(tolerance_percent=smallest)).kind == "PASS"
    if smallest > 0.01:
        tight = floor_of(tolerance_percent=smallest - 0.01)
        assert judge_baseline(real(fps), tight).kind == "FAIL"


@given(st.floats(1.0, 100.0), st.sampled_from([0.0, 0.01, 0.2, 0.5]))
def test_the_smallest_tolerance_of_a_rehearsal_passes(mean_ms, spread):
    ours = timed(steady(mean_ms, spread), EAGER)
    smallest = figures(judge_eager_speed(ours))[SMALLEST]
    assert judge_eager_speed(ours, tolerance_percent=smallest + 1e-9).kind == "PASS"
    if smallest > 0.01:
        assert judge_eager_speed(ours, tolerance_percent=smallest - 0.01).kind != "PASS"


# What decides nothing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "width", "kind"),
    [
        # 90 % of eager is asked for, and ±10 %.
        (113, 20, "PASS"),
        (112, 20, "INCONCLUSIVE"),
        (76, 20, "INCONCLUSIVE"),
        (74, 20, "FAIL"),
        (89, 10, "FAIL"),
        (89, 10.01, "INCONCLUSIVE"),
        (900, 100, "INCONCLUSIVE"),
        (900, math.inf, "INCONCLUSIVE"),
    ],
)
def test_the_whole_interval_decides_a_rehearsal_and_no_published_figure(percent, width, kind):
    mean = steady(10.0 / percent * 100)
    assert judge_eager_speed(timed(mean, EAGER, half_width_percent=width)).kind == kind
    published = judge_baseline(timed(mean, half_width_percent=width), floor_of(1.0))
    assert (published.kind == "PASS") == (SMALLEST in published.figures) == (width <= 10)


@pytest.mark.parametrize("fps", [4000.0, 40.0])
@pytest.mark.parametrize("short", [{"too_few_rounds": 5}, {"too_few_seconds": 10.0}], ids=str)
def test_too_short_a_timing_decides_nothing_however_precise(short, fps):
    kinds = [(one.kind, SMALLEST in one.figures) for one in rules(fps, **short)]
    assert kinds == [("INCONCLUSIVE", False)] * 2 + [("RECORDED", False)]


@pytest.mark.parametrize("fps", [2000.0, 200.0])
@pytest.mark.parametrize(
    "change", [{"busy": "yes"}, {"throttled": "yes"}, {"health": "Alarm"}], ids=str
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_device_that_was_not_its_own_decides_nothing(fps, change, at):
    looks = [*IDLE]
    looks[at] = dataclasses.replace(looks[at], **change)
    for verdict in rules(fps, conditions=tuple(looks)):
        assert (verdict.kind, SMALLEST in verdict.figures) == ("INCONCLUSIVE", False)
    assert judge_baseline(real(2000.0, conditions=IDLE), floor_of()).kind == "PASS"


@pytest.mark.parametrize(
    ("chips", "share", "kind"),
    [
        # One chip in a container is no card, and no slow one either.
        *((chips, 1.0, "INCONCLUSIVE") for chips in (None, 1, 2, 8)),
        (4, 1.0, "PASS"),
        (4, 0.9, "FAIL"),
    ],
)
def test_a_cards_figure_takes_all_its_chips_as_they_were_counted(chips, share, kind):
    card = baseline("squeezenet1_1", "ascend310", 16)
    ours = timed(steady(16_000.0 / 2505.7 / share, batch_size=16), setup=Setup(chips=chips))
    verdict = judge_baseline(ours, card)
    assert (verdict.kind, SMALLEST in verdict.figures) == (kind, kind != "INCONCLUSIVE")
    assert verdict.figures[FigureName.CHIPS] == chips
    assert verdict.measured == pytest.approx((chips or 1) * 2505.7 * share)


def test_one_chip_on_a_card_must_have_been_counted_and_a_chips_figure_takes_one():
    card = baseline("fixres", "ascend310p3", 1)
    assert (card.unit, card.chips_per_card) == ("card", 1)
    ours = timed(steady(500.0 / card.fps, batch_size=1))
    assert judge_baseline(ours, card).kind == "INCONCLUSIVE"
    assert judge_baseline(dataclasses.replace(ours, setup=Setup(chips=1)), card).kind == "PASS"
    assert judge_baseline(real(500.0, setup=Setup(chips=2)), floor_of()).kind == "FAIL"


# What no speed may hide --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"outputs": OutputsCheck(0.0301, BOUND)}, ProblemCode.OUTPUTS_DIFFER),
        ({"outputs": OutputsCheck(math.nan, BOUND)}, ProblemCode.OUTPUTS_DIFFER),
        ({"outputs": OutputsCheck(2e-3, 1e-3)}, ProblemCode.OUTPUTS_DIFFER),
        ({"problems": (WRONG_SHAPE,), "conditions": BUSY}, ProblemCode.WRONG_SHAPE),
        ({"problems": (WRONG_SHAPE,), "too_few_rounds": 5}, ProblemCode.WRONG_SHAPE),
    ],
)
def test_the_speed_of_a_wrong_model_counts_for_nothing(changes, code):
    for verdict in rules(4000.0, **changes):
        assert (verdict.kind, codes(verdict)) == ("FAIL", [code])
        assert SMALLEST not in verdict.figures
    right = rules(4000.0, outputs=OutputsCheck(BOUND, BOUND))
    assert [one.kind for one in right] == ["PASS", "PASS", "RECORDED"]


def test_drift_outliers_and_the_rounds_that_would_decide_are_figures():
    slower = timing(*(4.0 + 0.2 * (i >= 10) + 0.001 * (i % 3) for i in range(20)))
    ours = timed(dataclasses.replace(slower, outliers=3))
    found = figures(judge_baseline(ours, floor_of()))
    assert found[FigureName.DRIFT] == pytest.approx(5.0, abs=0.1)
    assert found[FigureName.DRIFT_SIGNIFICANT] is True
    assert found[FigureName.OUTLIERS] == 3
    assert FigureName.ROUNDS_TO_DECIDE not in found
    noisy = judge_baseline(timed(steady(4.0, 0.5), precision_percent=1.0), floor_of())
    assert figures(noisy)[FigureName.ROUNDS_TO_DECIDE] > 1000


# What the baseline and the run have in common ----------------------------------------------

ALIKE = {"method": "pure-inference", "tuning": "none", "card": "Atlas 300I Pro"}


@pytest.mark.parametrize(
    ("figure", "setup", "differences"),
    [
        ({"method": "whole-dataset"}, {}, ["method pure-inference, the baseline's whole-dataset"]),
        (
            {"tuning": "RL,GA"},
            {"note": "untuned"},
            ["tuning none (untuned), the baseline's RL,GA"],
        ),
        ({}, {"input": "uint8"}, ["input uint8, the baseline's float32"]),
        ({"compiler_flags": ("--insert_op_conf=a.config",)}, {"input": "uint8"}, []),
        ({}, {"dynamic_batch": "1,4"}, ["dynamic batch 1,4, the baseline's none"]),
        ({"compiler_flags": ("--dynamic_batch_size=1,4",)}, {"dynamic_batch": "1,4"}, []),
        (
            {"compiler_flags": ("--dynamic_batch_size=1,48",)},
            {"dynamic_batch": "1,4,8"},
            ["dynamic batch 1,4,8, the baseline's 1,48"],
        ),
        ({}, {"card": "Duo"}, ["card Duo, the baseline's Atlas 300I Pro"]),
        ({}, {"card": "ATLAS 300I  Pro"}, []),
        ({"toolchain": "5"}, {"toolchain": "8"}, ["toolchain 8, the baseline's 5"]),
        ({"toolchain": "CANN 5"}, {}, []),
        (
            dict.fromkeys(("card", "toolchain"), "not stated")
            | dict.fromkeys(("method", "tuning"), "not-stated"),
            {"card": "x", "toolchain": "y"},
            [],
        ),
    ],
)  # fmt: skip
def test_what_is_known_of_both_and_not_alike_is_said(figure, setup, differences):
    base = floor_of(**{**ALIKE, **figure})
    verdict = judge_baseline(real(2000.0, setup=Setup(**setup)), base)
    assert verdict.kind == "PASS"
    assert list(figures(verdict).get(FigureName.SETUP_DIFFERENCES, ())) == differences
    assert all(words in verdict.sentence for words in differences)


# Choice and provenance ---------------------------------------------------------------------

P3 = Setup(chip="Ascend310P3")
SIMULATED = real(4000.0, provenance="simulated", setup=P3)


@pytest.mark.parametrize(
    ("measurement", "figure", "kind", "rule", "words"),
    [
        (real(2000.0), None, "RECORDED", "recorded", "no figure is published for x-bs4-y"),
        (real(2000.0), floor_of(not_comparable="fed 224"), "RECORDED", "recorded", "fed 224"),
        (real(2000.0), floor_of(judged=False), "RECORDED", "recorded", "only records"),
        (real(2000.0, setup=P3), floor_of(chip="Ascend310"), "RECORDED", "recorded",
         "the published figure is a Ascend310's"),
        # A slice of the figure's chip.
        (real(2000.0, setup=Setup(chip="vNPU vir02 of an Ascend310P3")), floor_of(), "RECORDED",
         "recorded", "is a Ascend310P3's, this is a vNPU vir02 of an Ascend310P3"),
        (SIMULATED, floor_of(), "RECORDED", "recorded", "held against nothing"),
        (SIMULATED, floor_of(provenance="simulated"), "PASS", "baseline", "903.506"),
        (timed(steady(1.0), EAGER), floor_of(), "PASS", "rehearsal", "eager"),
        (real(2000.0), floor_of(), "PASS", "baseline", "903.506"),
        (real(2000.0, setup=Setup(chip="NVIDIA Tesla T4")), floor_of(chip="Tesla T4"), "PASS",
         "baseline", "903.506"),
    ],
)  # fmt: skip
def test_the_measurement_chooses_the_rule(measurement, figure, kind, rule, words):
    verdict = throughput.judge_throughput(measurement, figure, case="x-bs4-y")
    assert (verdict.kind, verdict.rule) == (kind, f"throughput-{rule}")
    assert verdict.reference.provenance == measurement.provenance
    assert words in verdict.sentence
    if rule == "recorded":
        assert (verdict.reference.kind, verdict.difference_percent) == ("none", None)
        assert words in verdict.reference.note
        assert "903" not in verdict.sentence


@pytest.mark.parametrize(
    ("judge", "given"),
    [
        *(
            (judge_baseline, (real(1.0, provenance=p), floor_of()))
            for p in ("rehearsal", "simulated")
        ),
        (judge_baseline, (real(1.0), floor_of(provenance="simulated"))),
        *((judge_eager_speed, (timed(EAGER, EAGER, provenance=p),)) for p in ("real", "simulated")),
        (judge_eager_speed, (real(2000.0, provenance="rehearsal"),)),
    ],
)
def test_nothing_crosses_provenances(judge, given):
    with pytest.raises(ProvenanceError):
        judge(*given)


# Editions ----------------------------------------------------------------------------------


def test_a_verdict_and_its_reference_name_all_editions() -> None:
    figure = baseline("squeezenet1_1", "ascend310p3", 1)
    verdict = judge_baseline(real(5000.0), figure)
    assert verdict.kind == "PASS"  # the edition that is judged, neither of the faster ones
    assert "5,797.1 (squeezenet-2023-06)" in verdict.sentence
    assert "6,459.28 (squeezenet-2022-12)" in verdict.sentence
    first, *others = verdict.reference.editions
    assert (first.fps, first.source, first.date) == (4849.7, "squeezenet-2023-11", "2023-11-19")
    assert first.toolchain == "CANN 6.0.RC1" and "--enable_small_channel=1" in first.flags
    assert [one.fps for one in others] == [5797.1, 6459.28]


def test_a_recorded_speed_keeps_what_is_published_and_a_simulated_one_does_not() -> None:
    figure = baseline("squeezenet1_1", "ascend310", 4)
    for provenance, kept in (("real", [8345.68]), ("simulated", [])):
        measured = real(9000.0, provenance=provenance)
        verdict = throughput.judge_throughput(measured, figure, case="a case")
        assert verdict.kind == "RECORDED"
        assert [one.fps for one in verdict.reference.editions] == kept
