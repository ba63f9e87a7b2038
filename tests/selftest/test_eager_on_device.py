"""Eager PyTorch on a target's device: the reference of a whole set, where it computes exactly."""

from __future__ import annotations

import os
from importlib import metadata

import pytest

from harness import settings
from harness.base.stages import Stage
from harness.plan import Case
from harness.targets import registry
from harness.targets.ascend.host import VISIBLE
from harness.targets.protocol import Device, EagerOnDevice
from tests.selftest.fakes import workbench
from tests.selftest.test_pipeline import case

# PyTorch moves a network to a type as to a device: float16 is a chip of that arithmetic.
PLACES = {"exact": "'cpu'", "coarse": "torch.float16"}


@pytest.fixture
def device_that(monkeypatch, tmp_path):
    """Give a case a target on whose device eager PyTorch computes."""

    def give(one, how):
        file = tmp_path / "eager.py"
        file.write_text(f"import torch\ndef use(): return {PLACES[how]}\n")
        on = EagerOnDevice(file, "torch_chip 2.0", lambda device: {**os.environ})
        monkeypatch.setattr(one.bench.target, "eager", lambda: on)
        return one

    return give


def stages(one):
    return [ref.stage for ref in one.observed.artifacts]


@pytest.mark.parametrize(("how", "by"), [("exact", "torch_chip 2.0"), ("coarse", "")])
def test_a_device_makes_the_reference_where_it_agrees_with_the_cpu(
    shared, built, tmp_path, device_that, how, by
):
    bench = workbench(tmp_path, rehearsal=True, store=str(shared / "store"))
    reference = bench.for_case(Case("tiny", 4, "cpu", "accuracy")).eager()
    bench = workbench(tmp_path / "other", rehearsal=True, store=str(shared / "store"))
    one = device_that(bench.for_case(Case("tiny", 4, "cpu", "accuracy")), how)
    predictions = one.eager()
    assert predictions.by == by
    assert (predictions.logits == reference.logits).all()  # a "device" that is the CPU
    assert stages(one).count(Stage.EAGER) == 1


def test_only_a_device_makes_a_reference_of_the_whole_set(tmp_path, monkeypatch, device_that):
    one = case(tmp_path)
    images = type("Images", (), {"own_set": 0, "__len__": lambda _: 50_000})()
    monkeypatch.setattr(one, "images", lambda: images)
    passes: list[EagerOnDevice] = []
    monkeypatch.setattr(one, "_eager", passes.append)
    assert one._reference() is None
    assert passes == []
    device_that(one, "exact")._reference()
    assert [on.about for on in passes] == ["torch_chip 2.0"]


def ascend(tmp_path, **options):
    places = {"store": str(tmp_path / "store"), "target": "ascend310p3"}
    return registry.make_target(
        "ascend310p3", settings.resolve({**places, **options}, environment={}), tmp_path
    )


def test_an_npu_does_it_where_torch_npu_is_installed(tmp_path, monkeypatch):
    real = metadata.version
    there = {"torch_npu": "2.14.0"}
    assert ascend(tmp_path).eager() is None
    monkeypatch.setattr(
        "harness.targets.ascend.target.metadata.version",
        lambda name: there.get(name) or real(name),
    )
    assert ascend(tmp_path, eager_on="cpu").eager() is None
    on = ascend(tmp_path).eager()
    assert on and on.about == "torch_npu 2.14.0"
    device = Device("ascend310p3", 3, "Ascend310P3", "npu-1")
    assert on.env_of(device)[VISIBLE] == "3"
