"""Rules of accuracy, each at its edge: the whole set, a part of it, a rehearsal."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import ProvenanceError
from harness.judge import accuracy, statistics
from harness.judge.accuracy import judge_part, judge_rehearsal, judge_whole_set
from harness.judge.statistics import Paired
from harness.records.measurements import Fidelity, ProblemCode, Scores
from harness.records.verdicts import FigureName
from tests.selftest.judge_samples import (
    BOTH,
    BOUND,
    DROP,
    NAN,
    PUBLISHED,
    codes,
    flip,
    part,
    rehearsed,
    scores,
    whole,
)

SMALLEST = FigureName.SMALLEST_PERCENT
EAGER_TOO: dict[str, Any] = {
    "fidelity": Fidelity(7e-3, 0.1, 1.0, ()),
    "reference_scores": scores(50_000, 39_130),
}


def judge(measurement, rule=BOTH, published=PUBLISHED, **options):
    return accuracy.judge_accuracy(measurement, published, rule, bound=BOUND, **options)


# A rehearsal -----------------------------------------------------------------------------


@pytest.mark.parametrize("provenance", ["rehearsal", "simulated"])
def test_equal_predictions_pass(provenance):
    verdict = judge(rehearsed(provenance=provenance))
    assert (verdict.kind, verdict.rule) == ("PASS", "accuracy-rehearsal")
    assert verdict.difference_percent == 0.0
    assert (verdict.reference.kind, verdict.reference.provenance) == ("eager", provenance)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"flips": [flip("a", 1, 2, excused=False)]}, ProblemCode.PREDICTIONS_DIFFER),
        ({"flips": [flip("a", 1, 2)], "right": 1}, ProblemCode.SCORE_DIFFERS),
        ({"right": 2}, ProblemCode.SCORE_DIFFERS),  # labels off by one in one of the two
        ({"right": 4}, ProblemCode.SCORE_DIFFERS),
        ({"l2": 0.0301}, ProblemCode.LOGITS_DIFFER),
        ({"l2": math.nan}, ProblemCode.LOGITS_DIFFER),
        ({"l2": math.inf}, ProblemCode.LOGITS_DIFFER),
        ({"problems": (NAN,)}, ProblemCode.NOT_FINITE),
    ],
)
def test_what_a_rehearsal_fails_by(changes, code):
    verdict = judge(rehearsed(**changes))
    assert (verdict.kind, codes(verdict)) == ("FAIL", [code])


def test_a_flip_within_rounding_may_move_the_score_by_one():
    assert judge(rehearsed([flip("a", 1, 2)], right=2)).kind == "PASS"
    assert judge(rehearsed(l2=BOUND)).kind == "PASS"
    verdict = judge(rehearsed([flip("a", 1, 2), flip("b", 1, 2, excused=False)]))
    assert verdict.figures[FigureName.FLIPS] == 2
    assert verdict.figures[FigureName.FLIPS_EXCUSED] == 1


@pytest.mark.parametrize("expected", [3, 5])
def test_another_number_of_images_fails(expected):
    missing = [ProblemCode.IMAGES_MISSING, ProblemCode.EAGER_IMAGES_MISSING]
    assert codes(judge(rehearsed(expected_images=expected))) == missing
    short = rehearsed(reference_scores=scores(3, 3))
    assert codes(judge(short)) == [ProblemCode.EAGER_IMAGES_MISSING]


def test_a_rehearsal_needs_an_eager_pass():
    with pytest.raises(ProvenanceError):
        judge(rehearsed(reference_scores=None, fidelity=None))


# The whole set ---------------------------------------------------------------------------


def test_guide_000s_own_example():
    verdict = judge(whole(39_120))
    assert (verdict.kind, verdict.rule) == ("PASS", "accuracy-whole-set")
    assert verdict.reference.kind == "published"
    relative = verdict.figures[FigureName.RELATIVE_DIFFERENCE]
    assert round(abs(relative) / 100, 4) == 0.0003  # 78.24 % of 78.26 %


@pytest.mark.parametrize(
    ("rule", "correct", "kind"),
    [
        # 1 % of 80 is 0.8: 39,600 of 50,000 is 79.2 % to the last digit, one image less is not.
        (BOTH, 39_600, "PASS"),
        (BOTH, 39_599, "FAIL"),
        (BOTH, 40_400, "PASS"),
        (BOTH, 40_401, "FAIL"),
        (DROP, 39_600, "PASS"),
        (DROP, 39_599, "FAIL"),
        (DROP, 50_000, "PASS"),
    ],
)
def test_the_edges_of_one_percent_are_counts(rule, correct, kind):
    assert judge(whole(correct), rule, PUBLISHED.model_copy(update={"top1": 80.0})).kind == kind


def test_a_part_without_an_eager_pass_decides_nothing():
    verdict = judge(whole(783, images=1000))
    assert (verdict.kind, verdict.rule) == ("INCONCLUSIVE", "accuracy-whole-set")
    assert verdict.figures[FigureName.IMAGES_TO_DECIDE] == 50_000


@given(st.integers(30_000, 45_000), st.sampled_from([BOTH, DROP]))
def test_the_smallest_tolerance_passes_and_a_smaller_one_does_not(correct, rule):
    smallest = judge(whole(correct), rule).figures[SMALLEST]
    for tolerance, kind in ((smallest, "PASS"), (smallest - 1e-4, "FAIL")):
        if tolerance >= 0:
            changed = rule.model_copy(update={"tolerance_percent": round(tolerance, 4)})
            assert judge(whole(correct), changed).kind == kind


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"problems": (NAN,)}, ProblemCode.NOT_FINITE),
        ({**EAGER_TOO, "fidelity": Fidelity(0.2, 9.0, 0.9, ())}, ProblemCode.LOGITS_DIFFER),
        ({**EAGER_TOO, "fidelity": Fidelity(math.nan, 9.0, 0.9, ())}, ProblemCode.LOGITS_DIFFER),
        ({"scores": scores(49_999, 39_130)}, ProblemCode.IMAGES_MISSING),
        ({"scores": scores(50_001, 39_130)}, ProblemCode.IMAGES_MISSING),
    ],
)
def test_what_the_whole_set_fails_by_whatever_its_score(changes, code):
    verdict = judge(whole(39_120, **changes))
    assert (verdict.kind, codes(verdict)) == ("FAIL", [code])
    assert SMALLEST not in verdict.figures
    assert judge(whole(39_120, **EAGER_TOO)).figures[SMALLEST] == 0.0256


def test_one_image_too_many_is_not_the_whole_set():
    more = whole(39_130, images=50_001)
    assert judge(more).kind == "INCONCLUSIVE"
    assert SMALLEST not in judge(more).figures


# A part of the set -----------------------------------------------------------------------


def test_a_conversion_that_agrees_passes():
    verdict = judge(part(5000, 3913, lost=5, gained=4))
    assert (verdict.kind, verdict.rule) == ("PASS", "accuracy-part")
    assert verdict.figures[FigureName.ONLY_EAGER_RIGHT] == 5
    assert verdict.figures[FigureName.ONLY_COMPILED_RIGHT] == 4
    assert (verdict.reference.kind, verdict.reference.value) == ("eager", 78.26)
    low, high = verdict.figures[FigureName.DIFFERENCE_INTERVAL]
    assert low < -0.02 < high
    assert accuracy.paired_of(part(5000, 3913, lost=5, gained=4)) == Paired(5000, 3908, 5, 4)


@pytest.mark.parametrize(
    ("lost", "gained", "rule", "kind"),
    [
        (100, 0, BOTH, "FAIL"),
        (100, 0, DROP, "FAIL"),
        (0, 100, BOTH, "FAIL"),
        (0, 100, DROP, "PASS"),
        (39, 0, BOTH, "INCONCLUSIVE"),
        (0, 39, BOTH, "INCONCLUSIVE"),
    ],
)
def test_the_whole_interval_decides(lost, gained, rule, kind):
    assert judge(part(5000, 3913, lost, gained), rule).kind == kind


def test_so_many_images_would_decide():
    verdict = judge(part(1000, 783, lost=5, gained=5))
    assert verdict.kind == "INCONCLUSIVE"
    enough = verdict.figures[FigureName.IMAGES_TO_DECIDE]
    # So many images at the same rates do decide, and one less does not.
    for images, decided in ((enough, True), (enough - 1, False)):
        rate = 5 * images / 1000
        low, high = statistics.tango_interval(rate, rate, images, 0.99)
        assert (max(-low, high) <= 0.007826) == decided
    # The difference lies on the tolerance: no part of the set tells its sides apart.
    only_all = judge(part(5000, 3913, lost=39))
    assert only_all.figures[FigureName.IMAGES_TO_DECIDE] == 50_000


@pytest.mark.parametrize("n", [1, 2, 50, 200])
def test_few_images_cannot_pass(n):
    assert judge(part(n, round(0.78 * n))).kind == "INCONCLUSIVE"


def test_the_reference_is_off_outside_its_999_interval_and_not_within():
    def interval(right):
        return statistics.binomial_interval(right, 5000, 0.999)

    low = next(k for k in range(3750, 3913) if interval(k)[1] >= 0.7826)
    high = next(k for k in range(4100, 3913, -1) if interval(k)[0] <= 0.7826)
    assert interval(3750)[1] < 0.7826 < interval(4100)[0]
    for inside, outside in ((low, low - 1), (high, high + 1)):
        assert judge(part(5000, inside)).kind == "PASS"
        verdict = judge(part(5000, outside))
        assert (verdict.kind, codes(verdict)) == ("FAIL", [ProblemCode.REFERENCE_OFF])
        assert SMALLEST not in verdict.figures


def test_no_tolerance_is_offered_on_a_wrong_reference():
    assert SMALLEST not in judge(part(5000, 3500, lost=100)).figures
    assert SMALLEST in judge(part(5000, 3913, lost=100)).figures


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"problems": (NAN,)}, ProblemCode.NOT_FINITE),
        ({"l2": 0.031}, ProblemCode.LOGITS_DIFFER),
        ({"l2": math.nan}, ProblemCode.LOGITS_DIFFER),
        ({"expected_images": 5001}, ProblemCode.IMAGES_MISSING),
        ({"scores": scores(4999, 3912)}, ProblemCode.IMAGES_MISSING),
        ({"reference_scores": Scores(4995, (3913,) * 5)}, ProblemCode.EAGER_IMAGES_MISSING),
        ({"reference_scores": scores(5000, 3900)}, ProblemCode.OTHER_PAIRS),
        ({"scores": scores(5000, 2)}, ProblemCode.OTHER_PAIRS),
        ({"scores": scores(0, 0)}, ProblemCode.OTHER_PAIRS),
        ({"fidelity": None}, ProblemCode.OTHER_PAIRS),
    ],
)
def test_what_a_part_fails_by_whatever_its_score(changes, code):
    verdict = judge(part(5000, 3913, lost=5, gained=4, **changes))
    assert verdict.kind == "FAIL"
    assert code in codes(verdict)
    assert SMALLEST not in verdict.figures


def test_flips_that_a_record_has_cut_are_no_pairs():
    measured = part(5000, 3913, lost=5)
    assert measured.fidelity is not None
    cut = dataclasses.replace(measured.fidelity, flips_total=9000)
    assert accuracy.paired_of(dataclasses.replace(measured, fidelity=cut)) is None


@given(st.integers(0, 120), st.integers(0, 120), st.sampled_from([BOTH, DROP]))
def test_the_smallest_tolerance_of_a_part_passes(lost, gained, rule):
    measured = part(5000, 3913, lost=lost, gained=gained)
    smallest = judge(measured, rule).figures[SMALLEST]
    changed = rule.model_copy(update={"tolerance_percent": smallest})
    assert judge(measured, changed).kind == "PASS"
    if smallest > 0.01:
        smaller = rule.model_copy(update={"tolerance_percent": smallest - 0.01})
        assert judge(measured, smaller).kind != "PASS"


@pytest.mark.parametrize("rule", [BOTH, DROP])
def test_plan_knows_from_how_many_images_a_pass_is_possible(rule):
    least = accuracy.images_to_pass(PUBLISHED, rule)
    assert least is not None
    for n, kind in ((least, "PASS"), (least - 1, "INCONCLUSIVE")):
        assert judge(part(n, round(0.7826 * n)), rule).kind == kind
    described = {
        n: accuracy.describe_part(n, PUBLISHED, rule) for n in (least - 1, least, 50_000, 1)
    }
    assert "no PASS is possible" in described[least - 1]
    assert "a PASS is possible" in described[least]
    assert "the whole set" in described[50_000]


def test_more_flips_need_more_images():
    counts = [
        accuracy.images_to_pass(PUBLISHED, BOTH, discordant_percent=p) or 0 for p in (0, 1, 2, 4)
    ]
    assert 0 < counts[0] < counts[1] < counts[2] < counts[3]
    tight = BOTH.model_copy(update={"tolerance_percent": 0.001})
    assert accuracy.images_to_pass(PUBLISHED, tight) is None
    assert "needs the whole set" in accuracy.describe_part(1000, PUBLISHED, tight)
    assert accuracy.tolerance_points(PUBLISHED, BOTH) == Fraction(7826, 10_000)


# Choice and provenance -------------------------------------------------------------------


def test_the_measurement_chooses_the_rule():
    assert judge(part(50_000, 39_130)).rule == "accuracy-whole-set"
    assert judge(part(49_999, 39_130)).rule == "accuracy-part"
    assert judge(part(1000, 783, provenance="simulated")).rule == "accuracy-rehearsal"


def test_a_note_is_said_beside_every_real_verdict():
    for measurement in (
        whole(39_120),
        whole(35_000),
        whole(39_120, problems=(NAN,)),
        whole(780, images=1000),
        part(5000, 3913),
        part(5000, 3913, lost=100),
        part(5000, 3500),
        part(1000, 783, lost=5, gained=5),
    ):
        assert (
            judge(measurement, note="a note").sentence == f"{judge(measurement).sentence}; a note"
        )


@pytest.mark.parametrize("provenance", ["rehearsal", "simulated"])
def test_nothing_crosses_provenances(provenance):
    for rule, measurement in (
        (judge_whole_set, whole(39_130, provenance=provenance)),
        (judge_part, part(5000, 3913, provenance=provenance)),
    ):
        with pytest.raises(ProvenanceError):
            rule(measurement, PUBLISHED, BOTH, bound=BOUND)
    with pytest.raises(ProvenanceError):
        judge_rehearsal(rehearsed(provenance="real"), bound=BOUND)
