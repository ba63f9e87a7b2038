"""Store, locks and records whose process is killed at each of their lines."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness.base import locks, store, store_care
from harness.base.stages import Stage
from harness.base.store import Store
from harness.records import reader, writer
from harness.records.lines import PlanLine, RunLine
from tests.faults.started import check_entry

MODULES = {module.__file__ for module in (store, store_care, locks, writer)}
CONTENT = b"bytes of an artifact"


def build(folder: Path) -> None:
    """Build an artifact under its lock."""

    def builder(staging: Path) -> str:
        (staging / "file.bin").write_bytes(CONTENT)
        return "log"

    with locks.locked(folder / "leases" / "device.lock", what="a device"):
        Store(folder / "store").get_or_build(Stage.EXPORT, {"model": "tiny"}, builder)


def damage(folder: Path) -> None:
    """Build an artifact and damage it, before it is used."""
    build(folder)
    for entry in Store(folder / "store").entries():
        entry.file().chmod(0o600)
        entry.file().write_bytes(b"")


def collect(folder: Path) -> None:
    """Remove everything."""
    store_care.tidy(Store(folder / "store"), max_bytes=0)


def record(folder: Path) -> None:
    """Write two lines."""
    writer.append(folder, RunLine(run="r", provenance="simulated", started=""))
    writer.append(folder, PlanLine(run="r", cases=()))


def killed_at(number: int, action: Callable[[Path], None], folder: Path) -> bool:
    """Run an action in a child that is killed as it reaches a line; False: it has fewer lines."""
    pid = os.fork()
    if pid == 0:
        left = number

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in MODULES:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            action(folder)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.fault(
    "killed at each line of the store, the locks and the records",
    sees="nothing",
    keeps="each entry and each line that was published, whole and once; locks are free",
)
@pytest.mark.parametrize(
    ("before", "action", "least"),
    [(None, build, 100), (damage, build, 100), (build, collect, 30), (None, record, 10)],
    ids=["build", "rebuild", "collect", "record"],
)
def test_a_kill_at_each_line(before, action, least, tmp_path, record_property):
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        if before is not None:
            before(folder)
        killed = killed_at(number, action, folder)
        for entry in Store(folder / "store").entries():
            if before is not damage:
                check_entry(entry)
        if action is record and (folder / writer.RESULTS).exists():
            assert not reader.read(folder).damaged
        build(folder)
        record(folder)
        (after,) = Store(folder / "store").entries()
        assert after.file().read_bytes() == CONTENT
        assert not reader.read(folder).damaged
        if not killed:
            break
    assert number > least
    record_property("tries", number - 1)
