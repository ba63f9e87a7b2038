"""Progress of long work: a status line on a terminal, a line every ten seconds in a log.

Writes to a descriptor of its own, so that pytest's capture neither swallows it nor mixes it into a
case's output.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

LINE_EVERY_S = 10.0
_STATUS_EVERY_S = 0.2
# Make room for one line below the cursor without moving it, save the cursor, write there, go back.
_BELOW = "\x1bD\x1bM\x1b7\x1b[1B\r\x1b[2K"
_BACK = "\x1b8"


class Progress:
    """What is being done now, shown on `fd`; nothing is shown when `fd` is None."""

    def __init__(self, fd: int | None, *, terminal: bool, prefix: str = "") -> None:
        self._fd = fd
        self._terminal = terminal
        self._prefix = prefix
        self._lock = threading.Lock()
        self._stack: list[tuple[str, str, float]] = []
        self._detail = ""
        self._count: tuple[int, int, str, float] | None = None
        self._shown = False
        self._ticker: threading.Thread | None = None

    @classmethod
    def silent(cls) -> Progress:
        """A progress that shows nothing."""
        return cls(None, terminal=False)

    @contextlib.contextmanager
    def stage(self, case: str, name: str) -> Iterator[None]:
        """Name what is done within the block."""
        with self._lock:
            self._stack.append((case, name, time.monotonic()))
            self._detail, self._count = "", None
        self._start()
        try:
            yield
        finally:
            with self._lock:
                self._stack.pop()
                self._detail, self._count = "", None
                if not self._stack:
                    self._clear()

    def update(self, done: int, total: int, unit: str) -> None:
        """How far the present stage is."""
        with self._lock:
            begin = self._count[3] if self._count is not None else time.monotonic()
            self._count = (done, total, unit, begin)

    def say(self, detail: str) -> None:
        """A detail of the present stage, shown with it."""
        with self._lock:
            self._detail = detail

    def note(self, text: str) -> None:
        """A line of its own, now."""
        with self._lock:
            self._clear()
            self._write(
                f"\n{self._prefix}{text}\n" if self._terminal else f"{self._prefix}{text}\n"
            )

    # Showing -----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._fd is None or self._ticker is not None:
            return
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._ticker.start()

    def _tick(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(_STATUS_EVERY_S)
            with self._lock:
                if not self._stack:
                    last = time.monotonic()
                    continue
                if self._terminal:
                    self._write(f"{_BELOW}{self._text()[: _width(self._fd)]}{_BACK}")
                    self._shown = True
                elif time.monotonic() - last >= LINE_EVERY_S:
                    last = time.monotonic()
                    self._write(f"{self._prefix}{self._text()}\n")

    def _text(self) -> str:
        case, name, begin = self._stack[-1]
        text = f"{case}: {name} {time.monotonic() - begin:.0f} s"
        if self._count is not None:
            done, total, unit, first = self._count
            seconds = max(time.monotonic() - first, 1e-3)
            text += f", {done}/{total} {unit}"
            if done > 1 and seconds > 0.5:
                rate = done / seconds
                text += f", {rate:.1f}/s, {(total - done) / rate:.0f} s left"
        return f"{text}, {self._detail}" if self._detail else text

    def _clear(self) -> None:
        if self._shown:
            self._write(_BELOW + _BACK)
            self._shown = False

    def _write(self, text: str) -> None:
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode(errors="replace"))


def _width(fd: Any) -> int:
    try:
        return max(20, os.get_terminal_size(fd).columns - 1)
    except OSError:
        return 79
