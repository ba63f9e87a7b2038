"""`summary.md`: a run for a pull request or for the page of a job."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.pages import formats
from harness.pages.formats import NO_VALUE
from harness.pages.words import say
from harness.records.reader import RunRecords
from harness.report.cases import CaseView
from harness.report.findings import Why
from harness.report.view import view

ROWS_SHOWN = 40
LONGEST_CELL = 300
LONGEST_LINE = 600

_SIGNS = {
    "good": "\N{CHECK MARK}",
    "bad": "\N{BALLOT X}",
    "warn": "?",
    "neutral": "\N{BLACK CIRCLE}",
}
_MARKED_UP = re.compile(r"([\\`*\[\]{}|~#!$])")
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escaped(value: str, limit: int = LONGEST_CELL) -> str:
    """Return text for one line of GitHub's Markdown: nothing in it is markup, link or mention."""
    text = formats.line(value, limit)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKED_UP.sub(r"\\\1", text)
    text = _UNDERSCORE.sub(r"\\_", text)  # within a word it is none: names stay readable
    text = text.replace("://", ":&#8203;//").replace("www.", "www&#8203;.")
    return text.replace("@", "@&#8203;")


def summary_markdown(records: RunRecords) -> str:
    """Return banner, verdict, what failed, why and what next, and a matrix for each target and
    check.
    """
    run = view(records)
    lines = [
        f"> **{say(banner.word)}** \N{EM DASH} {escaped(say(banner.sentence))}\n"
        for banner in run.banners
    ]
    head = f"{run.headline.word}{say(': ')}{run.headline.text}"
    lines += [f"## {_SIGNS[run.headline.tone]} {escaped(head, LONGEST_LINE)}", ""]
    lines += [f"- {escaped(reason)}" for reason in run.headline.more]
    lines += _attention(run.whys)
    for matrix in run.matrices:
        what = {"check": say(matrix.check).capitalize(), "target": escaped(matrix.target)}
        sizes = (say("batch {n}", n=size) for size in matrix.batch_sizes)
        rows = [[escaped(row.model), *map(_cell, row.cells)] for row in matrix.rows]
        lines += ["", f"### {say('{check} on {target}', **what)}, {matrix.unit}", ""]
        lines += _table([say("Model"), *sizes], rows)
    lines += ["", escaped(run.sum.text, LONGEST_LINE)]
    if (about := records.run) is not None:
        parts = (about.run, about.started, about.machine.hostname, about.git)
        lines += ["", f"<sub>{escaped(', '.join(part for part in parts if part))}</sub>"]
    return "\n".join(lines).strip() + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Cells are escaped already."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _cell(cases: tuple[CaseView, ...]) -> str:
    texts = []
    for case in cases:
        parts = [case.look.sign]
        if case.measured != NO_VALUE:
            parts.append(f"**{escaped(case.measured)}**")
        if case.look.outcome != "passed" or len(parts) == 1:
            parts.append(case.look.said)
        if case.difference != NO_VALUE:
            parts.append(f"({escaped(case.difference)})")
        texts.append(" ".join(parts))
    return "<br>".join(texts)


def _attention(whys: Sequence[Why]) -> list[str]:
    rows = []
    for why in whys:
        steps = []
        if why.remedy:
            steps.append(f"**{say('What to do')}:** {escaped(why.remedy, LONGEST_LINE)}")
        if why.repeat:
            repeat = escaped(why.repeat, LONGEST_LINE)
            steps.append(f"**{say('Run it again')}:** <code>{repeat}</code>")
        for entry in why.entries:
            said = [f"{escaped(why.what)}{say(': ')}{escaped(why.why)}"]
            said += [escaped(entry.text)] * (entry.text.rstrip(".") != why.why)
            seen = f"{entry.look.sign} {entry.look.said}"
            rows.append([seen, escaped(entry.title), "<br>".join([*said, *steps])])
            steps = []  # once for a cause
    if not rows:
        return []
    left = len(rows) - ROWS_SHOWN
    more = ["", f"{say('{n} more', n=left)} {say('in the report')}"] if left > 0 else []
    head = ["", say("what"), say("why, and what next")]
    return ["", f"### {say('Needs a look')}", "", *_table(head, rows[:ROWS_SHOWN]), *more]
