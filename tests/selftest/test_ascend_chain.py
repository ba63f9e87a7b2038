"""The Ascend chain over the simulated toolchain, through the engine."""

from __future__ import annotations

import numpy as np
import pytest

from harness.base.errors import ConfigError, LoadError
from harness.base.stages import Stage
from harness.judge import causes
from harness.records.lines import CheckName
from harness.run.engine import Run
from harness.settings import resolve
from harness.targets import registry
from harness.targets.ascend import target
from harness.targets.protocol import Session
from tests.selftest import onnx_files
from tests.selftest.running import TINY

COMPILE = Stage.COMPILE


@pytest.fixture
def execute(shared, tmp_path, monkeypatch):
    """Run cases of the small network on a simulated host through the engine: the records."""
    monkeypatch.setattr(target, "LOOK_PAUSE_S", 0.0)

    def execute(simulator="", check=None, catalog=TINY, **given):
        options = {
            "simulate_ascend": True,
            "simulator": simulator,
            "batch_sizes": "4",
            "budget": 0.2,
            "timing_precision": 50,
            "catalog": str(catalog),
            "store": str(shared / "store"),
            "runs": str(tmp_path / "runs"),
            "leases": str(tmp_path / "leases"),
            **given,
        }
        run = Run(resolve(options, environment={}))
        return run.execute(run.plan.of(check) if check else None)

    return execute


@pytest.fixture
def case_of(execute):
    def case_of(*arguments, **given):
        records = execute(*arguments, **given)
        (case,) = records.cases
        return case, records.end.exit_status

    return case_of


def test_both_checks_go_through_the_chain_and_say_that_they_are_simulated(execute):
    records = execute()
    assert records.end.exit_status == 0
    accuracy, throughput = records.cases
    assert (accuracy.outcome, throughput.outcome) == ("passed", "recorded")
    assert "SIMULATED NPU" in (records.directory / "report.html").read_text()
    for case in (accuracy, throughput):
        assert case.provenance == "simulated"
        assert case.device.toolchain["simulated"] is True
        assert {"ais_bench", "aclruntime", "python"} <= case.device.runtime.keys()
    assert throughput.device.driver == "api"
    looks = throughput.throughput.conditions
    assert {one.moment for one in looks} >= {"before", "after"}
    assert [ref for ref in accuracy.artifacts if ref.stage == Stage.COMPILE]


def test_an_npu_is_found_without_being_named(tmp_path):
    """The table is a real tool's: a simulated one would stand behind no real run."""
    tool = tmp_path / "npu-smi"
    table = (TINY.parent / "data/npu_smi/310_20.2.2.txt").read_text()
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{table}\nEND\n")
    tool.chmod(0o755)
    given = {"catalog": str(TINY), "npu_smi": str(tool), "leases": str(tmp_path)}
    run = Run(resolve(given, environment={}))
    assert {case.target for case in run.plan.cases} == {"ascend310"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"simulate_ascend": True, "rehearsal": True}, "two kinds of run"),
        ({"simulate_ascend": True, "target": "cpu"}, "no simulator for the target cpu"),
        ({"simulate_ascend": True, "limit": "5"}, "give both --imagenet=DIR and --checkpoints=DIR"),
        ({"simulator": "fault=busy"}, "--simulator does not go with a real run"),
        ({"simulate_ascend": True, "driver": "pyacl"}, "api, cli"),
        ({"simulate_ascend": True, "simulator": "fault=bussy"}, "busy"),
        ({"simulate_ascend": True, "simulator": "without=atc"}, "has no atc"),
        ({"simulate_ascend": True, "soc_version": "910"}, "--soc-version=910"),
    ],
)
def test_options_that_do_not_fit(tmp_path, given, words):
    with pytest.raises(ConfigError) as caught:
        settings = resolve(given, environment={})
        registry.provider_of(settings).check(settings)
        registry.make_target("ascend310p3", settings, tmp_path)
    assert words in caught.value.message + caught.value.remedy


# Through the engine ------------------------------------------------------------------------


def test_the_chip_of_the_other_target(case_of):
    case, code = case_of(check="throughput", target="ascend310")
    assert (code, case.device.name) == (0, "Ascend310")
    assert case.throughput.setup.chips == 4


