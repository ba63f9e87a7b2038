"""What a tool does besides its work, or in its place."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def talk() -> None:
    """Print 20 MB."""
    for _ in range(200_000):
        print("x" * 99)


def be_silent() -> None:
    """Print nothing, errors neither."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def say_half() -> None:
    """Print the first half of each text, as another version might."""
    write = sys.stdout.write
    sys.stdout.write = lambda text: write(text[: len(text) // 2] + "\n")  # type: ignore[method-assign]


def end_with_3() -> None:
    """Do all of the work, and end as if it failed."""
    atexit.register(os._exit, 3)
    atexit.register(sys.stdout.flush)


def lose_file() -> None:
    """Remove what it made, and end as if it succeeded."""
    files = [word.partition("=")[2] + ".om" for word in sys.orig_argv if "--output=" in word]
    for file in files:
        atexit.register(Path(file).unlink, missing_ok=True)


def leave_child() -> None:
    """Leave a process that has the tool's output and lives on."""
    if os.fork() == 0:
        time.sleep(3600)


def be_missing() -> None:
    os._exit(127)


DEEDS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (talk, be_silent, say_half, end_with_3, lose_file, leave_child, be_missing)
}
