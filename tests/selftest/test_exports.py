"""What is written beside the report: right figures, no formula, no markup, the banner first."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.base.terms import OUTCOMES
from harness.records import reader
from harness.records.observed import ErrorInfo
from harness.records.reader import RunRecords
from harness.report import exports
from harness.report.exports import append_step_summary, csv_text, results_csv, summary_json
from harness.report.junit import junit_xml
from harness.report.markdown import escaped, summary_markdown
from harness.report.metrics import metrics_text
from harness.report.view import view
from tests.selftest import report_samples as samples

EVERYTHING = samples.all_outcomes()
EVIL = "=cmd|' /C calc'!A0 <img src=x> | [x](http://a.b) @you \x1b[31m`*_~ \n# head"


def rows(records: RunRecords) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(results_csv(records))))


def suite(records: RunRecords) -> ET.Element:
    found = ET.fromstring(junit_xml(records)).find("testsuite")
    assert found is not None
    return found


def attention(text: str) -> list[str]:
    """The lines of the table of what needs a look."""
    return text[text.index("### Needs a look") : text.index("### Accuracy")].splitlines()


# --- All of them ----------------------------------------------------------------------------


def test_every_planned_case_is_in_all_of_them() -> None:
    lost = samples.planned(samples.case("resnest50", 64))
    found = samples.run_records(EVERYTHING.cases, lost=[lost], exit_status=1)
    data = json.loads(summary_json(found))
    assert len(data["cases"]) == len(rows(found)) == 21
    names = ("tests", "failures", "errors", "skipped")
    assert [suite(found).get(name) for name in names] == ["21", "1", "4", "2"]
    assert sum(data["counts"].values()) == data["planned"] == 21
    assert {case["outcome"] for case in data["cases"]} == set(OUTCOMES)
    assert data["counts"]["not_run"] == 2
    assert not data["complete"]
    assert data["cases"][-1]["seconds"] is None
    assert "| resnest50 |" in summary_markdown(found)
    assert "batch 64" in summary_markdown(found)


def test_the_files_of_a_run(tmp_path: Path) -> None:
    run = samples.write(tmp_path / "run", samples.real_run())
    paths = exports.write_all(reader.read(run))
    names = ["summary.json", "results.csv", "junit.xml", "metrics.prom", "summary.md"]
    assert [path.name for path in paths] == names
    assert {path.name for path in run.glob("[!.]*")} == {"results.jsonl", *names}
    with pytest.raises(RecordError):
        exports.write_all(reader.read(tmp_path / "none"))


LINE = re.compile(r'npu_acceptance_(\w+)\{((?:\w+="(?:[^"\\\n]|\\[\\n"])*",?)*)\} (\S+)')


def metrics(records: RunRecords) -> dict[tuple[str, str], float]:
    """The samples by name and labels; every line is one of the text format's, and none twice."""
    lines = [one for one in metrics_text(records).splitlines() if not one.startswith("# ")]
    matches = [LINE.fullmatch(one) for one in lines]
    found = {(one[1], one[2]): float(one[3]) for one in matches if one is not None}
    assert len(found) == len(lines)
    return found


def test_metrics_have_each_figure_once_and_none_that_is_not_known() -> None:
    alike = [samples.case("a", 1), samples.case("a", 1, nodeid="another")]
    looks = samples.conditions()
    power = replace(samples.throughput_measurement(4), conditions=looks)
    line = samples.case(EVIL, 4, "throughput", conditions=looks)
    found = metrics(samples.run_records([*alike, line, samples.case("b", 8, "throughput")]))
    about = 'target="cpu",provenance="rehearsal"'
    assert found["exit_code", about] == 0
    assert found["cases", f'{about},outcome="passed"'] == 4
    assert found["finished_timestamp_seconds", about] > 1.7e9
    watts = [one.power_w for one in looks if one.moment == "during"]
    ((_, mean),) = ((key, one) for key, one in found.items() if key[0] == "power_watts")
    ((_, images),) = ((key, one) for key, one in found.items() if key[0] == "images_per_joule")
    assert mean == pytest.approx(sum(one or 0 for one in watts) / len(watts))
    assert images == pytest.approx(power.timing.fps / mean)
    assert [key[0] for key in found].count("frames_per_second") == 2
    assert [key[0] for key in found].count("top1_percent") == 1


def test_a_run_that_was_killed_has_metrics() -> None:
    found = metrics(replace(samples.run_records([samples.case("a", 1)]), end=None))
    assert {one for (name, _), one in found.items() if name == "exit_code"} == {7}
    assert not [name for name, _ in found if name == "finished_timestamp_seconds"]


def test_a_case_has_its_figures() -> None:
    found = samples.run_records([samples.real_throughput("fixres", 1)], provenance="real")
    (row,) = rows(found)
    assert (row["measured"], row["reference"], row["unit"]) == ("911.43324", "893.562", "fps")
    assert (row["reference_kind"], row["difference_percent"]) == ("baseline", "2")
    (case,) = json.loads(summary_json(found))["cases"]
    assert list(case) == list(row)
    assert case["measured"] == pytest.approx(911.43324)
    odd = samples.run_records([samples.case(measured=float("nan"))])  # no number: left out
    assert rows(odd)[0]["measured"] == ""
    assert json.loads(summary_json(odd))["cases"][0]["measured"] is None


