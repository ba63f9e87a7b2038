"""What is judged over a run's cases: batch sizes, the same artifact, ratios between chips."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalog.load import load_catalog
from harness.catalog.schema import RatioRule
from harness.judge import causes, verdicts
from harness.judge.run_checks import run_checks
from harness.judge.verdicts import ProvenanceError
from harness.records.lines import CaseLine, PlannedCase, RunLine
from harness.records.reader import RunRecords
from harness.records.values import ArtifactRef, ErrorInfo
from tests.selftest.running import ROOT


def line(check="accuracy", *, batch=1, target="ascend310p3", model="fixres", digest="d", **given):
    case = f"{model}-bs{batch}-{target}"
    return CaseLine(
        **{
            "run": "r",
            "nodeid": f"{check}[{case}]",
            "case": case,
            "model": model,
            "batch_size": batch,
            "target": target,
            "check": check,
            "provenance": "real",
            "outcome": "passed",
            "sentence": "",
            "artifacts": [ArtifactRef(kind="compiled", key="k", digest=digest)],
            **given,
        }
    )


def run_of(*cases, folder=Path("/nowhere")):
    planned = tuple(
        PlannedCase(**case.model_dump(include=set(PlannedCase.model_fields))) for case in cases
    )
    run = RunLine(run="r", provenance=cases[0].provenance, started="")
    return RunRecords(folder, run, planned, cases, None)


@pytest.fixture(scope="module")
def catalog():
    return load_catalog(ROOT / "baselines.yaml")


def predictions(folder, batch, best):
    path = folder / "predictions" / f"bs{batch}.csv"
    path.parent.mkdir(exist_ok=True)
    rows = [f"i{n},{n % 3},,{b},1.0" for n, b in enumerate(best)]
    path.write_text("\n".join(["image,label,eager,top1,logit1", *rows]) + "\n")
    return line(batch=batch, measurement={"predictions_file": f"predictions/bs{batch}.csv"})


def test_batch_sizes_that_do_not_agree(tmp_path, catalog):
    right = [n % 3 for n in range(300)]
    one = predictions(tmp_path, 1, right)
    other = predictions(tmp_path, 4, [5] * 30 + right[30:])
    (check,) = run_checks(run_of(one, other, folder=tmp_path), catalog)
    assert check.outcome == "failed"
    assert "i0" in check.sentence + str(check.verdict)


def test_a_part_that_does_not_decide_is_recorded_and_turns_no_run_red(tmp_path, catalog):
    right = [n % 3 for n in range(300)]
    one, other = predictions(tmp_path, 1, right), predictions(tmp_path, 4, [5, *right[1:]])
    (check,) = checks = run_checks(run_of(one, other, folder=tmp_path), catalog)
    assert (check.name, check.outcome) == ("batch sizes", "recorded")
    assert "not decided on 300 images" in check.sentence
    assert causes.exit_code([one, other], checks, complete=True, allow_inconclusive=False) == 0


def test_a_known_failure_of_one_batch_size_turns_no_run_red(tmp_path, catalog):
    right = [n % 3 for n in range(300)]
    cases = [predictions(tmp_path, 1, right), predictions(tmp_path, 4, right)]
    bad = predictions(tmp_path, 16, [5] * 300).model_copy(update={"outcome": "known_failure"})
    (check,) = checks = run_checks(run_of(*cases, bad, folder=tmp_path), catalog)
    assert check.outcome == "recorded"
    assert "left out as known to fail: batch size 16" in check.sentence
    exit_code = causes.exit_code([*cases, bad], checks, complete=True, allow_inconclusive=False)
    assert exit_code == 0


def test_predictions_that_cannot_be_read_cost_no_other_check(tmp_path, catalog):
    right = [n % 3 for n in range(300)]
    one = predictions(tmp_path, 1, right)
    gone = line(batch=4, measurement={"predictions_file": "predictions/gone.csv"})
    other = [
        case.model_copy(update={"model": "resnest50", "case": "resnest50"})
        for case in (one, predictions(tmp_path, 4, [5] * 300))
    ]
    timed = line("throughput", measured=10.0, digest="another")
    checks = run_checks(run_of(one, gone, *other, timed, folder=tmp_path), catalog)
    found = {(check.name, check.model): check for check in checks}
    unread = found["batch sizes", "fixres"]
    assert unread.outcome == "failed"
    assert unread.sentence.startswith("could not be judged: predictions/gone.csv: ")
    assert found["batch sizes", "resnest50"].verdict is not None
    assert found["same artifact", "fixres"].outcome == "failed"
    assert ("ratio", "fixres") in found


def test_one_batch_size_is_not_held_against_itself(tmp_path, catalog):
    one = predictions(tmp_path, 1, [0, 1, 2])
    assert run_checks(run_of(one, folder=tmp_path), catalog) == ()


def test_the_checks_of_a_case_must_have_run_the_same_file(catalog):
    timed = line("throughput", measured=10.0, outcome="recorded", model="resnest50")
    exact = line(model="resnest50")
    assert run_checks(run_of(exact, timed), catalog) == ()
    other = line("throughput", measured=10.0, model="resnest50", digest="another")
    (check,) = run_checks(run_of(exact, other), catalog)
    assert (check.name, check.outcome) == ("same artifact", "failed")
    assert check.subject == "resnest50-bs1-ascend310p3"


def speed(fps, outcome="recorded", *, batch=1, model="fixres", **measurement):
    """A throughput case whose figure counts; `measured` is what a case was judged by."""
    data = {"fps": fps, "precision_reached": True, "setup": {"chips": 1}, **measurement}
    return line("throughput", batch=batch, model=model, measured=fps, outcome=outcome,
                measurement=data)  # fmt: skip


def ratio(catalog, *cases):
    """The check of guide 001's first pass line: 1.2 times 733.052 fps, the 310's at batch 1."""
    found = {check.subject: check for check in run_checks(run_of(*cases), catalog)}
    return found.get("fixres on ascend310p3 to ascend310")


@pytest.mark.parametrize(("fps", "outcome"), [(879.67, "passed"), (879.6, "failed")])
def test_guide_001s_pass_line_between_two_chips(catalog, fps, outcome):
    found = run_checks(run_of(speed(fps)), catalog)
    by_target = {check.subject: check for check in found}
    first = by_target["fixres on ascend310p3 to ascend310"]
    assert first.outcome == outcome
    assert "fps a card at batch size 1 are 1." in first.sentence
    assert "1.2 times" in first.sentence
    # The T4 was fed another size: its figure is not comparable, so nothing is judged.
    second = by_target["fixres on ascend310p3 to cuda"]
    assert second.outcome == "recorded"
    assert "not comparable" in second.sentence


WRONG = {"outputs_check": {"relative_l2": 0.5, "bound": 3e-2}}


@pytest.mark.parametrize(
    ("outcome", "measurement"),
    [
        ("failed", WRONG),
        ("recorded", {"precision_reached": False}),
        ("recorded", {"precision_reached": None}),
        ("inconclusive", {}),
        ("recorded", {"setup": {"chips": None}}),
        ("recorded", {"setup": {}}),
    ],
)
def test_a_figure_that_does_not_count_decides_no_ratio(catalog, outcome, measurement):
    useless = [speed(fps, outcome, **measurement) for fps in (9e9, 1.0)]
    for case in useless:
        check = ratio(catalog, case)
        assert check.outcome == "inconclusive"
        assert "batch size 1 gave no figure that counts" in check.sentence
    # It might have been the best: without it the pass line is reached, and is not missed.
    fast = ratio(catalog, useless[0], speed(900.0, batch=4))
    assert (fast.outcome, fast.verdict.figures["measured, fps a card"]) == ("passed", 900.0)
    slow = ratio(catalog, useless[0], speed(800.0, batch=4))
    assert slow.outcome == "inconclusive"
    assert "but this decides nothing: batch size 1" in slow.sentence


def test_one_batch_size_is_held_against_the_figure_at_that_size(catalog):
    """Guide 000's table: a ratio at each size, and one of the best sizes."""
    check = ratio(catalog, speed(700.0, batch=64))
    assert check.outcome == "recorded"
    assert "no figure of ascend310 is published at batch size 64" in check.sentence
    check = ratio(catalog, speed(900.0, batch=64), speed(700.0, batch=4))
    assert check.outcome == "passed"
    assert "at batch size 64, the best of 4, 64, are" in check.sentence


