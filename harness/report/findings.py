"""Why a run is not green, and what its exit code means: the first screen of a red night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.judge.causes import Cause, Exit, Finding, cause_of, causes
from harness.pages import formats
from harness.pages.looks import ATTENTION, LOOKS, Look
from harness.records.lines import CaseLine
from harness.report import naming
from harness.report.naming import NAMES_SHOWN
from harness.report.provenance import Shown

GROUPS_SHOWN = 6

_WORDS: dict[Cause, str] = {
    "model": "The model",
    "toolchain": "The toolchain",
    "machine": "The machine",
    "input": "An input",
    "harness": "The harness itself",
}
_EXITS: dict[int, str] = {
    Exit.PASSED: "everything that was asked for ran, and nothing failed",
    Exit.ACCEPTANCE_FAILED: "an acceptance failed: a verdict, or a stage that makes or runs it",
    Exit.INTERRUPTED: "the run was interrupted",
    Exit.HARNESS_FAULT: "a fault of the harness or of pytest itself",
    Exit.INPUT_ERROR: "options, catalog, images, labels or checkpoints",
    Exit.NOTHING_SELECTED: "no case matches the selection",
    Exit.INCONCLUSIVE_ONLY: "nothing failed, but something could not be decided",
    Exit.MACHINE_TROUBLE: "trouble of the machine or its devices, or cases that were lost",
}


@dataclass(frozen=True)
class Why:
    """One cause with what it was seen in. `left`: how many `subjects` does not name.

    `case`: the first case of it. `said`: what that case ended with, where it is more than `why`;
    `remedy`: what to do.
    """

    word: str  # "The machine"
    verb: str  # "failed", "leaves it undecided", "stopped after the first failure (-x)"
    why: str
    subjects: tuple[str, ...]
    left: int
    case: CaseLine | None = None
    said: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """The whole finding on one line."""
        more = f" and {self.left:,} more" if self.left else ""
        return f"{self.word} {self.verb}: {self.why} ({', '.join(self.subjects)}{more})"


def whys(shown: Shown, *, with_lost: bool = True) -> tuple[Why, ...]:
    """Return what failed and why it is thought so, failures before what is undecided.

    Cases and checks with the same cause are one finding. Cases that did not run are one as well,
    unless somebody else (`with_lost` is false) says why.
    """
    groups: dict[tuple[bool, Cause, str], list[Finding]] = {}
    for finding in causes(shown.records):
        key = (finding.outcome == "inconclusive", finding.cause, _reason(finding))
        groups.setdefault(key, []).append(finding)
    found = [
        _why(_WORDS[cause], "leaves it undecided" if undecided else "failed", why, findings)
        for (undecided, cause, why), findings in sorted(groups.items(), key=lambda item: item[0][0])
    ]
    lost = not_reached(shown)
    if not lost or not with_lost:
        return tuple(found[:GROUPS_SHOWN])
    end = shown.records.end
    if end is not None and end.stopped:  # somebody asked for it: no cause
        return *found[: GROUPS_SHOWN - 1], _lost(shown, lost)
    return _lost(shown, lost), *found[: GROUPS_SHOWN - 1]


def _reason(finding: Finding) -> str:
    why = formats.line(finding.why).rstrip(".")
    diagnosis = finding.case.diagnosis if finding.case is not None else None
    if finding.cause == "model" and diagnosis is not None and diagnosis.summary:
        why += f"; its diagnosis: {formats.line(diagnosis.summary, 300).rstrip('.')}"
    return why


def not_reached(shown: Shown) -> list[CaseLine]:
    """Return the cases that were asked for and did not run."""
    return [case for case in shown.records.cases if case.outcome == "not_run"]


def _lost(shown: Shown, lost: Sequence[CaseLine]) -> Why:
    end = shown.records.end
    word, verb, why = "The machine", "failed", "these did not run"
    if end is not None and end.exit_status == Exit.INTERRUPTED:
        word, verb = "The run", "was interrupted"
    elif end is not None and end.stopped:
        word, verb = "The run", f"stopped {formats.line(end.stopped, 160)}"
    elif end is None:
        why = "the run was killed or still goes on: its records have no end, and these no line"
    else:
        why = "the run ended without a line of these: a process was killed, or the disk was full"
    return Why(word, verb, why, *_subjects(naming.subjects(lost)))


def _why(word: str, verb: str, why: str, findings: Sequence[Finding]) -> Why:
    cases = [finding.case for finding in findings if finding.case is not None]
    subjects = naming.subjects(cases)
    subjects += [formats.line(one.subject, 160) for one in findings if one.case is None]
    if not cases:
        return Why(word, verb, why, *_subjects(subjects))
    said = said_of(cases[0])
    return Why(
        word,
        verb,
        why,
        *_subjects(subjects),
        case=cases[0],
        said="" if said == why else said,
        remedy=formats.line(findings[0].remedy, 300),
    )


def _subjects(subjects: list[str]) -> tuple[tuple[str, ...], int]:
    return tuple(subjects[:NAMES_SHOWN]), max(0, len(subjects) - NAMES_SHOWN)


def said_of(case: CaseLine) -> str:
    """Return what a case ended with, on one line: its error's own words, or its sentence."""
    return formats.line(case.sentence if case.error is None else case.error.message)


@dataclass(frozen=True)
class Entry:
    """What needs one look: the cases that one thing happened to, said once."""

    look: Look
    title: str  # "resnest50 bs 1, 4 on ascend310p3: compile failed (accuracy and throughput)"
    text: str
    cases: tuple[CaseLine, ...]
    remedy: str


def entries(shown: Shown) -> tuple[Entry, ...]:
    """Return what needs a look, in the order in which a reader wants it.

    Cases that failed of the same build are one entry, as are those that were never reached.
    """
    red = [case for case in shown.records.cases if case.outcome in ATTENTION]
    found = [_entry(group) for group in naming.same_failure(red)]
    return tuple(sorted(found, key=lambda entry: ATTENTION.index(entry.look.outcome)))


def _entry(cases: Sequence[CaseLine]) -> Entry:
    first = cases[0]
    error, finding = first.error, cause_of(first)
    text = first.sentence if error is None else error.message
    remedy = finding.remedy if finding is not None else "" if error is None else error.remedy
    return Entry(
        LOOKS[first.outcome],
        naming.title(cases),
        text,
        tuple(cases),
        formats.line(remedy, 600),
    )


def exit_words(shown: Shown) -> str:
    """Return the exit code with its meaning; empty where the records have no end line."""
    end = shown.records.end
    if end is None:
        return ""
    meaning = _EXITS.get(end.exit_status)
    return f"exit code {end.exit_status}" + (f": {meaning}" if meaning else "")
