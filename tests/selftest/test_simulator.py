"""The simulated host: its configuration and faults, its installation, atc, npu-smi, `.om` files."""

from __future__ import annotations

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
from harness.simulator import (
    SimulatorConfig,
    ais_infer_script,
    atc,
    check_faults,
    install,
    never_struck,
    npu_smi,
    om,
    parse_config,
)
from harness.simulator.config import TOOLS, from_json
from harness.simulator.faults import DRIVERS, FAULTS, fault_table
from harness.simulator.host import FOREIGN_PID, Host
from harness.targets.ascend.simulation import is_part
from tests.selftest.running import ROOT, eventually
from tests.selftest.simulated import INPUT, SOC, make_host, write_onnx

# --- configuration ----------------------------------------------------------------------------


def test_every_key_is_read_and_survives_its_file(tmp_path):
    table = tmp_path / "times.json"
    table.write_text('{"4": 2.5, "model": 3}')
    text = (
        "chip=310,cards=2,npu_ids=2+5,driver=22.0.4,generation=v3,cann=5.1.RC2,auto_tune=0,"
        "om=linux,atc_seconds=1.5,compute=none,float16=1,threads=2,time=spin:2.5,without=aoe,"
        f"without=benchmark,fault=busy:1,fault=crash-run:any:3,times={table}"
    )
    config = parse_config(text)
    assert (config.chips_per_card, config.npu_ids, config.driver) == (4, (2, 5), "22.0.4")
    assert (config.generation, config.cann, config.auto_tune) == ("v3", "5.1.RC2", False)
    assert (config.om_suffix, config.atc_seconds, config.compute) == (True, 1.5, "none")
    assert (config.float16, config.threads, config.timing) == (True, 2, "spin")
    assert (config.time_ms, config.times) == (2.5, {"4": 2.5, "model": 3.0})
    assert config.without == ("aoe", "benchmark")
    assert [fault.text for fault in config.faults] == ["busy:1", "crash-run:any:3"]
    assert from_json(json.loads(json.dumps(config.to_json()))) == config


def test_defaults():
    config = parse_config("")
    assert config == SimulatorConfig()
    assert (config.soc_version, config.cards, config.chips_per_card) == ("Ascend310P3", 1, 1)
    texts = ("cann=5.1.RC2", "cann=8.0.RC2", "cann=8.0.RC2,auto_tune=1")
    assert [parse_config(text).auto_tune for text in texts] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chop=310", "did you mean chip"),
        ("chip=910", "a chip that can be simulated"),
        ("chip", "chip= is not a value"),
        ("chip=310,chip=310P3", "given twice"),
        ("cards=17", "0 to 16"),
        ("cards=2,npu_ids=1", "one id for each of 2 cards"),
        ("npu_ids=1+1", "different ids"),
        ("driver=new", "a version"),
        ("generation=v6", "generation"),
        ("float16=yes", "0 or 1"),
        ("time=0", "milliseconds"),
        ("time=spin", "spin:MS"),
        ("times=/nowhere/at/all", "can be read"),
        ("fault=bussy", "did you mean busy"),
        ("fault=slow:0:1:2", "NAME:DEVICE:COUNT"),
        ("fault=busy:any:1", "lasts, leave out the count"),
    ],
)
def test_nonsense_is_refused_with_what_is_known(text, words):
    with pytest.raises(ConfigError) as error:
        parse_config(text)
    assert words in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize("content", ["{}", '{"4": "fast"}', '{"4": 0}', "{"])
def test_a_bad_table_of_times_is_refused(tmp_path, content):
    table = tmp_path / "times.json"
    table.write_text(content)
    with pytest.raises(ConfigError):
        parse_config(f"times={table}")


