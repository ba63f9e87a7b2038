"""The trend page: every series of one provenance, declines first, as one self-contained file.

It needs nothing but itself and runs no script. A page holds figures of one provenance; where they
are not real it carries the banner of the report, no floor, and no word of acceptance.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from harness import __version__
from harness import report as report_package
from harness.base import precision
from harness.base.errors import RecordError
from harness.base.terms import Provenance
from harness.history import chart, drift
from harness.history.series import Point, Series
from harness.history.store import Update
from harness.records.lines import RunLine
from harness.records.reader import RunRecords
from harness.report import figures, provenance
from harness.report.cases import safe_href
from harness.report.headline import LOOKS
from harness.report.stages import stage_name

PAGE = "trend.html"
ROWS_SHOWN = 20
NOTES_SHOWN = 20
LONGEST_PAGE = 16_000_000
"""Characters of a page that are read to see whether it shows anything."""
_HERE = Path(__file__).parent
_STYLE = Path(report_package.__file__).parent / "style.css"

State = Literal["below", "falls", "missed", "rises", "steady", "few"]
Tone = Literal["good", "bad", "warn", "few", "neutral"]


@dataclass(frozen=True)
class Look:
    """How a state is shown: sign and word carry the meaning. `style` is an outcome's colour."""

    word: str
    sign: str
    style: str


STATES: dict[State, Look] = {
    "falls": Look("falls", "\N{BLACK DOWN-POINTING TRIANGLE}", "failed"),
    "below": Look("below the floor", "\N{BALLOT X}", "error"),
    "missed": Look("no figure", "!", "error"),
    "rises": Look("rises", "\N{BLACK UP-POINTING TRIANGLE}", "recorded"),
    "steady": Look("steady", "\N{CHECK MARK}", "passed"),
    "few": Look("too few runs", "\N{HORIZONTAL ELLIPSIS}", "not_run"),
}
ENOUGH = min(drift.WINDOWS)
"""Figures of a series that the shortest rule needs; fewer do not tell whether it falls."""

_NAMES: dict[Provenance, str] = {
    "real": "Trend",
    "rehearsal": "Trend of rehearsals",
    "simulated": "Trend of simulations",
}


@dataclass(frozen=True)
class RowView:
    """One of the last figures of a series."""

    when: str
    figure: str
    precision: str
    outcome: str
    sign: str
    trouble: str
    run: str
    href: str


@dataclass(frozen=True)
class FindingView:
    """What a rule found, and what else changed meanwhile."""

    sentence: str
    decline: bool
    explanations: tuple[str, ...]


@dataclass(frozen=True)
class MissView:
    """That the newest run of a series gave no figure: when it was, and why. `href`: its report."""

    when: str
    href: str
    why: str


@dataclass(frozen=True)
class SeriesView:
    """Everything the page says about one series."""

    anchor: str
    name: str
    title: str
    check: str
    where: str
    unit: str
    state: Look
    attention: bool
    last: str
    level: str
    noise: str
    floor: str
    margin: str
    count: int
    findings: tuple[FindingView, ...]
    chart: chart.Chart
    rows: tuple[RowView, ...]
    summary: str
    miss: MissView | None


@dataclass(frozen=True)
class Page:
    """The page. `notes`: what a reader must know of the index."""

    name: str
    banner: provenance.Banner | None
    headline: str
    tone: Tone
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    series: tuple[SeriesView, ...]
    rendered: str
    version: str


def is_low(series: Series) -> bool:
    """Whether the last figure lies below the floor, whatever else is said of the series."""
    floor, values = series.floor, series.values
    return bool(values) and floor is not None and values[-1] < floor.value * (1 - 1e-12)


def state_of(series: Series) -> State:
    """What is most worth saying of a series: that it falls, before that it lies too low, before
    that its newest run gave no figure.
    """
    if series.decline is not None:
        return "falls"
    if is_low(series):
        return "below"
    if series.misses:
        return "missed"
    if len(series.values) < ENOUGH:
        return "few"
    return "rises" if series.changes else "steady"


def _row(point: Point, linked: bool) -> RowView:
    look = LOOKS[point.outcome]
    width = point.half_width_percent
    return RowView(
        when=figures.moment(point.started),
        figure=figures.figure(point.value, point.unit),
        precision="" if width is None else precision.reach(width),
        outcome=look.word,
        sign=look.sign,
        trouble=figures.line(point.trouble, 80),
        run=figures.line(point.run, 60),
        href=safe_href(f"{point.directory}/report.html") if linked else "",
    )


