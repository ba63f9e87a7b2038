"""Why a run is red: the model, the toolchain, the machine or an input; and what it ends with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base import errors
from harness.base.stages import Stage
from harness.judge import causes
from harness.judge.causes import Exit
from harness.records.conditions import Condition
from harness.records.lines import CaseLine, CheckName, RunCheckLine
from harness.records.measurements import OutputsCheck, Problem, ProblemCode
from harness.records.observed import ArtifactRef, Attempt, Diagnosis, ErrorInfo
from harness.records.reader import RunRecords
from harness.records.verdicts import FigureName, Reference, Verdict
from tests.selftest.judge_samples import BOUND, NAN, real, whole
from tests.selftest.running import ROOT, TINY
from tests.selftest.test_run_checks import line

STRANGE = Problem(ProblemCode.STRANGE_TIMES, {"how": "longer", "executions": 1})
OTHER_NETWORK = Problem(ProblemCode.OTHER_NETWORK)
OTHER_INPUT = Problem(ProblemCode.OTHER_INPUT)


def failing(stage: Stage, type_: str = "X", outcome: str = "error", **changes) -> CaseLine:
    error = {"message": "m", "remedy": "mend it", **changes}
    case: CaseLine = line(outcome=outcome, error=ErrorInfo(type_, stage, **error))
    return case


def judged(kind="FAIL", *problems, bound=None):
    figures = {} if bound is None else {FigureName.LOGITS_L2_ALLOWED: bound}
    return Verdict(kind, "", "r", "%", 1.0, Reference("none"), problems=problems, figures=figures)


def accuracy(outcome="failed", **given) -> CaseLine:
    given = {"measurement": whole(1, 2), "verdict": judged(), **given}
    return CaseLine(**{**dict(line(outcome=outcome)), **given})


def throughput(outcome="failed", digest="d", **measured) -> CaseLine:
    case: CaseLine = line(
        "throughput",
        outcome=outcome,
        digest=digest,
        measurement=real(1.0, **measured),
        verdict=judged("INCONCLUSIVE" if outcome == "inconclusive" else "FAIL"),
    )
    return case


def run_of(*cases, checks=()):
    return RunRecords(Path("/nowhere"), None, (), cases, None, checks=checks)


def cause(case, *others) -> tuple[str, str]:
    finding = causes.causes(run_of(*others, case))[-1]
    return finding.cause, finding.why


def remedy(case) -> str:
    finding = causes.cause_of(case)
    assert finding is not None
    return finding.remedy


# Errors ------------------------------------------------------------------------------------


def test_every_stage_of_an_error_has_a_cause():
    classes = errors._all_classes(errors.HarnessError).values()
    for stage in {cls.stage for cls in classes} - {Stage.VERDICT, Stage.HARNESS}:
        assert cause(failing(stage))[0] != "harness", stage
    for stage in (Stage.VERDICT, Stage.HARNESS):
        assert cause(failing(stage))[0] == "harness"


@pytest.mark.parametrize(
    ("stage", "kind", "blamed", "words"),
    [
        (Stage.COMPILE, "CompileRefused", "toolchain", "refused the model"),
        (Stage.COMPILE, "CompileTimeout", "toolchain", "did not end in time"),
        (Stage.COMPILE, "NothingCompiled", "toolchain", "left no new model"),
        (Stage.COMPILE, "CompileError", "toolchain", "could not be compiled"),
        (Stage.NETWORK, "NetworkRefused", "input", "cannot be built"),
        (Stage.NETWORK, "NetworkError", "input", "under that name"),
    ],
)
def test_the_class_of_an_error_says_more_than_its_stage(stage, kind, blamed, words):
    found, why = cause(failing(stage, kind))
    assert (found, words in why) == (blamed, True)


def test_classes_that_are_named_exist():
    from harness.networks import library  # noqa: F401
    from harness.targets.ascend import atc  # noqa: F401

    assert set(causes._BY_TYPE) <= set(errors._all_classes(errors.HarnessError))


@pytest.mark.parametrize("stage", [Stage.CONFIGURATION, Stage.COMPILE, Stage.HARNESS])
def test_a_full_disk_is_the_machines_trouble_at_every_stage(stage):
    case = failing(stage, "CompileRefused", full_disk=True)
    assert cause(case) == ("machine", "a disk is full")
    assert case.error is not None
    assert causes.says_nothing_of_the_model(case.error)
    assert exit_of(case) == Exit.MACHINE_TROUBLE


@pytest.mark.parametrize("place", ["message", "log"])
@pytest.mark.parametrize("words", ["No space left on device", "[Errno 122] Disk quota exceeded"])
def test_a_full_disk_is_known_by_what_the_system_says(place, words):
    said: dict[str, Any] = {"message": "m", place: f"OSError: {words}"}
    assert errors.CompileError(**said).full_disk
    assert not errors.CompileError("m", log="no space").full_disk


def test_a_device_that_was_set_aside_is_spoken_of():
    case = failing(Stage.INFER).model_copy(
        update={"attempts": (Attempt("npu0", Stage.INFER, "e", "why"),)}
    )
    assert cause(case)[1].endswith("a device was set aside before")
    assert remedy(case) == "mend it"


@pytest.mark.parametrize(
    ("stage", "nothing"),
    [(Stage.DATA, True), (Stage.DEVICE, True), (Stage.CHECKPOINT, True), (Stage.HARNESS, True),
     (Stage.EXPORT, False), (Stage.COMPILE, False), (Stage.NETWORK, False), (Stage.INFER, False)],
)  # fmt: skip
def test_what_is_declared_of_a_model_stays_open_before_it_could_fail(stage, nothing):
    error = failing(stage).error
    assert error is not None
    assert causes.says_nothing_of_the_model(error) == nothing


def test_cases_that_failed_for_one_reason_are_one_failure():
    def key(stage, built="e", model="fixres", check="accuracy", **changes):
        refs = (ArtifactRef(Stage.CHECKPOINT, "c", ""), ArtifactRef(Stage.EXPORT, built, ""))
        case = failing(stage, **changes)
        return causes.failure(
            case.model_copy(update={"artifacts": refs, "model": model, "check": check})
        )

    assert key(Stage.COMPILE) == key(Stage.COMPILE, check="throughput") is not None
    assert key(Stage.COMPILE) != key(Stage.COMPILE, message="other")
    assert key(Stage.COMPILE) != key(Stage.COMPILE, built="another")
    assert key(Stage.COMPILE) != key(Stage.SIMPLIFY)
    assert key(Stage.COMPILE) != key(Stage.COMPILE, model="resnest50")
    assert key(Stage.DEVICE) == key(Stage.DEVICE, built="another", model="resnest50")
    full = {"full_disk": True}
    assert key(Stage.COMPILE, **full) == key(Stage.COMPILE, model="resnest50", **full)
    assert causes.failure(accuracy()) is None
    assert causes.failure(line(outcome="not_run")) == causes.failure(
        line(outcome="not_run", batch=4)
    )


# Verdicts ----------------------------------------------------------------------------------

FOUND = Diagnosis("The compiled model departs from the ONNX file", Stage.COMPILE)
DIAGNOSED = accuracy(diagnosis=FOUND)
WRONG = OutputsCheck(0.2, BOUND)


@pytest.mark.parametrize(
    ("stage", "blamed"),
    [(Stage.EXPORT, "toolchain"), (Stage.SIMPLIFY, "toolchain"), (Stage.COMPILE, "toolchain"),
     (Stage.INFER, "toolchain"), (Stage.DATA, "input"), (None, "model")],
)  # fmt: skip
def test_a_diagnosis_says_whose_fault_a_failed_case_is(stage, blamed):
    case = accuracy(diagnosis=Diagnosis("found", stage))
    assert cause(case)[0] == blamed
    # An acceptance that failed is one, whoever is to blame.
    assert exit_of(case) == Exit.ACCEPTANCE_FAILED
    # It holds for the throughput of the same artifact as well, and for no other.
    slow = throughput(outputs=WRONG)
    assert cause(slow, case) == ((blamed, "found") if stage else cause(slow))
    assert cause(throughput(outputs=WRONG, digest="other"), case) == cause(slow)


@pytest.mark.parametrize(
    ("case", "blamed", "words"),
    [
        (accuracy(), "model", "its figures do not hold"),
        (accuracy(measurement=whole(1, 2, problems=(OTHER_INPUT,))), "input", "preprocessing"),
        (throughput(), "model", "its figures do not hold"),
        (throughput(outputs=WRONG), "toolchain", "other outputs"),
        (throughput(outputs=OutputsCheck(float("nan"), BOUND)), "toolchain", "other outputs"),
        (throughput(outputs=OutputsCheck(0.02, 1e-3)), "toolchain", "other outputs"),
        (throughput(outputs=OutputsCheck(0.02, BOUND)), "model", "its figures do not hold"),
        (throughput(problems=(NAN,)), "toolchain", "other outputs"),
        (throughput(problems=(OTHER_NETWORK,)), "input", "--onnx"),
        (throughput(problems=(STRANGE,)), "toolchain", "do not fit the clock"),
        (throughput(problems=(STRANGE,), outputs=WRONG), "toolchain", "other outputs"),
        (throughput("inconclusive"), "machine", "unsteady"),
        (accuracy("inconclusive"), "input", "too few images"),
    ],
)
def test_a_verdict_has_a_cause(case, blamed, words):
    found, why = cause(case)
    assert (found, words in why) == (blamed, True), why


def test_a_diagnosis_says_nothing_of_slowness():
    assert cause(throughput(), DIAGNOSED)[0] == "model"


@pytest.mark.parametrize("kind", ["PASS", "RECORDED", "INCONCLUSIVE"])
@pytest.mark.parametrize("make", [accuracy, throughput])
def test_a_declared_failure_that_did_not_fail_blames_the_declaration(kind, make):
    case = make().model_copy(update={"verdict": judged(kind)})
    assert cause(case) == ("input", "declared in known_failures, but it did not fail there")
    assert "known_failures" in remedy(case)
    assert exit_of(case, allow_inconclusive=True) == Exit.ACCEPTANCE_FAILED


def test_batch_sizes_that_disagree_for_a_known_reason_blame_nobody_else():
    check = RunCheckLine(
        run="r",
        name=CheckName.BATCH_SIZES,
        subject="fixres on ascend310p3",
        model="fixres",
        target="ascend310p3",
        provenance="real",
        outcome="failed",
        sentence="they differ",
    )

    def of_check(check, *cases):
        return causes.causes(run_of(*cases, checks=(check,)))[-1].cause

    assert of_check(check, DIAGNOSED) == "toolchain"
    assert of_check(check) == "model"
    assert of_check(check.model_copy(update={"model": "resnest50"}), DIAGNOSED) == "model"
    assert of_check(check.model_copy(update={"name": CheckName.RATIO}), DIAGNOSED) == "model"


# What to do --------------------------------------------------------------------------------


def looked(**seen: Any) -> CaseLine:
    looks = (Condition("before", 0.0), Condition("during", 1.0, **seen))
    return throughput("inconclusive", conditions=looks)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (looked(busy="yes"), "end the process"),
        (looked(throttled="yes"), "cooling"),
        (looked(health="Warning", busy="yes"), "the driver's own tool"),
        (looked(health="OK", busy="no"), "--budget=SECONDS"),
        (throughput("inconclusive"), "--budget"),
        (accuracy("inconclusive"), "--sample"),
        (DIAGNOSED, "docs/diagnosis.md"),
        (throughput(outputs=WRONG), "run its accuracy"),
        (throughput(problems=(STRANGE,)), "another --driver"),
        (throughput(problems=(STRANGE,), outputs=WRONG), "run its accuracy"),
        # Overflow: of a target that computes in float16, as its bound says.
        (accuracy(verdict=judged("FAIL", NAN, bound=BOUND)), "float16"),
        (accuracy(verdict=judged("FAIL", NAN)), "float16"),
        (accuracy(verdict=judged("FAIL", NAN, bound=1e-3), diagnosis=FOUND), "docs/diagnosis.md"),
        (throughput(problems=(NAN,), outputs=OutputsCheck(1.0, BOUND)), "float16"),
        (throughput(problems=(NAN,), outputs=OutputsCheck(1.0, 1e-3)), "run its accuracy"),
        (failing(Stage.EXPORT), "mend it"),
    ],
)
def test_each_red_verdict_says_what_to_do(case, words):
    assert words in remedy(case)


# How a run ends ----------------------------------------------------------------------------


def exit_of(*cases, checks=(), **options):
    options = {"complete": True, "allow_inconclusive": False, **options}
    return causes.exit_code(cases, checks, **options)


@pytest.mark.parametrize(
    ("cases", "code"),
    [
        ([line()], 0),
        ([line(outcome="recorded")], 0),
        ([line(outcome="known_failure")], 0),
        ([line(outcome="failed")], 1),
        ([failing(Stage.COMPILE)], 1),
        ([failing(Stage.DATA)], 4),
        ([failing(Stage.CHECKPOINT)], 4),
        ([line(outcome="inconclusive")], 6),
        ([failing(Stage.DEVICE)], 7),
        ([failing(Stage.WORKER, outcome="crashed")], 7),
        ([failing(Stage.HARNESS)], 3),
        ([failing(Stage.HARNESS), failing(Stage.DEVICE)], 3),
        ([failing(Stage.DEVICE), line(outcome="failed")], 1),
        ([failing(Stage.DEVICE), failing(Stage.DATA)], 7),
        ([failing(Stage.DATA), line(outcome="inconclusive")], 4),
    ],
)
def test_exit_codes_tell_the_causes_apart(cases, code):
    assert exit_of(*cases) == code


def test_a_lost_case_an_allowed_one_and_a_run_that_was_stopped():
    undecided = line(outcome="inconclusive")
    assert exit_of(line(), complete=False) == Exit.MACHINE_TROUBLE
    assert exit_of(undecided, allow_inconclusive=True) == Exit.PASSED
    # A run that was asked to stop is not green, but what it left out is nobody's fault.
    for cases, code in (
        ([line(outcome="failed")], Exit.ACCEPTANCE_FAILED),
        ([failing(Stage.DATA)], Exit.INPUT_ERROR),
        ([undecided], Exit.INCONCLUSIVE_ONLY),
        ([line()], Exit.MACHINE_TROUBLE),
    ):
        assert exit_of(*cases, complete=False, stopped=True) == code


@pytest.mark.parametrize(
    ("outcome", "code"), [("failed", 1), ("inconclusive", 6), ("recorded", 0), ("passed", 0)]
)
def test_checks_over_the_cases_count(outcome, code):
    check = RunCheckLine(
        run="r", name=CheckName.RATIO, subject="s", model="m", target="t", provenance="real",
        outcome=outcome, sentence="",
    )  # fmt: skip
    assert exit_of(line(), checks=(check,)) == code


# Whole runs --------------------------------------------------------------------------------


def small_disk(folder: Path, options: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell with a file system of its own at `folder`."""
    folder.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o {options} none '{folder}' || exit 99; {script}"
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("options", ["size=4k", "size=40k"])
def test_a_run_on_a_full_disk_ends_with_7_and_without_a_traceback(tmp_path, shared, options):
    disk = tmp_path / "disk"
    if not shutil.which("unshare") or small_disk(disk, "size=4k", "true").returncode:
        pytest.skip("this user cannot mount a file system of its own")
    arguments = (
        *("--simulate-ascend", "-m", "throughput", "--batch-sizes=4", f"--catalog={TINY}"),
        *(f"--store={shared / 'store'}", f"--runs={disk / 'runs'}", f"--leases={disk / 'l'}"),
    )
    command = " ".join(f"'{word}'" for word in (sys.executable, "-m", "pytest", *arguments))
    done = small_disk(disk, options, f"exec {command} -p no:cacheprovider")
    output = done.stdout + done.stderr
    assert done.returncode == Exit.MACHINE_TROUBLE, output
    assert "No space left on device" in output
    assert "INTERNALERROR" not in output
    assert "Traceback" not in output


def test_wrong_outputs_have_one_cause_in_both_checks(run_pytest):
    done = run_pytest("--simulate-ascend", "--batch-sizes=4", "--simulator=fault=nan")
    assert done.code == 1, done.output
    findings = causes.causes(done.records())
    assert [finding.cause for finding in findings] == ["toolchain"] * 2
    assert findings[0].why == findings[1].why
