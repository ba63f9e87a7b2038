"""The pytest side, run as a user runs it: exit codes, selection, xdist, crashes, pytest's words."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html import unescape

import pytest

from harness.base.stages import Stage
from harness.pages.looks import banners
from tests.selftest.running import NO_NETWORK, QUICK, ROOT, TINY, last_json, run_python

HEAVY = ("torch", "torchvision", "timm", "onnx", "onnxsim", "onnxruntime")


def modules_after(arguments):
    code = (
        "import sys, json, pytest; "
        f"rc = int(pytest.main({list(arguments)!r})); "
        f"print(); print(json.dumps([rc, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    _, output = run_python(["-c", code])
    return last_json(output), output


# Configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_accuracy_without_configuration_names_each_missing_thing(run_pytest, workers):
    done = run_pytest("-m", "accuracy", *workers, catalog=None)
    assert done.code == 4
    for words in ("--target", "HARNESS_TARGET", "--imagenet", "IMAGENET_DIR", "--checkpoints"):
        assert words in done.output
    assert "squeezenet1_1" in done.output
    assert "Traceback" not in done.output
    assert not done.runs.exists()


def test_collect_only_always_works_and_imports_nothing_heavy(run_pytest):
    done = run_pytest("--collect-only", "-q", catalog=None)
    assert done.code == 0
    assert "test_accuracy[seresnext101-bs64-ascend310p3]" in done.output
    assert not done.runs.exists()
    (code, heavy), output = modules_after(["--collect-only", "-q", "--rehearsal"])
    assert (code, heavy) == (0, []), output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rehearsal", "--models", "tyni"), ("tyni", "did you mean 'tiny'")),
        (("--rehearsal", "--batch-sizes", "4,x"), ("--batch-sizes", "4,x")),
        (("--rehearsal", "--catalog=/no/such.yaml"), ("/no/such.yaml",)),
        (("--rehearsal", "--onnx=tiny=/dev/zero"), ("/dev/zero is not a file",)),
        (("--rehearsal", "--runs=/proc/x"), ("--runs=DIR",)),
        (("--rehearsal", "-n", "2", "--dist=each"), ("--dist=each",)),
    ],
)
def test_a_wrong_command_line_is_an_error_of_usage_in_words(run_pytest, arguments, words):
    done = run_pytest(*arguments)
    assert done.code == 4
    for word in words:
        assert word in done.output
    assert "Traceback" not in done.output


def test_a_broken_catalog_is_an_error_of_usage_with_its_line(run_pytest, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(TINY.read_text().replace("label_offset: 0", "label_ofset: 0"))
    line = broken.read_text().splitlines().index("    label_ofset: 0") + 1
    done = run_pytest("--rehearsal", catalog=broken)
    assert done.code == 4
    assert f"broken.yaml:{line}" in done.output


def test_settings_come_from_the_command_line_then_variables(run_pytest):
    env = {"HARNESS_REHEARSAL": "1", "HARNESS_BATCH_SIZES": "2,3"}
    done = run_pytest("--collect-only", "-q", env=env)
    assert "tiny-bs2-cpu" in done.output
    assert "tiny-bs3-cpu" in done.output
    done = run_pytest("--collect-only", "-q", "--batch-sizes", "5", env=env)
    assert "tiny-bs5-cpu" in done.output
    assert "tiny-bs2-cpu" not in done.output


def test_a_selection_without_cases_leaves_nothing_behind(run_pytest):
    done = run_pytest("--rehearsal", "-k", "nothing")
    assert done.code == 5
    assert list(done.runs.iterdir()) == []


# Runs -------------------------------------------------------------------------------------


def test_a_rehearsal_alone_and_then_with_two_workers(run_pytest, tmp_path):
    done = run_pytest("--rehearsal", *QUICK)
    assert done.code == 0, done.output
    records = done.records()
    assert records.end is not None
    assert (records.end.complete, records.end.planned) == (True, 4)
    assert records.run is not None
    assert records.run.command[:2] == ("pytest", "-p")
    accuracy = records.cases[0]
    assert accuracy.outcome == "passed"
    assert accuracy.accuracy is not None
    assert accuracy.accuracy.scores.images == 46
    assert (done.run_dir / accuracy.accuracy.predictions_file).is_file()
    assert {ref.stage for ref in accuracy.artifacts} == {
        *(Stage.STANDIN, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE, Stage.CROPS, Stage.EAGER)
    }
    throughput = records.cases[2].throughput
    assert throughput is not None
    assert (done.run_dir / throughput.samples_file).is_file()
    assert throughput.outputs is not None
    assert throughput.outputs.relative_l2 < 1e-4
    suite = ET.parse(done.run_dir / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.attrib["tests"] == "5"  # the cases, and whether batch sizes agree
    assert str(done.run_dir / "report.html") in done.output

    html = tmp_path / "pytest.html"
    done = run_pytest("--rehearsal", *QUICK, "-n", "2", f"--html={html}")
    assert done.code == 0, done.output
    records = done.records()
    assert sorted(done.outcomes()) == [
        f"{check} tiny-bs{size}-cpu" for check in ("accuracy", "throughput") for size in (1, 4)
    ]
    assert records.end is not None
    assert records.end.complete
    assert {case.worker for case in records.cases} <= {"gw0", "gw1"}
    assert all(artifact.cached for case in records.cases for artifact in case.artifacts)
    text = html.read_text()
    assert "<th>Verdict</th>" in unescape(text)
    assert "predictions equal eager" in text
    assert banners({"rehearsal"})[0].text in text


def test_a_run_from_the_store_imports_nothing_heavy(run_pytest, shared, tmp_path):
    arguments = ["--rehearsal", "-m", "accuracy", f"--catalog={TINY}"]
    run_pytest(*arguments, catalog=None)
    places = [f"--store={shared / 'store'}", f"--runs={tmp_path / 'more'}"]
    (code, heavy), output = modules_after([*arguments, *places, f"--leases={tmp_path / 'leases'}"])
    assert (code, heavy) == (0, []), output


def test_a_lost_worker_costs_one_case_and_is_in_every_report(run_pytest, tmp_path):
    html = tmp_path / "pytest.html"
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "-n", "1", f"--html={html}"),
        *("-p", "tests.selftest.plugins.kill_worker"),
        env={"KILL_CASE": "tiny-bs1-cpu"},
    )
    assert done.code == 7  # machine
    assert done.outcomes() == {
        "accuracy tiny-bs1-cpu": "crashed",
        "accuracy tiny-bs4-cpu": "passed",
    }
    end = done.records().end
    assert end is not None
    assert end.complete
    assert "crashed" in (done.run_dir / "report.html").read_text()
    # pytest-html keeps its rows as JSON, whose texts are HTML.
    (blob,) = re.findall(r'data-jsonblob="([^"]*)"', html.read_text())
    tests = json.loads(unescape(blob))["tests"]
    (row,) = [row for name, rows in tests.items() if "tiny-bs1-cpu" in name for row in rows]
    cells = "".join(row["resultsTableRow"])
    assert "<td>crashed (rehearsal)</td>" in cells
    assert "the pytest worker that ran the case died" in cells


def test_a_run_that_is_killed_is_incomplete_and_can_be_rendered(run_pytest):
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "-p", "tests.selftest.plugins.kill_worker"),
        env={"KILL_CASE": "tiny-bs4-cpu"},
    )
    assert done.code == -9
    assert done.records().end is None
    assert done.records().counts()["not_run"] == 1
    code, output = run_python(["-m", "harness", "report", str(done.run_dir)])
    assert code == 0, output
    assert "tiny-bs4-cpu" in (done.run_dir / "report.html").read_text()


def test_a_stage_that_fails_is_told_with_a_remedy_and_no_traceback(run_pytest, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(TINY.read_text().replace(*NO_NETWORK))
    done = run_pytest("--rehearsal", "-m", "accuracy", catalog=wrong)
    assert done.code == 4  # the catalog names arguments that the library refuses
    assert set(done.outcomes().values()) == {"error"}
    first, second = done.records().cases
    assert first.error is not None
    assert first.error.stage is Stage.NETWORK
    assert "test_resnet" in first.error.message
    assert "baselines.yaml" in first.error.remedy
    assert "Traceback" not in done.output
    # The other case does not build it again, and the terminal has it once.
    assert second.error is not None
    assert second.error.remembered
    assert "failed earlier in this run" in second.sentence
    assert f"the same failure as in accuracy of {first.case}, see there" in done.output


@pytest.mark.parametrize(
    ("stage", "outcome", "code", "words"),
    [
        ("network", "known_failure", 0, "1 xfailed"),
        ("export", "failed", 1, "declared to fail at export"),
    ],
)
def test_a_known_failure_in_pytests_words(run_pytest, tmp_path, stage, outcome, code, words):
    catalog = tmp_path / "known.yaml"
    catalog.write_text(
        TINY.read_text().replace(*NO_NETWORK)
        + f"""
