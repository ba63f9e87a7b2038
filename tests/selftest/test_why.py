"""Why a run is red: findings, what is said once, the first screen and its annotation."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.stages import Stage
from harness.base.terms import CHECKS, Check, Outcome, Provenance
from harness.records.lines import CaseLine
from harness.records.observed import ErrorInfo
from harness.records.reader import RunRecords
from harness.report import findings, why
from harness.report.junit import junit_xml
from harness.report.terminal import summary_lines
from harness.report.view import RunView, view
from harness.report.why import Screen, annotation, first_screen
from tests.selftest import report_samples as samples
from tests.selftest.pages import Tree, page
from tests.selftest.report_samples import case, planned, run_records

STOPPED = "early (stopping after 1 failures)"


def failed_at(stage: Stage, name: str = "a-bs1-cpu", **changes: Any) -> CaseLine:
    error = ErrorInfo(type="X", stage=stage, message="it would not", **changes)
    return case(outcome="error", error=error, case=name)


def real(*lines: CaseLine, **changes: Any) -> RunView:
    return view(run_records(lines, provenance="real", **changes))


# --- findings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "word", "said"),
    [
        (case(outcome="failed"), 1, "model", "The model failed: it ran, and"),
        (failed_at(Stage.COMPILE), 1, "toolchain", "The toolchain failed: the model could not be"),
        (failed_at(Stage.DEVICE), 7, "machine", "The machine failed: the device is absent"),
        (failed_at(Stage.DATA), 4, "input", "An input failed: images or labels"),
        (failed_at(Stage.HARNESS), 3, "harness", "The harness itself failed"),
        (
            case(check="throughput", outcome="inconclusive"),
            6,
            "inconclusive",
            "The machine leaves it undecided",
        ),
    ],
)
def test_a_red_run_says_what_failed_and_why_everywhere(line, status, word, said):
    records = run_records([line], exit_status=status)
    screen = first_screen(records)
    assert (screen.word, screen.good) == (word, False)
    assert screen.lines[0].startswith("REHEARSAL")
    title = "RUN UNDECIDED" if word == "inconclusive" else "RUN FAILED"  # nothing failed there
    assert screen.lines[1] == f"{title}: {word}"
    assert len(screen.lines) <= why.MOST_LINES
    header, terminal = page(records).text("header"), "\n".join(summary_lines(records))
    assert findings.title([line]) in header
    for text in (header, terminal, "\n".join(screen.lines)):
        assert said in text
        assert f"exit code {status}: " in text


def test_failures_come_before_what_is_undecided() -> None:
    lines = [case("a", 1, "throughput", "inconclusive"), case("b", 1, outcome="failed")]
    whats = [one.what for one in view(run_records(lines, exit_status=1)).whys]
    assert whats == ["The model failed", "The machine leaves it undecided"]


def test_a_green_run_blames_nothing() -> None:
    records = run_records([case()])
    assert view(records).whys == ()
    assert "exit code 0: everything that was asked for ran" in page(records).text()
    assert "exit code" not in "\n".join(summary_lines(records))
    assert view(run_records([case()], exit_status=99)).exit_words == "exit code 99"
    assert "RUN PASSED" in first_screen(records).lines


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"end": False}, "the run was killed or still goes on"),
        ({"exit_status": 2}, "The run was interrupted: these did not run"),
        ({"exit_status": 7}, "the run ended without a line of these"),
        ({"exit_status": 7, "stopped": STOPPED}, f"The run stopped {STOPPED}: these did not run"),
    ],
)
def test_a_lost_case_is_blamed_on_the_first_screen(changes: dict[str, Any], said: str) -> None:
    records = run_records([case()], lost=[planned(case("m", 1, "throughput"))], **changes)
    assert said in page(records).text("header")
    assert "m bs 1 on cpu (throughput)" in page(records).text("header")
    assert said in "\n".join(summary_lines(records))


def test_a_run_that_was_told_to_stop_blames_no_machine_for_it() -> None:
    lines = [case(f"m{n}", 1, outcome="failed", sentence=f"s{n}") for n in range(2)]
    lines += [case(f"e{n}", 1, outcome="error") for n in range(8)]
    run = view(run_records(lines, lost=[planned(case("z"))], exit_status=1, stopped=STOPPED))
    assert not any(one.what.startswith("The machine") for one in run.whys)
    assert run.whys[-1].text.startswith(f"The run stopped {STOPPED}: these did not run")


# --- one failure, said once --------------------------------------------------------------------


def _compile_failed(batch: int, check: Check, *, artifact: str = "", message: str = "") -> CaseLine:
    """A case whose compile failed; the store did not try it again for the second check."""
    said = message or f"[{batch}, 3, 224, 224] for Ascend310P3: atc failed: EZ3002: EyeLike"
    return case(
        "resnest50",
        batch,
        check,
        "error",
        provenance="real",
        sentence=f"[compile] {said}",
        error=ErrorInfo(
            "CompileRefused", Stage.COMPILE, said, "a newer CANN", remembered=check != "accuracy"
        ),
        artifacts=(samples.artifact(Stage.SIMPLIFY, artifact or f"s{batch}"),),
    )


def test_one_failed_build_is_said_once_everywhere() -> None:
    called = "resnest50 bs 4 on cpu: compile failed (accuracy and throughput)"
    run = real(*(_compile_failed(4, check) for check in CHECKS), exit_status=1)
    assert run.headline.text == f"2 errors: {called}; 0 of 2 cases passed"
    (found,) = run.whys
    assert found.text == (
        "The toolchain failed: the compiler refused the model "
        "(accuracy and throughput of resnest50-bs4-cpu)"
    )
    assert found.said.endswith("EZ3002: EyeLike")
    assert found.remedy == "a newer CANN"
    (told,) = [line for line in summary_lines(run.records) if "EyeLike" in line]
    assert told.strip().startswith("[4, 3, 224, 224]")
    html = page(run.records).html
    part = Tree(html[html.index('<ul class="whys"') : html.index('<ul class="facts"')])
    assert part.tags["li"] == part.text().count("EyeLike") == 1
    assert part.text().count("What to do: a newer CANN") == 1
    # What is next stands beside it: the command that does the first case again.
    (command,) = (why.repeat for why in run.whys)
    assert command in part.text()
    for text in (summary_lines(run.records), first_screen(run.records).lines):
        assert f"again: {command}" in "\n".join(text)
    # Each case is still there, with a link to it.
    for check in CHECKS:
        assert f"#case-resnest50-bs4-cpu-{check}" in part.values("href")
        assert html.count(f'id="case-resnest50-bs4-cpu-{check}"') == 1


DATA = ErrorInfo(type="D", stage=Stage.DATA, message="no set")


@pytest.mark.parametrize(
    ("lines", "titles"),
    [
        (
            [_compile_failed(1, "accuracy"), _compile_failed(4, "accuracy")],
            [f"resnest50 bs {n} on cpu: compile failed (accuracy)" for n in (1, 4)],
        ),
        (
            [_compile_failed(n, c, artifact="o", message="no") for n in (1, 4) for c in CHECKS],
            ["resnest50 bs 1, 4 on cpu: compile failed (accuracy and throughput)"],
        ),
        (
            [_compile_failed(1, c, artifact=c, message="no") for c in CHECKS],
            [f"resnest50 bs 1 on cpu: compile failed ({check})" for check in CHECKS],
        ),
        (
            [case(f"m{n}", 1, outcome="error", error=DATA) for n in range(5)],
            ["5 cases of m0, m1, m2 and 2 more on cpu: data failed (accuracy)"],
        ),
        (
            [case("b", n, outcome="not_run") for n in (1, 2)]
            + [case("a", n, outcome="crashed") for n in (1, 2)],
            ["b bs 1, 2 on cpu (accuracy)", "a bs 1 on cpu (accuracy)", "a bs 2 on cpu (accuracy)"],
        ),
    ],
    ids=["two builds", "one export", "other artifacts", "no images", "crashes and lost ones"],
)
def test_what_is_one_failure_and_what_is_not(lines: list[CaseLine], titles: list[str]) -> None:
    run = real(*lines, exit_status=1)
    assert [entry.title for why in run.whys for entry in why.entries] == titles


# --- the first screen --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (4, "input"),
        (5, "input"),
        (2, "interrupted"),
        (75, "overlap"),
        (137, "machine"),
        (1, "model"),
    ],
)
def test_a_night_without_records(code: int, word: str) -> None:
    screen = first_screen(None, code)
    assert (screen.word, screen.good) == (word, False)
    assert screen.lines[1].startswith(f"exit code {code}: ")


def test_a_night_without_an_end_or_a_code() -> None:
    killed = first_screen(run_records([case()], end=False))
    assert (killed.word, killed.good) == ("machine", False)
    assert first_screen(None, 0).good
    assert not first_screen(None).good


LOST = [planned(case("b", 1))]


@pytest.mark.parametrize(
    "records",
    [
        run_records([case()], damaged=("line 4: cut",)),
        run_records([case()], lost=LOST),
        run_records([], lost=LOST),
        run_records([case(), case("b", 1, outcome="failed")]),
    ],
)
def test_a_code_that_says_passed_does_not_outweigh_broken_records(records: RunRecords) -> None:
    for code in (None, 0):
        screen = first_screen(records, code)
        assert (screen.word, screen.good) == ("records", False)
        assert "RUN FAILED: records" in screen.lines
        assert "nothing failed" not in "\n".join(screen.lines)
    assert first_screen(replace(records, end=None), 0).word == "records"


def test_what_a_rehearsal_could_not_time_is_said_of_a_run_that_passed() -> None:
    records = run_records([case(), case(check="throughput", outcome="inconclusive")])
    screen = first_screen(records)
    assert (screen.good, screen.title) == (True, "RUN PASSED, 1 undecided")
    assert view(records).headline.tone == "warn"
    for text in (page(records).text("header"), "\n".join(summary_lines(records))):
        assert "1 of 2 cases passed, 1 inconclusive" in text
        assert "undecided: throughput of squeezenet1_1-bs4-cpu; a rehearsal does not fail" in text
    suite = ET.fromstring(junit_xml(records)).find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("failures", "errors", "skipped")] == ["0", "0", "1"]
    assert len(suite.findall("testcase/skipped")) == 1


@pytest.mark.parametrize("outcome", ["recorded", "inconclusive", "known_failure"])
def test_a_run_that_pytest_ended_well_is_good(outcome: Outcome) -> None:
    assert first_screen(run_records([case(outcome=outcome)])).good


def test_a_process_that_ended_otherwise_than_its_records_say() -> None:
    screen = first_screen(run_records([case()]), 7)
    assert (screen.word, screen.good) == ("machine", False)
    assert "the process ended with 7, its records say 0" in screen.lines


@pytest.mark.parametrize("end", [True, False])  # interrupted in time, or killed
def test_a_run_that_was_stopped_at_its_time_limit_says_that_and_nothing_else(end: bool) -> None:
    done = [case("a", 1), failed_at(Stage.COMPILE, remedy="another CANN")]
    lost = [planned(case("b", size, check)) for size in (1, 4) for check in CHECKS]
    screen = first_screen(
        run_records(done, lost=lost, exit_status=2, end=end), 7, stopped_after_h=10
    )
    assert (screen.word, screen.good) == ("time limit", False)
    text = "\n".join(screen.lines)
    for said in (
        "RUN STOPPED: time limit",
        "stopped at its time limit of 10 hours: 2 of 6 cases done (1 passed, 1 error)",
        "- not reached, or not finished: accuracy and throughput of b-bs1-cpu, accuracy and "
        "throughput of b-bs4-cpu",
        "The toolchain failed: the model could not be compiled",
        "what to do: another CANN",
        "what to do: give it more hours",
    ):
        assert said in text
    for other in ("Nobody", "machine", "interrupted", "its records say", "night"):
        assert other not in text
    nothing = first_screen(None, 7, stopped_after_h=1)
    assert "time limit of 1 hour: nothing was recorded" in "\n".join(nothing.lines)


def test_the_first_screen_says_what_to_do_and_ends_with_the_report(tmp_path: Path) -> None:
    stages = (Stage.COMPILE, Stage.EXPORT, Stage.LOAD, Stage.INFER, Stage.EAGER, Stage.SIMPLIFY)
    lines = [
        case(f"m{n}", 1, outcome="error", error=ErrorInfo("X", stage, "EZ3002", "a newer CANN"))
        for n, stage in enumerate(stages)
    ]
    records = run_records(lines, exit_status=1, directory=tmp_path)
    screen = first_screen(records)
    assert screen.lines.count("    EZ3002") == why.WHOLE_FINDINGS
    assert "    what to do: a newer CANN" in screen.lines
    assert len(screen.lines) <= why.MOST_LINES
    assert screen.lines[-2].startswith("exit code 1")
    assert screen.lines[-1] == f"no report yet: python -m harness report {tmp_path}"
    (tmp_path / "report.html").touch()
    assert first_screen(records).lines[-1] == f"report: {tmp_path / 'report.html'}"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Logs of three cases, written one after the other."""
    folder = tmp_path / "logs"
    folder.mkdir()
    names = ("a-bs1-cpu-compile", "a-bs1-cpu-load", "b-bs1-cpu-load", "c-bs1-cpu-export")
    for second, name in enumerate(names):
        path = folder / f"accuracy-{name}.log"
        path.write_text("words")
        os.utime(path, (second, second))
    return folder


