"""Verdicts: each rule at its edge, and that provenance is never crossed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness import accuracy, verdicts
from harness.accuracy import AccuracyMeasurement, Scores
from harness.catalog import load_catalog
from harness.throughput import ThroughputMeasurement, Timing
from harness.verdicts import ProvenanceError
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
    shifted = accuracy.score(same, image_set([2, 3, 4, 5]), 0)
    found = verdicts.judge_rehearsal_accuracy(dataclasses.replace(good, scores=shifted))
    assert found.kind == "FAIL"
    assert "top-1" in found.sentence


@pytest.mark.parametrize("images", [3, 5])
def test_another_number_of_images_fails(images):
    same = predictions([1, 2, 3, 9])
    found = verdicts.judge_rehearsal_accuracy(rehearsed(same, same, expected_images=images))
    assert found.kind == "FAIL"
    assert f"the set has {images}" in found.sentence


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


def test_a_lost_image_fails_the_whole_set():
    lost = whole(78.26, images=49_999, expected_images=50_000)
    assert verdicts.judge_published_accuracy(lost, PUBLISHED, RULE_BOTH).kind == "FAIL"


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
        budget_s=10.0,
        seconds=5.0,
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
    assert verdicts.judge_baseline(ours, card, chips=1).kind == "FAIL"


# Provenance ------------------------------------------------------------------------------


@pytest.mark.parametrize("provenance", ["rehearsal", "simulated"])
def test_nothing_rehearsed_or_simulated_is_held_against_a_published_figure(provenance):
    with pytest.raises(ProvenanceError):
        verdicts.judge_published_accuracy(whole(78.26, provenance=provenance), PUBLISHED, RULE_BOTH)
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
