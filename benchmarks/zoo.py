"""Each model of a catalog through the rehearsal, one after the other, and a table of how each did.

    python benchmarks/zoo.py [--catalog FILE] [--first N] [--minutes M] [--runs DIR] [MODEL ...]

One run of pytest a model, at batch 1, with a store of its own that is deleted afterwards: the disk
holds one model at a time. What passed in a run in DIR is not run again, so that the loop goes on
where it was stopped; `--first N` takes the N that took the least time in the table. The table,
`--table FILE`, is written after each model: rows of what has no run in DIR stay as they are. Ends
with 1 when a model did not pass.
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
from collections.abc import Iterator, Mapping
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
NOT_RUN = "| | | | | not run |\n"
HEAD = """\
# The zoo in the rehearsal

`make zoo` takes each model of [`catalogs/modelzoo.yaml`](../catalogs/modelzoo.yaml) through the
rehearsal at batch 1, on the CPU, with stand-in weights and generated images, and writes this
table. A rehearsal shows that the chain keeps what a network computes; it says nothing about a
published figure. Seconds are of one core of a machine that did other work, too: they order the
models. `make zoo ARGS=--first=10` runs the ten that took the least; so does
[zoo.yml](../.github/workflows/zoo.yml) each week ([nightly.md](nightly.md#github-actions)).

| model | network | opset | operators | export s | simplify, compile s | all s | verdict |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*")
    parser.add_argument("--catalog", type=Path, default=ROOT / "catalogs" / "modelzoo.yaml")
    parser.add_argument("--first", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "zoo")
    parser.add_argument("--table", type=Path, default=ROOT / "docs" / "zoo.md")
    given = parser.parse_args(arguments)
    catalog = load_catalog(given.catalog)
    names = list(catalog.chosen(given.models or None))
    rows = before(given.table)
    if given.first is not None:
        names = sorted(names, key=lambda name: seconds(rows.get(name, "")))[: given.first]
    end, failed = time.monotonic() + 60 * given.minutes, 0
    for number, name in enumerate(names):
        if time.monotonic() > end:
            print(f"not reached: {', '.join(names[number:])}")
            break
        case = finished(given.runs / name)
        if case is None or case.outcome != "passed":
            rows.pop(name, None)
            rehearse(name, given.catalog, given.runs / name)
            case = finished(given.runs / name)
        outcome = "no record" if case is None else case.outcome
        failed += outcome != "passed"
        print(f"{name}: {outcome}", flush=True)
        text = HEAD + "".join(table(catalog, given.runs, rows))
        given.table.write_text(text, encoding="utf-8")
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


def before(path: Path) -> dict[str, str]:
    """Return the rows of a table that was written before, by model."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = re.findall(r"^\| \w+ \| `.*\|\n", text, re.MULTILINE)
    return {line.split()[1]: line for line in lines}


def seconds(line: str) -> float:
    """Return the seconds of a row's model; infinite where it did not pass."""
    found = re.search(r" (\d+) \| passed[^|]*\|$", line)
    return float(found[1]) if found else float("inf")


def table(catalog: Catalog, runs: Path, rows: Mapping[str, str]) -> Iterator[str]:
    """Yield a row for each model: of its run in `runs`, else the one of `rows`; the others last.

    A row of another network than the catalog's is not the model's.
    """
    lines = []
    for name, model in catalog.models.items():
        begin = f"| {name} | `{model.network.source}` |"
        case = finished(runs / name)
        if case is not None:
            lines.append(f"{begin} {row(case)} |\n")
        elif rows.get(name, "").startswith(begin):
            lines.append(rows[name])
        else:
            lines.append(f"{begin} {NOT_RUN}")
    yield from sorted(lines, key=lambda line: (line.endswith(NOT_RUN), line))


def row(case: CaseLine) -> str:
    """Return the cells of a case after the network's."""
    took = {one.stage: one.seconds for one in case.stages}
    made = next((one.log for one in case.artifacts if one.stage == Stage.SIMPLIFY), "")
    about = json.loads(made) if made.startswith("{") else {}
    converted = took.get(Stage.SIMPLIFY, 0.0) + took.get(Stage.COMPILE, 0.0)
    verdict = case.sentence if case.outcome != "passed" else f"passed: {case.sentence}"
    cells = (
        *(about.get("opset", ""), about.get("nodes", "")),
        *(f"{took.get(Stage.EXPORT, 0.0):.0f}", f"{converted:.0f}", f"{case.seconds:.0f}"),
        verdict.replace("|", "/"),
    )
    return " | ".join(map(str, cells))


if __name__ == "__main__":
    sys.exit(main())
