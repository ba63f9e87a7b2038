"""Why a run is not green, and what its exit code means: the first screen of a red night."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.judge.causes import REMEMBERED, Cause, Exit, Finding, cause_of, causes, failure
from harness.records.lines import CaseLine, PlannedCase
from harness.records.reader import RunRecords
from harness.report import figures, headline, provenance
from harness.report.cases import CaseView
from harness.report.headline import ATTENTION, Look, missing

SUBJECTS_SHOWN = 3
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
    """One cause with the cases that it was seen in. `left`: how many `subjects` does not name.

    `said`: what the first of them said, where that is more than `why`; `remedy`: what to do.
    """

    word: str  # "The machine"
    verb: str  # "failed", "leaves it undecided", "stopped after the first failure (-x)"
    why: str
    subjects: tuple[str, ...]
    left: int
    said: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """The whole finding on one line."""
        named = ", ".join(self.subjects)
        if self.left:
            named += f" and {self.left:,} more"
        return f"{self.word} {self.verb}: {self.why} ({named})"


def whys(records: RunRecords, *, with_lost: bool = True) -> tuple[Why, ...]:
    """What failed and why it is thought so, failures before what is undecided.

    Cases and checks with the same cause are one finding. Cases that did not run are one as well,
    unless somebody else (`with_lost` is false) says why.
    """
    silent = not provenance.is_real(records)
    diagnosed = {
        f"{case.check} of {case.case}": figures.line(str(case.diagnosis["summary"]), 300)
        for case in records.cases
        if case.diagnosis.get("summary")
    }
    groups: dict[tuple[bool, Cause, str], list[Finding]] = {}
    for finding in causes(records):
        why = figures.line(finding.why, 400).rstrip(".")
        if finding.cause == "model" and finding.subject in diagnosed:
            why += f"; its diagnosis: {diagnosed[finding.subject].rstrip('.')}"
        if silent and provenance.claims(why):
            why = "withheld: it speaks of figures of others"
        key = (finding.outcome == "inconclusive", finding.cause, why)
        groups.setdefault(key, []).append(finding)
    lost = not_reached(records)
    found = [
        _why(_WORDS[cause], "failed" if not undecided else "leaves it undecided", why, findings)
        for (undecided, cause, why), findings in sorted(groups.items(), key=lambda item: item[0][0])
    ]
    if silent:
        found = [_without_claims(one) for one in found]
    if not lost or not with_lost:
        return tuple(found[:GROUPS_SHOWN])
    if records.end is not None and records.end.stopped:  # somebody asked for it: no cause
        return *found[: GROUPS_SHOWN - 1], _lost(records, lost)
    return _lost(records, lost), *found[: GROUPS_SHOWN - 1]


def not_reached(records: RunRecords) -> list[CaseLine | PlannedCase]:
    """The cases that were asked for and did not run."""
    return [*missing(records), *(case for case in records.cases if case.outcome == "not_run")]


def subjects_shown(cases: Sequence[CaseLine | PlannedCase]) -> str:
    """Some cases by name, and how many are left: `accuracy of a-bs1-cpu and 3 more`."""
    shown, left = _shown(_subjects(cases))
    return ", ".join(shown) + (f" and {left:,} more" if left else "")


def _lost(records: RunRecords, lost: Sequence[CaseLine | PlannedCase]) -> Why:
    end = records.end
    if end is not None and end.exit_status == Exit.INTERRUPTED:
        word, verb, why = "The run", "was interrupted", "these did not run"
    elif end is not None and end.stopped:
        word, verb = "The run", f"stopped {figures.line(end.stopped, 160)}"
        why = "these did not run"
    elif end is None:
        word, verb = "The machine", "failed"
        why = "the run was killed or still goes on: its records have no end, and these no line"
    else:
        word, verb = "The machine", "failed"
        why = "the run ended without a line of these: a process was killed, or the disk was full"
    return Why(word, verb, why, *_shown(_subjects(lost)))


def _why(word: str, verb: str, why: str, findings: Sequence[Finding]) -> Why:
    cases = [finding.case for finding in findings if finding.case is not None]
    subjects = [
        *_subjects(cases),
        *(figures.line(one.subject, 160) for one in findings if one.case is None),
    ]
    said = remedy = ""
    if cases:
        error = cases[0].error
        said = said_of(cases[0])
        remedy = figures.line(error.remedy if error is not None else findings[0].remedy, 300)
    return Why(word, verb, why, *_shown(subjects), "" if said == why else said, remedy)


def _subjects(cases: Sequence[CaseLine | PlannedCase]) -> list[str]:
    """`accuracy and throughput of resnest50-bs4-ascend310p3`: the names that `-k` and logs have."""
    by_case: dict[str, list[CaseLine | PlannedCase]] = {}
    for case in cases:
        by_case.setdefault(case.case, []).append(case)
    return [
        f"{headline.checks_of(mine)} of {figures.line(case, 120)}" for case, mine in by_case.items()
    ]


def _shown(subjects: list[str]) -> tuple[tuple[str, ...], int]:
    return tuple(subjects[:SUBJECTS_SHOWN]), max(0, len(subjects) - SUBJECTS_SHOWN)


def _without_claims(why: Why) -> Why:
    """A run that is not real repeats no figure of others."""
    said = "" if provenance.claims(why.said) else why.said
    remedy = "" if provenance.claims(why.remedy) else why.remedy
    return replace(why, said=said, remedy=remedy)


def said_of(case: CaseLine) -> str:
    """What a case ended with, on one line: its error's own words, or its sentence."""
    text = case.sentence if case.error is None else case.error.message.removesuffix(REMEMBERED)
    return figures.line(text, 400)