def test_a_run_that_is_red_by_a_check_alone_says_which_and_why() -> None:
    cases = [samples.real_accuracy("seresnext101", batch) for batch in (1, 4)]
    checks = [samples.batch_check(outcome="failed"), samples.batch_check("fixres")]
    found = samples.run_records(cases, provenance="real", checks=checks, exit_status=1)
    said = "batch size 4 is right on 93 images of 50000 less than batch size 1"
    text = summary_markdown(found)
    row = f"✗ failed | batch sizes of seresnext101 on ascend310p3 | The model failed: {said}"
    assert f"| {row} |" in text
    assert "of fixres" not in text  # it holds
    data = json.loads(summary_json(found))
    assert data["whys"] == [why.text for why in view(found).whys]
    assert [tuple(check.values())[:3] for check in data["checks"]] == [
        ("batch sizes", "seresnext101 on ascend310p3", "failed"),
        ("batch sizes", "fixres on ascend310p3", "passed"),
    ]
    assert data["checks"][0]["sentence"] == said
    assert suite(found).get("failures") == "1"


# --- CSV ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\r\n=1", "＝1", "\x00=1", "\x1b[0m=1"]
)
def test_a_formula_is_text(text: str) -> None:
    assert csv_text(text)[0] in ("'", "\N{REPLACEMENT CHARACTER}")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_text_begins_a_formula_or_a_line(text: str) -> None:
    cell = csv_text(text)
    assert not re.match(r"\s*[=+\-@\t\r]", cell)
    assert "\n" not in cell
    assert "\r" not in cell


def test_foreign_text_in_every_column_stays_in_its_cell() -> None:
    case = samples.case(
        EVIL, 1, "throughput", "error", target=EVIL, case=EVIL, nodeid=EVIL, sentence=EVIL,
        device=replace(samples.DEVICE, name=EVIL), run=EVIL, started=EVIL,
    )  # fmt: skip
    (row,) = rows(samples.run_records([case]))
    assert set(row) == set(exports.COLUMNS)
    for name, value in row.items():
        assert not re.match(r"\s*[=+@]", value), name
    assert row["model"].startswith("'=cmd")
    slow = samples.run_records([samples.case(measured=78.32 * 0.9075)])
    assert rows(slow)[0]["difference_percent"] == "-9.25"  # a number stays one


# --- Markdown -------------------------------------------------------------------------------


def test_failures_come_before_the_matrix_and_one_failed_build_is_one_row() -> None:
    text = summary_markdown(EVERYTHING)
    lines = [line for line in text.splitlines() if line]
    assert lines[0].startswith("> **REHEARSAL**")
    assert lines[1].startswith("## ✗ ")
    assert text.index("### Needs a look") < text.index("### Accuracy on cpu")
    assert "not run" in attention(text)[4]
    assert "failed" in attention(text)[5]
    assert "20 planned = 13 passed + 1 failed" in text
    error = ErrorInfo("X", Stage.EXPORT, "torch would not", "another torch")
    cases = [
        samples.case("fixres", n, "accuracy", "error", error=replace(error, remembered=n > 1))
        for n in (1, 4)
    ]
    table = attention(summary_markdown(samples.run_records(cases)))
    (row,) = [line for line in table if "torch would not" in line]
    assert "fixres bs 1, 4 on cpu: export failed (accuracy)" in row
    assert "<br>**What to do:** another torch<br>**Run it again:** <code>python -m" in row


def test_nothing_in_a_record_becomes_markup() -> None:
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
    assert escaped("squeezenet1_1") == "squeezenet1_1"  # names stay readable
    assert escaped("_a_") == "\\_a\\_"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_escaped_text_is_one_line_without_markup(text: str) -> None:
    found = escaped(text)
    assert "\n" not in found
    assert "<" not in found
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*\[\]{}#!]", re.sub(r"&#?\w+;", "", found))


def test_the_step_summary_is_appended_to(tmp_path: Path) -> None:
    target = tmp_path / "summary"
    target.write_text("before\n")
    environment = {"GITHUB_STEP_SUMMARY": str(target)}
    assert append_step_summary(EVERYTHING, environment) == target
    assert target.read_text().startswith("before\n> **REHEARSAL**")
    assert append_step_summary(EVERYTHING, {}) is None
    target.write_bytes(b"x" * exports.STEP_SUMMARY_BYTES)
    assert append_step_summary(EVERYTHING, environment) is None
    with pytest.raises(RecordError, match=r"cannot append"):
        append_step_summary(EVERYTHING, {"GITHUB_STEP_SUMMARY": "/nowhere/at/all/x"})


# --- JUnit ----------------------------------------------------------------------------------


def test_junit_holds_foreign_text_logs_and_the_banner() -> None:
    nasty = samples.case(outcome="failed", sentence="too <slow> & \x00 bad")
    error = samples.case("m", outcome="error")
    found = suite(samples.run_records([nasty, error]))
    failure, broken = found.find(".//failure"), found.find(".//error")
    assert failure is not None
    assert failure.get("message", "").startswith("too <slow> & ")
    assert "\x00" not in failure.get("message", "")
    assert broken is not None
    assert broken.get("type") == "CompileError"
    assert "compare the operator set" in (broken.text or "")
    assert "[59] node /features/Conv_59" in (broken.text or "")
    text = junit_xml(samples.all_outcomes("simulated"))
    assert text.index("SIMULATED") < text.index("<testcase")
