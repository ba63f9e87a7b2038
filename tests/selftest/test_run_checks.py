"""What is judged over a run's cases: batch sizes, the same artifact, ratios between chips."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.base.errors import ProvenanceError
from harness.base.stages import Stage
from harness.catalog.schema import RatioRule
from harness.judge import causes
from harness.judge.run_checks import compare_batch_sizes, judge_ratio, run_checks
from harness.records.conditions import Condition, Setup
from harness.records.lines import CaseLine, PlannedCase, RunLine
from harness.records.measurements import Fidelity, OutputsCheck, ProblemCode
from harness.records.observed import ArtifactRef
from harness.records.reader import RunRecords
from harness.records.verdicts import FigureName, Reference, Verdict
from tests.selftest.judge_samples import (
    BOUND,
    CATALOG,
    NAN,
    baseline,
    figures,
    flip,
    put_predictions,
    steady,
    timed,
    whole,
)


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
            "artifacts": (ArtifactRef(Stage.COMPILE, "k", digest),),
            **given,
        }
    )


def run_of(*cases, folder=Path("/nowhere")):
    planned = tuple(
        PlannedCase(**case.model_dump(include=set(PlannedCase.model_fields))) for case in cases
    )
    run = RunLine(run="joined", provenance=cases[0].provenance, started="")
    return RunRecords(folder, run, planned, cases, None)


def green(cases, checks):
    return causes.exit_code(cases, checks, complete=True, allow_inconclusive=False) == 0


# Batch sizes -------------------------------------------------------------------------------

RIGHT = [n % 3 for n in range(300)]


def predictions(folder, batch, best, flips=(), **given):
    """An accuracy case as a run leaves it, with its predictions."""
    file = put_predictions(folder, batch, best)
    fidelity = Fidelity(5e-3, 0.1, 1.0, tuple(flips))
    measured = whole(200, 300, predictions_file=file, fidelity=fidelity)
    return line(batch=batch, measurement=measured, **given)


@pytest.mark.parametrize(("lost", "outcome"), [(30, "failed"), (1, "recorded")])
def test_batch_sizes_are_compared_by_their_predictions(tmp_path, lost, outcome):
    cases = [
        predictions(tmp_path, 1, RIGHT),
        predictions(tmp_path, 4, [5] * lost + RIGHT[lost:]),
    ]
    (check,) = checks = run_checks(run_of(*cases, folder=tmp_path), CATALOG)
    assert (check.name, check.subject) == ("batch sizes", "fixres on ascend310p3")
    assert check.run == "joined"
    assert check.outcome == outcome
    assert check.verdict is not None
    assert [one.name for one in check.verdict.batch_flips] == [f"i{n}" for n in range(lost)]
    assert green(cases, checks) == (outcome == "recorded")


@pytest.mark.parametrize(("excused", "kind"), [(True, "PASS"), (False, "FAIL")])
def test_what_rounding_moves_is_excused_from_the_record(tmp_path, excused, kind):
    flips = [flip("i0", 1, 2, excused=excused)]
    cases = [
        predictions(tmp_path, 1, RIGHT, provenance="rehearsal"),
        predictions(tmp_path, 4, [5, *RIGHT[1:]], flips, provenance="rehearsal"),
    ]
    verdict = compare_batch_sizes(tmp_path, cases)
    assert verdict is not None
    assert (verdict.kind, verdict.figures[FigureName.FLIPS_EXCUSED]) == (kind, excused)


def test_a_known_failure_of_one_batch_size_turns_no_run_red(tmp_path):
    cases = [predictions(tmp_path, size, RIGHT) for size in (1, 4)]
    cases.append(predictions(tmp_path, 16, [5] * 300, outcome="known_failure"))
    (check,) = checks = run_checks(run_of(*cases, folder=tmp_path), CATALOG)
    assert check.outcome == "recorded"
    assert "left out as known to fail: batch size 16" in check.sentence
    assert green(cases, checks)
    assert compare_batch_sizes(tmp_path, cases[2:]) is None


def test_cases_without_predictions_are_not_compared(tmp_path):
    bare = [line(batch=size, provenance="simulated") for size in (1, 4)]
    assert run_checks(run_of(*bare, folder=tmp_path), CATALOG) == ()
    one = predictions(tmp_path, 8, RIGHT, provenance="simulated")
    verdict = compare_batch_sizes(tmp_path, [*bare, one])
    assert verdict is not None
    assert (verdict.kind, verdict.reference.provenance) == ("RECORDED", "simulated")


def test_predictions_that_cannot_be_read_cost_no_other_check(tmp_path):
    one = predictions(tmp_path, 1, RIGHT)
    gone = line(batch=4, measurement=whole(1, 2, predictions_file="predictions/gone.csv"))
    other = [
        case.model_copy(update={"model": "resnest50", "case": "resnest50"})
        for case in (one, predictions(tmp_path, 4, [5] * 300))
    ]
    timed_case = speed(10.0).model_copy(update={"artifacts": line(digest="e").artifacts})
    checks = run_checks(run_of(one, gone, *other, timed_case, folder=tmp_path), CATALOG)
    by_name = {(check.name.value, check.model): check for check in checks}
    unread = by_name["batch sizes", "fixres"]
    assert (unread.outcome, unread.verdict) == ("failed", None)
    assert unread.sentence.startswith("could not be judged: predictions/gone.csv: ")
    assert by_name["batch sizes", "resnest50"].verdict is not None
    assert by_name["same artifact", "fixres"].outcome == "failed"
    assert ("ratio", "fixres") in by_name


def test_one_batch_size_is_not_held_against_itself(tmp_path):
    assert run_checks(run_of(predictions(tmp_path, 1, RIGHT), folder=tmp_path), CATALOG) == ()


# The same artifact -------------------------------------------------------------------------


def test_the_checks_of_a_case_must_have_run_the_same_file():
    exact = line(model="resnest50")
    assert run_checks(run_of(exact, line("throughput", model="resnest50")), CATALOG) == ()
    other = line("throughput", model="resnest50", digest="another")
    (check,) = run_checks(run_of(exact, other), CATALOG)
    assert (check.name, check.outcome) == ("same artifact", "failed")
    assert check.subject == "resnest50-bs1-ascend310p3"
    # The last file that a case compiled is the one that it ran.
    both = other.model_copy(update={"artifacts": (*other.artifacts, *exact.artifacts)})
    assert run_checks(run_of(exact, both), CATALOG) == ()


def test_a_file_that_was_compiled_anew_between_the_checks_decides_nothing():
    exact = line(model="resnest50")
    other = line("throughput", model="resnest50", digest="another")
    (ref,) = other.artifacts
    ref = replace(ref, instead_of=exact.artifacts[0].digest)
    records = run_of(exact, other.model_copy(update={"artifacts": (ref,)}))
    (check,) = run_checks(records, CATALOG)
    assert (check.name, check.outcome) == ("same artifact", "inconclusive")
    assert check.verdict and [one.code for one in check.verdict.problems] == [
        ProblemCode.COMPILED_ANEW
    ]
    (finding,) = causes.causes(replace(records, checks=(check,)))
    assert (finding.cause, bool(finding.remedy)) == ("toolchain", True)


# Ratios ------------------------------------------------------------------------------------


def speed(fps, outcome="recorded", *, batch=1, model="fixres", chips=1, chip="", **changes):
    """A throughput case whose figure counts, of a card with so many chips."""
    measured = timed(
        steady(1000.0 * batch / fps, batch_size=batch),
        setup=Setup(chips=chips, chip=chip),
        **changes,
    )
    verdict = Verdict("RECORDED", "", "throughput-recorded", "fps", fps, Reference("none"))
    return line(
        "throughput", batch=batch, model=model, outcome=outcome, measurement=measured,
        verdict=verdict,
    )  # fmt: skip


def ratio(*cases, to="ascend310"):
    """The check of guide 001's first pass line: 1.2 times 733.052 fps, the 310's at batch 1."""
    checks = {check.subject: check for check in run_checks(run_of(*cases), CATALOG)}
    return checks.get(f"fixres on ascend310p3 to {to}")


SLICE = "vNPU vir02 of an Ascend310P3"
SIMULATED = speed(9e9, batch=4).model_copy(update={"provenance": "simulated"})


@pytest.mark.parametrize(
    ("cases", "outcome", "counted"),
    [
        ([speed(879.67)], "passed", 879.67),
        ([speed(879.6)], "failed", 879.6),
        ([speed(800.0, "failed")], "failed", 800.0),
        # Guide 000's table: a ratio at each size, and one of the best sizes.
        ([speed(700.0, batch=64)], "recorded", None),
        ([speed(900.0, batch=64), speed(700.0, batch=4)], "passed", 900.0),
        # A case without a figure of its own has one chip's speed; the 310's figure is a card's.
        ([speed(300.0, batch=4, chips=4), speed(400.0)], "passed", 1200.0),
        # What is declared to fail misses no ratio.
        ([speed(1.0, "known_failure", batch=4), speed(900.0)], "passed", 900.0),
        # Nothing simulated is held against another chip's published figure.
        ([speed(800.0), SIMULATED], "inconclusive", 800.0),
    ],
)
def test_guide_001s_pass_line_between_two_chips(cases, outcome, counted):
    check = ratio(*cases)
    assert (check.outcome, check.unit) == (outcome, "times")
    assert check.verdict.figures.get(FigureName.UNIT_FPS) == pytest.approx(counted)
    if counted:
        assert check.measured == pytest.approx(counted / 733.052)
    # The T4 was fed another size: its figure is not comparable, so nothing is judged.
    assert ratio(*cases, to="cuda").outcome == "recorded"


def test_cases_that_cannot_count_make_no_ratio():
    assert ratio(speed(1.0, "known_failure")) is None
    assert run_checks(run_of(SIMULATED), CATALOG) == ()
    assert "at batch size 64" in ratio(speed(700.0, batch=64)).sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "failed", "outputs": OutputsCheck(0.5, BOUND)},
        {"outcome": "failed", "problems": (NAN,)},
        {"half_width_percent": 10.1},
        {"too_few_rounds": 5},
        {"too_few_seconds": 10.0},
        {"conditions": (Condition("during", 1.0, busy="yes"),)},
        {"outcome": "inconclusive"},
        {"chips": None},
    ],
)
def test_a_figure_that_does_not_count_decides_no_ratio(changes):
    useless = speed(9e9, **changes)
    for case in (useless, speed(1.0, **changes)):
        assert ratio(case).outcome == "inconclusive"
    # It might have been the best: without it the pass line is reached, and is not missed.
    fast = ratio(useless, speed(900.0, batch=4))
    assert fast.outcome == "passed"
    assert "decides nothing" not in fast.sentence
    assert figures(fast.verdict)[FigureName.UNIT_FPS] == pytest.approx(900.0)
    assert ratio(useless, speed(800.0, batch=4)).outcome == "inconclusive"


def test_a_slice_of_a_chip_is_held_against_no_ratio():
    assert ratio(speed(800.0, chip="Ascend310P3")).outcome == "failed"
    check = ratio(speed(800.0, chip=SLICE))
    assert check.outcome == "recorded"
    assert f"for a Ascend310P3, this is a {SLICE}" in check.sentence


def test_a_ratio_of_chips_counts_one_chip():
    rule = RatioRule(target="ascend310p3", to="ascend310", at_least=2.0, source="guide-000")
    spec = CATALOG.models["seresnext101"].model_copy(update={"ratios": (rule,)})
    of_chips = CATALOG.model_copy(update={"models": {"seresnext101": spec}})
    (check,) = run_checks(run_of(speed(400.0, model="seresnext101", chips=4)), of_chips)
    assert figures(check.verdict)[FigureName.UNIT_FPS] == pytest.approx(400.0)


def test_a_ratio_at_its_line_is_reached_in_exact_decimals_and_crosses_no_provenance():
    # In binary 1.1 times 3 is more than 3.3.
    rule = RatioRule(target="ascend310p3", to="ascend310", at_least=1.1, source="s")
    other = baseline("fixres", "ascend310", 1, fps=3.0)
    kinds = [judge_ratio({1: fps}, other, rule, provenance="real").kind for fps in (3.3, 3.2999)]
    assert kinds == ["PASS", "FAIL"]
    with pytest.raises(ProvenanceError):
        judge_ratio({1: 900.0}, other, rule, provenance="simulated")
