"""The engine: outcomes, records, the end of a run, on a chain that is made up."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import harness
from harness.base.errors import (
    REMEMBERED,
    CompileError,
    ConfigError,
    DataError,
    DeviceError,
    HarnessError,
    RecordError,
)
from harness.base.stages import Stage
from harness.judge.causes import Exit
from harness.plan import Case
from harness.records import reader, writer
from harness.records.lines import CaseLine, CheckName
from harness.records.observed import Diagnosis, ErrorInfo, Observed
from harness.records.verdicts import Reference, Verdict
from harness.run import ending
from harness.run.case import CaseRun
from harness.run.case_record import error_info
from harness.run.directory import hold
from harness.run.engine import Run
from harness.run.known_failures import case_end
from harness.settings import resolve
from harness.targets.provider import Provider
from tests.selftest.running import TINY, imported_by

Ending = Verdict | BaseException


def judged(kind: Any, unit: str = "%") -> Verdict:
    return Verdict(kind, f"a sentence of {kind}", "a rule", unit, 50.0, Reference("none"))


@dataclass
class MadeUp:
    """A pipeline whose case ends as the test wants; a `HarnessError` ends it while it is made."""

    case: Case
    ends: Ending
    observed: Observed = field(default_factory=Observed)

    def prepare(self) -> object:
        if isinstance(self.ends, HarnessError):
            raise self.ends
        return object()


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A run of the small model; `ends` says how each (batch size, check) ends, others pass."""
    diagnosed: list[str] = []

    def measure(pipeline: MadeUp, prepared: object) -> Verdict:
        if isinstance(pipeline.ends, BaseException):
            raise pipeline.ends
        return pipeline.ends

    def diagnose(pipeline: MadeUp, prepared: object) -> Diagnosis:
        diagnosed.append(pipeline.case.name)
        return Diagnosis("found", Stage.COMPILE)

    monkeypatch.setattr("harness.measure.attempt.measure", measure)
    monkeypatch.setattr("harness.diagnosis.diagnose.diagnose", diagnose)

    def make(
        ends: Callable[[Case], Ending] = lambda case: judged("PASS"),
        *,
        catalog: Path = TINY,
        **options: Any,
    ) -> Run:
        given = {"rehearsal": True, "batch_sizes": "1,4", "catalog": str(catalog), **options}
        places = {"runs": str(tmp_path / "runs"), "store": str(tmp_path / "store")}
        run = Run(resolve({**places, **given}, environment={}))
        bench = SimpleNamespace(
            target=SimpleNamespace(traits=SimpleNamespace(runs_on_host=True)),
            pool=SimpleNamespace(),
            for_case=lambda case: MadeUp(case, ends(case)),
        )
        run.__dict__["workbench"] = bench
        run.__dict__["diagnosed"] = diagnosed
        return run

    return make


def only(run: Run, check: str = "accuracy") -> list[Case]:
    return [case for case in run.plan.cases if case.check == check]


def outcomes(records: reader.RunRecords) -> dict[str, str]:
    return {f"{case.check} {case.batch_size}": case.outcome for case in records.cases}


# A plan -----------------------------------------------------------------------------------


def test_a_plan_ends_with_records_a_sum_and_a_report(make):
    run = make()
    records = run.execute()
    assert outcomes(records) == dict.fromkeys(
        ("accuracy 1", "accuracy 4", "throughput 1", "throughput 4"), "passed"
    )
    assert records.end is not None
    assert (records.exit_status, records.end.planned, records.end.complete) == (0, 4, True)
    assert records.run and records.run.provenance == "rehearsal"
    assert records.run.guide_figures == {}
    assert [one.nodeid for one in records.plan] == [case.nodeid for case in records.cases]
    assert records.plan[0].nodeid == (
        "tests/acceptance/test_accuracy.py::test_accuracy[tiny-bs1-cpu]"
    )
    for name in ("report.html", "summary.json", "junit.xml", "results.csv"):
        assert (run.directory / name).is_file()
    assert (run.settings.runs / "latest").resolve() == run.directory
    assert run.summary()[-1] == f"report: {run.directory / 'report.html'}"
    assert reader.read(run.directory) == records
    with pytest.raises(ConfigError, match="executed before"):
        run.execute()


