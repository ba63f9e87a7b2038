"""The pytest side, run as a user runs it: exit codes, selection, xdist, crashes, pytest's words."""

import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from html import unescape
from types import SimpleNamespace

import pytest

from harness import plugin
from harness.base.stages import Stage
from harness.pages.looks import banners
from harness.records import reader
from harness.report.render import write_report
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


def test_accuracy_without_configuration_names_each_missing_thing(run_pytest):
    done = run_pytest("-m", "accuracy", "-n", "2", catalog=None)
    assert done.code == 4
    for words in ("--target", "HARNESS_TARGET", "--imagenet", "IMAGENET_DIR", "--checkpoints"):
        assert words in done.output
    assert "squeezenet1_1" in done.output
    assert "Traceback" not in done.output
    assert not done.runs.exists()


@pytest.mark.parametrize(
    ("option", "code"), [("--fixtures", 0), ("--setup-only", 4), ("--setup-plan", 4)]
)
def test_what_runs_no_case_makes_no_run(run_pytest, option, code):
    done = run_pytest(option, "--rehearsal", env={"PYTHONOPTIMIZE": "2"})
    assert done.code == code, done.output
    assert "Traceback" not in done.output and not done.runs.exists()


def test_collect_only_always_works_and_imports_nothing_heavy():
    (code, heavy), output = modules_after(["--collect-only", "-q"])
    assert (code, heavy) == (0, []), output
    assert "test_accuracy[seresnext101-bs64-ascend310p3]" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch-sizes", "4,x"), ("--batch-sizes", "4,x")),  # while plugins are configured
        (("--catalog={broken}",), ("broken.yaml:{line}",)),  # when the session starts
        (("--runs=/proc/x",), ("--runs=DIR",)),  # when the cases are known
        (("-n", "2", "--dist=each"), ("--dist=each",)),
        (("-m", "acuracy", "-n", "2"), ("acuracy",)),
        (("-k", "(((", "-n", "2"), ("-k", "(((")),
        (("-p", "tests.selftest.plugins.refusing"), ("planted: not these",)),
        (("--modles=tiny",), ("--modles", "did you mean '--models'")),
        (("-p", "tests.selftest.plugins.multiplied"), ("not in the plan", "tiny-bs1-cpu")),
        (("-p", "tests.selftest.plugins.multiplied", "-n", "1"), ("not in the plan",)),
        (
            ("-p", "tests.selftest.plugins.same_options", "--device=0"),
            ("--device", "--harness-device"),
        ),
    ],
)
def test_a_wrong_command_line_is_an_error_of_usage_in_words(run_pytest, tmp_path, arguments, words):
    broken = tmp_path / "broken.yaml"
    broken.write_text(TINY.read_text().replace("label_offset: 0", "label_ofset: 0"))
    line = broken.read_text().splitlines().index("    label_ofset: 0") + 1
    done = run_pytest("--rehearsal", *(one.format(broken=broken) for one in arguments))
    assert done.code == 4
    for word in words:
        assert word.format(line=line) in done.output
    assert "Traceback" not in done.output
    assert not done.runs.exists()


def test_every_option_has_a_form_that_no_other_plugin_has(run_pytest):
    words = ("-p", "tests.selftest.plugins.same_options", "--simulate-ascend", "--offline")
    done = run_pytest(*words[:-1], "--harness-device=0", "--harness-offline", "--collect-only")
    assert done.code == 0, done.output
    assert run_pytest(*words, "--harness-seed=1").code == 4


