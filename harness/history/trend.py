"""`python -m harness trend`: the run directories -> one page of figures over time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.base import files
from harness.base.errors import RecordError
from harness.base.terms import Provenance
from harness.catalog.schema import Catalog
from harness.history import page, series
from harness.history.store import Update, open_history

LAST = 200
"""Figures of a series on the page: more than that no chart of a phone's width can show."""

_PREFERENCE: tuple[Provenance, ...] = ("real", "simulated", "rehearsal")


@dataclass(frozen=True)
class Trend:
    """What was written where.

    falling: names of the series that decline. too_few: that no series has the runs that a rule
    needs, in words. missed: that newest runs gave no figure, in words. others: how many runs there
    are of other provenances, whose figures have a page of their own. written: False where a page
    with figures was kept, since there are none now.
    """

    path: Path
    provenance: Provenance
    count: int
    falling: tuple[str, ...]
    update: Update
    too_few: str = ""
    missed: str = ""
    others: Mapping[Provenance, int] = field(default_factory=dict)
    written: bool = True


def _first(found: Mapping[str, int]) -> Provenance:
    for kind in _PREFERENCE:
        if found.get(kind):
            return kind
    return "real"


def write_trend(
    runs: Path,
    output: Path | None = None,
    *,
    provenance: Provenance | None = None,
    catalog: Catalog | None = None,
    models: Collection[str] | None = None,
    checks: Collection[str] | None = None,
    last: int = LAST,
    rebuild: bool = False,
) -> Trend:
    """Write the trend page of a folder of runs; a page without figures replaces none with some.

    Args:
        output: the file; beside the runs when left out, `trend.html` for real figures and
            `trend-rehearsal.html` or `trend-simulated.html` for others; it links to their reports.
        provenance: whose figures; when left out, real ones where there are any, otherwise
            simulated ones, otherwise rehearsals. A page never holds two kinds.
        catalog: floors and titles; a page without one has no floors.

    Raises:
        RecordError: the runs cannot be read, a model has no figure, or the page cannot be written.
    """
    with open_history(runs, rebuild=rebuild) as history:
        found = history.provenances()
        kind = provenance or _first(found)
        loaded = series.load(
            history, kind, catalog=catalog, models=models, checks=checks, last=last
        )
        update, runs_of = history.update, history.runs_of()
    if models is not None and not loaded:
        raise RecordError(
            f"{runs} has no {kind} figure of {', '.join(sorted(models))}",
            remedy="name a model that has been run, or another --provenance",
        )
    own = page.PAGE if kind == "real" else page.PAGE.replace(".html", f"-{kind}.html")
    path = output if output is not None else runs / own
    view = page.build(
        loaded,
        kind,
        update=update,
        others={name: count for name, count in found.items() if name != kind},
        rendered=files.now(),
        linked=path.absolute().parent == runs.absolute(),
    )
    # A folder that was emptied or mistyped must not cost the page that somebody looks at.
    written = bool(loaded) or not page.shows_figures(path)
    if written:
        page.write_page(path, page.render_html(view))
    falling = tuple(
        f"{one.key.name} ({one.key.check})" for one in loaded if one.decline is not None
    )
    return Trend(
        path=path,
        provenance=kind,
        count=len(loaded),
        falling=falling,
        update=update,
        too_few=page.too_few(loaded),
        missed=page.missed(loaded),
        others={one: runs_of[one] for one in _PREFERENCE if one != kind and runs_of.get(one)},
        written=written,
    )
