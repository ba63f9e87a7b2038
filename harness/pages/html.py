"""Self-contained HTML files: escaping and safe links.

Every value passes through Jinja's escaping; no markup is ever taken from a record.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from harness import __version__
from harness.pages import formats
from harness.pages.elements import markup
from harness.pages.words import language, say


def style() -> Markup:
    """Return the style sheet that all pages share."""
    text = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - our own file


def environment(folder: Path) -> jinja2.Environment:
    """Return Jinja for the templates of `folder` and the shared macros, with formats as filters."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(_=say, language=language, NO_VALUE=formats.NO_VALUE, version=__version__)
    for one in (
        formats.duration,
        formats.line,
        formats.moment,
        markup,
    ):
        found.filters[one.__name__] = one
    found.filters["inside"] = safe_href
    return found


def _finalize(value: object) -> object:
    # Escaping knows nothing of terminal codes, NUL or half a surrogate pair: those go here.
    return formats.clip(value) if type(value) is str else value


def safe_href(path: str) -> str:
    """Return a link to a file below the page's folder; empty where it could lead elsewhere."""
    parts = path.split("/")
    if not path or "\\" in path or ":" in parts[0] or any(part in ("", "..") for part in parts):
        return ""
    try:
        return quote(path)
    except UnicodeEncodeError:
        return ""


def web_href(source: str) -> str:
    """Return the address in a source, where it is nothing but an https address."""
    return source if re.fullmatch(r"https://[^\s<>\"'\\]{1,500}", source) else ""
