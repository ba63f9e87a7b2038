"""The end of a run on a terminal: its headline and one table for each target and check."""

from __future__ import annotations

from harness.records.reader import RunRecords
from harness.report import checks, figures, findings, headline, page, provenance
from harness.report.cases import Anchors, CaseView

MOST_REASONS = 10
MOST_OF_A_LINE = 800


def _plain(text: str, limit: int = figures.LONGEST_SCALAR) -> str:
    indent = text[: len(text) - len(text.lstrip(" "))]
    return indent + figures.line(text.replace(figures.MINUS, "-"), limit)


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
    """A run in plain text: banner, headline, what failed and why it is thought so, models by batch
    sizes, what is judged over the cases, the sum of the outcomes.

    A figure in brackets is the difference from the reference in percent. No colours.
    """
    lines = [banner.text for banner in provenance.banners(records)]
    line = headline.headline(records)
    lines.append(line.text)
    lines += [f"  {reason}" for reason in line.more]
    lines += [_plain(f"  {why.text}", MOST_OF_A_LINE) for why in findings.whys(records)]
    words = findings.exit_words(records) if records.end and records.end.exit_status else ""
    if words:
        lines.append(f"  {words}")
    for matrix in page.matrices(page.case_views(records)):
        lines += ["", _plain(f"{matrix.check} on {matrix.target}, {matrix.unit}")]
        rows = [["", *(f"batch {size}" for size in matrix.batch_sizes)]]
        rows += [[_plain(model), *map(_cell, cells)] for model, _, cells in matrix.rows]
        lines += _table(rows)
    judged = checks.check_views(records, Anchors(), None)
    if judged:
        lines += ["", "over the cases"]
        lines += [
            _plain(
                f"  {check.look.word}: {check.name} of {check.subject}: {check.sentence}",
                MOST_OF_A_LINE,
            )
            for check in judged
        ]
    told = ("failed", "inconclusive", "error", "crashed")
    reasons = [
        _plain(f"  {entry.look.word}: {entry.title}: {entry.text}")
        for entry in findings.entries(records, page.case_views(records))
        if entry.look.outcome in told
    ]
    if reasons:
        lines += ["", *reasons[:MOST_REASONS]]
        if len(reasons) > MOST_REASONS:
            lines.append(f"  and {len(reasons) - MOST_REASONS} more, in the report")
    lines += ["", headline.reconcile(records).text]
    return lines if provenance.is_real(records) else provenance.scrub_lines(lines)
