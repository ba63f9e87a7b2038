"""Verdicts: each rule at its edge, and that provenance is never crossed."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.catalog.load import load_catalog
from harness.judge import statistics, verdicts
from harness.judge.statistics import Paired
from harness.judge.verdicts import Answer, BatchPass, ProvenanceError
from harness.measure import accuracy, throughput
from harness.measure import attempt as measuring
from harness.records.conditions import Condition, Setup
from harness.records.values import (
    AccuracyMeasurement,
    Fidelity,
    Flip,
    Scores,
    ThroughputMeasurement,
    Timing,
)
from tests.selftest.fakes import image_set, predictions

CATALOG = load_catalog(Path(__file__).resolve().parents[2] / "baselines.yaml")
RULE_BOTH = CATALOG.models["seresnext101"].accuracy.rule
RULE_DROP = CATALOG.models["squeezenet1_1"].accuracy.rule
PUBLISHED = CATALOG.models["seresnext101"].accuracy.published  # 78.26


def rehearsed(compiled, reference, labels=None, **changes):
    labels = labels if labels is not None else [1, 2, 3, 4]
    images = image_set(labels)
    found = accuracy.measure(
        compiled,
        images,
        0,
        provenance="rehearsal",
        reference=reference,
        fidelity_bound=3e-2,
        seconds=1.0,
    )
    return dataclasses.replace(found, **changes)


def whole(top1_percent, images=50_000, **changes):
    correct = round(top1_percent / 100 * images)
    found = AccuracyMeasurement(
        provenance="real",
        expected_images=images,
        scores=Scores(images, (correct,) * 5),
        problems=(),
        fidelity=None,
        reference_scores=None,
        seconds=1.0,
    )
    return dataclasses.replace(found, **changes)


# Rehearsal -------------------------------------------------------------------------------


def test_equal_predictions_pass():
    same = predictions([1, 2, 3, 9])
    found = verdicts.judge_rehearsal_accuracy(rehearsed(same, same))
    assert found.kind == "PASS"
    assert found.difference_percent == 0.0
    assert "4 of 4 predictions" in found.sentence


def test_one_other_prediction_fails():
    found = verdicts.judge_rehearsal_accuracy(
        rehearsed(predictions([1, 2, 3, 8]), predictions([1, 2, 3, 9]))
    )
    assert found.kind == "FAIL"
    assert "1 of 4 predictions differ" in found.sentence


def test_logits_past_the_bound_fail_though_predictions_agree():
    compiled = predictions([1, 2, 3, 9])
    reference = predictions([1, 2, 3, 9])
    compiled.logits[:] *= 1.05
    found = verdicts.judge_rehearsal_accuracy(rehearsed(compiled, reference))
    assert found.kind == "FAIL"
    assert "relative L2" in found.sentence


def test_another_score_with_equal_logits_fails():
    same = predictions([1, 2, 3, 9])
    good = rehearsed(same, same)
    # Labels off by one in the compiled path alone: the logits cannot show it.
    shifted = accuracy.tally(same, image_set([2, 3, 4, 5]), 0).scores
    found = verdicts.judge_rehearsal_accuracy(dataclasses.replace(good, scores=shifted))
    assert found.kind == "FAIL"
    assert "top-1" in found.sentence


@pytest.mark.parametrize("images", [3, 5])
def test_another_number_of_images_fails(images):
    same = predictions([1, 2, 3, 9])
    found = verdicts.judge_rehearsal_accuracy(rehearsed(same, same, expected_images=images))
    assert found.kind == "FAIL"
    assert f"the set has {images}" in found.sentence


def test_an_eager_pass_over_fewer_images_fails():
    """The compiled model is held against nothing on what eager did not see."""
    compiled, eager = predictions([1, 2, 3, 9]), predictions([1, 2, 3])
    found = verdicts.judge_rehearsal_accuracy(rehearsed(compiled, eager))
    assert found.kind == "FAIL"
    assert "in the eager pass: 1 image without output" in found.sentence
    short = dataclasses.replace(rehearsed(compiled, compiled), reference_scores=Scores(3, (3,) * 5))
    found = verdicts.judge_rehearsal_accuracy(short)
    assert found.sentence == "the eager pass has 3 rows, the set has 4 images"


def test_a_problem_fails_whatever_the_score():
    same = predictions([1, 2, 3, 9])
    found = verdicts.judge_rehearsal_accuracy(rehearsed(same, same, problems=("NaN",)))
    assert (found.kind, found.sentence) == ("FAIL", "NaN")


def test_infinite_fidelity_fails():
    found = verdicts.judge_rehearsal_accuracy(
        rehearsed(predictions([1, 2, 3, 4], 1001), predictions([1, 2, 3, 4], 1000))
    )
    assert found.kind == "FAIL"


# Published -------------------------------------------------------------------------------


def test_guide_000s_own_example():
    found = verdicts.judge_published_accuracy(whole(78.24), PUBLISHED, RULE_BOTH)
    assert found.kind == "PASS"
    assert round(abs(found.figures["relative difference"]), 4) == 0.0003


@pytest.mark.parametrize(
    ("rule", "top1", "kind"),
    [
        (RULE_BOTH, 77.478, "PASS"),
        (RULE_BOTH, 77.476, "FAIL"),
        (RULE_BOTH, 79.042, "PASS"),
        (RULE_BOTH, 79.044, "FAIL"),
        (RULE_DROP, 77.478, "PASS"),
        (RULE_DROP, 77.476, "FAIL"),
        (RULE_DROP, 99.0, "PASS"),
    ],
)
def test_the_edges_of_one_percent(rule, top1, kind):
    assert verdicts.judge_published_accuracy(whole(top1), PUBLISHED, rule).kind == kind


def test_a_part_of_the_set_is_not_judged_against_the_published_figure():
    found = verdicts.judge_published_accuracy(whole(78.26, images=1000), PUBLISHED, RULE_BOTH)
    assert found.kind == "INCONCLUSIVE"
    assert found.figures["images that would decide"] == 50_000
    assert found.sentence.endswith("run all 50000, or give the weights in place of --onnx")


def test_a_lost_image_fails_the_whole_set():
    lost = whole(78.26, images=49_999, expected_images=50_000)
    assert verdicts.judge_published_accuracy(lost, PUBLISHED, RULE_BOTH).kind == "FAIL"


def test_the_whole_set_is_judged_on_counts_and_not_on_rounded_figures():
    # 1 % of 80 is 0.8: 39,600 of 50,000 is 79.2 % to the last digit, one image less is not.
    published = PUBLISHED.model_copy(update={"top1": 80.0})
    for rule in (RULE_BOTH, RULE_DROP):
        for correct, kind in ((39_600, "PASS"), (39_599, "FAIL")):
            found = verdicts.judge_published_accuracy(counted(correct), published, rule)
            assert found.kind == kind
    for correct, kind in ((40_400, "PASS"), (40_401, "FAIL")):
        found = verdicts.judge_published_accuracy(counted(correct), published, RULE_BOTH)
        assert found.kind == kind
    assert verdicts.judge_published_accuracy(counted(50_000), published, RULE_DROP).kind == "PASS"


def counted(correct, images=50_000):
    return whole(0, images=images, scores=Scores(images, (correct,) * 5))


@given(st.integers(30_000, 45_000), st.sampled_from([RULE_BOTH, RULE_DROP]))
def test_the_smallest_tolerance_that_passes_passes_and_a_smaller_one_does_not(correct, rule):
    found = verdicts.judge_published_accuracy(counted(correct), PUBLISHED, rule)
    smallest = found.figures["smallest tolerance that passes, %"]
    for tolerance, kind in ((smallest, "PASS"), (smallest - 1e-4, "FAIL")):
        if tolerance >= 0:
            changed = rule.model_copy(update={"tolerance_percent": round(tolerance, 4)})
            again = verdicts.judge_published_accuracy(counted(correct), PUBLISHED, changed)
            assert again.kind == kind


EAGER_TOO = {
    "fidelity": Fidelity(7e-3, 0.1, 1.0, ()),
    "reference_scores": Scores(50_000, (39_130,) * 5),
}


@pytest.mark.parametrize(
    "changes",
    [
        {"problems": ("NaN or infinity in the outputs of 1 image",)},
        {**EAGER_TOO, "fidelity": Fidelity(0.2, 9.0, 0.9, ())},
        {"scores": Scores(49_999, (39_130,) * 5)},
        {"scores": Scores(50_001, (39_130,) * 5), "expected_images": 50_001},
        {"scores": Scores(1000, (783,) * 5), "expected_images": 1000},
    ],
    ids=["problem", "logits", "lost image", "one image too many", "part"],
)
def test_no_tolerance_is_offered_where_none_would_pass(changes):
    found = verdicts.judge_published_accuracy(whole(78.24, **changes), PUBLISHED, RULE_BOTH)
    assert found.kind != "PASS"
    assert verdicts.SMALLEST not in found.figures
    sound = verdicts.judge_published_accuracy(whole(78.24, **EAGER_TOO), PUBLISHED, RULE_BOTH)
    assert sound.figures[verdicts.SMALLEST] == 0.0256


def test_what_is_known_of_the_weights_is_said_beside_every_real_verdict():
    note = "weights not verified: no digest is published"

    def sentence(measurement, note=note):
        return verdicts.judge_accuracy(measurement, PUBLISHED, RULE_BOTH, note=note).sentence

    for measurement in (
        whole(78.24),
        whole(70.0),
        whole(78.24, problems=("NaN",)),
        whole(78.24, images=1000),
        part(5000, 3913),
        part(5000, 3913, lost=100),
        part(5000, 3500),
        part(1000, 783, lost=5, gained=5),
    ):
        assert sentence(measurement) == f"{sentence(measurement, note='')}; {note}"


@pytest.mark.parametrize(
    ("model", "onnx", "words"),
    [
        ("seresnext101", (), ""),
        ("fixres", (), "weights not verified: no digest is published"),
        (
            "seresnext101",
            (("seresnext101", "a.onnx"),),
            "weights not verified: the ONNX file was given",
        ),
        ("seresnext101", (("fixres", "a.onnx"),), ""),
    ],
)
def test_weights_that_nobody_verified_are_spoken_of(model, onnx, words):
    case: Any = SimpleNamespace(
        model=CATALOG.models[model],
        bench=SimpleNamespace(
            settings=SimpleNamespace(onnx=onnx), target=SimpleNamespace(fidelity_bound=3e-2)
        ),
    )
    published = case.model.accuracy.published.top1
    sentence = measuring.judge_accuracy(case, whole(published)).sentence
    assert sentence.startswith("accepted: ")
    assert sentence.endswith(words)
    assert ("not verified" in sentence) == bool(words)
    same = predictions([1, 2, 3, 9])
    rehearsal = measuring.judge_accuracy(case, rehearsed(same, same))
    assert "not verified" not in rehearsal.sentence


def test_accepted_is_said_of_the_whole_set_alone():
    sentence = verdicts.judge_published_accuracy(whole(78.24), PUBLISHED, RULE_BOTH).sentence
    assert sentence.startswith("accepted: top-1 78.24 % against 78.26 %")
    assert (
        "accepted"
        not in verdicts.judge_published_accuracy(whole(70), PUBLISHED, RULE_BOTH).sentence
    )


def test_fidelity_is_a_gate_for_the_whole_set_where_there_was_an_eager_pass():
    good = whole(
        78.24, fidelity=Fidelity(7e-3, 0.1, 1.0, ()), reference_scores=Scores(50_000, (39_130,) * 5)
    )
    assert verdicts.judge_published_accuracy(good, PUBLISHED, RULE_BOTH).kind == "PASS"
    for l2 in (0.1, float("nan")):
        bad = dataclasses.replace(good, fidelity=Fidelity(l2, 9.0, 0.9, ()))
        found = verdicts.judge_published_accuracy(bad, PUBLISHED, RULE_BOTH)
        assert (found.kind, "relative L2" in found.sentence) == ("FAIL", True)


# A part of the set -----------------------------------------------------------------------


def part(n, eager_right, lost=0, gained=0, l2=7e-3, **changes):
    """A real pass over `n` images: eager right on so many, of which the compiled model loses
    `lost`; it gains others.
    """
    found = AccuracyMeasurement(
        provenance="real",
        expected_images=n,
        scores=Scores(n, (eager_right - lost + gained,) * 5),
        problems=(),
        fidelity=Fidelity(
            l2,
            0.1,
            1 - (lost + gained) / n,
            (
                *(Flip(f"lost{i}", 7, 7, 8, 9.5, 9.4, 0.1, 0.2) for i in range(lost)),
                *(Flip(f"gained{i}", 7, 8, 7, 9.5, 9.4, 0.1, 0.2) for i in range(gained)),
                *(Flip(f"both-wrong{i}", 7, 5, 6, 9.5, 9.4, 0.1, 0.2) for i in range(3)),
            ),
        ),
        reference_scores=Scores(n, (eager_right,) * 5),
        seconds=1.0,
    )
    return dataclasses.replace(found, **changes)


def judge_part(measurement, rule=RULE_BOTH, published=PUBLISHED, **options):
    return verdicts.judge_subset_accuracy(measurement, published, rule, **options)


def test_a_conversion_that_agrees_passes_in_these_words():
    found = judge_part(part(5000, 3913, lost=5, gained=4))
    assert found.kind == "PASS"
    assert found.sentence.startswith("conversion agrees on 5000 images: top-1 78.24 % where eager")
    assert "accepted" not in found.sentence
    assert found.figures["only eager right, images"] == 5
    assert found.figures["only compiled right, images"] == 4
    assert found.reference.kind == "eager"
    low, high = found.figures["99 % interval of the difference, points"]
    assert low < -0.02 < high


def test_the_pairs_come_from_the_flips():
    measurement = part(5000, 3913, lost=5, gained=4)
    assert verdicts.paired_of(measurement) == Paired(5000, 3908, 5, 4)
    given_pairs = judge_part(measurement, paired=Paired(5000, 3908, 5, 4))
    assert given_pairs == judge_part(measurement)


def test_a_drop_of_two_points_fails():
    found = judge_part(part(5000, 3913, lost=100))
    assert found.kind == "FAIL"
    assert "conversion changes the score on 5000 images" in found.sentence
    assert "-2.00 points" in found.sentence


def test_a_rise_fails_on_both_sides_and_not_where_a_drop_alone_is_a_fault():
    better = part(5000, 3913, gained=100)
    assert judge_part(better).kind == "FAIL"
    assert judge_part(better, RULE_DROP).kind == "PASS"
    worse = part(5000, 3913, lost=100)
    assert judge_part(worse, RULE_DROP).kind == "FAIL"


def test_between_the_two_it_says_how_many_images_would_decide():
    found = judge_part(part(1000, 783, lost=5, gained=5))
    assert found.kind == "INCONCLUSIVE"
    enough = found.figures["images that would decide"]
    assert f"about {enough} images would decide" in found.sentence
    # So many images at the same rates do decide, and one less does not.
    for images, decided in ((enough, True), (enough - 1, False)):
        low, high = statistics.tango_interval(
            5 * images / 1000, 5 * images / 1000, images, verdicts.PAIRED_CONFIDENCE
        )
        assert (max(-low, high) <= 0.007826) == decided


def test_what_only_the_whole_set_decides_is_said():
    # The difference lies on the tolerance: no part of the set tells its sides apart.
    found = judge_part(part(5000, 3913, lost=39))
    assert found.kind == "INCONCLUSIVE"
    assert "only the whole set of 50000 images can decide" in found.sentence


@pytest.mark.parametrize("n", [1, 2, 50, 200])
def test_few_images_cannot_pass(n):
    assert judge_part(part(n, round(0.78 * n))).kind == "INCONCLUSIVE"


@pytest.mark.parametrize("eager_right", [3500, 4300, 5])
def test_a_reference_that_is_off_fails_though_the_conversion_agrees(eager_right):
    # Labels off by one, another model's weights: wrong on both sides alike.
    found = judge_part(part(5000, eager_right))
    assert found.kind == "FAIL"
    assert verdicts.SMALLEST not in found.figures
    assert "the reference is off" in found.sentence
    assert "78.26" in found.sentence


def test_no_tolerance_is_offered_for_a_part_that_changes_its_score_on_a_wrong_reference():
    both = judge_part(part(5000, 3500, lost=100))
    assert both.sentence.startswith("conversion changes the score")
    assert verdicts.SMALLEST not in both.figures
    assert verdicts.SMALLEST in judge_part(part(5000, 3913, lost=100)).figures


def test_one_image_is_one_image():
    found = judge_part(part(1, 1))
    assert found.kind == "INCONCLUSIVE"
    assert found.sentence.startswith("1 image: ")
    assert found.reference.source == "eager PyTorch on the same 1 image"
    assert verdicts.describe_part(1, PUBLISHED, RULE_BOTH).startswith("1 image: ")
    assert "on 1 image;" in judge_part(whole(100.0, images=1)).sentence
    lost = judge_part(part(2, 2, scores=Scores(1, (1,) * 5))).sentence
    assert "1 row was scored, the set has 2 images" in lost


def test_the_reference_is_off_outside_its_999_interval_and_not_within():
    interval = statistics.binomial_interval
    low = next(k for k in range(3750, 3913) if interval(k, 5000, 0.999)[1] >= 0.7826)
    assert interval(3750, 5000, 0.999)[1] < 0.7826
    assert judge_part(part(5000, low)).kind == "PASS"
    assert judge_part(part(5000, low - 1)).kind == "FAIL"


def test_fidelity_is_a_gate_for_a_part_of_the_set():
    for l2 in (0.031, float("nan"), float("inf")):
        found = judge_part(part(5000, 3913, l2=l2))
        assert found.kind == "FAIL"
        assert "relative L2" in found.sentence
        assert verdicts.SMALLEST not in found.figures


@pytest.mark.parametrize(
    "changes",
    [
        {"problems": ("NaN or infinity in the outputs of 1 images",)},
        {"expected_images": 5001},
        {"reference_scores": Scores(5000, (3900,) * 5)},  # not those of the flips
        {"scores": Scores(4999, (3913,) * 5)},
        {"scores": Scores(5000, (2,) * 5)},
    ],
)
def test_facts_that_no_score_may_hide_fail_a_part_of_the_set(changes):
    found = judge_part(part(5000, 3913, lost=5, gained=4, **changes))
    assert found.kind == "FAIL"
    assert verdicts.SMALLEST not in found.figures


def test_pairs_of_other_images_are_refused():
    found = judge_part(part(5000, 3913), paired=Paired(4999, 3912, 0, 0))
    assert found.kind == "FAIL"
    assert "the same images" in found.sentence


def test_without_an_eager_pass_a_part_decides_nothing():
    found = judge_part(whole(78.26, images=1000))
    assert found.kind == "INCONCLUSIVE"
    assert "no eager pass" in found.sentence


@given(st.integers(0, 120), st.integers(0, 120), st.sampled_from([RULE_BOTH, RULE_DROP]))
def test_the_smallest_tolerance_of_a_part_passes(lost, gained, rule):
    measurement = part(5000, 3913, lost=lost, gained=gained)
    smallest = judge_part(measurement, rule).figures["smallest tolerance that passes, %"]
    changed = rule.model_copy(update={"tolerance_percent": smallest})
    assert judge_part(measurement, changed).kind == "PASS"
    if smallest > 0.01:
        smaller = rule.model_copy(update={"tolerance_percent": smallest - 0.01})
        assert judge_part(measurement, smaller).kind != "PASS"


@pytest.mark.parametrize("rule", [RULE_BOTH, RULE_DROP])
def test_plan_knows_from_how_many_images_a_pass_is_possible(rule):
    least = verdicts.images_to_pass(PUBLISHED, rule)
    assert least is not None
    for n, kind in ((least, "PASS"), (least - 1, "INCONCLUSIVE")):
        assert judge_part(part(n, round(0.7826 * n)), rule).kind == kind
    assert "no PASS is possible" in verdicts.describe_part(least - 1, PUBLISHED, rule)
    assert "a PASS is possible" in verdicts.describe_part(least, PUBLISHED, rule)
    assert "the whole set" in verdicts.describe_part(50_000, PUBLISHED, rule)


def test_more_flips_need_more_images():
    found = [
        verdicts.images_to_pass(PUBLISHED, RULE_BOTH, discordant_percent=p) for p in (0, 1, 2, 4)
    ]
    counts = [n for n in found if n is not None]
    assert len(counts) == 4
    assert counts == sorted(counts)
    tight = RULE_BOTH.model_copy(update={"tolerance_percent": 0.001})
    assert verdicts.images_to_pass(PUBLISHED, tight) is None
    assert "needs the whole set" in verdicts.describe_part(1000, PUBLISHED, tight)


def test_a_tolerance_is_relative_to_the_published_figure():
    assert verdicts.tolerance_points(PUBLISHED, RULE_BOTH) == Fraction(7826, 10_000)


def test_a_part_fails_whose_eager_pass_has_fewer_images():
    good = whole(78.2, 2000, expected_images=2000, fidelity=Fidelity(5e-3, 0.1, 1.0, ()))
    alike = dataclasses.replace(good, reference_scores=good.scores)
    assert verdicts.judge_accuracy(alike, PUBLISHED, RULE_BOTH).kind == "PASS"
    short = dataclasses.replace(good, reference_scores=Scores(1995, good.scores.correct))
    found = verdicts.judge_accuracy(short, PUBLISHED, RULE_BOTH)
    assert found.kind == "FAIL"
    assert found.sentence == "the eager pass has 1995 rows, the set has 2000 images"


# Batch sizes -----------------------------------------------------------------------------


def a_pass(labels, best, provenance="rehearsal", excused=(), names=None):
    names = names or [f"image{i}" for i in range(len(labels))]
    return BatchPass(
        provenance,
        {n: Answer(a, b, 9.5) for n, a, b in zip(names, labels, best, strict=True)},
        frozenset(excused),
    )


LABELS = [1] * 2000


def test_equal_batch_sizes_agree():
    same = [1] * 1900 + [2] * 100
    found = verdicts.judge_batch_consistency({4: a_pass(LABELS, same), 1: a_pass(LABELS, same)})
    assert found.kind == "PASS"
    assert "batch sizes 1, 4 agree" in found.sentence
    assert found.figures["predictions that differ"] == 0


@pytest.mark.parametrize("provenance", ["real", "rehearsal", "simulated"])
@pytest.mark.parametrize(("lost", "kind"), [(2, "PASS"), (3, "FAIL")])
def test_a_tenth_of_a_point_between_batch_sizes(provenance, lost, kind):
    ones = [1] * 2000
    found = verdicts.judge_batch_consistency(
        {
            1: a_pass(LABELS, ones, provenance),
            16: a_pass(LABELS, [2] * lost + ones[lost:], provenance),
        },
        whole_set=2000,
    )
    assert found.kind == kind
    assert found.reference.provenance == provenance
    flips = found.figures["flips"]
    assert [flip["name"] for flip in flips] == [f"image{i}" for i in range(lost)]
    assert flips[0]["by batch size"] == {
        "1": {"class": 1, "logit": 9.5},
        "16": {"class": 2, "logit": 9.5},
    }
    if kind == "FAIL":
        assert "batch size 16 is right on 3 images of 2000 less than batch size 1" in found.sentence


def test_two_sizes_that_differ_from_the_first_on_either_side_are_compared_with_each_other():
    ones, twos = [1] * 2000, [2, 2]
    # Batch 4 loses two images of which batch 1 is right, batch 8 gains two others.
    first = ones[:-2] + twos
    found = verdicts.judge_batch_consistency(
        {1: a_pass(LABELS, first), 4: a_pass(LABELS, twos + first[2:]), 8: a_pass(LABELS, ones)}
    )
    assert found.kind == "FAIL"
    assert found.measured == 0.2


def test_flips_that_cancel_out_are_listed():
    found = verdicts.judge_batch_consistency(
        {1: a_pass(LABELS, [2] + [1] * 1999), 4: a_pass(LABELS, [1] * 1999 + [2])}
    )
    assert found.kind == "PASS"
    assert found.figures["predictions that differ"] == 2
    assert "image0, image1999" in found.sentence


@pytest.mark.parametrize(("provenance", "kind"), [("rehearsal", "PASS"), ("real", "FAIL")])
def test_rounding_is_no_difference_of_a_few_rehearsed_images(provenance, kind):
    one, other = (
        a_pass([1] * 46, [1] * 46, provenance),
        a_pass([1] * 46, [2] + [1] * 45, provenance, excused=["image0"]),
    )
    found = verdicts.judge_batch_consistency({1: one, 4: other}, whole_set=46)
    assert found.kind == kind
    assert found.figures["predictions that differ"] == 1
    # Without the excuse, one image of 46 is two points.
    bare = dataclasses.replace(other, excused=frozenset())
    assert verdicts.judge_batch_consistency({1: one, 4: bare}, whole_set=46).kind == "FAIL"


@pytest.mark.parametrize("images", [200, 999, 1000, 5000])
def test_a_few_flips_fail_no_part_of_the_set(images):
    """One image of fewer than 1,000 is more than 0.1 point, and says nothing about the set."""
    labels = [1] * images
    few = 5
    found = verdicts.judge_batch_consistency(
        {
            1: a_pass(labels, labels, "real"),
            4: a_pass(labels, [2] * few + labels[few:], "real"),
            8: a_pass(labels, [*labels[:-1], 2], "real"),
        }
    )
    assert found.kind == "RECORDED"
    assert f"not decided on {images} images" in found.sentence
    assert "image0" in found.sentence
    assert len(found.figures["flips"]) == few + 1
    assert found.figures["images that would decide"] >= images


@pytest.mark.parametrize(("lost", "kind"), [(0, "PASS"), (1, "RECORDED"), (60, "FAIL")])
def test_a_part_is_decided_where_the_whole_interval_is_on_one_side(lost, kind):
    labels = [1] * 11_000  # z^2 = 10.8 for 99.9 %: without a flip, 0.1 point needs 10,817 images
    found = verdicts.judge_batch_consistency(
        {
            1: a_pass(labels, labels, "real"),
            4: a_pass(labels, labels, "real"),
            8: a_pass(labels, [2] * lost + labels[lost:], "real"),
        }
    )
    assert found.kind == kind
    low, high = found.figures["99.9 % interval of the largest difference, points"]
    assert low <= found.measured <= high
    wider = found.figures["smallest tolerance that passes, points"]
    assert wider >= high
    if kind == "FAIL":
        assert "batch size 8 is right on 60 images of 11000 less" in found.sentence


def test_on_a_part_two_sizes_that_differ_fail_beside_one_that_lies_between():
    labels = [1] * 5000
    found = verdicts.judge_batch_consistency(
        {
            1: a_pass(labels, [2] * 25 + labels[25:], "real"),
            4: a_pass(labels, labels, "real"),
            8: a_pass(labels, [2] * 10 + labels[10:], "real"),
        }
    )
    assert found.kind == "FAIL"
    assert "batch size 1 is right on 25 images of 5000 less than batch size 4" in found.sentence
    # Between 8 and 4 alone nothing is decided.
    pair = {4: a_pass(labels, labels, "real"), 8: a_pass(labels, [2] * 10 + labels[10:], "real")}
    assert verdicts.judge_batch_consistency(pair).kind == "RECORDED"


def test_other_images_or_other_labels_fail():
    whole_pass = a_pass(LABELS, LABELS)
    lost = a_pass(LABELS[1:], LABELS[1:])
    found = verdicts.judge_batch_consistency({1: whole_pass, 4: lost})
    assert found.kind == "FAIL"
    assert found.sentence == "1 image of batch size 1 missing at batch size 4 (image1999)"
    assert "smallest tolerance that passes, points" not in found.figures
    shifted = a_pass([2] * 2000, [1] * 2000)
    found = verdicts.judge_batch_consistency({1: whole_pass, 4: shifted})
    assert found.kind == "FAIL"
    assert "another label" in found.sentence
    foreign = a_pass([1], [1], names=["other"])
    assert verdicts.judge_batch_consistency({1: whole_pass, 4: foreign}).kind == "FAIL"


def test_one_batch_size_has_nothing_to_agree_with():
    found = verdicts.judge_batch_consistency({4: a_pass(LABELS, LABELS, "simulated")})
    assert found.kind == "RECORDED"
    assert found.reference.provenance == "simulated"
    assert verdicts.judge_batch_consistency({}).kind == "RECORDED"


def test_batch_sizes_of_several_provenances_are_refused():
    with pytest.raises(ProvenanceError):
        verdicts.judge_batch_consistency(
            {1: a_pass(LABELS, LABELS, "real"), 4: a_pass(LABELS, LABELS, "simulated")}
        )


# Throughput ------------------------------------------------------------------------------


def timed(mean_ms, spread=0.0, batch_size=4):
    rounds = tuple((mean_ms * (1 + spread * (i % 2)),) for i in range(6))
    return Timing(batch_size, 2, rounds)


def measured(ours, rivals=None, provenance="rehearsal", **changes):
    found = ThroughputMeasurement(
        provenance=provenance,
        timing=ours,
        rivals=rivals or {},
        precision_percent=10.0,
        budget_s=20.0,
        seconds=12.0,
        outputs_relative_l2=1e-6,
    )
    return dataclasses.replace(found, **changes)


@pytest.mark.parametrize(("mean_ms", "kind"), [(11.0, "PASS"), (11.2, "FAIL"), (5.0, "PASS")])
def test_eager_speed_less_ten_percent(mean_ms, kind):
    rivals = {"contiguous": timed(20.0), "channels-last": timed(10.0)}
    found = verdicts.judge_eager_speed(measured(timed(mean_ms), rivals))
    assert found.kind == kind
    assert found.reference.value == 400.0
    assert "channels-last" in found.reference.source


@pytest.mark.parametrize(
    ("ours", "eager"),
    [(timed(10.0, spread=0.5), timed(10.0)), (timed(10.0), timed(10.0, spread=0.5))],
)
def test_noise_on_either_side_is_inconclusive_and_not_red(ours, eager):
    found = verdicts.judge_eager_speed(measured(ours, {"c": eager}))
    assert found.kind == "INCONCLUSIVE"
    assert "other work on this machine" in found.sentence


@pytest.mark.parametrize(("mean_ms", "kind"), [(2.0, "PASS"), (100.0, "FAIL")])
def test_a_rehearsal_is_decided_where_the_whole_interval_lies_on_one_side(mean_ms, kind):
    found = verdicts.judge_eager_speed(measured(timed(mean_ms, spread=0.5), {"c": timed(10.0)}))
    assert found.kind == kind
    assert "which decides" in found.sentence


ENOUGH = {"rehearsal": throughput.REHEARSAL_MIN_ROUNDS, "real": throughput.MIN_ROUNDS,
          "simulated": throughput.MIN_ROUNDS}  # fmt: skip


@pytest.mark.parametrize("mean_ms", [1.0, 100.0])
@pytest.mark.parametrize("provenance", ENOUGH)
def test_a_few_rounds_decide_nothing_however_precise_they_look(provenance, mean_ms):
    def judged(rounds):
        ours = Timing(4, 2, ((mean_ms,),) * rounds)
        found = measured(ours, {}, provenance, budget_s=1.0)
        if provenance == "rehearsal":
            rivals = {"c": Timing(4, 2, ((10.0,),) * rounds)}
            return verdicts.judge_eager_speed(dataclasses.replace(found, rivals=rivals))
        return verdicts.judge_baseline(found, floor_of(provenance=provenance))

    least = ENOUGH[provenance]
    for rounds in range(2, least):
        found = judged(rounds)
        assert found.kind == "INCONCLUSIVE"
        assert f"{rounds} rounds were timed in a budget of 1 s, it takes {least}" in found.sentence
        assert verdicts.SMALLEST not in found.figures
    assert judged(least).kind == ("PASS" if mean_ms == 1.0 else "FAIL")


def test_a_published_figure_takes_its_least_time():
    quick = real(2000.0, seconds=9.99, budget_s=1.0)
    found = verdicts.judge_baseline(quick, floor_of())
    assert found.kind == "INCONCLUSIVE"
    assert "timed for 9.9 s in a budget of 1 s, it takes 10 s" in found.sentence
    assert verdicts.judge_baseline(real(2000.0, seconds=10.0), floor_of()).kind == "PASS"
    # Nothing that others would take for a figure, in words and in the record.
    recorded = verdicts.record_throughput(quick, "why")
    assert "not a figure to keep" in recorded.sentence
    assert quick.to_json()["precision_reached"] is False
    assert real(2000.0).to_json()["precision_reached"] is True
    rivals = {"c": timed(10.0)}
    assert verdicts.judge_eager_speed(measured(timed(1.0), rivals, seconds=1.0)).kind == "PASS"


def test_wrong_outputs_fail_however_short_the_timing():
    wrong = real(2000.0, seconds=1.0, outputs_relative_l2=0.5)
    assert verdicts.judge_baseline(wrong, floor_of()).kind == "FAIL"


@pytest.mark.parametrize("mean_ms", [1.0, 100.0])
def test_a_published_figure_asks_for_the_precision(mean_ms):
    noisy = measured(timed(mean_ms, spread=0.5), provenance="real")
    found = verdicts.judge_baseline(noisy, baseline("seresnext101", "ascend310p3", 4))
    assert found.kind == "INCONCLUSIVE"


@pytest.mark.parametrize(
    "changes", [{"outputs_relative_l2": 0.05}, {"outputs_relative_l2": float("nan")}]
)
def test_the_speed_of_a_wrong_model_counts_for_nothing(changes):
    fast = measured(timed(1.0), {"c": timed(10.0)}, **changes)
    assert verdicts.judge_eager_speed(fast).kind == "FAIL"
    assert verdicts.record_throughput(measured(timed(1.0), **changes), "why").kind == "FAIL"


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs_relative_l2": 0.5},
        {"problems": ("outputs have shape (4, 10)",)},
        {"conditions": (Condition("before", 0.0, busy="yes"),)},
    ],
    ids=["wrong outputs", "problem", "busy"],
)
def test_no_tolerance_is_offered_for_a_speed_that_none_would_pass(changes):
    for found in (
        verdicts.judge_baseline(real(500.0, **changes), floor_of()),
        verdicts.judge_eager_speed(measured(timed(20.0), {"c": timed(10.0)}, **changes)),
    ):
        assert found.kind != "PASS"
        assert verdicts.SMALLEST not in found.figures
    noisy = measured(timed(4.0, spread=0.5), provenance="real")
    assert verdicts.SMALLEST not in verdicts.judge_baseline(noisy, floor_of()).figures
    card = baseline("squeezenet1_1", "ascend310", 16)
    assert verdicts.SMALLEST not in verdicts.judge_baseline(real(500.0), card, chips=1).figures


@given(st.floats(1.0, 100.0), st.sampled_from([0.0, 0.01, 0.2, 0.5]))
def test_the_smallest_tolerance_of_a_rehearsal_passes(mean_ms, spread):
    ours = measured(timed(mean_ms, spread), {"c": timed(10.0)})
    found = verdicts.judge_eager_speed(ours)
    smallest = found.figures[verdicts.SMALLEST]
    wide = verdicts.judge_eager_speed(ours, tolerance_percent=smallest + 1e-9)
    assert wide.kind == "PASS"
    if smallest > 0.01:
        tight = verdicts.judge_eager_speed(ours, tolerance_percent=smallest - 0.01)
        assert tight.kind != "PASS"


def test_outputs_that_nobody_compared_are_spoken_of():
    words = "outputs were not compared with the ONNX model's"
    rivals = {"c": timed(10.0)}
    for unknown in (None, 1e-6):
        said = [
            verdicts.judge_baseline(real(2000.0, outputs_relative_l2=unknown), floor_of()),
            verdicts.judge_baseline(real(500.0, outputs_relative_l2=unknown), floor_of()),
            verdicts.judge_eager_speed(measured(timed(1.0), rivals, outputs_relative_l2=unknown)),
            verdicts.record_throughput(real(500.0, outputs_relative_l2=unknown), "why"),
        ]
        assert [found.kind for found in said] == ["PASS", "FAIL", "PASS", "RECORDED"]
        assert {words in found.sentence for found in said} == {unknown is None}


def test_weights_that_nobody_verified_are_named_beside_a_speed():
    words = "weights not verified: the ONNX file was given"
    for figure, fps, kind in (
        (floor_of(), 2000.0, "PASS"),
        (floor_of(), 500.0, "FAIL"),
        (None, 500.0, "RECORDED"),
    ):
        for note in ("", words):
            found = verdicts.judge_throughput(real(fps), figure, case="x", note=note)
            assert found.kind == kind
            assert (words in found.sentence) == bool(note)


def throughput_case(**given):
    """A case as far as a throughput is judged by it, with what `--onnx` gave."""
    model = CATALOG.models["seresnext101"]
    target = SimpleNamespace(fidelity_bound=3e-2)
    bench = SimpleNamespace(settings=SimpleNamespace(onnx=tuple(given.items())), target=target)
    case = SimpleNamespace(target="ascend310p3", batch_size=4, id="seresnext101-bs4-ascend310p3")
    return SimpleNamespace(bench=bench, model=model, case=case)


def test_a_given_onnx_file_is_named_in_a_real_runs_throughput():
    words = "network and weights not verified: the ONNX file was given"
    other = throughput_case(fixres="f.onnx")
    case = throughput_case(seresnext101="tiny.onnx")
    found = measuring.judge_throughput(case, real(2000.0))
    assert found.kind == "PASS"
    assert words in found.sentence
    assert words not in measuring.judge_throughput(other, real(2000.0)).sentence
    # A run on stand-ins compares the file instead; it never speaks of published weights.
    simulated = measured(timed(1.0), provenance="simulated")
    assert words not in measuring.judge_throughput(case, simulated).sentence


SPEEDS = st.floats(1e-2, 1e9).map(lambda fps: float(f"{fps:.6g}"))


@given(SPEEDS, st.floats(0.5, 2.0) | st.sampled_from([1.0, 0.99999, 1.00001, 1 - 1e-9]))
def test_no_sentence_has_powers_of_ten_or_hides_a_near_miss(fps, factor):
    figure = floor_of(fps)
    found = verdicts.judge_baseline(real(fps * factor), figure)
    match = re.fullmatch(
        r"([\d.,]+) fps against ([\d.,]+) \(.*?\)(?:: too slow)?[,;] at least ([\d.,]+) is asked "
        r"for;.*",
        found.sentence,
    )
    assert match is not None
    ours, theirs, asked = (float(text.replace(",", "")) for text in match.groups())
    assert theirs == asked == fps
    if found.kind == "FAIL":
        assert ours < asked
    recorded = verdicts.record_throughput(real(fps), "why").sentence
    assert re.match(r"[\d.,]+ fps measured", recorded)


def test_a_near_miss_is_told_in_as_many_digits_as_it_takes():
    near = verdicts.judge_baseline(real(10022.3), floor_of(10022.4)).sentence
    assert near.startswith("10,022.3 fps against 10,022.4 (")
    rivals = {"c": timed(10.0)}
    slow = verdicts.judge_eager_speed(measured(timed(10.0 / 0.8999), rivals))
    assert slow.kind == "FAIL"
    assert "0.8999 times eager" in slow.sentence.replace("0.89990", "0.8999")
    fast = verdicts.judge_eager_speed(measured(timed(10.0 / 40_000), rivals))
    assert "e+" not in fast.sentence


def test_what_nothing_is_published_for_is_recorded():
    found = verdicts.record_throughput(measured(timed(10.0)), "no figure is published")
    assert found.kind == "RECORDED"
    assert found.difference_percent is None


def baseline(model, target, batch_size):
    found = CATALOG.models[model].baseline(target, batch_size)
    assert found is not None
    return found


@pytest.mark.parametrize(("fps", "kind"), [(903.506, "PASS"), (903.4, "FAIL"), (1000.0, "PASS")])
def test_a_baseline_is_a_floor(fps, kind):
    ours = timed(4000.0 / fps)
    found = verdicts.judge_baseline(
        measured(ours, provenance="real"), baseline("seresnext101", "ascend310p3", 4)
    )
    assert found.kind == kind


def test_a_cards_figure_takes_all_its_chips():
    card = baseline("squeezenet1_1", "ascend310", 16)
    ours = measured(timed(16000.0 / 2505.7, batch_size=16), provenance="real")
    assert verdicts.judge_baseline(ours, card, chips=4).kind == "PASS"
    assert verdicts.judge_baseline(ours, card, chips=1).kind == "INCONCLUSIVE"


IDLE = tuple(
    Condition(moment, 0.0, health="OK", busy="no", throttled="no")
    for moment in ("before", "during", "after")
)


def real(fps, **changes):
    return measured(timed(4000.0 / fps), provenance="real", **changes)


def floor_of(fps=903.506, **changes):
    return baseline("seresnext101", "ascend310p3", 4).model_copy(update={"fps": fps, **changes})


@pytest.mark.parametrize("fps", [2000.0, 500.0])
@pytest.mark.parametrize(
    ("change", "word"),
    [({"busy": "yes", "note": "process 4711"}, "busy"), ({"throttled": "yes"}, "throttled"),
     ({"health": "Alarm"}, "unhealthy (Alarm)")],
)  # fmt: skip
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_device_that_was_not_its_own_decides_nothing(fps, change, word, at):
    looks = [*IDLE]
    looks[at] = dataclasses.replace(looks[at], **change)
    found = verdicts.judge_baseline(real(fps, conditions=tuple(looks)), floor_of())
    assert found.kind == "INCONCLUSIVE"
    assert f"{word} {looks[at].moment} the measurement" in found.sentence
    rivals = {"c": timed(10.0)}
    rehearsal = measured(timed(1.0), rivals, conditions=tuple(looks))
    assert verdicts.judge_eager_speed(rehearsal).kind == "INCONCLUSIVE"
    recorded = verdicts.record_throughput(real(fps, conditions=tuple(looks)), "why")
    assert recorded.kind == "INCONCLUSIVE"  # a figure that others would take for one
    assert word in recorded.sentence


def test_wrong_outputs_fail_on_a_busy_device_too():
    busy = (dataclasses.replace(IDLE[0], busy="yes"),)
    wrong = real(2000.0, conditions=busy, outputs_relative_l2=0.5)
    assert verdicts.judge_baseline(wrong, floor_of()).kind == "FAIL"


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (IDLE, ""),
        ((), "whether the device was idle is not known"),
        (IDLE[:2], "whether the device was idle after is not known"),
        ((IDLE[0], dataclasses.replace(IDLE[1], busy="unknown"), IDLE[2]), "idle during is not"),
        (tuple(dataclasses.replace(c, busy="unknown") for c in IDLE), "idle is not known"),
    ],
)
def test_unknown_idleness_is_judged_and_said(conditions, words):
    found = verdicts.judge_baseline(real(2000.0, conditions=conditions), floor_of())
    assert found.kind == "PASS"
    assert words in found.sentence
    assert ("not known" in found.sentence) == bool(words)


def test_chips_are_those_that_were_counted():
    card = baseline("squeezenet1_1", "ascend310", 16)
    assert card.chips_per_card == 4
    ours = measured(timed(16000.0 / 2505.7, batch_size=16), provenance="real")
    kinds = {
        chips: verdicts.judge_baseline(
            dataclasses.replace(ours, setup=Setup(chip="Ascend310", chips=chips)), card
        ).kind
        for chips in (1, 2, 4, 8)
    }
    # One chip in a container is no card, and no slow one either.
    assert kinds == {1: "INCONCLUSIVE", 2: "INCONCLUSIVE", 4: "PASS", 8: "INCONCLUSIVE"}
    uncounted = verdicts.judge_baseline(ours, card)
    assert uncounted.kind == "INCONCLUSIVE"
    assert "were not counted" in uncounted.sentence


def test_a_chip_that_is_known_by_its_name_alone_was_not_counted():
    """Without npu-smi the options name chip and card: nobody counted, and nobody counted one."""
    card = baseline("fixres", "ascend310p3", 1)
    assert (card.unit, card.chips_per_card) == ("card", 1)
    setup = Setup(chip="Ascend310P3", card="Atlas 300I Pro")
    ours = measured(timed(500.0 / card.fps, batch_size=1), provenance="real", setup=setup)
    found = verdicts.judge_baseline(ours, card)
    assert found.kind == "INCONCLUSIVE"
    assert "were not counted" in found.sentence
    assert "1 was counted" not in found.sentence
    assert found.figures["chips counted"] == "not counted"
    counted = dataclasses.replace(ours, setup=dataclasses.replace(ours.setup, chips=1))
    assert verdicts.judge_baseline(counted, card).kind == "PASS"


def test_a_chips_figure_takes_one_chip_whatever_is_on_the_card():
    setup = Setup(chip="Ascend310P3", chips=2)
    assert verdicts.judge_baseline(real(500.0, setup=setup), floor_of()).kind == "FAIL"


def test_what_the_baseline_and_the_run_do_not_have_in_common_is_said():
    figure = floor_of(
        method="whole-dataset", tuning="RL,GA", card="Atlas 300I Pro", toolchain="CANN 5.1.RC2"
    )
    setup = Setup(
        driver="api",
        chip="Ascend310P3",
        card="Atlas 300I Duo",
        toolchain="CANN 8.0.RC2",
        note="this atc has no --auto_tune_mode: untuned",
    )
    found = verdicts.judge_baseline(real(2000.0, setup=setup), figure)
    assert found.kind == "PASS"
    for words in (
        "method pure-inference, the baseline's whole-dataset",
        "tuning none (this atc has no --auto_tune_mode: untuned), the baseline's RL,GA",
        "card Atlas 300I Duo, the baseline's Atlas 300I Pro",
        "toolchain CANN 8.0.RC2, the baseline's CANN 5.1.RC2",
    ):
        assert words in found.sentence
    assert "chip " not in found.sentence


def test_what_is_not_known_of_both_is_no_difference():
    figure = floor_of(
        method="not-stated", tuning="not-stated", card="not stated", toolchain="not stated"
    )
    assert verdicts.setup_differences(figure, Setup(card="x", toolchain="y")) == []
    alike = floor_of(
        method="pure-inference", tuning="none", card="Atlas 300I Pro", toolchain="CANN 7"
    )
    assert verdicts.setup_differences(alike, Setup()) == []
    assert (
        verdicts.setup_differences(alike, Setup(card="ATLAS 300I  Pro", toolchain="CANN 7")) == []
    )


def test_drift_and_outliers_are_figures_and_a_strong_drift_is_said():
    slower = Timing(4, 2, tuple((4.0 + 0.2 * (i >= 10) + 0.001 * (i % 3),) for i in range(20)))
    found = verdicts.judge_baseline(measured(slower, provenance="real"), floor_of())
    assert "the second half of the rounds was 5.0 % slower than the first" in found.sentence
    assert found.figures["drift is significant at 99 %"]
    steady = Timing(4, 2, tuple((4.0, 4.01, 3.99, 4.0, 40.0 if i == 7 else 4.0) for i in range(20)))
    found = verdicts.judge_baseline(
        measured(steady, provenance="real", precision_percent=30.0), floor_of()
    )
    assert found.figures["outliers"] == 1
    assert "second half" not in found.sentence


def test_rounds_that_would_decide():
    found = verdicts.judge_baseline(
        measured(timed(4.0, spread=0.5), provenance="real", precision_percent=1.0), floor_of()
    )
    assert found.kind == "INCONCLUSIVE"
    assert found.figures["rounds that would decide"] > 1000
    precise = verdicts.judge_baseline(real(903.506), floor_of())
    assert "rounds that would decide" not in precise.figures


@given(st.floats(100, 2000).map(lambda fps: round(fps, 2)))
def test_the_smallest_tolerance_of_a_speed_passes(fps):
    smallest = verdicts.judge_baseline(real(fps), floor_of()).figures[
        "smallest tolerance that passes, %"
    ]
    assert verdicts.judge_baseline(real(fps), floor_of(tolerance_percent=smallest)).kind == "PASS"
    if smallest > 0.01:
        tight = floor_of(tolerance_percent=smallest - 0.01)
        assert verdicts.judge_baseline(real(fps), tight).kind == "FAIL"


# The rule that a measurement calls for -----------------------------------------------------


def test_the_measurement_chooses_the_accuracy_rule():
    def kind(measurement):
        found = verdicts.judge_accuracy(measurement, PUBLISHED, RULE_BOTH)
        return found.reference.kind, found.reference.provenance

    same = predictions([1, 2, 3, 9])
    assert kind(rehearsed(same, same)) == ("eager", "rehearsal")
    assert kind(rehearsed(same, same, provenance="simulated")) == ("eager", "simulated")
    assert kind(whole(78.26)) == ("published", "real")
    assert kind(part(50_000, 39_130)) == ("published", "real")
    assert kind(part(1000, 783)) == ("eager", "real")
    assert kind(whole(78.26, images=1000)) == ("published", "real")


def test_the_measurement_chooses_the_throughput_rule():
    def judge(measurement, figure):
        found = verdicts.judge_throughput(measurement, figure, case="x-bs4-y")
        return found.kind, found.reference.kind, found.sentence

    rivals = {"c": timed(1000.0)}
    assert judge(measured(timed(1.0), rivals), floor_of())[:2] == ("PASS", "eager-speed")
    assert judge(real(2000.0), floor_of())[:2] == ("PASS", "baseline")
    for figure, words in (
        (None, "no figure is published for x-bs4-y"),
        (floor_of(not_comparable="fed 224 x 224", judged=False), "fed 224 x 224"),
        (floor_of(judged=False), "only records"),
        (floor_of(chip="Ascend310"), "the published figure is a Ascend310's"),
    ):
        setup = Setup(chip="Ascend310P3")
        kind, reference, sentence = judge(real(2000.0, setup=setup), figure)
        assert (kind, reference) == ("RECORDED", "none")
        assert words in sentence
    same_chip = real(2000.0, setup=Setup(chip="NVIDIA Tesla T4"))
    assert judge(same_chip, floor_of(chip="Tesla T4"))[1] == "baseline"


def test_a_simulated_speed_is_held_against_simulated_figures_alone():
    fast = measured(timed(1.0), provenance="simulated", setup=Setup(chip="Ascend310P3"))
    found = verdicts.judge_throughput(fast, floor_of(), case="x")
    assert (found.kind, found.reference.provenance) == ("RECORDED", "simulated")
    assert "903" not in found.sentence
    simulated = floor_of(provenance="simulated")
    found = verdicts.judge_throughput(fast, simulated, case="x")
    assert (found.kind, found.reference.provenance) == ("PASS", "simulated")
    with pytest.raises(ProvenanceError):
        verdicts.judge_baseline(real(2000.0), simulated)


def test_a_simulated_accuracy_is_judged_like_a_rehearsals():
    same = predictions([1, 2, 3, 9])
    good = verdicts.judge_rehearsal_accuracy(rehearsed(same, same, provenance="simulated"))
    assert (good.kind, good.reference.provenance) == ("PASS", "simulated")
    other = rehearsed(predictions([1, 2, 3, 8]), same, provenance="simulated")
    assert verdicts.judge_rehearsal_accuracy(other).kind == "FAIL"


# Provenance ------------------------------------------------------------------------------


@pytest.mark.parametrize("provenance", ["rehearsal", "simulated"])
def test_nothing_rehearsed_or_simulated_is_held_against_a_published_figure(provenance):
    with pytest.raises(ProvenanceError):
        verdicts.judge_published_accuracy(whole(78.26, provenance=provenance), PUBLISHED, RULE_BOTH)
    with pytest.raises(ProvenanceError):
        judge_part(part(5000, 3913, provenance=provenance))
    with pytest.raises(ProvenanceError):
        verdicts.judge_baseline(
            measured(timed(1.0), provenance=provenance), baseline("fixres", "ascend310p3", 1)
        )


def test_nothing_real_passes_by_a_rehearsals_rules():
    same = predictions([1, 2, 3, 9])
    with pytest.raises(ProvenanceError):
        verdicts.judge_rehearsal_accuracy(rehearsed(same, same, provenance="real"))
    with pytest.raises(ProvenanceError):
        verdicts.judge_eager_speed(measured(timed(1.0), {"c": timed(1.0)}, provenance="real"))
