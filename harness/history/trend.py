"""`python -m harness trend`: the run directories -> one page of figures over time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.base import files
from harness.base.errors import RecordError
from harness.base.terms import Check, Provenance
from harness.catalog.schema import Catalog
from harness.history import page, series
from harness.history.index import read_history

_PREFERENCE: tuple[Provenance, ...] = ("real", "simulated", "rehearsal")


@dataclass(frozen=True)
class Trend:
    """What was written where.

    `others`: how many runs there are of other provenances, whose figures have a page of their own.
    `written`: False where a page was kept, since there are no figures now.
    """

    path: Path
    provenance: Provenance
    headline: str
    falling: tuple[str, ...]
    notes: tuple[str, ...]
    others: Mapping[Provenance, int]
    written: bool


def write_trend(
    runs: Path,
    output: Path | None = None,
    *,
    provenance: Provenance | None = None,
    catalog: Catalog | None = None,
    models: Collection[str] = (),
    check: Check | None = None,
) -> Trend:
    """Write the trend page of a folder of runs; without figures, a page that is there stays.

    Args: output: the file; beside the runs when left out, `trend.html` for real figures and
    `trend-rehearsal.html` or `trend-simulated.html` for others; it links to their reports.
    provenance: whose figures; when left out, real ones where there are any, otherwise simulated
    ones, otherwise rehearsals. A page never holds two kinds. catalog: floors; a page without one
    has no floors. Raises `RecordError`: the runs cannot be read, a model has no figure, or the page
    cannot be written.
    """
    history = read_history(runs)
    runs_of: dict[Provenance, set[str]] = {one: set() for one in _PREFERENCE}
    for row in history.rows:
        if row.measured is not None:
            runs_of[row.provenance].add(row.run)
    present = [one for one in _PREFERENCE if runs_of[one]]
    kind = provenance or (present[0] if present else "real")
    others = {one: len(names) for one, names in runs_of.items() if names and one != kind}
    loaded = series.load(history.rows, kind, catalog=catalog, models=models, check=check)
    if models and not loaded:
        raise RecordError(
            f"{runs} has no {kind} figure of {', '.join(sorted(models))}",
            remedy="name a model that has been run, or another --provenance",
        )
    # Where a link of the user's leads; a name beside the runs is ours.
    name = "trend.html" if kind == "real" else f"trend-{kind}.html"
    path = runs / name if output is None else output.resolve()
    linked = path.parent.resolve() == runs.resolve()
    view = page.build(loaded, kind, history, others=others, linked=linked)
    # A folder that was emptied or mistyped must not cost the page that somebody looks at.
    written = bool(loaded) or not path.exists()
    if written:
        files.replace_file(path, page.render_html(view), remedy="name a file with --output")
    falling = tuple(f"{one.key.name} ({one.key.check})" for one in loaded if one.decline)
    return Trend(path, kind, view.headline, falling, history.notes, others, written)
