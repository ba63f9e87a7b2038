"""Ctrl-C and SIGTERM: the first one interrupts, and none disturbs what ends a run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

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