@given(st.text(alphabet="chip=31,0:fault-busy+ns\x00é", max_size=40))
def test_any_text_is_a_configuration_or_an_error(text):
    try:
        config = parse_config(text)
    except ConfigError:
        return
    assert from_json(json.loads(json.dumps(config.to_json()))) == config


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "driver", "words", "remedy"),
    [
        ("fault=wrong-throughput", None, "the driver api, the first that is there", "--driver=cli"),
        ("fault=wrong-throughput", "api", "the driver api does not", "--driver=benchmark"),
        ("fault=stale-files:0", "api", "does not show it", "--driver=cli"),
        ("fault=atc-hang:0", "cli", "not called for one device", "fault=atc-hang"),
        ("fault=busy:1", None, "no device 1, the host has 1", "from 0"),
        ("without=atc,fault=truncated-om", None, "has no atc", "without=atc"),
        ("without=npu-smi,fault=busy", "cli", "has no npu-smi", "without=npu-smi"),
        ("without=ais_bench,without=benchmark,fault=nan", None, "nothing", "without="),
        ("without=ais_bench,fault=nan", "api", "driver api does not show", "--driver=benchmark"),
        ("without=ais_bench,without=benchmark,fault=nan", "cli", "no ais_bench", "without=ais"),
        ("cards=0,fault=busy", None, "has no device", "cards=1"),
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
        ("fault=wrong-throughput:0:1", "benchmark"),
        ("fault=wrong-throughput,generation=v1", None),
        ("fault=wrong-throughput,without=ais_bench", None),
        ("cards=0,fault=unsupported-operator", None),
        ("fault=stale-files:0", "cli"),
        ("chip=310,fault=busy:3", None),
    ],
)
def test_a_fault_that_something_shows_is_taken(text, driver):
    check_faults(parse_config(text), driver)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_taken_with_the_drivers_of_the_pages_table(name):
    page = (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8")
    assert "\n".join(["", *fault_table(), ""]) in page
    (row,) = (row for row in fault_table() if row.startswith(f"| `{name}` |"))
    column = row.split(" | ")[2]
    assert {*FAULTS[name].places} <= {*DRIVERS, *TOOLS}
    for driver in DRIVERS:
        shown = column.startswith("all") or f"`{driver}`" in column
        try:
            check_faults(parse_config(f"fault={name}"), driver)
        except ConfigError:
            assert not shown
        else:
            assert shown


def test_every_fault_is_played_by_a_test():
    names = ("test_simulator.py", "test_simulator_tools.py")
    text = "".join(Path(__file__).with_name(name).read_text() for name in names)
    assert [name for name in FAULTS if f"fault={name}" not in text] == []


def test_a_fault_that_nothing_came_across_is_told(tmp_path, onnx, capsys):
    assert never_struck(tmp_path) == ()
    text = "cards=2,fault=busy:1,fault=unsupported-operator:any:1,fault=nan:1,fault=npu-smi-hang"
    host = make_host(tmp_path, text).host
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
    # Device 0 has no such fault; that of device 1 strikes there.
    assert not host.strikes("nan", 0)
    assert len(never_struck(tmp_path)) == 2
    assert host.strikes("nan", 1)
    with (tmp_path / "state" / "calls.jsonl").open("a") as file:
        file.write('{"tool": "npu-')
    assert never_struck(tmp_path) == (f"{unseen[3]}: npu-smi was not called",)
    (tmp_path / "simulator.json").write_text('{"config": ')
    assert never_struck(tmp_path) == ()


# --- installation -----------------------------------------------------------------------------


def test_the_environment_has_the_tools_first_and_set_env_gives_the_same(tmp_path):
    env = install(tmp_path, parse_config(""), environment={"PATH": os.environ["PATH"]})
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
    install(tmp_path, parse_config(""), environment={})
    (tmp_path / "state" / "counters").mkdir()
    install(tmp_path, parse_config("generation=v1,without=atc,without=aoe"), environment={})
    assert not (tmp_path / "state" / "counters").exists()
    assert not list((tmp_path / "ascend-toolkit/latest/bin").iterdir())
    assert ais_infer_script(tmp_path) == tmp_path / "tools" / "ais_infer.py"
    assert not (tmp_path / "site" / "ais_bench").exists()
    install(tmp_path, parse_config("without=npu-smi,without=ais_bench"), environment={})
    assert ais_infer_script(tmp_path) is None
    assert not (tmp_path / "bin" / "npu-smi").exists()
    assert not list((tmp_path / "site").iterdir())


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "below", tmp_path / "a:b"):
        with pytest.raises(ConfigError):
            install(folder, parse_config(""), environment={})