@pytest.mark.parametrize("kind", ["run", "plan", "case"])
@pytest.mark.parametrize("keeps", [0, 50], ids=["lost", "garbled"])
def test_a_line_that_goes_while_the_run_goes_on_ends_it_badly(make, monkeypatch, kind, keeps):
    run, begun = make(), []

    def damage(case: Case) -> MadeUp:
        path = run.directory / writer.RESULTS
        begun.append(case)
        if len(begun) == 2:
            lines = path.read_text().splitlines(keepends=True)
            at = next(at for at, line in enumerate(lines) if f'"kind":"{kind}"' in line)
            lines[at] = lines[at][:keeps] + "\n" * (keeps > 0)
            path.write_text("".join(lines))
        return MadeUp(case, judged("PASS"))

    run.workbench.for_case = damage
    if kind == "run":
        with pytest.raises(RecordError, match="first records are gone"):
            run.execute()
    else:
        records = run.execute()
        assert records.exit_status == Exit.MACHINE_TROUBLE
        assert records.end is not None
        assert not records.end.complete


@pytest.mark.parametrize(
    ("end", "outcome", "status"),
    [
        (judged("PASS"), "passed", Exit.PASSED),
        (judged("FAIL"), "failed", Exit.ACCEPTANCE_FAILED),
        (judged("INCONCLUSIVE"), "inconclusive", Exit.INCONCLUSIVE_ONLY),
        (judged("RECORDED", "fps"), "recorded", Exit.PASSED),
        (CompileError("refused"), "error", Exit.ACCEPTANCE_FAILED),
        (DataError("no images"), "error", Exit.INPUT_ERROR),
        (DeviceError("lost"), "error", Exit.MACHINE_TROUBLE),
        (OSError(errno.ENOSPC, "No space left on device"), "error", Exit.MACHINE_TROUBLE),
        (ValueError("a fault"), "error", Exit.HARNESS_FAULT),
    ],
)
def test_how_a_case_ends_decides_the_exit_code(make, end, outcome, status):
    records = make(lambda case: end if case.batch_size == 4 else judged("PASS")).execute()
    assert outcomes(records)["accuracy 4"] == outcome
    assert outcomes(records)["accuracy 1"] == "passed"
    assert records.exit_status == status


def test_inconclusive_is_allowed_where_somebody_says_so(make):
    records = make(lambda case: judged("INCONCLUSIVE"), allow_inconclusive=True).execute()
    assert records.exit_status == Exit.PASSED
    assert records.run and records.run.allow_inconclusive


def test_one_case_is_a_run_of_its_own(make, monkeypatch):
    run = make()
    one = run.case("tiny", 8, "accuracy")
    one.run.__dict__["workbench"] = run.workbench
    line = one.execute()
    assert isinstance(line, CaseLine)
    assert (line.batch_size, line.outcome, line.target) == (8, "passed", "cpu")
    assert reader.read(one.run.directory).cases == (line,)
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        run.case("tinny", 8, "accuracy")


def test_what_is_missing_is_said_before_anything_is_written(tmp_path):
    run = Run(resolve({"catalog": str(TINY), "runs": str(tmp_path / "runs")}, environment={}))
    with pytest.raises(ConfigError) as caught:
        run.execute()
    for word in ("--target", "--imagenet", "--checkpoints"):
        assert word in caught.value.message
    assert not (tmp_path / "runs").exists()


def test_an_error_keeps_its_words_and_an_unexpected_one_its_traceback(make):
    error = CompileError("it would not", remedy="another chip", log="EZ3002")
    ends = {1: error, 4: ValueError("first line\nsecond")}
    records = make(lambda case: ends[case.batch_size]).execute()
    known, unknown = records.cases[0], records.cases[1]
    assert known.error == ErrorInfo("CompileError", Stage.COMPILE, "it would not", "another chip",
                                    "EZ3002")  # fmt: skip
    assert known.sentence == "[compile] it would not"
    assert unknown.error and unknown.error.stage is Stage.HARNESS
    assert unknown.error.message == "ValueError: first line"
    assert "Traceback" in unknown.error.log


