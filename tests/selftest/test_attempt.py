"""One attempt: how it is timed, what a given ONNX file must compute, whose weights are judged."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.base.errors import HarnessError
from harness.catalog.schema import FidelityRule
from harness.measure import attempt, beside_eager, passes, throughput
from harness.measure.device import leased, opened
from harness.plan import Case
from harness.records.measurements import Fidelity, ProblemCode
from harness.stages import eager
from harness.stages.pipeline import CasePipeline, Prepared
from harness.targets import host, sessions
from harness.targets.leases import NotFree
from harness.targets.protocol import Device, SessionInfo, Traits
from tests.selftest.fakes import FakeSession, workbench
from tests.selftest.judge_samples import scores, whole
from tests.selftest.running import TINY

SIMULATED = {"simulate_ascend": True, "rehearsal": False}


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
    options = {"checkpoints": str(tmp_path)} if real else SIMULATED
    one = case(tmp_path, budget="33", timing_precision="2", **options)
    session: Any = SimpleNamespace(about=about)
    plan = passes._plan(one, session)
    assert (plan.wall_check, plan.round_s) == (wall_check, round_s)
    assert (plan.budget_s, plan.precision_percent) == (33.0, 2.0)
    assert plan.least_s == (throughput.LEAST_S if real else 0.0)


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
    prepared = Prepared(TINY, TINY, probe=(np.zeros((4, 2, 2, 3), np.uint8), outputs))
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


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_second_try_has_the_host_alone(tmp_path, monkeypatch, on_host, alone):
    one = case(tmp_path, "accuracy")
    if not on_host:
        npu = Device("npu", 0, "chip", "card")
        target: Any = one.bench.target
        monkeypatch.setattr(target, "devices", lambda: [npu])
        monkeypatch.setattr(target, "traits", Traits(fidelity_bound=1.0))
    others = contextlib.ExitStack()
    again = one.host_alone(HarnessError("killed")) if alone else contextlib.nullcontext()
    with again, leased(one), one.decoding(), others:  # which does not wait for itself
        free = contextlib.nullcontext() if not alone else pytest.raises(NotFree)
        with free:
            others.enter_context(one.bench.share_host("another build", 0.0))
    with one.bench.share_host("another", 0.0):
        pass


@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_rehearsals_throughput_computes_on_one_thread(tmp_path, monkeypatch, rehearsed):
    one = case(tmp_path, **({} if rehearsed else {"checkpoints": str(tmp_path)}))
    given: list[dict[str, Any]] = []

    def open_session(file, *, options, **_):
        given.append(options)
        size = one.model.input.size
        return FakeSession(lambda batch: batch, (4, 3, size, size), one.model.classes)

    monkeypatch.setattr(sessions, "open_session", open_session)
    monkeypatch.setattr("harness.stages.eager.sessions.open_session", open_session)
    monkeypatch.setattr(host, "cores", lambda: 7)
    monkeypatch.setattr(beside_eager, "measure", lambda *_, **__: ("measurement", "samples"))
    rival: Any = SimpleNamespace(path=TINY) if rehearsed else None
    with opened(one, Prepared(TINY, TINY, rival=rival)) as session:
        if rehearsed:
            passes._beside_eager(one, session, rival)
    assert [options["threads"] for options in given] == ([1, 1] if rehearsed else [7])
    assert [options["faster_format"] for options in given[1:]] == [True] * rehearsed


def test_a_model_may_have_a_bound_of_its_own(tmp_path):
    one = case(tmp_path, "accuracy", checkpoints=str(tmp_path))
    fidelity = Fidelity(0.05, 0.1, 1.0, ())
    measured = whole(25_000, fidelity=fidelity, reference_scores=scores(50_000, 25_000))
    assert [one.code for one in attempt.judge(one, measured).problems] == [
        ProblemCode.LOGITS_DIFFER
    ]
    own = FidelityRule(bound=0.1, source="paper")
    one.model = one.model.model_copy(update={"fidelity": own})
    verdict = attempt.judge(one, measured)
    assert (verdict.kind, verdict.problems) == ("PASS", ())
    assert "logits may differ by 0.1 (paper)" in verdict.sentence


def test_a_bound_of_its_own_holds_in_both_checks(run_pytest, built, tmp_path):
    catalog = tmp_path / "narrow.yaml"
    narrow = "    fidelity: {bound: 1.0e-12, source: none}\n    accuracy:\n"
    catalog.write_text(TINY.read_text().replace("    accuracy:\n", narrow))
    words = ("--rehearsal", "--batch-sizes=4", "--no-diagnosis", "--budget=0.2")
    done = run_pytest(*words, catalog=catalog)
    assert done.code == 1, done.output
    codes = [[one.code for one in case.verdict.problems] for case in done.records().cases]
    assert codes == [[ProblemCode.LOGITS_DIFFER], [ProblemCode.OUTPUTS_DIFFER]]
