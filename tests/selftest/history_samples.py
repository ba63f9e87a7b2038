"""Run directories of invented nights for the tests of history, merge and proposals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness.base.terms import Provenance
from harness.records.lines import CaseLine, EndLine, PlanLine, RunLine, count
from harness.records.values import Reference
from harness.records.writer import RESULTS
from tests.selftest import report_samples as samples

FIRST_NIGHT = datetime(2026, 9, 1, 2, 0, tzinfo=UTC)
CATALOG_DIGEST = "c4" * 32


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
    measurement: dict[str, Any] | None = None,
    setup: dict[str, Any] | None = None,
    **changes: Any,
) -> CaseLine:
    """A throughput case of one night on a chip."""
    real = provenance == "real"
    given: dict[str, Any] = {
        "run": f"night-{number:04d}",
        "provenance": provenance,
        "measured": fps,
        "started": night(number),
        "difference_percent": None,
        "reference": Reference(
            kind="baseline" if real else "none",
            value=435.0 if real else None,
            unit="fps",
            source="guide-002" if real else "",
            provenance=provenance,
        ),
        "device": {"id": "npu-0", "name": chip},
        "versions": {"python": "3.11.7", "driver": "23.0.0"},
        "measurement": {
            "fps": fps,
            "mean_ms": 1000 * batch / fps,
            "half_width_percent": 0.4,
            "loops": 400,
            "samples_ms": [round(1000 * batch / fps, 4)] * 20,
            "batch_size": batch,
            "precision_reached": True,
            "problems": [],
            "outputs_check": {"relative_l2": 0.004},
            "setup": {
                "driver": "api",
                "method": "pure-inference",
                "tuning": "none",
                "chip": chip,
                "card": "Atlas 300I Pro",
                "chips": 1,
                "toolchain": toolchain,
                **(setup or {}),
            },
            **(measurement or {}),
        },
        **changes,
    }
    outcome = given.pop("outcome", "passed")
    return samples.case(model, batch, "throughput", outcome, target=target, **given)


def write_run(
    folder: Path,
    cases: Sequence[CaseLine],
    *,
    name: str | None = None,
    provenance: Provenance | None = None,
    lost: Sequence[CaseLine] = (),
    end: bool = True,
    exit_status: int = 0,
    stopped: str = "",
    raw: Sequence[str] = (),
    **changes: Any,
) -> Path:
    """A run directory with these cases; `lost` were planned too, `raw` lines follow the cases."""
    first = cases[0] if cases else None
    run = name or (first.run if first else "empty")
    directory = folder / run
    directory.mkdir(parents=True)
    plan = [samples.planned(case) for case in (*cases, *lost)]
    counts = count(plan, cases)
    about: dict[str, Any] = {
        "run": run,
        "provenance": provenance or (first.provenance if first else "real"),
        "started": first.started if first else night(0),
        "command": ["pytest"],
        "git": "4f2c9e1",
        "catalog_digest": CATALOG_DIGEST,
        "machine": samples.MACHINE,
        "versions": samples.VERSIONS,
        **changes,
    }
    lines = [
        RunLine(**about).model_dump_json(),
        PlanLine(run=run, cases=plan).model_dump_json(),
        *(case.model_dump_json() for case in cases),
        *raw,
    ]
    if end:
        ending = EndLine(
            run=run,
            finished=about["started"],
            planned=len(plan),
            counts=counts,
            complete=not lost,
            stopped=stopped,
            exit_status=exit_status,
            seconds=60.0,
        )
        lines.append(ending.model_dump_json())
    (directory / RESULTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


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
    lines = []
    for raw in path.read_text(encoding="utf-8").splitlines():
        data = json.loads(raw)
        if data["kind"] == kind:
            data.update(change)
        lines.append(json.dumps(data))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
