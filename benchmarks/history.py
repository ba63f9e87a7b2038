"""The history: time for a thousand runs of a hundred cases, and error rates of the rules.

Makes run directories of the nights that the tests invent, every field filled, then times what
`python -m harness trend` does: everything read for the first time, again when nothing and when one
run is new, and the page. The other side reads every record by the same reader and keeps nothing.

`--rules` simulates the rules of decline instead: false alarms on series in which nothing changes,
and the night on which a decline of 1 % a night is found.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.base.environment import ROOT
from harness.catalog.load import load_catalog
from harness.history import drift
from harness.history.index import INDEX, read_history
from harness.history.trend import write_trend
from harness.records import reader
from harness.records.writer import RESULTS
from tests.selftest import history_samples as nights

T = TypeVar("T")
MODELS = ("seresnext101", "fixres", "resnest50", "squeezenet1_1", "inceptionv4")
FPS = 777.25


def write_runs(folder: Path, first: int, runs: int, cases: int) -> int:
    """Write run directories `first`.. of one night each; return their bytes."""
    made = [nights.speed(FPS, model=name, batch=size) for size in range(1, 21) for name in MODELS]
    with tempfile.TemporaryDirectory() as name:
        text = (nights.write_run(Path(name), made[:cases]) / RESULTS).read_text()
    written = 0
    for number in range(first, first + runs):
        draw = random.Random(number)
        directory = folder / f"run-{number:05d}"
        directory.mkdir()
        night = text.replace(made[0].run, directory.name)
        night = night.replace(nights.night(0), nights.night(number))
        lines = [
            line.replace(f"{FPS}", f"{draw.gauss(600, 3):.3f}") for line in night.splitlines(True)
        ]
        written += (directory / RESULTS).write_text("".join(lines))
    return written


def timed(step: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds that a step took, whatever else the host does, and what it gave."""
    begin = time.process_time()
    result = step()
    return time.process_time() - begin, result


def plain_reading(folder: Path) -> int:
    """Read every record and keep nothing, as a history without an index would."""
    return sum(len(reader.read(path.parent).cases) for path in sorted(folder.glob(f"*/{RESULTS}")))


def time_history(work: Path, runs: int, cases: int) -> list[str]:
    """The table of the first part."""
    folder = Path(tempfile.mkdtemp(prefix="history-", dir=work))
    catalog = load_catalog(ROOT / "baselines.yaml")
    try:
        size = write_runs(folder, 0, runs, cases)
        plain, seen = timed(lambda: plain_reading(folder))
        built, first = timed(lambda: read_history(folder))
        again, second = timed(lambda: read_history(folder))
        write_runs(folder, runs, 1, cases)
        one, third = timed(lambda: read_history(folder))
        page, made = timed(lambda: write_trend(folder, catalog=catalog))
        assert (first.read, second.read, third.read) == (runs, 0, 1)
        assert len(first.rows) == seen == runs * cases
        html = (folder / "trend.html").stat().st_size
        index = (folder / INDEX).stat().st_size
        return [
            f"{runs:,} runs of {cases} cases: {size / 1e6:,.0f} MB of records; index "
            f"{index / 1e6:.1f} MB, page {html / 1e6:.2f} MB with {made.headline}",
            "",
            "| step | CPU seconds |",
            "| --- | --- |",
            f"| every record read, nothing kept, for comparison | {plain:.2f} |",
            f"| history read for the first time | {built:.2f} |",
            f"| nothing new | {again:.2f} |",
            f"| one new run | {one:.2f} |",
            f"| `trend`, nothing new | {page:.2f} |",
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def simulate_rules(series: int, seed: int) -> list[str]:
    """The tables of the second part, in Markdown."""
    draw = random.Random(seed)
    lines = [
        "| noise | its shape | drift | shift | step | any, in 1,000 nights of a series |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for noise in (0.003, 0.01, 0.03):
        for name, shape in nights.NOISE.items():
            found = {"drift": 0, "shift": 0, "step": 0}
            either = looked = 0
            for _ in range(series):
                values = [1000 * shape(draw, noise) for _ in range(220)]
                for night in range(drift.REACH, len(values)):
                    seen = drift.changes(values[night - drift.REACH : night + 1], "throughput")
                    down = [change.rule for change in seen if change.decline]
                    looked += 1
                    either += bool(down)
                    for rule in down:
                        found[rule] += 1
            rates = " | ".join(f"{1000 * count / looked:.2f}" for count in found.values())
            lines.append(f"| {100 * noise:g} % | {name} | {rates} | {1000 * either / looked:.2f} |")
    lines += [
        "",
        "| noise | 1 % a night is found on night (median) | 9 of 10 by night | last |",
        "| --- | --- | --- | --- |",
    ]
    for noise in (0.003, 0.005, 0.01, 0.02):
        found_on = []
        for _ in range(2 * series):
            values = [1000 * (1 + draw.gauss(0, noise)) for _ in range(30)]
            night = 0
            while drift.decline(values, "throughput") is None or not night:
                night += 1
                values.append(1000 * 0.99**night * (1 + draw.gauss(0, noise)))
            found_on.append(night)
        found_on.sort()
        nine = found_on[int(0.9 * len(found_on))]
        lines.append(
            f"| {100 * noise:g} % | {statistics.median(found_on):g} | {nine} | {found_on[-1]} |"
        )
    return lines


def main() -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--rules", action="store_true", help="simulate the rules instead")
    parser.add_argument("--series", type=int, default=150, help="simulated for each row")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.rules:
        print("\n".join(simulate_rules(given.series, given.seed)))
    else:
        print("\n".join(time_history(given.work, given.runs, given.cases)))


if __name__ == "__main__":
    main()