def test_a_ratio_is_one_of_cards_or_of_chips(catalog):
    """A case without a figure of its own tells one chip's speed; the 310's figure is a card's."""
    four = speed(300.0, batch=4, setup={"chips": 4})
    assert ratio(catalog, four).outcome == "recorded"
    check = ratio(catalog, four, speed(400.0))
    assert check.verdict.figures["measured, fps a card"] == 1200.0
    rule = RatioRule(target="ascend310p3", to="ascend310", at_least=2.0, source="guide-000")
    spec = catalog.models["seresnext101"].model_copy(update={"ratios": (rule,)})
    of_chips = catalog.model_copy(update={"models": {"seresnext101": spec}})
    case = speed(400.0, model="seresnext101", setup={"chips": 4})
    (check,) = run_checks(run_of(case), of_chips)
    assert "400.0 fps a chip at batch size 1 are 2.20 times the 182.224" in check.sentence


def test_a_known_failure_misses_no_ratio(catalog):
    assert ratio(catalog, speed(1.0, "known_failure")) is None
    assert ratio(catalog, speed(1.0, "known_failure", batch=4), speed(900.0)).outcome == "passed"


def test_nothing_simulated_is_held_against_another_chips_published_figure(catalog):
    simulated = speed(9e9, batch=4).model_copy(update={"provenance": "simulated"})
    assert run_checks(run_of(simulated), catalog) == ()
    check = ratio(catalog, speed(800.0), simulated)
    assert check.outcome == "inconclusive"
    assert check.verdict.figures["measured, fps a card"] == 800.0


