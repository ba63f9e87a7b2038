"""The end of a run on a terminal: its headline and one table for each target and check."""

from __future__ import annotations

from harness.records import RunRecords
from harness.report import figures, headline, page, provenance
from harness.report.cases import CaseView

MOST_REASONS = 10


def _plain(text: str) -> str:
    return figures.line(text.replace(figures.MINUS, "-"))


def _cell(cases: tuple[CaseView, ...]) -> str:
    texts = []
    for case in cases:
        parts = [case.look.word]
        if case.measured != figures.NO_VALUE:
            parts.append(case.measured)
        if case.difference != figures.NO_VALUE:
            parts.append(f"({case.difference})")
        texts.append(" ".join(parts))
    return _plain("; ".join(texts)) or "."


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def summary_lines(records: RunRecords) -> list[str]:
    """A run in plain text: banner, headline, models by batch sizes, the sum of the outcomes.

    A figure in brackets is the difference from the reference in percent. No colours.
    """
    lines = [banner.text for banner in provenance.banners(records)]
    line = headline.headline(records)
    lines.append(line.text)
    lines += [f"  {reason}" for reason in line.more]
    for matrix in page.matrices(page.case_views(records)):
        lines += ["", _plain(f"{matrix.check} on {matrix.target}, {matrix.unit}")]
        rows = [["", *(f"batch {size}" for size in matrix.batch_sizes)]]
        rows += [[_plain(model), *map(_cell, cells)] for model, _, cells in matrix.rows]
        lines += _table(rows)
    reasons = [
        _plain(f"  {case.look.word}: {case.check} of {case.name}: {case.sentence}")
        for case in page.case_views(records)
        if case.look.outcome in ("failed", "inconclusive", "error", "crashed")
    ]
    if reasons:
        lines += ["", *reasons[:MOST_REASONS]]
        if len(reasons) > MOST_REASONS:
            lines.append(f"  and {len(reasons) - MOST_REASONS} more, in the report")
    lines += ["", headline.reconcile(records).text]
    return lines if provenance.is_real(records) else provenance.scrub_lines(lines)
