"""Ctrl-C and SIGTERM: the first one interrupts, and none disturbs what ends a run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

FROZEN_S = 60.0  # how long a worker may be stopped before it is ended
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


def interrupt(number: int, frame: Any) -> NoReturn:
    """Raise KeyboardInterrupt, once.

    `timeout` signals the process and its group, and who waits presses Ctrl-C again: a second
    signal would hit the code that writes the records.
    """
    for one in _NUMBERS:
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


def listen() -> None:
    """Make SIGTERM an interruption like Ctrl-C, and both of them come once. Main thread only."""
    signal.signal(signal.SIGTERM, interrupt)
    # Not where it is ignored, as in a shell's background job, or somebody else's.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """`listen` within the block; in another thread than the main one, change nothing."""
    with _restored():
        if _in_main_thread():
            listen()
        yield


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore both signals within the block, which must be bounded."""
    with _restored():
        if _in_main_thread():
            for number in _NUMBERS:
                signal.signal(number, signal.SIG_IGN)
        yield


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let a signal that comes within the block, which must be bounded, act after it."""
    came: list[int] = []
    try:
        with _restored():
            if _in_main_thread():
                for number in _NUMBERS:
                    if callable(signal.getsignal(number)):
                        signal.signal(number, lambda number, frame: came.append(number))
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in _NUMBERS]
    try:
        yield
    finally:
        if _in_main_thread():
            for number, handler in before:
                signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def end_frozen(limit_s: float, tell: Callable[[str], object]) -> None:
    """From now on, end children of this process that stay stopped (SIGSTOP) for `limit_s` seconds.

    Who waits for one waits without limit.
    """
    since: dict[int, float] = {}

    def watch() -> None:
        while True:
            time.sleep(min(2.0, limit_s / 4))
            now = time.monotonic()
            stopped = {pid: since.get(pid, now) for pid in _stopped_children()}
            since.clear()
            since.update(stopped)
            for pid in [pid for pid, begin in stopped.items() if now - begin >= limit_s]:
                tell(f"process {pid} was stopped for {limit_s:g} s, and is ended")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    threading.Thread(target=watch, name="frozen", daemon=True).start()


def _stopped_children() -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, parent = stat.read_bytes().rpartition(b")")[2].split()[:2]  # proc_pid_stat(5)
            if state == b"T" and int(parent) == os.getpid():
                yield int(stat.parent.name)


def end_with_parent(parent: int) -> None:
    """End this process, with its group where that is its own, when its parent is gone.

    A worker left alone would hold its device; a compiler that it started ends as well.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(70)

    threading.Thread(target=watch, name="parent", daemon=True).start()
