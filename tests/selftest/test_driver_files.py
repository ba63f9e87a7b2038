"""What the driver over files does with folders, outputs and the end of the tool."""

import re
import signal

import pytest

from harness.base import processes
from harness.base.errors import ConfigError, DeviceError, InferError
from harness.targets.ascend import faults, workspace


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        ("kill -SEGV $$", InferError, r"ais_bench was killed by SIGSEGV \(segmentation fault\)"),
        ("echo '[ERROR] load failed'; exit 1", InferError, r"exit code 1: \[ERROR\] load failed"),
        ("echo noise; exit 3", InferError, "ended with exit code 3$"),
        ("echo EL0003: open device 0 failed; exit 1", DeviceError, r"device 0 cannot .* EL0003"),
        ("sleep 600", InferError, "did not end in 0 s, its deadline, and was stopped"),
    ],
)
def test_how_a_tool_ended_is_one_error(tmp_path, command, kind, message):
    seconds = 0.3 if "sleep" in command else 60.0
    done = processes.run(["sh", "-c", command], deadline_s=seconds, log=tmp_path / "log")
    with pytest.raises(kind) as caught:
        faults.raise_for(done, "model.om: ais_bench", 0, InferError)
    assert re.search(message, caught.value.message), caught.value.message
    assert caught.value.remedy
    assert caught.value.hung == ("sleep" in command)
    assert caught.value.signal == (signal.SIGSEGV if "SEGV" in command else 0)


@pytest.mark.parametrize("name", ["with blank", "中文", "a:b"])
def test_a_work_folder_that_the_tools_refuse(tmp_path, name):
    with pytest.raises(ConfigError, match="the tools of CANN refuse paths like") as caught:
        workspace.Workspace(tmp_path / name)
    assert "real path" in caught.value.remedy and "--runs=DIR" in caught.value.remedy


def test_what_a_killed_harness_left_is_removed(tmp_path):
    work = tmp_path / "work"
    used, other = workspace.Workspace(work), work / "others"
    other.mkdir()
    left = work / "exchange-left" / "c000001" / "in"
    left.mkdir(parents=True)
    (left / "b00000001.bin").write_bytes(b"x")
    mine = workspace.Workspace(work)
    assert sorted(work.iterdir()) == sorted([used.path, other, mine.path])
    used.close()
    mine.close()