@pytest.mark.parametrize("name", ["a caf\u00e9 \u56fe".encode(), b"latin-\xe9"])
def test_a_folder_that_the_locale_cannot_read(tmp_path, name):
    folder = os.fsencode(tmp_path) + b"/" + name
    code = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from harness.simulator import install, parse_config\n"
        "folder = Path(sys.argv[1])\n"
        "env = install(folder, parse_config(''), environment=os.environ)\n"
        "sys.exit(subprocess.run(['npu-smi', 'info'], env=env, stdout=-3).returncode)\n"
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
        assert name.split()[-1] in file.read()


def test_an_interpreter_that_a_shebang_cannot_name(tmp_path, monkeypatch):
    real = sys.executable
    link = tmp_path / "with space" / "python"
    link.parent.mkdir()
    link.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
    link.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(link))
    host = make_host(tmp_path / "host")
    assert host.run("npu-smi", "info").code == 0
    (line,) = (tmp_path / "host" / "state" / "calls.jsonl").read_text().splitlines()
    assert json.loads(line)["argv"] == ["info"]


# --- atc and the .om --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx(tmp_path_factory) -> Path:
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


def test_atc_compiles(tmp_path, onnx, capsys):
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
    assert run_atc(a_host(tmp_path, "om=linux"), onnx, tmp_path / "n") == 0
    assert (tmp_path / f"n_linux_{os.uname().machine}.om").is_file()


def test_a_fixed_batch_compiles_at_itself_alone_and_an_old_atc_tunes(tmp_path, onnx, capsys):
    model = write_onnx(tmp_path / "fixed.onnx", 4)
    host = a_host(tmp_path, "cann=5.1.RC2")
    assert run_atc(host, model, tmp_path / "four") == 0
    assert run_atc(host, model, tmp_path / "eight", shape="8,3,8,8") == 255
    assert "E10001" in capsys.readouterr().out
    assert run_atc(host, onnx, tmp_path / "m", "--auto_tune_mode=RL,GA", shape="8,3,8,8") == 0
    assert om.read(tmp_path / "m.om")[0].tuning == "RL,GA"


