"""The end of a run on a terminal: its headline and one table for each target and check."""

from __future__ import annotations

from harness.base.precision import MINUS
from harness.pages import formats
from harness.pages.formats import NO_VALUE
from harness.records.reader import RunRecords
from harness.report.cases import CaseView
from harness.report.provenance import key_of
from harness.report.view import Matrix, view

LONGEST = 800


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
    rows += [[_plain(row.model), *map(_cell, row.cells)] for row in matrix.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(c.ljust(width) for c, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def summary_lines(records: RunRecords) -> list[str]:
    """Return a run in plain text: banner, headline, what failed, why and what next, models by
    batch sizes, what is judged over the cases, the sum of the outcomes.

    A figure in brackets is the difference from the reference in percent. No colours.
    """
    run = view(records)
    lines = [*(banner.text for banner in run.banners), run.headline.text]
    lines += [f"  {_plain(reason)}" for reason in run.headline.more]
    for why in run.whys:
        lines.append(f"  {_plain(why.text, LONGEST)}")
        lines += [f"    {_plain(text, LONGEST)}" for text in why.details]
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
    return [*lines, "", run.sum.text]
