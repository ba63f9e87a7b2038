"""The parts of a diagnosis: agreement, orders, who is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.stages import Stage
from harness.diagnosis import pairing
from harness.diagnosis.agreement import agree
from harness.diagnosis.words import About, Findings, Restored, words


def test_agreement_of_equal_and_of_other_logits():
    logits = np.random.default_rng(1).standard_normal((6, 10)).astype(np.float32)
    same = agree(logits, logits)
    assert (same.relative_l2, same.largest, same.equal) == (0.0, 0.0, 6)
    assert same.cosine == pytest.approx(1.0)
    spoiled = logits.copy()
    spoiled[2, 3] = np.nan
    assert not agree(spoiled, logits).within(1.0)
    assert agree(spoiled, logits).equal == 5
    assert not agree(logits[:, :9], logits).within(1.0)
    assert agree(np.zeros_like(logits), logits).relative_l2 == pytest.approx(1.0)


@given(
    st.integers(8, 40),
    st.sampled_from([1, 4, 8]),
    st.sampled_from(["roll", "batch", "reverse"]),
    st.integers(1, 3),
)
def test_orders_give_back_what_was_mixed_up(count, batch, how, shift):
    names = [f"image{i:03d}" for i in range(count)]
    labels = np.arange(count)
    right = np.arange(count) * 7
    if how == "roll":
        mixed = np.roll(right, shift)
    elif how == "reverse":
        mixed = right[::-1]
    else:
        parts = [right[i : i + batch] for i in range(0, count, batch)]
        mixed = np.concatenate([np.roll(part, shift) for part in parts])
    assert any(
        np.array_equal(mixed[order], right) for _, order in pairing.orders(names, labels, batch)
    ) or np.array_equal(mixed, right)


def test_chance_is_not_a_suspect():
    generator = np.random.default_rng(3)
    before, after = generator.random((2, 60)) < 0.5
    assert pairing.gained(before, after) > pairing.CERTAIN
    assert pairing.gained(np.zeros(12, bool), np.ones(12, bool)) == pytest.approx(2.0**-12)
    assert pairing.gained(np.ones(12, bool), np.zeros(12, bool)) == pytest.approx(1.0)
    assert pairing.gained(np.zeros(4000, bool), np.ones(4000, bool)) < 1e-9


@pytest.mark.parametrize("about", About)
@pytest.mark.parametrize("stage", [None, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE])
def test_a_suspect_that_is_found_is_named_whichever_stage_departs(stage, about):
    logits = np.ones((2, 3), np.float32)
    restored = Restored("labels shifted by one (+1)", "restores the score", about)
    # Where the input is at fault, the mistake that makes what is fed is named.
    fed = None if about is About.INPUT else "resized to a square"
    difference = agree(logits, 2 * logits)
    findings = Findings(stage=stage, difference=difference, fed=fed, restored=restored)
    blamed, suspect, summary = words(findings, 8, 3e-2)
    assert suspect == restored.name
    assert restored.name in summary
    if stage is not None and fed is None:  # only an artifact departs
        assert blamed is stage
