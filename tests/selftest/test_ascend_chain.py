"""The Ascend chain over the simulated toolchain, run as a user runs it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.judge import causes
from tests.selftest.running import TINY, run_python

CHAIN = ("--simulate-ascend", "--batch-sizes=4", "--budget=0.2", "--precision=50")


def test_both_checks_go_through_the_chain_and_say_that_they_are_simulated(run_pytest):
    done = run_pytest(*CHAIN)
    assert done.code == 0, done.output
    assert done.outcomes() == {
        "accuracy tiny-bs4-ascend310p3": "passed",
        "throughput tiny-bs4-ascend310p3": "recorded",
    }
    assert "SIMULATED NPU" in done.output
    page = (done.run_dir / "report.html").read_text()
    assert "SIMULATED NPU" in page
    accuracy, throughput = done.records().cases
    assert {accuracy.provenance, throughput.provenance} == {"simulated"}
    assert accuracy.device["toolchain"]["simulated"] is True
    assert throughput.measurement["setup"]["driver"] == "api"
    for case in (accuracy, throughput):
        runtime = case.device["runtime"]
        assert {"ais_bench", "aclruntime", "python"} <= runtime.keys()
    assert "runtime: aclruntime" in page
    assert {one["moment"] for one in throughput.measurement["conditions"]} >= {"before", "after"}
    assert "held against nothing" in throughput.sentence
    assert [ref.kind for ref in accuracy.artifacts if ref.kind == "compiled"]


def test_the_chip_of_the_other_target(run_pytest):
    done = run_pytest(*CHAIN, "--target=ascend310", "-m", "throughput")
    assert done.code == 0, done.output
    (case,) = done.records().cases
    assert case.device["name"] == "Ascend310"
    assert case.measurement["setup"]["chips"] == 4


def test_float16_costs_a_little_and_passes(run_pytest):
    done = run_pytest(*CHAIN, "--simulator=float16=1", "-m", "accuracy")
    assert done.code == 0, done.output
    (case,) = done.records().cases
    assert 1e-5 < case.measurement["fidelity"]["relative_l2"] < 3e-2


@pytest.mark.parametrize(
    ("driver", "check", "fault", "words"),
    [
        ("cli", "accuracy", "nan", "NaN"),
        ("benchmark", "throughput", "nan", "NaN"),
        ("benchmark", "throughput", "missing-outputs", "missing"),
        ("benchmark", "accuracy", "wrong-dtype", "bytes"),
    ],
)
def test_one_wrong_output_is_not_lost_in_a_trial(run_pytest, driver, check, fault, words):
    done = run_pytest(
        *(*CHAIN, "-m", check, f"--driver={driver}", "--no-diagnosis"),
        f"--simulator=fault={fault}:0:1",
    )
    (case,) = done.records().cases
    assert case.outcome in ("failed", "error"), case.sentence
    assert words in case.sentence
    assert done.code == 1


@pytest.mark.parametrize("driver", ["cli", "benchmark"])
def test_the_other_drivers(run_pytest, driver):
    done = run_pytest(*CHAIN, f"--driver={driver}")
    assert done.code == 0, done.output
    accuracy, throughput = done.records().cases
    assert (accuracy.outcome, throughput.outcome) == ("passed", "recorded")
    assert throughput.measurement["setup"]["driver"] == driver
    assert {"tool", "warmup"} <= throughput.device["runtime"].keys()
    # The tool that it starts for each call is the measurement's own.
    seen = {look["busy"] for look in throughput.measurement["conditions"]}
    assert seen == {"no"}


def test_a_lost_device_is_set_aside_and_the_case_is_tried_on_another(run_pytest):
    done = run_pytest(*CHAIN, "--simulator=cards=2,fault=device-lost:0")
    assert done.code == 0, done.output
    accuracy, throughput = done.records().cases
    assert accuracy.device["id"] == throughput.device["id"] == "ascend310p3-1"
    (failed,) = accuracy.device["failed_before"]
    assert failed["device"] == "ascend310p3-0"
    assert "failed_before" not in throughput.device  # it was set aside before
    assert "ascend310p3-0 is set aside" in done.output


def test_a_sick_device_that_was_named_is_told(run_pytest):
    done = run_pytest(*CHAIN, "--device=0,1", "--simulator=cards=2,fault=unhealthy:0")
    assert done.code == 0, done.output
    words = "ascend310p3-0 is not used: npu-smi says its health is Alarm"
    assert done.output.count(words) == 1
    for case in done.records().cases:
        assert case.device["id"] == "ascend310p3-1"
        assert "Alarm" in case.device["left_out"]["ascend310p3-0"]
    assert "npu-smi says its health is Alarm" in (done.run_dir / "report.html").read_text()


def test_a_lost_device_without_another_is_an_error_of_the_device(run_pytest):
    done = run_pytest(*CHAIN, "--simulator=fault=device-lost", "-m", "accuracy")
    assert done.code == 7
    (case,) = done.records().cases
    assert case.outcome == "error"
    assert "507033" in case.error.message + case.error.log
    assert case.device["failed_before"][0]["device"] == "ascend310p3-0"


@pytest.mark.parametrize(
    ("fault", "outcome", "stage", "words"),
    [
        ("unsupported-operator", "error", "compile", "EZ3002"),
        ("truncated-om", "error", "load", ""),
        ("crash-run", "error", "infer", "SIGSEGV"),
        ("wrong-dtype", "error", "load", "float16"),
        ("unhealthy", "error", "device", "Alarm"),
        ("npu-smi-fails", "error", "device", "-8005"),
        ("nan", "failed", "", "NaN"),
    ],
)
def test_each_fault_is_named_at_its_stage(run_pytest, fault, outcome, stage, words):
    done = run_pytest(*CHAIN, f"--simulator=fault={fault}", "-m", "accuracy")
    assert done.code == (7 if stage == "device" else 1), done.output
    (case,) = done.records().cases
    assert case.outcome == outcome
    assert words in case.sentence + (case.error.log if case.error else "")
    if stage:
        assert case.error.stage == stage
        assert case.error.remedy
    assert "Traceback" not in case.sentence


def test_accuracy_cases_run_side_by_side_on_two_devices(run_pytest):
    done = run_pytest(
        *CHAIN, "-m", "accuracy", "--batch-sizes=1,2,3,4", "--simulator=cards=2", "-n", "2"
    )
    assert done.code == 0, done.output
    assert {case.device["id"] for case in done.records().cases} == {
        "ascend310p3-0",
        "ascend310p3-1",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--simulate-ascend", "--rehearsal"), "two kinds of run"),
        (("--simulate-ascend", "--target=cpu"), "no simulator for the target cpu"),
        (("--simulate-ascend", "--imagenet=/x"), "--imagenet does not go with"),
        (("--simulator=fault=busy",), "--simulate-ascend"),
        (("--simulate-ascend", "--driver=pyacl"), "api, cli, benchmark"),
        (("--simulate-ascend", "--soc-version=910"), "--soc-version=910"),
        (("--simulate-ascend", "--simulator=fault=bussy"), "busy"),
    ],
)
def test_options_that_do_not_fit(run_pytest, options, words):
    done = run_pytest(*options, "-m", "accuracy")
    assert done.code != 0
    assert words in done.output
    assert "INTERNALERROR" not in done.output


def test_without_any_ascend_tool_the_run_says_what_is_missing(run_pytest):
    done = run_pytest("-m", "accuracy", "--target=ascend310p3")
    assert done.code == 4
    assert "npu-smi" in done.output
    assert "atc" in done.output


def test_an_npu_is_found_without_being_named(tmp_path):
    script = (
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "from harness import simulator\n"
        "config = simulator.parse_config('chip=310')\n"
        "env = simulator.install(Path(sys.argv[1]), config, environment=dict(os.environ))\n"
        "print(json.dumps(dict(env)))\n"
    )
    _, output = run_python(["-c", script, str(tmp_path / "host")])
    env = json.loads(output.strip().splitlines()[-1])
    code, output = run_python(
        [
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            f"--catalog={TINY}",
            f"--runs={tmp_path / 'runs'}",
        ],
        env=env,
    )
    assert code == 0, output
    assert "tiny-bs1-ascend310]" in output


# Judged against figures that are marked as simulated --------------------------------------

TABLE = """    throughput:
      - target: ascend310p3
        chip: Ascend310P3
        card: Atlas 300I Pro
        unit: chip
        toolchain: not stated
        method: pure-inference
        tuning: none
        source: none
        provenance: PROVENANCE
        fps: {4: FPS}
