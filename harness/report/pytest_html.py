"""What pytest-html's table and pytest's own JUnit file say of a case."""

from __future__ import annotations

from html import escape
from typing import Any

from harness.base.terms import Provenance
from harness.pages.looks import banners
from harness.records.lines import CaseLine
from harness.report.provenance import shown_line

_TITLES = ("Verdict", "Measured", "Reference", "Difference", "Why")
_SHOWN = ("outcome", "measured", "reference", "difference", "sentence")


def columns(line: CaseLine) -> dict[str, str]:
    """Return what is shown of a case, by property."""
    line = shown_line(line, line.provenance).line
    difference = line.difference_percent
    return {
        "outcome": line.outcome,
        "measured": _figure(line.measured, line.unit),
        "reference": _figure(line.reference.value if line.reference else None, line.unit),
        "difference": "" if difference is None else f"{difference:+.2f} %",
        "sentence": line.sentence,
        "provenance": line.provenance,
    }


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.4g} {unit}".strip()


class Columns:
    """The hooks of pytest-html, for a plugin manager that has it: our columns, and a banner."""

    def __init__(self, provenance: Provenance) -> None:
        self._provenance = provenance

    def pytest_html_report_title(self, report: Any) -> None:
        report.title = "Acceptance of deployed models"

    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        prefix.extend(
            '<p style="padding:.6em;font-weight:bold;color:#000;background:#ffd21f;'
            f'border:4px dashed #000">{banner.text}</p>'
            for banner in banners({self._provenance})
        )

    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        cells[2:2] = [f"<th>{title}</th>" for title in _TITLES]

    def pytest_html_results_table_row(self, report: Any, cells: list[str]) -> None:
        shown = getattr(report, "acceptance", {})  # absent from a test that is no case
        values = [shown.get(name, "") for name in _SHOWN]
        if shown.get("provenance", "real") != "real":
            values[0] += f" ({shown['provenance']})"
        cells[2:2] = [f"<td>{escape(value)}</td>" for value in values]
