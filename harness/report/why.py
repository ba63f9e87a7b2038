"""What a run came to, in one screen: model, toolchain, machine or input, and why.

For pipelines: the same as an annotation of a GitHub workflow. From the records of the run; where
it left none, from its exit code alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.base.stages import Stage
from harness.base.terms import OUTCOMES
from harness.judge.causes import Cause, Exit, causes
from harness.pages.formats import line as one_line
from harness.pages.formats import plural
from harness.pages.looks import LOOKS
from harness.records.lines import CaseLine
from harness.records.reader import RunRecords
from harness.report import findings, headline
from harness.report.view import RunView, view

# Not an exit code of a run: `ci/nightly.sh` refuses to start while another night goes on.
OVERLAP = 75
MOST_LINES = 18
MOST_FINDINGS = 6
WHOLE_FINDINGS = 2  # findings that are followed by what was said and what to do
TIME_LIMIT = "time limit"

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
_TITLES = {
    "interrupted": "RUN INTERRUPTED",
    "overlap": "NOTHING RAN: overlap",
    "inconclusive": "RUN UNDECIDED: inconclusive",
}
# The logs in which to look for each stage of an error; others have one of their own name.
_LOGS: dict[Stage, tuple[Stage, ...]] = {
    Stage.INFER: (Stage.INFER, Stage.LOAD),
    Stage.EAGER: (Stage.EAGER, Stage.LOAD_EAGER),
    Stage.REHEARSAL: (Stage.STANDIN,),
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
    records: RunRecords | None,
    exit_code: int | None = None,
    *,
    stopped_after_h: float | None = None,
) -> Screen:
    """Return the first screen of a run. `exit_code`: what its process ended with, where known.

    `stopped_after_h`: it was ended from outside when so many hours were over.
    """
    if stopped_after_h is not None:
        return _stopped(records, exit_code, stopped_after_h)
    if records is None:
        return _without_records(Exit.HARNESS_FAULT if exit_code is None else exit_code)
    run = view(records)
    recorded = records.end.exit_status if records.end is not None else None
    status = recorded if exit_code is None else exit_code
    good = status == Exit.PASSED and run.headline.tone != "bad"
    # A code that says passed, of records that do not: they are damaged, or lack what ran.
    word = "records" if status == Exit.PASSED and not good else _word(run.records, status)
    last = run.exit_words
    if recorded is not None and status != recorded:
        last = f"the process ended with {status}, its records say {recorded}"
    lines = [one_line(run.headline.text)]
    lines += [f"- {one_line(reason, 300)}" for reason in run.headline.more]
    lines += _findings(run, run.whys)
    title = _title(word, good)
    if good and (undecided := run.records.counts()["inconclusive"]):
        title = f"{title}, {undecided:,} undecided"
    return _screen(run, word, good, title, lines, [last] if last else [])


def _without_records(code: int) -> Screen:
    word = _WORD.get(code, "machine" if code >= 124 else "harness")
    text = findings.EXITS.get(code, "the process was killed")
    if code == OVERLAP:
        text = "another night still runs on this host"
    good = code == Exit.PASSED
    title = _title(word, good)
    text = f"exit code {code}: {text}. There are no records: the output above says more"
    return Screen(word, good, title, (title, text))


def _title(word: str, good: bool) -> str:
    return "RUN PASSED" if good else _TITLES.get(word, f"RUN FAILED: {word}")


def _screen(
    run: RunView, word: str, good: bool, title: str, lines: list[str], last: list[str]
) -> Screen:
    """What fits into a screen: the last lines stay, whatever is before them."""
    directory = run.records.directory.resolve()
    report = directory / "report.html"
    there = os.path.isfile(report)  # False, too, where it cannot be looked at
    last.append(
        f"report: {report}" if there else f"no report yet: python -m harness report {directory}"
    )
    lines = [*(banner.text for banner in run.banners), title, *lines]
    return Screen(word, good, title, (*lines[: MOST_LINES - len(last)], *last))


def _word(records: RunRecords, status: int | None) -> str:
    """The cause of the cases that set the exit code; of several the one that outweighs."""
    if status is None:
        return "machine"  # killed: no end line
    if status != Exit.ACCEPTANCE_FAILED:
        return _WORD.get(status, "harness")
    red = causes(records)
    kinds: set[Cause] = {one.cause for one in red if one.outcome != "inconclusive"}
    judged = [one.cause for one in red if one.outcome == "failed"]
    weighty: tuple[Cause, ...] = ("model", "toolchain")
    return next((kind for kind in weighty if kind in kinds), [*judged, "model"][0])


def _findings(run: RunView, whys: tuple[findings.Why, ...]) -> list[str]:
    """The findings; the first of them with what was said, what next and where the log is."""
    lines = []
    for number, why in enumerate(whys[:MOST_FINDINGS]):
        lines.append(f"- {why.text}")
        if number < WHOLE_FINDINGS:
            log = _log_of(why.case, run.records) if why.case is not None else None
            lines += [f"    {text}" for text in why.details]
            lines += [f"    log: {log}"] if log is not None else []
    return lines


# Logs ------------------------------------------------------------------------------------------


def _log_of(case: CaseLine, records: RunRecords) -> Path | None:
    """The log of the stage that failed, where the run has one that says anything."""
    if case.error is None:
        return None
    logs = _logs(records, case)
    stages = _LOGS.get(case.error.stage, (case.error.stage,))
    paths = [logs[stage] for stage in stages if stage in logs]
    try:
        return next((path for path in paths if path.stat().st_size), None)
    except OSError:
        return None


def _logs(records: RunRecords, case: CaseLine) -> dict[str, Path]:
    """The logs of a case (`logs/CHECK-CASE-STAGE.log` of the run), by stage."""
    if not _NAME.fullmatch(case.case):  # names in records are not trusted with a path
        return {}
    begin = f"{case.check}-{case.case}-"
    try:
        paths = sorted((records.directory.resolve() / "logs").glob(f"{begin}*.log"))
        return {path.stem.removeprefix(begin): path for path in paths if path.is_file()}
    except OSError:
        return {}


# The time limit --------------------------------------------------------------------------------


def _stopped(records: RunRecords | None, exit_code: int | None, hours: float) -> Screen:
    """A run that its time limit ended: not a fault of what did not run, nor of the machine."""
    limit = f"{hours:g} hour{'' if hours == 1 else 's'}"
    title = f"RUN STOPPED: {TIME_LIMIT}"
    code = "" if exit_code is None else f"exit code {exit_code}: "
    over = f"{code}the time for the run was over before its end"
    if records is None:
        text = f"stopped at its time limit of {limit}: nothing was recorded"
        return Screen(TIME_LIMIT, False, title, (title, text, over))
    run = view(records)
    left = findings.not_reached(run.shown)
    lines = [_reached(run, limit, len(left))]
    if left and (at_work := _at_work(run.records, left[0])):
        lines.append(f"- stopped in: {at_work}")
    if left:
        names = findings.named(findings.subjects(left))
        lines.append(f"- not reached, or not finished: {names}")
    lines += [f"- {one_line(problem, 300)}" for problem in headline.problems(run.shown)]
    lines += _findings(run, findings.whys(run.shown, with_lost=False))
    remedy = (
        "what to do: give it more hours, or fewer cases: `python -m harness plan` shows the "
        "minutes that each is expected to take"
    )
    return _screen(run, TIME_LIMIT, False, title, lines, [over, remedy])


def _reached(run: RunView, limit: str, left: int) -> str:
    counts = run.records.counts()
    total = sum(counts.values())
    ran = [LOOKS[one].counted(counts[one]) for one in OUTCOMES if counts[one] and one != "not_run"]
    text = f"stopped at its time limit of {limit}: {total - left:,} of {plural(total, 'case')} done"
    return f"{text} ({', '.join(ran)})" if ran else text


def _at_work(records: RunRecords, case: CaseLine) -> str:
    """The first case that did not end, with its last log; empty where the logs do not tell.

    Cases run in the order of the plan. With several workers each has its part of them in that
    order, so the first that did not end was at work there as well. What is built ahead for later
    cases has logs of theirs.
    """
    logs = _logs(records, case)
    if not logs:
        return ""
    last = max(logs.values(), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return f"{case.check} of {one_line(case.case, 120)}; its last log: {last}"


# Annotations -----------------------------------------------------------------------------------


def annotation(screen: Screen) -> str:
    """Return the screen as a workflow command of GitHub; what it says cannot add commands.

    Without the screen's title, since the annotation has one; a banner stays.
    """
    level = "notice" if screen.good else "error"
    text = "\n".join(line for line in screen.lines if line != screen.title)
    title = _data(f"Acceptance: {screen.word}").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={title}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
