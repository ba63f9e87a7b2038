"""`python -m harness trend`: the run directories -> one page of figures over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.base import files
from harness.base.errors import RecordError
from harness.base.terms import Check, Provenance
from harness.catalog.schema import Catalog
from harness.history import page, series
from harness.history.index import read_history

LAST = 200
"""Figures of a series on the page: more than that no chart of a phone's width can show."""

_PREFERENCE: tuple[Provenance, ...] = ("real", "simulated", "rehearsal")


@dataclass(frozen=True)
class Trend:
    """What was written where.

    `others`: how many runs there are of other provenances, whose figures have a page of their own.
    `written`: False where a page was kept, since there are no figures now.
    """

    path: Path
    provenance: Provenance
    series: tuple[series.Series, ...]
    notes: tuple[str, ...]
    others: Mapping[Provenance, int]
    written: bool = True


def write_trend(
    runs: Path,
    output: Path | None = None,
    *,
    provenance: Provenance | None = None,
    catalog: Catalog | None = None,
    models: Collection[str] | None = None,
    checks: Collection[Check] | None = None,
    last: int = LAST,
) -> Trend:
    """Write the trend page of a folder of runs; without figures, a page that is there stays.

    Args:
        output: the file; beside the runs when left out, `trend.html` for real figures and
            `trend-rehearsal.html` or `trend-simulated.html` for others; it links to their reports.
        provenance: whose figures; when left out, real ones where there are any, otherwise
            simulated ones, otherwise rehearsals. A page never holds two kinds.
        catalog: floors; a page without one has no floors.

    Raises:
        RecordError: the runs cannot be read, a model has no figure, or the page cannot be written.
    """
    history = read_history(runs)
    measured = [row for row in history.rows if row.measured is not None]
    counts = Counter(row.provenance for row in measured)
    present = [one for one in _PREFERENCE if counts[one]]
    kind = provenance or (present[0] if present else "real")
    loaded = series.load(
        history.rows, kind, catalog=catalog, models=models, checks=checks, last=last
    )
    if models is not None and not loaded:
        raise RecordError(
            f"{runs} has no {kind} figure of {', '.join(sorted(models))}",
            remedy="name a model that has been run, or another --provenance",
        )
    path = output or runs / ("trend.html" if kind == "real" else f"trend-{kind}.html")
    view = page.build(
        loaded,
        kind,
        history,
        others={name: count for name, count in counts.items() if name != kind},
        rendered=files.now(),
        linked=path.absolute().parent == runs.absolute(),
    )
    # A folder that was emptied or mistyped must not cost the page that somebody looks at.
    written = bool(loaded) or not path.exists()
    if written:
        try:
            files.replace_text(path, page.render_html(view))
        except OSError as error:
            raise RecordError(
                f"cannot write {path}: {error.strerror or error}",
                remedy="name a file with --output",
            ) from error
    runs_of = {one: {row.run for row in measured if row.provenance == one} for one in _PREFERENCE}
    return Trend(
        path=path,
        provenance=kind,
        series=tuple(loaded),
        notes=history.notes,
        others={one: len(names) for one, names in runs_of.items() if names and one != kind},
        written=written,
    )
