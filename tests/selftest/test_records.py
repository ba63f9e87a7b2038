"""Records: nothing that was written is lost, and what cannot be read is told."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.base.terms import CHECKS, OUTCOMES, Outcome
from harness.records.lines import (
    CaseLine,
    EndLine,
    PlanLine,
    ResumeLine,
    RunCheckLine,
    RunLine,
)
from harness.records.measurements import (
    FLIPS_KEPT,
    AccuracyMeasurement,
    Fidelity,
    Problem,
    ProblemCode,
    Samples,
)
from harness.records.observed import Attempt, Diagnosis, Section
from harness.records.reader import read, read_samples
from harness.records.verdicts import BatchAnswer, BatchFlip, FigureName, Reference, Verdict
from harness.records.writer import RESULTS, append, new_run_id, write_samples
from tests.selftest import report_samples as samples
from tests.selftest.running import ROOT


def a_case(number: int = 0, outcome: Outcome = "passed", **more: Any) -> CaseLine:
    given = {"nodeid": f"test_accuracy.py::test[{number}]", "case": f"tiny-bs{number}-cpu", **more}
    return samples.case("tiny", number, outcome=outcome, run="r", **given)


RUN = RunLine(
    run="r",
    provenance="rehearsal",
    started="2026-11-20T07:30:00+00:00",
    command=("pytest", "-k", "a b"),
    machine=samples.MACHINE,
    versions={"python": "3.11"},
    settings={"rehearsal": True, "limit": None},
    guide_figures=samples.published("resnest50"),
    merged=("a: 1 of 1 cases",),
)
END = EndLine(run="r", finished="later", planned=1, counts={"failed": 1}, complete=True)
EVERY_DATUM = {"text": "a", "none": None, "yes": True, "count": 3, "share": 0.5, "l2": math.inf}
WRONG = Verdict(
    "FAIL",
    "too low",
    "whole-set",
    "%",
    69.25,
    Reference("published", 70.5, "%", "paper"),
    problems=(Problem(ProblemCode.LOGITS_DIFFER, {**EVERY_DATUM, "names": ("a", "b")}),),
    figures={FigureName.IMAGES: 46, FigureName.TOP1: 69.25},
    top1_by_batch_size={1: 50.0, 16: 51.0},
    batch_flips=(BatchFlip("i", 1, False, {1: BatchAnswer(7, 0.5), 16: BatchAnswer(-1)}),),
)
FULL = a_case(
    4,
    "failed",
    error=samples.ERROR,
    attempts=(Attempt("npu-0", Stage.INFER, "hung", "silent"),),
    diagnosis=Diagnosis("s", Stage.COMPILE, "", (Section("t", ("c",), (("r",),)),), ("atc",)),
).model_copy(update={"verdict": WRONG})


def append_raw(directory: Path, text: str | bytes) -> None:
    with (directory / RESULTS).open("ab") as stream:
        stream.write(text if isinstance(text, bytes) else text.encode())


def plan(*cases: CaseLine) -> PlanLine:
    return PlanLine(run="r", cases=tuple(samples.planned(case) for case in cases))


# What was written -------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_kind_of_case_comes_back_as_it_was(tmp_path: Path, check: Any, outcome: Any) -> None:
    case = samples.case("squeezenet1_1", 4, check, outcome)
    check_line = RunCheckLine(
        run="r",
        name="batch sizes",  # type: ignore[arg-type]  # as text, as a record has it
        subject="s",
        model="m",
        target="cpu",
        provenance="real",
        outcome="failed",
        sentence="s",
        verdict=WRONG,
    )
    append(tmp_path, case, check_line)
    records = read(tmp_path)
    assert records.cases == (case,)
    assert records.checks == (check_line,)


@pytest.mark.parametrize(
    "text",
    ["line\nfeed\r\n", "paragraph\u2028and\u2029next\x85line", "\x0b\x0c\x1c\x1d\x1e\x00", "é😀"],
    ids=ascii,
)
def test_any_text_stays_in_its_line(text: str, tmp_path: Path) -> None:
    line = a_case(sentence=text)
    append(tmp_path, line)
    append(tmp_path, a_case(1))
    assert read(tmp_path).cases == (line, a_case(1))
    assert read(tmp_path).damaged == ()


def test_names_that_are_not_utf8_do_not_stop_a_record(tmp_path: Path) -> None:
    name = b"caf\xe9.pth".decode("utf-8", "surrogateescape")
    append(tmp_path, a_case(title=name))
    assert read(tmp_path).cases[0].title == "caf?.pth"


def test_figures_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    problem = Problem(ProblemCode.OUTPUTS_DIFFER, {"relative_l2": math.nan, "bound": math.inf})
    verdict = replace(WRONG, measured=math.nan, problems=(problem,))
    measured = samples.accuracy_measurement(fidelity=Fidelity(math.nan, math.inf, 0.5, ()))
    line = a_case(measurement=measured).model_copy(update={"verdict": verdict})
    append(tmp_path, line)
    (case,) = read(tmp_path).cases
    assert read(tmp_path).damaged == ()
    assert case.measured is not None
    assert math.isnan(case.measured)
    assert case.accuracy and case.accuracy.fidelity is not None
    assert math.isnan(case.accuracy.fidelity.relative_l2)
    assert case.verdict is not None
    (back,) = case.verdict.problems
    relative = back.data["relative_l2"]
    assert isinstance(relative, float)
    assert math.isnan(relative)
    assert back.data["bound"] == math.inf


def test_a_record_keeps_the_first_flips_and_counts_all(tmp_path: Path) -> None:
    flips = tuple(samples.flip(f"{n}.JPEG") for n in range(FLIPS_KEPT + 50))
    measured = samples.accuracy_measurement(fidelity=Fidelity(0.1, 0.1, 0.5, flips))
    append(tmp_path, a_case(measurement=measured))
    (case,) = read(tmp_path).cases
    assert isinstance(case.measurement, AccuracyMeasurement)
    assert case.measurement.fidelity and case.measurement.fidelity.flips == flips[:FLIPS_KEPT]
    assert case.measurement.fidelity.flips_total == len(flips)


def test_samples_lie_beside_the_records(tmp_path: Path) -> None:
    kept = Samples(((1.0, 2.5), (3.0,)), cpu=((0.5, 2.0), (1.5,)), eager=((4.0,),))
    file = write_samples(tmp_path, "throughput-a-bs1-cpu", kept)
    assert file == "samples/throughput-a-bs1-cpu.json"
    assert read_samples(tmp_path, file) == kept
    (tmp_path / "samples" / "bad.json").write_text('{"ours": [["x"]]}')
    (tmp_path / "samples" / "deep.json").write_text("[" * 99_999)
    bad = ("samples/none.json", "samples/bad.json", "samples/deep.json")
    for name in (*bad, "../samples/x.json", "/etc/passwd"):
        with pytest.raises(RecordError, match="no samples at"):
            read_samples(tmp_path, name)


# Kills and several writers ----------------------------------------------------------------


def test_half_a_line_left_by_a_kill_does_not_glue(tmp_path: Path) -> None:
    append(tmp_path, RUN)
    append_raw(tmp_path, a_case(1).model_dump_json()[:40])
    append(tmp_path, a_case(2))
    append_raw(tmp_path, '{"kind": "run", "run": "é'.encode()[:-1])
    append(tmp_path, a_case(3))
    records = read(tmp_path)
    assert records.run == RUN
    assert [case.batch_size for case in records.cases] == [2, 3]
    assert len(records.damaged) == 2


@pytest.mark.parametrize("trap", ["pipe", "link", "hard link"])
def test_records_are_appended_to_a_file_of_the_run_alone(tmp_path: Path, trap: str) -> None:
    precious, results = tmp_path / "precious", tmp_path / RESULTS
    precious.write_text("ours")
    if trap == "pipe":
        os.mkfifo(results)
    elif trap == "link":
        results.symlink_to(precious)
    else:
        results.hardlink_to(precious)
    with pytest.raises(RecordError, match=RESULTS):
        append(tmp_path, RUN)
    if trap == "pipe":  # which is not waited for
        with pytest.raises(RecordError, match="not a regular file"):
            read(tmp_path)
    assert precious.read_text() == "ours"


def test_several_processes_lose_nothing(tmp_path: Path) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from harness.records import lines
        from harness.records import writer
        directory, number = Path({str(tmp_path)!r}), int(sys.argv[1])
        line = lines.CaseLine.model_validate_json({a_case().model_dump_json()!r})
        (directory / f"ready-{{number}}").touch()
        while not (directory / "go").exists():
            time.sleep(0.001)
        for count in range(40):
            change = {{"nodeid": f"{{number}}-{{count}}", "sentence": "x" * (97 * count)}}
            writer.append(directory, line.model_copy(update=change))
        """
    writers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(number)], cwd=ROOT)
        for number in range(3)
    ]
    while len(list(tmp_path.glob("ready-*"))) < len(writers):
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.005)
    (tmp_path / "go").touch()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    records = read(tmp_path)
    assert records.damaged == ()
    assert {case.nodeid: len(case.sentence) for case in records.cases} == {
        f"{number}-{count}": 97 * count for number in range(3) for count in range(40)
    }


