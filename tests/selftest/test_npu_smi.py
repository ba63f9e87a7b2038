"""`harness.targets.ascend.npu_smi`: every layout is read, and nothing is guessed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import DeviceError
from harness.targets.ascend import npu_smi as module
from harness.targets.ascend.npu_info import Chip, Clock, NpuInfo, NpuProcess, parse_info
from harness.targets.ascend.npu_smi import TRIES, NpuSmi, failure_of
from tests.selftest.running import ROOT, alive, eventually

SAMPLES = Path(__file__).parent / "data" / "npu_smi"


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text()


def read(name: str) -> NpuInfo:
    return parse_info(sample(name))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)


# Layouts


@pytest.mark.parametrize(
    ("name", "driver", "soc", "ids", "idle"),
    [
        ("310_20.2.2", "20.2.2", "Ascend310", [(1, c, c) for c in range(4)], "unknown"),
        (
            "310_22.0.4",
            "22.0.4",
            "Ascend310",
            [(npu, c, 4 * k + c) for k, npu in enumerate((3, 6)) for c in range(4)],
            "unknown",
        ),
        ("310_23.0.0", "23.0.0", "Ascend310", [(0, c, c) for c in range(4)], "yes"),
        ("310p3_22.0.2", "22.0.2", "Ascend310P3", [(1, 0, 0), (4, 0, 1)], "unknown"),
        (
            "310p3_duo_23.0.3",
            "23.0.3",
            "Ascend310P3",
            [(2, 0, 0), (2, 1, 1), (5, 0, 2), (5, 1, 3)],
            "yes",
        ),
        ("310p3_26.1.0", "26.1.0", "Ascend310P3", [(2144, 0, 0), (32896, 0, 1)], "no"),
        ("910a_21.0.2", "21.0.2", "Ascend910A", [(0, 0, 0), (1, 0, 1)], "unknown"),
        ("910b3_23.0.6", "23.0.6", "Ascend910B3", [(2, 0, 0), (3, 0, 1)], "yes"),
        ("a3_25.0", "25.0.rc1", "Ascend910", [(2, 0, 0), (2, 1, 1)], "no"),
        # In a container with a slice of a chip.
        ("310pvir02_22.0.4", "22.0.4", "Ascend310P3", [(7, 0, 0)], "unknown"),
        ("310b4_rc_23.0.rc3", "23.0.rc3", "Ascend310B4", [(0, 0, 0)], "yes"),
    ],
)
def test_every_layout(name, driver, soc, ids, idle):
    info = read(name)
    assert info.driver_version == driver
    assert [(chip.npu_id, chip.chip_id, chip.logical_id) for chip in info.chips] == ids
    assert {chip.soc_version for chip in info.chips} == {soc}
    assert info.chips[0].idle == idle
    assert info.chips[0].template == ("vir02" if "vir" in name else "")


def test_what_a_chip_says_and_what_it_does_not() -> None:
    chips = read("310_22.0.4").chips
    assert chips[2] == Chip(
        npu_id=3,
        chip_id=2,
        logical_id=2,
        name="310",
        health="OK",
        power_w=12.8,
        temperature_c=61.0,
        aicore_percent=0.0,
        processes=None,
    )
    assert chips[0].temperature_c is None  # -
    assert [chip.idle for chip in chips].count("unknown") == 7
    assert chips[6].idle == "no"  # 37 % of its AI core speak for themselves
    chip = read("310p3_22.0.2").chips[0]
    assert (chip.power_w, chip.temperature_c) == (None, 44.0)  # NA, and the figure after it


def test_processes_of_each_chip() -> None:
    chips = read("310p3_duo_23.0.3").chips
    users = (NpuProcess(904545, "python3", None), NpuProcess(917047, "", None))
    assert [chip.processes for chip in chips] == [(), (), (), users]
    assert [chip.idle for chip in chips] == ["yes", "yes", "yes", "no"]
    busy, idle = read("310p3_26.1.0").chips  # a fifth column, and a container
    assert busy.processes == (NpuProcess(51234, "", None), NpuProcess(51399, "ais_bench", 77))
    assert (idle.processes, idle.idle) == ((), "yes")
    # One that was cut short says nothing of the rest.
    text = sample("310p3_duo_23.0.3")
    cut = text[: text.index("| 5       1                     | 904545")]
    assert [chip.processes for chip in parse_info(cut).chips] == [(), (), None, None]


def without(name: str, fragment: str, end: str = "") -> str:
    """A sample without the lines that have a fragment, up to `end`."""
    text = sample(name)
    lines = text[: text.index(end) if end else None].splitlines(keepends=True)
    return "".join(line for line in lines if fragment not in line)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (without("310_22.0.4", "0000:82:00.0"), "no pair of rows"),
        (without("310_22.0.4", "0000:84:00.0", "| 6 "), "no pair of rows"),
        (
            sample("310p3_22.0.2").replace("| 0       1   ", "| 0       0   "),
            "two chips have one logical id",
        ),
        (
            sample("310p3_22.0.2").replace("| 4       310P3", "| 1       310P3"),
            "two chips have one NPU and chip id",
        ),
        ("", "cannot be read: there is no table"),
        ("no table", "cannot be read: there is no table"),
        ("| NPU  Name | Health | Power(W) |\n", "cannot be read: there is no table"),
        ("+---+\n| npu-smi 22.0.4  Version: 22.0.4 |\n+---+\n", "shows no chip"),
        # Cut between two lines: the chips that it has are not all.
        (
            sample("310_22.0.4").partition("0000:84:00.0")[0] + "0000:84:00.0 | 0 |",
            "ends after a row",
        ),
    ],
)
def test_a_table_that_cannot_be_trusted_is_an_error(text: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        parse_info(text)


CELLS = st.sampled_from(
    [
        *("0", "0 310", "1       0", "OK", "NA", "-", "0000:01:00.0", "NPU", "Process id"),
        *("12.8 61", "0 577 / 7759", "No running processes found in NPU 0", "9" * 5000, "²"),
        *("npu-smi Version:", "", "0 1 / 2 3 / 4"),
    ]
)
LINES = st.one_of(
    st.text(max_size=30),
    st.lists(CELLS, min_size=1, max_size=5).map(lambda cells: f"|{'|'.join(cells)}|"),
)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        info = parse_info(text)
    except DeviceError:
        return
    assert info.chips
    assert len({chip.logical_id for chip in info.chips}) == len(info.chips)


# Calling it


def program(folder: Path, body: str) -> Path:
    """A program called npu-smi; `body` is Python and sees `sys.argv`."""
    path = folder / "npu-smi"
    path.write_text(f"#!{sys.executable} -SE\nimport os, sys, time\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return path


def prints(text: str, code: int = 0) -> str:
    return f"sys.stdout.write({text!r}); sys.stdout.flush(); sys.exit({code})"


def npu_smi(folder: Path, body: str, **options: float) -> NpuSmi:
    return NpuSmi(
        program(folder, body),
        env=dict(os.environ),
        lock=folder / "locks" / "npu-smi.lock",
        log=folder / "logs" / "npu-smi.log",
        **options,
    )


def test_info_and_its_log(tmp_path: Path) -> None:
    tool = npu_smi(tmp_path, prints(sample("310p3_26.1.0")))
    assert tool.info() == read("310p3_26.1.0")
    logged = tool.log.read_text()
    assert logged.startswith("$ npu-smi info\n")
    assert "| 32896   310P3" in logged


@pytest.mark.parametrize(
    ("text", "code", "message", "remedy"),
    [
        (
            "dcmi module initialize failed. ret is -8005\n",
            187,
            "dcmi module initialize failed. ret is -8005 (an inner error",
            "HwHiAiUser",
        ),
        (
            "dcmi model initialized failed, because the device is used. ret is -8020\n",
            172,
            "another container has the device",
            "privileged",
        ),
        ("npu get board type failed. ret is -9005\n", 211, "does not know the board", "driver"),
        ("There is no NPU card on this server.\n", 0, "the driver sees no card", "lsmod"),
        ("Command or option is not found.\nUsage: info\n", 215, "no such query", "update"),
        (
            "Failed to execute npu-smi info. ret is -8255.\n",
            193,
            "does not support the query",
            "check the driver",
        ),
        ("Failed to execute npu-smi info. ret is -8999.\n", 1, "ret is -8999.", "check the driver"),
        (
            "npu-smi: error while loading shared libraries: libdrvdsmi_host.so: cannot open\n",
            127,
            "a library of the driver is not found",
            "LD_LIBRARY_PATH",
        ),
        ("", 0, "cannot be read: there is no table", "by hand"),
        ("", 3, "ended with exit code 3: it printed nothing", "check the driver"),
        ("what is this\n", 1, "ended with exit code 1: what is this", "check the driver"),
    ],
)
def test_failures_say_what_the_tool_said(tmp_path, text, code, message, remedy):
    preamble = "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n" if "ret is" in text else ""
    tool = npu_smi(tmp_path, prints(preamble + text, code))
    with pytest.raises(DeviceError) as caught:
        tool.info()
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_table_counts_more_than_an_exit_code_and_less_than_a_failure(tmp_path: Path) -> None:
    assert npu_smi(tmp_path, prints(sample("310_20.2.2"), 1)).info() == read("310_20.2.2")
    failure = "Failed to execute npu-smi info. ret is -8006.\n"
    with pytest.raises(DeviceError, match="did not answer in time"):
        npu_smi(tmp_path, prints(sample("310_20.2.2") + failure)).info()
    # A chip that is gone may be told by any part of the driver.
    with pytest.raises(DeviceError, match="no such device"):
        npu_smi(tmp_path, prints(sample("310_20.2.2") + "get health failed. ret is -8007\n")).info()
    # The name of a process is none.
    assert failure_of("| 5       1   | 904545 | There is no NPU card | 101 |\n") is None
    assert failure_of(sample("310p3_26.1.0")) is None  # with its preamble


def test_a_hang_ends_with_all_its_processes(tmp_path: Path) -> None:
    tool = npu_smi(tmp_path, "", deadline_s=1.0)
    pid = tmp_path / "pid"
    tool.program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {pid}\necho waiting\nwait\n")
    with pytest.raises(DeviceError, match="its deadline: waiting") as caught:
        tool.info()
    assert "hangs" in caught.value.remedy
    child = int(pid.read_text())
    assert eventually(lambda: not alive(child))


def other_process(folder: Path, path: str | None = None) -> subprocess.Popen[bytes]:
    """Python that asks `folder`'s npu-smi, under the lock `folder/lock`; `path` is its PATH."""
    code = """
        import os, sys
        from pathlib import Path
        from harness.targets.ascend.npu_smi import NpuSmi
        at = Path(sys.argv[1])
        NpuSmi(at / "npu-smi", env=os.environ, lock=at / "lock", log=at / "log").info()
    """
    argv = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    env = None if path is None else {**os.environ, "PATH": path}
    return subprocess.Popen(argv, cwd=ROOT, env=env)


