"""Progress: what it says, how it fits a line, where it is shown."""

from __future__ import annotations

import os
import re
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from harness.base import progress
from harness.base.progress import Progress, _fitting
from harness.base.stages import Stage
from tests.selftest.running import eventually


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_stage_says_how_far_it_is_how_fast_and_how_long_it_takes(clock):
    shown = Progress.silent()
    with shown.stage("tiny-bs4-cpu", Stage.INFER):
        shown.update(0, 100, "images")
        clock[0] += 10
        shown.update(40, 100, "images")
        text = shown._text()
        shown.update(100, 100, "images")
        assert shown._text() == "tiny-bs4-cpu: infer images 10 s, 100/100 images, 10.0 images/s"
    assert text == "tiny-bs4-cpu: infer images 10 s, 40/100 images, 4.0 images/s, 15 s left"
    assert shown._text() == ""


def test_the_run_says_cases_done_of_planned_and_the_time_left(clock):
    shown = Progress.silent()
    shown.begin({"a": 30.0, "b": 60.0, "c": 600.0})
    assert shown._text() == "[0/3 cases, 12 min left]"
    clock[0] += 30
    shown.ended("a")
    shown.ended("a")  # twice is once
    shown.ended("nobody")
    clock[0] += 20
    assert shown._text() == "[1/3 cases, 11 min left]"
    with shown.stage("b", Stage.LOAD):
        assert shown._text() == "[1/3 cases, 11 min left] b: load 0 s"
    shown.end()
    assert shown._text() == ""


def test_without_earlier_runs_the_time_left_is_that_of_this_run(clock):
    shown = Progress.silent()
    shown.begin(dict.fromkeys("abcd"))
    assert shown._text() == "[0/4 cases]"
    clock[0] += 10
    shown.ended("a")
    assert shown._text() == "[1/4 cases, 30 s left]"


def test_what_the_present_case_takes_too_much_is_not_taken_from_the_others(clock):
    shown = Progress.silent()
    shown.begin({"a": 1.0, "b": 60.0})
    clock[0] += 100
    assert shown._text() == "[0/2 cases, 60 s left]"
    shown.ended("a")
    clock[0] += 59.8
    assert shown._text() == "[1/2 cases]"
    shown.ended("b")
    assert shown._text() == "[2/2 cases]"


@given(st.text(), st.integers(1, 60))
def test_a_status_takes_one_line_of_the_terminal(text, width):
    fitted = _fitting(text, width)
    assert cell_len(fitted) <= width
    assert "\n" not in fitted
    assert "\x1b" not in fitted


def _read(descriptor: int) -> str:
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 1 << 16).decode()
    except BlockingIOError:
        return ""


@pytest.mark.parametrize("terminal", [True, False])
def test_where_it_is_shown(monkeypatch, terminal):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "_STATUS_EVERY_S", 0.005)
    reader, writer = os.pipe()
    seen: list[str] = []

    def so_far() -> str:
        seen.append(_read(reader))
        return "".join(seen)

    shown = Progress(writer, terminal=terminal, prefix="  ... ")
    shown.begin({"a": None})
    with shown.stage("a", Stage.LOAD):
        assert eventually(lambda: "a: load" in so_far())
    shown.note("npu-0 is set aside")
    shown.end()
    text = so_far()
    assert "npu-0 is set aside\n" in text
    if terminal:
        # The cursor is saved and put back each time, so that pytest's line stays whole.
        status = re.sub(r"\n.*set aside\n", "", text, flags=re.S)
        assert status.count("\x1b7") == status.count("\x1b8") > 0
    else:
        assert "\x1b" not in text
        assert "\n  ... [0/1 cases] a: load 0 s\n" in text


def test_in_a_log_the_first_line_after_words_of_pytest_begins_a_line():
    reader, writer = os.pipe()
    shown = Progress(writer, terminal=False, prefix="  ... ")
    written: list[str] = []

    def log(words: str) -> None:
        os.write(writer, words.encode())
        shown._line("one")
        shown._line("two")
        written.append(_read(reader))

    log("tests/test_x.py ")
    shown.begin({"a": None, "b": None})
    log("tests/test_x.py ")
    shown.ended("a")
    log(".")
    shown.ended("nobody")
    log("")
    begun = "tests/test_x.py \n  ... one\n  ... two\n"
    assert written == [begun, begun, ".\n  ... one\n  ... two\n", "  ... one\n  ... two\n"]


def test_after_the_end_nothing_is_written(monkeypatch):
    monkeypatch.setattr(progress, "_STATUS_EVERY_S", 0.005)
    reader, writer = os.pipe()
    before = _showing()
    shown = Progress(writer, terminal=True)
    shown.begin({"a": None})
    assert eventually(lambda: "[0/1 cases]" in _read(reader))
    assert _showing(before)
    shown.end()
    _read(reader)
    assert shown._text() == ""
    assert not eventually(lambda: bool(_read(reader)), seconds=0.1)
    assert eventually(lambda: not _showing(before))


def _showing(before=frozenset()):
    return {one for one in threading.enumerate() if one.name == "progress"} - before