"""


def judged(run_pytest, tmp_path, fps, *options, provenance="simulated"):
    """The throughput case of a device that takes 10 ms for a batch of 4: 400 frames a second."""
    catalog = tmp_path / "judged.yaml"
    table = TABLE.replace("PROVENANCE", provenance).replace("FPS", str(fps))
    catalog.write_text(TINY.read_text() + table)
    simulator = ",".join(("--simulator=compute=onnx,time=spin:10", *options))
    done = run_pytest(
        # Five rounds of 0.25 s, whatever the machine does meanwhile: the budget ends none of them.
        *("--simulate-ascend", "-m", "throughput", "--budget=60", "--precision=30"),
        simulator,
        catalog=catalog,
    )
    (case,) = done.records().cases
    return done, case


@pytest.mark.parametrize(
    ("fps", "options", "outcome", "code", "words"),
    [
        (100, (), "passed", 0, "against 100"),
        (4000, (), "failed", 1, "too slow"),
        (100, ("fault=busy",), "inconclusive", 6, "busy"),
        (100, ("fault=throttled",), "inconclusive", 6, "throttled"),
        (100, ("driver=22.0.2",), "passed", 0, "idle"),
    ],
    ids=["fast", "slow", "busy", "throttled", "unknown idleness"],
)
def test_a_simulated_device_is_judged_by_simulated_figures(
    run_pytest, tmp_path, fps, options, outcome, code, words
):
    done, case = judged(run_pytest, tmp_path, fps, *options)
    assert (case.outcome, done.code) == (outcome, code), case.sentence
    assert words in case.sentence


def test_a_simulated_device_is_never_held_against_a_real_figure(run_pytest, tmp_path):
    done, case = judged(run_pytest, tmp_path, 4000, provenance="real")
    assert (case.outcome, done.code) == ("recorded", 0)
    assert "4000" not in done.output + (done.run_dir / "report.html").read_text()


def test_a_budget_that_ends_the_rounds_at_once_decides_nothing(run_pytest, tmp_path):
    catalog = tmp_path / "judged.yaml"
    table = TABLE.replace("PROVENANCE", "simulated").replace("FPS", "100")
    catalog.write_text(TINY.read_text() + table)
    done = run_pytest(
        *("--simulate-ascend", "-m", "throughput", "--budget=0.1", "--precision=100"),
        "--simulator=compute=onnx,time=spin:10",
        catalog=catalog,
    )
    (case,) = done.records().cases
    assert (case.outcome, done.code) == ("inconclusive", 6), case.sentence
    assert "rounds were timed in a budget of 0.1 s, it takes 5" in case.sentence


# ONNX files that a user brings -------------------------------------------------------------


def small_network(path):
    """Another network than the catalog's, with the same tensors: a mean and a matrix."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(5).standard_normal((3, 1000)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["class"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", kind, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("class", kind, ["N", 1000])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("kind", ["--simulate-ascend", "--rehearsal"])
