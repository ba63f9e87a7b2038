"""The simulated host: its configuration and faults, its installation, its tools' refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import ConfigError
from harness.simulator import (
    SimulatorConfig,
    environment,
    install,
    never_struck,
    npu_smi,
    parse_config,
)
from harness.simulator.config import TOOLS
from harness.simulator.faults import DRIVERS, FAULTS, Fault
from harness.simulator.host import Host, play
from harness.targets.ascend.simulation import is_part
from tests.selftest.running import PATIENCE_S, ROOT, eventually
from tests.selftest.simulated import make_host

# --- configuration ----------------------------------------------------------------------------


def test_every_key_is_read():
    text = (
        "chip=310,cards=2,driver=22.0.4,generation=v2,cann=5.1.RC2,atc_seconds=1.5,compute=none,"
        "float16=1,time=spin:2.5,without=aoe,without=atc,fault=busy:1,fault=crash-run:any:3"
    )
    config = parse_config(text)
    assert config == SimulatorConfig(
        text,
        chip="310",
        chips_per_card=4,
        cards=2,
        driver="22.0.4",
        generation="v2",
        cann="5.1.RC2",
        atc_seconds=1.5,
        compute="none",
        float16=True,
        time=("spin", 2.5),
        without=("aoe", "atc"),
        faults=(Fault("busy", 1), Fault("crash-run", None, 3)),
    )
    assert [fault.text for fault in config.faults] == ["busy:1", "crash-run:any:3"]
    assert (config.soc_version, config.devices) == ("Ascend310", 8)
    usual = parse_config("", usual_chip="310")
    assert usual.chip == "310" and parse_config(usual.text) == usual  # as the tools read it
    assert parse_config("chips_per_card=2").product == "Atlas 300I Duo"


@pytest.mark.parametrize(
    ("text", "words", "remedy"),
    [
        ("chop=310", "did you mean chip", "known keys"),
        ("chip=910", "chip=910", "310P3"),
        ("chip", "chip= ", "310P3"),
        ("chip=310,chip=310P3", "given twice", "chip"),
        ("cards=17", "cards=17", "0 to 16"),
        ("driver=new", "driver=new", "a version"),
        ("generation=v6", "generation=v6", "v5"),
        ("float16=yes", "float16=yes", "0 or 1"),
        ("time=0", "time=0", "milliseconds"),
        ("time=spin", "time=spin", "spin:MS"),
        ("fault=bussy", "did you mean busy", "known faults"),
        ("fault=slow:0:1:2", "fault=slow", "NAME:DEVICE:COUNT"),
        ("fault=busy:any:1", "fault=busy", "has no count"),
        ("chip=310,fault=busy:4", "this host has 4 devices", "NAME:DEVICE"),
    ],
)
def test_nonsense_is_refused_with_what_is_known(text, words, remedy):
    with pytest.raises(ConfigError) as error:
        parse_config(text)
    assert words in error.value.message and remedy in error.value.remedy


@given(st.text(alphabet="chip=31,0:fault-busy+ns\x00é", max_size=40))
def test_any_text_is_an_error_or_a_configuration(text):
    try:
        assert parse_config(parse_config(text).text)
    except ConfigError:
        return


# --- faults -----------------------------------------------------------------------------------


def fault_table() -> list[str]:
    """The faults as rows of Markdown."""
    rows = ["| name | what happens | drivers | counted at |", "| --- | --- | --- | --- |"]
    for name, kind in FAULTS.items():
        tools = [place for place in kind.places if place not in DRIVERS]
        names = [f"`{place}`" for place in kind.places if place in DRIVERS]
        shown = "all" if tools or len(names) == len(DRIVERS) else ", ".join(names)
        if tools:
            shown += f" ({tools[0]})"
            if names:
                shown += f"; on one device {', '.join(names)}"
        rows.append(f"| `{name}` | {kind.does} | {shown} | {kind.counted} |")
    return rows


def test_the_page_has_the_table_of_the_faults():
    page = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
    assert "\n".join(["", *fault_table(), ""]) in page
    assert all({*kind.places} <= {*DRIVERS, *TOOLS} for kind in FAULTS.values())


def test_a_fault_that_nothing_came_across_is_told(tmp_path, capsys):
    assert never_struck(tmp_path) == ()
    text = "cards=2,fault=busy:1,fault=unsupported-operator:any:1,fault=nan:1,fault=npu-smi-hang"
    host = make_host(tmp_path, text).host
    busy, operator, nan, smi_hangs = (
        f"fault {one.text} never struck" for one in host.config.faults
    )
    for_store = f"{operator}: nothing was compiled, the artifacts were in the store"
    idle = f"{smi_hangs}: npu-smi was not called"
    assert never_struck(tmp_path) == (f"{busy}: npu-smi was not called", for_store, nan, idle)
    assert host.strikes("busy", 1) and host.strikes("unsupported-operator")
    # Device 0 has no such fault, and that of device 1 strikes there.
    assert not host.strikes("nan", 0) and host.strikes("nan", 1)
    with (tmp_path / "state" / "calls.jsonl").open("a") as file:
        file.write('{"tool": "npu-')
    assert never_struck(tmp_path) == (idle,)


# --- installation -----------------------------------------------------------------------------


def test_the_environment_has_the_tools_first_and_set_env_gives_the_same(tmp_path):
    install(tmp_path, parse_config(""))
    env = environment(tmp_path, {"PATH": os.environ["PATH"]})
    assert env["PATH"].startswith(f"{tmp_path}/") and env["PATH"].endswith(os.environ["PATH"])
    home = Path(env["ASCEND_TOOLKIT_HOME"])
    info = next(home.glob("*-linux/ascend_toolkit_install.info")).read_text()
    assert "version=8.0.RC2\n" in info
    assert "Version=23.0.0" in (tmp_path / "driver" / "version.info").read_text()
    for tool in (tmp_path / "bin" / "npu-smi", home / "bin" / "atc", home / "bin" / "aoe"):
        assert os.access(tool, os.X_OK) and is_part(tool)
    done = subprocess.run(
        ["bash", "-c", 'set -u; source "$1"; env', "bash", f"{home.parent}/set_env.sh"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    sourced = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name: sourced[name] for name in env} == dict(env)


def test_a_second_installation_forgets_the_first_and_what_a_host_lacks_is_not_there(tmp_path):
    install(tmp_path, parse_config(""))
    (tmp_path / "state" / "struck").mkdir()
    install(tmp_path, parse_config("without=atc,without=aoe"))
    assert not (tmp_path / "state" / "struck").exists()
    assert not (tmp_path / "ascend-toolkit/latest/bin").exists()
    install(tmp_path, parse_config("without=npu-smi,without=ais_bench"))
    assert not (tmp_path / "bin").exists() and not (tmp_path / "site").exists()


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot install the simulated Ascend host"):
        install(tmp_path / "file" / "below", parse_config(""))


def test_an_interpreter_that_a_shebang_cannot_name(tmp_path, monkeypatch):
    real = sys.executable
    link = tmp_path / "with space" / "python"
    link.parent.mkdir()
    link.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
    link.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(link))
    host = make_host(tmp_path / "host")
    del host.env["NPU_SIMULATOR"]  # a tool knows its host, too
    assert host.run("npu-smi", "info").code == 0
    (line,) = (tmp_path / "host" / "state" / "calls.jsonl").read_text().splitlines()
    assert json.loads(line)["argv"] == ["info"]


@pytest.mark.parametrize(
    ("fault", "command"),
    [("atc-hang", ["atc", "--framework=5"]), ("npu-smi-hang", ["npu-smi", "info"])],
)
def test_a_hanging_tool_hangs_and_dies_when_told(tmp_path, fault, command):
    host = make_host(tmp_path, f"fault={fault}:any:1")
    process = host.start(*command)
    assert eventually((tmp_path / "state" / "struck" / "0").exists)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    process.terminate()
    assert process.wait(PATIENCE_S) == -signal.SIGTERM
    process.communicate()
    assert not host.host.strikes(fault)


# --- npu-smi ----------------------------------------------------------------------------------


def a_host(tmp_path: Path, text: str = "") -> Host:
    return Host(parse_config(text), tmp_path / "state")


def smi(host: Host, capsys, *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = play("npu-smi", npu_smi.main, arguments, host)
    printed = capsys.readouterr()
    assert not printed.err
    return code, printed.out


def rows(text: str) -> list[list[str]]:
    """Cells of each row, split on `|` as every reader has to."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_cards_of_four_chips(tmp_path, capsys):
    host = a_host(tmp_path, "chip=310,cards=2")
    _, text = smi(host, capsys, "info")
    chips = [row for row in rows(text) if len(row) == 3 and row[1].startswith("0000:")]
    assert [row[0].split() for row in chips] == [[str(i % 4), str(i)] for i in range(8)]
    names = [row[0].split() for row in rows(text) if len(row) == 3 and row[1] == "OK"]
    assert names == [["0", "310"]] * 4 + [["1", "310"]] * 4
    board = smi(host, capsys, "info", "-t", "board", "-i", "1")[1]
    assert "Software Version               : 23.0.0" in board
    assert "Chip Count                     : 4" in board
    product = smi(host, capsys, "info", "-t", "product", "-i", "0")[1]
    assert "Product Type                   : Atlas 300I-3010" in product


