"""Which device a case gets: free ones side by side, whole cards, devices that were set aside."""

import contextlib
import os
import subprocess
import threading

import pytest

from harness.base.errors import DeviceError
from harness.targets import leases
from harness.targets.pool import TURN_S, DevicePool
from tests.selftest.fakes import Devices
from tests.selftest.running import PATIENCE_S


@pytest.fixture
def pool_of(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # these tests' own, under -n

    def make(target, **options):
        folders = tmp_path / "leases", tmp_path / "run"
        return DevicePool(target, *folders, lambda _: None, **options)

    return make


@pytest.mark.parametrize(
    ("target", "taken"),
    [
        (Devices(1, 1), [0, 1]),
        (Devices(2), [0, 1]),  # chips of one card
        (Devices(1, runs_on_host=True), [0, 0]),  # shared
    ],
)
def test_two_accuracy_cases_run_side_by_side(pool_of, target, taken):
    pool = pool_of(target)
    with pool.for_case("accuracy", "a") as (one, _), pool.for_case("accuracy", "b") as (two, _):
        assert [one.index, two.index] == taken


def test_throughput_takes_the_whole_card_and_no_other(pool_of):
    pool = pool_of(Devices(2, 1))
    with pool.for_case("throughput", "a") as (one, lease):
        assert [device.index for device in lease.devices] == [0, 1]
        assert one.index == 0
        with pool.for_case("accuracy", "b") as (two, _):
            assert two.index == 2


def tries_of(pool, monkeypatch, check, failures):
    """How a case of a card's chips stands in line: (device, seconds of its turn), try by try."""
    tries = []

    @contextlib.contextmanager
    def lease(device, directory, *, timeout_s, what, **others):
        tries.append((device.index, timeout_s))
        if len(tries) <= failures:
            raise leases.NotFree(f"{what}: not free")
        yield leases.Lease((), True, (), 0.0)

    monkeypatch.setattr(leases, "lease", lease)
    with pool.for_case(check, "a case"):
        return tries


def test_throughput_keeps_its_place_in_line_for_the_only_card(pool_of, monkeypatch):
    # In turns of seconds it would give back the chips that it has of the card, each time.
    ((device, seconds),) = tries_of(pool_of(Devices(4)), monkeypatch, "throughput", 0)
    assert device == 0
    assert seconds > 1000 * TURN_S


@pytest.mark.parametrize(
    ("cards", "check", "devices", "turns"),
    [
        ((4, 4), "throughput", [0, 4] * 4, [0, 0, 1, 1, 2, 2, 4, 4]),
        ((2, 1), "accuracy", [0, 1, 2] * 3, [0] * 3 + [1] * 6),
    ],
)
def test_turns_of_throughput_get_longer_and_those_of_accuracy_stay_short(
    pool_of, monkeypatch, cards, check, devices, turns
):
    tries = tries_of(pool_of(Devices(*cards)), monkeypatch, check, len(turns) - 1)
    assert [device for device, _ in tries] == devices
    assert [seconds / TURN_S for _, seconds in tries] == turns


@pytest.fixture
def undead(pool_of, tmp_path):
    """Chip 0, set aside, with a worker that would not die and has inherited its lease."""
    pool = pool_of(Devices(2))
    chip = pool.usable()[0]
    with leases.lease(
        chip, tmp_path / "leases", exclusive=True, timeout_s=0.0, what="the case that hung"
    ) as held:
        worker = subprocess.Popen(["sleep", "600"], pass_fds=held.fds)
    pool.quarantine(chip, "would not die")
    yield worker
    worker.kill()
    worker.wait()


def test_throughput_waits_for_no_worker_that_would_not_die(pool_of, undead):
    with pytest.raises(DeviceError) as caught, pool_of(Devices(2)).for_case("throughput", "t"):
        pass
    assert "npu-0 was set aside (would not die) and is held by" in caught.value.message
    assert "the case that hung" in caught.value.message
    with pool_of(Devices(2)).for_case("accuracy", "a") as (device, _):
        assert device.index == 1
    with pool_of(Devices(2, 2)).for_case("throughput", "t") as (device, _):
        assert device.index == 2
    undead.kill()
    undead.wait()
    with pool_of(Devices(2)).for_case("throughput", "t") as (device, lease):
        assert device.index == 1
        assert len(lease.devices) == 2


def test_a_worker_that_may_still_end_is_waited_for(pool_of, undead, tmp_path):
    (tmp_path / "run" / "set-aside" / "npu-0.txt").unlink()
    pool = pool_of(Devices(2))
    with pytest.raises(leases.NotFree), pool.for_case("throughput", "t", timeout_s=0):
        pass


def test_what_is_judged_by_cpu_time_shares_the_hosts_cpu_and_no_other_device(pool_of):
    for target, alone in ((Devices(1, runs_on_host=True), False), (Devices(1), True)):
        pool = pool_of(target, shares_host=True)
        with pool.for_case("throughput", "rehearsed") as (_, lease):
            assert lease.exclusive == alone


def test_throughput_has_the_hosts_cpu_alone(pool_of):
    pool = pool_of(Devices(1, runs_on_host=True))
    with (
        pool.for_case("throughput", "t"),
        pytest.raises(leases.NotFree),
        pool.for_case("accuracy", "a", timeout_s=0),
    ):
        pass


def test_a_card_that_another_case_has_is_waited_for(pool_of):
    pool, order = pool_of(Devices(2)), []
    pool.quarantine(pool.usable()[0], "it was lost")

    def throughput():
        with pool_of(Devices(2)).for_case("throughput", "second"):
            order.append("second")

    with pool.for_case("throughput", "first") as (_, lease):
        assert len(lease.devices) == 2  # the chip that was set aside, too
        thread = threading.Thread(target=throughput)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(PATIENCE_S)
    assert order == ["first", "second"]


def test_a_device_that_was_set_aside_is_not_used(pool_of):
    pool, other = pool_of(Devices(1, 1)), pool_of(Devices(1, 1))
    pool.quarantine(pool.usable()[0], "it was lost")
    assert [device.index for device in other.usable()] == [1]  # another process of the run
    assert other.set_aside() == {"npu-0": "it was lost"}
    with other.for_case("throughput", "t") as (device, _):
        assert device.index == 1


def test_no_device_is_left(pool_of):
    pool = pool_of(Devices(1))
    with pytest.raises(DeviceError, match="each was tried"):
        pool.usable({"npu-0"})
    pool.quarantine(pool.usable()[0], "it was lost")
    with pytest.raises(DeviceError, match="npu-0: it was lost"), pool.for_case("accuracy", "a"):
        pass


def test_a_device_that_was_tried_is_left_out(pool_of):
    pool = pool_of(Devices(1, 1))
    with pool.for_case("accuracy", "a", without={"npu-0"}) as (device, _):
        assert device.index == 1


def test_workers_begin_with_different_devices(pool_of, monkeypatch):
    pool = pool_of(Devices(1, 1, 1))
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    assert [device.index for device in pool.usable()] == [1, 2, 0]
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw5")
    assert pool.usable()[0].index == 2


def test_the_reason_why_a_device_is_set_aside_is_not_written_through_a_link(pool_of, tmp_path):
    (tmp_path / "precious").write_text("ours")
    pool = pool_of(Devices(2))
    chip = pool.usable()[0]
    pool.quarantine(chip, "it was lost")
    (place,) = tmp_path.rglob(f"{chip.id}.txt")
    place.unlink()
    for trap in (place, place.with_suffix(f".{os.getpid()}")):
        trap.symlink_to(tmp_path / "precious")
    pool.quarantine(chip, "it hung")
    assert pool.set_aside() == {chip.id: "it hung"}
    assert (tmp_path / "precious").read_text() == "ours"
