"""Run a program to its end or to its deadline, and end whatever it started.

Each program gets a session of its own (`setsid`), an argument list instead of a shell's line, no
standard input, and a log file for both of its outputs. Nothing here waits without a bound.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from harness.base import signals
from harness.base.errors import LOG_TAIL_LINES, HarnessError, on_disk
from harness.base.files import open_log

GRACE_S = 2.0  # between SIGTERM and SIGKILL
KILL_WAIT_S = 5.0  # how long a killed process may take to vanish; a driver can hold it for ever
PROBE_S = 5.0  # how long setpriv may take for nothing; it takes milliseconds
TAIL_BYTES = 64 * 1024
OUTPUT_BYTES = 4 * 1024 * 1024  # of one program's output in memory: a tool may write gigabytes

# Exit codes of a shell for a program that it cannot start.
NOT_FOUND = 127
NOT_STARTED = 126

_MEANINGS: Mapping[int, str] = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGABRT: "abort",
    signal.SIGBUS: "bus error: perhaps a full file system or /dev/shm",
    signal.SIGILL: "illegal instruction: perhaps built for another processor",
    signal.SIGFPE: "arithmetic error",
    signal.SIGKILL: "perhaps out of memory",
    signal.SIGTERM: "terminated from outside",
}
# What a shell says of a program that it started, after the place in its script.
_SHELL_SAYS = {
    "Killed": signal.SIGKILL,
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Illegal instruction": signal.SIGILL,
    "Terminated": signal.SIGTERM,
}
_SHELL_LINE = re.compile(
    rf"^(?:.*: line \d+: +\d+ )?({'|'.join(_SHELL_SAYS)})(?: \(core dumped\))?(?:$| {{2,}})", re.M
)


# What this process has started: all of it ends with it, also what a daemon thread was waiting for,
# and what a device's table of processes shows of it is not a stranger.
_running: set[subprocess.Popen[Any]] = set()
_started: set[int] = set()
ending = threading.Event()
"""Set once everything here is being ended: what fails from then on says nothing of itself."""


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process with a session of its own, which ends with this one; `options` of `Popen`.

    A signal that comes meanwhile acts afterwards: it would leave a process that nobody knows.
    """
    with signals.held_back():
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
        _running.add(process)
        _started.add(process.pid)
    return process


def is_ours(pid: int) -> bool:
    """Return whether a process belongs to what this one has started, ended ones included."""
    if pid in _started:
        return True
    try:
        return os.getsid(pid) in _started
    except OSError:
        return False


@atexit.register
def end_what_runs() -> None:
    """End every process that was started here and still runs, with its group."""
    ending.set()
    for process in list(_running):
        with contextlib.suppress(Exception):
            kill_group(process, 0.0)


_PDEATHSIG = ("--pdeathsig", "KILL", "--")


def with_parent(argv: Sequence[str]) -> list[str]:
    """Return the command, made to die when the thread that starts it does, also by `kill -9`.

    For tools that would go on for ever without us. Unchanged where no setpriv can do so.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or not _has_pdeathsig(setpriv):
        return list(argv)
    return [setpriv, *_PDEATHSIG, *argv]


@functools.cache
def _has_pdeathsig(setpriv: str) -> bool:
    """Return whether setpriv has the option: since util-linux 2.33, and not in busybox."""
    nothing = Path(os.devnull)
    return run([setpriv, *_PDEATHSIG, "true"], deadline_s=PROBE_S, log=nothing, grace_s=0.0).ok


@dataclass(frozen=True)
class Completed:
    """How a program ended.

    `returncode` is negative for a signal, 127 for a program that was not found and 126 for one
    that could not be started. `unkillable` says that a process of its group outlived SIGKILL.
    """

    argv: tuple[str, ...]
    returncode: int
    seconds: float
    timed_out: bool
    log: Path
    log_start: int = 0  # bytes that earlier programs had written to the same log
    unkillable: bool = False

    @property
    def ok(self) -> bool:
        """Return whether it ended by itself, in time, with exit code 0."""
        return self.returncode == 0 and not self.timed_out

    def describe(self) -> str:
        """Return a phrase for a message, e.g. `atc ended with exit code 255`."""
        name = Path(self.argv[0]).name if self.argv else "the program"
        if self.timed_out:
            how = f"was stopped after {self.seconds:.1f} s, its deadline"
        else:
            how = describe_exit(self.returncode)
        return f"{name} {how}" + (", and a process of its would not die" * self.unkillable)

    def output(self) -> str:
        """Return what it printed, both streams in the order of writing.

        Of more than `OUTPUT_BYTES` return the end, in whole lines.
        Raises `OSError`: the log is gone.
        """
        whole = self.log.stat().st_size - self.log_start <= OUTPUT_BYTES
        text = last_text(self.log, OUTPUT_BYTES, start=self.log_start)
        # Half a line may hold half a number.
        return text if whole else "".join(text.splitlines(keepends=True)[1:])

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Return the last lines that it printed; empty when the log is gone."""
        return tail(self.log, lines=lines, start=self.log_start)


