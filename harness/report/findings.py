"""What is wrong with a run, each thing said once: what happened to which cases, why, what next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.judge.causes import Cause, Exit, Finding, causes, failure
from harness.judge.wording import clause
from harness.pages import formats
from harness.pages.looks import ATTENTION, LOOKS, Look
from harness.pages.words import say
from harness.records.lines import CaseLine
from harness.report.provenance import Shown

Item = TypeVar("Item")
Key = TypeVar("Key")

NAMES_SHOWN = 3

_FAILED: dict[Cause, str] = {
    "model": "The model failed",
    "toolchain": "The toolchain failed",
    "machine": "The machine failed",
    "input": "An input failed",
    "harness": "The harness itself failed",
}
_UNDECIDED: dict[Cause, str] = {
    "machine": "The machine leaves it undecided",
    "input": "An input leaves it undecided",
    "model": "The model leaves it undecided",
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


def exit_words(shown: Shown, *, bad: bool) -> str:
    """Return the exit code with its meaning; empty where the records have no end line. `bad`: what
    the records say of the run.
    """
    end = shown.records.end
    if end is None:
        return ""
    meaning = EXITS.get(end.exit_status)
    if bad and end.exit_status == Exit.PASSED:
        meaning = "its records do not bear that out"
    code = say("exit code {code}", code=end.exit_status)
    return f"{code}{say(': ')}{say(meaning)}" if meaning else code


# Names -----------------------------------------------------------------------------------------


def named(names: Sequence[str]) -> str:
    """`a, b, c and 2 more`."""
    left = len(names) - NAMES_SHOWN
    more = say(" and {n} more", n=f"{left:,}") if left > 0 else ""
    return say(", ").join(names[:NAMES_SHOWN]) + more


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return items by a key, in the order in which each comes first."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _checks(cases: Iterable[CaseLine]) -> str:
    return say(" and ").join(say(name) for name in dict.fromkeys(case.check for case in cases))


def title(cases: Sequence[CaseLine]) -> str:
    """Name cases to which one thing happened: `resnest50 bs 1, 4 on cpu: compile failed
    (accuracy)`, or `5 cases of a, b, c and 2 more on cpu: data failed (accuracy)`.
    """
    models = list(dict.fromkeys(formats.line(case.model, 80) for case in cases))
    sizes = ", ".join(str(size) for size in sorted({case.batch_size for case in cases}))
    who = f"{models[0]} bs {sizes}"
    if len(models) > 1:
        cases_of = formats.plural(len(cases), "case")
        who = say("{cases} of {models}", cases=cases_of, models=named(models))
    targets = ", ".join(dict.fromkeys(formats.line(case.target, 60) for case in cases))
    text = say("{who} on {targets}", who=who, targets=targets)
    if cases[0].error is not None and cases[0].outcome == "error":
        text += say(": {stage} failed", stage=cases[0].error.stage)
    return say("{text} ({checks})", text=text, checks=_checks(cases))


def subjects(cases: Iterable[CaseLine]) -> list[str]:
    """`accuracy and throughput of resnest50-bs4-ascend310p3`: the names that `-k` and logs have."""
    return [
        say("{checks} of {case}", checks=_checks(group), case=formats.line(name, 120))
        for name, group in grouped(cases, lambda case: case.case).items()
    ]


def not_reached(shown: Shown) -> list[CaseLine]:
    """Return the cases that were asked for and did not run."""
    return [case for case in shown.records.cases if case.outcome == "not_run"]


# What happened, and why --------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What needs one look: the cases that one thing happened to, or a check over the cases."""

    look: Look
    title: str
    text: str
    cases: tuple[CaseLine, ...]
    key: str  # of the first case, or of the check