def test_a_ratio_across_provenances_is_refused(catalog):
    figure = catalog.models["fixres"].baseline("ascend310", 1)
    rule = RatioRule(target="ascend310p3", to="ascend310", at_least=1.2, source="guide-001")
    with pytest.raises(ProvenanceError):
        verdicts.judge_ratio({1: 900.0}, figure, rule, provenance="simulated")


# Causes and exit codes --------------------------------------------------------------------


def failing(stage):
    return line(outcome="error", error=ErrorInfo(type="E", stage=stage, message="m"))


@pytest.mark.parametrize(
    ("cases", "code"),
    [
        ([line()], 0),
        ([line(outcome="recorded")], 0),
        ([line(outcome="known_failure")], 0),
        ([line(outcome="failed")], 1),
        ([failing("compile")], 1),
        ([failing("data")], 4),
        ([failing("checkpoint")], 4),
        ([line(outcome="inconclusive")], 6),
        ([failing("device")], 7),
        ([line(outcome="crashed", error=ErrorInfo(type="C", stage="worker", message="m"))], 7),
        ([failing("harness")], 3),
        ([failing("device"), line(outcome="failed")], 1),
        ([failing("device"), failing("data")], 7),
        ([failing("data"), line(outcome="inconclusive")], 4),
    ],
)
def test_exit_codes_tell_the_causes_apart(cases, code):
    assert causes.exit_code(cases, (), complete=True, allow_inconclusive=False) == code


def test_a_lost_case_and_an_allowed_inconclusive_one():
    assert causes.exit_code([line()], (), complete=False, allow_inconclusive=False) == 7
    undecided = [line(outcome="inconclusive")]
    assert causes.exit_code(undecided, (), complete=True, allow_inconclusive=True) == 0


def test_every_stage_of_an_error_has_a_cause():
    from harness.base import errors

    classes = errors._all_classes(errors.HarnessError).values()
    stages = {cls.stage for cls in classes if cls.__module__.startswith("harness.")}
    for stage in stages - {"verdict"}:
        finding = causes.cause_of(failing(stage))
        assert finding is not None
        assert finding.cause != "harness" or stage == "harness", stage


def test_the_cause_is_a_reason_that_can_be_read():
    finding = causes.cause_of(line("throughput", outcome="inconclusive"))
    assert finding is not None
    assert finding.cause == "machine"
    assert finding.subject == "throughput of fixres-bs1-ascend310p3"
    assert causes.cause_of(line()) is None


@pytest.mark.parametrize(
    ("stage", "cause"),
    [("compile", "toolchain"), ("input", "input"), ("", "model"), (None, "model"), (3, "model")],
)
def test_a_diagnosis_says_whose_fault_a_failed_case_is(stage, cause):
    case = line(outcome="failed", diagnosis={"stage": stage, "summary": "the compiler departs"})
    finding = causes.cause_of(case)
    assert finding is not None
    assert finding.cause == cause
    # An acceptance that failed is one, whoever is to blame.
    assert causes.exit_code([case], (), complete=True, allow_inconclusive=False) == 1
