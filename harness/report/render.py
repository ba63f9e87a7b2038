"""Records in, one self-contained HTML file out.

The page needs nothing but itself: style and script are inline, and a content security policy
allows that one script (by its hash) and no address outside the file.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.base import files
from harness.base.errors import RecordError
from harness.pages import formats, html
from harness.pages.elements import Node, packed
from harness.records import writer
from harness.records.reader import RunRecords
from harness.report import details
from harness.report.view import RunView, view

REPORT = "report.html"
_HERE = Path(__file__).parent


@cache
def _template() -> jinja2.Template:
    script = (_HERE / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = html.environment(_HERE)
    environment.globals.update(
        style=html.style(),
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
        of_case=details.of_case,
    )
    return environment.get_template("template.html.j2")


def render_html(records: RunRecords, *, now: str | None = None) -> str:
    """Return the report of a run as one HTML text.

    Args:
        now: the moment named at the foot, ISO 8601; this moment when left out.
    """
    rendered = formats.moment(now if now is not None else files.now())
    page = view(records)
    return _template().render(page=page, data=packed(_nodes(page)), rendered=rendered).lstrip()


def _nodes(page: RunView) -> dict[str, Node]:
    """What stands folded on the page, by the name of its place."""
    cases = (one for one in page.cases if one.anchor not in page.open)
    return {
        "environment": details.of_groups(page.groups),
        **{one.anchor: details.of_check(one) for one in page.checks if one.line.verdict},
        **{one.anchor: details.of_case(one) for one in cases},
    }


def write_report(records: RunRecords) -> Path:
    """Render `report.html` beside a run's records and return its path. Raises `RecordError`: no
    line of the records can be read, or the file cannot be written.
    """
    if not any((records.run, records.plan, records.cases, records.checks, records.end)):
        raise RecordError(
            f"{records.directory / writer.RESULTS} holds no line of a run's records",
            remedy="name a run directory, e.g. runs/latest",
        )
    return files.replace_file(
        records.directory / REPORT,
        render_html(records),
        remedy="free disk space or check who owns the run directory; "
        "the records are whole and the report can be rendered again",
    )
