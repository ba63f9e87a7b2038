"""`metrics.prom`: a run in Prometheus' text format, for the textfile collector of node_exporter.

No series has the run's name: each keeps its labels from night to night.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from harness.base.terms import OUTCOMES
from harness.pages import formats
from harness.records.reader import RunRecords
from harness.report.view import view

_HELP = {
    "exit_code": "Exit code of the run.",
    "finished_timestamp_seconds": "When the run ended.",
    "cases": "Cases of the run by outcome.",
    "case_outcome": "1 beside the outcome of each case.",
    "top1_percent": "Top-1 of a case.",
    "frames_per_second": "Throughput of a case.",
    "power_watts": "Mean power of the device during a throughput, as its tool shows it.",
    "images_per_joule": "Throughput divided by that power.",
}
_MEASURED = {"%": "top1_percent", "fps": "frames_per_second"}

Sample = tuple[str, dict[str, str], float | None]


def metrics_text(records: RunRecords) -> str:
    """Return the run as gauges; a figure that is not known or not finite has no line."""
    series: dict[str, dict[str, float]] = {name: {} for name in _HELP}
    for name, labels, value in (*_of_run(records), *_of_cases(records)):
        if value is not None and math.isfinite(value):
            # By labels: two lines of one series would cost the whole file.
            text = ",".join(f'{label}="{_escaped(one)}"' for label, one in labels.items())
            series[name][text] = value
    lines = []
    for name, samples in series.items():
        if samples:
            full = f"npu_acceptance_{name}"
            lines += [f"# HELP {full} {_HELP[name]}", f"# TYPE {full} gauge"]
            lines += [f"{full}{{{labels}}} {value!r}" for labels, value in samples.items()]
    return "\n".join(lines) + "\n"


def _of_run(records: RunRecords) -> Iterator[Sample]:
    targets = sorted({planned.target for planned in records.plan})
    kinds = sorted(view(records).shown.kinds)
    labels = {"target": ",".join(targets), "provenance": ",".join(kinds)}
    yield "exit_code", labels, records.exit_status
    if records.end is not None:
        yield "finished_timestamp_seconds", labels, _seconds(records.end.finished)
    counts = records.counts()
    for outcome in OUTCOMES:
        yield "cases", {**labels, "outcome": outcome}, counts[outcome]


def _of_cases(records: RunRecords) -> Iterator[Sample]:
    for case in view(records).cases:
        line = case.line
        labels = {
            "model": line.model,
            "batch_size": str(line.batch_size),
            "target": line.target,
            "check": line.check,
            "provenance": line.provenance,
        }
        yield "case_outcome", {**labels, "outcome": line.outcome}, 1
        if line.unit in _MEASURED:
            yield _MEASURED[line.unit], labels, line.measured
        if line.throughput is not None:
            yield "power_watts", labels, line.throughput.power_w
            yield "images_per_joule", labels, line.throughput.images_per_joule


def _seconds(moment: str) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError):
        return None


def _escaped(value: str) -> str:
    text = formats.line(value, 200).replace("\\", r"\\").replace('"', r"\"")
    return text.encode(errors="replace").decode()