@pytest.mark.parametrize("chip", ["310B1", "910B3", "910_9392"])
def test_a_chip_without_figures_is_recorded(case_of, chip):
    case, code = case_of(check="throughput", target=f"ascend{chip.lower()}")
    assert (case.outcome, code, case.device.name) == ("recorded", 0, f"Ascend{chip}")


@pytest.mark.parametrize("check", ["accuracy", "throughput"])
def test_the_other_driver(case_of, check):
    case, code = case_of("float16=1", check, driver="cli")
    assert (code, case.device.driver) == (0, "cli"), case.sentence
    assert {"tool", "warmup"} <= case.device.runtime.keys()
    if check == "accuracy":
        assert 1e-5 < case.accuracy.fidelity.relative_l2 < 3e-2  # float16 costs a little
    else:
        # The tool that it starts for each call is the measurement's own.
        assert {look.busy for look in case.throughput.conditions} == {"no"}


def test_one_wrong_output_is_not_lost_in_a_trial(case_of):
    case, code = case_of("fault=nan:0:1", "accuracy", driver="cli", no_diagnosis=True)
    assert (case.outcome in ("failed", "error"), code) == (True, 1), case.sentence
    assert "NaN" in case.sentence


def test_wrong_outputs_have_one_cause_in_both_checks(execute):
    records = execute("fault=nan")
    assert records.end.exit_status == 1
    findings = causes.causes(records)
    assert [finding.cause for finding in findings] == ["toolchain"] * 2
    assert findings[0].why == findings[1].why


@pytest.mark.parametrize(
    ("fault", "check", "blamed"),
    [("nan:0", None, "machine"), ("nan:0", "throughput", "machine"), ("nan", None, "toolchain")],
)
def test_a_file_that_another_device_runs_rightly_blames_the_device(execute, fault, check, blamed):
    records = execute(f"cards=2,fault={fault}", check)
    assert records.end.exit_status == 1
    findings = causes.causes(records)
    assert {finding.cause for finding in findings} == {blamed}
    assert len({finding.why for finding in findings}) == 1
    assert "ascend310p3-0" in findings[0].why or (blamed == "toolchain" and check != "throughput")
    assert ("float16" in findings[0].remedy) == (blamed == "toolchain")
    first = records.cases[0]
    assert first.device.id == "ascend310p3-0"  # the record is the run's, not the diagnosis's
    if blamed == "machine" and check is None:  # the device is set aside for what comes after
        (_, second) = records.cases
        assert (second.device.id, second.outcome) == ("ascend310p3-1", "recorded")


def test_a_lost_device_is_set_aside_and_the_case_is_tried_on_another(execute):
    records = execute("cards=2,fault=device-lost:0")
    assert records.end.exit_status == 0
    accuracy, throughput = records.cases
    assert accuracy.device.id == throughput.device.id == "ascend310p3-1"
    assert [one.device for one in accuracy.attempts] == ["ascend310p3-0"]
    assert throughput.attempts == ()  # it was set aside before


def test_a_sick_device_that_was_named_is_told(case_of):
    case, code = case_of("cards=2,fault=unhealthy:0", "accuracy", device="0,1")
    assert (case.device.id, code) == ("ascend310p3-1", 0)
    assert "Alarm" in case.device.left_out["ascend310p3-0"]


@pytest.mark.parametrize(
    ("fault", "stage", "code", "words"),
    [
        ("unsupported-operator", Stage.COMPILE, 1, "EZ3002"),
        ("truncated-om", Stage.LOAD, 1, ""),
        ("device-lost", Stage.DEVICE, 7, "507033"),
        ("unhealthy", Stage.DEVICE, 7, "Alarm"),
    ],
)
def test_each_fault_is_named_at_its_stage(case_of, fault, stage, code, words):
    case, status = case_of(f"fault={fault}", "accuracy")
    assert (case.outcome, case.error.stage, status) == ("error", stage, code), case.sentence
    assert words in case.sentence + case.error.message + case.error.log
    assert case.error.remedy
    assert "Traceback" not in case.sentence


