"""What is written beside the report: summaries, `results.csv`, `junit.xml`, `metrics.prom`.

From the view of the run, like the report: a run that is not real carries its banner first and
states no figure of others. Needs no torch and no runtime.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness import __version__
from harness.base import files
from harness.base.errors import RecordError, on_disk
from harness.pages import formats
from harness.pages.words import spoken
from harness.records.reader import RunRecords
from harness.report import headline
from harness.report.cases import CaseView
from harness.report.junit import junit_xml
from harness.report.markdown import summary_markdown
from harness.report.metrics import metrics_text
from harness.report.view import view

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
STEP_SUMMARY_BYTES = 1 << 20  # GitHub drops a step's summary that is larger
SUMMARY_SCHEMA = 2
LONGEST_CELL = 2_000


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# A case as `results.csv` and `summary.json` have it.
COLUMNS: dict[str, Callable[[CaseView], str | float | None]] = {
    "model": lambda case: case.line.model,
    "batch_size": lambda case: case.line.batch_size,
    "target": lambda case: case.line.target,
    "check": lambda case: case.line.check,
    "provenance": lambda case: case.line.provenance,
    "outcome": lambda case: case.line.outcome,
    "measured": lambda case: _finite(case.line.measured),
    "unit": lambda case: case.line.unit,
    "reference_kind": lambda case: case.reference.kind if case.reference else "",
    "reference": lambda case: _finite(case.reference.value) if case.reference else None,
    "difference_percent": lambda case: _finite(case.line.difference_percent),
    "sentence": lambda case: case.line.sentence,
    "error_stage": lambda case: str(case.line.error.stage) if case.line.error else "",
    "error": lambda case: case.line.error.message if case.line.error else "",
    "device": lambda case: case.line.device.name if case.line.device else "",
    "host": lambda case: case.line.machine.hostname,
    "started": lambda case: case.line.started,
    "seconds": lambda case: case.line.seconds if case.line.started else None,
    "case": lambda case: case.line.case,
    "nodeid": lambda case: case.line.nodeid,
    "run": lambda case: case.line.run,
}


def _flat(
    case: CaseView, write: Callable[[str], str] = formats.clip
) -> dict[str, str | float | None]:
    """The columns of a case; `write` makes foreign text harmless."""
    values = {name: column(case) for name, column in COLUMNS.items()}
    return {name: write(one) if isinstance(one, str) else one for name, one in values.items()}


def summary_json(records: RunRecords) -> str:
    """Return the run as one JSON object: verdict, counts, and the columns of each case.

    `schema_version` grows when a key changes its meaning; keys are only added otherwise.
    """
    page, run, end = view(records), records.run, records.end
    data: dict[str, Any] = {
        "schema_version": SUMMARY_SCHEMA,
        "harness": __version__,
        "run": run.run if run else records.directory.name,
        "provenance": sorted(page.shown.kinds),
        "banners": [banner.text for banner in page.banners],
        "verdict": page.headline.text,
        "tone": page.headline.tone,
        "reasons": list(page.headline.more),
        "whys": [why.text for why in page.whys],
        "planned": len(records.plan),
        "counts": page.records.counts(),
        "sum_holds": page.sum.holds,
        "complete": not headline.incomplete(page.shown),
        "exit_status": end.exit_status if end else None,
        "damaged_lines": len(records.damaged),
        "started": run.started if run else "",
        "finished": end.finished if end else "",
        "seconds": end.seconds if end else None,
        "git": run.git if run else "",
        "catalog_digest": run.catalog_digest if run else "",
        "host": run.machine.hostname if run else "",
        "versions": dict(run.versions) if run else {},
        "checks": [
            check.line.model_dump(include={"name", "subject", "outcome", "sentence"})
            for check in page.checks
        ],
        "cases": [_flat(case) for case in page.cases],
    }
    # Half a surrogate pair cannot be written as UTF-8, so nothing but ASCII is.
    return json.dumps(data, indent=1, ensure_ascii=True) + "\n"


# A spreadsheet takes a cell that begins so for a formula, also after spaces.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def csv_text(value: str) -> str:
    """Return text for a cell, on one line, that no spreadsheet takes for a formula."""
    text = formats.line(value, LONGEST_CELL)
    return f"'{text}" if _FORMULA.match(text) else text


def results_csv(records: RunRecords) -> str:
    """Return one line for each case, with a header; RFC 4180 with line feeds, decimal points."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for case in view(records).cases:
        # Numbers are ours: written plainly, so that a minus is no formula to anyone.
        cells = _flat(case, csv_text).values()
        writer.writerow(f"{one:.10g}" if isinstance(one, float | int) else one for one in cells)
    return stream.getvalue()


def write_all(records: RunRecords) -> list[Path]:
    """Write the summaries, `results.csv`, `junit.xml` and `metrics.prom` of a run; their paths.
    Raises `RecordError`: a file cannot be written.
    """
    with spoken("en"):  # what programs read
        texts = {
            "summary.json": summary_json(records),
            "results.csv": results_csv(records),
            "junit.xml": junit_xml(records),
            "metrics.prom": metrics_text(records),
        }
    texts["summary.md"] = summary_markdown(records)
    remedy = "free disk space or check who owns the run directory"
    return [
        files.replace_file(records.directory / name, text, remedy=remedy)
        for name, text in texts.items()
    ]


def append_step_summary(records: RunRecords, environment: Mapping[str, str]) -> Path | None:
    """Append the Markdown summary to the file that `$GITHUB_STEP_SUMMARY` names.

    Returns None where the variable is not set, or the file would grow past what GitHub shows.
    Raises `RecordError`: the file cannot be written.
    """
    name = environment.get(STEP_SUMMARY)
    if not name:
        return None
    path = Path(name)
    text = f"{summary_markdown(records)}\n".encode(errors="replace")
    remedy = f"check ${STEP_SUMMARY}, or unset it"
    with on_disk(RecordError, f"cannot append to {path}", remedy):
        size = path.stat().st_size if path.exists() else 0
        if size + len(text) > STEP_SUMMARY_BYTES:
            return None
        with path.open("ab") as file:
            file.write(text)
    return path
