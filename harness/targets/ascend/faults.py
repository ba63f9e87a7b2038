"""What CANN's tools print of a failure: its code and words, and whether the device is to blame.

Three generations spell a code `E10007: ...`, `E10007: [PID: 7] 2025-03-18-09:02:18.501.341 ...` and
`Title(E10007): ...`. Of an inner error (`EZ9999: Inner Error!`) the lines after it have the words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from harness.base import processes
from harness.base.errors import DeviceError, HarnessError

CHARACTERS = 300  # of an error's words in a first line

_ERROR = re.compile(r"\b(E[0-9A-Z]\d{4})\b\)?\s*:\s*(\S.*)", re.ASCII)
_STAMP = r"(?:\[PID:\s*\d+\]\s*)?(?:\d{4}-\d\d-\d\d-[\d:.]+\s*)?"
_BEFORE_WORDS = re.compile(
    rf"\s*(?:E[0-9A-Z]\d{{4}}\b)?:?\s*{_STAMP}(?:\(E[0-9A-Z]\d{{4}}\):)?\s*", re.ASCII
)
_LOG_LINE = re.compile(r"\s*\[(?:DEBUG|INFO|WARNING|EVENT|TRACE)\]")
_PLACE = re.compile(r"\[FUNC:[^\]]*\]\[FILE:[^\]]*\]\[LINE:[^\]]*\]")
_INNER = re.compile(r"Inner Error\b.*", re.IGNORECASE)
_TRACE = "TraceBack (most recent call last)"
_TRACE_LINES = 20  # after an inner error, among which one may name the operator
_NAMES_OPERATOR = re.compile(r"\b(?:op|node|operator)\s?[\[:(]|\bop ?type\b", re.IGNORECASE)

# What runtimes say when a device is gone or cannot be had (an FAQ of the tools' vendor).
_LOST = re.compile(
    r"\bEL0003\b|\b507033\b|open device \d+ failed|\bacl ?init failed", re.IGNORECASE
)
# What a model can cause as well: an AI core's exception (507015), a stream that failed (507011).
_PERHAPS_LOST = re.compile(
    r"\b507\d{3}\b|device (is )?lost|drv(er)? .*not (ready|found)", re.IGNORECASE
)
_CAUSE = re.compile(
    r"^\[(?:ERROR|error)\].*|^(?:[A-Za-z_][\w.]*(?:Error|Exception)\b).*|^[EW][0-9A-Z]\d{4}:.*"
)


class CannError(NamedTuple):
    """A code and its words, on one line."""

    code: str
    words: str

    @property
    def inner(self) -> bool:
        """Return whether CANN stumbled itself: E19999, EZ9999, EE9999, E89999."""
        return self.code.endswith("9999")


def first_error(lines: Sequence[str]) -> CannError | None:
    """Return the first error that lines of a tool's output tell, lines of its log left out."""
    for at, line in enumerate(lines):
        match = _ERROR.search(line)
        if match and not _LOG_LINE.match(line):
            words = _words(match[2])
            if _INNER.fullmatch(words):
                words = " ".join([words, _inner_words(lines[at + 1 : at + 1 + _TRACE_LINES])])
            return CannError(match[1], words.strip()[:CHARACTERS])
    return None


def _inner_words(lines: Sequence[str]) -> str:
    """Return the first words after an inner error, and the first that name an operator."""
    said = [words for line in lines if (words := _words(line)) and not words.startswith(_TRACE)]
    named = [words for words in said if _NAMES_OPERATOR.search(words)]
    return "; ".join(dict.fromkeys([*said[:1], *named[:1]]))


def _words(text: str) -> str:
    return _PLACE.sub("", _BEFORE_WORDS.sub("", text, count=1)).strip()


# What the end of a tool means -------------------------------------------------------------------


def lost_sign(error: HarnessError) -> tuple[str, bool]:
    """Return the words of a message or log that say that the device is gone, and whether nothing
    else can cause them: a model can cause some as well.
    """
    text = f"{error.message}\n{error.log}"
    lost, perhaps = _LOST.search(text), _PERHAPS_LOST.search(text)
    return (lost or perhaps or [""])[0], lost is not None


def lost_device(error: HarnessError, device_id: int, output: str = "") -> DeviceError | None:
    """Return the same as a `DeviceError`, if its message, its log or more of the tool's `output`
    says that the device is what failed.
    """
    for line in [error.message, *error.log.splitlines(), *output.splitlines()]:
        if _LOST.search(line):
            return DeviceError(
                f"device {device_id} cannot be opened or was lost: {error.message}"
                + ("" if line == error.message else f" ({line.strip()[:200]})"),
                remedy="look at npu-smi info: does the driver answer, does it fit this CANN, may "
                "this user use the device; the card may need a reset",
                log=error.log,
            )
    return None


def raise_for(
    done: processes.Completed, what: str, device_id: int, error: type[HarnessError]
) -> None:
    """Raise what the end of a tool means; nothing when it ended well.

    `what` names the model and the tool, e.g. `model.om: ais_bench`.
    """
    if done.ok and not done.unkillable:
        return
    log = done.tail()
    if done.unkillable:
        raise undead(what, log)
    if done.timed_out:
        raise error(
            f"{what} did not end in {done.seconds:.0f} s, its deadline, and was stopped",
            remedy="its log says where it hangs; if the machine is only slow: "
            "--deadline-factor=N gives it N times as long",
            log=log,
            hung=True,
        )
    text = f"{what} {processes.describe_exit(done.returncode)}"
    cause = _cause(done.tail(lines=400))
    failure = error(
        f"{text}: {cause}" if cause else text,
        remedy="see the tool's log",
        log=log,
        signal=processes.signal_of(done.returncode),
    )
    raise lost_device(failure, device_id, done.tail(lines=400)) or failure


def undead(what: str, log: str = "") -> DeviceError:
    """Return the error of a tool whose process outlives SIGKILL."""
    return DeviceError(
        f"{what} was stopped, and a process of it would not die",
        remedy="the device stays leased until that process ends; its driver may need a reset",
        log=log,
    )


def _cause(text: str) -> str:
    """The first line of a tool's output that names an error."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    for at, line in enumerate(lines):
        if _CAUSE.match(line):
            error = first_error(lines[at:]) if first_error([line]) else None
            return f"{error.code}: {error.words}" if error else line[:CHARACTERS]
    return ""
