"""Several devices of one host: a worker for each, the order of the cases, no device held twice."""

from __future__ import annotations

from collections import Counter
from itertools import chain, cycle
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.chips import held_twice
from harness.plan import Case
from harness.plugin import pytest_xdist_auto_num_workers, schedule
from harness.records.observed import HeldLease
from harness.run.case_record import nodeid_of
from tests.selftest import report_samples as samples
from tests.selftest.running import QUICK

MODELS = "abcde"
SIZES = (1, 4, 8, 16, 32, 64)


class Node:
    """A worker of xdist, which runs an item when it knows the next one."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.queue: list[int] = []
        self.shutting_down = False
        self.ran: list[Case] = []
        self.until = 0.0

    def send_runtest_some(self, items: list[int]) -> None:
        self.queue += items

    def shutdown(self) -> None:
        self.shutting_down = True


def play(cases, seconds, workers, monkeypatch, known=None, dies=False, ours=True):
    """Return the workers after they have run the cases, each case as long as it takes. `dies`: a
    worker at its second case, in whose place another one starts. Not `ours`: tests of others.
    """
    now = [0.0]
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=lambda: now[0]))
    config: Any = SimpleNamespace(
        getoption=lambda name: None, getvalue=lambda name: ["popen"] * workers, option=None
    )
    names = {nodeid_of(case).rpartition("::")[2]: case for case in cases}
    expected = {case: (known or {}).get(case) for case in cases}
    scheduling = schedule.CaseScheduling(config, None, names if ours else {}, expected)
    nodes = [Node(f"gw{index}") for index in range(workers)]
    lost: list[Case] = []

    def join(node):
        scheduling.add_node(node)
        scheduling.add_node_collection(node, [nodeid_of(case) for case in cases])

    for node in nodes:
        join(node)
    scheduling.schedule()

    def ready():
        return [one for one in nodes if len(one.queue) + one.shutting_down > 1]

    for node in ready():
        node.until = seconds[cases[node.queue[0]]]
    while running := ready():
        node = min(running, key=lambda one: one.until)
        now[0] = node.until
        if dies and node.ran and not lost:
            lost.append(names[scheduling.remove_node(node).rpartition("::")[2]])
            node.queue.clear()
            node.shutting_down = False
            nodes.append(node := Node("another"))
            join(node)
            scheduling.schedule()
            node.until = now[0] + 1.0
            continue
        index = node.queue.pop(0)
        node.ran.append(cases[index])
        scheduling.mark_test_complete(node, index)
        if node.queue:
            node.until = now[0] + seconds[cases[node.queue[0]]]
    ran = Counter(chain.from_iterable(node.ran for node in nodes))
    assert ran + Counter(lost) == Counter(cases) and scheduling.tests_finished
    return nodes


def matrix(check="accuracy", sizes=SIZES):
    return [Case(model, size, "cpu", check) for model in MODELS for size in sizes]


@pytest.mark.parametrize("wrong_by", [1.0, 0.7])
def test_eight_devices_do_the_matrix_in_the_time_of_its_longest_case(monkeypatch, wrong_by):
    cases = matrix()
    seconds = {case: 64 / case.batch_size for case in cases}
    errors = cycle([wrong_by, 1.0, 1.0])
    known = {case: time * next(errors) for case, time in seconds.items()}
    nodes = play(cases, seconds, 8, monkeypatch, known)
    assert max(node.until for node in nodes) <= 64 * (1.0 if wrong_by == 1.0 else 1.2)


def test_cases_that_share_builds_go_to_one_worker(monkeypatch):
    cases = matrix()
    nodes = play(cases, dict.fromkeys(cases, 1.0), len(MODELS), monkeypatch)
    assert [len({case.model for case in node.ran}) for node in nodes] == [1] * len(MODELS)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_in_the_place_of_a_dead_one_runs_what_is_left(monkeypatch, workers):
    cases = matrix()
    nodes = play(cases, dict.fromkeys(cases, 1.0), workers, monkeypatch, dies=True)
    assert len(nodes[-1].ran) > 5


def test_no_chip_waits_for_its_card_while_accuracy_is_left(monkeypatch):
    cases = [*matrix("throughput", (1, 4)), *matrix(sizes=(1, 4))]
    nodes = play(cases, dict.fromkeys(cases, 1.0), 2, monkeypatch)
    for node in nodes:
        checks = [case.check for case in node.ran]
        assert checks == sorted(checks)


def test_other_tests_are_dealt_out_too(monkeypatch):
    cases = matrix()
    play(cases, dict.fromkeys(cases, 1.0), 3, monkeypatch, ours=False)


def test_thousands_of_cases_beside_a_long_one_are_dealt_out(monkeypatch):
    """Each looked at with each other one would take minutes."""
    cases = [Case(f"m{at}", size, "cpu", "accuracy") for at in range(300) for size in SIZES]
    seconds = {case: 1000.0 if case is cases[0] else 1.0 for case in cases}
    looked = [0]

    def share(one: Case, other: Case) -> bool:
        looked[0] += 1
        return False

    monkeypatch.setattr(schedule, "share_builds", share)
    play(cases, seconds, 8, monkeypatch, known=seconds)
    assert looked[0] < 1000 * len(cases)


def test_auto_is_a_worker_for_each_device_and_none_is_held_twice(run_pytest, built):
    done = run_pytest(
        *("--simulate-ascend", "--simulator=cards=1,chips_per_card=2", "-n", "auto"),
        *("--batch-sizes=4", *QUICK),
    )
    assert done.code == 0, done.output
    cases = done.records().cases
    assert {case.worker for case in cases} == {"gw0", "gw1"}
    assert held_twice(cases) == []
    for case in cases:
        (lease,) = case.leases
        assert lease.alone
        assert len(lease.devices) == (2 if case.check == "throughput" else 1)
        assert lease.until - lease.since <= case.seconds


def test_a_device_that_is_held_twice_is_found():
    def at(since, until, *devices, alone=True):
        return samples.case("a", 1, leases=(HeldLease(devices, alone, since, until),))

    first, second = at(0, 2, "npu-0"), at(1, 3, "npu-0", "npu-1")
    assert held_twice([first, second]) and held_twice([second, at(0, 9, "npu-1", alone=False)])
    assert not held_twice([first, at(2, 3, "npu-0"), at(0, 9, "npu-1")])
    assert not held_twice([at(0, 2, "cpu-0", alone=False)] * 2)


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({"simulate_ascend": True, "simulator": "cards=4,chips_per_card=2"}, 8),
        ({"simulate_ascend": True, "simulator": "cards=4,chips_per_card=2", "device": "1,2"}, 2),
        ({"simulate_ascend": True, "simulator": "cards=0"}, 1),
        ({"rehearsal": True}, 2),
    ],
)
def test_workers_that_auto_starts(monkeypatch, tmp_path, options, workers):
    monkeypatch.setattr("harness.targets.registry.cores", lambda: 64)
    config: Any = SimpleNamespace(
        getoption=lambda name, default: options.get(name.removeprefix("harness_")),
        getini=lambda key: "",
        inipath=None,
        invocation_params=SimpleNamespace(dir=tmp_path),
    )
    assert pytest_xdist_auto_num_workers(config) == workers
