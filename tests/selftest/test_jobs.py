"""`harness.base.jobs`: whatever a child does, the parent gets a value or one error of the stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base import jobs, processes
from harness.base.errors import CompileError, ExportError, HarnessError
from tests.selftest.running import alive, eventually

ROOT = Path(__file__).parents[2]
FUNCTIONS = "tests.selftest.job_functions"


def call(function: str, tmp_path: Path, *, deadline_s: float = 60.0, **arguments: Any) -> Any:
    return jobs.call(
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


def test_the_value_comes_back(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "text": "a\u2028é\n",
        "number": 1.5,
        "nested": {"list": [1, None, True]},
    }
    assert call("echo", tmp_path, **given) == given
    assert call("echo", tmp_path) == {}


def test_what_a_job_prints_is_its_log_and_not_its_value(tmp_path: Path) -> None:
    assert call("print_garbage", tmp_path) == "the value"
    assert "half a line" in log_of(tmp_path)
    assert "not this one" in log_of(tmp_path)


def test_the_callers_python_path_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    path = call("environment", tmp_path, name="PYTHONPATH")
    assert path == f"{ROOT}{os.pathsep}/some/where"


def test_a_job_needs_no_particular_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("echo", tmp_path, a=1) == {"a": 1}


# Errors that the function raises.


def test_an_error_of_the_harness_comes_back_as_itself(tmp_path: Path) -> None:
    error = refusal("refuse", tmp_path, log="line one\nline two")
    assert type(error) is CompileError
    assert error.message == "the compiler says no"
    assert error.remedy == "ask it"
    assert error.log == "line one\nline two"


def test_an_error_without_a_log_gets_what_the_child_printed(tmp_path: Path) -> None:
    assert refusal("refuse", tmp_path, log="").log == "what the tool printed\n"


def test_the_log_of_an_error_is_of_its_own_job(tmp_path: Path) -> None:
    call("print_garbage", tmp_path)
    assert refusal("refuse", tmp_path, log="").log == "what the tool printed\n"


def test_an_error_of_no_stage_becomes_the_stages(tmp_path: Path) -> None:
    error = refusal("refuse_plainly", tmp_path)
    assert type(error) is ExportError
    assert error.message == "export of tiny-bs4-cpu: cannot write the log"
    assert (error.remedy, error.log) == ("free disk space", "its own log")


@pytest.mark.parametrize(
    ("message", "line"),
    [("one\ntwo\nthree", "one"), ("\n\n  late\nmore", "late"), ("", "no message")],
)
def test_a_librarys_exception_becomes_one_line_and_its_traceback_the_log(
    message: str, line: str, tmp_path: Path
) -> None:
    error = refusal("fail", tmp_path, message=message, name="ValueError")
    assert type(error) is ExportError
    assert error.message == f"export of tiny-bs4-cpu: ValueError: {line}"
    assert "Traceback (most recent call last)" in error.log
    assert "job_functions.py" in error.log
    assert error.log == log_of(tmp_path)


def test_a_librarys_exception_with_a_name_of_ours_is_not_ours(tmp_path: Path) -> None:
    error = refusal("fail", tmp_path, message="no", name="DataError")
    assert type(error) is ExportError
    assert error.message == "export of tiny-bs4-cpu: DataError: no"


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("no_json", "TypeError: Object of type set is not JSON serializable"),
        ("absent", "AttributeError: module 'tests.selftest.job_functions' has no attribute"),
        ("tests.absent:run", "ModuleNotFoundError: No module named 'tests.absent'"),
    ],
)
def test_a_function_that_cannot_be_used(function: str, says: str, tmp_path: Path) -> None:
    error = refusal(function, tmp_path)
    assert type(error) is ExportError
    assert says in error.message


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    assert "TypeError: leave() got an unexpected" in refusal("leave", tmp_path, other=1).message


# Children that end otherwise.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_child_that_dies_by_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    error = refusal("die", tmp_path, number=int(number))
    assert type(error) is ExportError
    assert f"without an answer (killed by {number.name})" in error.message
    assert "export of tiny-bs4-cpu" in error.message
    assert "last words" in error.log


@pytest.mark.parametrize("code", [0, 3])
def test_a_child_that_leaves_early(code: int, tmp_path: Path) -> None:
    error = refusal("leave", tmp_path, code=code)
    assert f"without an answer (exit code {code})" in error.message


def test_a_child_that_hangs_is_ended_at_its_deadline(tmp_path: Path) -> None:
    error = refusal("hang", tmp_path, deadline_s=0.05, pids=str(tmp_path / "pids"))
    assert type(error) is ExportError
    assert "export of tiny-bs4-cpu: not finished after 0.05 s, ended" in error.message
    assert "--deadline-factor" in error.remedy


def test_what_a_child_started_is_ended_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"

    def wait_ended(process: subprocess.Popen[Any], seconds: float) -> bool:
        assert eventually(pids.exists)  # the deadline passes now, however slow the machine is
        return False

    monkeypatch.setattr(processes, "wait_ended", wait_ended)
    assert "not finished" in refusal("hang", tmp_path, pids=str(pids)).message
    child, grandchild = map(int, pids.read_text().split())
    assert not alive(child)
    assert not alive(grandchild)


def test_a_child_outlives_its_killed_parent_by_no_more_than_a_moment(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests/selftest'); "
        f"import test_jobs; test_jobs.call('hang', Path({str(tmp_path)!r}), pids={str(pids)!r})"
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


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    assert "cannot write the log" in refusal("echo", tmp_path).message
