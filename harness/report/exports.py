"""What is written beside the report: `summary.json`, `results.csv`, `summary.md`, `junit.xml`.

From the records alone, like the report, and with its rules: a run that is not real carries its
banner first and states no figure of others. Needs no torch and no runtime.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import __version__
from harness.base.errors import RecordError
from harness.records import reader
from harness.records.lines import CaseLine
from harness.records.reader import RunRecords
from harness.report import figures, findings, headline, page, provenance
from harness.report.cases import Anchors, CaseView
from harness.report.checks import CheckView, check_views
from harness.report.headline import ATTENTION, Look
from harness.report.junit import junit_xml

SUMMARY_JSON = "summary.json"
RESULTS_CSV = "results.csv"
SUMMARY_MD = "summary.md"
JUNIT_XML = "junit.xml"
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
STEP_SUMMARY_BYTES = 1 << 20  # GitHub drops a step's summary that is larger
SUMMARY_SCHEMA = 1
ATTENTION_SHOWN = 40
LONGEST_CELL = 300

COLUMNS = (
    "model",
    "batch_size",
    "target",
    "check",
    "provenance",
    "outcome",
    "measured",
    "unit",
    "reference_kind",
    "reference",
    "difference_percent",
    "sentence",
    "error_stage",
    "error",
    "device",
    "host",
    "started",
    "seconds",
    "case",
    "nodeid",
    "run",
)


def _comparison(view: CaseView, case: CaseLine | None) -> tuple[str, float | None, float | None]:
    """Kind and value of the reference, and the difference; nothing where it must not be shown."""
    if case is None or case.reference is None or view.withheld:
        return "", None, None
    return (
        case.reference.kind,
        figures.number(case.reference.value),
        figures.number(case.difference_percent),
    )


def _scrubbed(found: RunRecords, text: str) -> str:
    return text if provenance.is_real(found) else provenance.scrub(text)


# --- JSON -----------------------------------------------------------------------------------


def summary_json(found: RunRecords) -> str:
    """The run in one JSON object: verdict, counts, and a few figures of each case.

    `schema_version` grows when a key changes its meaning; keys are only added otherwise.
    """
    run, end, line = found.run, found.end, headline.headline(found)
    data: dict[str, Any] = {
        "schema_version": SUMMARY_SCHEMA,
        "harness": __version__,
        "run": run.run if run else found.directory.name,
        "provenance": sorted(provenance.kinds(found)),
        "banners": [banner.text for banner in provenance.banners(found)],
        "verdict": line.text,
        "tone": line.tone,
        "reasons": list(line.more),
        "whys": [why.text for why in findings.whys(found)],
        "planned": len(found.plan),
        "counts": found.counts(),
        "sum_holds": headline.reconcile(found).holds,
        "complete": bool(end and end.complete) and not line.incomplete,
        "exit_status": end.exit_status if end else None,
        "damaged_lines": len(found.damaged),
        "started": run.started if run else "",
        "finished": end.finished if end else "",
        "seconds": end.seconds if end else None,
        "git": run.git if run else "",
        "catalog_digest": run.catalog_digest if run else "",
        "host": run.machine.hostname if run else "",
        "versions": run.versions if run else {},
        "checks": [_json_check(check) for check in check_views(found, Anchors(), None)],
        "cases": [_json_case(view, case) for view, case in page.pairs(found)],
    }
    # Half a surrogate pair cannot be written as UTF-8, so nothing but ASCII is.
    return _scrubbed(found, json.dumps(data, indent=1, ensure_ascii=True)) + "\n"


def _json_case(view: CaseView, case: CaseLine | None) -> dict[str, Any]:
    kind, value, difference = _comparison(view, case)
    data: dict[str, Any] = {
        "case": view.name,
        "model": view.model,
        "batch_size": view.batch_size,
        "target": view.target,
        "check": view.check,
        "provenance": view.provenance,
        "outcome": view.look.outcome,
        "sentence": view.sentence,
        "measured": figures.number(case.measured) if case else None,
        "unit": case.unit if case else "",
        "reference": {"kind": kind, "value": value} if kind else None,
        "difference_percent": difference,
        "seconds": case.seconds if case else None,
        "nodeid": view.nodeid,
    }
    if view.error is not None:
        error = view.error
        data["error"] = {"type": error.type, "stage": error.stage, "message": error.message}
    return data


def _json_check(check: CheckView) -> dict[str, Any]:
    """What is judged over the cases: batch sizes, ratios of chips."""
    return {
        "name": check.name,
        "subject": check.subject,
        "outcome": check.look.outcome,
        "sentence": check.sentence,
    }


# --- CSV ------------------------------------------------------------------------------------

# A spreadsheet takes a cell that begins so for a formula, also after spaces.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def csv_text(value: str) -> str:
    """Text for a cell, on one line, that no spreadsheet takes for a formula."""
    text = figures.line(value, 2_000)
    return f"'{text}" if _FORMULA.match(text) else text


def results_csv(found: RunRecords) -> str:
    """One line for each case, with a header; RFC 4180 with line feeds, decimal points, UTF-8."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for view, case in page.pairs(found):
        kind, value, difference = _comparison(view, case)
        error = view.error
        texts: dict[str, str] = {
            "model": view.model,
            "target": view.target,
            "check": view.check,
            "provenance": view.provenance,
            "outcome": view.look.outcome,
            "unit": case.unit if case else "",
            "reference_kind": kind,
            "sentence": view.sentence,
            "error_stage": error.stage if error else "",
            "error": error.message if error else "",
            "device": figures.scalar(case.device.get("name")) if case and case.device else "",
            "host": case.machine.hostname if case else "",
            "started": case.started if case else "",
            "case": view.name,
            "nodeid": view.nodeid,
            "run": case.run if case else (found.run.run if found.run else ""),
        }
        # Numbers are ours: written plainly, so that a minus is no formula to anyone.
        numbers: dict[str, float | None] = {
            "batch_size": view.batch_size,
            "measured": figures.number(case.measured) if case else None,
            "reference": value,
            "difference_percent": difference,
            "seconds": figures.number(case.seconds) if case else None,
        }
        writer.writerow(
            csv_text(texts[name])
            if name in texts
            else ("" if numbers[name] is None else f"{numbers[name]:.10g}")
            for name in COLUMNS
        )
    return _scrubbed(found, stream.getvalue())