class Options(TypedDict, total=False):
    """How a program runs; see `Running`."""

    cwd: Path | None
    env: Mapping[str, str] | None
    pass_fds: Sequence[int]
    grace_s: float
    dies_with_us: bool
    umask: int


def run(
    argv: Sequence[str], *, deadline_s: float, log: Path, **options: Unpack[Options]
) -> Completed:
    """Run a program to its end, for `deadline_s` seconds at most; see `Running`.
    Raises `HarnessError`: the log cannot be written.
    """
    return Running(argv, deadline_s=deadline_s, log=log, **options).finish()


class Running:
    """A program that runs while we do something else; `finish` or `stop` it in the end.

    What it prints is appended to `log`. Whatever of its group or session is alive when it ends,
    when the deadline passes or when the caller is interrupted gets SIGTERM and, after `grace_s`
    seconds, SIGKILL. A descendant that makes a session of its own escapes this; give it a lease's
    descriptor through `pass_fds`. `dies_with_us`: see `with_parent`. `umask`: -1 is the caller's.
    Raises `HarnessError`: the log cannot be written.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        grace_s: float = GRACE_S,
        dies_with_us: bool = False,
        umask: int = -1,
    ) -> None:
        """Start it. What cannot be started has ended with 127 or 126, as in a shell."""
        self._argv, self._log, self._grace_s = tuple(argv), log, grace_s
        self._process: subprocess.Popen[bytes] | None = None
        self._done: Completed | None = None
        what = f"cannot write the log of {argv[0]} to {log}"
        with on_disk(HarnessError, what, "free disk space or choose another directory for the run"):
            opened = open_log(log)
        with opened as out:
            self._log_start = out.tell()
            self._began = time.monotonic()
            self._limit = self._began + deadline_s
            try:
                known = shutil.which(argv[0], path=(os.environ if env is None else env).get("PATH"))
                self._process = start(
                    with_parent(argv) if dies_with_us and known else list(argv),
                    stdout=out,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    pass_fds=tuple(pass_fds),
                    umask=umask,
                )
            except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
                out.write(f"cannot start {argv[0]}: {error}\n".encode())
                code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_STARTED
                self._done = Completed(self._argv, code, 0.0, False, log, self._log_start)

    @property
    def overdue(self) -> bool:
        """Return whether it runs although its deadline has passed."""
        if self._process is None or self._done is not None:
            return False
        return time.monotonic() > self._limit and not has_ended(self._process)

    def finish(self) -> Completed:
        """Wait for its end or its deadline; what is left of its group is killed."""
        if self._done is not None:
            return self._done
        assert self._process is not None
        try:
            in_time = wait_ended(self._process, max(0.0, self._limit - time.monotonic()))
            return self._end(in_time)
        except BaseException:
            kill_group(self._process, self._grace_s)
            raise

    def stop(self) -> Completed:
        """Kill it, if it still runs. Safe to call at any time."""
        return self._end(in_time=True) if self._done is None else self._done

    def _end(self, in_time: bool) -> Completed:
        assert self._process is not None
        seconds = time.monotonic() - self._began
        dead = kill_group(self._process, self._grace_s)
        if not dead:
            abandon(self._process)
        self._done = Completed(
            self._argv,
            self._process.returncode,
            seconds,
            not in_time,
            self._log,
            self._log_start,
            unkillable=not dead,
        )
        return self._done


def has_ended(process: subprocess.Popen[Any]) -> bool:
    """Return whether the process has ended, without reaping it.

    An unreaped process keeps its number, so that a signal to its group cannot hit a stranger.
    """
    if process.returncode is not None:
        return True
    try:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, flags) is not None
    except ChildProcessError:  # reaped by somebody else, e.g. where SIGCHLD is ignored
        return True


def wait_ended(process: subprocess.Popen[Any], seconds: float) -> bool:
    """Wait for the end of a process; return False when it still runs after `seconds`."""
    limit = time.monotonic() + seconds
    pause = 0.0005
    while not has_ended(process):
        left = limit - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.02)
    return True


def kill_group(process: subprocess.Popen[Any], grace_s: float = GRACE_S) -> bool:
    """End what is left of a process that was started with a session of its own, and reap it.

    SIGTERM, `grace_s` seconds, SIGKILL, a bounded wait. Return whether nothing of it lives.
    Call it before anything else reaps the process (`Popen.poll`, `wait`): see `has_ended`.
    """
    if process.returncode is not None:  # an earlier call did it; the number may be another's now
        _running.discard(process)
        return True
    try:
        dead = _signal_until_gone(process.pid, signal.SIGTERM, grace_s, repeat=False)
        dead = dead or _signal_until_gone(process.pid, signal.SIGKILL, KILL_WAIT_S, repeat=True)
    except BaseException:  # a second Ctrl-C in the grace period must not let the group live
        _signal_all(process.pid, signal.SIGKILL)
        raise
    if not dead:
        return False
    try:
        process.wait(KILL_WAIT_S)  # a zombie, or reaped already: returns at once
    except subprocess.TimeoutExpired:  # /proc did not show it
        return False
    _running.discard(process)
    return True


def abandon(process: subprocess.Popen[Any]) -> None:
    """Give up a process that `kill_group` could not end: nobody will wait for it any more.

    Without this its object would warn of a running process when it is collected, in the middle
    of a test that has nothing to do with it.
    """
    if process.returncode is None:
        process.returncode = -signal.SIGKILL


def signal_of(returncode: int) -> int:
    """Return the signal that a program died of, also as a shell reports it; 0 for none."""
    if returncode < 0:
        return -returncode
    return returncode - 128 if returncode - 128 in _MEANINGS else 0


def signal_said(output: str) -> int:
    """Return the signal that a shell says a program died of, in a line of its own; 0 for none.

    A script that starts a tool may end with another exit code than the tool's.
    """
    lines = _SHELL_LINE.findall(output)
    return _SHELL_SAYS[lines[-1]] if lines else 0


def describe_exit(returncode: int) -> str:
    """Return `was killed by SIGSEGV (segmentation fault)` or `ended with exit code 3`."""
    number = signal_of(returncode)
    if not number:
        return f"ended with exit code {returncode}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    meaning = f" ({_MEANINGS[number]})" if number in _MEANINGS else ""
    shell = f", its shell says with exit code {returncode}" if returncode > 0 else ""
    return f"was killed by {name}{meaning}{shell}"


def tail(log: Path, *, lines: int = LOG_TAIL_LINES, start: int = 0) -> str:
    """Return the last lines of a log from byte `start` on; empty when it cannot be read.

    A progress bar's carriage returns count as line ends, or one bar would be the whole tail.
    """
    return "\n".join(last_text(log, TAIL_BYTES, start=start).splitlines()[-lines:])


def last_text(log: Path, most: int, *, start: int = 0) -> str:
    """Return the last `most` bytes of a log from byte `start` on; empty when it is not there."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - most))
            return file.read(most).decode(errors="replace")
    except OSError:
        return ""


def _signal_until_gone(leader: int, number: int, seconds: float, *, repeat: bool) -> bool:
    limit = time.monotonic() + seconds
    pause = 0.001
    if not _members(leader):
        return True
    _signal_all(leader, number)
    while _members(leader):
        left = limit - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)
        if repeat:  # a process may have been forked between the look and the signal
            _signal_all(leader, number)
    return True


def _signal_all(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)  # the group at once, before it can fork
    for pid in _members(leader):  # and groups that were made inside the session
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) != leader:
                os.kill(pid, number)


def _members(leader: int) -> list[int]:
    """Return live processes of the group or session that `leader` founded.

    `killpg(leader, 0)` would not do: it counts zombies, which stay for ever in a container whose
    first process reaps nobody.
    """
    members = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path("/proc", name, "stat").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        # After the command's name, which may hold spaces and brackets: see proc_pid_stat(5).
        fields = stat.rpartition(b")")[2].split()
        if leader not in (int(fields[2]), int(fields[3])):
            continue
        # A zombie with other threads is not dead: one of them may hang in a driver.
        if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:
            continue
        members.append(int(name))
    return members
