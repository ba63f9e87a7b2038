"""A run that goes on: what is left of it runs, into the same records."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.base.errors import ConfigError
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.records import reader, writer
from harness.records.lines import CheckName, PlanLine, ResumeLine, RunLine
from harness.run.directory import hold
from harness.run.ending import checks_over
from harness.settings import resolve
from tests.selftest import report_samples as samples
from tests.selftest.running import NO_NETWORK, QUICK, TINY


def cut(run_dir, lines):
    """Leave the first lines of a run's records, as a kill does."""
    path = run_dir / writer.RESULTS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))


def test_a_killed_run_goes_on_with_what_is_left(run_pytest, built):
    done = run_pytest("--rehearsal", "-m", "throughput", "--batch-sizes=1,4", *QUICK)
    assert done.code == 0, done.output
    run = done.run_dir
    cut(run, 3)  # the run, its plan and one case
    kept = reader.read(run).cases
    more = run_pytest(f"--resume={run}", "-n", "2")
    assert more.code == 0, more.output
    found = reader.read(run)
    assert found.end and found.end.complete
    assert found.cases[:1] == kept
    assert len(found.cases) == len(found.plan) == 2
    (check,) = (one for one in found.checks if one.name is CheckName.RESUMED)
    assert check.sentence == "1 of 2 cases ran after the run was resumed"
    assert "--resume" not in found.cases[1].repeat[0]
    again = run_pytest(f"--resume={run}", "-n", "1")
    assert again.code == 0, again.output
    assert "nothing is left to run" in again.output
    assert reader.read(run).cases == found.cases
    (only,) = run.parent.glob("2*")
    assert only == run


def test_a_run_goes_on_with_its_own_options(tmp_path):
    given = {"simulate_ascend": True, "simulator": "cards=2", "batch_sizes": "4", "budget": "3"}
    settings = resolve({**given, "catalog": str(TINY)}, {})
    line = RunLine(run="r", provenance="simulated", started="", settings=settings.to_json())
    writer.append(tmp_path, line)
    resumed = {"resume": str(tmp_path)}
    # No variable and no key of today changes what was asked for, also where nothing was.
    same = resolve(resumed, {"HARNESS_BUDGET": "7", "HARNESS_DEVICE": "1"}, {"harness_seed": "3"})
    assert replace(same, resume=None) == settings
    assert resolve({}, {"HARNESS_RESUME": str(tmp_path)}) == same
    assert resolve({**resumed, "target": "310p3"}, {}) == same
    assert resolve({**resumed, "budget": "3", "batch_sizes": "1"}, {}).batch_sizes == (1,)
    with pytest.raises(ConfigError, match="--budget"):
        resolve({**resumed, "budget": "4"}, {})


def test_the_run_of_another_user_is_not_resumed(tmp_path, monkeypatch):
    writer.append(tmp_path, RunLine(run="r", provenance="rehearsal", started=""))
    if os.geteuid() == 0:
        os.chown(tmp_path / writer.RESULTS, 4243, -1)
    monkeypatch.setattr("harness.records.resumed.os", SimpleNamespace(geteuid=lambda: 4242))
    with pytest.raises(ConfigError, match="belongs to another user"):
        resolve({"resume": str(tmp_path)}, {})


def test_a_run_that_goes_on_is_not_resumed(tmp_path):
    with hold(tmp_path), pytest.raises(ConfigError, match="still goes on"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_what_changed_since_is_named(tmp_path):
    settings = resolve({"simulate_ascend": True, "catalog": str(TINY)}, {})
    cases = [samples.case("tiny", batch, started=f"2026-0{batch}") for batch in (1, 4)]
    device = cases[1].device
    assert device is not None
    tools = {**device.toolchain, "driver": "24.1"}
    # An export is of all batch sizes, a compiled model of one.
    made = tuple(
        replace(one, digest="c" * 64) if one.stage in (Stage.EXPORT, Stage.COMPILE) else one
        for one in cases[1].artifacts
    )
    changes = {"device": replace(device, toolchain=tools), "artifacts": made}
    cases[1] = cases[1].model_copy(update=changes)
    plan = [samples.case("tiny", batch) for batch in (1, 4)]
    writer.append(
        tmp_path,
        RunLine(run="r", provenance="simulated", started="2026-01", catalog_digest="a" * 64),
        PlanLine(run="r", cases=tuple(samples.planned(one) for one in plan)),
        cases[0],
        plan[1].model_copy(update={"outcome": "error", "started": "2026-01"}),
        ResumeLine(run="r", started="2026-03", catalog_digest="b" * 64, nodeids=(cases[1].nodeid,)),
        cases[1],
    )
    found = reader.read(tmp_path)
    assert found.cases == tuple(cases)
    said = " ".join(one.sentence for one in checks_over(found, load_catalog(TINY), settings))
    assert "1 of 2 cases ran after the run was resumed" in said
    assert "the catalog aaaaaaaaaaaa is now bbbbbbbbbbbb" in said
    assert "24.1" in said and said.endswith("other artifacts: ONNX file of tiny")


def test_what_is_left_of_a_run(tmp_path):
    cases = [samples.case("tiny", batch) for batch in (1, 2, 4, 8)]
    outcomes = ("passed", "inconclusive", "crashed")
    lines = [
        case.model_copy(update={"outcome": outcome})
        for case, outcome in zip(cases, outcomes, strict=False)
    ]
    plan = PlanLine(run="r", cases=tuple(samples.planned(one) for one in cases))
    writer.append(tmp_path, RunLine(run="r", provenance="real", started=""), plan, *lines)
    found = reader.read(tmp_path)
    assert found.unfinished() == tuple(case.nodeid for case in cases[2:])
    assert found.unfinished(undecided=True) == tuple(case.nodeid for case in cases[1:])


def test_last_failed_and_stepwise_choose_what_failed(run_pytest, tmp_path, built):
    catalog = tmp_path / "catalog.yaml"
    broken = TINY.read_text().replace(*NO_NETWORK).partition("models:\n")[2]
    catalog.write_text(TINY.read_text() + broken.replace("  tiny:\n", "  broken:\n", 1))
    options = (
        *("-p", "cacheprovider", "-o", f"cache_dir={tmp_path / 'cache'}"),
        *("--rehearsal", "-m", "accuracy", "--batch-sizes=4"),
    )
    first = run_pytest(*options, catalog=catalog)
    assert sorted(first.outcomes().values()) == ["error", "passed"], first.output
    for how in ("--lf", "--sw"):
        again = run_pytest(*options, how, catalog=catalog)
        assert list(again.outcomes().values()) == ["error"], again.output
