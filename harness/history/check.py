"""A run against the recorded figures and against the runs before it.

So a slow decline shows while the floor stays where it is.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.base.errors import RecordError
from harness.catalog.schema import Catalog
from harness.history import drift, series
from harness.history.index import Row, read_history, row_of
from harness.records import reader

State = Literal["falls", "low", "failed", "undecided", "new", "ok"]
_CAUSES_NAMED = 6


@dataclass(frozen=True)
class Compared:
    """One figure of a run against its floor and the runs before it.

    `before`: the median of those runs; None without any.
    """

    row: Row
    floor: series.Floor | None
    runs: int
    before: float | None
    decline: drift.Change | None
    meanwhile: tuple[str, ...]

    @property
    def change_percent(self) -> float | None:
        """From the runs before."""
        return 100.0 * (self.row.value / self.before - 1.0) if self.before else None

    @property
    def low(self) -> bool:
        """Whether it lies below the floor."""
        return self.row.counted and self.floor is not None and self.floor.above(self.row.value)

    @property
    def bad(self) -> bool:
        """Whether it fails the check."""
        return self.low or self.decline is not None

    @property
    def state(self) -> State:
        """Return the word for it; only `ok` was compared with anything and is none the worse."""
        if self.decline is not None:
            return "falls"
        if self.low:
            return "low"
        if self.row.outcome == "inconclusive":
            return "undecided"
        if self.row.outcome not in ("passed", "recorded"):
            return "failed"
        if self.row.trouble:
            return "undecided"
        return "ok" if self.floor is not None or self.runs else "new"

    @property
    def sentence(self) -> str:
        """Return why it is not `ok`, and what changed meanwhile; empty where nothing did."""
        parts = []
        if self.state == "failed":
            known = ", as is known" if self.row.outcome == "known_failure" else ""
            parts.append(f"the case failed{known}: its figure is not judged")
        elif self.state == "undecided":
            why = f" ({', '.join(self.row.trouble)})" if self.row.trouble else ""
            parts.append(f"the case is undecided{why}: its figure is not judged")
        elif self.state == "new":
            parts.append("no floor, and no run before it")
        elif not self.runs and not self.bad:
            parts.append("no run before it")
        if self.decline is not None:
            parts.append(self.decline.sentence)
        if self.low and self.floor is not None:
            parts.append(f"below the floor of {self.floor.value:.10g} {self.row.unit}")
        return "; ".join((*parts, *(f"meanwhile {text}" for text in self.meanwhile)))


def check(
    run: Path, runs: Path, catalog: Catalog | None = None, *, last: int = drift.REACH
) -> list[Compared]:
    """Compare every measured case of a run with the catalog and the `last` runs before it.

    Args:
        runs: the folder whose history to use; the run itself need not lie in it.

    Raises:
        RecordError: the run or the history cannot be read, or the run lost its first line.
    """
    records = reader.read(run)
    if records.run is None:
        raise RecordError(f"{run}: the records have no run line, so nothing says what made them")
    kind = records.run.provenance
    known = {one.key: one for one in series.load(read_history(runs).rows, kind, catalog=catalog)}
    rows = (row_of(records, case, math.inf) for case in records.cases)
    return [
        _compared(row, known.get(series.key_of(row)), catalog, last)
        for row in rows
        if row.measured is not None and row.provenance == kind
    ]


def _compared(
    row: Row, known: series.Series | None, catalog: Catalog | None, last: int
) -> Compared:
    points = known.counted if known else ()
    earlier = [one for one in points if one.run != row.run and one.moment < row.moment][-last:]
    values = [one.value for one in earlier]
    decline = drift.decline([*values, row.value], row.check) if row.counted else None
    meanwhile: tuple[str, ...] = ()
    if decline is not None and known is not None:
        first = earlier[1 - decline.runs]  # that the rule looked at
        meanwhile = known.marked_after(first, row.moment)[:_CAUSES_NAMED]
    return Compared(
        row=row,
        floor=series.floor_of(series.key_of(row), catalog),
        runs=len(values),
        before=statistics.median(values) if values else None,
        decline=decline,
        meanwhile=meanwhile,
    )
