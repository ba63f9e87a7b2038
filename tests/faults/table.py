"""docs/faults.md: what was tried, how often, what the user sees, and what is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HEAD = """# Faults

What `tests/faults` does to the harness, how often, what a user sees of it and what is kept. Where a
fault breaks a promise, no table is made. This one was made by

    make faults ARGS="--faults={tries} --faults-seed={seed} --faults-table=docs/faults.md"

`--faults=whole` makes hundreds of tries; `short`, which CI runs, makes a few of each. Disks are
mounted by root alone: others skip those.

| kind | fault | tries | what the user sees | what is kept |
|---|---|---:|---|---|
"""


class Row(NamedTuple):
    """One fault. `kind`: the module that has it."""

    kind: str
    name: str
    sees: str
    keeps: str


class Table:
    """Collects the rows of tests that passed, from all of xdist's workers."""

    def __init__(self, file: str | None, tries: str, seed: int) -> None:
        self.file = Path(file) if file else None
        self.head = HEAD.format(tries=tries, seed=seed)
        self.rows: Counter[Row] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" and report.passed:
            found: dict[str, Any] = dict(report.user_properties)
            if (row := found.get("fault")) is not None:
                self.rows[Row(*row)] += int(str(found.get("tries", 1)))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self.file is not None and exitstatus == 0:
            rows = (
                f"| {row.kind} | {row.name} | {number} | {row.sees} | {row.keeps} |\n"
                for row, number in sorted(self.rows.items())
                if number
            )
            self.file.write_text(self.head + "".join(rows), encoding="utf-8")