@pytest.mark.parametrize("root", [[], ["--rootdir=/"]])
def test_from_elsewhere_the_acceptance_cases_run_and_no_test_of_ours(root):
    command = [sys.executable, "-m", "pytest", str(ROOT), *root, "-p", "no:cacheprovider"]
    command += ["--rehearsal", "--collect-only", "-q", f"--catalog={TINY}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)
    nodes = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(nodes) == 4, done.stdout + done.stderr
    assert all("tests/acceptance/test_" in node for node in nodes)


def test_settings_come_from_the_command_line_then_variables(run_pytest):
    env = {"HARNESS_REHEARSAL": "1", "HARNESS_BATCH_SIZES": "2,3"}
    done = run_pytest("--collect-only", "-q", "--batch-sizes", "5", env=env)
    assert "tiny-bs5-cpu" in done.output
    assert "tiny-bs2-cpu" not in done.output


def test_a_selection_without_cases_leaves_nothing_behind(run_pytest):
    done = run_pytest("--rehearsal", "-k", "nothing")
    assert done.code == 5
    assert not done.runs.exists()


# Runs -------------------------------------------------------------------------------------


def test_a_rehearsal_with_two_workers_then_alone_from_the_store(
    run_pytest, built, shared, tmp_path
):
    html, junit = tmp_path / "pytest.html", tmp_path / "junit.xml"
    words = ("--rehearsal", "--batch-sizes=4")
    done = run_pytest(*words, *QUICK, "-n", "2", f"--html={html}", f"--junitxml={junit}")
    assert done.code == 0, done.output
    records = done.records()
    assert sorted(done.outcomes()) == ["accuracy tiny-bs4-cpu", "throughput tiny-bs4-cpu"]
    assert records.end is not None
    assert (records.end.complete, records.end.planned) == (True, 2)
    assert {case.worker for case in records.cases} == {"gw0", "gw1"}
    assert records.run is not None
    assert records.run.command[:2] == ("pytest", "-p")
    case = next(one for one in records.cases if one.accuracy is not None)
    assert case.accuracy and case.accuracy.scores.images == 46
    assert (done.run_dir / case.accuracy.predictions_file).is_file()
    assert {ref.stage for ref in case.artifacts} == {
        *(Stage.STANDIN, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE, Stage.CROPS, Stage.EAGER)
    }
    throughput = next(one.throughput for one in records.cases if one.throughput is not None)
    assert (done.run_dir / throughput.samples_file).is_file()
    assert throughput.outputs and throughput.outputs.relative_l2 < 1e-4
    assert str(done.run_dir / "report.html") in done.output
    text = html.read_text()
    assert "<th>Verdict</th>" in unescape(text)
    assert "predictions equal eager" in text
    assert banners({"rehearsal"})[0].text in text
    names = {one.get("name") for one in ET.parse(junit).iter("property")}
    assert {"outcome", "measured", "sentence", "provenance"} <= names

    places = {"store": shared / "store", "runs": tmp_path / "more", "leases": tmp_path / "leases"}
    options = [f"--{name}={place}" for name, place in places.items()]
    arguments = [*words, "-m", "accuracy", f"--catalog={TINY}", *options]
    (code, heavy), output = modules_after(arguments)
    assert (code, heavy) == (0, []), output
    (case,) = reader.read((tmp_path / "more" / "latest").resolve()).cases
    assert case.outcome == "passed"
    assert all(artifact.cached for artifact in case.artifacts)


def test_other_plugins_cost_neither_a_case_nor_the_report(run_pytest, built):
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "-p", "tests.selftest.plugins.noisy"),
        env={"PYTHONOPTIMIZE": "1", "ANOTHER_ENDS": "tiny-bs4"},
    )
    assert done.code == 4, done.output
    records = done.records()
    assert [case.outcome for case in records.cases] == ["passed", "error"]
    assert "planted: it took too long" in records.cases[1].sentence
    assert records.end and records.end.complete
    assert (done.run_dir / "report.html").is_file()
    assert "noisy.py, line" in done.output
    assert "INTERNALERROR" not in done.output
    # Where all cases are good, a plugin that failed is not green.
    done = run_pytest(
        *("--rehearsal", "-k", "accuracy and bs1"), "-p", "tests.selftest.plugins.noisy"
    )
    assert done.code == 3, done.output
    records = done.records()
    assert records.end and records.end.exit_status == 3


@pytest.mark.parametrize(
    ("outcome", "passed", "word"),
    [
        ("recorded", True, "recorded"),
        ("inconclusive", False, "inconclusive"),
        ("failed", False, ""),
        ("error", False, "error"),
        ("crashed", False, "crashed"),
    ],
)
def test_what_pytest_does_not_know_has_its_own_word(outcome, passed, word):
    report = SimpleNamespace(acceptance={"outcome": outcome}, when="call", passed=passed)
    status = plugin.pytest_report_teststatus(report)
    assert (status[0] if status else "") == word