def test_a_failed_build_is_told_once(make):
    run = make()
    first, second = only(run)
    error, again = CompileError("refused", remedy="r"), CompileError("refused", remedy="r")
    again.remembered = True
    assert run.describe(first, error) == "[compile] refused\n  what to do: r"
    assert run.describe(second, again) == (
        f"[compile] the same failure as in {first.name}, see there; not tried again"
    )
    # One that failed anew, in the same words, is told whole.
    assert run.describe(second, CompileError("refused", remedy="r")) == run.describe(first, error)
    # In its record the second case has all of it.
    assert case_end(error_info(again), None, None).sentence == f"[compile] refused{REMEMBERED}"
    other = CompileError("another")
    other.remembered = True  # by another process, whose terminal is not this one
    assert "another" in run.describe(second, other)


# Diagnosis --------------------------------------------------------------------------------


def test_a_failed_accuracy_is_diagnosed_and_nothing_else(make):
    run = make(lambda case: judged("FAIL" if case.batch_size == 4 else "PASS"))
    records = run.execute()
    assert run.__dict__["diagnosed"] == ["accuracy of tiny-bs4-cpu"]
    (failed,) = [case for case in records.cases if case.diagnosis is not None]
    assert failed.diagnosis == Diagnosis("found", Stage.COMPILE)
    run = make(lambda case: judged("FAIL"), no_diagnosis=True)
    assert all(case.diagnosis is None for case in run.execute().cases)


def test_a_diagnosis_that_fails_costs_no_verdict(make, monkeypatch):
    def fail(*_: object) -> Diagnosis:
        raise DeviceError("no device is left")

    run = make(lambda case: judged("FAIL"))
    monkeypatch.setattr("harness.diagnosis.diagnose.diagnose", fail)
    line = run.execute(only(run)[:1]).cases[0]
    assert line.outcome == "failed"
    assert line.diagnosis is not None
    assert "no device is left" in line.diagnosis.summary


# The end ----------------------------------------------------------------------------------


def test_an_interruption_ends_the_run_with_its_report(make):
    def ends(case: Case) -> Ending:
        return KeyboardInterrupt() if case.batch_size == 4 else judged("PASS")

    run = make(ends)
    with pytest.raises(KeyboardInterrupt):
        run.execute()
    records = reader.read(run.directory)
    assert outcomes(records) == {"accuracy 1": "passed"}
    assert records.end is not None
    assert (records.exit_status, records.end.complete) == (Exit.INTERRUPTED, False)
    assert records.end.counts == records.counts()
    assert (run.directory / "report.html").is_file()


def test_a_line_that_cannot_be_written_is_not_green(make, monkeypatch, capsys):
    append = writer.append

    def failing(directory: Path, *lines: Any) -> None:
        if any(isinstance(line, CaseLine) and line.batch_size == 4 for line in lines):
            raise RecordError("cannot append", remedy="free disk space")
        append(directory, *lines)

    monkeypatch.setattr(writer, "append", failing)
    records = make().execute()
    assert records.exit_status == Exit.MACHINE_TROUBLE
    assert records.counts()["not_run"] == 2
    assert "free disk space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (RecordError("cannot write"), "PASS", Exit.MACHINE_TROUBLE),
        (ValueError("a fault"), "PASS", Exit.HARNESS_FAULT),
        (ValueError("a fault"), "FAIL", Exit.ACCEPTANCE_FAILED),
    ],
)
def test_a_run_without_its_report_did_not_end_well(make, monkeypatch, error, kind, status):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("harness.report.render.write_report", fail)
    run = make(lambda case: judged(kind))
    records = run.execute()
    assert records.exit_status == status
    assert reader.read(run.directory).exit_status == status
    assert run.summary()[-1] == "report: not written"
    run.directory /= 300 * "x"  # cannot even be looked for
    assert run.summary()[-1] == "report: not written"


def test_checks_that_cannot_be_judged_fail_the_run(make, monkeypatch):
    def fail(*_: Any) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(ending, "run_checks", fail)
    records = make().execute()
    (check,) = records.checks
    assert (check.name, check.outcome) == (CheckName.RUN_CHECKS, "failed")
    assert check.sentence == "could not be judged: ValueError: a fault"
    assert records.exit_status == Exit.ACCEPTANCE_FAILED


def test_what_a_target_remarks_is_not_green(make, monkeypatch):
    monkeypatch.setattr(Provider, "remarks", lambda *_: ("never struck",))
    records = make().execute()
    assert [(one.name, one.outcome, one.sentence) for one in records.checks] == [
        (CheckName.PLANTED_FAULT, "inconclusive", "never struck")
    ]
    assert records.exit_status == Exit.INCONCLUSIVE_ONLY


