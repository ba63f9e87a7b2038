"""The parts of a diagnosis: suspects, agreement, orders."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.diagnosis import devices, pairing
from harness.diagnosis.agreement import agree
from harness.diagnosis.suspects import suspects
from harness.diagnosis.words import Findings, words
from harness.stages.inference import outputs_of
from tests.selftest.fakes import FakeSession
from tests.selftest.running import ROOT


def test_every_model_has_its_suspects_once():
    catalog = load_catalog(ROOT / "baselines.yaml")
    for model in catalog.models.values():
        names = [name for name, _ in suspects(model, catalog)]
        assert len(set(names)) == len(names)
        assert "channels swapped (BGR for RGB)" in names
        assert sum("mean and std" in name for name in names) >= 3
        assert any("interpolation" in name for name in names)
        assert any("square" in name or "short side" in name for name in names)


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


def test_outputs_leave_padding_out():
    session = FakeSession(lambda view: view.reshape(4, -1)[:, :10].copy())
    images = np.arange(6 * 12, dtype=np.float32).reshape(6, 3, 2, 2)
    assert np.array_equal(outputs_of(session, images), images.reshape(6, -1)[:, :10])


@pytest.mark.parametrize(
    ("ran_on", "without", "moved"),
    [
        ("npu-1", {"npu-0"}, None),
        ("npu-7", set(), ("npu-7", "npu-0")),  # set aside
        ("", set(), None),
    ],
)
def test_the_runs_device_is_taken_unless_it_is_set_aside(monkeypatch, ran_on, without, moved):
    chips = {one: SimpleNamespace(id=one) for one in ("npu-0", "npu-1", "npu-7")}
    pool = SimpleNamespace(usable=lambda: [chips["npu-0"], chips["npu-1"]])
    case: Any = SimpleNamespace(bench=SimpleNamespace(pool=pool), device=chips.get(ran_on))

    @contextlib.contextmanager
    def opened(case, prepared, without_, *, timeout_s):
        assert without_ == without
        case.device = next(one for one in pool.usable() if one.id not in without)
        yield

    monkeypatch.setattr(devices, "leasing", SimpleNamespace(opened=opened))
    prepared: Any = None
    with devices.preferred(case, prepared, 9.0) as (_, changed):
        assert changed == moved


def test_results_that_another_device_does_not_repeat_are_the_devices():
    here = words(Findings(unrepeatable=3), 8, 3e-2)
    stage, _, summary = words(Findings(unrepeatable=3, moved=("npu-1", "npu-0")), 8, 3e-2)
    assert (here[0], stage) == (Stage.INFER, Stage.DEVICE)
    assert summary.startswith("npu-1 gives wrong outputs and npu-0 the right ones")


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