# --- Markdown -------------------------------------------------------------------------------

_MARKED_UP = re.compile(r"([\\`*\[\]{}|~#!$])")
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def md_text(value: str, limit: int = LONGEST_CELL) -> str:
    """Text for one line of GitHub's Markdown, in which nothing is markup, a link or a mention."""
    text = figures.line(value, limit)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKED_UP.sub(r"\\\1", text)
    text = _UNDERSCORE.sub(r"\\_", text)  # within a word it is none: names stay readable
    text = text.replace("://", ":&#8203;//").replace("www.", "www&#8203;.")
    return text.replace("@", "@&#8203;")


def _md_table(rows: list[list[str]]) -> list[str]:
    """Cells are escaped already; the first row is the head."""
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in body]


def _md_cell(cases: tuple[CaseView, ...]) -> str:
    texts = []
    for case in cases:
        parts = [case.look.sign]
        if case.measured != figures.NO_VALUE:
            parts.append(f"**{md_text(case.measured)}**")
        if case.look.outcome != "passed" or len(parts) == 1:
            parts.append(case.look.word)
        if case.difference != figures.NO_VALUE:
            parts.append(f"({md_text(case.difference)})")
        texts.append(" ".join(parts))
    return "<br>".join(texts)


_TONES = {
    "good": "\N{CHECK MARK}",
    "bad": "\N{BALLOT X}",
    "warn": "?",
    "neutral": "\N{BLACK CIRCLE}",
}


