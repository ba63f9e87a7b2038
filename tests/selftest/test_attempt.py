"""One attempt: how it is timed, what a given ONNX file must compute, whose weights are judged."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.measure import attempt, throughput
from harness.plan import Case
from harness.records.measurements import ProblemCode
from harness.stages import eager
from harness.stages.pipeline import CasePipeline, Prepared
from harness.targets.protocol import SessionInfo
from tests.selftest.fakes import FakeSession, workbench
from tests.selftest.running import TINY


def case(tmp_path, check="throughput", **options):
    """A case of the tiny model; of a rehearsal where no folder of checkpoints is given."""
    if "checkpoints" in options:
        options |= {"target": "cpu", "imagenet": str(tmp_path)}
    bench = workbench(tmp_path, **{"rehearsal": "checkpoints" not in options, **options})
    return bench.for_case(Case("tiny", 4, "cpu", check))


@pytest.mark.parametrize(
    ("about", "wall_check", "round_s"),
    [
        (SessionInfo("api", pid=7), "near", 0.25),  # it has its model loaded
        (SessionInfo("cli", round_s=5.0), "at-most", 5.0),  # each call loads it again
    ],
)
@pytest.mark.parametrize("real", [True, False])
def test_a_session_is_timed_as_its_driver_needs_it(tmp_path, about, wall_check, round_s, real):
    options = {"checkpoints": str(tmp_path)} if real else {}
    one = case(tmp_path, budget="33", precision="2", **options)
    session: Any = SimpleNamespace(about=about)
    plan = attempt._plan(one, session, with_rival=not real)
    assert (plan.wall_check, plan.round_s) == (wall_check, round_s)
    assert (plan.budget_s, plan.precision_percent) == (33.0, 2.0)
    assert plan.least_s == (throughput.LEAST_S if real else 0.0)
    assert plan.warmup == (throughput.WARMUP if real else 1)


@pytest.mark.parametrize(
    ("given", "real", "same", "codes"),
    [
        (True, False, True, []),
        # A small network would pass in a large one's name: any network's outputs equal its own.
        (True, False, False, [ProblemCode.OTHER_NETWORK]),
        (True, True, False, []),  # nothing to compare with
        (False, False, False, []),
    ],
)
def test_a_given_file_must_compute_what_the_stand_in_does(
    tmp_path, monkeypatch, given, real, same, codes
):
    options = {"checkpoints": str(tmp_path)} if real else {}
    one = case(tmp_path, **options, **({"onnx": [f"tiny={TINY}"]} if given else {}))
    outputs = np.linspace(1, 2, 40, dtype=np.float32).reshape(4, 10)

    @contextlib.contextmanager
    def open_eager(*_, **__):
        yield FakeSession(lambda batch: outputs if same else outputs[:, ::-1])

    monkeypatch.setattr(eager, "open_eager", open_eager)
    monkeypatch.setattr(CasePipeline, "checkpoint", lambda self: None)
    prepared = Prepared(TINY, TINY, probe=(np.zeros((4, 3, 2, 2), np.float32), outputs))
    assert [problem.code for problem in attempt._other_network(one, prepared)] == codes


@pytest.mark.parametrize(
    ("check", "given", "digest", "why"),
    [
        ("accuracy", True, True, "weights not verified: the ONNX file was given"),
        ("throughput", True, True, "network and weights not verified: the ONNX file was given"),
        ("throughput", False, False, "weights not verified: no digest is published"),
        ("accuracy", False, True, ""),
    ],
)
def test_weights_that_nobody_verified_are_said(tmp_path, check, given, digest, why):
    options = {"onnx": [f"tiny={TINY}"]} if given else {}
    one = case(tmp_path, check, checkpoints=str(tmp_path), **options)
    spec = one.model.checkpoint.model_copy(update={"sha256": "a" * 64 if digest else None})
    one.model = one.model.model_copy(update={"checkpoint": spec})
    assert attempt.unverified(one) == why
