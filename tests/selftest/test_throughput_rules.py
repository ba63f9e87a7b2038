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
def test_eager_speed_less_ten_percent_of_the_faster_format(mean_ms, kind):
    both = {"contiguous": steady(20.0), "channels-last": EAGER}
    verdict = judge_eager_speed(timed(steady(mean_ms), EAGER, rivals=both))
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
    ("ours", "eager"),
    [(steady(10.0, 0.5), EAGER), (EAGER, steady(10.0, 0.5))],
)
def test_noise_on_either_side_is_inconclusive_and_not_red(ours, eager):
    assert judge_eager_speed(timed(ours, eager)).kind == "INCONCLUSIVE"


@pytest.mark.parametrize(("mean_ms", "kind"), [(2.0, "PASS"), (100.0, "FAIL")])
def test_an_interval_on_one_side_decides_a_rehearsal_and_no_published_figure(mean_ms, kind):
    noisy = steady(mean_ms, 0.5)
    assert judge_eager_speed(timed(noisy, EAGER)).kind == kind
    published = judge_baseline(timed(noisy), floor_of())
    assert (published.kind, SMALLEST in published.figures) == ("INCONCLUSIVE", False)
    unknown = timed(noisy, EAGER, half_width_percent=100.0)
    assert judge_eager_speed(unknown).kind == "INCONCLUSIVE"


def test_the_ends_of_the_interval_are_held_against_the_floor():
    def judged(percent, width):
        ours = timed(steady(10.0 / percent * 100), EAGER, half_width_percent=width)
        return judge_eager_speed(ours).kind

    # 90 % of eager is asked for, and ±10 %.
    assert judged(113, 20) == "PASS"
    assert judged(112, 20) == "INCONCLUSIVE"
    assert judged(76, 20) == "INCONCLUSIVE"
    assert judged(74, 20) == "FAIL"
    assert judged(89, 10) == "FAIL"
    assert judged(89, 10.01) == "INCONCLUSIVE"


@pytest.mark.parametrize("mean_ms", [1.0, 100.0])
@pytest.mark.parametrize(
    "short", [{"too_few_rounds": 5}, {"too_few_seconds": 10.0}], ids=["rounds", "seconds"]
)
def test_too_short_a_timing_decides_nothing_however_precise(short, mean_ms):
    for verdict in (
        judge_baseline(timed(steady(mean_ms), **short), floor_of()),
        judge_eager_speed(timed(steady(mean_ms), EAGER, **short)),
    ):
        assert verdict.kind == "INCONCLUSIVE"
        assert SMALLEST not in verdict.figures
    assert record_speed(timed(steady(mean_ms), **short), "why").kind == "RECORDED"


@pytest.mark.parametrize("fps", [2000.0, 500.0])
@pytest.mark.parametrize(
    "change", [{"busy": "yes"}, {"throttled": "yes"}, {"health": "Alarm"}], ids=str
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_device_that_was_not_its_own_decides_nothing(fps, change, at):
    looks = [*IDLE]
    looks[at] = dataclasses.replace(looks[at], **change)
    found = {"conditions": tuple(looks)}
    for verdict in (
        judge_baseline(real(fps, **found), floor_of()),
        judge_eager_speed(timed(steady(4000 / fps), EAGER, **found)),
        record_speed(real(fps, **found), "why"),  # a figure that others would take for one
    ):
        assert verdict.kind == "INCONCLUSIVE"
        assert SMALLEST not in verdict.figures
    assert judge_baseline(real(2000.0, conditions=IDLE), floor_of()).kind == "PASS"


def test_a_cards_figure_takes_all_its_chips_as_they_were_counted():
    card = baseline("squeezenet1_1", "ascend310", 16)
    assert card.chips_per_card == 4

    def judged(chips, share=1.0):
        ours = timed(steady(16_000.0 / 2505.7 / share, batch_size=16), setup=Setup(chips=chips))
        return judge_baseline(ours, card)

    # One chip in a container is no card, and no slow one either.
    kinds = {chips: judged(chips).kind for chips in (None, 1, 2, 4, 8)}
    assert kinds == {**dict.fromkeys((None, 1, 2, 8), "INCONCLUSIVE"), 4: "PASS"}
    assert judged(4).measured == pytest.approx(4 * 2505.7)
    assert judged(4, share=0.9).kind == "FAIL"
    assert judged(None).figures[FigureName.CHIPS] is None
    assert SMALLEST not in judged(None).figures


def test_one_chip_on_a_card_must_have_been_counted_too():
    card = baseline("fixres", "ascend310p3", 1)
    assert (card.unit, card.chips_per_card) == ("card", 1)
    ours = timed(steady(500.0 / card.fps, batch_size=1))
    assert judge_baseline(ours, card).kind == "INCONCLUSIVE"
    assert judge_baseline(dataclasses.replace(ours, setup=Setup(chips=1)), card).kind == "PASS"


def test_a_chips_figure_takes_one_chip_whatever_is_on_the_card():
    assert judge_baseline(real(500.0, setup=Setup(chips=2)), floor_of()).kind == "FAIL"


def test_rounds_that_would_decide():
    noisy = judge_baseline(timed(steady(4.0, 0.5), precision_percent=1.0), floor_of())
    assert figures(noisy)[FigureName.ROUNDS_TO_DECIDE] > 1000
    assert FigureName.ROUNDS_TO_DECIDE not in figures(judge_baseline(real(903.506), floor_of()))


# What no speed may hide --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"outputs": OutputsCheck(0.0301, BOUND)}, ProblemCode.OUTPUTS_DIFFER),
        ({"outputs": OutputsCheck(math.nan, BOUND)}, ProblemCode.OUTPUTS_DIFFER),
        ({"outputs": OutputsCheck(2e-3, 1e-3)}, ProblemCode.OUTPUTS_DIFFER),
        ({"problems": (WRONG_SHAPE,)}, ProblemCode.WRONG_SHAPE),
        ({"problems": (WRONG_SHAPE,), "conditions": BUSY}, ProblemCode.WRONG_SHAPE),
        ({"problems": (WRONG_SHAPE,), "too_few_rounds": 5}, ProblemCode.WRONG_SHAPE),
    ],
)
def test_the_speed_of_a_wrong_model_counts_for_nothing(changes, code):
    for verdict in (
        judge_baseline(real(2000.0, **changes), floor_of()),
        judge_eager_speed(timed(steady(1.0), EAGER, **changes)),
        record_speed(real(2000.0, **changes), "why"),
    ):
        assert (verdict.kind, codes(verdict)) == ("FAIL", [code])
        assert SMALLEST not in verdict.figures


