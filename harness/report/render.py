"""Records in, one self-contained HTML file out.

The page needs nothing but itself: style and script are inline, and a content security policy
allows that one script (by its hash) and no address outside the file. Every value passes through
Jinja's escaping; no markup is ever taken from a record.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.base import files
from harness.base.errors import RecordError
from harness.records import reader, writer
from harness.records.reader import RunRecords
from harness.report import figures, provenance, thumbs
from harness.report.page import build

REPORT = "report.html"
LARGEST_PAGE = 1_950_000  # bytes
# How much of their usual room logs, diagnoses and thumbnails get, until the page is small enough.
_SHARES = (1.0, 0.5, 0.2, 0.0)
_HERE = Path(__file__).parent


def _finalize(value: Any) -> Any:
    # Escaping knows nothing of terminal codes, NUL or half a surrogate pair: those go here.
    return figures.clean(value) if type(value) is str else value


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["NO_VALUE"] = figures.NO_VALUE
    return environment


@cache
def _assets() -> tuple[Markup, Markup, str]:
    """Style, script, and the script's hash for the content security policy."""
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    script = (_HERE / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Markup(style), Markup(script), f"sha256-{digest}"  # noqa: S704 - our own files


def render_html(records: RunRecords, *, now: str | None = None) -> str:
    """The report of a run as one HTML text.

    Args:
        records: what `harness.records.lines.read` gave.
        now: the moment named at the foot, ISO 8601; this moment when left out.
    """
    style, script, digest = _assets()
    template = _environment().get_template("template.html.j2")
    moment = now if now is not None else files.now()
    html = ""
    for share in _SHARES:
        page = build(records, rendered=moment, share=share)
        html = template.render(page=page, style=style, script=script, script_hash=digest).lstrip()
        if len(html.encode(errors="replace")) < LARGEST_PAGE:
            break
    return html if provenance.is_real(records) else provenance.scrub(html)


def write_report(run_dir: Path, *, images_at_hand: bool = False) -> Path:
    """Render `run_dir/report.html` from the run's records and return its path.

    The file is replaced in one step, so that a reader never sees half a page.

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
    path = records.directory / REPORT
    if images_at_hand:
        thumbs.make(records)
    html = render_html(records).encode()
    staged = path.with_name(f".{REPORT}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            with staged.open("xb") as file:
                file.write(html)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(path)
        finally:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror or error}",
            remedy="free disk space or check who owns the run directory; "
            "the records are whole and the report can be rendered again",
        ) from error
    return path
