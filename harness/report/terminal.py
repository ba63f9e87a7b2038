"""The end of a run on a terminal: its headline and one table for each target and check."""

from __future__ import annotations

from harness.base.precision import MINUS
from harness.base.terms import Outcome
from harness.pages import formats
from harness.pages.formats import NO_VALUE
from harness.records.reader import RunRecords
from harness.report.cases import CaseView
from harness.report.provenance import key_of
from harness.report.view import Matrix, view

REASONS_SHOWN = 10
LONGEST = 800
_REASONS: tuple[Outcome, ...] = ("failed", "inconclusive", "error", "crashed")


def _plain(text: str, limit: int = formats.LONGEST_LINE) -> str:
    return formats.line(text.replace(MINUS, "-"), limit)


def _cell(cases: tuple[CaseView, ...]) -> str:
    texts = []
    for case in cases:
        parts = [case.look.word]
        if case.measured != NO_VALUE:
            parts.append(case.measured)
        if case.difference != NO_VALUE:
            parts.append(f"({case.difference})")
        texts.append(" ".join(parts))
    return _plain("; ".join(texts)) or "."


def _table(matrix: Matrix) -> list[str]:
    rows = [["", *(f"batch {size}" for size in matrix.batch_sizes)]]
    rows += [[_plain(model), *map(_cell, cells)] for model, _, cells in matrix.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(c.ljust(width) for c, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def summary_lines(records: RunRecords) -> list[str]:
    """Return a run in plain text: banner, headline, what failed and why it is thought so, models
    by batch sizes, what is judged over the cases, the sum of the outcomes.

    A figure in brackets is the difference from the reference in percent. No colours.
    """
    run = view(records)
    lines = [*(banner.text for banner in run.banners), run.headline.text]
    lines += [f"  {_plain(reason)}" for reason in run.headline.more]
    lines += [f"  {_plain(why.text, LONGEST)}" for why in run.whys]
    if records.end is not None and records.end.exit_status:
        lines.append(f"  {run.exit_words}")
    for matrix in run.matrices:
        lines += ["", _plain(f"{matrix.check} on {matrix.target}, {matrix.unit}")]
        lines += _table(matrix)
    checks = [
        f"{check.look.word}: {key_of(check.line)}: {check.line.sentence}" for check in run.checks
    ]
    if checks:
        lines += ["", "over the cases", *(f"  {_plain(text, LONGEST)}" for text in checks)]
    reasons = [
        f"  {_plain(f'{entry.look.word}: {entry.title}: {entry.text}')}"
        for entry in run.entries
        if entry.look.outcome in _REASONS
    ]
    if reasons:
        lines += ["", *reasons[:REASONS_SHOWN]]
        if len(reasons) > REASONS_SHOWN:
            lines.append(f"  and {len(reasons) - REASONS_SHOWN} more, in the report")
    return [*lines, "", run.sum.text]
