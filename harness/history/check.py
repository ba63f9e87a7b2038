"""A run against the recorded figures and against the runs before it.

So a slow decline shows while the floor stays where it is.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.catalog.schema import Catalog
from harness.history import drift, series
from harness.history.index import Row, read_history, row_of, run_line
from harness.records import reader

State = Literal["falls", "low", "failed", "undecided", "new", "ok"]
_CAUSES_NAMED = 6


@dataclass(frozen=True)
class Compared:
    """One figure of a run, the last of `series`, against its floor and the runs before it."""

    series: series.Series

    @property
    def row(self) -> Row:
        """Return the figure."""
        return self.series.points[-1]

    @property
    def before(self) -> tuple[float, ...]:
        """Return the latest figures of runs before it, as many as a rule looks at."""
        earlier = self.series.values[:-1] if self.row.counted else self.series.values
        return earlier[-drift.REACH :]

    @property
    def level(self) -> float | None:
        """Return the median of the runs before; None without any."""
        return statistics.median(self.before) if self.before else None

    @property
    def change_percent(self) -> float | None:
        """From the runs before."""
        return 100.0 * (self.row.value / self.level - 1.0) if self.level else None

    @property
    def decline(self) -> drift.Change | None:
        """Return what the rules say of the figure, where they look at it."""
        return self.series.decline if self.row.counted else None

    @property
    def bad(self) -> bool:
        """Return whether it fails the check."""
        return self.state in ("falls", "low")

    @property
    def state(self) -> State:
        """Return the word for it; only `ok` was compared with anything and is none the worse."""
        if self.decline is not None:
            return "falls"
        if self.row.counted and self.series.below_floor:
            return "low"
        if self.row.outcome not in ("passed", "recorded", "inconclusive"):
            return "failed"
        if not self.row.counted:
            return "undecided"
        return "ok" if self.series.floor or self.before else "new"

    @property
    def sentence(self) -> str:
        """Return why it is not `ok`, and what changed meanwhile; empty where nothing did."""
        floor, parts = self.series.floor, []
        if self.state in ("failed", "undecided"):
            why = f" ({', '.join(self.row.trouble)})" if self.row.trouble else ""
            verb = "failed" if self.state == "failed" else "is undecided"
            parts.append(f"the case {verb}{why}: its figure is not judged")
        if self.state == "new":
            parts.append("no floor, and no run before it")
        if self.decline is not None:
            parts.append(self.decline.sentence)
        if floor and self.row.counted and self.series.below_floor:
            parts.append(f"below the floor of {floor.value:.10g} {self.row.unit}")
        if self.decline is not None:
            causes = self.series.explanations(self.decline)
            parts += [f"meanwhile {text}" for text in causes[:_CAUSES_NAMED]]
        return "; ".join(parts)


def check(run: Path, runs: Path, catalog: Catalog | None = None) -> list[Compared]:
    """Compare every measured case of a run with the catalog and the runs before it.

    Args: runs: the folder whose history to use; the run itself need not lie in it. Raises
    `RecordError`: the run or the history cannot be read, or the run lost its first line.
    """
    records = reader.read(run)
    kind = run_line(records).provenance
    known = {one.key: one.points for one in series.load(read_history(runs).rows, kind)}
    compared = []
    for case in records.cases:
        row = row_of(records, case, math.inf)
        if row.measured is None or row.provenance != kind:
            continue
        key = series.key_of(row)
        earlier = (
            one for one in known.get(key, ()) if one.run != row.run and one.moment < row.moment
        )
        one = series.Series(key, (*earlier, row), series.floor_of(key, catalog))
        compared.append(Compared(one))
    return compared