REFUSED = {
    "unknown flag": (["--sync=1"], "unknown command line flag 'sync'"),
    "no shape": (["--input_shape="], "Value [-1] for parameter [image] is invalid"),
    "wrong name": (["--input_shape=img:4,3,8,8"], "no such input"),
    "wrong side": (["--input_shape=image:4,3,9,8"], "the shape of input [image]"),
    "unknown chip": (["--soc_version=Ascend999"], "--soc_version"),
    "no model": (["--model=nowhere.onnx"], "does not exist"),
    "space in path": (["--output=a b"], "--output"),
    "two precisions": (["--precision_mode=force_fp16", "--precision_mode_v2=fp16"], "E10054"),
    "auto tune": (["--auto_tune_mode=RL,GA"], "has been deprecated. Please use the AOE tool"),
    "required": (["--framework="], "E10007: [--framework] is required."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_atc_refuses(tmp_path, onnx, capsys, name):
    more, words = REFUSED[name]
    assert run_atc(a_host(tmp_path, "cann=7.0.0"), onnx, tmp_path / "m", *more) == 255
    printed = capsys.readouterr()
    assert "ATC run failed, Please check the detail log" in printed.out
    assert words in printed.out and not printed.err
    assert name == "unknown flag" or re.search(r"\bE\d{5}: ", printed.out)
    assert not list(tmp_path.glob("*.om"))


@pytest.mark.parametrize(
    ("cann", "form"),
    [
        ("5.1.RC2", r"^EZ3002: Optype"),
        ("8.0.RC2", r"^EZ3002: \[PID: \d+\] \d{4}-\d\d-\d\d-\d\d:\d\d:\d\d\.\d{3}\.\d{3} Optype"),
        ("8.5.0", r"^Unsupported_Operator\(EZ3002\): Optype"),
    ],
)
def test_codes_have_the_form_of_their_generation(tmp_path, onnx, capsys, cann, form):
    host = a_host(tmp_path, f"cann={cann},fault=unsupported-operator")
    assert run_atc(host, onnx, tmp_path / "m") == 255
    assert re.search(form, capsys.readouterr().out, re.MULTILINE)
    assert not (tmp_path / "m.om").exists()


def test_files_that_atc_leaves_short_or_as_they_were(tmp_path, onnx, capsys):
    assert run_atc(a_host(tmp_path, "fault=truncated-om"), onnx, tmp_path / "m") == 0
    with pytest.raises(om.OmError, match="truncated"):
        om.read(tmp_path / "m.om")
    (tmp_path / "m.om").write_bytes(b"old")
    assert run_atc(a_host(tmp_path, "fault=stale-files"), onnx, tmp_path / "m") == 0
    assert capsys.readouterr().out.count("ATC run success") == 2
    assert (tmp_path / "m.om").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("fault", "command"),
    [("fault=atc-hang", ["atc", "--framework=5"]), ("fault=npu-smi-hang", ["npu-smi", "info"])],
)
def test_a_hanging_tool_hangs_and_dies_when_told(tmp_path, fault, command):
    host = make_host(tmp_path, f"{fault}:any:1")
    process = host.start(*command)
    assert eventually((tmp_path / "state" / "counters").exists)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM
    process.communicate()
    assert not host.host.strikes(fault.removeprefix("fault="))


def test_float16_rounds_the_weights_and_keeps_the_tensors(tmp_path, onnx):
    import onnx as onnx_module

    host = a_host(tmp_path, "float16=1")
    assert run_atc(host, onnx, tmp_path / "half") == 0
    assert run_atc(host, onnx, tmp_path / "full", "--precision_mode=force_fp32") == 0
    half, full = om.read(tmp_path / "half.om"), om.read(tmp_path / "full.om")
    assert half[0].inputs == full[0].inputs and half[0].outputs == full[0].outputs
    for (_, payload), kind in ((half, "FLOAT16"), (full, "FLOAT")):
        weights = onnx_module.load_from_string(payload).graph.initializer
        kinds = {w.data_type for w in weights if w.name in ("kernel", "matrix")}
        assert kinds == {onnx_module.TensorProto.DataType.Value(kind)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"\x08" + data, "not an offline model"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:-1] + b"x", "digest"),
        (lambda data: data.replace(b'"batch": 4', b'"bitch": 4'), "header"),
        (lambda data: b"", "not an offline model"),
    ],
)
def test_a_damaged_om_is_refused(tmp_path, damage, words):
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
    capsys.readouterr()
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


def test_the_table_of_a_310p3(tmp_path, capsys):
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


def test_cards_of_four_chips_and_odd_npu_ids(tmp_path, capsys):
    _, text = smi(a_host(tmp_path, "chip=310,npu_ids=2+5"), capsys, "info")
    chips = [row for row in rows(text) if len(row) == 3 and row[1].startswith("0000:")]
    assert [row[0].split() for row in chips] == [[str(i % 4), str(i)] for i in range(8)]
    names = [row[0].split() for row in rows(text) if len(row) == 3 and row[1] == "OK"]
    assert names == [["2", "310"]] * 4 + [["5", "310"]] * 4
    # Chips of one card are parted by '-', cards by '='.
    body = text.split("=+\n", 1)[1].split("| NPU     Chip")[0]
    assert [line[1] for line in body.splitlines() if line.startswith("+")] == [*"---=---="]