def summary_markdown(found: RunRecords) -> str:
    """The run for a pull request or a job's page: banner, verdict, what failed and why, matrix."""
    line = headline.headline(found)
    lines = [
        f"> **{banner.word}** \N{EM DASH} {md_text(banner.sentence)}\n"
        for banner in provenance.banners(found)
    ]
    lines += [f"## {_TONES[line.tone]} {md_text(line.text, 600)}", ""]
    lines += [f"- {md_text(reason)}" for reason in line.more]
    lines += [f"- {md_text(why.text, 600)}" for why in findings.whys(found)]
    views = page.case_views(found)
    lines += _md_attention(found, views)
    for matrix in page.matrices(views):
        title = f"{matrix.check.capitalize()} on {md_text(matrix.target)}, {md_text(matrix.unit)}"
        rows = [["model", *(f"batch {size}" for size in matrix.batch_sizes)]]
        rows += [[md_text(model), *map(_md_cell, cells)] for model, _, cells in matrix.rows]
        lines += ["", f"### {title}", "", *_md_table(rows)]
    lines += ["", md_text(headline.reconcile(found).text, 600)]
    if found.run is not None:
        about = (found.run.run, found.run.started, found.run.machine.hostname, found.run.git)
        lines += ["", f"<sub>{md_text(', '.join(part for part in about if part))}</sub>"]
    return _scrubbed(found, "\n".join(lines).strip() + "\n")


def _md_attention(found: RunRecords, views: list[CaseView]) -> list[str]:
    # First what is said of the run, of which there is little.
    rows = [
        _md_row(check.look, f"{check.name} of {check.subject}", check.sentence)
        for check in check_views(found, Anchors(), None)
        if check.look.outcome in ATTENTION
    ]
    rows += [
        _md_row(entry.look, entry.title, entry.text, entry.remedy)
        for entry in findings.entries(found, views)
    ]
    if not rows:
        return []
    left = len(rows) - ATTENTION_SHOWN
    rows = [["", "what", "why"], *rows[:ATTENTION_SHOWN]]
    more = ["", f"and {left:,} more, in the report"] if left > 0 else []
    return ["", "### Needs a look", "", *_md_table(rows), *more]


def _md_row(look: Look, what: str, why: str, remedy: str = "") -> list[str]:
    told = f"<br>**What to do:** {md_text(remedy, 600)}" if remedy else ""
    return [f"{look.sign} {look.word}", md_text(what), md_text(why) + told]


# --- Files ----------------------------------------------------------------------------------


def write_all(run_dir: Path) -> list[Path]:
    """Write `summary.json`, `results.csv`, `summary.md` and `junit.xml` of a run; their paths.

    Each file is replaced in one step.

    Raises:
        RecordError: there are no records, or a file cannot be written.
    """
    found = reader.read(run_dir)
    texts = {
        SUMMARY_JSON: summary_json(found),
        RESULTS_CSV: results_csv(found),
        SUMMARY_MD: summary_markdown(found),
        JUNIT_XML: junit_xml(found),
    }
    return [_replace(found.directory / name, text) for name, text in texts.items()]


def _replace(path: Path, text: str) -> Path:
    staged = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            with staged.open("x", encoding="utf-8", errors="replace", newline="") as file:
                file.write(text)
            staged.replace(path)
        finally:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror or error}",
            remedy="free disk space or check who owns the run directory",
        ) from error
    return path


def append_step_summary(found: RunRecords, environment: Mapping[str, str]) -> Path | None:
    """Append the Markdown summary to the file that `$GITHUB_STEP_SUMMARY` names.

    Returns None where the variable is not set, or the file would grow past what GitHub shows.

    Raises:
        RecordError: the file cannot be written.
    """
    name = environment.get(STEP_SUMMARY)
    if not name:
        return None
    path = Path(name)
    text = f"{summary_markdown(found)}\n".encode(errors="replace")
    try:
        size = path.stat().st_size if path.exists() else 0
        if size + len(text) > STEP_SUMMARY_BYTES:
            return None
        with path.open("ab") as file:
            file.write(text)
    except OSError as error:
        raise RecordError(
            f"cannot append to {path}: {error.strerror or error}",
            remedy=f"check ${STEP_SUMMARY}, or unset it",
        ) from error
    return path