@dataclass(frozen=True)
class Entry:
    """What needs one look: the cases that one thing happened to, told once.

    `remedy`: what to do, where an error says so. `cases`: the first has the words, the others are
    named.
    """

    look: Look
    title: str  # "resnest50 bs 1, 4 on ascend310p3: compile failed (accuracy and throughput)"
    text: str
    cases: tuple[CaseView, ...]
    remedy: str = ""


def entries(records: RunRecords, views: Sequence[CaseView]) -> tuple[Entry, ...]:
    """What needs a look, in the order in which a reader wants it.

    Cases that failed of the same build are one entry, as are those that were never reached.
    """
    lines = {figures.clip(case.nodeid, 400): case for case in records.cases}
    plan = {figures.clip(item.nodeid, 400): item for item in records.plan}
    groups: dict[object, list[CaseView]] = {}
    for view in views:
        if view.look.outcome not in ATTENTION:
            continue
        line = lines.get(view.nodeid)
        reason = ("not_run", view.sentence) if line is None else failure(line)
        key = (view.look.outcome, reason) if reason is not None else (view.nodeid, view.anchor)
        groups.setdefault(key, []).append(view)
    found = [_entry(group, lines, plan) for group in groups.values()]
    return tuple(sorted(found, key=lambda entry: ATTENTION.index(entry.look.outcome)))


def _entry(
    views: Sequence[CaseView], lines: Mapping[str, CaseLine], plan: Mapping[str, PlannedCase]
) -> Entry:
    first = views[0]
    known = [lines[view.nodeid] for view in views if view.nodeid in lines]
    if known:
        title = headline.title(known)
    else:
        planned = [plan[view.nodeid] for view in views]
        title = f"{headline.name(planned)} ({headline.checks_of(planned)})"
    error = first.error
    text = first.sentence if error is None else error.message.removesuffix(REMEMBERED)
    found = cause_of(known[0]) if known and error is None else None
    remedy = error.remedy if error is not None else found.remedy if found else ""
    return Entry(first.look, title, text, tuple(views), figures.line(remedy, 600))


def exit_words(records: RunRecords) -> str:
    """The exit code with its meaning; empty where the records have no end line."""
    if records.end is None:
        return ""
    status = records.end.exit_status
    meaning = _EXITS.get(status)
    return f"exit code {status}" + (f": {meaning}" if meaning else "")