def _miss(series: Series, linked: bool) -> MissView | None:
    if not series.misses:
        return None
    newest, count = series.misses[-1], len(series.misses)
    why = LOOKS[newest.outcome].word
    if newest.stage:
        why += f" in stage {stage_name(newest.stage)}"
    many = f"; none of the last {count:,} did" if count > 1 else ""
    return MissView(
        when=figures.moment(newest.started) or figures.line(newest.run, 60),
        href=safe_href(f"{newest.directory}/report.html") if linked else "",
        why=f"gave no figure: {why}{many}",
    )


def _view(series: Series, anchor: str, linked: bool) -> SeriesView:
    key, values = series.key, series.values
    band = chart.band_of(values)
    state = state_of(series)
    level = noise = margin = ""
    if band is not None:
        level = figures.figure(band.level, series.unit)
        share = 100 * band.noise / band.level if band.level else 0.0
        noise = f"{share:.2f} %" if key.check == "throughput" else f"{band.noise:.3f} points"
    if series.floor and values:
        margin = figures.difference(100 * (values[-1] / series.floor.value - 1))
    where = [key.target]
    if key.chip and key.chip.lower() != key.target:
        where.append(figures.line(key.chip, 80))
    if key.images:
        where.append(f"{key.images:,} images")
    last = figures.figure(series.points[-1].value, series.unit)
    look = STATES[state]
    return SeriesView(
        anchor=anchor,
        name=figures.line(key.name, 200),
        title=figures.line(series.title, 200),
        check=key.check,
        where=", ".join(figures.line(part, 80) for part in where),
        unit=figures.line(series.unit, 20),
        state=look,
        attention=state in ("falls", "below", "missed"),
        last=last,
        level=level,
        noise=noise,
        floor=series.floor.text if series.floor else "",
        margin=margin,
        count=len(series.points),
        findings=tuple(
            FindingView(
                change.sentence.replace("-", precision.MINUS),
                change.decline,
                tuple(figures.line(text, 200) for text in series.explanations(change)),
            )
            for change in series.changes
        ),
        chart=chart.draw(series),
        rows=tuple(_row(point, linked) for point in reversed(series.points[-ROWS_SHOWN:])),
        summary=f"{len(series.points)} figures, the last {last}: {look.word}",
        miss=_miss(series, linked),
    )


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def too_few(series: Sequence[Series]) -> str:
    """That no series has the figures that a rule needs; empty where one has, or there is none."""
    most = max((len(one.values) for one in series), default=ENOUGH)
    return "" if most >= ENOUGH else f"too few runs to tell ({_of_enough(most)})"


def _of_enough(most: int) -> str:
    return f"{most} of at least {ENOUGH}"


def missed(series: Sequence[Series]) -> str:
    """That the newest run of some series gave no figure, why and when; empty where each has one."""
    without = [one for one in series if one.misses]
    if not without:
        return ""
    words = ", ".join(dict.fromkeys(LOOKS[one.misses[-1].outcome].word for one in without))
    when = figures.line(max(one.misses[-1].started for one in without)[:10], 10)
    return f"the newest run of {len(without):,} series gave no figure ({words}, {when})"


def _headline(series: Sequence[Series]) -> tuple[str, Tone]:
    """The line of the page; that the newest run gave no figure is never left to a table."""
    text, tone = _trend(series)
    without = missed(series)
    if not without:
        return text, tone
    return f"{text}; {without}", tone if tone == "bad" else "warn"


def _trend(series: Sequence[Series]) -> tuple[str, Tone]:
    if not series:
        return "There is no figure yet", "neutral"
    # A series that falls may lie below its floor as well: it is counted in both.
    declining = sum(1 for one in series if one.decline is not None)
    low = sum(map(is_low, series))
    short = sum(1 for one in series if len(one.values) < ENOUGH)
    below = f"{low:,} below the floor" if low else ""
    many = _plural(len(series), "series", "series")
    if few := too_few(series):
        if low:
            most = _of_enough(max(len(one.values) for one in series))
            return f"{low:,} of {many} below the floor; for a trend too few runs ({most})", "warn"
        return f"{few[0].upper()}{few[1:]}", "few"
    tone: Tone
    if declining:
        text, tone = f"{declining:,} of {many} {'falls' if declining == 1 else 'fall'}", "bad"
    else:
        text = f"None of {_plural(len(series) - short, 'series', 'series')} falls"
        tone = "warn" if low else "good"
    rest = f"{short:,} {'has' if short == 1 else 'have'} too few runs to tell" if short else ""
    return "; ".join(part for part in (text, below, rest) if part), tone


