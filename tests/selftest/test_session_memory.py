"""The memory that a session shares with its worker, also where the host has no memory files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import LoadError
from harness.targets import shared_memory
from harness.targets.protocol import Images
from harness.targets.sessions import WorkerSession
from harness.targets.shared_memory import SLOTS
from tests.selftest.running import descriptors
from tests.selftest.worker_backend import B, C, Opener, batch, expected, failing
from tests.selftest.worker_backend import opened as opened


def memory_of(session: WorkerSession) -> str:
    """The worker's descriptor of it."""
    argv = Path(f"/proc/{session.about.pid}/cmdline").read_text().split("\0")
    return f"/proc/{session.about.pid}/fd/{argv[argv.index('--memory-fd') + 1]}"


def test_slots_larger_than_the_machine_are_a_load_error(opened: Opener) -> None:
    with pytest.raises(LoadError, match=r"no shared memory .* more than this machine has"):
        opened(open="model.inputs = [('x', (2**40, 2**30), 'float32')]")


def test_memory_is_not_taken_before_it_is_used(opened: Opener) -> None:
    # Half a gigabyte of slots that nobody touches.
    session = opened(open="model.inputs = [('x', (2**27 // 3,), 'float32')]")
    held = os.stat(memory_of(session))
    assert held.st_size > 2**28 and held.st_blocks * 512 < 2**20


CONSTANTS = ("F_ADD_SEALS", "F_SEAL_SHRINK", "F_SEAL_GROW", "MFD_CLOEXEC", "MFD_ALLOW_SEALING")


def test_the_kernels_numbers_are_pythons() -> None:
    for name in CONSTANTS:
        named = getattr(os if name.startswith("MFD") else fcntl, name, None)
        assert named in (None, getattr(shared_memory, name))


def test_a_python_without_memfd_create(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """As built for a C library that is older than the kernel: without names for it."""
    for name in ("memfd_create", *CONSTANTS):
        monkeypatch.delattr(fcntl if name.startswith("F_") else os, name, raising=False)
    session = opened("os.ftruncate(int(sys.argv[sys.argv.index('--memory-fd') + 1]), 0)")
    (result,) = session.stream([batch(1)])
    np.testing.assert_array_equal(result, expected(batch(1)))
    assert os.readlink(memory_of(session)).startswith("/memfd:batches")
    assert "PermissionError" in failing(session).message  # sealed all the same


@pytest.mark.parametrize(
    "missing",
    [AttributeError("undefined symbol: memfd_create"), OSError(errno.ENOSYS, "not implemented")],
    ids=["old C library", "old kernel"],
)
def test_a_host_without_memory_files(opened, tmp_path, monkeypatch, missing):
    def fails(name: str, flags: int) -> int:
        raise type(missing)(*missing.args)

    monkeypatch.setattr(shared_memory, "_memfd_create", fails)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = descriptors()
    with contextlib.closing(opened()) as session:
        batches = [batch(k) for k in range(5)]
        np.testing.assert_array_equal(list(session.stream(batches)), list(map(expected, batches)))
        file = memory_of(session)
        assert os.readlink(file).startswith(str(tmp_path))
        held = os.stat(file)
        assert held.st_nlink == 0  # it goes with its last user, however that one ends
        assert held.st_blocks * 512 >= held.st_size > 0  # no page can be missing later
    assert descriptors() <= before


@pytest.mark.parametrize("what", ["TemporaryFile", "posix_fallocate"])
def test_a_host_without_memory_files_and_room(opened, monkeypatch, what):
    def fails(*args: Any, **given: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shared_memory, "_memfd_create", fails)
    monkeypatch.setattr(tempfile if what == "TemporaryFile" else os, what, fails)
    before = descriptors()
    with pytest.raises(LoadError, match=r"model\.fake: no shared .* No space left") as caught:
        opened()
    assert "temporary directory" in caught.value.remedy
    assert descriptors() <= before


def test_large_batches_take_two_slots(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    one = 4 * B * (3 * 4 * 4 + C)
    monkeypatch.setattr(shared_memory, "SLOTS_BYTES", 4 * one)
    assert len(opened().slots) == SLOTS * shared_memory.TOGETHER
    monkeypatch.setattr(shared_memory, "TOGETHER_BYTES", one)
    assert len(opened().slots) == SLOTS
    monkeypatch.setattr(shared_memory, "SLOTS_BYTES", 2 * one)
    session = opened()
    assert len(session.slots) == 2
    in_flight: list[int] = []

    def fill(view: Images) -> None:
        in_flight.append(len(session._submitted))
        view[...] = len(in_flight)

    results = list(session.stream_into([fill] * 5))
    np.testing.assert_array_equal(results, [expected(batch(k)) for k in range(1, 6)])
    assert in_flight == [0, 1, 1, 1, 1]