@pytest.mark.parametrize(("count", "check"), [(":any:1", "accuracy"), ("", None)])
def test_an_om_that_does_not_load_is_compiled_anew_once(execute, shared, count, check):
    records = execute(f"fault=truncated-om{count}", check)
    ref = next(ref for ref in records.cases[0].artifacts if ref.stage is COMPILE)
    aside = list((shared / "store/damaged").glob(f"compile-{ref.key}-*/manifest.json"))
    if count:
        assert [case.outcome for case in records.cases] == ["passed"]
        assert len(aside) == 1 and ref.digest not in aside[0].read_text()
    else:  # the failure stands, for both cases
        assert [case.error.stage for case in records.cases] == [Stage.LOAD] * 2
        assert records.end.exit_status == 1
        assert aside


def test_an_om_that_another_case_opened_is_not_compiled_anew(execute, tmp_path, monkeypatch):
    """Otherwise the figures of its two checks would be of two files."""
    opened = target.AscendTarget.open
    sessions: list[Session] = []

    def open_once(*arguments, **given):
        if sessions:
            raise LoadError("it could not be opened")
        sessions.append(opened(*arguments, **given))
        return sessions[0]

    monkeypatch.setattr(target.AscendTarget, "open", open_once)
    records = execute(store=str(tmp_path / "store"))
    assert [case.outcome for case in records.cases] == ["passed", "error"]
    assert not (tmp_path / "store/damaged").exists()


def test_a_fault_that_nothing_came_across_is_told(execute):
    records = execute("cards=2,fault=nan:1", "accuracy")
    assert records.end.exit_status == 6
    (check,) = (one for one in records.checks if one.name == CheckName.PLANTED_FAULT)
    assert (check.outcome, check.sentence) == ("inconclusive", "fault nan:1 never struck")


# Judged against figures that are marked as simulated ----------------------------------------

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


@pytest.mark.parametrize(
    ("fps", "provenance", "options", "outcome", "code", "words"),
    [
        (100, "simulated", (), "passed", 0, "against 100"),
        (4000, "simulated", (), "failed", 1, "too slow"),
        (100, "simulated", ("fault=busy",), "inconclusive", 6, "busy"),
        (4000, "real", (), "recorded", 0, ""),  # never held against a real figure
    ],
    ids=["fast", "slow", "busy", "real"],
)
def test_a_simulated_device_is_judged_by_simulated_figures(
    case_of, tmp_path, fps, provenance, options, outcome, code, words
):
    """A device that takes 10 ms for a batch of 4: 400 frames a second."""
    catalog = tmp_path / "judged.yaml"
    table = TABLE.replace("PROVENANCE", provenance).replace("FPS", str(fps))
    catalog.write_text(TINY.read_text() + table)
    host = ",".join(("compute=onnx,time=spin:10", *options))
    # Five rounds of 0.25 s, whatever the machine does meanwhile: the budget ends none of them.
    case, status = case_of(host, "throughput", catalog, budget=60, timing_precision=30)
    assert (case.outcome, status) == (outcome, code), case.sentence
    assert words in case.sentence
    assert provenance == "simulated" or "4000" not in case.sentence


# ONNX files that a user brings --------------------------------------------------------------


def small_network(path):
    """Another network than the catalog's, with the same tensors: a mean and a matrix."""
    text = """
        small (float[N, 3, 64, 64] image) => (float[N, 1000] class) {
            pooled = GlobalAveragePool(image)
            flat = Flatten(pooled)
            class = MatMul(flat, weights)
        }"""
    weights = np.random.default_rng(5).standard_normal((3, 1000))
    return onnx_files.write(path, text, weights=weights)


def test_a_fast_small_network_does_not_pass_in_the_models_name(execute, tmp_path):
    file = small_network(tmp_path / "small.onnx")
    records = execute("", "throughput", onnx=[f"tiny={file}"])
    (case,) = records.cases
    assert (case.outcome, records.end.exit_status) == ("failed", 1), case.sentence
    assert "another network than tiny" in case.sentence
    (finding,) = causes.causes(records)
    assert finding.cause == "input"


def test_the_models_own_onnx_file_is_taken(case_of, shared):
    case, _ = case_of("", "throughput")
    key = next(one.key for one in case.artifacts if one.stage == Stage.EXPORT)
    (exported,) = (shared / "store").rglob(f"{key}/model.onnx")
    case, code = case_of("", "throughput", onnx=[f"tiny={exported}"])
    assert (case.outcome, code) == ("recorded", 0), case.sentence
    assert case.throughput.problems == ()
    assert case.checkpoint.source == "onnx"
