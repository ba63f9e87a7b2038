"""A run on many hosts: no case is lost, none runs twice to its end, figures are one host's."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections import Counter, deque
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.chips import write_catalog
from harness.__main__ import app
from harness.base import processes
from harness.base.environment import code_digest
from harness.base.errors import ConfigError, DeviceError, RecordError, StoreError
from harness.fanout import node, ray_hosts
from harness.fanout.driver import fan_out
from harness.fanout.ray_hosts import Needs, RayHosts
from harness.judge.causes import Exit
from harness.records import reader
from harness.records.writer import RESULTS
from harness.run.engine import Run
from harness.run.own import catalog_of
from harness.settings import resolve
from harness.stages import parcels
from tests.selftest.running import ROOT, run_python

NETWORKS = ("a", "b", "c")


class OneByOne:
    """Hosts of which each dies after so many cases as `lives` says; the last ones live."""

    def __init__(self, *lives: int) -> None:
        self.lives = deque(lives)
        self.tasks: deque[tuple[int, node.Task]] = deque()
        self.ran: Counter[str] = Counter()
        self.started: list[tuple[str, ...]] = []

    def start(self, task):
        self.started.append(tuple(case.id for case in task.cases))
        self.tasks.append((len(self.started), task))
        return len(self.started)

    def events(self):
        while self.tasks:
            handle, task = self.tasks.popleft()
            life = self.lives.popleft() if self.lives else len(task.cases)
            why = "its node was lost" if life < len(task.cases) else ""
            for ended in node.perform(task.of(task.cases[:life])):
                self.ran[json.loads(ended.line)["nodeid"]] += 1
                yield handle, ended, ""
            yield handle, None, why

    def stop(self):
        self.tasks.clear()


@pytest.fixture
def make_run(shared, built, tmp_path):
    catalog = write_catalog(tmp_path, NETWORKS)

    def make_run(name: str, **given: str) -> Run:
        options = {"rehearsal": True, "catalog": str(catalog), "store": str(shared / "store")}
        places = {"runs": str(tmp_path / name), "leases": str(tmp_path / "leases")}
        return Run(resolve({**options, **places, "batch_sizes": "1,4", **given}, {}))

    return make_run


def figures(records):
    return {
        case.nodeid: (case.outcome, case.measured, case.sentence, case.artifacts[-1].digest)
        for case in records.cases
    }


def lines_of(records):
    lines = map(json.loads, (records.directory / RESULTS).read_text().splitlines())
    return Counter(line["nodeid"] for line in lines if line["kind"] == "case")


def test_a_lost_host_costs_no_case_and_none_runs_twice(make_run):
    one = make_run("one")
    whole = one.execute(one.plan.of("accuracy"))
    hosts, run = OneByOne(1, 0), make_run("many")
    made = fan_out(run, run.plan.of("accuracy"), hosts)
    assert figures(made) == figures(whole) and made.exit_status == whole.exit_status == 0
    assert set(lines_of(made).values()) == set(hosts.ran.values()) == {1}
    assert hosts.started == [
        *(("a-bs1-cpu", "a-bs4-cpu"), ("b-bs1-cpu", "b-bs4-cpu"), ("c-bs1-cpu", "c-bs4-cpu")),
        *(("a-bs4-cpu",), ("b-bs1-cpu", "b-bs4-cpu")),
    ]
    for case in made.cases:  # the files of a case came along
        assert case.accuracy and (made.directory / case.accuracy.predictions_file).is_file()
    subjects = [sorted((one.subject, one.outcome) for one in run.checks) for run in (made, whole)]
    assert subjects[0] == subjects[1] != []


def test_a_case_that_hosts_die_of_is_recorded_and_the_others_run(make_run):
    hosts, run = OneByOne(0, 0), make_run("many", models="a")
    made = fan_out(run, run.plan.of("accuracy"), hosts, count=1)
    assert [case.outcome for case in made.cases] == ["crashed", "passed"]
    assert made.cases[0].error and "its node was lost" in made.cases[0].error.message


def test_a_run_without_hosts_ends_and_goes_on(make_run):
    class Gone(OneByOne):
        def events(self):
            yield next(super().events())
            raise DeviceError("no host is left", remedy="")

        def stop(self):
            raise DeviceError("no host is left to stop", remedy="")

    run = make_run("many", models="a")
    with pytest.raises(DeviceError, match="no host is left"):
        fan_out(run, run.plan.of("accuracy"), Gone(), count=1)
    ended = reader.read(run.directory)
    assert ended.counts()["not_run"] == 1 and ended.end and not ended.end.complete
    again = Run(resolve({"resume": str(run.directory)}, {}))
    left = [case for case in again.plan.of("accuracy") if case.batch_size == 4]
    made = fan_out(again, left, OneByOne(), count=1)
    assert made.exit_status == 0 and set(lines_of(made).values()) == {1}


def test_a_line_of_another_kind_of_run_is_refused(make_run):
    class Simulated(OneByOne):
        def events(self):
            for handle, ended, why in super().events():
                line = json.dumps({**json.loads(ended.line), "provenance": "simulated"})
                yield handle, dataclasses.replace(ended, line=line), why

    run = make_run("many", models="a", batch_sizes="1")
    with pytest.raises(RecordError, match="a host sent accuracy of a-bs1-cpu as"):
        fan_out(run, run.plan.of("accuracy"), Simulated(), count=1)
    assert not reader.read(run.directory).cases


@pytest.mark.parametrize("part", ["catalog", "code"])
def test_a_host_with_another_catalog_or_harness_is_refused(part):
    catalog = catalog_of(resolve({"rehearsal": True}, environment={})).digest
    same = node.Task("run", "1/1", {"rehearsal": True}, "cpu", catalog, code_digest(), ())
    assert list(node.perform(same)) == []
    change: dict[str, Any] = {part: "another"}
    with pytest.raises(ConfigError, match="of this host is another one"):
        next(iter(node.perform(dataclasses.replace(same, **change))))


def test_what_one_host_built_another_one_takes(make_run, shared, tmp_path):
    run = make_run("many", models="a")
    case = run.plan.of("throughput")[0]
    given = {
        "rehearsal": True,
        "catalog": [str(path) for path in run.settings.catalog],
        "store": str(shared / "store"),
    }
    task = node.Task(run.id, "1/1", given, "cpu", run.catalog.digest, code_digest(), (case,))
    built = node.build(task)
    other = tmp_path / "other store"
    for parcel in built * 2:
        parcels.unpack(other, parcel)
    assert len(list(other.glob("v1/*/*"))) == len(built) > 3
    there = dataclasses.replace(task, given={**given, "store": str(other)})
    line = json.loads(next(node.perform(there)).line)
    assert all(one["cached"] for one in line["artifacts"])


@pytest.mark.parametrize("need", ["NPU", "=1", "NPU=nan", "NPU=-1", "NPU=1=2"])
def test_a_need_that_cannot_be_is_an_error_of_usage(need):
    arguments = ["fan-out", "--ray=127.0.0.1:1", "--rehearsal", f"--need={need}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 4 and "is not NAME=N" in done.stderr


def test_what_is_no_entry_is_not_unpacked(tmp_path):
    (tmp_path / "v1" / "onnx").mkdir(parents=True)
    with pytest.raises(StoreError, match="no entry"):
        parcels.unpack(tmp_path / "store", parcels.pack(tmp_path, Path("v1/onnx")))
    assert not (tmp_path / "store").exists()


# Over Ray, which the tests play without it --------------------------------------------------


@pytest.fixture
def fate(monkeypatch):
    """Say what becomes of a cluster, by a module that is as much of Ray as is called."""

    def fate(text: str) -> None:
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "selftest" / "fake_ray"))
        monkeypatch.setenv("FAKE_RAY", text)

    return fate


def test_a_task_whose_host_died_runs_on(make_run, fate, tmp_path):
    fate("dies:1")
    run = make_run("many", models="a")
    hosts = RayHosts("head:6379", Needs({}, build_cpus=1), tmp_path / "log")
    made = fan_out(run, run.plan.of("accuracy"), hosts)
    assert made.exit_status == 0 and set(lines_of(made).values()) == {1}


def test_a_cluster_whose_head_dies_is_told_in_a_line_and_what_ran_is_kept(
    make_run, fate, command, tmp_path
):
    settings = make_run("many").settings
    options = [f"--catalog={settings.catalog[0]}", f"--store={settings.store}", "--rehearsal"]
    options += ["--batch-sizes=1,4", "--models=a"]
    fate("lost:1")
    done = command("fan-out", "--ray=head:6379", "-m", "accuracy", *options)
    assert done.exit_code == Exit.MACHINE_TROUBLE
    run = (tmp_path / "runs" / "latest").resolve()
    said, remedy = done.stderr.splitlines()[-2:]
    assert "cluster at head:6379 is lost" in said and "1 of 2 cases are recorded" in said
    assert f"--resume={run}" in remedy
    assert "GCS" not in done.output and "GCS" in (run / "logs" / "ray.log").read_text()
    kept = reader.read(run)
    assert kept.exit_status == Exit.MACHINE_TROUBLE and len(kept.cases) == 1
    # Lost again, but with nothing left to run.
    again = command("fan-out", "--ray=head:6379", f"--resume={run}", "-m", "accuracy")
    made = reader.read(run)
    assert again.exit_code == made.exit_status == 0
    assert len(made.cases) == 2 and set(lines_of(made).values()) == {1}


def test_what_a_lost_cluster_said_before_is_kept_when_another_task_starts(make_run, fate, tmp_path):
    fate("lost:1")
    run, hosts = make_run("many", models="a"), RayHosts("head:6379", Needs({}), tmp_path / "log")
    given = {"rehearsal": True, "catalog": [str(path) for path in run.settings.catalog]}
    given["store"] = str(run.settings.store)
    cases = run.plan.of("accuracy")
    task = node.Task(run.id, "1/1", given, "cpu", run.catalog.digest, code_digest(), cases)
    heard = []
    try:
        hosts.start(task)
        assert processes.wait_ended(hosts._process, 60.0)
        hosts.start(task)
        with pytest.raises(DeviceError, match="is lost"):
            for event in hosts.events():
                heard.append(event)
    finally:
        hosts.stop()
    assert [event[1] is not None for event in heard] == [True]


def test_a_cluster_that_says_nothing_is_lost(make_run, fate, monkeypatch, tmp_path):
    fate("silent:0")
    run, hosts = make_run("many", models="a"), RayHosts("head:6379", Needs({}), tmp_path / "log")
    monkeypatch.setattr(ray_hosts, "PATIENCE_S", 0.5)
    with pytest.raises(DeviceError, match="said nothing"):
        fan_out(run, run.plan.of("accuracy"), hosts)


def test_a_cluster_that_says_nothing_and_would_not_die_is_lost(fate, monkeypatch, tmp_path):
    fate("silent:0")
    hosts = RayHosts("head:6379", Needs({}), tmp_path / "log")
    with monkeypatch.context() as patch:
        patch.setattr(processes, "kill_group", lambda *_: False)
        assert "said nothing" in hosts._lost().message
    hosts.stop()


def test_what_a_ray_says_that_does_not_start_is_in_the_error(fate, tmp_path):
    fate("broken:0")
    with pytest.raises(DeviceError, match="exit code 1") as caught:
        RayHosts("head:6379", Needs({}), tmp_path / "no run" / "logs" / "ray.log")
    assert "session directory of another version" in caught.value.log


def test_no_cluster_is_an_error_of_usage(fate, tmp_path):
    fate("absent:0")
    with pytest.raises(ConfigError, match="no Ray cluster at head:6379"):
        RayHosts("head:6379", Needs({}), tmp_path / "log")


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
@pytest.mark.parametrize("killed", ["node", "head", "none"])
def test_a_node_of_a_cluster_dies_in_mid_run(tmp_path, killed):
    options = [
        *("--simulate-ascend", "--simulator=time=spin:100", "--rehearsal-images=30"),
        *(f"--catalog={write_catalog(tmp_path, NETWORKS)}", "-m", "accuracy", "--batch-sizes=1,4"),
        f"--store={tmp_path / 'store'}",
    ]
    code, output = run_python(
        [
            *(str(ROOT / "tests" / "selftest" / "fanout_cluster.py"), str(tmp_path), killed),
            *(*options, "--need=NPU=1", f"--runs={tmp_path / 'runs'}"),
            *(["--build-cpus=1"] if killed == "none" else []),
        ],
        {
            "PYTHONPATH": str(ROOT),
            "HOME": os.environ["HOME"],
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        },
    )
    assert code == 0, output
    done = json.loads(output.strip().splitlines()[-1])
    if killed == "head":
        assert done["code"] == Exit.MACHINE_TROUBLE, done["log"]
        assert "is lost, its head does not answer (Ray ended with exit code" in done["log"]
        kept = reader.read(tmp_path / "runs" / "latest")
        assert kept.cases and set(lines_of(kept).values()) == {1}
        assert {case.outcome for case in kept.cases} == {"passed"}
        return
    assert done["code"] == 0, done["log"]
    assert ("goes on elsewhere" in done["log"]) == (killed == "node")
    made = reader.read(tmp_path / "runs" / "latest")
    assert len(made.cases) == 6 and set(lines_of(made).values()) == {1}
    assert {case.outcome for case in made.cases} == {"passed"}
    alone = ["-m", "pytest", "-p", "no:cacheprovider", *options, f"--runs={tmp_path / 'one'}"]
    code, output = run_python(alone)
    assert code == 0, output
    whole = reader.read(tmp_path / "one" / "latest")
    # Which artifact a case used last differs where another node had to build it again.
    measured, same = ({one: of[:3] for one, of in figures(run).items()} for run in (made, whole))
    assert measured == same