@dataclass(frozen=True)
class Why:
    """One cause with what it was seen in; `remedy`: what to do; `repeat`: the command to redo it.

    `what` and `why` read "The machine failed", "a disk is full".
    """

    what: str
    why: str
    names: str
    entries: tuple[Entry, ...]
    remedy: str = ""

    @property
    def text(self) -> str:
        """The whole finding on one line."""
        return say("{what}: {why} ({names})", what=self.what, why=self.why, names=self.names)

    @property
    def look(self) -> Look:
        return self.entries[0].look

    @property
    def case(self) -> CaseLine | None:
        """The first case of it."""
        return next((case for entry in self.entries for case in entry.cases), None)

    @property
    def said(self) -> str:
        """What the first case ended with, where it is more than the cause."""
        return "" if self.entries[0].text.rstrip(".") == self.why else self.entries[0].text

    @property
    def details(self) -> list[str]:
        """What was said and what is next, as lines for a terminal."""
        said = [entry.text for entry in self.entries[:NAMES_SHOWN] if self.said]
        steps = (("what to do", self.remedy), ("again", self.repeat))
        return said + [f"{say(name)}: {step}" for name, step in steps if step]

    @property
    def repeat(self) -> str:
        """The command that does the first case again."""
        return self.case.repeat[0] if self.case is not None and self.case.repeat else ""


def whys(shown: Shown, *, with_lost: bool = True) -> tuple[Why, ...]:
    """Return what failed and why it is thought so, failures before what is undecided.

    Cases and checks with the same cause are one finding; within it, cases that failed for one
    reason (`causes.failure`) are one entry. Cases that did not run are one finding as well, unless
    somebody else (`with_lost` is false) says why.
    """
    found = sorted(causes(shown.records), key=lambda one: one.outcome == "inconclusive")
    groups = grouped(found, lambda one: (_what(one), _reason(one)))
    known = [_why(*key, findings) for key, findings in groups.items()]
    lost = not_reached(shown) if with_lost else []
    if not lost:
        return tuple(known)
    entry = Entry(LOOKS["not_run"], title(lost), _said(lost[0]), tuple(lost), lost[0].nodeid)
    one = Why(*_lost(shown), named(subjects(lost)), (entry,))
    end = shown.records.end
    # What somebody asked for is no cause.
    return (*known, one) if end is not None and end.stopped else (one, *known)


def _what(finding: Finding) -> str:
    words = _FAILED[finding.cause]
    return say(_UNDECIDED.get(finding.cause, words) if finding.outcome == "inconclusive" else words)


def _why(what: str, why: str, findings: Sequence[Finding]) -> Why:
    cases = [finding.case for finding in findings if finding.case is not None]
    alike = grouped(cases, lambda case: failure(case) or case.nodeid)
    entries = [
        Entry(LOOKS[one[0].outcome], title(one), _said(one[0]), tuple(one), one[0].nodeid)
        for one in alike.values()
    ]
    entries.sort(key=lambda entry: ATTENTION.index(entry.look.outcome))
    checks = [
        Entry(
            LOOKS["failed" if finding.outcome == "failed" else "inconclusive"],
            formats.line(finding.subject, 160),
            formats.line(finding.why),
            (),
            finding.subject,
        )
        for finding in findings
        if finding.case is None
    ]
    names = [*subjects(cases), *(one.title for one in checks)]
    remedy = formats.line(say(findings[0].remedy), 600)
    return Why(what, why, named(names), (*entries, *checks), remedy)


def _said(case: CaseLine) -> str:
    """What a case ended with: its error's own words, or its sentence."""
    return formats.line(case.sentence if case.error is None else case.error.message)


def _reason(finding: Finding) -> str:
    why = formats.line(say(finding.why)).rstrip(".")
    diagnosis = finding.case.diagnosis if finding.case is not None else None
    if finding.cause == "model" and diagnosis is not None and diagnosis.summary:
        summary = clause(formats.line(diagnosis.summary, 300).rstrip("."))
        why += say("; its diagnosis: {summary}", summary=summary)
    return why


def _lost(shown: Shown) -> tuple[str, str]:
    """What happened to the run that cases did not run, and why."""
    end = shown.records.end
    if end is None:
        said = "the run was killed or still goes on: its records have no end, and these no line"
    elif end.exit_status == Exit.INTERRUPTED:
        return say("The run was interrupted"), say("these did not run")
    elif end.stopped:
        how = formats.line(end.stopped, 160)
        return say("The run stopped {how}", how=how), say("these did not run")
    else:
        said = "the run ended without a line of these: a process was killed, or the disk was full"
    return say("The machine failed"), say(said)
