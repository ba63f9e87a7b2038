"""The history: time for a thousand runs of a hundred cases, and error rates of the rules.

Makes run directories whose lines have the keys and the size of real ones, then times what
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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.base.environment import ROOT
from harness.base.host import Machine
from harness.base.stages import Stage
from harness.base.terms import WHOLE_SET, Check
from harness.catalog.load import load_catalog
from harness.history import drift
from harness.history.index import INDEX, read_history
from harness.history.trend import write_trend
from harness.records import reader
from harness.records.conditions import Condition, Setup
from harness.records.lines import CaseLine, EndLine, PlanLine, PlannedCase, RunLine
from harness.records.measurements import (
    AccuracyMeasurement,
    Fidelity,
    OutputsCheck,
    Scores,
    ThroughputMeasurement,
    Timing,
)
from harness.records.observed import ArtifactRef, CheckpointInfo, DeviceInfo, StageTime
from harness.records.verdicts import Reference, Verdict
from harness.records.writer import RESULTS

T = TypeVar("T")
MODELS = ("seresnext101", "fixres", "resnest50", "squeezenet1_1", "inceptionv4")
BATCHES = (1, 4, 8, 16, 32, 64, 2, 12, 24, 48)
FIRST = datetime(2024, 1, 1, 2, 0, tzinfo=UTC)
MACHINE = Machine(hostname="npu-03", system="Linux", architecture="aarch64", cores=64)
VERSIONS = {"harness": "1.0", "python": "3.11.7", "numpy": "2.4.6"}


def measurement(check: Check, batch: int) -> AccuracyMeasurement | ThroughputMeasurement:
    """What a case on a chip measures."""
    if check == "accuracy":
        scores = Scores(WHOLE_SET, (39_000, 44_000, 46_000, 47_000, 47_500))
        return AccuracyMeasurement(
            "real", WHOLE_SET, scores, (), Fidelity(4e-3, 0.1, 0.999, ()), None, 60.0
        )
    means = tuple(3 + number / 100 for number in range(8))
    looks = (Condition("before", -1.0, "OK", "no", "no", 51.0), Condition("after", 20.0, "OK"))
    made_with = Setup(
        "api", "pure-inference", "none", "Ascend310P3", "Atlas 300I Pro", 1, "CANN 8.0.RC2"
    )
    return ThroughputMeasurement(
        provenance="real",
        timing=Timing(batch, 20, 1000, means, 3.0, 0.6, False, 3.0, 3.2, 2.9, 4.0, 1.0),
        rivals={},
        precision_percent=1.0,
        budget_s=60.0,
        seconds=20.0,
        half_width_percent=0.6,
        outputs=OutputsCheck(4e-3, 3e-2),
        conditions=looks,
        setup=made_with,
        samples_file="samples/a.json",
    )


def template(model: str, batch: int, check: Check) -> str:
    """A case's line with `%(run)s`, `%(started)s`, `%(value)s` in it."""
    name = f"{model}-bs{batch}-ascend310p3"
    unit = "fps" if check == "throughput" else "%"
    sentence = "It is as it must be, for this and that."
    chain = (Stage.CHECKPOINT, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE)
    line = CaseLine(
        run="RUN",
        nodeid=f"tests/acceptance/test_{check}.py::test_{check}[{name}]",
        case=name,
        model=model,
        title=model,
        batch_size=batch,
        target="ascend310p3",
        check=check,
        provenance="real",
        outcome="passed",
        sentence=sentence,
        verdict=Verdict(
            "PASS", sentence, "rule", unit, 777.25, Reference("baseline", 450.0, unit, "guide-000")
        ),
        measurement=measurement(check, batch),
        checkpoint=CheckpointInfo("checkpoint", "a.pth", "ab" * 32),
        preprocessing="resize short side 256 bilinear, centre crop 224",
        artifacts=tuple(
            ArtifactRef(stage, "c0" * 16, "9f" * 32, 10**7, log="ok " * 40) for stage in chain
        ),
        stages=tuple(StageTime(stage, 1.0) for stage in (*chain, Stage.LOAD, Stage.TIME)),
        device=DeviceInfo("npu-0", "Ascend310P3", commands={"run": "a command " * 20}),
        machine=MACHINE,
        versions=VERSIONS,
        started="STARTED",
        seconds=20.0,
        repeat=("pytest -m throughput --models=a",),
    ).model_dump_json()
    line = line.replace("%", "%%").replace('"RUN"', '"%(run)s"').replace("STARTED", "%(started)s")
    return line.replace("777.25", "%(value).3f")


def write_runs(folder: Path, first: int, runs: int, cases: int) -> int:
    """Write run directories `first`.. of one night each; return their bytes."""
    checks: tuple[Check, ...] = ("throughput", "accuracy")
    plan = [(m, b, c) for b in BATCHES for m in MODELS for c in checks][:cases]
    lines = [template(model, batch, check) for model, batch, check in plan]
    planned = tuple(
        PlannedCase(
            nodeid=f"{m}{b}{c}", case=f"{m}-bs{b}", model=m, batch_size=b, target="t", check=c
        )
        for m, b, c in plan
    )
    written = 0
    for number in range(first, first + runs):
        run = f"run-{number:05d}"
        draw = random.Random(number)
        started = (FIRST + timedelta(days=number)).isoformat(timespec="seconds")
        head = RunLine(run=run, provenance="real", started=started, machine=MACHINE)
        text = [head.model_dump_json(), PlanLine(run=run, cases=planned).model_dump_json()]
        for line, (_, _, check) in zip(lines, plan, strict=True):
            value = draw.gauss(600, 3) if check == "throughput" else 79.0
            text.append(line % {"run": run, "started": started, "value": value})
        end = EndLine(run=run, finished=started, planned=len(plan), complete=True)
        text.append(end.model_dump_json())
        directory = folder / run
        directory.mkdir()
        payload = ("\n".join(text) + "\n").encode()
        (directory / RESULTS).write_bytes(payload)
        written += len(payload)
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


KINDS: dict[str, Callable[[random.Random, float], float]] = {
    "normal": lambda draw, noise: 1 + draw.gauss(0, noise),
    "one night in 20 lower by 5 deviations": lambda draw, noise: (
        1 + draw.gauss(0, noise) - (5 * noise if draw.random() < 0.05 else 0)
    ),
    "skewed to slow nights": lambda draw, noise: 1 - draw.expovariate(1 / noise),
}


def simulate_rules(series: int, seed: int) -> list[str]:
    """The tables of the second part, in Markdown."""
    draw = random.Random(seed)
    lines = [
        "| noise | its shape | drift | shift | step | any, in 1,000 nights of a series |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for noise in (0.003, 0.01, 0.03):
        for name, shape in KINDS.items():
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
        nights = []
        for _ in range(2 * series):
            values = [1000 * (1 + draw.gauss(0, noise)) for _ in range(30)]
            night = 0
            while drift.decline(values, "throughput") is None or not night:
                night += 1
                values.append(1000 * 0.99**night * (1 + draw.gauss(0, noise)))
            nights.append(night)
        nights.sort()
        nine = nights[int(0.9 * len(nights))]
        lines.append(
            f"| {100 * noise:g} % | {statistics.median(nights):g} | {nine} | {nights[-1]} |"
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