def test_a_fast_small_network_does_not_pass_in_the_models_name(run_pytest, tmp_path, kind):
    done = run_pytest(
        *(kind, "-m", "throughput", "--batch-sizes=4", "--budget=0.2", "--precision=100"),
        f"--onnx=tiny={small_network(tmp_path / 'small.onnx')}",
    )
    (case,) = done.records().cases
    assert (case.outcome, done.code) == ("failed", 1), case.sentence
    assert "--onnx gave another network than tiny" in case.sentence
    assert case.measurement["problems"]
    (finding,) = causes.causes(done.records())
    assert (finding.cause, "another network" in finding.why) == ("input", True)


def test_the_models_own_onnx_file_is_taken(run_pytest, shared):
    done = run_pytest(*CHAIN, "-m", "throughput")
    (before,) = done.records().cases
    key = next(one.key for one in before.artifacts if one.kind == "onnx")
    exported = shared / "store" / "v1" / "onnx" / key / "model.onnx"
    done = run_pytest(*CHAIN, "-m", "throughput", f"--onnx=tiny={exported}")
    (case,) = done.records().cases
    assert (case.outcome, done.code) == ("recorded", 0), case.sentence
    assert case.measurement["problems"] == []
    assert "the ONNX file" in case.checkpoint["source"]


def test_batch_sizes_are_held_against_each_other(run_pytest):
    done = run_pytest("--simulate-ascend", "--batch-sizes=1,4", "-m", "accuracy")
    assert done.code == 0, done.output
    (check,) = done.records().checks
    assert (check.name, check.outcome, check.provenance) == ("batch sizes", "passed", "simulated")


def test_a_fault_that_nothing_came_across_is_told(run_pytest):
    done = run_pytest(*CHAIN, "--simulator=cards=2,fault=nan:1", "-m", "accuracy")
    assert done.code == 0, done.output
    (check,) = (one for one in done.records().checks if one.name == "planted fault")
    assert (check.outcome, check.sentence) == ("recorded", "fault nan:1 never struck")
    assert check.sentence in done.output