# Lines that are not what they should be ---------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        "not JSON",
        "[]",
        "null",
        "{}",
        '{"kind": "note", "text": "of a later version"}',
        '{"kind": ["case"]}',
        '{"kind": "case", "run": "r"}',
        a_case().model_dump_json().replace('"passed"', '"perhaps"'),
        FULL.model_dump_json().replace('"stage":"compile"', '"stage":"compiled"'),
        "[" * 100_000,
        '{"kind": "run", "run": ' + "9" * 5000 + "}",
        b"\xff\xfe\x00",
    ],
    ids=lambda raw: str(raw)[:24],
)
def test_a_damaged_line_is_reported_and_costs_no_other(raw: str | bytes, tmp_path: Path) -> None:
    append(tmp_path, a_case(1))
    append_raw(tmp_path, raw)
    append(tmp_path, a_case(2))
    records = read(tmp_path)
    assert [case.batch_size for case in records.cases] == [1, 2]
    (damaged,) = records.damaged
    assert damaged.startswith("line 2: ")
    assert "\n" not in damaged
    assert len(damaged) <= 220


@pytest.mark.parametrize("kind", ["run", "case"])
def test_records_of_an_older_form_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    append(tmp_path, RUN)
    line = json.loads((RUN if kind == "run" else a_case()).model_dump_json())
    append_raw(tmp_path, json.dumps({**line, "schema_version": 1, "measurement": {"top1": 7}}))
    with pytest.raises(RecordError, match=r"records of an older form \(1, this harness reads 2\)"):
        read(tmp_path)


