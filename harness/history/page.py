"""The trend page: every series of one provenance, declines first, as one self-contained file.

It runs no script. Where its figures are not real it carries the banner of the report and no floor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import jinja2
from markupsafe import Markup

from harness import __version__
from harness.base import precision
from harness.base.terms import Provenance
from harness.history import chart, drift
from harness.history.index import History, Row
from harness.history.series import Series
from harness.pages import formats, html
from harness.pages.looks import LOOKS, Banner, banners

ROWS_SHOWN = 20
ENOUGH = min(drift.WINDOWS)
"""Figures of a series that the shortest rule needs; fewer do not tell whether it falls."""
_HERE = Path(__file__).parent

State = Literal["falls", "below", "failed", "missed", "rises", "steady", "few"]
Tone = Literal["good", "bad", "warn", "few", "neutral"]


@dataclass(frozen=True)
class Look:
    """How a state is shown: sign and word carry the meaning. `style` is an outcome's colour."""

    word: str
    sign: str
    style: str


# What is most worth saying of a series comes first: on the page, and where several apply.
STATES: dict[State, Look] = {
    "falls": Look("falls", "\N{BLACK DOWN-POINTING TRIANGLE}", "failed"),
    "below": Look("below the floor", "\N{BALLOT X}", "error"),
    "failed": Look("failed", "\N{BALLOT X}", "failed"),
    "missed": Look("no figure", "!", "error"),
    "rises": Look("rises", "\N{BLACK UP-POINTING TRIANGLE}", "recorded"),
    "steady": Look("steady", "\N{CHECK MARK}", "passed"),
    "few": Look("too few runs", "\N{HORIZONTAL ELLIPSIS}", "not_run"),
}
_NAMES: dict[Provenance, str] = {
    "real": "Trend",
    "rehearsal": "Trend of rehearsals",
    "simulated": "Trend of simulations",
}


@dataclass(frozen=True)
class SeriesView:
    """One series with what the template cannot compute. `newest`: what its last run lacks."""

    series: Series
    anchor: str
    state: Look
    where: str
    level: str
    noise: str
    margin: str
    newest: str
    chart: chart.Chart


@dataclass(frozen=True)
class Page:
    """The page. `notes`: what a reader must know of the history; `linked`: it lies beside it."""

    name: str
    banner: Banner | None
    headline: str
    tone: Tone
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    series: tuple[SeriesView, ...]
    rendered: str
    linked: bool
    version: str = __version__


def state_of(series: Series) -> State:
    """Return what is most worth saying of a series."""
    if series.decline is not None:
        return "falls"
    if series.below_floor:
        return "below"
    if series.failed:
        return "failed"
    if series.misses:
        return "missed"
    if len(series.values) < ENOUGH:
        return "few"
    return "rises" if series.changes else "steady"


def build(
    series: Sequence[Series],
    kind: Provenance,
    history: History,
    *,
    others: dict[str, int],
    rendered: str,
    linked: bool,
) -> Page:
    """Build the page of the series of one provenance; `others`: figures of each other one."""
    order = list(STATES)
    ranked = sorted(series, key=lambda one: order.index(state_of(one)))
    text, tone = headline(series)
    facts = [formats.plural(history.runs, "run") + " in the history"]
    if series:
        first = min(one.points[0].started for one in series)
        last = max((one.misses or one.points)[-1].started for one in series)
        facts.append(f"{_day(first)} to {_day(last)}")
    notes = list(history.notes)
    if history.damaged_lines:
        count = formats.plural(history.damaged_lines, "damaged line")
        notes.append(f"{count} in the records could not be read")
    for name, number in sorted(others.items()):
        notes.append(
            f"{formats.plural(number, 'figure')} of provenance {name} left out: they have a "
            f"page of their own (--provenance {name})"
        )
    return Page(
        name=_NAMES[kind],
        banner=next(iter(banners([kind])), None),
        headline=text,
        tone=tone,
        facts=tuple(facts),
        notes=tuple(notes),
        series=tuple(_view(one, f"s{number}") for number, one in enumerate(ranked, 1)),
        rendered=formats.moment(rendered),
        linked=linked,
    )


