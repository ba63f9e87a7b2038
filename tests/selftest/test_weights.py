"""Wrong weights that names and shapes cannot tell: the comparison with the right ones can.

A compiled model made from an altered checkpoint loads strictly, runs, and is held against eager
PyTorch on the unaltered one.
"""

from __future__ import annotations

import os

import pytest

from harness import checkpoints, networks, settings
from harness.cases import Case
from harness.catalog import load_catalog
from harness.workbench import Workbench
from tests.selftest.running import TINY


def workbench(folder, shared, **changes):
    chosen = settings.resolve(
        {
            "store": str(shared / "store"),
            "leases": str(folder / "leases"),
            "catalog": str(TINY),
            **changes,
        },
        environment={},
    )
    return Workbench(chosen, load_catalog(TINY), folder)


@pytest.fixture(scope="module")
def sound(shared, tmp_path_factory):
    """The rehearsal's case with the right weights, everything built."""
    bench = workbench(tmp_path_factory.mktemp("run"), shared, rehearsal=True)
    case = bench.for_case(Case("tiny", 4, "cpu", "accuracy"))
    return case, case.prepare()


def swap(state):
    """Two convolutions of equal shape exchanged."""
    shapes: dict[tuple[int, ...], str] = {}
    for name, value in state.items():
        if value.dim() == 4 and tuple(value.shape) in shapes:
            other = shapes[tuple(value.shape)]
            state[name], state[other] = state[other].clone(), value.clone()
            return
        shapes[tuple(value.shape)] = name
    raise AssertionError("no pair of equal shape")


def forget_statistics(state):
    """Batch-norm statistics as a network has them before any training."""
    for name in state:
        if name.endswith("running_mean"):
            state[name].zero_()
        if name.endswith("running_var"):
            state[name].fill_(1.0)


def perturb(state):
    """One filter of one convolution of the first layer disturbed."""
    name = next(name for name, value in state.items() if value.dim() == 4)
    state[name][0] += 3.0 * state[name].std()


@pytest.mark.parametrize("alter", [swap, forget_statistics, perturb])
def test_altered_weights_fail_by_fidelity(sound, shared, tmp_path, alter):
    case, ready = sound
    original = case.checkpoint().path
    networks.import_torch()
    state = checkpoints.load_state(original, "plain")
    alter(state)
    checkpoints.save_checkpoint(state, "plain", tmp_path / "tiny.pth")
    altered = workbench(tmp_path / "run", shared, target="cpu", checkpoints=str(tmp_path)).for_case(
        Case("tiny", 4, "cpu", "accuracy")
    )
    compiled = altered.compiled()  # it loads strictly: every name and shape is right
    with case.session(compiled, exclusive=False) as opened:
        verdict = case.accuracy(opened, ready)
    assert verdict.kind == "FAIL"
    assert "relative L2" in verdict.sentence


def test_weights_written_again_unaltered_pass(sound, shared, tmp_path):
    case, ready = sound
    state = checkpoints.load_state(case.checkpoint().path, "plain")
    checkpoints.save_checkpoint(state, "plain", tmp_path / "tiny.pth")
    again = workbench(tmp_path / "run", shared, target="cpu", checkpoints=str(tmp_path)).for_case(
        Case("tiny", 4, "cpu", "accuracy")
    )
    with case.session(again.compiled(), exclusive=False) as opened:
        assert case.accuracy(opened, ready).kind == "PASS"
    assert os.path.samefile(again.compiled(), ready.compiled)  # equal bytes, equal key