def test_empty_lines_are_no_damage(tmp_path: Path) -> None:
    append(tmp_path, a_case(1))
    append_raw(tmp_path, "\n  \n\r\n")
    append(tmp_path, a_case(2))
    assert len(read(tmp_path).cases) == 2
    assert read(tmp_path).damaged == ()


def test_unknown_keys_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    data = json.loads(FULL.model_dump_json())
    data["invented"] = {"later": 1}
    data["schema_version"] = 3
    data["verdict"]["confidence"] = 0.5
    data["artifacts"][0]["signature"] = "x"
    append_raw(tmp_path, json.dumps(data) + "\n")
    records = read(tmp_path)
    assert records.damaged == ()
    assert records.cases == (FULL.model_copy(update={"schema_version": 3}),)


def test_which_line_counts_where_several_say_the_same(tmp_path: Path) -> None:
    append(tmp_path, RUN, RUN.model_copy(update={"run": "second"}))
    append(tmp_path, plan(a_case(1), a_case(2)), plan(a_case(2), a_case(3)))
    append(tmp_path, a_case(1, "crashed"), a_case(2), a_case(1, "passed"))
    append(tmp_path, END, END.model_copy(update={"exit_status": 1}))
    records = read(tmp_path)
    assert records.run == RUN
    assert records.plan == plan(a_case(1), a_case(2), a_case(3)).cases
    outcomes = [(case.batch_size, case.outcome) for case in records.cases]
    assert outcomes == [(1, "crashed"), (2, "passed")]
    assert records.exit_status == 1
    # A run that goes on: what is run again, the checks over it and the end no longer count.
    append(tmp_path, samples.batch_check())
    append(tmp_path, ResumeLine(run="r", started="now", nodeids=(a_case(1).nodeid,)))
    resumed = read(tmp_path)
    assert [case.batch_size for case in resumed.cases] == [2]
    assert (resumed.checks, resumed.end) == ((), None)


# Sums -------------------------------------------------------------------------------------


def test_the_counts_sum_to_the_plan(tmp_path: Path) -> None:
    append(tmp_path, plan(*(a_case(n) for n in range(12))))
    for number, outcome in enumerate(OUTCOMES):
        append(tmp_path, a_case(number, outcome))
    append(tmp_path, a_case(0, "failed"))  # again: not counted
    lost = 12 - len(OUTCOMES)
    assert read(tmp_path).counts() == {**dict.fromkeys(OUTCOMES, 1), "not_run": 1 + lost}
    append(tmp_path, a_case(99))  # was not planned: the sum is wrong
    counts = read(tmp_path).counts()
    assert (counts["passed"], counts["not_run"]) == (2, 1 + lost)


# Files that are not there -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no records of a run at .*No such file"),
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ],
)
def test_what_is_no_file_of_records_is_refused(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / RESULTS)
    with pytest.raises(RecordError, match=said) as caught:
        read(tmp_path)
    assert str(tmp_path / RESULTS) in caught.value.message
    assert caught.value.remedy


def test_a_run_without_a_place_and_one_without_a_line(tmp_path: Path) -> None:
    for place in (tmp_path / "absent", tmp_path / "notes.txt"):
        with pytest.raises(RecordError, match="no records"):
            read(place)
    (tmp_path / "folder" / RESULTS).mkdir(parents=True)
    for place in (tmp_path / "absent", tmp_path / "folder"):
        with pytest.raises(RecordError, match="cannot append") as caught:
            append(place, RUN)
        assert "--runs" in caught.value.remedy
    append_raw(tmp_path, "")
    records = read(tmp_path)
    assert (records.run, records.plan, records.cases, records.end) == (None, (), (), None)
    assert records.exit_status == 7


def test_a_run_id_begins_with_its_time() -> None:
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", new_run_id())