@pytest.mark.parametrize(
    ("driver", "hugepages", "columns"),
    [("21.0.4", False, 0), ("22.0.4", True, 0), ("23.0.0", True, 4), ("26.1.0", True, 5)],
)
def test_the_layout_of_a_driver_and_how_busy_shows_in_it(
    tmp_path, capsys, driver, hugepages, columns
):
    _, text = smi(a_host(tmp_path, f"cards=2,fault=busy:1,driver={driver}"), capsys, "info")
    assert ("Hugepages-Usage(page)" in text) == hugepages
    heads = [row for row in rows(text) if row[-1].startswith("Process ")]
    assert [len(row) for row in heads] == ([columns] if columns else [])
    busy = ["1       0", str(FOREIGN_PID), "python3", "1024", "NA"][: columns or 5]
    assert (busy in rows(text)) == bool(columns)
    use = [row[2].split()[0] for row in rows(text) if row[1:2] and row[1][:5] == "0000:"]
    assert use == ["0", "87"]


def test_health_and_throttling(tmp_path, capsys):
    host = a_host(tmp_path, "cards=2,fault=unhealthy:1,fault=throttled:0")
    _, text = smi(host, capsys, "info")
    seen = [row for row in rows(text) if len(row) == 3 and row[1] in ("OK", "Alarm")]
    assert [(row[1], row[2].split()[1]) for row in seen] == [("OK", "97"), ("Alarm", "43")]
    for npu, slower in (("0", True), ("1", False)):
        _, common = smi(host, capsys, "info", "-t", "common", "-i", npu)
        clocks = dict(re.findall(r"Aicore (\w+)\(MHZ\) +: (\d+)", common))
        assert (int(clocks["curFreq"]) < int(clocks["Freq"])) == slower


def test_queries_of_a_card(tmp_path, capsys):
    host = a_host(tmp_path, "chip=310")
    board = smi(host, capsys, "info", "-t", "board", "-i", "0")[1]
    assert "Software Version               : 23.0.0" in board
    assert "Chip Count                     : 4" in board
    product = smi(host, capsys, "info", "-t", "product", "-i", "0")[1]
    assert "Product Type                   : Atlas 300I-3010" in product


@pytest.mark.parametrize(
    ("config", "arguments", "code", "says"),
    [
        ("", (), 215, "Command or option is not found."),
        ("", ("info", "-x"), 215, "Command or option is not found."),
        ("", ("info", "-t", "colour", "-i", "0"), 215, "Command or option is not found."),
        ("", ("info", "-t", "board"), 215, "Command or option is not found."),
        ("", ("info", "-t", "board", "-i", "9"), 193, "ret is -8255"),
        ("cards=0", ("info",), 1, "There is no NPU card"),
        ("fault=npu-smi-fails", ("info",), 187, "dcmi module initialize failed. ret is -8005"),
    ],
)
def test_failures_have_a_code_and_go_to_stdout(tmp_path, capsys, config, arguments, code, says):
    got, text = smi(a_host(tmp_path, config), capsys, *arguments)
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


def test_a_dead_process_leaves_the_table(tmp_path):
    host = make_host(tmp_path)
    code = (
        "import os, signal\nfrom harness.simulator.host import Host\n"
        "Host.load().register(0)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**host.env, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=env, check=False)
    assert list((tmp_path / "state" / "sessions").iterdir())
    assert host.host.holders(0) == []
    assert not list((tmp_path / "state" / "sessions").iterdir())


def test_visible_devices_renumber(tmp_path, monkeypatch):
    host = a_host(tmp_path, "chip=310")
    assert [host.visible_device(i) for i in (0, 3, 4, -1)] == [0, 3, None, None]
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,3")
    assert [host.visible_device(i) for i in range(3)] == [1, 3, None]
