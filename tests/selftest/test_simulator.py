"""The simulated host: its configuration, its installation, atc, npu-smi and the .om files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import ConfigError
from harness.settings import Settings, resolve
from harness.simulator import (
    Fault,
    SimulatorConfig,
    ais_infer_script,
    atc,
    install,
    npu_smi,
    om,
    parse_config,
)
from harness.simulator.config import DRIVERS, FAULTS, TOOLS, check_faults, fault_table, from_json
from harness.simulator.host import FOREIGN_PID, VARIABLE, Host, never_struck
from harness.targets import registry
from tests.selftest.running import ROOT, eventually
from tests.selftest.simulated import INPUT, SOC, SimulatedHost, make_host, write_onnx

# --- configuration ----------------------------------------------------------------------------


def test_an_empty_configuration_is_one_card_with_one_chip():
    config = parse_config("")
    assert config == SimulatorConfig()
    assert (config.soc_version, config.cards, config.chips_per_card) == ("Ascend310P3", 1, 1)
    assert not config.faults


def test_every_key_is_read():
    text = (
        "chip=310,cards=2,npu_ids=2+5,driver=22.0.4,generation=v3,cann=5.1.RC2,auto_tune=0,"
        "om=linux,atc_seconds=1.5,compute=none,float16=1,threads=2,time=spin:2.5,without=aoe,"
        "without=benchmark,fault=busy:1,fault=crash-run:any:3"
    )
    config = parse_config(text)
    assert config.chips_per_card == 4
    assert config.npu_ids == (2, 5)
    assert (config.driver, config.generation, config.cann) == ("22.0.4", "v3", "5.1.RC2")
    assert (config.auto_tune, config.om_suffix, config.atc_seconds) == (False, True, 1.5)
    assert (config.compute, config.float16, config.threads) == ("none", True, 2)
    assert (config.timing, config.time_ms) == ("spin", 2.5)
    assert config.without == ("aoe", "benchmark")
    assert config.faults == (Fault("busy", 1), Fault("crash-run", None, 3))
    assert [fault.text for fault in config.faults] == ["busy:1", "crash-run:any:3"]


def test_a_configuration_survives_its_file(tmp_path: Path):
    table = tmp_path / "times.json"
    table.write_text('{"4": 2.5, "model": 3}')
    config = parse_config(f"chip=310,fault=slow:2,times={table},time=spin,npu_ids=7")
    assert config.times == {"4": 2.5, "model": 3.0}
    assert from_json(json.loads(json.dumps(config.to_json()))) == config


def test_old_toolkits_tune_and_new_ones_do_not():
    assert parse_config("cann=5.1.RC2").auto_tune
    assert not parse_config("cann=8.0.RC2").auto_tune
    assert parse_config("cann=8.0.RC2,auto_tune=1").auto_tune


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chop=310", "did you mean chip"),
        ("chip=910", "a chip that can be simulated"),
        ("chip", "chip= is not a value"),
        ("chip=310,chip=310P3", "given twice"),
        ("cards=17", "0 to 16"),
        ("cards=two", "a whole number"),
        ("cards=2,npu_ids=1", "one id for each of 2 cards"),
        ("npu_ids=1+1", "different ids"),
        ("driver=new", "a version"),
        ("generation=v6", "generation"),
        ("om=big", "plain or linux"),
        ("float16=yes", "0 or 1"),
        ("time=0", "milliseconds"),
        ("time=spin", "spin:MS"),
        ("time=spin:-1", "milliseconds"),
        ("time=nan", "milliseconds"),
        ("times=/nowhere/at/all", "cannot be read"),
        ("atc_seconds=-1", "seconds"),
        ("without=git", "a tool"),
        ("fault=bussy", "did you mean busy"),
        ("fault=slow:first", "a whole number"),
        ("fault=slow:0:1:2", "NAME:DEVICE:COUNT"),
        ("fault=busy:any:1", "lasts, leave out the count"),
    ],
)
def test_nonsense_is_refused_with_what_is_known(text: str, words: str):
    with pytest.raises(ConfigError) as error:
        parse_config(text)
    assert words in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize("content", ["[]", "{}", '{"4": "fast"}', '{"4": 0}', '{"4": true}', "{"])
def test_a_bad_table_of_times_is_refused(tmp_path: Path, content: str):
    table = tmp_path / "times.json"
    table.write_text(content)
    with pytest.raises(ConfigError):
        parse_config(f"times={table}")


@given(st.text(alphabet="chip=31,0:fault-busy+ns\x00é", max_size=40))
def test_any_text_is_a_configuration_or_an_error(text: str):
    try:
        config = parse_config(text)
    except ConfigError:
        return
    assert from_json(json.loads(json.dumps(config.to_json()))) == config


# --- installation -----------------------------------------------------------------------------


def test_the_environment_has_the_tools_first(tmp_path: Path):
    env = install(tmp_path, parse_config(""), environment={"PATH": "/usr/bin", "LANG": "C"})
    assert env["LANG"] == "C"
    assert env["PATH"].startswith(f"{tmp_path}/") and env["PATH"].endswith(":/usr/bin")
    home = Path(env["ASCEND_TOOLKIT_HOME"])
    info = next(home.glob("*-linux/ascend_toolkit_install.info")).read_text()
    assert "version=8.0.RC2\n" in info
    assert "Version=23.0.0" in (tmp_path / "driver" / "version.info").read_text()
    for tool in (tmp_path / "bin" / "npu-smi", home / "bin" / "atc", home / "bin" / "aoe"):
        assert os.access(tool, os.X_OK)
        assert "SIMULATED" in tool.read_text()


def test_set_env_gives_the_same_variables(tmp_path: Path):
    env = install(tmp_path, parse_config(""), environment={"PATH": os.environ["PATH"]})
    script = tmp_path / "ascend-toolkit" / "set_env.sh"
    done = subprocess.run(
        ["bash", "-c", 'set -u; source "$1"; env', "bash", str(script)],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name: found[name] for name in env} == dict(env)


def test_what_a_host_lacks_is_not_installed(tmp_path: Path):
    without = ",".join(f"without={name}" for name in ("npu-smi", "atc", "aoe", "ais_bench"))
    install(tmp_path, parse_config(without), environment={})
    assert not (tmp_path / "bin" / "npu-smi").exists()
    assert not list((tmp_path / "ascend-toolkit/latest/bin").iterdir())
    assert not list((tmp_path / "site").iterdir())


def test_a_second_installation_forgets_the_first(tmp_path: Path):
    install(tmp_path, parse_config(""), environment={})
    (tmp_path / "state" / "counters").mkdir()
    install(tmp_path, parse_config("generation=v1,without=atc"), environment={})
    assert not (tmp_path / "state" / "counters").exists()
    assert not (tmp_path / "ascend-toolkit/latest/bin/atc").exists()
    assert ais_infer_script(tmp_path) == tmp_path / "tools" / "ais_infer.py"
    assert not (tmp_path / "site" / "ais_bench").exists()
    install(tmp_path, parse_config(""), environment={})
    assert ais_infer_script(tmp_path) is None


def test_a_folder_that_cannot_be_used(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "below", tmp_path / "a:b"):
        with pytest.raises(ConfigError):
            install(folder, parse_config(""), environment={})


def test_the_tools_run_where_paths_have_spaces(tmp_path: Path):
    host = make_host(tmp_path / "a folder")
    assert host.run("npu-smi", "info", "-m").code == 0


@pytest.mark.parametrize("name", ["caf\u00e9 \u56fe".encode(), b"latin-\xe9"])
def test_a_folder_that_the_locale_cannot_read(tmp_path: Path, name: bytes):
    folder = os.fsencode(tmp_path) + b"/" + name
    code = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from harness.simulator import install, parse_config\n"
        "folder = Path(sys.argv[1])\n"
        "env = install(folder, parse_config(''), environment=os.environ)\n"
        "sys.exit(subprocess.run(['npu-smi', 'info', '-m'], env=env, stdout=-3).returncode)\n"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-c", code.encode(), folder],
        env={**os.environ, **plain, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    with open(folder + b"/ascend-toolkit/set_env.sh", "rb") as file:
        assert folder in file.read()


def test_an_interpreter_that_a_shebang_cannot_name(tmp_path: Path, monkeypatch):
    real = sys.executable
    link = tmp_path / "with space" / "python"
    link.parent.mkdir()
    link.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
    link.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(link))
    host = make_host(tmp_path / "host")
    assert host.run("npu-smi", "info", "-m").code == 0


# --- atc --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


def a_host(tmp_path: Path, text: str = "") -> Host:
    return Host(parse_config(text), tmp_path / "state")


def run_atc(host: Host, onnx: Path, output: Path, *more: str, shape: str = "4,3,8,8") -> int:
    return atc.main(
        [
            *("--framework=5", f"--model={onnx}", f"--output={output}", "--input_format=NCHW"),
            *(f"--input_shape={INPUT}:{shape}", "--log=error", f"--soc_version={SOC}", *more),
        ],
        host,
    )


def test_atc_compiles(tmp_path: Path, onnx: Path, capsys):
    assert run_atc(a_host(tmp_path), onnx, tmp_path / "m") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "ATC start working now, please wait for a moment.",
        "...",
        "ATC run success, welcome to the next use.",
    ]
    assert not printed.err
    header, payload = om.read(tmp_path / "m.om")
    assert (header.name, header.batch, header.soc_version) == ("m", 4, SOC)
    assert header.inputs == (om.Tensor("image", (4, 3, 8, 8), "float32"),)
    assert header.outputs == (om.Tensor("class", (4, 5), "float32"),)
    assert (header.precision, header.tuning) == ("force_fp16", "none")
    assert header.size == len(payload)


def test_atc_names_the_system_in_the_file_when_asked(tmp_path: Path, onnx: Path):
    assert run_atc(a_host(tmp_path, "om=linux"), onnx, tmp_path / "m") == 0
    assert [path.name for path in tmp_path.glob("*.om")] == [f"m_linux_{os.uname().machine}.om"]


@pytest.mark.parametrize("batch", [4, "N"])
def test_a_fixed_batch_compiles_at_itself_alone(tmp_path: Path, capsys, batch: int | str):
    model = write_onnx(tmp_path / "fixed.onnx", batch)
    host = a_host(tmp_path)
    assert run_atc(host, model, tmp_path / "four") == 0
    code = run_atc(host, model, tmp_path / "eight", shape="8,3,8,8")
    assert code == (0 if batch == "N" else 255)
    if batch == 4:
        assert "E10001" in capsys.readouterr().out


REFUSED = {
    "unknown flag": (["--sync=1"], "unknown command line flag 'sync'"),
    "no shape": (["--input_shape="], "Value [-1] for parameter [image] is invalid"),
    "wrong name": (["--input_shape=img:4,3,8,8"], "no such input"),
    "wrong side": (["--input_shape=image:4,3,9,8"], "the shape of input [image]"),
    "not a shape": (["--input_shape=image"], "--input_shape"),
    "dynamic side": (["--input_shape=image:-1,3,8,8"], "dynamic"),
    "unknown chip": (["--soc_version=Ascend999"], "--soc_version"),
    "framework": (["--framework=3"], "--framework"),
    "no model": (["--model=nowhere.onnx"], "does not exist"),
    "log": (["--log=loud"], "--log"),
    "format": (["--input_format=CHWN"], "--input_format"),
    "space in path": (["--output=a b"], "--output"),
    "precision": (["--precision_mode=half"], "--precision_mode"),
    "two precisions": (["--precision_mode=force_fp16", "--precision_mode_v2=fp16"], "E10054"),
    "auto tune": (["--auto_tune_mode=RL,GA"], "has been deprecated. Please use the AOE tool"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_atc_refuses(tmp_path: Path, onnx: Path, capsys, name: str):
    more, words = REFUSED[name]
    assert run_atc(a_host(tmp_path, "cann=7.0.0"), onnx, tmp_path / "m", *more) == 255
    printed = capsys.readouterr()
    assert "ATC run failed, Please check the detail log" in printed.out
    assert words in printed.out and not printed.err
    assert name == "unknown flag" or re.search(r"\bE\d{5}: ", printed.out)
    assert not list(tmp_path.glob("*.om"))


def test_atc_needs_its_required_flags(tmp_path: Path, capsys):
    assert atc.main(["--model=x.onnx"], a_host(tmp_path, "cann=7.0.0")) == 255
    assert "E10007: [--framework] is required." in capsys.readouterr().out


def test_atc_says_no_to_a_file_that_is_no_model(tmp_path: Path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    assert run_atc(a_host(tmp_path), tmp_path / "bad.onnx", tmp_path / "m") == 255


def test_help_is_no_failure(tmp_path: Path):
    assert atc.main(["--help"], a_host(tmp_path)) == 0


def test_an_old_atc_tunes(tmp_path: Path, onnx: Path, capsys):
    host = a_host(tmp_path, "cann=5.1.RC2")
    assert run_atc(host, onnx, tmp_path / "m", "--auto_tune_mode=RL,GA") == 0
    assert om.read(tmp_path / "m.om")[0].tuning == "RL,GA"
    assert run_atc(host, onnx, tmp_path / "m", "--auto_tune_mode=XX") == 255


@pytest.mark.parametrize(
    ("cann", "form"),
    [
        ("5.1.RC2", r"^EZ3002: Optype"),
        ("8.0.RC2", r"^EZ3002: \[PID: \d+\] \d{4}-\d\d-\d\d-\d\d:\d\d:\d\d\.\d{3}\.\d{3} Optype"),
        ("8.5.0", r"^Unsupported_Operator\(EZ3002\): Optype"),
    ],
)
def test_codes_have_the_form_of_their_generation(tmp_path: Path, onnx, capsys, cann, form):
    host = a_host(tmp_path, f"cann={cann},fault=unsupported-operator")
    assert run_atc(host, onnx, tmp_path / "m") == 255
    assert re.search(form, capsys.readouterr().out, re.MULTILINE)
    assert not (tmp_path / "m.om").exists()


def test_a_truncated_file_is_made_and_is_not_whole(tmp_path: Path, onnx: Path):
    assert run_atc(a_host(tmp_path, "fault=truncated-om"), onnx, tmp_path / "m") == 0
    with pytest.raises(om.OmError, match="truncated"):
        om.read(tmp_path / "m.om")


def test_a_stale_file_stays_as_it_was(tmp_path: Path, onnx: Path, capsys):
    (tmp_path / "m.om").write_bytes(b"old")
    assert run_atc(a_host(tmp_path, "fault=stale-files"), onnx, tmp_path / "m") == 0
    assert "ATC run success" in capsys.readouterr().out
    assert (tmp_path / "m.om").read_bytes() == b"old"


def test_a_limited_fault_strikes_so_often_and_no_more(tmp_path: Path, onnx: Path):
    host = a_host(tmp_path, "fault=unsupported-operator:any:2")
    assert [run_atc(host, onnx, tmp_path / "m") for _ in range(3)] == [255, 255, 0]


def test_a_hanging_atc_hangs_and_dies_when_told(tmp_path: Path, onnx: Path):
    host = make_host(tmp_path, "fault=atc-hang")
    process = host.start("atc", "--framework=5", f"--model={onnx}")
    assert process.stdout is not None
    assert "ATC start working" in process.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM
    process.communicate()


def test_float16_rounds_the_weights_and_keeps_the_tensors(tmp_path: Path, onnx: Path):
    host = a_host(tmp_path, "float16=1")
    assert run_atc(host, onnx, tmp_path / "half") == 0
    assert run_atc(host, onnx, tmp_path / "full", "--precision_mode=force_fp32") == 0
    half, full = om.read(tmp_path / "half.om"), om.read(tmp_path / "full.om")
    assert half[0].inputs == full[0].inputs and half[0].outputs == full[0].outputs
    assert half[1] != full[1]
    import onnx as onnx_module

    weights = onnx_module.load_from_string(half[1]).graph.initializer
    assert {w.data_type for w in weights if w.name in ("kernel", "matrix")} == {
        onnx_module.TensorProto.FLOAT16
    }


# --- .om --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"\x08" + data, "not an offline model"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data + b"x", "truncated"),
        (lambda data: data[:-1] + b"x", "digest"),
        (lambda data: data.replace(b'"batch": 4', b'"bitch": 4'), "header"),
        (lambda data: b"", "not an offline model"),
    ],
)
def test_a_damaged_om_is_refused(tmp_path: Path, damage, words: str):
    tensors = (om.Tensor("image", (4, 3), "float32"),)
    path = tmp_path / "m.om"
    fields = {"soc_version": SOC, "cann": "8", "precision": "", "tuning": "none"}
    om.write(path, b"payload", name="m", batch=4, inputs=tensors, outputs=tensors, **fields)
    header, payload = om.read(path)
    assert payload == b"payload" and header.inputs == tensors
    assert om.read(path, with_payload=False) == (header, b"")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(om.OmError, match=words):
        om.read(path)


# --- npu-smi ----------------------------------------------------------------------------------


def smi(host: Host, capsys, *arguments: str) -> tuple[int, str]:
    code = npu_smi.main(arguments, host)
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


def test_the_table_of_a_310p3(tmp_path: Path, capsys):
    code, text = smi(a_host(tmp_path), capsys, "info")
    assert code == 0
    assert rows(text) == [
        ["npu-smi 23.0.0                                   Version: 23.0.0"],
        ["NPU     Name", "Health", "Power(W)     Temp(C)           Hugepages-Usage(page)"],
        ["Chip    Device", "Bus-Id", "AICore(%)    Memory-Usage(MB)"],
        ["0       310P3", "OK", "15.8         42                0    / 969"],
        ["0       0", "0000:01:00.0", "0            1074 / 21527"],
        ["NPU     Chip", "Process id", "Process name", "Process memory(MB)"],
        ["No running processes found in NPU 0"],
    ]
    assert len({len(line) for line in text.splitlines()}) == 1


def test_cards_of_four_chips_and_odd_npu_ids(tmp_path: Path, capsys):
    host = a_host(tmp_path, "chip=310,npu_ids=2+5")
    _, text = smi(host, capsys, "info")
    chips = [row for row in rows(text) if len(row) == 3 and row[1].startswith("0000:")]
    assert [row[0].split() for row in chips] == [[str(i % 4), str(i)] for i in range(8)]
    names = [row[0].split() for row in rows(text) if len(row) == 3 and row[1] == "OK"]
    assert names == [["2", "310"]] * 4 + [["5", "310"]] * 4
    assert len({row[1] for row in chips}) == 8
    # Chips of one card are parted by '-', cards by '='.
    body = text.split("=+\n", 1)[1].split("| NPU     Chip")[0]
    rules = [line[1] for line in body.splitlines() if line.startswith("+")]
    assert rules == ["-", "-", "-", "=", "-", "-", "-", "="]


@pytest.mark.parametrize(
    ("driver", "hugepages", "columns"),
    [
        ("20.2.2", False, 0),
        ("21.0.4", False, 0),
        ("22.0.4", True, 0),
        ("23.0.0", True, 4),
        ("24.1.RC2", True, 4),
        ("26.1.0", True, 5),
    ],
)
def test_the_layout_of_a_driver(tmp_path: Path, capsys, driver, hugepages, columns):
    _, text = smi(a_host(tmp_path, f"driver={driver}"), capsys, "info")
    assert ("Hugepages-Usage(page)" in text) == hugepages
    heads = [row for row in rows(text) if row[-1].startswith("Process ")]
    assert [len(row) for row in heads] == ([columns] if columns else [])
    assert len({len(line) for line in text.splitlines() if "Process" not in line}) <= 2


def test_busy_shows_as_far_as_the_driver_can(tmp_path: Path, capsys):
    config = "cards=2,fault=busy:1,driver="
    _, new = smi(a_host(tmp_path, config + "23.0.0"), capsys, "info")
    assert ["1       0", str(FOREIGN_PID), "python3", "1024"] in rows(new)
    assert "No running processes found in NPU 0" in new
    _, old = smi(a_host(tmp_path, config + "22.0.4"), capsys, "info")
    assert "Process" not in old
    use = [row[2].split()[0] for row in rows(old) if row[1:2] and row[1][:5] == "0000:"]
    assert use == ["0", "87"]


def test_health_and_throttling(tmp_path: Path, capsys):
    host = a_host(tmp_path, "cards=2,fault=unhealthy:1,fault=throttled:0")
    _, text = smi(host, capsys, "info")
    seen = [row for row in rows(text) if len(row) == 3 and row[1] in ("OK", "Alarm")]
    assert [(row[1], row[2].split()[1]) for row in seen] == [("OK", "97"), ("Alarm", "43")]
    assert (
        "Health Status                  : Alarm"
        in smi(host, capsys, "info", "-t", "health", "-i", "1", "-c", "0")[1]
    )
    for npu, slower in (("0", True), ("1", False)):
        _, common = smi(host, capsys, "info", "-t", "common", "-i", npu)
        rated, now = (
            int(re.search(rf"Aicore {name}\(MHZ\) +: (\d+)", common)[1])  # type: ignore[index]
            for name in ("Freq", "curFreq")
        )
        assert (now < rated) == slower


def test_the_other_queries(tmp_path: Path, capsys):
    host = a_host(tmp_path, "chip=310")
    assert "Card Count                     : 1" in smi(host, capsys, "info", "-l")[1]
    assert "MiniD" in smi(host, capsys, "info", "-m")[1]
    board = smi(host, capsys, "info", "-t", "board", "-i", "0")[1]
    assert "Software Version               : 23.0.0" in board
    assert "Chip Count                     : 4" in board
    assert "Memory Capacity(MB)" in smi(host, capsys, "info", "-t", "usages", "-i", "0")[1]
    assert "Rated Power" in smi(host, capsys, "info", "-t", "power", "-i", "0")[1]
    mem = ("info", "-t", "proc-mem", "-i", "0", "-c", "1")
    assert smi(host, capsys, *mem) == (0, "\tNo process in device.\n")
    assert "Product Type" in smi(host, capsys, "info", "-t", "product", "-i", "0")[1]
    newer = a_host(tmp_path, "")
    assert "Total Count                    : 1" in smi(newer, capsys, "info", "-l")[1]
    assert "Ascend 310P3" in smi(newer, capsys, "info", "-m")[1]
    usages = smi(newer, capsys, "info", "-t", "usages", "-i", "0")[1]
    assert usages.index("DDR Capacity") < usages.index("Chip ID")
    code, text = smi(newer, capsys, "info", "-t", "power", "-i", "0")
    assert code == 193 and "does not support querying" in text


@pytest.mark.parametrize(
    "arguments",
    [(), ("watch",), ("info", "-x"), ("info", "-t", "colour", "-i", "0"), ("info", "-t", "board")],
)
def test_unknown_options_print_help_and_a_code(tmp_path: Path, capsys, arguments):
    code, text = smi(a_host(tmp_path), capsys, *arguments)
    assert code == 215
    assert text.startswith("Command or option is not found.")


def test_failures_go_to_stdout(tmp_path: Path, capsys):
    assert smi(a_host(tmp_path, "fault=npu-smi-fails"), capsys, "info") == (
        187,
        "dcmi module initialize failed. ret is -8005\n",
    )
    code, text = smi(a_host(tmp_path), capsys, "info", "-t", "board", "-i", "9")
    assert code == 193 and "ret is -8255" in text
    assert "There is no NPU card" in smi(a_host(tmp_path, "cards=0"), capsys, "info")[1]


def test_concurrent_calls_are_found_out(tmp_path: Path, capsys):
    host = a_host(tmp_path)
    with host.alone("npu-smi") as alone:
        assert alone
        code, text = smi(host, capsys, "info")
    assert code == 172 and "-8020" in text
    assert smi(host, capsys, "info")[0] == 0


def test_a_hanging_npu_smi_dies_when_told(tmp_path: Path):
    host = make_host(tmp_path, "fault=npu-smi-hang:any:1")
    process = host.start("npu-smi", "info")
    calls = tmp_path / "state" / "counters"
    assert eventually(calls.exists)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM
    process.communicate()
    assert host.run("npu-smi", "info").code == 0


def test_sessions_are_in_the_table_until_they_die(tmp_path: Path, capsys):
    host = a_host(tmp_path, "cards=2")
    one, two = host.register(1), host.register(1)
    two.running(True)
    (holder,) = host.holders(1)
    assert (holder.pid, holder.device, holder.running) == (os.getpid(), 1, True)
    assert holder.memory_mb == 202
    assert host.holders(0) == []
    _, text = smi(host, capsys, "info")
    assert [row[1] for row in rows(text) if row[0] == "1       0" and len(row) == 4] == [
        str(os.getpid())
    ]
    two.running(False)
    assert not host.holders(1)[0].running
    one.close()
    two.close()
    two.close()
    assert host.holders(1) == []


def test_a_dead_process_leaves_the_table(tmp_path: Path):
    host = make_host(tmp_path)
    code = (
        "import os, signal\nfrom harness.simulator.host import Host\n"
        "Host.load().register(0)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**host.env, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=env, check=False)
    assert list((tmp_path / "state" / "sessions").iterdir())
    assert host.host.holders(0) == []
    assert not list((tmp_path / "state" / "sessions").iterdir())


def test_visible_devices_renumber(tmp_path: Path, monkeypatch):
    host = a_host(tmp_path, "chip=310")
    assert [host.visible_device(i) for i in (0, 3, 4, -1)] == [0, 3, None, None]
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,3")
    assert [host.visible_device(i) for i in range(3)] == [1, 3, None]


def test_what_every_fault_says_of_itself():
    assert {name for name, kind in FAULTS.items() if kind.lasts} == {
        "busy",
        "unhealthy",
        "throttled",
    }
    for name, kind in FAULTS.items():
        assert kind.does and kind.counted and kind.places, name
        assert {*kind.places} <= {*DRIVERS, *TOOLS}, name


def test_the_page_has_the_table_of_faults():
    page = (Path(__file__).parents[2] / "docs" / "ascend.md").read_text(encoding="utf-8")
    assert "\n".join(["", *fault_table(), ""]) in page


# --- faults that can strike -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "driver", "words", "remedy"),
    [
        ("fault=wrong-throughput", None, "the driver api, the first that is there", "--driver=cli"),
        ("fault=wrong-throughput", "api", "the driver api does not", "--driver=benchmark"),
        ("fault=stale-files:0", "api", "does not show it", "--driver=cli"),
        ("fault=atc-hang:0", "cli", "not called for one device", "fault=atc-hang"),
        ("fault=npu-smi-hang:0:2", None, "not called for one", "fault=npu-smi-hang:any:2"),
        ("fault=busy:1", None, "no device 1, the host has 1", "from 0"),
        ("cards=0,fault=slow:0", None, "the host has 0", "from 0"),
        ("without=atc,fault=truncated-om", None, "has no atc", "without=atc"),
        ("without=npu-smi,fault=busy", "cli", "has no npu-smi", "without=npu-smi"),
        ("without=ais_bench,without=benchmark,fault=nan", None, "nothing", "without="),
        ("without=ais_bench,fault=nan", "api", "driver api does not show", "--driver=benchmark"),
        ("without=ais_bench,without=benchmark,fault=nan", "cli", "no ais_bench", "without=ais"),
        ("cards=0,fault=busy", None, "has no device", "cards=1"),
        ("cards=0,fault=nan", None, "has no device", "cards=1"),
    ],
)
def test_a_fault_that_nothing_can_show_is_refused(text, driver, words, remedy):
    with pytest.raises(ConfigError) as error:
        check_faults(parse_config(text), driver)
    assert words in error.value.message and "\n" not in error.value.message
    assert remedy in error.value.remedy


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("fault=wrong-throughput", "cli"),
        ("fault=wrong-throughput:0:1", "benchmark"),
        ("fault=wrong-throughput,generation=v1", None),
        ("fault=wrong-throughput,without=ais_bench", None),
        ("fault=stale-files", "api"),
        ("cards=0,fault=unsupported-operator", None),
        ("cards=0,fault=npu-smi-fails", None),
        ("fault=stale-files:0", "cli"),
        ("chip=310,fault=busy:3", None),
        ("npu_ids=2+5,fault=device-lost:1", "benchmark"),
    ],
)
def test_a_fault_that_something_shows_is_taken(text, driver):
    check_faults(parse_config(text), driver)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_each_fault_is_taken_with_the_drivers_of_the_table(name, driver):
    (row,) = (row for row in fault_table() if row.startswith(f"| `{name}` |"))
    column = row.split(" | ")[2]
    try:
        check_faults(parse_config(f"fault={name}"), driver)
    except ConfigError:
        assert not column.startswith("all") and f"`{driver}`" not in column
    else:
        assert column.startswith("all") or f"`{driver}`" in column


def test_a_run_refuses_a_fault_that_its_driver_cannot_show():
    given = {"simulate_ascend": True, "simulator": "fault=wrong-throughput"}
    with pytest.raises(ConfigError, match="the driver api"):
        resolve(given, {})
    with pytest.raises(ConfigError, match="the driver api"):
        resolve({"simulate_ascend": True}, {"HARNESS_SIMULATOR": "fault=wrong-throughput"})
    resolve({**given, "driver": "cli"}, {})
    resolve({}, {"HARNESS_SIMULATOR": "fault=wrong-throughput"})


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("fault=wrong-throughput", "the driver api"),
        ("fault=busy:3", "no device 3"),
        ("without=atc", "no atc"),
        ("fault=nonsense", "no fault is called"),
    ],
)
def test_settings_that_were_not_resolved_are_checked_before_a_target_is_made(host, words):
    settings = Settings(simulate_ascend=True, target="ascend310p3", simulator=host)
    with pytest.raises(ConfigError, match=words):
        registry.check(settings)
    registry.check(dataclasses.replace(settings, simulate_ascend=False))
    if words == "no device 3":
        registry.check(dataclasses.replace(settings, target="ascend310"))


def test_a_run_knows_the_devices_of_its_target():
    given = {"simulate_ascend": True, "simulator": "fault=busy:3"}
    resolve({**given, "target": "ascend310"}, {})
    with pytest.raises(ConfigError, match="no device 3"):
        resolve(given, {})


def test_a_fault_that_nothing_came_across_is_told(tmp_path: Path, onnx: Path, capsys):
    text = "cards=2,fault=busy:1,fault=unsupported-operator:any:1,fault=nan:1,fault=npu-smi-hang"
    make_host(tmp_path, text)
    host = Host.load({VARIABLE: str(tmp_path / "simulator.json")})
    unseen = [f"fault {fault.text} never struck" for fault in host.config.faults]
    assert never_struck(tmp_path) == (
        f"{unseen[0]}: npu-smi was not called",
        f"{unseen[1]}: nothing was compiled, the artifacts were in the store",
        unseen[2],
        f"{unseen[3]}: npu-smi was not called",
    )
    assert atc.main(["--help"], host) == 0
    assert "nothing was compiled" in never_struck(tmp_path)[1]
    assert run_atc(host, onnx, tmp_path / "m") == 255
    assert host.has_fault("busy", 1)
    assert [line.split(" never")[0] for line in never_struck(tmp_path)] == [
        "fault nan:1",
        "fault npu-smi-hang",
    ]
    # Device 0 has no such fault; that of device 1 strikes there.
    assert not host.strikes("nan", 0)
    assert len(never_struck(tmp_path)) == 2
    assert host.strikes("nan", 1)
    with (tmp_path / "state" / "calls.jsonl").open("a") as file:
        file.write('{"tool": "npu-')
    assert never_struck(tmp_path) == (f"{unseen[3]}: npu-smi was not called",)


def test_a_fault_that_is_spent_struck(tmp_path: Path):
    make_host(tmp_path, "fault=npu-smi-fails:any:1")
    host = Host.load({VARIABLE: str(tmp_path / "simulator.json")})
    assert [host.strikes("npu-smi-fails") for _ in range(2)] == [True, False]
    assert never_struck(tmp_path) == ()


def test_without_a_host_nothing_is_told(tmp_path: Path):
    assert never_struck(tmp_path) == ()
    (tmp_path / "simulator.json").write_text('{"config": ')
    assert never_struck(tmp_path) == ()


def test_calls_are_remembered(tmp_path: Path):
    host: SimulatedHost = make_host(tmp_path)
    host.run("npu-smi", "info", "-m")
    (line,) = (tmp_path / "state" / "calls.jsonl").read_text().splitlines()
    assert json.loads(line)["argv"] == ["info", "-m"]
