"""Progress of long work: a status line on a terminal, a line every ten seconds in a log.

Writes to a descriptor of its own, so that pytest's capture neither swallows it nor mixes it into a
case's output. Not with rich's live display: that owns the lines it stands on and moves the cursor
up over them, while pytest writes the words of a case to the same lines, piece by piece and without
line ends. So the status is one line below the cursor, which is put back where pytest left it.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.cells import cell_len, set_cell_size

from harness.base.stages import Stage
from harness.base.text import clean

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
        # pytest may have begun a line and not ended it: the next line here begins one of its own.
        self._after_pytest = True
        self._ended: threading.Event | None = None  # of the thread that shows it
        # Of the whole run: the cases that have not ended, with the seconds expected of each.
        self._open: dict[str, float | None] = {}
        self._planned = 0
        self._begin = 0.0
        self._last_end = 0.0

    @classmethod
    def silent(cls) -> Progress:
        """Return a progress that shows nothing."""
        return cls(None, terminal=False)

    @classmethod
    def on_stderr(cls, worker: str = "", *, only_terminal: bool = False) -> Progress:
        """Return a progress on standard error as it is now, whatever captures it later."""
        descriptor = os.dup(2)
        terminal = not worker and os.isatty(descriptor) and os.environ.get("TERM") != "dumb"
        if only_terminal and not terminal:
            os.close(descriptor)
            return cls.silent()
        return cls(descriptor, terminal=terminal, prefix=f"[{worker}] " if worker else "  ... ")

    # The run -----------------------------------------------------------------------------

    def begin(self, cases: Mapping[str, float | None]) -> None:
        """Begin a run of cases, by any name, with the seconds expected of each; None: unknown."""
        with self._lock:
            self._open, self._planned = dict(cases), len(cases)
            self._begin = self._last_end = time.monotonic()
            self._after_pytest = True
        self._start()

    def ended(self, case: str) -> None:
        """Count a case of the run as ended; ignore others."""
        with self._lock:
            if case in self._open:
                del self._open[case]
                self._last_end = time.monotonic()
                self._after_pytest = True

    def end(self) -> None:
        """End the run: nothing more is shown of it."""
        with self._lock:
            self._planned = 0
            self._open = {}
            if not self._stack:
                self._clear()
            if self._ended is not None:
                self._ended.set()
                self._ended = None

    # A stage -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def stage(self, case: str, stage: Stage) -> Iterator[None]:
        """Show what is done within the block."""
        with self._lock:
            self._stack.append((case, stage.doing, time.monotonic()))
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
        """Set how far the present stage is."""
        with self._lock:
            begin = self._count[3] if self._count is not None else time.monotonic()
            self._count = (done, total, unit, begin)

    def say(self, detail: str) -> None:
        """Set a detail that is shown with the present stage."""
        with self._lock:
            self._detail = detail

    def note(self, text: str) -> None:
        """Show a line of its own, now."""
        text = clean(text)
        with self._lock:
            self._clear()
            if self._terminal:
                self._write(f"\n{self._prefix}{text}\n")
            else:
                self._line(text)

    # Showing -----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._fd is None or self._ended is not None:
            return
        self._ended = threading.Event()
        arguments = (self._ended,)
        threading.Thread(target=self._tick, args=arguments, name="progress", daemon=True).start()

    def _tick(self, ended: threading.Event) -> None:
        last = time.monotonic()
        while not ended.wait(_STATUS_EVERY_S):
            with self._lock:
                text = self._text()
                if not text:
                    last = time.monotonic()
                    continue
                if self._terminal:
                    self._write(f"{_BELOW}{_fitting(text, _width(self._fd))}{_BACK}")
                    self._shown = True
                elif time.monotonic() - last >= LINE_EVERY_S:
                    last = time.monotonic()
                    self._line(clean(text))

    def _line(self, text: str) -> None:
        """Write one whole line of a log."""
        begin = "\n" if self._after_pytest else ""
        self._write(f"{begin}{self._prefix}{text}\n")
        self._after_pytest = False

    def _text(self) -> str:
        """Return the status: the run, then the stage; empty when there is nothing to say."""
        parts = [self._stage_text()]
        if self._planned:
            done = self._planned - len(self._open)
            parts.insert(0, f"[{done}/{self._planned} cases{_left(self._seconds_left())}]")
        return " ".join(filter(None, parts))

    def _seconds_left(self) -> float:
        """Return how long the run still takes, by earlier runs or by this one's cases so far.

        What the present case has taken already is subtracted. 0 where nothing is known.
        """
        known = [seconds for seconds in self._open.values() if seconds is not None]
        done = self._planned - len(self._open)
        usual = statistics.fmean(known) if known else 0.0
        if done:
            usual = (self._last_end - self._begin) / done
        present, *others = (*(usual if one is None else one for one in self._open.values()), 0.0)
        return max(0.0, present - (time.monotonic() - self._last_end)) + sum(others)

    def _stage_text(self) -> str:
        if not self._stack:
            return ""
        case, name, begin = self._stack[-1]
        text = f"{case}: {name} {time.monotonic() - begin:.0f} s"
        if self._count is not None:
            done, total, unit, first = self._count
            seconds = max(time.monotonic() - first, 1e-3)
            text += f", {done}/{total} {unit}"
            if done > 1 and seconds > 0.5:
                rate = done / seconds
                text += f", {rate:.1f} {unit}/s"
                text += _left((total - done) / rate)
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


def _left(seconds: float) -> str:
    if seconds < 0.5:
        return ""
    return f", {seconds:.0f} s left" if seconds < 90 else f", {seconds / 60:.0f} min left"


def _fitting(text: str, width: int) -> str:
    """Return `text` cut to one line of a terminal; a wide character takes two columns."""
    text = " ".join(clean(text).split())
    return set_cell_size(text, width) if cell_len(text) > width else text


def _width(fd: Any) -> int:
    try:
        return max(20, os.get_terminal_size(fd).columns - 1)
    except OSError:
        return 79
