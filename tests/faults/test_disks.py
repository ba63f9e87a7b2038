"""Disks that are full, read-only or not for programs, below store, runs and temporary files.

They are mounted, which root alone can do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.judge.causes import Exit
from tests.faults.started import Place
from tests.faults.test_kills import lose_artifacts

MIB = 1 << 20
ROOM = 512 * MIB
SAID = {Exit.PASSED, Exit.INPUT_ERROR, Exit.MACHINE_TROUBLE}


def mounted(*words: str | Path) -> bool:
    return subprocess.run(["mount", *map(str, words)], capture_output=True).returncode == 0


@pytest.fixture
def disk(ready: Place, tmp_path: Path) -> Iterator[Place]:
    """A place on a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not mounted("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder):
        pytest.skip("a disk is mounted, which root alone can do")
    shutil.copytree(ready.store, folder / "store", symlinks=True)
    place = Place(folder)
    try:
        yield place
    finally:
        place.end()
        subprocess.run(["umount", "-l", str(folder)], check=True)


def used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.mark.fault(
    "a disk that is full at any moment",
    sees="that the disk is full, at which stage; the code is 7",
    keeps="every line and every artifact that was whole",
)
def test_a_full_disk(disk, tries):
    for rng in tries(1, 20):
        lose_artifacts(disk.store, rng, rng.randrange(1, 6))
        left = int(rng.choice((0.1, 1, 10)) * rng.random() * MIB)
        assert mounted("-o", f"remount,size={used(disk.folder) + left}", disk.folder)
        run = disk.start()
        code = run.wait()
        assert mounted("-o", f"remount,size={ROOM}", disk.folder)
        assert "\nTraceback" not in run.text()  # but in the log of a tool
        assert code in SAID, run.text()
        disk.green()


@pytest.mark.fault(
    "a disk that is read-only, or on which no program may run",
    sees="which folder cannot be used, before anything runs",
    keeps="everything",
)
@pytest.mark.parametrize("option", ["ro", "noexec"])
def test_a_disk_that_is_not_for_us(disk, option):
    (disk.folder / "runs").mkdir()
    assert mounted("-o", f"remount,{option}", disk.folder)
    run = disk.start(env={"TMPDIR": "/tmp"}, output=disk.folder.parent / "output")
    code = run.wait()
    assert mounted("-o", "remount,rw,exec", disk.folder)
    assert "\nTraceback" not in run.text()  # but in the log of a tool
    assert code in SAID - {Exit.PASSED}, run.text()
    disk.green()
