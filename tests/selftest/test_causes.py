"""Why a run is red: whose fault it is said to be, told once, on the terminal as in the records."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import plugin
from harness.base.errors import ConfigError, RecordError
from harness.judge import causes
from harness.judge.causes import Exit
from harness.records.lines import CaseLine
from harness.records.values import ArtifactRef, ErrorInfo
from harness.report import worth
from harness.report.why import first_screen
from harness.simulator import install as installing
from harness.simulator import parse_config
from harness.targets.ascend.atc import CompileRefused, CompileTimeout, NothingCompiled
from tests.selftest import report_samples as samples
from tests.selftest.planted import speed
from tests.selftest.running import ROOT, TINY
from tests.selftest.test_ascend_chain import CHAIN

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FULL = OSError(errno.ENOSPC, "No space left on device")


# How a run ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "stage", "code"),
    [
        ("failed", "", Exit.ACCEPTANCE_FAILED),
        ("error", "data", Exit.INPUT_ERROR),
        ("error", "device", Exit.MACHINE_TROUBLE),
        ("inconclusive", "", Exit.INCONCLUSIVE_ONLY),
        ("passed", "", Exit.MACHINE_TROUBLE),  # it did not run everything: never green
    ],
)
def test_what_a_run_that_was_told_to_stop_left_is_not_lost(outcome, stage, code):
    line = failing(stage) if stage else samples.case(outcome=outcome)
    ends = {"complete": False, "allow_inconclusive": False}
    assert causes.exit_code([line], [], stopped=True, **ends) == code
    lost = causes.exit_code([line], [], **ends)
    assert lost == (code if outcome == "failed" else Exit.MACHINE_TROUBLE)


# What to do ---------------------------------------------------------------------------------


def looked(**seen: str) -> CaseLine:
    measured = {"conditions": [{"moment": "before"}, {"moment": "during", **seen}]}
    return samples.case(check="throughput", outcome="inconclusive", measurement=measured)


NAN = {"problems": ["NaN or infinity in the outputs of 46 images (a, b, c and 43 more)"]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (looked(busy="yes"), "--device=N"),
        (looked(throttled="yes"), "cooling"),
        (looked(health="Warning", busy="yes"), "npu-smi info"),
        (looked(health="OK", busy="no"), "--budget=SECONDS"),
        (samples.case(check="throughput", outcome="inconclusive", measurement={}), "--budget"),
        (samples.case(outcome="inconclusive"), "--sample"),
        (samples.case(outcome="failed", target="ascend310p3", measurement=NAN), "float16"),
        (samples.case(outcome="failed", diagnosis={"summary": "x"}), "docs/diagnosis.md"),
        (samples.case(check="throughput", outcome="failed", measurement=NAN), "run its accuracy"),
        (samples.case(outcome="error"), "operator set"),
    ],
)
def test_each_red_verdict_says_what_to_do(line, said):
    finding = causes.cause_of(line)
    assert finding is not None
    assert said in finding.remedy
    (told,) = [one for one in first_screen(samples.run_records([line])).lines if "to do:" in one]
    assert said in told


@given(measured=JSON)
def test_a_record_of_any_content_has_a_remedy_or_none(measured):
    line = samples.case(check="throughput", outcome="inconclusive")
    line = line.model_copy(update={"measurement": {"conditions": measured, "problems": measured}})
    for outcome in ("inconclusive", "failed"):
        finding = causes.cause_of(line.model_copy(update={"outcome": outcome}))
        assert finding is not None
        assert isinstance(finding.remedy, str)


def test_a_network_that_is_refused_is_not_told_to_be_unknown():
    unknown, refused = failing("network", "NetworkError"), failing("network", "NetworkRefused")
    said = [finding.why for line in (unknown, refused) if (finding := causes.cause_of(line))]
    assert "under that name" in said[0]
    assert said[1] == "the network cannot be built as the catalog asks"


# What a diagnosis found --------------------------------------------------------------------


def artifact(name: str) -> list[ArtifactRef]:
    return [ArtifactRef(kind="compiled", key=name, digest=f"digest of {name}")]


def diagnosed(**changes) -> CaseLine:
    found = {"stage": "compile", "summary": "The compiled model departs from the ONNX file"}
    values = {"artifacts": artifact("a"), "diagnosis": found, "provenance": "real", **changes}
    return samples.case("fixres", 4, outcome="failed", **values)


def wrong(name: str = "a", **measurement: object) -> CaseLine:
    measured = measurement or {"problems": ["NaN or infinity in the outputs"]}
    return samples.case(
        "fixres",
        4,
        "throughput",
        "failed",
        artifacts=artifact(name),
        measurement=measured,
        provenance="real",
    )


def cause_of_throughput(*lines: CaseLine) -> tuple[str, str]:
    finding = causes.causes(samples.run_records(lines, provenance="real"))[-1]
    assert finding.subject.startswith("throughput")
    return finding.cause, finding.why


def test_a_diagnosis_of_an_artifact_counts_for_its_throughput_as_well():
    records = samples.run_records([diagnosed(), wrong()], provenance="real", exit_status=1)
    accuracy, throughput = causes.causes(records)
    assert (accuracy.cause, accuracy.why) == (throughput.cause, throughput.why)
    screen = first_screen(records)
    assert screen.word == "toolchain"
    assert "model failed" not in "\n".join(screen.lines)


@pytest.mark.parametrize("stage", ["input", "export"])
def test_whatever_the_diagnosis_found(stage):
    line = diagnosed(diagnosis={"stage": stage, "summary": "found"})
    assert cause_of_throughput(line, wrong())[1] == "found"


def test_it_says_nothing_of_another_artifact():
    cause, why = cause_of_throughput(diagnosed(), wrong("b"))
    assert (cause, why) == ("toolchain", "for the same inputs the ONNX model has other outputs")


def test_times_that_cannot_be_right_are_no_wrong_outputs():
    found = speed.timed(speed.Clocked(4.4, speed._microseconds))
    problems = list(found.problems)
    line = wrong(problems=problems, outputs_check={"relative_l2": 1e-6})
    cause, why = cause_of_throughput(line)
    assert (cause, why) == ("toolchain", "the times that the runtime tells do not fit the clock")
    finding = causes.cause_of(line)
    assert finding is not None
    assert "another --driver" in finding.remedy
    assert worth.why_not(line) == "wrong times"
    both = wrong(problems=problems, outputs_check={"relative_l2": 0.5})
    assert "other outputs" in cause_of_throughput(both)[1]


def test_it_says_nothing_of_slowness():
    slow = wrong(problems=[], outputs_check={"relative_l2": 1e-6})
    assert cause_of_throughput(diagnosed(), slow)[0] == "model"


@pytest.mark.parametrize(
    ("check", "is_wrong"),
    [
        ({"relative_l2": None}, True),  # infinity, in JSON
        ({"relative_l2": 0.2}, True),
        ({"relative_l2": 0.02}, False),
        ({"relative_l2": 0.02, "bound": 0.001}, True),
        ({}, False),
        ("nonsense", False),
    ],
)
def test_outputs_are_wrong_by_their_own_bound(check, is_wrong):
    cause, _ = cause_of_throughput(diagnosed(), wrong(problems=[], outputs_check=check))
    assert cause == ("toolchain" if is_wrong else "model")


def test_batch_sizes_that_disagree_for_a_known_reason_blame_nobody_else():
    check = samples.batch_check("fixres", "failed", target="cpu")
    records = samples.run_records([diagnosed()], provenance="real", exit_status=1, checks=[check])
    assert {finding.cause for finding in causes.causes(records)} == {"toolchain"}
    alone = samples.run_records([], provenance="real", exit_status=1, checks=[check])
    assert [finding.cause for finding in causes.causes(alone)] == ["model"]


@pytest.mark.parametrize("kind", ["PASS", "RECORDED", "INCONCLUSIVE"])
@pytest.mark.parametrize("check", ["accuracy", "throughput"])
def test_a_declared_failure_that_did_not_fail_blames_the_declaration(kind, check):
    failed = samples.case("fixres", 4, check, "failed", provenance="real")
    assert failed.verdict is not None
    other = failed.verdict.model_copy(update={"kind": kind})
    line = failed.model_copy(update={"verdict": other})
    finding = causes.cause_of(line)
    assert finding is not None
    assert (finding.cause, finding.why) == (
        "input",
        "declared in known_failures, but it did not fail there",
    )
    ends = {"complete": True, "allow_inconclusive": True}
    assert causes.exit_code([line], [], **ends) == Exit.ACCEPTANCE_FAILED
    screen = first_screen(samples.run_records([line], provenance="real", exit_status=1))
    assert screen.word == "input"
    finding = causes.cause_of(failed)
    assert finding is not None
    assert "known_failures" not in finding.why


# Errors that say more than their stage -----------------------------------------------------


def failing(stage: str, type_: str = "X", message: str = "m", log: str = "") -> CaseLine:
    error = ErrorInfo(type=type_, stage=stage, message=message, log=log)
    return samples.case(outcome="error", error=error)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (CompileRefused, "refused the model"),
        (CompileTimeout, "did not end in time"),
        (NothingCompiled, "said that it succeeded and left no new model"),
    ],
)
def test_a_compiler_that_did_not_refuse_is_not_told_to_have_refused(kind, said):
    finding = causes.cause_of(failing("compile", kind.__name__))
    assert finding is not None
    assert said in finding.why
    other = causes.cause_of(failing("compile"))
    assert other is not None
    assert "refused" not in other.why


@pytest.mark.parametrize("stage", ["configuration", "compile", "export", "harness", "infer"])
@pytest.mark.parametrize("place", ["message", "log"])
@pytest.mark.parametrize("words", [str(FULL), "OSError: [Errno 122] Disk quota exceeded: '/x'"])
def test_a_full_disk_is_the_machines_trouble_at_every_stage(stage, place, words):
    case = failing(stage, **{place: words})
    finding = causes.cause_of(case)
    assert finding is not None
    assert (finding.cause, finding.why) == ("machine", "a disk is full")
    code = causes.exit_code([case], (), complete=True, allow_inconclusive=False)
    assert code == Exit.MACHINE_TROUBLE


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, RecordError), (errno.EDQUOT, RecordError), (errno.EACCES, ConfigError)],
)
def test_a_full_disk_while_the_simulated_host_is_installed(monkeypatch, tmp_path, number, kind):
    def fail(*_):
        raise OSError(number, "it cannot")

    monkeypatch.setattr(sys.modules[installing.__module__], "_install", fail)
    with pytest.raises(kind) as caught:
        installing(tmp_path, parse_config(""), environment={})
    assert caught.value.remedy


def test_a_run_directory_on_a_full_disk_ends_with_7_and_one_in_a_wrong_place_with_4(tmp_path):
    for error in (FULL, RecordError("cannot append")):
        with pytest.raises(pytest.exit.Exception) as caught:
            plugin._cannot_write(tmp_path, error)
        assert caught.value.returncode == 7
    with pytest.raises(pytest.UsageError, match="--runs=DIR"):
        plugin._cannot_write(tmp_path, OSError(errno.EACCES, "not yours"))


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


@pytest.mark.parametrize("options", ["size=4k", "size=8k,nr_inodes=2", "size=40k"])
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
    assert "free disk space" in output
    assert "INTERNALERROR" not in output
    assert "Traceback" not in output


# Told once, on the terminal ----------------------------------------------------------------


def test_a_failed_build_is_told_once_on_the_terminal(run_pytest):
    done = run_pytest(*CHAIN, "--simulator=fault=unsupported-operator")
    assert done.code == 1, done.output
    accuracy, throughput = done.records().cases
    assert accuracy.error is not None
    assert throughput.error is not None
    # What the store says is what is looked for.
    assert throughput.error.message == accuracy.error.message + causes.REMEMBERED
    assert throughput.error.remedy == accuracy.error.remedy
    name = "tiny bs 4 on ascend310p3: compile failed (accuracy and throughput)"
    assert f"2 errors: {name}" in done.output
    assert "the compiler refused the model" in done.output
    assert done.output.count(f"what to do: {accuracy.error.remedy}") == 1, done.output
    assert f"the same failure as in {accuracy.check} of {accuracy.case}" in done.output
    assert (done.run_dir / "summary.md").read_text().count(
        "bs 4 on ascend310p3: compile failed"
    ) == 2


def test_a_stale_file_is_said_to_be_one(run_pytest):
    done = run_pytest(*CHAIN, "--simulator=fault=stale-files", "-m", "throughput")
    assert done.code == 1, done.output
    (case,) = done.records().cases
    assert case.error is not None
    assert case.error.type == "NothingCompiled"
    assert "said that it succeeded and left no new model" in done.output
    assert "refused" not in done.output


def test_wrong_outputs_have_one_cause_in_both_checks(run_pytest):
    done = run_pytest(*CHAIN, "--simulator=fault=nan")
    assert done.code == 1, done.output
    assert first_screen(done.records()).word == "toolchain"
    assert "The toolchain failed: The compiled model departs" in done.output
    assert "The model failed" not in done.output
    assert "2 failed: tiny bs 4 on ascend310p3 (accuracy and throughput)" in done.output
