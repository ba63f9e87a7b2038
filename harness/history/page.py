"""The trend page: every series of one provenance, declines first, as one self-contained file.

It runs no script. Where its figures are not real it carries the banner of the report and no floor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import jinja2
from markupsafe import Markup

from harness.base import files, precision
from harness.base.terms import Outcome, Provenance
from harness.history import chart, drift
from harness.history.index import History
from harness.history.series import Series
from harness.pages import formats, html
from harness.pages.charts import Chart
from harness.pages.looks import LOOKS, Banner, banners

ROWS_SHOWN = 20
ENOUGH = min(drift.WINDOWS)
"""Figures of a series that the shortest rule needs; fewer do not tell whether it falls."""
_HERE = Path(__file__).parent

State = Literal["falls", "below", "failed", "missed", "rises", "steady", "few"]
Tone = Literal["good", "bad", "warn", "few", "neutral"]


@dataclass(frozen=True)
class Look:
    """How a state is shown: its word, with the sign and the colour of an outcome."""

    said: str
    outcome: Outcome


# What is most worth saying of a series comes first: on the page, and where several apply.
STATES: dict[State, Look] = {
    "falls": Look("falls", "failed"),
    "below": Look("below the floor", "error"),
    "failed": Look("failed", "failed"),
    "missed": Look("no figure", "error"),
    "rises": Look("rises", "recorded"),
    "steady": Look("steady", "passed"),
    "few": Look("too few runs", "not_run"),
}
_ORDER = list(STATES)
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
    name: str
    where: str
    last: str
    level: str
    noise: str
    margin: str
    newest: str
    chart: Chart


@dataclass(frozen=True)
class Page:
    """The page. `notes`: what a reader must know of the history; `linked`: it lies beside it."""

    name: str
    banners: tuple[Banner, ...]
    headline: str
    tone: Tone
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    series: tuple[SeriesView, ...]
    linked: bool


def state_of(series: Series) -> State:
    """Return what is most worth saying of a series."""
    applies: dict[State, bool] = {
        "falls": series.decline is not None,
        "below": series.below_floor,
        "failed": series.failed,
        "missed": bool(series.misses),
        "few": len(series.values) < ENOUGH,
        "rises": bool(series.changes),
    }
    return next((state for state, true in applies.items() if true), "steady")


def build(
    series: Sequence[Series],
    kind: Provenance,
    history: History,
    *,
    others: Mapping[Provenance, int],
    linked: bool,
) -> Page:
    """Build the page of the series of one provenance; `others`: runs of each other one."""
    ranked = sorted(series, key=lambda one: _ORDER.index(state_of(one)))
    text, tone = headline(series)
    facts = [formats.plural(history.runs, "run") + " in the history"]
    if series:
        first = min(one.points[0].day for one in series)
        facts.append(f"{first} to {max((one.misses or one.points)[-1].day for one in series)}")
    return Page(
        name=_NAMES[kind],
        banners=banners([kind]),
        headline=text,
        tone=tone,
        facts=tuple(facts),
        notes=(
            *history.notes,
            *(
                f"{formats.plural(runs, 'run')} of provenance {name} left out: they have a "
                f"page of their own (--provenance {name})"
                for name, runs in others.items()
            ),
        ),
        series=tuple(_view(one, f"s{number}") for number, one in enumerate(ranked, 1)),
        linked=linked,
    )


def _view(series: Series, anchor: str) -> SeriesView:
    key, values, look = series.key, series.values, STATES[state_of(series)]
    band = chart.band_of(values)
    level = noise = margin = ""
    if band is not None:
        level = formats.figure(band.level, series.unit)
        share = 100 * band.noise / band.level if band.level else 0.0
        noise = f"{share:.2f} %" if key.check == "throughput" else f"{band.noise:.3f} points"
    if series.floor and values:
        margin = formats.difference(100 * (values[-1] / series.floor.value - 1))
    where = [key.check, key.target]
    if key.chip and key.chip.lower() != key.target:
        where.append(formats.line(key.chip, 80))
    if key.images:
        where.append(f"{key.images:,} images")
    return SeriesView(
        series=series,
        anchor=f"{anchor}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', key.name)[:100]}",
        state=look,
        name=formats.line(key.name, 200),
        where=", ".join(where),
        last=formats.figure(series.points[-1].value, series.unit),
        level=level,
        noise=noise,
        margin=margin,
        newest=_newest(series),
        chart=chart.draw(series, look.said),
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


_Counted = tuple[str, Tone, Callable[[Series], object]]
_COUNTED: tuple[_Counted, ...] = (
    ("falling", "bad", lambda one: one.decline),
    ("below the floor", "warn", lambda one: one.below_floor),
    ("failed in the newest run", "bad", lambda one: one.failed),
    ("without a figure in the newest run", "warn", lambda one: one.misses),
)


def headline(series: Sequence[Series]) -> tuple[str, Tone]:
    """Return the line of the page; a series may be counted twice, as falling and as too low."""
    if not series:
        return "There is no figure yet", "neutral"
    short = sum(len(one.values) < ENOUGH for one in series)
    parts, tones = [], set()
    for words, tone, applies in _COUNTED:
        count = sum(bool(applies(one)) for one in series)
        if count:
            parts.append(f"{count:,} {words}")
            tones.add(tone)
        elif words == "falling" and short < len(series):
            parts.append("none falling")
    if short:
        most = max(len(one.values) for one in series)
        few = f" ({most} of at least {ENOUGH})" if short == len(series) else ""
        parts.append(f"{short:,} with too few runs to tell{few}")
    calm: Tone = "few" if short == len(series) else "good"
    worst: Tone = "bad" if "bad" in tones else "warn" if tones else calm
    return f"{len(series):,} series: {', '.join(parts)}", worst


# The file ----------------------------------------------------------------------------------------


@cache
def _template() -> jinja2.Template:
    environment = html.environment(_HERE)
    # The shared style first: a reader sees one family of pages.
    own = Markup((_HERE / "trend.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    environment.globals.update(
        LOOKS=LOOKS,
        ROWS_SHOWN=ROWS_SHOWN,
        formats=formats,
        precision=precision,
        style=html.style() + own,
    )
    return environment.get_template("trend.html.j2")


def render_html(page: Page) -> str:
    """Render the page as one HTML text."""
    return _template().render(page=page, rendered=formats.moment(files.now())).lstrip()