def test_a_worker_that_died_has_a_line_for_its_case(make):
    run = make()
    first = only(run)[0]
    run.begin([("a.py::test_accuracy[x]", first)])
    line = run.crashed("a.py::test_accuracy[x]", "it died: worker 'gw0' crashed", "more")
    assert line is not None
    assert (line.outcome, line.batch_size) == ("crashed", 1)
    assert line.sentence.endswith("died: worker 'gw0' crashed")
    assert run.crashed("another test", "text") is None
    assert run.finish().exit_status == Exit.MACHINE_TROUBLE


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, RecordError), (errno.EDQUOT, RecordError), (errno.EACCES, ConfigError)],
)
def test_a_run_without_a_place_ends_before_it_begins(make, monkeypatch, number, kind):
    def fail(self: Path, **_: Any) -> None:
        raise OSError(number, "it cannot")

    run = make()
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(kind) as caught:
        run.execute()
    assert "--runs=DIR" in caught.value.remedy


def test_somebodys_folder_called_latest_stays(make):
    run = make()
    (run.settings.runs / "latest").mkdir(parents=True)
    run.execute()
    assert not (run.settings.runs / "latest").is_symlink()
    assert sorted(path.name for path in run.settings.runs.iterdir()) == [run.id, "latest"]


def test_an_excused_case_ends_green(make, tmp_path):
    path = tmp_path / "known.yaml"
    declared = "known_failures:\n  - {case: tiny-bs4-cpu, stage: compile, link: 'https://issues.example.org/7'}\n"
    path.write_text(f"{TINY.read_text()}\n{declared}")
    error = CompileError("refused")
    run = make(lambda case: error if case.batch_size == 4 else judged("PASS"), catalog=path)
    records = run.execute()
    assert outcomes(records)["accuracy 4"] == "known_failure"
    assert records.exit_status == 0


# The package ------------------------------------------------------------------------------


def test_the_package_offers_the_engine_and_imports_it_when_used():
    assert harness.Run is Run
    assert harness.Case is Case
    assert harness.__version__
    with pytest.raises(AttributeError, match="no attribute 'Runn'"):
        _ = harness.Runn
    loaded = imported_by("import harness")
    assert not {"pydantic", "numpy", "pytest", "harness.run"} & loaded


def test_a_case_knows_whether_it_fails_a_test(make):
    for kind, check, allowed, fails in (
        ("PASS", "accuracy", False, False),
        ("FAIL", "accuracy", True, True),
        ("FAIL", "throughput", True, True),
        ("INCONCLUSIVE", "accuracy", False, True),
        ("INCONCLUSIVE", "accuracy", True, False),
        ("INCONCLUSIVE", "throughput", False, False),  # in a rehearsal the machine's doing
    ):
        run = make(lambda case, kind=kind: judged(kind), allow_inconclusive=allowed)
        case = CaseRun(run, only(run, check)[0])
        assert not case.fails
        case.prepare()
        case.measure()
        assert case.fails == fails


def test_progress_knows_the_cases_of_the_run(make):
    seen: list[Any] = []
    progress = SimpleNamespace(begin=seen.append, ended=seen.append, end=lambda: seen.append("end"))
    run = make()
    run.progress = progress
    run.execute(only(run))
    assert len(seen[0]) == 2
    assert seen[1:] == [*seen[0], "end"]


def test_all_files_that_cannot_be_used_are_named_beside_the_record(make):
    files = [f"image {n}: empty" for n in range(9)]
    error = DataError("9 images cannot be used: image 0: empty", remedy="mend them", files=files)
    run = make(lambda case: error)
    records = run.execute(only(run))
    first, second = (case.error for case in records.cases)
    assert first.remedy == second.remedy  # one error, which both cases have: one file
    (listed,) = (records.directory / "logs").iterdir()
    assert first.remedy.endswith(f"mend them; all of them are in logs/{listed.name}")
    assert listed.read_text().splitlines() == files


def test_a_run_that_fails_to_end_or_to_begin_can_be_resumed(make, monkeypatch):
    def fail(*_: Any) -> None:
        raise RecordError("planted")

    for name, module in (("append", writer), ("read", reader)):
        run = make()
        with monkeypatch.context() as patched, pytest.raises(RecordError, match="planted"):
            patched.setattr(module, name, fail)
            run.execute()
        with hold(run.directory):  # the object is still there, as in a notebook
            pass
