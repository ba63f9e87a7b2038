"""Why a run is red: the model, the toolchain, the machine or an input; and what it ends with."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from harness.base import errors
from harness.base.host import Machine
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.judge import causes
from harness.judge.causes import Exit
from harness.judge.wording import clause
from harness.records import reader
from harness.records.conditions import Condition
from harness.records.lines import CaseLine, CheckName, EndLine, RunCheckLine
from harness.records.measurements import OutputsCheck, Problem, ProblemCode
from harness.records.observed import (
    ArtifactRef,
    Attempt,
    CheckpointInfo,
    DeviceInfo,
    Diagnosis,
    ErrorInfo,
)
from harness.records.reader import RunRecords
from harness.records.verdicts import Reference, Verdict
from harness.records.writer import RESULTS
from harness.run import ending
from harness.run.case_record import error_info
from harness.run.ending import checks_over, end_records
from harness.settings import Settings
from tests.selftest.judge_samples import BOUND, NAN, part, real, whole
from tests.selftest.running import TINY
from tests.selftest.test_run_checks import line

STRANGE = Problem(ProblemCode.STRANGE_TIMES)
WAITS = Problem(ProblemCode.WAITS)
OTHER_NETWORK = Problem(ProblemCode.OTHER_NETWORK)
OTHER_INPUT = Problem(ProblemCode.OTHER_INPUT)
WRONG = OutputsCheck(0.2, BOUND)
CHAIN = {
    "artifacts": tuple(ArtifactRef(stage, stage, "d") for stage in (Stage.EXPORT, Stage.COMPILE))
}


def failing(stage: Stage, type_: str = "X", outcome: str = "error", **changes) -> CaseLine:
    error = {"message": "m", "remedy": "mend it", **changes}
    case: CaseLine = line(outcome=outcome, error=ErrorInfo(type_, stage, **error))
    return case


def judged(kind="FAIL", *problems):
    return Verdict(kind, "", "r", "%", 1.0, Reference("none"), problems=problems)


def accuracy(outcome="failed", **given) -> CaseLine:
    given = {"measurement": whole(1, 2), "verdict": judged(), **given}
    return CaseLine(**{**dict(line(outcome=outcome)), **given})


def throughput(outcome="failed", digest="d", **measured) -> CaseLine:
    found = real(1.0, **measured)
    kind = "INCONCLUSIVE" if outcome == "inconclusive" else "FAIL"
    assert found.outputs is not None
    wrong = () if found.outputs.within else (Problem(ProblemCode.OUTPUTS_DIFFER),)
    verdict = judged(kind, *found.problems, *wrong)
    case: CaseLine = line(
        "throughput", outcome=outcome, digest=digest, measurement=found, verdict=verdict
    )
    return case


def a_check(outcome="failed", name=CheckName.BATCH_SIZES, model="fixres") -> RunCheckLine:
    return RunCheckLine(
        run="r", name=name, subject="s", model=model, target="ascend310p3", provenance="real",
        outcome=outcome, sentence="they differ",
    )  # fmt: skip


def of(*cases, checks=()):
    return causes.causes(RunRecords(Path("/nowhere"), None, (), cases, None, checks=checks))


def last(*cases, checks=()):
    return of(*cases, checks=checks)[-1]


def cause(case, *others) -> tuple[str, str]:
    finding = last(*others, case)
    return finding.cause, finding.why


def looked(too_few_rounds: int = 0, **seen: Any) -> CaseLine:
    looks = (Condition("before", 0.0), Condition("during", 1.0, **seen))
    return throughput("inconclusive", conditions=looks, too_few_rounds=too_few_rounds)


DIAGNOSED = accuracy(diagnosis=Diagnosis("The compiled model departs", Stage.COMPILE))
SET_ASIDE = failing(Stage.INFER).model_copy(
    update={"attempts": (Attempt("npu0", Stage.INFER, "e", "why"),)}
)


@pytest.mark.parametrize(
    ("case", "blamed", "why", "remedy"),
    [
        (failing(Stage.COMPILE, "CompileRefused"), "toolchain", "refused the model", "mend it"),
        (failing(Stage.COMPILE, "CompileTimeout"), "toolchain", "did not end in time", "mend"),
        (failing(Stage.COMPILE, "NothingCompiled"), "toolchain", "left no new model", "mend"),
        (failing(Stage.COMPILE, "CompileError"), "toolchain", "could not be compiled", "mend"),
        (failing(Stage.NETWORK, "NetworkRefused"), "input", "cannot be built", "mend it"),
        (failing(Stage.NETWORK, "NetworkError"), "input", "under that name", "mend it"),
        (failing(Stage.COMPILE, "CompileRefused", full_disk=True), "machine", "full", "mend it"),
        (failing(Stage.HARNESS, full_disk=True), "machine", "a disk is full", "mend it"),
        (failing(Stage.EXPORT, killed=True), "machine", "was killed", "mend it"),
        (SET_ASIDE, "toolchain", "a device was set aside before", "mend it"),
        (accuracy(), "model", "its figures do not hold", ""),
        (accuracy(measurement=whole(1, 2, problems=(OTHER_INPUT,))), "input", "preprocessing", ""),
        (accuracy(verdict=judged("FAIL", NAN)), "model", "do not hold", "float16"),
        (DIAGNOSED, "toolchain", "the compiled model departs", "docs/diagnosis.md"),
        (accuracy(diagnosis=Diagnosis("nothing")), "model", "do not hold", "docs/diagnosis.md"),
        (accuracy("inconclusive"), "input", "too few images", "--sample"),
        (
            accuracy("inconclusive", measurement=part(5, 0)),
            "input",
            "the reference is",
            "label file",
        ),
        (throughput(), "model", "its figures do not hold", ""),
        (throughput(outputs=OutputsCheck(0.02, BOUND)), "model", "its figures do not hold", ""),
        (throughput(outputs=WRONG), "toolchain", "other outputs", "run its accuracy"),
        (throughput(outputs=OutputsCheck(float("nan"), BOUND)), "toolchain", "other outputs", ""),
        (throughput(outputs=OutputsCheck(0.02, 1e-3)), "toolchain", "other outputs", ""),
        (throughput(problems=(NAN,)), "toolchain", "other outputs", "float16"),
        (throughput(problems=(NAN,)), "toolchain", "other outputs", "run its accuracy"),
        (throughput(problems=(OTHER_NETWORK,)), "input", "--onnx", ""),
        (throughput(problems=(STRANGE,)), "toolchain", "do not fit the clock", "another --driver"),
        (throughput(problems=(WAITS,)), "toolchain", "it waits", "log of its session"),
        (throughput(problems=(STRANGE,), outputs=WRONG), "toolchain", "other", "run its accuracy"),
        (throughput("inconclusive"), "machine", "unsteady", "--budget=SECONDS"),
        (looked(health="OK", busy="no"), "machine", "unsteady", "--budget=SECONDS"),
        (throughput("inconclusive", too_few_rounds=5), "input", "budget", "--budget=SECONDS"),
        (looked(busy="yes", too_few_rounds=5), "machine", "not its own", "end the process"),
        (looked(throttled="yes"), "machine", "not its own", "cooling"),
        (looked(health="Warning", busy="yes"), "machine", "not its own", "the driver's own tool"),
    ],
)
def test_a_red_case_has_a_cause_a_reason_and_a_remedy(case, blamed, why, remedy):
    finding = last(case)
    assert finding.cause == blamed
    assert why in finding.why
    assert remedy in finding.remedy


def test_every_stage_of_an_error_has_a_cause_and_each_class_that_is_named_exists():
    from harness.networks import library  # noqa: F401
    from harness.targets.ascend import atc  # noqa: F401

    classes = errors._all_classes(errors.HarnessError)
    of_harness = {Stage.VERDICT, Stage.HARNESS}
    for stage in {cls.stage for cls in classes.values()} | of_harness:
        assert (cause(failing(stage))[0] == "harness") == (stage in of_harness), stage
    assert set(causes._BY_TYPE) <= set(classes)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ({"message": "OSError: No space left on device"}, True),
        ({"message": "m", "log": "[Errno 122] Disk quota exceeded"}, True),
        ({"message": "m", "log": "no space"}, False),
    ],
)
def test_a_full_disk_is_known_by_what_the_system_says(text, full):
    assert errors.CompileError(**text).full_disk == full


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "machine"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "machine"),
        (errors.ExportError("OSError: [Errno 24] Too many open files: 'm.onnx'"), "machine"),
        (errors.ConfigError("no folder can be made: Read-only file system"), "machine"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), "harness"),
    ],
)
def test_what_the_operating_system_refuses_is_the_machines_doing(error, cause):
    assert causes.cause_of_error(error_info(error)).cause == cause


@pytest.mark.parametrize(
    ("stage", "nothing"),
    [(Stage.DATA, True), (Stage.DEVICE, True), (Stage.CHECKPOINT, True), (Stage.HARNESS, True),
     (Stage.EXPORT, False), (Stage.COMPILE, False), (Stage.NETWORK, False), (Stage.INFER, False)],
)  # fmt: skip
def test_what_is_declared_of_a_model_stays_open_before_it_could_fail(stage, nothing):
    assert causes.says_nothing_of_the_model(ErrorInfo("X", stage, "m")) == nothing
    assert causes.says_nothing_of_the_model(ErrorInfo("X", stage, "m", full_disk=True))
    assert causes.says_nothing_of_the_model(ErrorInfo("X", stage, "m", killed=True))


@pytest.mark.parametrize(
    ("stage", "blamed"),
    [(Stage.EXPORT, "toolchain"), (Stage.COMPILE, "toolchain"), (Stage.INFER, "toolchain"),
     (Stage.DEVICE, "machine"), (Stage.DATA, "input"), (None, "model")],
)  # fmt: skip
def test_a_diagnosis_says_whose_fault_wrong_outputs_of_the_same_artifact_are(stage, blamed):
    case = accuracy(diagnosis=Diagnosis("found", stage), **CHAIN, device=DeviceInfo("npu-0"))
    assert cause(case)[0] == blamed
    # An acceptance that failed is one, whoever is to blame.
    assert exit_of(case) == Exit.ACCEPTANCE_FAILED
    wrong = throughput(outputs=WRONG).model_copy(update={**CHAIN, "device": case.device})
    # What accuracy is fed is not what throughput is.
    shared = stage not in (None, Stage.DATA)
    assert cause(wrong, case) == ((blamed, "found") if shared else cause(wrong))
    assert cause(throughput(outputs=WRONG, digest="other"), case) == cause(wrong)
    assert cause(throughput(), case)[0] == "model"  # it explains no slowness


GIVEN = {"checkpoint": CheckpointInfo("onnx", "m.onnx", "s")}


@pytest.mark.parametrize("diagnosed", [True, False])
@pytest.mark.parametrize("first", ["accuracy", "throughput"])
def test_a_given_file_has_one_culprit_in_all_checks(first, diagnosed):
    said = "The given ONNX departs from eager PyTorch"
    found = {"diagnosis": Diagnosis(said, Stage.EXPORT)} if diagnosed else {}
    scores = [accuracy(**found, **GIVEN, **CHAIN) for _ in (1, 4)]
    timed = throughput(problems=(OTHER_NETWORK,)).model_copy(update=GIVEN | CHAIN)
    cases = [*scores, timed] if first == "accuracy" else [timed, *scores]
    findings = of(*cases, checks=(a_check(),))
    assert {(one.cause, one.why) for one in findings} == {
        ("input", clause(said) if diagnosed else "the file that --onnx gave is another network")
    }
    # Another file's outputs are its own.
    assert cause(accuracy(), *cases)[0] == "model"


def on(case: CaseLine, device: str, host: str = "h") -> CaseLine:
    where = {"device": DeviceInfo(device), "machine": Machine(hostname=host)}
    return case.model_copy(update=where)


NOT_FINITE, FAST = throughput(problems=(NAN,)), line("throughput")


@pytest.mark.parametrize(
    ("right", "wrong", "blamed", "names"),
    [
        (on(line(), "npu-0"), on(NOT_FINITE, "npu-1"), "machine", ["npu-0", "npu-1"]),
        (on(line(), "npu-0"), on(throughput(outputs=WRONG), "npu-1"), "machine", ["npu-1"]),
        (on(FAST, "npu-0"), on(accuracy(verdict=judged("FAIL", NAN)), "npu-1"), "machine", []),
        (on(FAST, "npu-0"), on(accuracy(verdict=judged("FAIL")), "npu-1"), "model", []),
        (on(line(), "npu-0", "a"), on(NOT_FINITE, "npu-0", "b"), "machine", ["npu-0 of b"]),
        (on(line(), "npu-0"), on(NOT_FINITE, "npu-0"), "toolchain", []),
        (on(line(digest="other"), "npu-0"), on(NOT_FINITE, "npu-1"), "toolchain", []),
        (on(accuracy(), "npu-0"), on(NOT_FINITE, "npu-1"), "toolchain", []),
    ],
    ids=["NaN", "far", "accuracy", "score", "hosts", "one device", "another file", "both failed"],
)
def test_a_file_that_another_device_runs_rightly_blames_the_device(right, wrong, blamed, names):
    finding = last(right, wrong)
    assert finding.cause == blamed
    assert all(name in finding.why for name in names)
    assert ("float16" in finding.remedy) == (blamed == "toolchain")
    if blamed == "machine":  # so it is for what ran on that device alone
        for device in ("npu-1", "npu-2"):
            alone = on(throughput(problems=(NAN,), digest="alone"), device)
            expected = "machine" if on(wrong, device) == wrong else "toolchain"
            assert last(right, wrong, alone).cause == expected


@pytest.mark.parametrize("kind", ["PASS", "RECORDED", "INCONCLUSIVE"])
@pytest.mark.parametrize("make", [accuracy, throughput])
def test_a_declared_failure_that_did_not_fail_blames_the_declaration(kind, make):
    case = make().model_copy(update={"verdict": judged(kind)})
    assert cause(case) == ("input", "declared in known_failures, but it did not fail there")
    assert "known_failures" in last(case).remedy
    assert exit_of(case, allow_inconclusive=True) == Exit.ACCEPTANCE_FAILED


@pytest.mark.parametrize(
    ("cases", "check", "blamed"),
    [
        ((DIAGNOSED,), a_check(), "toolchain"),
        ((), a_check(), "model"),
        ((DIAGNOSED,), a_check(model="resnest50"), "model"),
        ((DIAGNOSED,), a_check(name=CheckName.RATIO), "model"),
    ],
)
def test_batch_sizes_that_disagree_for_a_known_reason_blame_nobody_else(cases, check, blamed):
    assert last(*cases, checks=(check,)).cause == blamed


# How a run ends ----------------------------------------------------------------------------


def exit_of(*cases, checks=(), **options):
    options = {"complete": True, "allow_inconclusive": False, **options}
    return causes.exit_code(cases, checks, **options)


GREEN, UNDECIDED, RED = line(), line(outcome="inconclusive"), line(outcome="failed")
REHEARSED = line("throughput", outcome="inconclusive", provenance="rehearsal")
STOPPED = {"complete": False, "stopped": True}


@pytest.mark.parametrize(
    ("cases", "options", "code"),
    [
        ([GREEN], {}, 0),
        ([line(outcome="recorded")], {}, 0),
        ([line(outcome="known_failure")], {}, 0),
        ([RED], {}, 1),
        ([failing(Stage.COMPILE)], {}, 1),
        ([failing(Stage.COMPILE, full_disk=True)], {}, 7),
        ([failing(Stage.COMPILE, killed=True)], {}, 7),
        ([failing(Stage.DATA)], {}, 4),
        ([failing(Stage.CHECKPOINT)], {}, 4),
        ([UNDECIDED], {}, 6),
        ([UNDECIDED], {"allow_inconclusive": True}, 0),
        ([REHEARSED, GREEN], {}, 0),
        ([REHEARSED], {}, 6),  # nothing was decided
        ([REHEARSED, UNDECIDED], {}, 6),
        ([REHEARSED, RED], {}, 1),
        ([line("throughput", outcome="inconclusive")], {}, 6),
        ([line("throughput", outcome="inconclusive", provenance="simulated")], {}, 6),
        ([line(outcome="inconclusive", provenance="rehearsal")], {}, 6),
        ([REHEARSED], {"complete": False}, 7),
        ([failing(Stage.DEVICE)], {}, 7),
        ([failing(Stage.WORKER, outcome="crashed")], {}, 7),
        ([failing(Stage.HARNESS)], {}, 3),
        ([failing(Stage.HARNESS), failing(Stage.DEVICE)], {}, 3),
        ([failing(Stage.DEVICE), RED], {}, 1),
        ([failing(Stage.DEVICE), failing(Stage.DATA)], {}, 7),
        ([failing(Stage.DATA), UNDECIDED], {}, 4),
        ([GREEN], {"complete": False}, 7),
        # A run that was asked to stop is not green, but what it left out is nobody's fault.
        ([RED], STOPPED, 1),
        ([failing(Stage.DATA)], STOPPED, 4),
        ([UNDECIDED], STOPPED, 6),
        ([GREEN], STOPPED, 7),
        *(
            ([GREEN], {"checks": (a_check(outcome),)}, code)
            for outcome, code in (("failed", 1), ("inconclusive", 6), ("recorded", 0))
        ),
    ],
)
def test_exit_codes_tell_the_causes_apart(cases, options, code):
    assert exit_of(*cases, **options) == code


# Whole runs --------------------------------------------------------------------------------


def test_records_that_were_emptied_during_the_run_are_not_green(tmp_path):
    (tmp_path / RESULTS).write_text("")
    with pytest.raises(errors.RecordError, match="removed while it went on"):
        checks_over(reader.read(tmp_path), load_catalog(TINY), Settings())
    ended = end_records(tmp_path, (), allow_inconclusive=False)
    assert (ended.end and ended.end.complete, ended.exit_status) == (False, Exit.MACHINE_TROUBLE)


def test_a_run_without_a_report_is_not_green_nor_where_its_records_cannot_say_so(tmp_path):
    end = EndLine(run="r", finished="", planned=0, counts={}, complete=True, exit_status=0)
    records = RunRecords(tmp_path / "gone", None, (), (), end)
    assert ending.publish(records).exit_status == Exit.MACHINE_TROUBLE


def test_what_a_library_puts_into_one_line_is_bounded():
    error = errors.ExportError("x" * 10**6, log="y" * 10**6 + "the end")
    assert len(error.message) < 10_000 and len(error.log) < 100_000
    assert error.log.endswith("the end")
    again = errors.from_json({**error.to_json(), "files": ["a", "b"]})
    assert (again.message, again.log, again.files) == (error.message, error.log, ("a", "b"))
