"""`harness.targets.leases`: a device is free exactly when nobody can touch it any more."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness.base.errors import DeviceError
from harness.base.locks import FileLock
from harness.targets import leases
from harness.targets.leases import Lease, lease
from harness.targets.protocol import Device
from tests.selftest.running import PATIENCE_S, descriptors

CPU = Device("cpu", 0, "host", "host")
CARD = tuple(Device("ascend310", k, "Ascend 310", "card-0") for k in range(4))


@contextmanager
def take(device: Device, directory: Path, **given: object) -> Iterator[Lease]:
    settings = {"exclusive": True, "timeout_s": 0.0, "what": "a case", **given}
    with lease(device, directory, **settings) as held:  # type: ignore[arg-type]
        yield held


def is_free(device: Device, directory: Path, *, exclusive: bool = True) -> bool:
    try:
        with take(device, directory, exclusive=exclusive):
            return True
    except DeviceError:
        return False


def test_exclusive_excludes_and_names_the_holder(tmp_path: Path) -> None:
    with take(CPU, tmp_path, what="throughput[squeezenet1_1-bs1-cpu]") as held:
        assert len(held.fds) == 1 and held.devices == (CPU,)
        for exclusive in (True, False):
            with (
                pytest.raises(DeviceError, match=r"squeezenet1_1-bs1-cpu") as caught,
                take(CPU, tmp_path, exclusive=exclusive, what="mine"),
            ):
                pass
            assert str(os.getpid()) in caught.value.message
            assert caught.value.message.startswith("mine: cpu-0 (host) was not free")
            assert str(tmp_path / "cpu-0.lock") in caught.value.remedy
    assert is_free(CPU, tmp_path)


def test_shared_holders_share(tmp_path: Path) -> None:
    with take(CPU, tmp_path, exclusive=False), take(CPU, tmp_path, exclusive=False):
        assert not is_free(CPU, tmp_path)
    assert is_free(CPU, tmp_path)


def test_throughput_takes_the_card(tmp_path: Path) -> None:
    with take(CARD[2], tmp_path, group=CARD) as held:
        assert held.devices == CARD and len(set(held.fds)) == 4
        assert [is_free(chip, tmp_path, exclusive=False) for chip in CARD] == [False] * 4
    assert all(is_free(chip, tmp_path) for chip in CARD)
    with take(CARD[0], tmp_path):
        assert is_free(CARD[1], tmp_path) and is_free(CPU, tmp_path)


def test_one_busy_chip_keeps_the_card_and_the_others_are_given_back(tmp_path: Path) -> None:
    with take(CARD[3], tmp_path, exclusive=False, what="accuracy on chip 3"):
        with (
            pytest.raises(DeviceError, match="accuracy on chip 3"),
            take(CARD[0], tmp_path, group=CARD),
        ):
            pass
        assert all(is_free(chip, tmp_path) for chip in CARD[:3])


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DeviceError, match="cannot be taken in") as caught,
        take(CPU, tmp_path / "file"),
    ):
        pass
    assert "flock" in caught.value.remedy
    assert f"install -d -m 1777 {tmp_path / 'file'}" in caught.value.remedy
    assert "--leases=DIR" in caught.value.remedy


def test_freed_after_an_exception_and_no_descriptor_is_left(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(RuntimeError), take(CARD[0], tmp_path, group=CARD):
        assert not is_free(CARD[1], tmp_path)
        raise RuntimeError
    assert descriptors() <= before
    assert is_free(CARD[0], tmp_path)


def test_who_waits_hears_who_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "NOTICE_S", 0.02)
    heard: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(take(CPU, tmp_path, what="the other run"))

        def told(text: str) -> None:
            heard.append(text)
            stack.close()

        with take(CPU, tmp_path, timeout_s=30.0, on_wait=told) as held:
            assert held.waited_s > 0
    assert len(heard) == 1
    assert "cpu-0 is held by the other run" in heard[0]


def test_a_worker_that_lives_on_keeps_its_device(tmp_path: Path) -> None:
    with take(CPU, tmp_path, what="case of a worker") as held:
        worker = subprocess.Popen(["sleep", "600"], pass_fds=held.fds)
    try:
        with (
            pytest.raises(DeviceError, match="what is left of case of a worker"),
            take(CPU, tmp_path, exclusive=False),
        ):
            pass
    finally:
        worker.kill()
        worker.wait()
    assert is_free(CPU, tmp_path)


def test_the_next_in_line_is_named_to_those_behind_it(tmp_path: Path) -> None:
    with take(CPU, tmp_path, exclusive=False, what="long accuracy"):
        gate = FileLock(tmp_path / "cpu-0.gate")  # as one who waits for an exclusive lease
        gate.acquire(what="throughput in line", timeout_s=0)
        with pytest.raises(DeviceError) as caught, take(CPU, tmp_path, exclusive=False):
            pass
        gate.release()
    assert "held by long accuracy" in caught.value.message
    assert "next in line is throughput in line" in caught.value.message


def test_a_stream_of_shared_holders_does_not_starve_an_exclusive_one(tmp_path: Path) -> None:
    # Shared holders relay the device: each takes it before the one before gives it back, so the
    # main lock is never free by itself.
    stop = threading.Event()
    rolling = threading.Event()
    stopped_at_the_gate = threading.Event()

    def relay() -> None:
        current = ExitStack()
        current.enter_context(take(CPU, tmp_path, exclusive=False))
        while not stop.is_set():
            following = ExitStack()
            try:
                following.enter_context(take(CPU, tmp_path, exclusive=False, timeout_s=0.2))
            except DeviceError:  # somebody is in line: this relay ends, as a real one would wait
                stopped_at_the_gate.set()
                break
            current.close()
            current = following
            rolling.set()
        current.close()

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        assert rolling.wait(PATIENCE_S)
        with take(CPU, tmp_path, timeout_s=30.0):
            pass
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert stopped_at_the_gate.is_set()
