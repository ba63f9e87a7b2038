"""`harness.base.jobs`: whatever a child does, the parent gets a value or one error of the stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base import processes
from harness.base.errors import CompileError, ExportError, HarnessError
from tests.selftest import in_process
from tests.selftest.running import ROOT, alive, eventually

FUNCTIONS = "tests.selftest.job_functions"


def call(function: str, tmp_path: Path, *, deadline_s: float = 60.0, **arguments: Any) -> Any:
    return in_process.real_call(
        function if ":" in function else f"{FUNCTIONS}:{function}",
        arguments,
        deadline_s=deadline_s,
        log=tmp_path / "logs" / "job.log",
        error=ExportError,
        what="export of tiny-bs4-cpu",
    )


def refusal(function: str, tmp_path: Path, **arguments: Any) -> HarnessError:
    with pytest.raises(HarnessError) as caught:
        call(function, tmp_path, **arguments)
    assert "\n" not in caught.value.message
    return caught.value


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "logs" / "job.log").read_text(errors="replace")


# Values.


def test_the_value_comes_back_in_any_working_directory(tmp_path, monkeypatch):
    given: dict[str, Any] = {
        "text": "a\u2028é\n",
        "number": 1.5,
        "nested": {"list": [1, None, True]},
    }
    monkeypatch.chdir(tmp_path)
    assert call("echo", tmp_path, **given) == given


def test_what_a_job_prints_is_its_log_and_not_its_value(tmp_path):
    assert call("print_garbage", tmp_path) == "the value"
    assert "half a line" in log_of(tmp_path)
    assert "not this one" in log_of(tmp_path)
    # Another job's error has its own log.
    assert refusal("refuse", tmp_path, log="").log == "what the tool printed\n"


def test_the_callers_python_path_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    path = call("environment", tmp_path, name="PYTHONPATH")
    assert path == f"{ROOT}{os.pathsep}/some/where"


# Errors that the function raises.


def test_an_error_of_the_harness_comes_back_as_itself(tmp_path):
    error = refusal("refuse", tmp_path, log="line one\nline two")
    assert type(error) is CompileError
    assert (error.message, error.remedy) == ("the compiler says no", "ask it")
    assert error.log == "line one\nline two"


def test_an_error_of_no_stage_becomes_the_stages(tmp_path):
    error = refusal("refuse_plainly", tmp_path)
    assert type(error) is ExportError
    assert error.message == "export of tiny-bs4-cpu: cannot write the log"
    assert (error.remedy, error.log) == ("free disk space", "its own log")


@pytest.mark.parametrize(
    ("message", "name", "line"),
    [
        ("one\ntwo\nthree", "ValueError", "one"),
        ("\n\n  late\nmore", "ValueError", "late"),
        ("", "ValueError", "no message"),
        ("no", "DataError", "no"),  # a library's class with a name of ours is not ours
    ],
)
def test_a_librarys_exception_becomes_one_line_and_its_traceback_the_log(
    message, name, line, tmp_path
):
    error = refusal("fail", tmp_path, message=message, name=name)
    assert type(error) is ExportError
    assert error.message == f"export of tiny-bs4-cpu: {name}: {line}"
    assert "Traceback (most recent call last)" in error.log
    assert "job_functions.py" in error.log
    assert error.log == log_of(tmp_path)


# Children that end otherwise.


def test_a_child_that_ends_without_an_answer(tmp_path):
    for number in (signal.SIGKILL, signal.SIGSEGV):
        error = refusal("die", tmp_path, number=int(number))
        assert type(error) is ExportError and "last words" in error.log
        assert f"export of tiny-bs4-cpu: the process was killed by {number.name}" in error.message
        assert error.killed == (number is signal.SIGKILL)
    assert "exit code 0 without an answer" in refusal("leave", tmp_path, code=0).message


@pytest.mark.parametrize("fails", [False, True])
def test_an_answer_for_which_the_disk_has_no_room(tmp_path, fails):
    assert refusal("take_no_more_room", tmp_path, fails=fails).full_disk


def test_a_child_that_hangs_is_ended_at_its_deadline_with_what_it_started(tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    waits: list[float] = []

    def wait_ended(process: subprocess.Popen[Any], seconds: float) -> bool:
        waits.append(seconds)
        assert eventually(pids.exists)  # the deadline passes now, however slow the machine is
        return False

    monkeypatch.setattr(processes, "wait_ended", wait_ended)
    error = refusal("hang", tmp_path, deadline_s=7.0, pids=str(pids))
    assert type(error) is ExportError and 0 < waits[0] <= 7.0
    assert "export of tiny-bs4-cpu: not finished after 7 s, ended" in error.message
    assert "--deadline-factor" in error.remedy
    child, grandchild = map(int, pids.read_text().split())
    assert not alive(child)
    assert not alive(grandchild)


def test_a_child_outlives_its_killed_parent_by_no_more_than_a_moment(tmp_path):
    pids = tmp_path / "pids"
    code = (
        "from pathlib import Path; from tests.selftest import test_jobs; "
        f"test_jobs.call('hang', Path({str(tmp_path)!r}), pids={str(pids)!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        assert eventually(pids.exists)
    finally:
        parent.kill()
        parent.wait(60)
    child, grandchild = map(int, pids.read_text().split())
    assert eventually(lambda: not alive(child))
    assert eventually(lambda: not alive(grandchild))


def test_a_worker_that_leads_no_group_ends_with_its_parent_too(tmp_path):
    worker = (
        "import os, pathlib, sys, time; from harness.base import signals; "
        "signals.end_with_parent(os.getppid()); "
        "pathlib.Path(sys.argv[1]).write_text(f'{os.getpid()} '); time.sleep(120)"
    )
    code = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}, sys.argv[1]])"
    )
    pid = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", code, str(pid)], cwd=ROOT)
    try:
        assert eventually(lambda: pid.exists() and pid.read_text().endswith(" "))
    finally:
        parent.kill()
        parent.wait(60)
    assert eventually(lambda: not alive(int(pid.read_text())))


def test_variables_that_change_what_a_library_builds_are_not_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMM_FUSED_ATTN", "0")
    monkeypatch.setenv("TIMMY", "0")
    assert call("environment", tmp_path, name="TIMM_FUSED_ATTN") is None
    assert call("environment", tmp_path, name="TIMMY") == "0"
