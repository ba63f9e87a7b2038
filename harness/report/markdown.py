"""`summary.md`: a run for a pull request or for the page of a job."""

from __future__ import annotations

import re

from harness.pages import formats
from harness.pages.formats import NO_VALUE
from harness.pages.looks import ATTENTION, Look
from harness.records.reader import RunRecords
from harness.report.cases import CaseView
from harness.report.provenance import key_of
from harness.report.view import RunView, view

ROWS_SHOWN = 40
LONGEST_CELL = 300
LONGEST_LINE = 600

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
    """Return banner, verdict, what failed and why, and a matrix for each target and check."""
    run = view(records)
    lines = [
        f"> **{banner.word}** \N{EM DASH} {escaped(banner.sentence)}\n" for banner in run.banners
    ]
    lines += [f"## {run.icon.sign} {escaped(run.headline.text, LONGEST_LINE)}", ""]
    lines += [f"- {escaped(reason)}" for reason in run.headline.more]
    lines += [f"- {escaped(why.text, LONGEST_LINE)}" for why in run.whys]
    lines += _attention(run)
    for matrix in run.matrices:
        title = f"{matrix.check.capitalize()} on {escaped(matrix.target)}, {matrix.unit}"
        rows = [["model", *(f"batch {size}" for size in matrix.batch_sizes)]]
        rows += [[escaped(model), *map(_cell, cells)] for model, _, cells in matrix.rows]
        lines += ["", f"### {title}", "", *_table(rows)]
    lines += ["", escaped(run.sum.text, LONGEST_LINE)]
    if records.run is not None:
        about = (
            records.run.run,
            records.run.started,
            records.run.machine.hostname,
            records.run.git,
        )
        lines += ["", f"<sub>{escaped(', '.join(part for part in about if part))}</sub>"]
    return "\n".join(lines).strip() + "\n"


def _table(rows: list[list[str]]) -> list[str]:
    """Cells are escaped already; the first row is the head."""
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in body]


def _cell(cases: tuple[CaseView, ...]) -> str:
    texts = []
    for case in cases:
        parts = [case.look.sign]
        if case.measured != NO_VALUE:
            parts.append(f"**{escaped(case.measured)}**")
        if case.look.outcome != "passed" or len(parts) == 1:
            parts.append(case.look.word)
        if case.difference != NO_VALUE:
            parts.append(f"({escaped(case.difference)})")
        texts.append(" ".join(parts))
    return "<br>".join(texts)


def _attention(run: RunView) -> list[str]:
    # First what is said of the run, of which there is little.
    rows = [
        _row(check.look, key_of(check.line), check.line.sentence)
        for check in run.checks
        if check.line.outcome in ATTENTION
    ]
    rows += [_row(entry.look, entry.title, entry.text, entry.remedy) for entry in run.entries]
    if not rows:
        return []
    left = len(rows) - ROWS_SHOWN
    more = ["", f"and {left:,} more, in the report"] if left > 0 else []
    rows = [["", "what", "why"], *rows[:ROWS_SHOWN]]
    return ["", "### Needs a look", "", *_table(rows), *more]


def _row(look: Look, what: str, why: str, remedy: str = "") -> list[str]:
    to_do = f"<br>**What to do:** {escaped(remedy, LONGEST_LINE)}" if remedy else ""
    return [f"{look.sign} {look.word}", escaped(what), escaped(why) + to_do]
