"""One exception class for each stage, all under `HarnessError`.

An error carries what a reader needs in order: one line that says what happened, what to do
next (`remedy`), and the tool's log after it (`log`). The class names the stage that failed, so
that a known failure can be declared for one stage and no other.
"""

from __future__ import annotations

import contextlib
import signal as signals
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from harness.base.stages import Stage
from harness.base.text import clean, first_line

LOG_TAIL_LINES = 40
MESSAGE_CHARACTERS = 4000  # a library may put megabytes into the first line of an exception
LOG_CHARACTERS = 64 * 1024
# How the C library, and so any tool, says that a disk or a quota is full (ENOSPC, EDQUOT).
_FULL_DISK = ("No space left on device", "Disk quota exceeded")
_LAST_LINES = 5  # of a log, in which a tool says what ended it
# And what else the machine cannot give: memory, files, processes, a sound disk.
_REFUSED = (
    *("Cannot allocate memory", "MemoryError", "std::bad_alloc", "Too many open files"),
    *("Resource temporarily unavailable", "No locks available"),
    *("Input/output error", "Read-only file system"),
)
# What others send: the kernel that lacks memory, a container that ends, an operator. A program
# that stumbles itself gets other signals.
FROM_OUTSIDE = frozenset(
    {signals.SIGKILL, signals.SIGTERM, signals.SIGINT, signals.SIGHUP, signals.SIGQUIT}
)
_KILLED_REMEDY = (
    "dmesg names what the kernel ended for want of memory: then run fewer cases at a time (-n), "
    "or end what else runs"
)
REMEMBERED = " (failed earlier in this run; not tried again)"


class HarnessError(Exception):
    """Something that a stage could not do; never a verdict about a model.

    `hung`: it did not end within its deadline and was stopped (not in `to_json`).
    `signal`: what ended a process of it, 0 for none; not of one that we stopped.
    `coded`: the tool itself says in `message` what is wrong, with a code of its own.
    `files`: each of several files that cannot be used, with why.
    `remembered`: the store repeats a build's failure from earlier in the run (not in `to_json`).
    """

    stage: ClassVar[Stage] = Stage.HARNESS
    coded: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        log: str = "",
        hung: bool = False,
        signal: int = 0,
        files: Sequence[str] = (),
    ) -> None:
        message = message[:MESSAGE_CHARACTERS]
        super().__init__(message)
        self.message = message
        self.signal = signal
        self.files = tuple(files)
        if signal in FROM_OUTSIDE and _KILLED_REMEDY not in remedy:
            remedy = "; ".join(filter(None, (_KILLED_REMEDY, remedy)))
        self.remedy = remedy
        self.log = log[-LOG_CHARACTERS:]
        self.hung = hung
        self.remembered = False

    def __str__(self) -> str:
        text = f"[{self.stage}] {self.message}"
        if self.remembered:
            text += REMEMBERED
        if self.remedy:
            text += f"\n  what to do: {self.remedy}"
        if self.log:
            tail = "\n".join(f"  | {line}" for line in self.log.splitlines()[-LOG_TAIL_LINES:])
            text += f"\n  log:\n{tail}"
        return clean(text)

    @property
    def full_disk(self) -> bool:
        """Return whether a full disk or quota is the reason, as the operating system words it."""
        return any(words in text for words in _FULL_DISK for text in (self.message, self.log))

    @property
    def killed(self) -> bool:
        """Return whether a process was killed or refused memory and the like: the machine's doing.

        What ended a tool it says last; earlier in its log it may have done without.
        """
        if self.signal in FROM_OUTSIDE:
            return True
        last = () if self.coded else self.log.splitlines()[-_LAST_LINES:]
        return any(words in line for words in _REFUSED for line in (self.message, *last))

    def to_json(self) -> dict[str, Any]:
        """Return the error as a JSON object, for records and for crossing a process boundary."""
        return {
            "type": type(self).__name__,
            "stage": self.stage,
            "message": self.message,
            "remedy": self.remedy,
            "log": self.log,
            "signal": self.signal,
            "files": self.files,
        }


class ConfigError(HarnessError):
    stage = Stage.CONFIGURATION


class CatalogError(HarnessError):
    stage = Stage.CATALOG


class DataError(HarnessError):
    stage = Stage.DATA


class CheckpointError(HarnessError):
    stage = Stage.CHECKPOINT


class NetworkError(HarnessError):
    stage = Stage.NETWORK


class ExportError(HarnessError):
    stage = Stage.EXPORT


class SimplifyError(HarnessError):
    stage = Stage.SIMPLIFY


class CompileError(HarnessError):
    stage = Stage.COMPILE


class LoadError(HarnessError):
    """A compiled model that no session opens, or that has other tensors than it must."""

    stage = Stage.LOAD


class NoSession(LoadError):
    """There is nothing to open a compiled model with: no runtime, no process, no memory."""


class InferError(HarnessError):
    """A session that failed, hung or died while it ran."""

    stage = Stage.INFER


class DeviceError(HarnessError):
    stage = Stage.DEVICE


class EagerError(HarnessError):
    stage = Stage.EAGER


class RehearsalError(HarnessError):
    """Stand-in weights or generated images that cannot tell a good artifact from a bad one."""

    stage = Stage.REHEARSAL


class ProvenanceError(HarnessError):
    """A measurement was about to be judged against a reference of another provenance."""

    stage = Stage.VERDICT


class StoreError(HarnessError):
    stage = Stage.STORE


class RecordError(HarnessError):
    stage = Stage.RECORDS


@contextlib.contextmanager
def on_disk(kind: type[HarnessError], what: str, remedy: str) -> Iterator[None]:
    """Make an error of a stage of what the file system refuses: `<what>: <its reason>`."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}", remedy=remedy) from error


def of_machine(error: BaseException) -> bool:
    """Return whether the operating system refused something, which no line of ours can mend."""
    said = error if isinstance(error, HarnessError) else HarnessError(first_line(error))
    return isinstance(error, PermissionError | MemoryError) or said.full_disk or said.killed


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first few of many names and how many are left, e.g. `a, b, c and 9 more`."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def _all_classes(root: type[HarnessError]) -> dict[str, type[HarnessError]]:
    classes = {root.__name__: root}
    for child in root.__subclasses__():
        classes.update(_all_classes(child))
    return classes


def from_json(data: dict[str, Any]) -> HarnessError:
    """Return the error that `to_json` wrote; an unknown type becomes `HarnessError`."""
    cls = _all_classes(HarnessError).get(str(data.get("type")), HarnessError)
    return cls(
        str(data.get("message", "")),
        remedy=str(data.get("remedy", "")),
        log=str(data.get("log", "")),
        signal=int(data.get("signal", 0)),
        files=tuple(map(str, data.get("files", ()))),
    )
