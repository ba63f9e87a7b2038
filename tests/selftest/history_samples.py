"""Run directories of invented nights for the tests of history, merge and proposals."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness.base.terms import Provenance
from harness.records.conditions import Setup
from harness.records.lines import CaseLine
from harness.records.measurements import OutputsCheck
from harness.records.observed import DeviceInfo
from harness.records.verdicts import Reference
from harness.records.writer import RESULTS
from tests.selftest import report_samples as samples

FIRST_NIGHT = datetime(2026, 9, 1, 2, 0, tzinfo=UTC)
CATALOG_DIGEST = "c4" * 32
NOISE: dict[str, Callable[[random.Random, float], float]] = {
    "normal": lambda draw, noise: 1 + draw.gauss(0, noise),
    "one night in 20 lower by 5 deviations": lambda draw, noise: (
        1 + draw.gauss(0, noise) - (5 * noise if draw.random() < 0.05 else 0)
    ),
    "skewed to slow nights": lambda draw, noise: 1 - draw.expovariate(1 / noise),
}
"""A figure of a night on which nothing changed, for the share by which figures vary."""


def night(number: int) -> str:
    """The moment at which night `number` begins, ISO 8601."""
    return (FIRST_NIGHT + timedelta(days=number)).isoformat(timespec="seconds")


def speed(
    fps: float,
    number: int = 0,
    *,
    model: str = "resnest50",
    batch: int = 1,
    target: str = "ascend310p3",
    chip: str = "Ascend310P3",
    toolchain: str = "CANN 8.0.RC2",
    provenance: Provenance = "real",
    outcome: Any = "passed",
    measurement: dict[str, Any] | None = None,
    setup: dict[str, Any] | None = None,
    **changes: Any,
) -> CaseLine:
    """A throughput case of one night on a chip; `measurement` and `setup` change fields of it."""
    real = provenance == "real"
    made_with = Setup("api", "pure-inference", "none", chip, "Atlas 300I Pro", 1, toolchain)
    mean = 1000 * batch / fps
    timing = samples.timing(batch, [mean] * 40, half_width_percent=0.4, executions=400)
    measured = samples.throughput_measurement(
        batch,
        size=40,
        **{
            "provenance": provenance,
            "timing": timing,
            "half_width_percent": 0.4,
            "outputs": OutputsCheck(0.004, 0.03),
            "setup": replace(made_with, **(setup or {})),
            **(measurement or {}),
        },
    )
    given: dict[str, Any] = {
        "run": f"night-{number:04d}",
        "started": night(number),
        "measured": fps,
        "reference": Reference(
            kind="baseline" if real else "none",
            value=435.0 if real else None,
            unit="fps",
            source="guide-002" if real else "",
            provenance=provenance,
        ),
        "device": DeviceInfo("npu-0", chip, toolchain={"driver": "23.0.0"}),
        "measurement": measured,
        **changes,
    }
    return samples.case(
        model, batch, "throughput", outcome, target=target, provenance=provenance, **given
    )


def write_run(
    folder: Path,
    cases: Sequence[CaseLine],
    *,
    name: str = "",
    lost: Sequence[CaseLine] = (),
    raw: Sequence[str] = (),
    **changes: Any,
) -> Path:
    """A run directory with these cases; `lost` were planned too, `raw` lines follow the cases."""
    run = name or cases[0].run
    about = {"run": run, "provenance": cases[0].provenance, "started": cases[0].started, **changes}
    records = samples.run_records(cases, lost=[*map(samples.planned, lost)], **about)
    return samples.write(folder / run, records, raw)


def write_nights(
    folder: Path, values: Sequence[float], *, first: int = 0, **changes: Any
) -> list[Path]:
    """One run a night, each with one throughput figure."""
    return [
        write_run(folder, [speed(value, number, **changes)])
        for number, value in enumerate(values, first)
    ]


def rewrite(directory: Path, change: dict[str, Any], kind: str = "case") -> None:
    """Change keys of every line of a kind."""
    path = directory / RESULTS
    lines = [json.loads(raw) for raw in path.read_text(encoding="utf-8").splitlines()]
    changed = [{**line, **change} if line["kind"] == kind else line for line in lines]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in changed), encoding="utf-8")
