"""The parts of a diagnosis: suspects, agreement, orders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.diagnosis import pairing
from harness.diagnosis.agreement import agree


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
