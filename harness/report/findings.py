"""What is wrong with a run, each thing said once: what happened to which cases, and why."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from harness.judge.causes import Cause, Exit, Finding, cause_of, causes, failure
from harness.pages import formats
from harness.pages.looks import ATTENTION, LOOKS, Look
from harness.records.lines import CaseLine
from harness.report.provenance import Shown

NAMES_SHOWN = 3
WHYS_SHOWN = 6

_CAUSES: dict[Cause, str] = {
    "model": "The model",
    "toolchain": "The toolchain",
    "machine": "The machine",
    "input": "An input",
    "harness": "The harness itself",
}
EXITS: dict[int, str] = {
    Exit.PASSED: "everything that was asked for ran, and nothing failed",
    Exit.ACCEPTANCE_FAILED: "an acceptance failed: a verdict, or a stage that makes or runs it",
    Exit.INTERRUPTED: "the run was interrupted",
    Exit.HARNESS_FAULT: "a fault of the harness or of pytest itself",
    Exit.INPUT_ERROR: "options, catalog, images, labels or checkpoints",
    Exit.NOTHING_SELECTED: "no case matches the selection",
    Exit.INCONCLUSIVE_ONLY: "nothing failed, but something could not be decided",
    Exit.MACHINE_TROUBLE: "trouble of the machine or its devices, or cases that were lost",
}


def exit_words(shown: Shown) -> str:
    """Return the exit code with its meaning; empty where the records have no end line."""
    end = shown.records.end
    if end is None:
        return ""
    meaning = EXITS.get(end.exit_status)
    return f"exit code {end.exit_status}" + (f": {meaning}" if meaning else "")


# Names -----------------------------------------------------------------------------------------


def named(names: Sequence[str]) -> str:
    """`a, b, c and 2 more`."""
    left = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {left:,} more" if left > 0 else "")


def _checks(cases: Iterable[CaseLine]) -> str:
    return " and ".join(dict.fromkeys(case.check for case in cases))


def title(cases: Sequence[CaseLine]) -> str:
    """Name cases to which one thing happened: `resnest50 bs 1, 4 on cpu: compile failed
    (accuracy)`, or `5 cases of a, b, c and 2 more on cpu: data failed (accuracy)`.
    """
    models = list(dict.fromkeys(formats.line(case.model, 80) for case in cases))
    sizes = ", ".join(str(size) for size in sorted({case.batch_size for case in cases}))
    who = f"{models[0]} bs {sizes}"
    if len(models) > 1:
        who = f"{len(cases):,} cases of {named(models)}"
    targets = ", ".join(dict.fromkeys(formats.line(case.target, 60) for case in cases))
    error = cases[0].error if cases[0].outcome == "error" else None
    how = f": {error.stage} failed" if error is not None else ""
    return f"{who} on {targets}{how} ({_checks(cases)})"


def subjects(cases: Iterable[CaseLine]) -> list[str]:
    """`accuracy and throughput of resnest50-bs4-ascend310p3`: the names that `-k` and logs have."""
    by_case: dict[str, list[CaseLine]] = {}
    for case in cases:
        by_case.setdefault(case.case, []).append(case)
    return [f"{_checks(group)} of {formats.line(case, 120)}" for case, group in by_case.items()]


def not_reached(shown: Shown) -> list[CaseLine]:
    """Return the cases that were asked for and did not run."""
    return [case for case in shown.records.cases if case.outcome == "not_run"]


# What happened ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What needs one look: the cases that one thing happened to."""

    look: Look
    title: str
    text: str
    cases: tuple[CaseLine, ...]
    remedy: str


def entries(shown: Shown) -> tuple[Entry, ...]:
    """Return what needs a look, in the order in which a reader wants it.

    Cases that failed for one reason (`causes.failure`) are one entry, as are those that were never
    reached.
    """
    groups: dict[Hashable, list[CaseLine]] = {}
    for case in shown.records.cases:
        if case.outcome in ATTENTION:
            reason = failure(case)
            key = (case.outcome, reason) if reason is not None else (case.nodeid, None)
            groups.setdefault(key, []).append(case)
    found = map(_entry, groups.values())
    return tuple(sorted(found, key=lambda entry: ATTENTION.index(entry.look.outcome)))


def _entry(cases: Sequence[CaseLine]) -> Entry:
    first = cases[0]
    finding, look = cause_of(first), LOOKS[first.outcome]
    remedy = formats.line(finding.remedy, 600) if finding is not None else ""
    return Entry(look, title(cases), _said(first), tuple(cases), remedy)


def _said(case: CaseLine) -> str:
    """What a case ended with: its error's own words, or its sentence."""
    return case.sentence if case.error is None else case.error.message


# Why -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Why:
    """One cause with what it was seen in.

    `case`: the first case of it. `said`: what that case ended with, where it is more than `why`;
    `remedy`: what to do.
    """

    what: str  # "The machine failed", "The run stopped early (...)"
    why: str
    names: str
    case: CaseLine | None = None
    said: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """The whole finding on one line."""
        return f"{self.what}: {self.why} ({self.names})"


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
        _why(f"{_CAUSES[cause]} {'leaves it undecided' if undecided else 'failed'}", why, findings)
        for (undecided, cause, why), findings in sorted(groups.items(), key=lambda item: item[0][0])
    ]
    lost = not_reached(shown) if with_lost else []
    if not lost:
        return tuple(found[:WHYS_SHOWN])
    one, end = Why(*_lost(shown), named(subjects(lost))), shown.records.end
    if end is not None and end.stopped:  # somebody asked for it: no cause
        return *found[: WHYS_SHOWN - 1], one
    return one, *found[: WHYS_SHOWN - 1]


def _reason(finding: Finding) -> str:
    why = formats.line(finding.why).rstrip(".")
    diagnosis = finding.case.diagnosis if finding.case is not None else None
    if finding.cause == "model" and diagnosis is not None and diagnosis.summary:
        why += f"; its diagnosis: {formats.line(diagnosis.summary, 300).rstrip('.')}"
    return why


def _lost(shown: Shown) -> tuple[str, str]:
    """What happened to the run that cases did not run, and why."""
    end = shown.records.end
    if end is None:
        said = "the run was killed or still goes on: its records have no end, and these no line"
        return "The machine failed", said
    if end.exit_status == Exit.INTERRUPTED:
        return "The run was interrupted", "these did not run"
    if end.stopped:
        return f"The run stopped {formats.line(end.stopped, 160)}", "these did not run"
    said = "the run ended without a line of these: a process was killed, or the disk was full"
    return "The machine failed", said


def _why(what: str, why: str, findings: Sequence[Finding]) -> Why:
    cases = [finding.case for finding in findings if finding.case is not None]
    names = subjects(cases)
    names += [formats.line(one.subject, 160) for one in findings if one.case is None]
    if not cases:
        return Why(what, why, named(names))
    said, remedy = formats.line(_said(cases[0])), formats.line(findings[0].remedy, 300)
    return Why(what, why, named(names), cases[0], "" if said == why else said, remedy)