def test_the_first_screen_names_the_log_of_the_stage_that_failed(logs: Path) -> None:
    def said(line: CaseLine) -> list[str]:
        screen = first_screen(run_records([line], exit_status=1, directory=logs.parent))
        return [text.strip() for text in screen.lines if text.startswith("    log: ")]

    load = logs / "accuracy-a-bs1-cpu-load.log"
    assert said(failed_at(Stage.LOAD)) == said(failed_at(Stage.INFER)) == [f"log: {load}"]
    assert said(failed_at(Stage.COMPILE)) != []
    assert said(failed_at(Stage.DEVICE)) == []
    load.write_text("")
    assert said(failed_at(Stage.LOAD)) == []  # it says nothing
    for name in ("../../etc", "a*"):  # a name in the records is no path
        assert said(failed_at(Stage.COMPILE, name)) == []


def test_a_run_that_was_stopped_names_the_case_at_work(logs: Path) -> None:
    def said(*cases: str) -> str:
        lost = [planned(case("x", 1, case=name)) for name in cases]
        found = run_records([], lost=lost, end=False, directory=logs.parent)
        return "\n".join(first_screen(found, 7, stopped_after_h=1).lines)

    last = logs / "accuracy-a-bs1-cpu-load.log"
    assert f"- stopped in: accuracy of a-bs1-cpu; its last log: {last}" in said("a-bs1-cpu")
    assert "stopped in" not in said("b*")
    assert "stopped in" not in said("d-bs1-cpu")  # nothing tells what it was at


# --- annotations -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rehearsal", "simulated", "real"])
def test_an_annotation_keeps_the_banner_and_says_the_title_once(kind: Provenance) -> None:
    found = run_records([case(provenance=kind)], provenance=kind)
    for screen in (first_screen(found), first_screen(found, 7, stopped_after_h=1)):
        said = annotation(screen).split("::", 2)[2]
        banners = [line for line in screen.lines if line.startswith(("REHEARSAL", "SIMULATED"))]
        assert len(banners) == (kind != "real")
        assert said.split("%0A") == [line for line in screen.lines if not line.startswith("RUN ")]


@given(st.lists(st.text(), min_size=1), st.text(), st.booleans())
def test_an_annotation_is_one_command_whatever_it_says(lines, word, good):
    text = annotation(Screen(word, good, lines[0], tuple(lines)))
    assert "\n" not in text
    assert "\r" not in text
    title = text.split("title=", 1)[1]
    assert title.index("::") == title.index(":")
    assert text.startswith("::notice title=" if good else "::error title=")
