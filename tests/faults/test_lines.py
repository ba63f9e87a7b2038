"""Store, locks and records, killed at each of their lines; each system call of theirs fails."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness.base import locks, store, store_care
from harness.base.errors import HarnessError
from harness.base.stages import Stage
from harness.base.store import Store
from harness.records import reader, writer
from harness.records.lines import PlanLine, RunLine
from tests.faults.injected import sitecustomize
from tests.faults.started import check_entry

MODULES = {module.__file__ for module in (store, store_care, locks, writer)}
CONTENT = b"bytes of an artifact"
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
REFUSED = 3  # a child's exit code: an error of ours, or of the system


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


def in_child(action: Callable[[Path], None], folder: Path, prepare: Callable[[], object]) -> int:
    """Run an action in a child that was prepared; return its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            action(folder)
            os._exit(0)
        except (HarnessError, OSError):
            os._exit(REFUSED)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(number: int) -> None:
    """Let this process be killed as it reaches a line."""
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

    sys.settrace(trace)


def prepared(before: Callable[[Path], None] | None, folder: Path) -> Path:
    """Make a folder, with what was there before."""
    folder.mkdir()
    if before is not None:
        before(folder)
    return folder


def check(before: Callable[[Path], None] | None, action: Callable[[Path], None], folder: Path):
    """What was published is whole, and all of it can be done again."""
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


ACTIONS = pytest.mark.parametrize(
    ("before", "action", "least"),
    [(None, build, 100), (damage, build, 100), (build, collect, 30), (None, record, 10)],
    ids=["build", "rebuild", "collect", "record"],
)


@pytest.mark.fault(
    "killed at each line of the store, the locks and the records",
    sees="nothing",
    keeps="each entry and each line that was published, whole and once; locks are free",
)
@ACTIONS
def test_a_kill_at_each_line(before, action, least, tmp_path, record_property):
    for number in itertools.count(1):
        folder = prepared(before, tmp_path / str(number))
        code = in_child(action, folder, partial(kill_at, number))
        assert code in (0, -signal.SIGKILL)
        check(before, action, folder)
        if code == 0:
            break
    assert number > least
    record_property("tries", number - 1)


@pytest.mark.fault(
    "each system call of the store, the locks and the records fails",
    sees="which file, and why; nothing where all is done all the same",
    keeps="each entry and each line that was published, whole and once; locks are free",
)
@ACTIONS
def test_a_failure_of_each_call(before, action, least, tmp_path, tries):
    log = tmp_path / "calls"
    watch = partial(sitecustomize.install, "")
    assert in_child(action, prepared(before, tmp_path / "0"), partial(watch, {"log": log})) == 0
    calls = len(log.read_text().splitlines())
    assert calls > least / 10
    failures = itertools.product(ERRORS, range(1, calls + 1))
    for _, (error, number) in zip(tries(calls, len(ERRORS) * calls), failures, strict=False):
        folder = prepared(before, tmp_path / f"{error}-{number}")
        asked = {"fails": "", "number": number, "errno": error, "lasts": False}
        code = in_child(action, folder, partial(watch, asked))
        assert code in (0, REFUSED)
        check(before, action, folder)
        if action is record and code == 0:
            assert (folder / writer.RESULTS).read_text().count("\n") == 4  # none is lost