def test_a_lost_worker_costs_one_case_and_is_in_every_report(run_pytest, built, tmp_path):
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
    assert end and end.complete
    assert "crashed" in (done.run_dir / "report.html").read_text()
    # pytest-html keeps its rows as JSON, whose texts are HTML.
    (blob,) = re.findall(r'data-jsonblob="([^"]*)"', html.read_text())
    tests = json.loads(unescape(blob))["tests"]
    (row,) = [row for name, rows in tests.items() if "tiny-bs1-cpu" in name for row in rows]
    cells = "".join(row["resultsTableRow"])
    assert "<td>crashed (rehearsal)</td>" in cells
    assert "the pytest worker that ran the case died" in cells


# What Python runs as it starts: a worker of xdist ends, or stops, before it can say anything.
DIES_EARLY = """
import os, sys
if "exec(eval(sys.stdin.readline()))" in " ".join(sys.orig_argv):
    os.kill(os.getpid(), int(os.environ["DIES_OF"]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_that_never_start_leave_records_and_a_report(run_pytest, tmp_path, number):
    (tmp_path / "sitecustomize.py").write_text(DIES_EARLY)
    (tmp_path / "soon.py").write_text("from harness.base import signals; signals.FROZEN_S = 0.5")
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "-n", "2", "-p", "soon"),
        env={"DIES_OF": str(int(number)), "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
    )
    assert done.code == 7, done.output  # machine
    assert "INTERNALERROR" not in done.output and "Traceback" not in done.output
    assert done.output.count("\nevery pytest worker died before its first case") == 1
    assert set(done.outcomes().values()) == {"crashed"} and len(done.outcomes()) == 2
    assert "crashed" in (done.run_dir / "report.html").read_text()


def test_workers_that_die_before_they_run_a_case_end_the_run_with_7(run_pytest):
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "-n", "1", "--max-worker-restart=0"),
        *("-p", "tests.selftest.plugins.kill_worker"),
        env={"KILL_CASE": "at the start"},
    )
    assert done.code == 7, done.output
    assert set(done.outcomes().values()) == {"crashed"} and len(done.outcomes()) == 2


def test_a_run_that_is_killed_is_incomplete_and_can_be_rendered(run_pytest, built):
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "-p", "tests.selftest.plugins.kill_worker"),
        env={"KILL_CASE": "tiny-bs4-cpu"},
    )
    assert done.code == -9
    assert done.records().end is None
    assert done.records().counts()["not_run"] == 1
    write_report(reader.read(done.run_dir))
    assert "tiny-bs4-cpu" in (done.run_dir / "report.html").read_text()


def test_failures_in_pytests_words(run_pytest, tmp_path):
    catalog = tmp_path / "wrong.yaml"
    declared = "".join(
        f"""
  - case: tiny-bs{size}-cpu
    check: accuracy
    stage: {stage}
    link: https://example.org/issues/1"""
        for size, stage in ((4, "network"), (8, "export"))
    )
    text = TINY.read_text().replace(*NO_NETWORK)
    catalog.write_text(f"{text}\nknown_failures:{declared}\n")
    words = ("--rehearsal", "-m", "accuracy", "--batch-sizes", "1,2,4,8")
    done = run_pytest(*words, catalog=catalog)
    assert done.code == 1, done.output
    assert list(done.outcomes().values()) == ["error", "error", "known_failure", "failed"]
    assert "1 xfailed" in done.output
    assert "declared to fail at export" in done.output
    first, second = done.records().cases[:2]
    assert first.error and first.error.stage is Stage.NETWORK
    assert "squeezenet1_1" in first.error.message
    assert "baselines.yaml" in first.error.remedy
    assert first.error.remedy in done.output
    assert "Traceback" not in done.output
    # The other case does not build it again, and the terminal has it once.
    assert second.error and second.error.remembered
    assert "failed earlier in this run" in second.sentence
    assert f"the same failure as in accuracy of {first.case}, see there" in done.output
