"""The report of a run, rendered from its records alone."""

from __future__ import annotations

from harness.report.render import render_html, write_report
from harness.report.terminal import summary_lines

__all__ = ["render_html", "summary_lines", "write_report"]
