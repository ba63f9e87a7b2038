"""Why a run is red: findings, what is said once, the first screen and its annotation."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.stages import Stage
from harness.base.terms import Check, Outcome, Provenance
from harness.judge.causes import Exit
from harness.records.lines import CaseLine
from harness.records.observed import ErrorInfo
from harness.records.reader import RunRecords
from harness.report import render_html, summary_lines, why
from harness.report.view import RunView, view
from harness.report.why import Screen, annotation, first_screen
from tests.selftest import report_samples as samples
from tests.selftest.pages import page
from tests.selftest.report_samples import case, planned, run_records

CHECKS: tuple[Check, ...] = ("accuracy", "throughput")
STOPPED = "after the first failure (-x)"


def failed_at(stage: Stage, **changes: Any) -> CaseLine:
    error = ErrorInfo(type="X", stage=stage, message="it would not", **changes)
    return case(outcome="error", error=error)


def real(*lines: CaseLine, **changes: Any) -> RunView:
    return view(run_records(lines, provenance="real", **changes))


# --- findings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (case(outcome="failed"), "The model failed: it ran, and"),
        (failed_at(Stage.COMPILE), "The toolchain failed: the model could not be compiled"),
        (failed_at(Stage.DEVICE), "The machine failed: the device is absent"),
        (failed_at(Stage.DATA), "An input failed: images or labels"),
        (failed_at(Stage.HARNESS), "The harness itself failed"),
        (case(check="throughput", outcome="inconclusive"), "The machine leaves it undecided"),
    ],
)
def test_a_red_run_says_what_failed_and_why_on_its_first_screen(line: CaseLine, said: str) -> None:
    records = run_records([line], exit_status=1)
    header = page(records).text("header")
    terminal = "\n".join(summary_lines(records))
    assert f"{line.check} of {line.case}" in header
    for text in (header, terminal):
        assert said in text
        assert "exit code 1: an acceptance failed" in text


def test_a_green_run_blames_nothing() -> None:
    records = run_records([case()])
    assert view(records).whys == ()
    assert "exit code 0: everything that was asked for ran" in page(records).text()
    assert "exit code" not in "\n".join(summary_lines(records))
    assert view(run_records([case()], exit_status=99)).exit_words == "exit code 99"


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
    assert "throughput of m-bs1-cpu" in page(records).text("header")
    assert said in "\n".join(summary_lines(records))


def test_a_run_that_was_told_to_stop_blames_no_machine_for_it() -> None:
    lines = [case(f"m{n}", 1, outcome="failed", sentence=f"s{n}") for n in range(2)]
    lines += [case(f"e{n}", 1, outcome="error") for n in range(8)]
    run = view(run_records(lines, lost=[planned(case("z"))], exit_status=1, stopped=STOPPED))
    assert "The machine" not in {one.word for one in run.whys}
    assert run.whys[-1].text.startswith(f"The run stopped {STOPPED}: these did not run")


def test_cases_with_one_cause_are_one_finding() -> None:
    (found,) = real(*(case(f"m{n}", 1, outcome="failed", provenance="real") for n in range(5))).whys
    assert (len(found.subjects), found.left) == (3, 2)


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
    lines = [_compile_failed(4, check) for check in CHECKS]
    run = real(*lines, exit_status=1)
    assert run.headline.text == f"2 errors: {called}"
    (found,) = run.whys
    assert found.text == (
        "The toolchain failed: the compiler refused the model "
        "(accuracy and throughput of resnest50-bs4-cpu)"
    )
    assert found.said.endswith("EZ3002: EyeLike")
    assert found.remedy == "a newer CANN"
    (told,) = [line for line in summary_lines(run.records) if "EyeLike" in line]
    assert told.strip().startswith(f"error: {called}: [4, 3, 224, 224]")
    html = render_html(run.records)
    section = html[html.index('id="h-attention"') : html.index('id="h-results"')]
    assert section.count("<li") == section.count("EyeLike") == 1
    assert called in section
    assert section.count("What to do:") == section.count("a newer CANN") == 1
    # Each case is still there, with a link to it.
    for check in CHECKS:
        assert f'href="#case-resnest50-bs4-cpu-{check}"' in section
        assert html.count(f'id="case-resnest50-bs4-cpu-{check}"') == 1


@pytest.mark.parametrize(
    ("lines", "titles", "in_headline"),
    [
        (
            [_compile_failed(1, "accuracy"), _compile_failed(4, "accuracy")],
            [f"resnest50 bs {n} on cpu: compile failed (accuracy)" for n in (1, 4)],
            "resnest50 bs 1, 4 on cpu: compile failed (accuracy)",  # the name; not the entry
        ),
        (
            [_compile_failed(n, c, artifact="o", message="no") for n in (1, 4) for c in CHECKS],
            ["resnest50 bs 1, 4 on cpu: compile failed (accuracy and throughput)"],
            "resnest50 bs 1, 4 on cpu: compile failed (accuracy and throughput)",
        ),
        (
            [_compile_failed(1, c, artifact=c, message="no") for c in CHECKS],
            [f"resnest50 bs 1 on cpu: compile failed ({check})" for check in CHECKS],
            "resnest50 bs 1 on cpu: compile failed (accuracy and throughput)",
        ),
        (
            [_compile_failed(1, "accuracy", artifact="o", message="no")]
            + [_compile_failed(n, "throughput", artifact="o", message="no") for n in (1, 4)],
            ["resnest50 bs 1, 4 on cpu: compile failed (accuracy 1 time, throughput 2 times)"],
            "resnest50 bs 1, 4 on cpu: compile failed (accuracy 1 time, throughput 2 times)",
        ),
    ],
    ids=["two builds", "one export", "other artifacts", "not both checks"],
)
def test_what_is_one_failure_and_what_is_not(
    lines: list[CaseLine], titles: list[str], in_headline: str
) -> None:
    run = real(*lines, exit_status=1)
    assert [entry.title for entry in run.entries] == titles
    assert run.headline.text == f"{len(lines)} errors: {in_headline}"


def test_images_that_no_model_can_use_are_one_failure_of_all_models() -> None:
    error = ErrorInfo(type="D", stage=Stage.DATA, message="no set")
    run = view(run_records(case(f"m{n}", 1, outcome="error", error=error) for n in range(5)))
    (entry,) = run.entries
    assert entry.title == "5 cases of m0, m1, m2 and 2 more on cpu: no usable images (accuracy)"
    assert run.headline.text == f"Rehearsal: 5 errors: {entry.title}"


def test_two_crashes_are_two_and_cases_that_were_never_reached_are_one() -> None:
    crashed = [case("a", n, outcome="crashed") for n in (1, 2)]
    lost = [planned(case("b", n)) for n in (1, 2, 3)]
    titles = [entry.title for entry in view(run_records(crashed, lost=lost)).entries]
    assert titles == [
        "a bs 1 on cpu (accuracy)",
        "a bs 2 on cpu (accuracy)",
        "b bs 1, 2, 3 on cpu (accuracy)",
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (replace(samples.ERROR, full_disk=True), "a disk is full"),
        (replace(samples.ERROR, type="NetworkRefused"), "the network cannot be built"),
        (replace(samples.ERROR, stage=Stage.INFER), "running it failed"),
    ],
)
def test_how_a_case_ended(error: ErrorInfo, said: str) -> None:
    (entry,) = view(run_records([case("m", 1, outcome="error", error=error)])).entries
    assert entry.title == f"m bs 1 on cpu: {said} (accuracy)"


# --- the first screen --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "word"),
    [
        (case(outcome="passed"), Exit.PASSED, "passed"),
        (case(outcome="failed"), Exit.ACCEPTANCE_FAILED, "model"),
        (failed_at(Stage.COMPILE), Exit.ACCEPTANCE_FAILED, "toolchain"),
        (failed_at(Stage.DEVICE), Exit.MACHINE_TROUBLE, "machine"),
        (failed_at(Stage.DATA), Exit.INPUT_ERROR, "input"),
        (case(outcome="inconclusive"), Exit.INCONCLUSIVE_ONLY, "inconclusive"),
        (failed_at(Stage.HARNESS), Exit.HARNESS_FAULT, "harness"),
    ],
)
def test_the_first_screen_names_what_failed(line: CaseLine, status: Exit, word: str) -> None:
    screen = first_screen(run_records([line], exit_status=int(status)))
    assert screen.word == word
    assert screen.good == (word == "passed")
    text = "\n".join(screen.lines)
    title = "RUN UNDECIDED" if word == "inconclusive" else "RUN FAILED"  # nothing failed there
    assert ("RUN PASSED" if screen.good else f"{title}: {word}") in text
    assert text.startswith("REHEARSAL")
    assert screen.good or line.case in text
    assert len(screen.lines) <= why.MOST_LINES


def test_a_night_without_an_end_or_without_records() -> None:
    killed = first_screen(run_records([case()], end=False))
    assert (killed.word, killed.good) == ("machine", False)
    for code, word in ((4, "input"), (5, "input"), (2, "interrupted"), (75, "overlap")):
        screen = first_screen(None, code)
        assert (screen.word, screen.good) == (word, False)
        assert "night" not in screen.lines[0].lower()
        assert f"exit code {code}" in screen.lines[1]
    assert first_screen(None, 0).good
    assert first_screen(None, 137).word == "machine"
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
    assert first_screen(replace(records, end=None), 0).word == "records"


@pytest.mark.parametrize("outcome", ["recorded", "inconclusive", "known_failure"])
def test_a_run_that_pytest_ended_well_is_good(outcome: Outcome) -> None:
    assert first_screen(run_records([case(outcome=outcome)])).good


def test_a_process_that_ended_otherwise_than_its_records_say() -> None:
    screen = first_screen(run_records([case()]), 7)
    assert (screen.word, screen.good) == ("machine", False)
    assert "the process ended with 7, its records say 0" in screen.lines


def test_a_run_that_was_stopped_at_its_time_limit_says_that_and_nothing_else() -> None:
    done = [case("a", 1), failed_at(Stage.COMPILE, remedy="another CANN")]
    lost = [planned(case("b", size, check)) for size in (1, 4) for check in CHECKS]
    for records_end in (True, False):  # interrupted in time, or killed
        found = run_records(done, lost=lost, exit_status=2, end=records_end)
        screen = first_screen(found, 7, stopped_after_h=10)
        assert (screen.word, screen.good) == ("time limit", False)
        text = "\n".join(screen.lines)
        for said in (
            "RUN STOPPED: time limit",
            "stopped at its time limit of 10 hours: 2 of 6 cases were done (1 passed, 1 error), 4 "
            "were not",
            "- not reached, or not finished: accuracy and throughput of b-bs1-cpu, accuracy and "
            "throughput of b-bs4-cpu",
            "The toolchain failed: the model could not be compiled",
            "what to do: another CANN",
            "what to do: give it more hours",
        ):
            assert said in text
        for other in ("Nobody", "machine", "interrupted", "its records say", "night"):
            assert other not in text
    whole = first_screen(run_records(done[:1]), 7, stopped_after_h=1)
    assert "time limit of 1 hour: 1 of 1 case was done (1 passed)" in "\n".join(whole.lines)
    nothing = first_screen(None, 7, stopped_after_h=0.5)
    assert "time limit of 0.5 hours: nothing was recorded" in "\n".join(nothing.lines)


def test_the_first_screen_says_what_to_do_and_ends_with_the_report(tmp_path: Path) -> None:
    stages = (Stage.COMPILE, Stage.EXPORT, Stage.LOAD, Stage.INFER, Stage.EAGER, Stage.SIMPLIFY)
    lines = [
        case(f"m{n}", 1, outcome="error", error=ErrorInfo("X", stage, "EZ3002", "a newer CANN"))
        for n, stage in enumerate(stages)
    ]
    screen = first_screen(run_records(lines, exit_status=1, directory=tmp_path))
    assert screen.lines.count("    EZ3002") == why.WHOLE_FINDINGS
    assert "    what to do: a newer CANN" in screen.lines
    assert len(screen.lines) <= why.MOST_LINES
    assert screen.lines[-2].startswith("exit code 1")
    assert screen.lines[-1] == f"no report was written: python -m harness report {tmp_path}"
    (tmp_path / "report.html").touch()
    screen = first_screen(run_records(lines, exit_status=1, directory=tmp_path))
    assert screen.lines[-1] == f"report: {tmp_path / 'report.html'}"


def test_the_first_screen_names_the_log_of_the_stage_that_failed(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    load = logs / "accuracy-a-bs1-cpu-load.log"
    for name in ("accuracy-a-bs1-cpu-load", "accuracy-a-bs1-cpu-compile", "accuracy-b-load"):
        (logs / f"{name}.log").write_text("words")

    def said(line: CaseLine) -> list[str]:
        screen = first_screen(run_records([line], exit_status=1, directory=tmp_path))
        return [text.strip() for text in screen.lines if text.startswith("    log: ")]

    def line(stage: Stage, name: str = "a-bs1-cpu") -> CaseLine:
        return failed_at(stage).model_copy(update={"case": name})

    assert said(line(Stage.LOAD)) == said(line(Stage.INFER)) == [f"log: {load}"]
    assert said(line(Stage.DEVICE)) == []
    load.write_text("")
    assert said(line(Stage.LOAD)) == []  # it says nothing
    # A name in the records is no path.
    assert said(line(Stage.COMPILE, "../../etc")) == []
    assert said(line(Stage.COMPILE, "a*")) == []
    assert said(line(Stage.COMPILE)) != []


def test_a_run_that_was_stopped_names_the_case_at_work(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    names = ("a-bs1-cpu-compile", "b-bs1-cpu-compile", "b-bs1-cpu-load", "c-bs1-cpu-export")
    for second, name in enumerate(names):
        path = logs / f"accuracy-{name}.log"
        path.write_text("")
        os.utime(path, (second, second))
    lost = [planned(case(name, 1)) for name in ("b", "c")]
    found = run_records([case("a", 1)], lost=lost, end=False, directory=tmp_path)
    text = "\n".join(first_screen(found, 7, stopped_after_h=1).lines)
    log = logs / "accuracy-b-bs1-cpu-load.log"
    assert f"- stopped in: accuracy of b-bs1-cpu; its last log: {log}" in text
    named = run_records([], lost=[planned(case("x", case="b*"))], end=False, directory=tmp_path)
    assert "stopped in" not in "\n".join(first_screen(named, 7, stopped_after_h=1).lines)
    log.unlink()
    (logs / "accuracy-b-bs1-cpu-compile.log").unlink()
    text = "\n".join(first_screen(found, 7, stopped_after_h=1).lines)
    assert "stopped in" not in text  # nothing tells what it was at


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
def test_an_annotation_is_one_command_whatever_it_says(
    lines: list[str], word: str, good: bool
) -> None:
    text = annotation(Screen(word, good, lines[0], tuple(lines)))
    assert "\n" not in text
    assert "\r" not in text
    title = text.split("title=", 1)[1]
    assert title.index("::") == title.index(":")
    assert text.startswith("::notice title=" if good else "::error title=")
