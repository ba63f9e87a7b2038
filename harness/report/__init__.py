"""The report of a run, rendered from its records alone; imported when used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.report.render import render_html, write_report
    from harness.report.terminal import summary_lines

__all__ = ["render_html", "summary_lines", "write_report"]
_HOMES = {"render_html": "render", "summary_lines": "terminal", "write_report": "render"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