def build(
    series: Sequence[Series],
    kind: Provenance,
    *,
    update: Update,
    others: dict[str, int],
    rendered: str,
    linked: bool,
) -> Page:
    """The page of series of provenance `kind`; `others`: figures of other provenances, by name."""
    order: dict[State, int] = {state: rank for rank, state in enumerate(STATES)}
    ranked = sorted(series, key=lambda one: order[state_of(one)])
    headline, tone = _headline(series)
    facts = [f"{_plural(update.read + update.unchanged, 'run', 'runs')} in the history"]
    if series:
        first = min(one.points[0].started for one in series)
        newest = [one.points[-1].started for one in series]
        newest += [one.misses[-1].started for one in series if one.misses]
        last = max(newest)
        facts.append(f"{figures.line(first[:10], 10)} to {figures.line(last[:10], 10)}")
    notes = [figures.line(note) for note in update.notes[:NOTES_SHOWN]]
    if len(update.notes) > NOTES_SHOWN:
        notes.append(f"and {len(update.notes) - NOTES_SHOWN} more notes")
    if update.damaged_lines:
        notes.append(
            f"{_plural(update.damaged_lines, 'damaged line', 'damaged lines')} in the records "
            "could not be read"
        )
    for name, count in sorted(others.items()):
        notes.append(
            f"{_plural(count, 'figure', 'figures')} of provenance {figures.line(name, 20)} "
            f"left out: they have a page of their own (--provenance {figures.line(name, 20)})"
        )
    return Page(
        name=_NAMES[kind],
        banner=_banner(kind),
        headline=headline,
        tone=tone,
        facts=tuple(facts),
        notes=tuple(notes),
        series=tuple(
            _view(one, f"s{number}-{_harmless(one.key.name)}", linked)
            for number, one in enumerate(ranked, 1)
        ),
        rendered=figures.moment(rendered),
        version=__version__,
    )


def _banner(kind: Provenance) -> provenance.Banner | None:
    """The banner that the report of a run of this provenance carries."""
    run = RunLine(run="", provenance=kind, started="")
    found = provenance.banners(RunRecords(Path(), run, (), (), None))
    return found[0] if found else None


def _harmless(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:100]


def _finalize(value: Any) -> Any:
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
    environment.globals.update(
        WIDTH=chart.WIDTH,
        HEIGHT=chart.HEIGHT,
        BAND_WIDTH=f"{chart.BAND_WIDTH:g}",
        drift=drift,
        CHANCE=round(1 / drift.CHANCE),
    )
    return environment


@cache
def _style() -> Markup:
    # The report's own style first: a reader sees one family of pages.
    texts = (path.read_text(encoding="utf-8") for path in (_STYLE, _HERE / "trend.css"))
    return Markup("\n".join(texts))  # noqa: S704 - our own files


def render_html(page: Page) -> str:
    """The page as one HTML text."""
    template = _environment().get_template("trend.html.j2")
    html = template.render(page=page, style=_style()).lstrip()
    return html if page.banner is None else provenance.scrub(html)


def shows_figures(path: Path) -> bool:
    """Whether `path` is a trend page with a chart on it: one that is worth keeping."""
    try:
        if not path.is_file():
            return False
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(LONGEST_PAGE)
    except OSError:
        return False
    return '<article class="series ' in text


def write_page(path: Path, html: str) -> Path:
    """Replace `path` in one step, so that a reader never sees half a page.

    A link stays, and the file that it names is replaced.

    Raises:
        RecordError: the file cannot be written, or `path` is a device, a pipe or a folder.
    """
    remedy = "name a file with --output"
    try:
        # Of `path` and not of where it leads: /dev/stdout leads to no name that can be opened.
        if path.exists() and not path.is_file():
            raise RecordError(f"cannot write {path}: it is not a regular file", remedy=remedy)
        target = Path(os.path.realpath(path))
        staged = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            staged.write_text(html, encoding="utf-8", errors="replace")
            staged.replace(target)
        finally:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror or error}", remedy=remedy
        ) from error
    return path
