"""What is written beside the report: right figures, no formula, no markup, the banner first."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import RecordError
from harness.base.terms import OUTCOMES
from harness.judge.causes import REMEMBERED
from harness.records.values import ErrorInfo, Reference
from harness.report import exports, render_html, summary_lines
from harness.report.exports import (
    append_step_summary,
    csv_text,
    md_text,
    results_csv,
    summary_json,
    summary_markdown,
    write_all,
)
from harness.report.findings import whys
from harness.report.junit import junit_xml
from harness.report.why import first_screen
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest.running import ROOT

EVERYTHING = samples.all_outcomes()
EVIL = "=cmd|' /C calc'!A0 <img src=x> | [x](http://a.b) @you \x1b[31m`*_~ \n# head"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- All three ------------------------------------------------------------------------------


def test_every_planned_case_is_in_all_of_them():
    lost = samples.planned(samples.case("resnest50", 64))
    found = samples.run_records(EVERYTHING.cases, lost=[lost], exit_status=1)
    data = json.loads(summary_json(found))
    assert len(data["cases"]) == len(rows(results_csv(found))) == 21
    assert sum(data["counts"].values()) == data["planned"] == 21
    assert {case["outcome"] for case in data["cases"]} == set(OUTCOMES)
    assert data["counts"]["not_run"] == 2
    assert not data["complete"]
    assert "| resnest50 |" in summary_markdown(found)
    assert "batch 64" in summary_markdown(found)


def test_the_files_of_a_run(tmp_path):
    run = nights.write_run(tmp_path, [nights.speed(500)])
    paths = write_all(run)
    names = ["summary.json", "results.csv", "summary.md", "junit.xml"]
    assert [path.name for path in paths] == names
    assert {path.name for path in run.iterdir()} == {"results.jsonl", *(p.name for p in paths)}
    with pytest.raises(RecordError):
        write_all(tmp_path / "none")


@pytest.mark.parametrize(("kind", "word"), [("rehearsal", "REHEARSAL"), ("simulated", "SIMULATED")])
def test_a_run_that_is_not_real_says_so_first_and_nothing_of_others(kind, word):
    published = Reference(kind="published", value=81.13, unit="%", source="guide-002")
    case = samples.case(
        "resnest50", 1, provenance=kind, reference=published, difference_percent=-0.31,
        sentence="accepted: 80.98 % against the published 81.13 %",
    )  # fmt: skip
    found = samples.run_records([case], provenance=kind)
    assert summary_markdown(found).startswith(f"> **{word}")
    data = json.loads(summary_json(found))
    assert data["banners"][0].startswith(word)
    (row,) = rows(results_csv(found))
    assert row["provenance"] == kind
    assert row["reference"] == row["difference_percent"] == row["reference_kind"] == ""
    for text in (summary_json(found), results_csv(found), summary_markdown(found)):
        assert "81.13" not in text
        assert "accepted" not in text.lower()


PLACES = ("sentence", "message", "remedy", "log", "attempt", "artifact", "check")


@pytest.mark.parametrize("kind", ["rehearsal", "simulated"])
@pytest.mark.parametrize("place", PLACES)
def test_a_figure_of_others_is_said_nowhere_whatever_field_holds_it(kind, place):
    words = "top-1 78.10 % against 78.26 % published: within 1 %"
    case = samples.case("resnest50", 1, outcome="error", provenance=kind)
    failed = samples.case("resnest50", 4, outcome="failed", provenance=kind)
    check = samples.batch_check(outcome="failed", provenance=kind, target="cpu")
    error = case.error
    assert error is not None
    if place == "sentence":
        case, failed = (one.model_copy(update={"sentence": words}) for one in (case, failed))
    elif place == "check":
        check = check.model_copy(update={"sentence": words})
    elif place == "attempt":
        attempt = {"device": "npu-0", "stage": "device", "error": words, "why": words}
        device = {**case.device, "failed_before": [attempt]}
        case = case.model_copy(update={"device": device})
    elif place == "artifact":
        built = case.artifacts[2].model_copy(update={"log": f"before\n{words}\nafter"})
        case = case.model_copy(update={"artifacts": [built]})
    else:
        text = f"before\n{words}\nafter" if place == "log" else words
        case = case.model_copy(update={"error": error.model_copy(update={place: text})})
    found = samples.run_records([case, failed], provenance=kind, checks=[check], exit_status=1)
    texts = {
        "report": render_html(found),
        "terminal": "\n".join(summary_lines(found)),
        "why": "\n".join(first_screen(found).lines),
        "junit": junit_xml(found),
        "json": summary_json(found),
        "csv": results_csv(found),
        "markdown": summary_markdown(found),
    }
    assert [name for name, text in texts.items() if "78.26" in text or "78.10" in text] == []
    if place in ("log", "artifact"):  # the other lines of a tool's log stay
        assert "before\n[withheld]\nafter" in texts["report"]


def test_no_torch_is_needed(tmp_path):
    run = nights.write_run(tmp_path, [nights.speed(500)])
    code = (
        "import sys; from pathlib import Path; from harness.report.exports import write_all;"
        "write_all(Path(sys.argv[1]));"
        "bad = {'torch', 'onnx', 'onnxruntime', 'timm', 'torchvision'} & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_real_run_has_its_figures(tmp_path):
    found = samples.run_records([nights.speed(500.25, outcome="failed")], provenance="real")
    (row,) = rows(results_csv(found))
    assert (row["measured"], row["reference"], row["unit"]) == ("500.25", "435", "fps")
    assert row["reference_kind"] == "baseline"
    (case,) = json.loads(summary_json(found))["cases"]
    assert case["reference"] == {"kind": "baseline", "value": 435.0}
    assert "REHEARSAL" not in summary_markdown(found)


# --- CSV ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\r\n=1", "＝1", "\x00=1", "\x1b[0m=1"]
)
def test_a_formula_is_text(text):
    assert csv_text(text)[0] in ("'", "\N{REPLACEMENT CHARACTER}")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_text_begins_a_formula_or_a_line(text):
    cell = csv_text(text)
    assert not re.match(r"\s*[=+\-@\t\r]", cell)
    assert "\n" not in cell
    assert "\r" not in cell


def test_foreign_text_in_every_column_stays_in_its_cell():
    case = samples.case(
        EVIL, 1, "throughput", "error", target=EVIL, case=EVIL, nodeid=EVIL,
        sentence=EVIL, device={"name": EVIL}, run=EVIL, started=EVIL, unit=EVIL,
    )  # fmt: skip
    found = samples.run_records([case])
    (row,) = rows(results_csv(found))
    assert set(row) == set(exports.COLUMNS)
    for name, value in row.items():
        assert not re.match(r"\s*[=+@]", value), name
        assert None is not value
    assert row["model"].startswith("'=cmd")


def test_a_negative_number_stays_a_number():
    found = samples.run_records([samples.case(difference_percent=-9.25)])
    assert rows(results_csv(found))[0]["difference_percent"] == "-9.25"


# --- Markdown -------------------------------------------------------------------------------


def test_failures_come_before_the_matrix():
    text = summary_markdown(EVERYTHING)
    lines = [line for line in text.splitlines() if line]
    assert lines[0].startswith("> **REHEARSAL**")
    assert lines[1].startswith("## ✗ ")
    assert text.index("### Needs a look") < text.index("### Accuracy on cpu")
    table = text[text.index("### Needs a look") : text.index("### Accuracy")]
    assert "failed" in table.splitlines()[4]
    assert "20 planned = 13 passed + 1 failed" in text


def test_one_failed_build_is_one_row():
    error = ErrorInfo(type="X", stage="export", message="torch would not")
    again = error.model_copy(update={"message": error.message + REMEMBERED})
    cases = [
        samples.case("fixres", batch, check, "error", error=error if check == "accuracy" else again)
        for batch in (1, 4)
        for check in ("accuracy", "throughput")
    ]
    text = summary_markdown(samples.run_records(cases))
    table = text[text.index("### Needs a look") : text.index("### Accuracy")].splitlines()
    (row,) = [line for line in table if "torch would not" in line]
    assert "fixres bs 1, 4 on cpu: export failed (accuracy and throughput)" in row
    assert "not tried again" not in row


def test_a_run_that_is_red_by_a_check_alone_says_which_and_why():
    cases = [samples.real_accuracy("seresnext101", batch) for batch in (1, 4)]
    checks = [samples.batch_check(outcome="failed"), samples.batch_check("fixres")]
    found = samples.run_records(cases, provenance="real", checks=checks, exit_status=1)
    said = "batch size 4 is right on 93 images of 50000 less than batch size 1"
    text = summary_markdown(found)
    assert f"- The model failed: {said} (batch sizes of seresnext101 on ascend310p3)" in text
    assert f"| ✗ failed | batch sizes of seresnext101 on ascend310p3 | {said} |" in text
    assert "of fixres" not in text  # it holds
    data = json.loads(summary_json(found))
    assert data["whys"] == [why.text for why in whys(found)]
    assert [(check["subject"], check["outcome"]) for check in data["checks"]] == [
        ("seresnext101 on ascend310p3", "failed"),
        ("fixres on ascend310p3", "passed"),
    ]
    assert data["checks"][0]["sentence"] == said


def test_what_to_do_stands_beside_what_failed():
    records = samples.run_records([samples.case("m", 1, outcome="error")])
    (row,) = [line for line in summary_markdown(records).splitlines() if "What to do" in line]
    assert row.endswith(
        "<br>**What to do:** compare the operator set with what the target supports |"
    )
    failed = samples.run_records([samples.case("m", 1, outcome="failed")])
    assert "What to do" not in summary_markdown(failed)


def test_nothing_in_a_record_becomes_markup():
    case = samples.case(EVIL, 1, "accuracy", "failed", case=EVIL, sentence=EVIL)
    text = summary_markdown(samples.run_records([case]))
    assert "<img" not in text
    assert "\x1b" not in text
    assert not re.search(r"(?<!\\)\](?=[(\[])", text)
    assert "://a.b" not in text
    assert not re.search(r"(?<!\\)`", text)
    assert "\n# head" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_escaped_text_is_one_line_without_markup(text):
    found = md_text(text)
    assert "\n" not in found
    assert "<" not in found
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*\[\]{}#!]", re.sub(r"&#?\w+;", "", found))


def test_names_stay_readable():
    assert md_text("squeezenet1_1") == "squeezenet1_1"
    assert md_text("_a_") == "\\_a\\_"


def test_the_step_summary_is_appended_to(tmp_path):
    target = tmp_path / "summary"
    target.write_text("before\n")
    environment = {"GITHUB_STEP_SUMMARY": str(target)}
    assert append_step_summary(EVERYTHING, environment) == target
    assert target.read_text().startswith("before\n> **REHEARSAL**")
    assert append_step_summary(EVERYTHING, {}) is None
    target.write_bytes(b"x" * exports.STEP_SUMMARY_BYTES)
    assert append_step_summary(EVERYTHING, environment) is None
    with pytest.raises(RecordError, match=r"cannot append"):
        append_step_summary(EVERYTHING, {"GITHUB_STEP_SUMMARY": str(Path("/nowhere/at/all/x"))})


def test_junit_holds_every_case_also_one_that_never_ran(tmp_path):
    import xml.etree.ElementTree as ET

    nasty = nights.speed(500.0, outcome="failed").model_copy(
        update={"sentence": "too <slow> & \x00 bad"}
    )
    found = samples.run_records([nasty], provenance="real")
    lost = found.plan[0].model_copy(update={"nodeid": "test_throughput[lost]", "case": "lost"})
    found = dataclasses.replace(found, plan=(*found.plan, lost))
    suite = ET.fromstring(junit_xml(found)).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    failure = suite.find(".//failure")
    assert failure is not None
    message = failure.get("message", "")
    assert message.startswith("too <slow> & ")
    assert "\x00" not in message


def test_a_simulated_junit_says_so_first(tmp_path):
    case = nights.speed(500.0, outcome="recorded").model_copy(update={"provenance": "simulated"})
    text = junit_xml(samples.run_records([case], provenance="simulated"))
    assert text.index("SIMULATED") < text.index("<testcase")