def _view(series: Series, anchor: str) -> SeriesView:
    key, values = series.key, series.values
    band = chart.band_of(values)
    level = noise = margin = ""
    if band is not None:
        level = formats.figure(band.level, series.unit)
        share = 100 * band.noise / band.level if band.level else 0.0
        noise = f"{share:.2f} %" if key.check == "throughput" else f"{band.noise:.3f} points"
    if series.floor and values:
        margin = formats.difference(100 * (values[-1] / series.floor.value - 1))
    where = [key.target]
    if key.chip and key.chip.lower() != key.target:
        where.append(key.chip)
    if key.images:
        where.append(f"{key.images:,} images")
    return SeriesView(
        series=series,
        anchor=f"{anchor}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', key.name)[:100]}",
        state=STATES[state_of(series)],
        where=", ".join(formats.line(part, 80) for part in where),
        level=level,
        noise=noise,
        margin=margin,
        newest=_newest(series),
        chart=chart.draw(series),
    )


def _newest(series: Series) -> str:
    if series.failed:
        return "failed"
    if not series.misses:
        return ""
    row, count = series.misses[-1], len(series.misses)
    stage = f" in stage {row.error_stage}" if row.error_stage else ""
    many = f"; none of the last {count:,} did" if count > 1 else ""
    return f"gave no figure: {LOOKS[row.outcome].word}{stage}{many}"


# The headline ------------------------------------------------------------------------------------


def headline(series: Sequence[Series]) -> tuple[str, Tone]:
    """Return the line of the page; a bad newest run is never left to a table."""
    text, tone = _trend(series)
    news = newest(series)
    if not news:
        return text, tone
    bad = tone == "bad" or any(one.failed for one in series)
    return f"{text}; {news}", "bad" if bad else "warn"


def newest(series: Sequence[Series]) -> str:
    """Say of how many series the newest run failed or gave no figure; empty where none did."""
    parts = []
    failed = [one.points[-1] for one in series if one.failed]
    if failed:
        parts.append(f"the newest run of {len(failed):,} series failed ({_last_day(failed)})")
    without = [one.misses[-1] for one in series if one.misses]
    if without:
        words = ", ".join(dict.fromkeys(LOOKS[row.outcome].word for row in without))
        parts.append(
            f"the newest run of {len(without):,} series gave no figure "
            f"({words}, {_last_day(without)})"
        )
    return "; ".join(parts)


def too_few(series: Sequence[Series]) -> str:
    """Say that no series has the figures that a rule needs; empty where one has."""
    most = max((len(one.values) for one in series), default=ENOUGH)
    return "" if most >= ENOUGH else f"too few runs to tell ({most} of at least {ENOUGH})"


def _trend(series: Sequence[Series]) -> tuple[str, Tone]:
    if not series:
        return "There is no figure yet", "neutral"
    # A series that falls may lie below its floor as well: it is counted in both.
    declining = sum(one.decline is not None for one in series)
    low = sum(one.below_floor for one in series)
    short = sum(len(one.values) < ENOUGH for one in series)
    few = too_few(series)
    if few and low:
        return f"{low:,} of {len(series):,} series below the floor; {few}", "warn"
    if few:
        return f"{few[0].upper()}{few[1:]}", "few"
    if declining:
        text = f"{declining:,} of {len(series):,} series {'falls' if declining == 1 else 'fall'}"
    else:
        text = f"None of {len(series) - short:,} series falls"
    below = f"{low:,} below the floor" if low else ""
    rest = f"{short:,} {'has' if short == 1 else 'have'} too few runs to tell" if short else ""
    tone: Tone = "bad" if declining else "warn" if low else "good"
    return "; ".join(part for part in (text, below, rest) if part), tone


def _day(text: str) -> str:
    return formats.line(text[:10], 10)


def _last_day(rows: Sequence[Row]) -> str:
    return _day(max(row.started for row in rows))


# The file ----------------------------------------------------------------------------------------


@cache
def _environment() -> jinja2.Environment:
    environment = html.environment(_HERE)
    environment.globals.update(
        WIDTH=chart.WIDTH,
        HEIGHT=chart.HEIGHT,
        BAND_WIDTH=f"{chart.BAND_WIDTH:g}",
        CHANCE=round(1 / drift.CHANCE),
        LOOKS=LOOKS,
        MINUS=precision.MINUS,
        ROWS_SHOWN=ROWS_SHOWN,
        drift=drift,
        formats=formats,
        reach=precision.reach,
        href=html.safe_href,
    )
    return environment


@cache
def _style() -> Markup:
    # The shared style first: a reader sees one family of pages.
    own = (_HERE / "trend.css").read_text(encoding="utf-8")
    return html.style() + Markup(own)  # noqa: S704 - our own file


def render_html(page: Page) -> str:
    """Render the page as one HTML text."""
    template = _environment().get_template("trend.html.j2")
    return template.render(page=page, style=_style()).lstrip()