known_failures:
  - case: tiny-bs4-cpu
    check: accuracy
    stage: {stage}
    link: https://example.org/issues/1
"""
    )
    done = run_pytest("--rehearsal", "-m", "accuracy", "--batch-sizes", "4", catalog=catalog)
    assert done.code == code, done.output
    assert done.outcomes() == {"accuracy tiny-bs4-cpu": outcome}
    assert words in done.output


def test_recorded_is_a_word_of_its_own(run_pytest, shared):
    run_pytest("--rehearsal", "-m", "accuracy", "--batch-sizes", "1")
    weights = next((shared / "store").glob("v1/standin/*/tiny.pth"))
    done = run_pytest(
        *("--target", "cpu", "-m", "throughput", "--batch-sizes", "1", *QUICK),
        f"--checkpoints={weights.parent}",
    )
    assert done.code == 0, done.output
    assert set(done.outcomes().values()) <= {"recorded", "inconclusive"}
    assert re.search(r"1 (recorded|inconclusive)", done.output)


def test_the_root_conftest_only_hands_over():
    lines = (ROOT / "conftest.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) == 2
    for check in ("accuracy", "throughput"):
        text = (ROOT / "tests" / "acceptance" / f"test_{check}.py").read_text()
        assert text.count("\n    ") == 1
        assert "accept(measure())" in text
