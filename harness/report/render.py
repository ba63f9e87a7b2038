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

from harness import __version__
from harness.base import files
from harness.base.errors import RecordError
from harness.pages import formats, html
from harness.records import reader, writer
from harness.records.reader import RunRecords
from harness.report import thumbs
from harness.report.view import view

REPORT = "report.html"
LARGEST_PAGE = 1_950_000  # bytes
# How much of their usual room logs, diagnoses and thumbnails get, until the page is small enough.
_SHARES = (1.0, 0.5, 0.2, 0.0)
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
        version=__version__,
    )
    return environment.get_template("template.html.j2")


def render_html(records: RunRecords, *, now: str | None = None) -> str:
    """Return the report of a run as one HTML text.

    Args:
        now: the moment named at the foot, ISO 8601; this moment when left out.
    """
    rendered = formats.moment(now if now is not None else files.now())
    text = ""
    for share in _SHARES:
        text = _template().render(page=view(records, share=share), rendered=rendered).lstrip()
        if len(text.encode(errors="replace")) < LARGEST_PAGE:
            break
    return text


def write_report(run_dir: Path, *, images_at_hand: bool = False) -> Path:
    """Render `run_dir/report.html` from the run's records and return its path.

    Args:
        images_at_hand: the run ends now, on this host: make thumbnails of the images that
            flipped. A later rendering shows those, and opens no file that a record names.

    Raises:
        RecordError: there are no records, no line of them can be read, or the file cannot be
            written.
    """
    records = reader.read(run_dir)
    if not any((records.run, records.plan, records.cases, records.checks, records.end)):
        raise RecordError(
            f"{records.directory / writer.RESULTS} holds no line of a run's records",
            remedy="name a run directory, e.g. runs/latest",
        )
    if images_at_hand:
        thumbs.make(records)
    return files.replace_file(
        records.directory / REPORT,
        render_html(records),
        remedy="free disk space or check who owns the run directory; "
        "the records are whole and the report can be rendered again",
    )
