"""What a run came to, in one screen: model, toolchain, machine or input, and why.

For pipelines: the same as an annotation of a GitHub workflow. From the records of the run; where
it left none, from its exit code alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.judge.causes import Cause, Exit, causes
from harness.records.lines import CaseLine, PlannedCase
from harness.records.reader import RunRecords
from harness.report import headline, provenance
from harness.report.figures import line as one_line
from harness.report.findings import Why, exit_words, not_reached, subjects_shown, whys

# Not an exit code of a run: `ci/nightly.sh` refuses to start while another night goes on.
OVERLAP = 75

_WORD: dict[int, str] = {
    Exit.PASSED: "passed",
    Exit.ACCEPTANCE_FAILED: "model",
    Exit.INTERRUPTED: "interrupted",
    Exit.HARNESS_FAULT: "harness",
    Exit.INPUT_ERROR: "input",
    Exit.NOTHING_SELECTED: "input",
    Exit.INCONCLUSIVE_ONLY: "inconclusive",
    Exit.MACHINE_TROUBLE: "machine",
    OVERLAP: "overlap",
}
_WITHOUT_RECORDS: dict[int, str] = {
    Exit.PASSED: "passed, and left no records: nothing was asked for",
    Exit.ACCEPTANCE_FAILED: "a test failed outside of the acceptance, or the records are gone",
    Exit.INTERRUPTED: "interrupted before a case ran",
    Exit.HARNESS_FAULT: "a fault of the harness or of pytest itself: its output above says more",
    Exit.INPUT_ERROR: "options, catalog or paths are not right: nothing was run; the output above "
    "names each thing and how to supply it",
    Exit.NOTHING_SELECTED: "no case matches the selection: nothing was run",
    Exit.MACHINE_TROUBLE: "the machine: nothing was recorded",
    OVERLAP: "another night still runs on this host: nothing was run",
}
# In this order where several kinds of cases are red, as in `causes.exit_code`.
_ORDER: tuple[Cause, ...] = ("model", "toolchain", "harness", "machine", "input")
MOST_LINES = 16
TOLD_WHOLE = 2  # findings that are followed by what was said and what to do
TIME_LIMIT = "time limit"

# The log in which to look for each stage of an error, by the last part of its name.
_LOGS: dict[str, tuple[str, ...]] = {
    "export": ("export",),
    "simplify": ("simplify",),
    "compile": ("compile",),
    "load": ("session",),
    "infer": ("session",),
    "eager": ("eager", "eager-speed"),
    "rehearsal": ("standin",),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Screen:
    """`word`: what failed, or "passed", "inconclusive", "interrupted", "time limit". `good`:
    nothing is red, and the records bear that out. `title`: the one of the `lines` that says so.
    """

    word: str
    good: bool
    title: str
    lines: tuple[str, ...]


def first_screen(
    found: RunRecords | None, exit_code: int | None = None, *, stopped_after_h: float | None = None
) -> Screen:
    """The first screen of a run. `exit_code` is what its process ended with, where known.

    `stopped_after_h`: it was ended from outside when so many hours were over.
    """
    if stopped_after_h is not None:
        return _stopped(found, exit_code, stopped_after_h)
    if found is None:
        code = Exit.HARNESS_FAULT if exit_code is None else exit_code
        word = _WORD.get(code, "machine" if code >= 124 else "harness")
        said = _WITHOUT_RECORDS.get(code, "no records: the process was ended from outside")
        good = code == Exit.PASSED
        title = _title(word, good)
        return Screen(word, good, title, (title, f"exit code {code}: {said}"))
    recorded = found.end.exit_status if found.end is not None else None
    status = recorded if exit_code is None else exit_code
    head = headline.headline(found)
    good = status == Exit.PASSED and head.tone != "bad"
    # A code that says passed, of records that do not: they are damaged, or lack what ran.
    word = "records" if status == Exit.PASSED and not good else _word(found, status)
    lines = [banner.text for banner in provenance.banners(found)]
    title = _title(word, good)
    lines.append(title)
    lines.append(one_line(head.text, 400))
    lines += [f"- {one_line(reason, 300)}" for reason in head.more]
    lines += _told(whys(found), found)
    last = []
    if status is not None and recorded is not None and status != recorded:
        last.append(f"the process ended with {status}, its records say {recorded}")
    elif exit_words(found):
        last.append(exit_words(found))
    return Screen(word, good, title, _screen(lines, [*last, _report(found)]))


def _title(word: str, good: bool) -> str:
    if good:
        return "RUN PASSED"
    if word in ("interrupted", "overlap"):
        return {"interrupted": "RUN INTERRUPTED", "overlap": "NOTHING RAN: overlap"}[word]
    if word == _WORD[Exit.INCONCLUSIVE_ONLY]:
        return f"RUN UNDECIDED: {word}"
    return f"RUN FAILED: {word}"


def _told(found: tuple[Why, ...], records: RunRecords) -> list[str]:
    """The findings; the first of them with what was said, what to do and where the log is."""
    lines = []
    # A run that is not real repeats no figure of others.
    remedies = {
        (one.case.check, one.case.case): one.remedy
        for one in causes(records)
        if one.case is not None
        and (provenance.is_real(records) or not provenance.claims(one.remedy))
    }
    for number, why in enumerate(found):
        lines.append(f"- {why.text}")
        if number >= TOLD_WHOLE:
            continue
        lines += [f"    {one_line(why.said, 300)}"] if why.said else []
        case = _first_case(why, records)
        remedy = why.remedy or ("" if case is None else remedies.get((case.check, case.case), ""))
        lines += [f"    what to do: {one_line(remedy, 300)}"] if remedy else []
        log = None if case is None else _log_of(case, records)
        lines += [f"    log: {log}"] if log is not None else []
    return lines


def _first_case(why: Why, records: RunRecords) -> CaseLine | None:
    """The case that a finding tells of: the first of its `subjects`; None of other findings."""
    checks, _, name = why.subjects[0].rpartition(" of ") if why.subjects else ("", "", "")
    red = {(one.case.check, one.case.case) for one in causes(records) if one.case is not None}
    for case in records.cases:
        of_it = one_line(case.case, 120) == name and case.check in checks
        if of_it and (case.check, case.case) in red:
            return case
    return None


def _log_of(case: CaseLine, records: RunRecords) -> Path | None:
    """The log of the stage that failed, where the run has one that says anything."""
    if case.error is None:
        return None
    mine = {log.stage: log.path for log in _logs(records, case)}
    for stage in _LOGS.get(case.error.stage, ()):
        if stage in mine and mine[stage].stat().st_size:
            return mine[stage]
    return None


@dataclass(frozen=True)
class _Log:
    stage: str  # as in the file's name: "compile", "session"
    path: Path
    written_ns: int


def _logs(records: RunRecords, case: CaseLine | PlannedCase) -> list[_Log]:
    """The logs that a case left in its run, by `workbench.CaseBench.log_path`."""
    begin = f"{case.check}-{case.case}-"
    if not _NAME.fullmatch(case.case):  # names in records are not trusted with a path
        return []
    found = []
    try:
        for path in sorted((records.directory.resolve() / "logs").iterdir()):
            stage = path.name.removeprefix(begin).removesuffix(".log")
            if path.name == f"{begin}{stage}.log" and path.is_file():
                found.append(_Log(stage, path, path.stat().st_mtime_ns))
    except OSError:
        return []
    return found


def _screen(lines: list[str], last: list[str]) -> tuple[str, ...]:
    """What fits into a screen: the last lines stay, whatever is before them."""
    return (*lines[: MOST_LINES - len(last)], *last)


def _report(found: RunRecords) -> str:
    report = found.directory.resolve() / "report.html"
    if report.is_file():
        return f"report: {report}"
    return f"no report was written: python -m harness report {found.directory.resolve()}"


def _stopped(found: RunRecords | None, exit_code: int | None, hours: float) -> Screen:
    """A run that its time limit ended: not a fault of what did not run, nor of the machine."""
    limit = f"{hours:g} hour" + ("" if hours == 1 else "s")
    title = "RUN STOPPED: time limit"
    code = "" if exit_code is None else f"exit code {exit_code}: "
    last = [f"{code}the time for the run was over before its end"]
    if found is None:
        said = f"stopped at its time limit of {limit}: nothing was recorded"
        return Screen(TIME_LIMIT, False, title, (title, said, *last))
    lines = [banner.text for banner in provenance.banners(found)]
    left = not_reached(found)
    counts = found.counts()
    done = [
        look.counted(counts[outcome])
        for outcome, look in headline.LOOKS.items()
        if counts[outcome] and outcome != "not_run"
    ]
    total = sum(counts.values())
    reached = f"{total - len(left):,} of {headline.cases(total)} {_were(total - len(left))} done"
    said = f"stopped at its time limit of {limit}: {reached}"
    if done:
        said += f" ({', '.join(done)})"
    if left:
        said += f", {len(left):,} {_were(len(left))} not"
    lines += [title, said]
    held = _held(found)
    if held:
        lines.append(f"- stopped in: {held}")
    if left:
        lines.append(f"- not reached, or not finished: {subjects_shown(left)}")
    lines += [f"- {one_line(problem, 300)}" for problem in headline.problems(found)]
    lines += _told(whys(found, with_lost=False), found)
    last.append("what to do: give it more hours, or fewer cases: `python -m harness plan` shows")
    last[-1] += " the minutes that each is expected to take"
    return Screen(TIME_LIMIT, False, title, _screen(lines, [*last, _report(found)]))


def _held(found: RunRecords) -> str:
    """The case that was at work when the run was stopped, with its last log; empty where the logs
    do not tell.

    Cases run in the order of the plan. With several workers each has its part of them in that
    order, so the first that did not end was at work there as well. What is built ahead for later
    cases has logs of theirs.
    """
    ended = {case.nodeid for case in found.cases if case.outcome != "not_run"}
    case = next((one for one in found.plan if one.nodeid not in ended), None)
    logs = [] if case is None else _logs(found, case)
    if case is None or not logs:
        return ""
    last = max(logs, key=lambda log: (log.written_ns, log.stage))
    return f"{case.check} of {one_line(case.case, 120)}; its last log: {last.path}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _word(found: RunRecords, status: int | None) -> str:
    """The cause of the cases that set the exit code; of several the one that outweighs."""
    if status is None:
        return "machine"  # killed: no end line
    red = causes(found)
    kinds = {one.cause for one in red if one.outcome != "inconclusive"}
    if status == Exit.ACCEPTANCE_FAILED:
        judged = [one.cause for one in red if one.outcome == "failed"]
        return next((kind for kind in _ORDER[:2] if kind in kinds), [*judged, "model"][0])
    return _WORD.get(status, "harness")


def annotation(screen: Screen) -> str:
    """The screen as a workflow command of GitHub; what it says cannot add commands of its own.

    Without the screen's title, since the annotation has one; a banner stays.
    """
    level = "notice" if screen.good else "error"
    text = "\n".join(line for line in screen.lines if line != screen.title)
    return f"::{level} title={_property(f'Acceptance: {screen.word}')}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
