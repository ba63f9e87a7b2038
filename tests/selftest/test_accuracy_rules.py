"""Rules of accuracy, each at its edge: the whole set, a part of it, a rehearsal."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import ProvenanceError
from harness.judge import accuracy, statistics
from harness.judge.accuracy import judge_part, judge_rehearsal, judge_whole_set
from harness.judge.statistics import Paired
from harness.records.measurements import Fidelity, ProblemCode
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

C = ProblemCode
SMALLEST = FigureName.SMALLEST_PERCENT


def judge(measurement, rule=BOTH, published=PUBLISHED, **options):
    return accuracy.judge_accuracy(measurement, published, rule, bound=BOUND, **options)


def whole_beside_eager(l2=7e-3):
    fidelity = Fidelity(l2, 0.1, 1.0, ())
    return whole(39_120, fidelity=fidelity, reference_scores=scores(50_000, 39_130))


@pytest.mark.parametrize(
    ("measurement", "kind", "rule", "reference"),
    [
        (whole(39_120), "PASS", "accuracy-whole-set", "published"),
        (whole(783, images=1000), "INCONCLUSIVE", "accuracy-whole-set", "published"),
        (whole(39_130, images=50_001), "INCONCLUSIVE", "accuracy-whole-set", "published"),
        (part(50_000, 39_130), "PASS", "accuracy-whole-set", "published"),
        (part(49_999, 39_130), "PASS", "accuracy-part", "eager"),
        (part(5000, 3913, 5, 4), "PASS", "accuracy-part", "eager"),
        *((part(n, round(0.78 * n)), "INCONCLUSIVE", "accuracy-part", "eager") for n in (1, 200)),
        (rehearsed(), "PASS", "accuracy-rehearsal", "eager"),
        (rehearsed(provenance="simulated"), "PASS", "accuracy-rehearsal", "eager"),
        (rehearsed(l2=BOUND), "PASS", "accuracy-rehearsal", "eager"),
        # A flip within rounding may move the score by one.
        (rehearsed([flip("a", 1, 2)], right=2), "PASS", "accuracy-rehearsal", "eager"),
        (part(1000, 783, provenance="simulated"), "PASS", "accuracy-rehearsal", "eager"),
        # It was given labels of other images, say.
        (part(9, 0, provenance="simulated"), "INCONCLUSIVE", "accuracy-rehearsal", "eager"),
    ],
)
def test_the_measurement_chooses_the_rule(measurement, kind, rule, reference):
    verdict = judge(measurement)
    assert (verdict.kind, verdict.rule, verdict.reference.kind) == (kind, rule, reference)
    if reference == "eager":
        assert verdict.reference.provenance == measurement.provenance
    no_eager = kind == "INCONCLUSIVE" and reference == "published"
    assert (verdict.figures.get(FigureName.IMAGES_TO_DECIDE) == 50_000) == no_eager
    offered = measurement.provenance == "real" and not no_eager
    assert (SMALLEST in verdict.figures) == offered


@pytest.mark.parametrize(
    ("measurement", "code"),
    [
        (rehearsed([flip("a", 1, 2, excused=False)]), C.PREDICTIONS_DIFFER),
        (rehearsed([flip("a", 1, 2)], right=1), C.SCORE_DIFFERS),
        (rehearsed(right=2), C.SCORE_DIFFERS),  # labels off by one in one of the two
        (rehearsed(right=4), C.SCORE_DIFFERS),
        (rehearsed(l2=0.0301), C.LOGITS_DIFFER),
        (rehearsed(l2=math.nan), C.LOGITS_DIFFER),
        (rehearsed(problems=(NAN,)), C.NOT_FINITE),
        (rehearsed(expected_images=5), C.IMAGES_MISSING),
        (rehearsed(reference_scores=scores(3, 3)), C.EAGER_IMAGES_MISSING),
        (whole_beside_eager(0.2), C.LOGITS_DIFFER),
        (whole(39_120, scores=scores(49_999, 39_130)), C.IMAGES_MISSING),
        (whole(39_120, scores=scores(50_001, 39_130)), C.IMAGES_MISSING),
        (part(5000, 3913, 5, 4, l2=0.031), C.LOGITS_DIFFER),
        (part(5000, 3913, 5, 4, reference_scores=scores(4995, 3913)), C.EAGER_IMAGES_MISSING),
        (part(5000, 3913, 5, 4, reference_scores=scores(5000, 3900)), C.OTHER_PAIRS),
        (part(5000, 3913, 5, 4, scores=scores(5000, 2)), C.OTHER_PAIRS),
        (part(5000, 3913, 5, 4, scores=scores(0, 0)), C.OTHER_PAIRS),
        (part(5000, 3913, 5, 4, fidelity=None), C.OTHER_PAIRS),
        (part(5000, 3500, lost=100), C.REFERENCE_OFF),
    ],
)
def test_what_fails_whatever_the_score(measurement, code):
    verdict = judge(measurement)
    assert verdict.kind == "FAIL"
    assert code in codes(verdict)
    assert SMALLEST not in verdict.figures


@pytest.mark.parametrize(
    ("rule", "measurement", "kind"),
    [
        # 1 % of 80 is 0.8: 39,600 of 50,000 is 79.2 % to the last digit, one image less is not.
        (BOTH, whole(39_600), "PASS"),
        (BOTH, whole(39_599), "FAIL"),
        (BOTH, whole(40_400), "PASS"),
        (BOTH, whole(40_401), "FAIL"),
        (DROP, whole(39_600), "PASS"),
        (DROP, whole(39_599), "FAIL"),
        (DROP, whole(50_000), "PASS"),
        # Of a part the whole interval decides.
        (BOTH, part(5000, 4000, 100, 0), "FAIL"),
        (DROP, part(5000, 4000, 100, 0), "FAIL"),
        (BOTH, part(5000, 4000, 0, 100), "FAIL"),
        (DROP, part(5000, 4000, 0, 100), "PASS"),
        (BOTH, part(5000, 4000, 40, 0), "INCONCLUSIVE"),
        (BOTH, part(5000, 4000, 0, 40), "INCONCLUSIVE"),
    ],
)
def test_tolerances_at_their_edges(rule, measurement, kind):
    verdict = judge(measurement, rule, PUBLISHED.model_copy(update={"top1": 80.0}))
    assert (verdict.kind, codes(verdict)) == (kind, [])


@pytest.mark.parametrize(
    ("rule", "measurement", "kind"),
    [
        (BOTH, part(5, 5), "PASS"),
        # 1 % of 100 is one image.
        (BOTH, part(200, 100, lost=1), "PASS"),
        (BOTH, part(200, 100, lost=2), "FAIL"),
        (BOTH, part(200, 100, gained=2), "FAIL"),
        (DROP, part(200, 100, gained=2), "PASS"),
        (BOTH, part(5, 5, l2=0.031), "FAIL"),
        (BOTH, part(5, 5, scores=scores(4, 4)), "FAIL"),
        (BOTH, part(5, 0), "INCONCLUSIVE"),  # labels of other images, say
        (BOTH, whole(5, images=5), "INCONCLUSIVE"),  # no weights for an eager pass
    ],
)
def test_a_data_set_of_ones_own_is_held_against_eager_on_all_of_it(rule, measurement, kind):
    own = dataclasses.replace(measurement, own_set=measurement.expected_images)
    verdict = judge(own, rule)
    assert (verdict.kind, verdict.rule) == (kind, "accuracy-own-set")
    assert verdict.reference.kind == "eager"
    assert "accepted" not in verdict.sentence


def test_a_part_of_ones_own_data_set_is_not_held_against_what_is_published():
    measurement = part(1000, 950)  # 95 %, where 78.26 % is published
    assert codes(judge(measurement)) == [C.REFERENCE_OFF]
    own = judge(dataclasses.replace(measurement, own_set=2000))
    assert (own.kind, own.rule, codes(own)) == ("PASS", "accuracy-part", [])


@given(st.integers(30_000, 45_000), st.sampled_from([BOTH, DROP]))
def test_the_smallest_tolerance_passes_and_a_smaller_one_does_not(correct, rule):
    smallest = judge(whole(correct), rule).figures[SMALLEST]
    for tolerance, kind in ((smallest, "PASS"), (smallest - 1e-4, "FAIL")):
        if tolerance >= 0:
            changed = rule.model_copy(update={"tolerance_percent": round(tolerance, 4)})
            assert judge(whole(correct), changed).kind == kind


@given(st.integers(0, 120), st.integers(0, 120), st.sampled_from([BOTH, DROP]))
def test_the_smallest_tolerance_of_a_part_passes(lost, gained, rule):
    measured = part(5000, 3913, lost=lost, gained=gained)
    smallest = judge(measured, rule).figures[SMALLEST]
    changed = rule.model_copy(update={"tolerance_percent": smallest})
    assert judge(measured, changed).kind == "PASS"
    if smallest > 0.01:
        smaller = rule.model_copy(update={"tolerance_percent": smallest - 0.01})
        assert judge(measured, smaller).kind != "PASS"


def test_figures_of_guide_000s_example_of_a_part_and_of_a_rehearsal():
    # 78.24 % of 78.26 %: guide 000 says 0.0003.
    assert judge(whole(39_120)).figures[FigureName.RELATIVE_DIFFERENCE] == -0.0256
    assert judge(whole_beside_eager()).figures[SMALLEST] == 0.0256
    figures = judge(part(5000, 3913, lost=5, gained=4)).figures
    low, high = figures[FigureName.DIFFERENCE_INTERVAL]
    assert low < figures[FigureName.DIFFERENCE_POINTS] == -0.02 < high
    assert figures[FigureName.ONLY_EAGER_RIGHT] == 5
    assert figures[FigureName.ONLY_COMPILED_RIGHT] == 4
    figures = judge(rehearsed([flip("a", 1, 2), flip("b", 1, 2, excused=False)])).figures
    assert (figures[FigureName.FLIPS], figures[FigureName.FLIPS_EXCUSED]) == (2, 1)


# A part of the set -----------------------------------------------------------------------


def test_pairs_are_counted_from_flips_that_no_record_has_cut():
    measured = part(5000, 3913, lost=5, gained=4)
    assert accuracy.paired_of(measured) == Paired(5000, 3908, 5, 4)
    assert measured.fidelity is not None
    cut = dataclasses.replace(measured.fidelity, flips_total=9000)
    assert accuracy.paired_of(dataclasses.replace(measured, fidelity=cut)) is None


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


def test_the_reference_is_off_outside_its_999_interval_and_not_within():
    def interval(right):
        return statistics.binomial_interval(right, 5000, 0.999)

    low = next(k for k in range(3750, 3913) if interval(k)[1] >= 0.7826)
    high = next(k for k in range(4100, 3913, -1) if interval(k)[0] <= 0.7826)
    assert interval(3750)[1] < 0.7826 < interval(4100)[0]
    for inside, outside in ((low, low - 1), (high, high + 1)):
        assert judge(part(5000, inside)).kind == "PASS"
        assert codes(judge(part(5000, outside))) == [C.REFERENCE_OFF]


@pytest.mark.parametrize("rule", [BOTH, DROP])
def test_from_so_many_images_on_a_pass_is_possible(rule):
    least = accuracy.images_to_pass(PUBLISHED, rule)
    assert least is not None
    for n, kind, words in ((least, "PASS", "a PASS is"), (least - 1, "INCONCLUSIVE", "no PASS is")):
        assert judge(part(n, round(0.7826 * n)), rule).kind == kind
        assert f"{words} possible" in accuracy.describe_part(n, PUBLISHED, rule)
    one, two = (accuracy.images_to_pass(PUBLISHED, rule, discordant_percent=p) or 0 for p in (1, 2))
    assert least < one < two
    tight = rule.model_copy(update={"tolerance_percent": 0.001})
    assert accuracy.images_to_pass(PUBLISHED, tight) is None
    assert "needs the whole set" in accuracy.describe_part(1000, PUBLISHED, tight)
    assert "the whole set, held" in accuracy.describe_part(50_000, PUBLISHED, rule)


# Notes and provenance --------------------------------------------------------------------


@pytest.mark.parametrize(
    "measurement",
    [whole(39_120), whole(39_120, problems=(NAN,)), whole(780, images=1000), part(5000, 3500)],
)  # fmt: skip
def test_a_note_is_said_beside_every_real_verdict(measurement):
    assert judge(measurement, note="a note").sentence == f"{judge(measurement).sentence}; a note"


@pytest.mark.parametrize(
    ("rule", "measurement"),
    [
        *((judge_whole_set, whole(39_130, provenance=p)) for p in ("rehearsal", "simulated")),
        *((judge_part, part(5000, 3913, provenance=p)) for p in ("rehearsal", "simulated")),
        (judge_rehearsal, rehearsed(provenance="real")),
        (judge_rehearsal, rehearsed(reference_scores=None, fidelity=None)),
    ],
)
def test_nothing_crosses_provenances(rule, measurement):
    with pytest.raises(ProvenanceError):
        if rule is judge_rehearsal:
            rule(measurement, bound=BOUND)
        else:
            rule(measurement, PUBLISHED, BOTH, bound=BOUND)
