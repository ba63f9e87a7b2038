"""The pytest side, run as a user runs it: exit codes, records, the report, xdist, crashes."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html import unescape
from pathlib import Path

import pytest

from harness import plugin
from harness.catalog.schema import KnownFailure
from harness.records.values import ErrorInfo, Reference, Verdict
from tests.selftest.running import ROOT, TINY, last_json, run_python

HEAVY = ("torch", "torchvision", "timm", "onnx", "onnxsim", "onnxruntime")
# The library refuses the argument when it builds the network, and not before.
NO_NETWORK = ("timm:test_resnet", "timm:test_resnet\n      arguments: {no_such: 1}")
# The budget ends each throughput case after its first rounds: these tests ask what becomes of a
# verdict, not which it is.
QUICK = ("--budget", "0.1", "--precision", "100", "--allow-inconclusive")


def modules_after(arguments):
    code = (
        "import sys, json, pytest; "
        f"rc = int(pytest.main({list(arguments)!r})); "
        f"print(); print(json.dumps([rc, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    _, output = run_python(["-c", code])
    return last_json(output), output


# Configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_accuracy_without_configuration_names_each_missing_thing(run_pytest, workers):
    done = run_pytest("-m", "accuracy", *workers, catalog=None)
    assert done.code == 4
    for words in ("--target", "HARNESS_TARGET", "--imagenet", "IMAGENET_DIR", "--checkpoints"):
        assert words in done.output
    assert "squeezenet1_1" in done.output
    assert "Traceback" not in done.output
    assert not done.runs.exists()


def test_throughput_asks_for_a_target_and_checkpoints_only(run_pytest):
    done = run_pytest("-m", "throughput", catalog=None)
    assert done.code == 4
    assert "--target" in done.output
    assert "--checkpoints" in done.output
    assert "--imagenet" not in done.output


def test_what_is_given_is_not_asked_for(run_pytest, tmp_path):
    done = run_pytest("-m", "accuracy", "--target", "cpu", f"--checkpoints={tmp_path}")
    assert done.code == 4
    assert "--imagenet" in done.output
    assert "target:" not in done.output
    assert "checkpoints:" not in done.output


def test_collect_only_always_works(run_pytest):
    done = run_pytest("--collect-only", "-q", catalog=None)
    assert done.code == 0
    assert "test_accuracy[seresnext101-bs64-ascend310p3]" in done.output
    assert not done.runs.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rehearsal", "--models", "tyni"), ("tyni", "did you mean 'tiny'")),
        (("--target", "cpuu"), ("cpuu", "did you mean 'cpu'")),
        (("--rehearsal", "--batch-sizes", "0"), ("--batch-sizes", "'0'")),
        (("--rehearsal", "--batch-sizes", "4,x"), ("--batch-sizes", "4,x")),
        (("--rehearsal", "--target", "ascend310p3"), ("rehearsal", "ascend310p3")),
        (("--rehearsal", "--imagenet=/x"), ("--imagenet", "--rehearsal")),
        (("--rehearsal", "--onnx", "tiny"), ("MODEL=FILE",)),
        (("--rehearsal", "--budget", "soon"), ("--budget", "soon")),
        (("--rehearsal", "--catalog=/no/such.yaml"), ("/no/such.yaml",)),
    ],
)
def test_bad_options_are_errors_of_usage_in_words(run_pytest, arguments, words):
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
    assert "label_offset" in done.output


def test_settings_come_from_the_command_line_then_variables(run_pytest):
    env = {"HARNESS_REHEARSAL": "1", "HARNESS_BATCH_SIZES": "2,3"}
    done = run_pytest("--collect-only", "-q", env=env)
    assert "tiny-bs2-cpu" in done.output
    assert "tiny-bs3-cpu" in done.output
    done = run_pytest("--collect-only", "-q", "--batch-sizes", "5", env=env)
    assert "tiny-bs5-cpu" in done.output
    assert "tiny-bs2-cpu" not in done.output


def test_each_case_runs_once(run_pytest):
    done = run_pytest("--rehearsal", "-n", "2", "--dist=each")
    assert done.code == 4
    assert "--dist=each" in done.output


def test_a_selection_without_cases_leaves_nothing_behind(run_pytest):
    done = run_pytest("--rehearsal", "-k", "nothing")
    assert done.code == 5
    assert list(done.runs.iterdir()) == []


# Runs ------------------------------------------------------------------------------------


def test_a_rehearsal_leaves_records_a_report_and_junit(run_pytest):
    done = run_pytest("--rehearsal", *QUICK)
    assert done.code == 0, done.output
    found = done.records()
    assert sorted(done.outcomes()) == [
        "accuracy tiny-bs1-cpu",
        "accuracy tiny-bs4-cpu",
        "throughput tiny-bs1-cpu",
        "throughput tiny-bs4-cpu",
    ]
    assert found.end is not None
    assert found.end.complete
    assert found.end.planned == 4
    accuracy = next(case for case in found.cases if case.check == "accuracy")
    assert accuracy.outcome == "passed"
    assert accuracy.measurement["images"] == 46
    assert {a.kind for a in accuracy.artifacts} >= {
        *("standin", "onnx", "simplified", "compiled", "crops", "eager")
    }
    assert (done.run_dir / accuracy.measurement["predictions_file"]).is_file()
    assert f"--catalog={TINY}" in accuracy.repeat[0]
    assert "--batch-sizes=1" in accuracy.repeat[0]
    assert "--rehearsal" in accuracy.repeat[0]
    throughput = next(case for case in found.cases if case.check == "throughput")
    assert throughput.measurement["samples_ms"]
    outputs = throughput.measurement["outputs_check"]
    assert outputs["relative_l2"] < 1e-4
    assert outputs["bound"] == 1e-3
    report = (done.run_dir / "report.html").read_text()
    assert "REHEARSAL" in report
    assert "accepted" not in report.lower()
    suite = ET.parse(done.run_dir / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.attrib["tests"] == "5"  # the cases, and whether batch sizes agree
    assert str(done.run_dir / "report.html") in done.output


def test_a_second_run_with_two_workers_builds_nothing_and_loses_nothing(run_pytest, tmp_path):
    run_pytest("--rehearsal", *QUICK, "--batch-sizes", "1,4")
    html = tmp_path / "pytest.html"
    done = run_pytest("--rehearsal", *QUICK, "-n", "2", f"--html={html}")
    assert done.code == 0, done.output
    found = done.records()
    assert len(found.cases) == 4
    assert found.end is not None
    assert found.end.complete
    assert {case.worker for case in found.cases} <= {"gw0", "gw1"}
    assert all(artifact.cached for case in found.cases for artifact in case.artifacts)
    text = html.read_text()
    assert "Verdict" in text
    assert "predictions equal eager" in text
    assert "REHEARSAL: generated images" in text
    assert "rehearsal" in text


def test_collecting_imports_nothing_heavy():
    (code, heavy), output = modules_after(["--collect-only", "-q", "--rehearsal"])
    assert code == 0, output
    assert heavy == []


def test_a_run_from_the_store_imports_nothing_heavy(run_pytest, shared, tmp_path):
    arguments = ["--rehearsal", *QUICK, "-m", "accuracy", f"--catalog={TINY}"]
    run_pytest(*arguments, catalog=None)
    (code, heavy), output = modules_after(
        [
            *arguments,
            *(f"--store={shared / 'store'}", f"--runs={tmp_path / 'more'}"),
            f"--leases={tmp_path / 'leases'}",
        ]
    )
    assert code == 0, output
    assert heavy == []


def test_a_lost_worker_costs_one_case_and_is_in_every_report(run_pytest, tmp_path):
    html = tmp_path / "pytest.html"
    done = run_pytest(
        *("--rehearsal", *QUICK, "-m", "accuracy", "-n", "1", f"--html={html}"),
        *("-p", "tests.selftest.plugins.kill_worker"),
        env={"KILL_CASE": "tiny-bs1-cpu"},
    )
    assert done.code == 7  # machine
    assert done.outcomes() == {
        "accuracy tiny-bs1-cpu": "crashed",
        "accuracy tiny-bs4-cpu": "passed",
    }
    found = done.records()
    assert found.end is not None
    assert found.end.complete
    assert "crashed" in (done.run_dir / "report.html").read_text()
    # pytest-html keeps its rows as JSON, whose texts are HTML.
    (blob,) = re.findall(r'data-jsonblob="([^"]*)"', html.read_text())
    tests = json.loads(unescape(blob))["tests"]
    (row,) = [row for name, rows in tests.items() if "tiny-bs1-cpu" in name for row in rows]
    cells = "".join(row["resultsTableRow"])
    assert "<td>crashed (rehearsal)</td>" in cells
    assert "the pytest worker that ran the case died" in cells
    junit = (done.run_dir / "junit.xml").read_text()
    assert "tiny-bs1-cpu" in junit


def test_a_run_that_is_killed_is_incomplete_and_can_be_rendered(run_pytest):
    done = run_pytest(
        *("--rehearsal", *QUICK, "-m", "accuracy", "-p", "tests.selftest.plugins.kill_worker"),
        env={"KILL_CASE": "tiny-bs4-cpu"},
    )
    assert done.code == -9
    found = done.records()
    assert found.end is None
    assert found.counts()["not_run"] == 1
    code, output = run_python(["-m", "harness", "report", str(done.run_dir)])
    assert code == 0, output
    assert "tiny-bs4-cpu" in (done.run_dir / "report.html").read_text()


def test_a_stage_that_fails_is_an_error_with_a_remedy_and_no_traceback(run_pytest, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(TINY.read_text().replace(*NO_NETWORK))
    done = run_pytest("--rehearsal", *QUICK, catalog=wrong)
    assert done.code == 4  # the catalog names arguments that the library refuses
    assert set(done.outcomes().values()) == {"error"}
    error = done.records().cases[0].error
    assert error is not None
    assert error.stage == "network"
    assert "test_resnet" in error.message
    assert "baselines.yaml" in error.remedy
    assert "Traceback" not in done.output
    # The other cases do not build it again, they are told.
    assert "failed earlier in this run" in done.records().cases[1].sentence


def test_runs_that_cannot_be_written_are_an_error_of_usage(run_pytest):
    done = run_pytest("--rehearsal", *QUICK, "-m", "accuracy", "--runs=/proc/x")
    assert done.code == 4
    assert "--runs=DIR" in done.output


def test_an_onnx_file_can_take_the_place_of_the_export(run_pytest, shared, tmp_path):
    done = run_pytest("--rehearsal", *QUICK, "-m", "accuracy", "--batch-sizes", "1")
    key = next(a.key for a in done.records().cases[0].artifacts if a.kind == "onnx")
    exported = shared / "store" / "v1" / "onnx" / key / "model.onnx"
    done = run_pytest(
        *("--rehearsal", *QUICK, "-m", "accuracy", "--batch-sizes", "1"),
        f"--onnx=tiny={exported}",
    )
    assert done.code == 0, done.output
    # The record names what ran, beside whatever its outputs are held against.
    assert "the ONNX file" in done.records().cases[0].checkpoint["source"]
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not a model")
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "--batch-sizes", "1", f"--onnx=tiny={garbage}")
    )
    assert done.code == 1
    error = done.records().cases[0].error
    assert error is not None
    assert error.stage == "export"
    assert "not a valid ONNX file" in error.message


def test_real_inputs_are_never_judged_by_a_rehearsals_rules(run_pytest, shared, tmp_path):
    run_pytest("--rehearsal", *QUICK, "-m", "accuracy", "--batch-sizes", "1")
    weights = next((shared / "store").glob("v1/standin/*/tiny.pth"))
    images = next((shared / "store").glob("v1/images/*/val"))
    done = run_pytest(
        *("--target", "cpu", "-m", "accuracy", "--batch-sizes", "1"),
        *(f"--imagenet={images.parent}", f"--checkpoints={weights.parent}"),
    )
    # Generated labels are not ImageNet's, and are recognised before anything is scored.
    assert done.code == 4
    error = done.records().cases[0].error
    assert error is not None
    assert error.stage == "data"
    assert "class order" in error.message


@pytest.fixture
def real_inputs(run_pytest, shared, tmp_path):
    """A data set and a folder with a checkpoint, as a real run takes them; `known`: with the first
    labels of ImageNet's order, whatever the images show.
    """
    done = run_pytest("--rehearsal", *QUICK, "-m", "accuracy", "--batch-sizes", "1")
    key = next(a.key for a in done.records().cases[0].artifacts if a.kind == "standin")
    generated = next((shared / "store").glob("v1/images/*/val"))

    def make(*, known):
        root = tmp_path / "imagenet"
        (root / "val").mkdir(parents=True)
        labels = dict(
            line.split() for line in (generated.parent / "val_label.txt").read_text().splitlines()
        )
        first = [65, 970, 230, 809, 516, 57, 334, 415, 674, 332, 109, 286, 370, 757, 595]
        lines = []
        for number, image in enumerate(sorted(generated.iterdir())[:20]):
            name = image.name if known else f"ILSVRC2012_val_{number + 2000:08d}.JPEG"
            label = [*first, *range(20)][number] if known else labels[image.name]
            (root / "val" / name).write_bytes(image.read_bytes())
            lines.append(f"{name} {label}\n")
        (root / "val_label.txt").write_text("".join(lines))
        return (
            *("--target=cpu", "-m", "accuracy", "--batch-sizes", "4", "--limit=18"),
            *(f"--imagenet={root}", "--offline"),
            f"--checkpoints={shared / 'store' / 'v1' / 'standin' / key}",
        )

    return make


def test_a_real_run_on_a_part_of_the_set_says_what_stood_behind_its_figure(run_pytest, real_inputs):
    command = real_inputs(known=False)
    done = run_pytest(*command)
    case = done.records().cases[0]
    assert (done.code, case.outcome) == (6, "inconclusive"), done.output
    assert "18 images" in case.sentence
    assert "accepted" not in case.sentence
    assert case.provenance == "real"
    assert case.reference is not None
    assert case.reference.kind == "eager"
    assert case.images["count"] == 18
    assert "18" in case.images["selection"]
    assert len(case.images["digest"]) == 64
    assert len(case.checkpoint["sha256"]) == 64
    assert "could not be verified" in case.checkpoint["verified"]
    assert "crop 64" in case.preprocessing
    assert "REHEARSAL" not in (done.run_dir / "report.html").read_text()
    # An inconclusive verdict fails the run unless it is allowed; it stays what it is.
    done = run_pytest(*command, "--allow-inconclusive")
    assert done.code == 0
    assert done.outcomes() == {"accuracy tiny-bs4-cpu": "inconclusive"}


def test_wrong_labels_are_not_hidden_by_a_conversion_that_agrees(run_pytest, real_inputs):
    done = run_pytest(*real_inputs(known=True))
    case = done.records().cases[0]
    assert (done.code, case.outcome) == (1, "failed"), done.output
    assert "the reference is off" in case.sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target=cpu", "--imagenet=/nope", "--checkpoints=/tmp"), "/nope does not exist"),
        (("--rehearsal", "--onnx=tiny=/nope.onnx"), "/nope.onnx does not exist"),
        (("--rehearsal", "--onnx=tiny=/dev/zero"), "/dev/zero is not a file"),
        (("--rehearsal", "--store=~nobody-has-this-name/x"), "--store"),
    ],
)
def test_wrong_paths_are_said_before_anything_runs(run_pytest, arguments, words):
    done = run_pytest("-m", "accuracy", *arguments)
    assert done.code == 4
    assert words in done.output
    assert "Traceback" not in done.output


def test_a_missing_checkpoint_is_named_with_its_remedy(run_pytest, tmp_path):
    done = run_pytest(
        *("--target", "cpu", "-m", "throughput", "--batch-sizes", "1"),
        f"--checkpoints={tmp_path}",
    )
    assert done.code == 4
    error = done.records().cases[0].error
    assert error is not None
    assert error.stage == "checkpoint"
    assert "tiny.pth" in error.message


def test_throughput_of_a_real_checkpoint_without_a_figure_is_recorded(run_pytest, shared):
    run_pytest("--rehearsal", *QUICK, "-m", "accuracy", "--batch-sizes", "1")
    weights = next((shared / "store").glob("v1/standin/*/tiny.pth"))
    done = run_pytest(
        *("--target", "cpu", "-m", "throughput", "--batch-sizes", "1", *QUICK),
        f"--checkpoints={weights.parent}",
    )
    assert done.code == 0, done.output
    assert set(done.outcomes().values()) == {"recorded"}
    assert "1 recorded" in done.output


def known_failures(tmp_path, stage, text=None, more=""):
    """The small catalog with its batch 4 declared to fail at a stage."""
    path = tmp_path / "known.yaml"
    path.write_text(
        (text or TINY.read_text())
        + f"""
