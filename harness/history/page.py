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

Tone = Literal["good", "bad", "warn", "few", "neutral"]


@dataclass(frozen=True)
class State:
    """What may be said of a series, with the sign and the colour of an outcome.

    `counted`: how the headline counts such series, which then has at least this `tone`.
    """

    said: str
    outcome: Outcome
    applies: Callable[[Series], object]
    counted: str = ""
    tone: Tone = "good"


# What is most worth saying of a series comes first: on the page, and where several apply.
STATES = (
    State("falls", "failed", lambda one: one.decline, "falling", "bad"),
    State("below the floor", "error", lambda one: one.below_floor, "below the floor", "warn"),
    State("failed", "failed", lambda one: one.failed, "failed in the newest run", "bad"),
    State(
        "no figure", "error", lambda one: one.misses, "without a figure in the newest run", "warn"
    ),
    State("too few runs", "not_run", lambda one: len(one.values) < ENOUGH),
    State("rises", "recorded", lambda one: one.changes),
    State("steady", "passed", lambda one: True),
)
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
    state: State
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
    return next(state for state in STATES if state.applies(series))


def build(
    series: Sequence[Series],
    kind: Provenance,
    history: History,
    *,
    others: Mapping[Provenance, int],
    linked: bool,
) -> Page:
    """Build the page of the series of one provenance; `others`: runs of each other one."""
    ranked = sorted(series, key=lambda one: STATES.index(state_of(one)))
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
    key, values, state = series.key, series.values, state_of(series)
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
        state=state,
        name=formats.line(key.name, 200),
        where=", ".join(where),
        last=formats.figure(series.points[-1].value, series.unit),
        level=level,
        noise=noise,
        margin=margin,
        newest=_newest(series),
        chart=chart.draw(series, state.said),
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


def headline(series: Sequence[Series]) -> tuple[str, Tone]:
    """Return the line of the page; a series may be counted twice, as falling and as too low."""
    if not series:
        return "There is no figure yet", "neutral"
    short = sum(len(one.values) < ENOUGH for one in series)
    parts, tones = [], set()
    for state in STATES:
        count = sum(bool(state.applies(one)) for one in series) if state.counted else 0
        if count:
            parts.append(f"{count:,} {state.counted}")
            tones.add(state.tone)
        elif state.counted == "falling" and short < len(series):
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