def test_outputs_at_their_bound_are_right():
    assert (
        judge_baseline(real(2000.0, outputs=OutputsCheck(BOUND, BOUND)), floor_of()).kind == "PASS"
    )


def test_drift_and_outliers_are_figures():
    slower = timing(*(4.0 + 0.2 * (i >= 10) + 0.001 * (i % 3) for i in range(20)))
    ours = timed(dataclasses.replace(slower, outliers=3))
    found = figures(judge_baseline(ours, floor_of()))
    assert found[FigureName.DRIFT] == pytest.approx(5.0, abs=0.1)
    assert found[FigureName.DRIFT_SIGNIFICANT] is True
    assert found[FigureName.OUTLIERS] == 3


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


def judge(measurement, figure):
    return throughput.judge_throughput(measurement, figure, case="x-bs4-y")


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (None, "no figure is published for x-bs4-y"),
        ({"not_comparable": "fed 224 x 224"}, "fed 224 x 224"),
        ({"judged": False}, "only records"),
        ({"chip": "Ascend310"}, "the published figure is a Ascend310's"),
    ],
)
def test_what_nothing_comparable_is_published_for_is_recorded(figure, words):
    fast = real(2000.0, setup=Setup(chip="Ascend310P3"))
    verdict = judge(fast, None if figure is None else floor_of(**figure))
    assert (verdict.kind, verdict.rule) == ("RECORDED", "throughput-recorded")
    assert (verdict.reference.kind, verdict.difference_percent) == ("none", None)
    assert words in verdict.reference.note
    assert words in verdict.sentence


def test_the_measurement_chooses_the_rule():
    assert judge(timed(steady(1.0), EAGER), floor_of()).rule == "throughput-rehearsal"
    assert judge(real(2000.0), floor_of()).rule == "throughput-baseline"
    same_chip = real(2000.0, setup=Setup(chip="NVIDIA Tesla T4"))
    assert judge(same_chip, floor_of(chip="Tesla T4")).rule == "throughput-baseline"


def test_a_simulated_speed_is_held_against_simulated_figures_alone():
    fast = real(4000.0, provenance="simulated", setup=Setup(chip="Ascend310P3"))
    verdict = judge(fast, floor_of())
    assert (verdict.kind, verdict.reference.provenance) == ("RECORDED", "simulated")
    assert "903" not in verdict.sentence
    simulated = floor_of(provenance="simulated")
    verdict = judge(fast, simulated)
    assert (verdict.kind, verdict.reference.provenance) == ("PASS", "simulated")
    with pytest.raises(ProvenanceError):
        judge_baseline(real(2000.0), simulated)


@pytest.mark.parametrize("provenance", ["rehearsal", "simulated"])
def test_nothing_crosses_provenances(provenance):
    with pytest.raises(ProvenanceError):
        judge_baseline(real(2000.0, provenance=provenance), floor_of())
    with pytest.raises(ProvenanceError):
        judge_eager_speed(timed(steady(1.0), EAGER, provenance="real"))
    with pytest.raises(ProvenanceError):
        judge_eager_speed(real(2000.0, provenance="rehearsal"))
