"""The history: time for a thousand runs of a hundred cases, and error rates of the rules.

Makes run directories whose lines have the keys and the size of real ones (a throughput case holds
a thousand latency samples), then times what `python -m harness trend` does: the index built from
nothing, brought up to date when nothing and when one run is new, and the page. The other side is
`json.loads` on every line, which the index does without.

`--rules` simulates the rules of decline instead: false alarms on series in which nothing changes,
and the night on which a decline of 1 % a night is found.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.base.host import Machine
from harness.base.terms import Check
from harness.catalog.load import load_catalog
from harness.history import drift
from harness.history.store import DATABASE, open_history
from harness.history.trend import write_trend
from harness.records.lines import CaseLine, EndLine, PlanLine, PlannedCase, RunLine
from harness.records.values import ArtifactRef, Reference, StageTime, Verdict
from harness.records.writer import RESULTS
from harness.settings import ROOT

MODELS = ("seresnext101", "fixres", "resnest50", "squeezenet1_1", "inceptionv4")
BATCHES = (1, 4, 8, 16, 32, 64, 2, 12, 24, 48)
FIRST = datetime(2024, 1, 1, 2, 0, tzinfo=UTC)
MACHINE = Machine(hostname="npu-03", system="Linux", architecture="aarch64", cores=64)
VERSIONS = {"python": "3.11.7", "cann": "8.0.RC2", "driver": "23.0.0", "numpy": "2.4.6"}


def template(model: str, batch: int, check: Check, samples: int) -> str:
    """A case's line with `%(run)s`, `%(started)s`, `%(value)s` in it."""
    name = f"{model}-bs{batch}-ascend310p3"
    draw = random.Random(f"{name} {check}")
    measurement: dict[str, object] = {
        "setup": {
            "driver": "api", "method": "pure-inference", "tuning": "none",
            "chip": "Ascend310P3", "card": "Atlas 300I Pro", "chips": 1,
            "toolchain": "CANN 8.0.RC2", "note": "",
        },
        "conditions": [{"moment": m, "seconds": 1.0, "health": "OK", "busy": "no",
                        "throttled": "no", "temperature_c": 51.0} for m in ("before", "after")],
    }  # fmt: skip
    if check == "throughput":
        values = [round(draw.gauss(3, 0.05), 5) for _ in range(samples)]
        measurement |= {
            "fps": 500.0, "mean_ms": 3.0, "half_width_percent": 0.6, "loops": samples,
            "rounds": 8, "precision_reached": True, "samples_ms": values, "round_sizes": [50] * 8,
            "outputs_check": {"relative_l2": 0.004},
        }  # fmt: skip
    else:
        measurement |= {"images": 50_000, "correct": [39_000, 44_000, 46_000, 47_000, 47_500]}
    line = CaseLine(
        run="RUN", nodeid=f"tests/acceptance/test_{check}.py::test_{check}[{name}]", case=name,
        model=model, title=model, batch_size=batch, target="ascend310p3", check=check,
        provenance="real", outcome="passed", sentence="It is as it must be, for this and that.",
        unit="fps" if check == "throughput" else "%", measured=777.25,
        reference=Reference(kind="baseline", value=450.0, unit="fps", source="guide-000"),
        verdict=Verdict(kind="PASS", sentence="It is.", rule="at least so much"),
        measurement=measurement, checkpoint={"file": "a.pth", "sha256": "ab" * 32},
        preprocessing="resize short side 256 bilinear, centre crop 224",
        artifacts=[ArtifactRef(kind=k, key="c0" * 16, digest="9f" * 32, bytes=10**7, log="ok " * 40)
                   for k in ("checkpoint", "onnx", "simplified", "compiled")],
        stages=[StageTime(stage=s, seconds=1.0) for s in ("export", "compile", "load", "time")],
        device={"id": "npu-0", "name": "Ascend310P3"}, machine=MACHINE, versions=VERSIONS,
        started="STARTED", seconds=20.0, repeat=["pytest -m throughput --models=a"],
    ).model_dump_json()  # fmt: skip
    line = line.replace("%", "%%").replace('"RUN"', '"%(run)s"').replace("STARTED", "%(started)s")
    return line.replace("777.25", "%(value).3f")


def write_runs(folder: Path, first: int, runs: int, cases: int, samples: int) -> int:
    """Run directories `first`.. of one night each; their bytes."""
    checks: tuple[Check, ...] = ("throughput", "accuracy")
    plan = [(m, b, c) for b in BATCHES for m in MODELS for c in checks][:cases]
    lines = [template(model, batch, check, samples) for model, batch, check in plan]
    planned = [
        PlannedCase(
            nodeid=f"{m}{b}{c}", case=f"{m}-bs{b}", model=m, batch_size=b, target="t", check=c
        )
        for m, b, c in plan
    ]
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


def timed(step: Callable[[], object]) -> tuple[float, object]:
    """Seconds that a step took, and what it gave."""
    begin = time.perf_counter()
    result = step()
    return time.perf_counter() - begin, result


def plain_parse(folder: Path) -> int:
    """What the index would do at least if it parsed every line whole."""
    count = 0
    for path in sorted(folder.glob(f"*/{RESULTS}")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                json.loads(line)
                count += 1
    return count


def index(folder: Path) -> int:
    """Bring the index up to date; how many runs were read."""
    with open_history(folder) as history:
        return history.update.read


def time_history(work: Path, runs: int, cases: int, samples: int) -> list[str]:
    """The table of the first part."""
    folder = Path(tempfile.mkdtemp(prefix="history-", dir=work))
    catalog = load_catalog(ROOT / "baselines.yaml")
    try:
        size = write_runs(folder, 0, runs, cases, samples)
        plain_parse(folder)  # both sides find the files in the page cache
        parsed, _ = timed(lambda: plain_parse(folder))
        built, read = timed(lambda: index(folder))
        again, unread = timed(lambda: index(folder))
        write_runs(folder, runs, 1, cases, samples)
        one, more = timed(lambda: index(folder))
        page, made = timed(lambda: write_trend(folder, catalog=catalog))
        assert (read, unread, more) == (runs, 0, 1)
        html = (folder / "trend.html").stat().st_size
        database = (folder / DATABASE).stat().st_size
        return [
            f"{runs:,} runs of {cases} cases, {samples:,} samples in a throughput case: "
            f"{size / 1e6:,.0f} MB of records; index {database / 1e6:.1f} MB, "
            f"page {html / 1e6:.2f} MB with {made.count} series",  # type: ignore[attr-defined] # Trend
            "",
            "| step | seconds |",
            "| --- | --- |",
            f"| `json.loads` of every line, for comparison | {parsed:.2f} |",
            f"| index built from nothing | {built:.2f} |",
            f"| nothing new | {again:.2f} |",
            f"| one new run | {one:.2f} |",
            f"| `trend`, index up to date | {page:.2f} |",
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
    parser.add_argument("--samples", type=int, default=1000, help="in a throughput case")
    parser.add_argument("--rules", action="store_true", help="simulate the rules instead")
    parser.add_argument("--series", type=int, default=150, help="simulated for each row")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.rules:
        print("\n".join(simulate_rules(given.series, given.seed)))
    else:
        print("\n".join(time_history(given.work, given.runs, given.cases, given.samples)))


if __name__ == "__main__":
    main()
