"""`harness.base.processes`: what is started also ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.base import processes, signals
from harness.base.errors import HarnessError
from harness.base.processes import (
    Running,
    describe_exit,
    end_what_runs,
    is_ours,
    kill_group,
    last_text,
    run,
    tail,
    wait_ended,
)
from tests.selftest.running import PATIENCE_S, alive, deadline_at, descriptors


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", textwrap.dedent(code)]


def test_exit_code_output_and_log(tmp_path):
    log = tmp_path / "new" / "tool.log"
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = run(python(code), deadline_s=60, log=log)
    assert (done.returncode, done.timed_out, done.ok, done.unkillable) == (3, False, False, False)
    assert sorted(done.output().splitlines()) == ["err", "out"]
    assert done.describe().endswith("ended with exit code 3")


def test_a_second_program_appends_and_reads_only_its_own(tmp_path):
    log = tmp_path / "log"
    assert run(["echo", "first"], deadline_s=60, log=log).ok
    # Arguments are not a shell's.
    second = run(["echo", "$HOME; exit 3", "*"], deadline_s=60, log=log)
    assert second.output() == second.tail() + "\n" == "$HOME; exit 3 *\n"
    assert log.read_text() == "first\n$HOME; exit 3 *\n"


def test_what_is_typed_is_not_the_programs(tmp_path):
    read, write = os.pipe()
    os.write(write, b"typed\n")
    os.close(write)
    ours = os.dup(0)
    try:
        os.dup2(read, 0)
        done = run(["cat"], deadline_s=60, log=tmp_path / "log")
    finally:
        os.dup2(ours, 0)
        os.close(ours)
        os.close(read)
    assert done.ok and done.output() == ""


def test_environment_directory_and_descriptors(tmp_path):
    read, write = os.pipe()
    try:
        code = f"import os; os.write({write}, (os.getcwd() + os.environ['A']).encode())"
        argv = python(code)
        done = run(
            argv,
            deadline_s=60,
            log=tmp_path / "log",
            cwd=tmp_path,
            env={"A": "b"},
            pass_fds=[write],
        )
        assert done.ok, done.output()
        assert os.read(read, 4096).decode() == f"{tmp_path}b"
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["/no/such/atc"], 127), (["/etc"], 126), (["a\0b"], 126)],
    ids=["absent", "not a program", "NUL in the name"],
)
def test_a_program_that_cannot_be_started(tmp_path, argv, code):
    done = run(argv, deadline_s=60, log=tmp_path / "log")
    assert (done.returncode, done.ok) == (code, False)
    assert "cannot start" in done.tail()


@pytest.mark.parametrize("trap", ["symlink_to", "hardlink_to"])
def test_a_log_that_is_a_link_is_not_written_through(tmp_path, trap):
    (tmp_path / "precious").write_text("ours")
    getattr(tmp_path / "log", trap)(tmp_path / "precious")
    with pytest.raises(HarnessError, match="cannot write the log of echo"):
        run(["echo", "x"], deadline_s=60, log=tmp_path / "log")
    assert (tmp_path / "precious").read_text() == "ours"


def test_a_log_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match="cannot write the log of echo"):
        run(["echo"], deadline_s=60, log=tmp_path / "file" / "log")


def complete(file: Path) -> Callable[[], bool]:
    return lambda: file.exists() and file.read_text().endswith("\n")


@pytest.mark.parametrize("stubborn", [False, True])
def test_deadline_kills_grandchildren(tmp_path, monkeypatch, stubborn):
    """Those, too, that ignore SIGTERM or make a group of their own."""
    pids = tmp_path / "pids"
    deadline_at(monkeypatch, complete(pids))
    code = f"""
        import os, signal, subprocess, time
        if {stubborn}:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "600"], process_group=0 if {stubborn} else None)
        open({str(pids)!r}, "w").write(f"{{child.pid}} {{os.getpid()}}\\n")
        time.sleep(600)
        """
    done = run(python(code), deadline_s=60, log=tmp_path / "log", grace_s=0.1 if stubborn else 30)
    killed_by = signal.SIGKILL if stubborn else signal.SIGTERM
    assert done.timed_out and done.returncode == -killed_by
    assert [pid for pid in map(int, pids.read_text().split()) if alive(pid)] == []


@pytest.fixture
def setpriv(tmp_path: Path, monkeypatch) -> Callable[[str], Path]:
    """Put a setpriv of our own before the host's; it notes each call's arguments in a file."""

    def install(script: str) -> Path:
        calls = tmp_path / "calls"
        program = tmp_path / "bin" / "setpriv"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return calls

    return install


def test_a_setpriv_that_can_is_used(tmp_path, setpriv):
    calls = setpriv('shift 3; exec "$@"')
    done = run(["echo", "one"], deadline_s=60, log=tmp_path / "log", dies_with_us=True)
    assert done.ok and done.output() == "one\n"
    probe, call = calls.read_text().splitlines()
    assert probe == "--pdeathsig KILL -- true"
    assert call == "--pdeathsig KILL -- echo one"


def test_a_setpriv_that_cannot_is_asked_once_and_left_out(tmp_path, setpriv):
    # util-linux before 2.33, and busybox
    calls = setpriv("echo \"setpriv: unrecognized option '--pdeathsig'\" >&2; exit 1")
    for word in ("one", "two"):
        done = run(["echo", word], deadline_s=60, log=tmp_path / "log", dies_with_us=True)
        assert done.ok and done.output() == f"{word}\n"
    assert calls.read_text() == "--pdeathsig KILL -- true\n"


def test_a_setpriv_that_hangs_is_left_out(tmp_path, setpriv, monkeypatch):
    pid = tmp_path / "pid"
    setpriv(f"echo $$ > {pid}; exec sleep 600")
    deadline_at(monkeypatch, complete(pid))
    assert processes.with_parent(["atc"]) == ["atc"]
    assert not alive(int(pid.read_text()))


def test_what_outlives_a_program_that_ended_well_is_killed(tmp_path):
    done = run(["sh", "-c", "sleep 600 & echo $!"], deadline_s=60, log=tmp_path / "log")
    assert done.ok and not done.timed_out
    assert not alive(int(done.output()))


def test_an_interrupted_caller_leaves_nothing_behind(tmp_path, monkeypatch):
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(process: subprocess.Popen[bytes], seconds: float) -> bool:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait_ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "600"], deadline_s=60, log=tmp_path / "log")
    assert not alive(started[0].pid)


def test_a_second_interrupt_kills_at_once(monkeypatch):
    process = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo; sleep 600"],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()  # the trap is set

        def interrupted(seconds: float):
            raise KeyboardInterrupt

        # The module's own clock alone: other threads of this process sleep as well.
        monkeypatch.setattr(
            processes, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupted)
        )
        with pytest.raises(KeyboardInterrupt):
            kill_group(process, grace_s=60)
        monkeypatch.undo()
        try:
            assert wait_ended(process, PATIENCE_S)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_what_will_not_die_is_said(tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    deadline_at(monkeypatch, complete(pid))
    monkeypatch.setattr(processes, "_signal_all", lambda leader, number: None)
    monkeypatch.setattr(processes, "KILL_WAIT_S", 0.1)
    argv = ["sh", "-c", f"echo $$ > {pid}; exec sleep 600"]
    done = run(argv, deadline_s=60, log=tmp_path / "log", grace_s=0.0)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert done.unkillable and done.timed_out and not done.ok
    assert "would not die" in done.describe()


def test_a_deadline_ends_a_program_and_no_descriptor_is_left_open(tmp_path):
    before = descriptors()
    for argv, deadline_s in ((["true"], 60), (["/no/such/program"], 60), (["sleep", "600"], 0.05)):
        done = run(argv, deadline_s=deadline_s, log=tmp_path / "log")
    assert done.timed_out and not done.ok and not done.unkillable
    assert done.returncode == -signal.SIGTERM
    assert "sleep was stopped after" in done.describe()
    assert descriptors() <= before


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit code 0"),
        (-signal.SIGSEGV, "was killed by SIGSEGV (segmentation fault)"),
        (-signal.SIGKILL, "was killed by SIGKILL (perhaps out of memory)"),
        (-signal.SIGHUP, "was killed by SIGHUP"),
        (
            139,
            "was killed by SIGSEGV (segmentation fault), its shell says with exit code 139",
        ),
        (187, "ended with exit code 187"),
        (-250, "was killed by signal 250"),
    ],
)
def test_describe_exit(code, text):
    assert describe_exit(code) == text
    assert processes.signal_of(code) == {139: signal.SIGSEGV}.get(code, max(0, -code))


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_what_a_shell_says_of_a_program_that_it_started(tmp_path, shell):
    script = tmp_path / "tool"
    for name, number in (("KILL", signal.SIGKILL), ("SEGV", signal.SIGSEGV), ("PIPE", 0)):
        # More than one command: else the shell becomes the program.
        script.write_text(f"echo Killed it\nsh -c 'kill -{name} $$'\nexit 1\n")
        done = run([shell, str(script)], deadline_s=60, log=tmp_path / "log")
        assert (done.returncode, processes.signal_said(done.output())) == (1, number)


def test_tail_takes_the_end_and_splits_progress_bars(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * 200_000 + b"\none\rtwo\n\xff three\n")
    assert tail(log, lines=3) == "one\ntwo\n\ufffd three"
    assert tail(log, start=log.stat().st_size) == ""
    assert last_text(log, 4) == "ree\n"
    assert last_text(log, 400, start=log.stat().st_size - 4) == "ree\n"
    assert tail(tmp_path / "absent") == last_text(tmp_path / "absent", 4) == ""


def test_what_was_started_here_is_ours_and_ends_with_us(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "ending", threading.Event())
    monkeypatch.setattr(processes, "_running", set())  # nothing that other tests still use
    running = Running(["sleep", "600"], deadline_s=60, log=tmp_path / "log")
    (pid,) = {one.pid for one in processes._running}
    assert is_ours(pid) and not is_ours(os.getpid())
    assert not running.overdue
    end_what_runs()
    assert processes.ending.is_set() and not alive(pid) and is_ours(pid)
    assert running.stop().returncode in (-signal.SIGTERM, -signal.SIGKILL)


def test_a_program_is_overdue_after_its_deadline(tmp_path):
    running = Running(["sleep", "600"], deadline_s=0.0, log=tmp_path / "log")
    assert running.overdue
    assert running.finish().timed_out and not running.overdue


@pytest.mark.parametrize("fails", [False, True])
def test_a_signal_while_something_starts_acts_afterwards(fails):
    done = []
    with signals.listening():  # puts the handlers back afterwards
        signal.signal(signal.SIGINT, signals.interrupt)
        with pytest.raises(KeyboardInterrupt), signals.held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("not interrupted")
            if fails:
                raise OSError("planted")
    assert done == ["not interrupted"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
def test_of_a_long_output_the_end_is_read_in_whole_lines(tmp_path, monkeypatch, end):
    log = tmp_path / "log"
    log.write_bytes("".join(f"loop {k:03d}{end}" for k in range(100)).encode())
    done = processes.Completed(("tool",), 0, 1.0, timed_out=False, log=log)
    assert len(done.output().splitlines()) == 100
    monkeypatch.setattr(processes, "OUTPUT_BYTES", 155)
    lines = done.output().splitlines()
    assert 14 < len(lines) < 18
    assert lines == [f"loop {number:03d}" for number in range(100 - len(lines), 100)]
