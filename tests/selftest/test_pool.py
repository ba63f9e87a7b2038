"""Which device a case gets: free ones side by side, whole cards, devices that were set aside."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest

from harness.errors import DeviceError
from harness.targets.pool import DevicePool
from harness.targets.protocol import Device


class Devices:
    """A target that is nothing but its devices."""

    name = "npu"

    def __init__(self, *cards, runs_on_host=False):
        self.runs_on_host = runs_on_host
        self.all = [
            Device("npu", index, "chip", f"card-{card}")
            for index, card in enumerate(n for n, chips in enumerate(cards) for _ in range(chips))
        ]

    def devices(self):
        return tuple(self.all)

    def card(self, device):
        return tuple(one for one in self.all if one.group == device.group)


@pytest.fixture
def pool_of(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # these tests' own, under -n

    def make(target):
        return DevicePool(target, tmp_path / "leases", tmp_path / "run", lambda _: None)

    return make


def test_accuracy_cases_take_different_devices(pool_of):
    pool = pool_of(Devices(1, 1))
    with pool.for_case("accuracy", "a") as (one, _), pool.for_case("accuracy", "b") as (two, _):
        assert {one.index, two.index} == {0, 1}


def test_two_chips_of_one_card_serve_two_accuracy_cases(pool_of):
    pool = pool_of(Devices(2))
    with pool.for_case("accuracy", "a") as (one, _), pool.for_case("accuracy", "b") as (two, _):
        assert one != two


def test_throughput_takes_the_whole_card_and_no_other(pool_of):
    pool = pool_of(Devices(2, 1))
    with pool.for_case("throughput", "a") as (one, lease):
        assert [device.index for device in lease.devices] == [0, 1]
        assert one.index == 0
        with pool.for_case("accuracy", "b") as (two, _):
            assert two.index == 2


def test_throughput_waits_for_an_accuracy_case_on_its_card(pool_of):
    pool = pool_of(Devices(2))
    order = []

    def throughput():
        with pool.for_case("throughput", "t"):
            order.append("throughput")

    with pool.for_case("accuracy", "a"):
        thread = threading.Thread(target=throughput)
        thread.start()
        time.sleep(0.3)
        order.append("accuracy ends")
    thread.join(20)
    assert order == ["accuracy ends", "throughput"]


def test_accuracy_cases_share_the_hosts_cpu(pool_of):
    pool = pool_of(Devices(1, runs_on_host=True))
    with pool.for_case("accuracy", "a") as (one, _), pool.for_case("accuracy", "b") as (two, _):
        assert one == two


def test_a_device_that_was_set_aside_is_not_used(pool_of):
    pool, other = pool_of(Devices(1, 1)), pool_of(Devices(1, 1))
    pool.quarantine(pool.usable()[0], "it was lost")
    assert [device.index for device in other.usable()] == [1]  # another process of the run
    assert other.set_aside() == {"npu-0": "it was lost"}
    with other.for_case("throughput", "t") as (device, _):
        assert device.index == 1


def test_no_device_is_left(pool_of):
    pool = pool_of(Devices(1))
    pool.quarantine(pool.usable()[0], "it was lost")
    with pytest.raises(DeviceError, match="npu-0: it was lost"), pool.for_case("accuracy", "a"):
        pass
    assert pool_of(Devices(1)).set_aside() == {"npu-0": "it was lost"}


def test_devices_that_were_tried_are_left_out(pool_of):
    pool = pool_of(Devices(1, 1))
    with pool.for_case("accuracy", "a", without={"npu-0"}) as (device, _):
        assert device.index == 1
    with pytest.raises(DeviceError, match="each was tried"):
        pool.usable({"npu-0", "npu-1"})


def test_workers_begin_with_different_devices(pool_of, monkeypatch):
    pool = pool_of(Devices(1, 1, 1))
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    assert [device.index for device in pool.usable()] == [1, 2, 0]
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw5")
    assert pool.usable()[0].index == 2


def _hold(pool, told):
    with pool.for_case("accuracy", "of another process") as (device, _):
        told.send(device.index)
        time.sleep(60)


def test_another_process_keeps_its_device(pool_of):
    context = multiprocessing.get_context("fork")
    pool = pool_of(Devices(1, 1))
    heard, told = context.Pipe(duplex=False)
    child = context.Process(target=_hold, args=(pool, told))
    child.start()
    assert heard.poll(20)
    theirs = heard.recv()
    with pool.for_case("accuracy", "ours") as (device, _):
        assert device.index != theirs
    child.kill()  # a crashed worker's device is free again
    child.join(20)
    with pool.for_case("throughput", "all") as (one, _):
        assert one.index in (0, 1)