@pytest.mark.parametrize(
    ("config", "arguments", "code", "says"),
    [
        ("", "", 215, "Command or option is not found."),
        ("", "info -x", 215, "Command or option is not found."),
        ("", "info -t colour -i 0", 215, "Command or option is not found."),
        ("", "info -t board -i 9", 193, "ret is -8255"),
        ("cards=0", "info", 1, "There is no NPU card"),
        ("fault=npu-smi-fails", "info", 187, "dcmi module initialize failed. ret is -8005"),
    ],
)
def test_failures_have_a_code_and_go_to_stdout(tmp_path, capsys, config, arguments, code, says):
    got, text = smi(a_host(tmp_path, config), capsys, *arguments.split())
    assert got == code and says in text


def test_concurrent_calls_are_found_out(tmp_path, capsys):
    host = a_host(tmp_path)
    with host.alone("npu-smi") as alone:
        assert alone
        code, text = smi(host, capsys, "info")
    assert code == 172 and "-8020" in text
    assert smi(host, capsys, "info")[0] == 0


def test_sessions_are_in_the_table_until_they_end(tmp_path, capsys):
    host = a_host(tmp_path, "cards=2")
    one, two = host.register(1), host.register(1)
    two.running(True)
    (holder,) = host.holders(1)
    assert (holder.pid, holder.running, holder.memory_mb) == (os.getpid(), True, 202)
    assert host.holders(0) == []
    _, text = smi(host, capsys, "info")
    shown = [row[1] for row in rows(text) if row[0] == "1       0" and len(row) == 4]
    assert shown == [str(os.getpid())]
    two.running(False)
    assert not host.holders(1)[0].running
    for session in (one, two, two):
        session.close()
    assert host.holders(1) == []
