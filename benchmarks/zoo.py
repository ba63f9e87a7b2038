"""Each model of a catalog through the rehearsal, one after the other, and a table of how each did.

    python benchmarks/zoo.py [--catalog FILE] [--first N] [--minutes M] [--runs DIR] [MODEL ...]

One run of pytest a model, at batch 1, with a store of its own that is deleted afterwards: the disk
holds one model at a time. What has a finished run in DIR is not run again, so that the loop goes on
where it was stopped; `--first N` takes the N that took the least time in docs/zoo.md. Each time the
table is written anew from the runs in DIR: `--table FILE`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.records import reader
from harness.records.lines import CaseLine

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 3600.0  # of one model
HEAD = """\
# The zoo in the rehearsal

`make zoo` takes each model of [`catalogs/modelzoo.yaml`](../catalogs/modelzoo.yaml) through the
rehearsal at batch 1, on the CPU, with stand-in weights and generated images, and writes this
table. A rehearsal shows that the chain keeps what a network computes; it says nothing about a
published figure. Seconds are of one core of a machine that did other work, too: they order the
models. `make zoo ARGS=--first=10` runs the ten that took the least.

| model | network | opset | operators | export s | simplify, compile s | all s | verdict |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*")
    parser.add_argument("--catalog", type=Path, default=ROOT / "catalogs" / "modelzoo.yaml")
    parser.add_argument("--first", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "zoo")
    parser.add_argument("--table", type=Path, default=ROOT / "docs" / "zoo.md")
    given = parser.parse_args()
    catalog = load_catalog(given.catalog)
    names = list(catalog.chosen(given.models or None))
    if given.first is not None:
        times = before(given.table)
        names = sorted(names, key=lambda name: times.get(name, float("inf")))[: given.first]
    end, failed = time.monotonic() + 60 * given.minutes, 0
    for name in names:
        if time.monotonic() > end:
            break
        case = finished(given.runs / name)
        if case is None:
            rehearse(name, given.catalog, given.runs / name)
            case = finished(given.runs / name)
        outcome = "no record" if case is None else case.outcome
        failed += outcome != "passed"
        print(f"{name}: {outcome}", flush=True)
    rows = list(table(catalog, given.runs))
    if rows:
        given.table.write_text(HEAD + "".join(rows), encoding="utf-8")
    return 1 if failed else 0


def rehearse(name: str, catalog: Path, runs: Path) -> None:
    """Run one model's accuracy at batch 1, with a store that lives as long."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as store:
        shutil.rmtree(runs, ignore_errors=True)
        options = [f"--catalog={catalog}", f"--models={name}", f"--store={store}", f"--runs={runs}"]
        command = [sys.executable, "-m", "pytest", "--rehearsal", "-m", "accuracy", "-n", "0", "-q"]
        try:
            subprocess.run(
                [*command, "--batch-sizes=1", *options], cwd=ROOT, timeout=DEADLINE_S, check=False
            )
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped after {DEADLINE_S:.0f} s", file=sys.stderr)


def finished(runs: Path) -> CaseLine | None:
    """Return the case of a model's finished run; None where there is none."""
    try:
        records = reader.read(runs / "latest")
    except RecordError:
        return None
    return records.cases[0] if records.end is not None and records.cases else None


def before(path: Path) -> dict[str, float]:
    """Return the seconds of each model that passed in a table that was written before."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows = re.findall(r"^\| (\w+) \|.* (\d+) \| passed[^|]*\|$", text, re.MULTILINE)
    return {name: float(seconds) for name, seconds in rows}


def table(catalog: Catalog, runs: Path) -> Iterator[str]:
    """Yield a row for each model of the catalog, those without a run last."""
    cases = {name: finished(runs / name) for name in catalog.models}
    for name, case in sorted(cases.items(), key=lambda item: (item[1] is None, item[0])):
        network = catalog.models[name].network.source
        if case is None:
            yield f"| {name} | `{network}` | | | | | | not run |\n"
            continue
        seconds = {one.stage: one.seconds for one in case.stages}
        made = next((one.log for one in case.artifacts if one.stage == Stage.SIMPLIFY), "")
        about = json.loads(made) if made.startswith("{") else {}
        converted = seconds.get(Stage.SIMPLIFY, 0.0) + seconds.get(Stage.COMPILE, 0.0)
        verdict = case.sentence if case.outcome != "passed" else f"passed: {case.sentence}"
        cells = (
            *(name, f"`{network}`", about.get("opset", ""), about.get("nodes", "")),
            *(f"{seconds.get(Stage.EXPORT, 0.0):.0f}", f"{converted:.0f}", f"{case.seconds:.0f}"),
            verdict.replace("|", "/"),
        )
        yield f"| {' | '.join(map(str, cells))} |\n"


if __name__ == "__main__":
    sys.exit(main())