def test_calls_of_two_processes_do_not_overlap(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    program(
        tmp_path,
        f"""
        os.mkdir({str(inside)!r})  # fails when another call is inside
        time.sleep(0.1)
        os.rmdir({str(inside)!r})
        {prints(sample("310p3_22.0.2"))}
        """,
    )
    callers = [other_process(tmp_path) for _ in range(3)]
    assert [caller.wait(60) for caller in callers] == [0, 0, 0]
    assert (tmp_path / "log").read_text().count("$ npu-smi info") == 3


def test_a_call_that_outlives_its_caller_keeps_the_lock(tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    program(
        tmp_path,
        f"""
        open({str(started)!r}, "w").close()
        while not os.path.exists({str(go)!r}):
            time.sleep(0.01)
        """,
    )
    # On a host without setpriv, with which the call would die with its caller.
    with other_process(tmp_path, path=str(tmp_path)) as caller:
        try:
            assert eventually(started.exists)
            caller.kill()
            caller.wait(60)
            other = npu_smi(tmp_path, prints(sample("310p3_22.0.2")), wait_s=0.1)
            other.lock = tmp_path / "lock"
            with pytest.raises(DeviceError, match=r"not free within 0\.1 s, held by"):
                other.info()
        finally:
            go.touch()
    other.wait_s = 30.0
    assert other.info().chips


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    tool = npu_smi(tmp_path, prints(sample("310p3_22.0.2")))
    (tmp_path / "file").touch()
    tool.lock = tmp_path / "file" / "lock"
    with pytest.raises(DeviceError, match="cannot be written"):
        tool.info()


# The other queries


def answers(**texts: str) -> str:
    return f"""
        texts = {texts!r}
        kind = sys.argv[3]
        sys.stdout.write(texts.get(kind, "Command or option is not found.\\nUsage : npu-smi\\n"))
        sys.exit(0 if kind in texts else 215)
    """


STUMBLES = (
    "dcmi model initialized failed, because the device is used. ret is -8020\n",
    "Segmentation fault\n",
)
FINAL = (
    "Command or option is not found.\nUsage : npu-smi\n",
    "This device does not support querying board.\n",
    "Failed to execute npu-smi info. ret is -8255.\n",
    "npu-smi: not permitted. ret is -8002\n",
    "npu-smi: not in a container. ret is -8013\n",
)


def stumbling(folder: Path, failure: str, times: int, text: str) -> NpuSmi:
    """An npu-smi whose first calls fail; each call leaves a file."""
    body = f"""
        calls = {str(folder / "calls")!r}
        os.makedirs(calls, exist_ok=True)
        made = len(os.listdir(calls))
        open(os.path.join(calls, str(made)), "w").close()
        sys.stdout.write({failure!r} if made < {times} else {text!r})
        sys.exit(172 if made < {times} else 0)
        """
    return npu_smi(folder, body)


def made(folder: Path) -> int:
    return len(list((folder / "calls").iterdir()))


@pytest.mark.parametrize("failure", STUMBLES)
def test_a_failure_that_passes_is_none(tmp_path: Path, failure: str) -> None:
    tool = stumbling(tmp_path, failure, TRIES - 1, sample("310p3_22.0.2"))
    assert tool.info() == read("310p3_22.0.2")
    shutil.rmtree(tmp_path / "calls")
    tool = stumbling(tmp_path, failure, TRIES - 1, sample("board_310"))
    assert tool.board(3)["Firmware Version"] == "1.84.22.1.220"


@pytest.mark.parametrize("failure", STUMBLES)
def test_a_board_that_goes_on_failing_is_an_error(tmp_path: Path, failure: str) -> None:
    tool = stumbling(tmp_path, failure, 99, "")
    with pytest.raises(DeviceError, match="npu-smi info -t board -i 3 failed"):
        tool.board(3)
    assert made(tmp_path) == TRIES
    assert tool.product(3) == ""  # a record can do without


@pytest.mark.parametrize("failure", FINAL)
def test_a_query_that_there_is_not_is_asked_once(tmp_path: Path, failure: str) -> None:
    tool = stumbling(tmp_path, failure, 99, "")
    assert tool.board(3) == {}
    assert made(tmp_path) == 1


def test_the_board_and_the_name_of_the_card(tmp_path: Path) -> None:
    board, product = sample("board_310"), sample("product_310p3")
    told = npu_smi(tmp_path, answers(board=board)).board(3)
    assert told["Firmware Version"] == "1.84.22.1.220"
    assert "Model" not in told  # NA is no value
    assert npu_smi(tmp_path, answers(board=board, product=product)).product(0) == "Atlas 300I Pro"
    unsupported = "This device does not support querying product.\n"
    for texts in ({"board": board}, {"board": board, "product": unsupported}):
        assert npu_smi(tmp_path, answers(**texts)).product(3) == "Atlas 300I-3010"


def test_the_board_names_a_chip_whose_table_has_only_its_series(tmp_path: Path) -> None:
    board = "NPU Name : 9392\nChip Name : Ascend910\n"
    body = f"""
        texts = {{"info": {sample("a3_25.0")!r}, "info -t board -i 2 -c 0": {board!r}}}
        sys.stdout.write(texts[" ".join(sys.argv[1:])])
    """
    tool = npu_smi(tmp_path, body)
    assert {chip.soc_version for chip in tool.info().chips} == {"Ascend910_9392"}


def test_the_clock_of_each_chip(tmp_path: Path) -> None:
    tool = npu_smi(tmp_path, answers(common=sample("common_310p3_duo")))
    clocks = [tool.clock(5, chip) for chip in range(3)]
    assert clocks == [Clock(1080.0, 1080.0, 0.0), Clock(1080.0, 960.0, 64.0), None]
    for text, clock in (
        ("Aicore Freq(MHZ) : 1650\nAicore curFreq(MHZ) : 100\n", Clock(1650.0, 100.0, None)),
        ("Chip ID : 0\nRated Power Dissipation(W) : 12.8\n", None),
        ("Aicore Freq(MHZ) : NA\nAicore curFreq(MHZ) : fast\n", None),
    ):
        tool = npu_smi(tmp_path, answers(common=f"NPU ID : 0\n{text}"))
        assert tool.clock(0, 0) == clock
