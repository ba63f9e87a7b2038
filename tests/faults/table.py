"""docs/faults.md: what was tried, how often, what the user sees, and what is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.base.host import git_revision
from tests.selftest.running import ROOT

HEAD = """# Faults

What `tests/faults` does to the harness, how often, what a user sees of it and what is kept. A fault
that breaks a promise loses its row. The rows were made, and can be made again by parts (`-k`), by

    make faults ARGS="--faults={tries} --faults-seed={seed} --faults-table=docs/faults.md"

`--faults=whole` makes hundreds of tries; `short`, which CI runs, makes a few of each. After five
minutes, half as long again where it kills, a test begins no further try (`--faults-minutes`), so
that the whole takes an hour: a busy host makes fewer. Disks are mounted by root alone: others skip
those. `commit` is what was tried, `minutes` the time that it took one of two workers.

| kind | fault | tries | what the user sees | what is kept | commit | minutes |
|---|---|---:|---|---|---|---:|
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
        self.revision = git_revision(ROOT)  # before the table changes it
        self.tries: Counter[Row] = Counter()
        self.seconds: dict[Row, float] = {}
        self.failed: set[Row] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: dict[str, Any] = dict(report.user_properties)
        if "fault" not in found:
            return
        row = Row(*found["fault"])
        self.seconds[row] = self.seconds.get(row, 0.0) + report.duration
        if report.failed:
            self.failed.add(row)
        elif report.when == "call" and report.passed:
            self.tries[row] += int(str(found.get("tries", 1)))
        if report.when == "teardown":
            self.write()

    def write(self) -> None:
        """Write the rows of this run, and of an earlier one those that did not run now."""
        if self.file is None:
            return
        before = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        lines = {
            tuple(line.split(" | ")[:2]): line
            for line in before.splitlines()
            if line.count(" | ") == len(Row._fields) + 2
        }
        lines.pop(("| kind", "fault"), None)
        for row in {*self.tries, *self.failed}:
            key = (f"| {row.kind}", row.name)
            lines.pop(key, None)
            if row not in self.failed and self.tries[row]:
                took = f"{self.revision} | {self.seconds[row] / 60:.1f} |"
                parts = (*key, str(self.tries[row]), row.sees, row.keeps, took)
                lines[key] = " | ".join(parts)
        rows = "".join(f"{lines[key]}\n" for key in sorted(lines))
        self.file.write_text(self.head + rows, encoding="utf-8")