known_failures:
  - case: tiny-bs4-cpu
    check: accuracy
    stage: {stage}
    link: https://example.org/issues/1
{more}"""
    )
    return path


def test_a_known_failure_at_its_stage_is_excused(run_pytest, tmp_path):
    broken = TINY.read_text().replace(*NO_NETWORK)
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "--batch-sizes", "4"),
        catalog=known_failures(tmp_path, "network", broken),
    )
    assert done.code == 0, done.output
    assert done.outcomes() == {"accuracy tiny-bs4-cpu": "known_failure"}
    assert "1 xfailed" in done.output


@pytest.mark.parametrize(
    ("stage", "text", "words"),
    [
        ("export", None, "it did not fail"),
        ("export", NO_NETWORK, "it failed at network"),
    ],
)
def test_a_known_failure_is_strict(run_pytest, tmp_path, stage, text, words):
    changed = TINY.read_text().replace(*text) if text else None
    done = run_pytest(
        *("--rehearsal", "-m", "accuracy", "--batch-sizes", "4"),
        catalog=known_failures(tmp_path, stage, changed),
    )
    assert done.code == 1
    assert done.outcomes() == {"accuracy tiny-bs4-cpu": "failed"}
    assert words in done.records().cases[0].sentence


def test_an_excuse_that_has_ended_is_spoken_of(run_pytest, tmp_path):
    broken = TINY.read_text().replace(*NO_NETWORK)
    catalog = known_failures(tmp_path, "network", broken, "    expires: 2024-02-29\n")
    words = ("--rehearsal", "-m", "accuracy", "--batch-sizes", "4")
    done = run_pytest(*words, catalog=catalog)
    assert done.code == 4
    assert done.outcomes() == {"accuracy tiny-bs4-cpu": "error"}
    ended = "its excuse (https://example.org/issues/1) ended on 2024-02-29"
    assert done.records().cases[0].sentence.endswith(ended)
    code, output = run_python(["-m", "harness", "plan", *words, f"--catalog={catalog}"])
    assert code == 0
    assert "the excuse of tiny-bs4-cpu at network ended on 2024-02-29: 1 case, https" in output


def known(stage):
    return KnownFailure(case="tiny-bs4-cpu", stage=stage, link="https://example.org/issues/1")


def judged(kind):
    return Verdict(kind, "a sentence", "", "%", 50.0, Reference(kind="none"))


@pytest.mark.parametrize("stage", ["data", "checkpoint", "device", "store", "harness"])
@pytest.mark.parametrize("declared", ["compile", "verdict"])
def test_an_error_that_is_not_the_models_says_nothing_of_what_is_declared(stage, declared):
    error = ErrorInfo(type="X", stage=stage, message="m")
    outcome, sentence = plugin._outcome(error, None, known(declared))
    assert outcome == "error"
    assert sentence == (
        f"[{stage}] m; declared to fail at {declared} (https://example.org/issues/1), which stays "
        "open"
    )
    assert plugin._outcome(error, None, known(stage))[0] == "known_failure"
    full = ErrorInfo(type="X", stage="export", message="[Errno 28] No space left on device")
    assert plugin._outcome(full, None, known(declared))[0] == "error"
    other = ErrorInfo(type="X", stage="export", message="m")
    outcome, sentence = plugin._outcome(other, None, known(declared))
    assert outcome == "failed"
    assert "it failed at export" in sentence
    assert sentence.endswith("Change known_failures in the catalog")


@pytest.mark.parametrize(
    ("declared", "kind", "outcome", "words"),
    [
        ("verdict", "FAIL", "known_failure", "failed as declared"),
        ("verdict", "INCONCLUSIVE", "inconclusive", "which stays open"),
        ("verdict", "PASS", "failed", "it did not fail"),
        ("compile", "INCONCLUSIVE", "failed", "it did not fail"),
        ("compile", "RECORDED", "failed", "it did not fail"),
        ("compile", "FAIL", "failed", "it failed at verdict"),
    ],
)
def test_what_was_declared_and_what_was_judged(declared, kind, outcome, words):
    found, sentence = plugin._outcome(None, judged(kind), known(declared))
    assert found == outcome
    assert words in sentence


# The command line ------------------------------------------------------------------------


def test_plan_lists_cases_and_what_has_no_figure():
    code, output = run_python(["-m", "harness", "plan", "--target", "cpu", "-m", "throughput"])
    assert code == 0
    assert "squeezenet1_1-bs4-cpu" in output
    assert "no figure is published" in output
    assert "missing: checkpoints" in output
    code, output = run_python(["-m", "harness", "plan", "--target", "cpuu"])
    assert code == 4
    assert "did you mean 'cpu'" in output


def test_doctor_says_what_is_there_and_what_lacks():
    code, output = run_python(["-m", "harness", "doctor"])
    assert code == 0
    assert "pytest --rehearsal" in output
    assert "--imagenet=DIR" in output
    code, output = run_python(["-m", "harness", "doctor", "--all"])
    assert code == 0
    assert "onnxruntime" in output
    assert "GB" in output


def test_cache_commands(run_pytest, shared, tmp_path):
    run_pytest("--rehearsal", *QUICK, "-m", "accuracy", "--batch-sizes", "1")
    store = [f"--store={shared / 'store'}"]
    code, output = run_python(["-m", "harness", "cache", "ls", *store])
    assert code == 0
    assert "timm:test_resnet" in output
    explain = ["-m", "harness", "cache", "explain", "--rehearsal", f"--catalog={TINY}", *store]
    code, output = run_python([*explain, "-m", "accuracy", "--batch-sizes", "1"])
    assert code == 0, output
    assert "compiled" in output
    assert "not in the store" not in output
    code, output = run_python([*explain, "--batch-sizes", "7", "-m", "accuracy"])
    assert code == 0
    assert "batch_size: 7 here" in output
    code, output = run_python(
        ["-m", "harness", "cache", "gc", "--max-gb", "-1", f"--store={tmp_path}"]
    )
    assert code == 4
    assert "--max-gb" in output


def test_report_of_a_run_that_is_not_there(tmp_path):
    code, output = run_python(["-m", "harness", "report", str(tmp_path / "nothing")])
    assert code == 4
    assert "no records" in output
    assert "Traceback" not in output


def test_the_root_conftest_only_hands_over():
    lines = (ROOT / "conftest.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) == 2
    assert Path(ROOT / "harness" / "plugin.py").is_file()
