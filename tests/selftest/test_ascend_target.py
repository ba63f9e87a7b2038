"""The Ascend target on a simulated host, from Python: devices, cards, looks, device faults."""

import dataclasses
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness import plan as cases
from harness.base import files
from harness.base.errors import ConfigError, DeviceError, InferError
from harness.base.locks import locked
from harness.catalog.load import load_catalog
from harness.settings import resolve
from harness.targets import registry
from harness.targets.ascend import host, operators, provider, target, toolkit
from harness.targets.ascend import npu_smi as queries
from harness.targets.ascend.chips import CHIPS, KINDS, age
from harness.targets.ascend.host import LOCK, VISIBLE, Place
from harness.targets.ascend.npu_smi import NpuSmi
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.target import AscendTarget
from harness.targets.protocol import Device, SessionInfo, TensorSpec
from tests.selftest.running import TINY
from tests.selftest.simulated import SimulatedHost, ascend_target, make_host, write_onnx
from tests.selftest.test_ascend_chain import small_network

ONE = cases.Case("tiny", 1, "ascend310p3", "throughput")


def test_chips_of_a_card_are_devices_of_one_group(tmp_path):
    one = ascend_target(tmp_path, "chip=310,cards=2", "ascend310")
    devices = one.devices()
    assert [device.index for device in devices] == list(range(8))
    assert [device.group for device in devices] == ["npu-0"] * 4 + ["npu-1"] * 4
    assert [device.index for device in one.card(devices[5])] == [4, 5, 6, 7]


def test_visible_devices_are_read_as_an_option_and_kept_from_the_tools(tmp_path):
    one = ascend_target(tmp_path, "cards=3", variables={VISIBLE: "1,2"})
    assert [device.index for device in one.devices()] == [1, 2]
    assert VISIBLE not in one.toolkit.env
    with pytest.raises(ConfigError, match=VISIBLE):
        ascend_target(tmp_path, variables={VISIBLE: "all"})


def test_another_chip_than_the_targets(tmp_path):
    with pytest.raises(DeviceError, match="Ascend310P3: npu-smi shows Ascend310"):
        ascend_target(tmp_path, "chip=310").devices()
    with pytest.raises(DeviceError, match=r"no NPU|no chip|no Ascend310P3"):
        ascend_target(tmp_path, "cards=0").devices()
    with pytest.raises(DeviceError, match="logical id 7"):
        ascend_target(tmp_path, device="7").devices()


def test_a_sick_device_is_left_out_and_only_sick_ones_are_an_error(tmp_path):
    one = ascend_target(tmp_path, "cards=2,fault=unhealthy:0")
    assert [device.index for device in one.devices()] == [1]
    assert list(one.left_out()) == ["ascend310p3-0"]
    assert ascend_target(tmp_path, "cards=2,fault=unhealthy:0", device="1").left_out() == {}
    with pytest.raises(DeviceError, match="Alarm"):
        ascend_target(tmp_path, "fault=unhealthy").devices()


def test_without_npu_smi_a_device_must_be_named(tmp_path):
    with pytest.raises(DeviceError, match="no npu-smi"):
        ascend_target(tmp_path, "without=npu-smi").devices()
    one = ascend_target(tmp_path, "without=npu-smi", device="3")
    (device,) = one.devices()
    assert device.index == 3
    assert one.look(device, "before", 0.0, None).busy == "unknown"
    assert one.card(device) == (device,)


@pytest.mark.parametrize("name", CHIPS)
def test_each_target_is_found_on_a_host_that_has_it(tmp_path, name):
    """The simulator plays each row, in the layout of its npu-smi."""
    one = ascend_target(tmp_path, f"chip={CHIPS[name].removeprefix('Ascend')}", name)
    devices = one.devices()
    assert [device.index for device in devices] == list(range(KINDS[name].chips))
    assert {device.name for device in devices} == {CHIPS[name]}
    assert len(one.card(devices[0])) == KINDS[name].chips
    real = SimulatedHost(tmp_path / "host", dict(one.toolkit.env))
    assert f"Ascend{real.host.config.chip}" == one.soc_version
    onnx = write_onnx(tmp_path / "tiny.onnx")
    assert real.compile(onnx).code == 0
    assert one.look(devices[0], "before", 0.0, None).busy == "no"


@pytest.mark.parametrize(
    ("compiled", "running", "periods"),
    [
        *[("7.0.0", "8.3.RC1", 4), ("7.0.0", "8.5.0", 5), ("8.1.RC1", "9.1.0", 5)],
        *[("9.1.0", "9.0.0", -1), ("9.1.RC1", "9.1.0", 0), ("", "9.1.0", None)],
    ],
)
def test_how_old_a_compiled_model_is(compiled, running, periods):
    assert age(compiled, running) == periods


def test_the_identity_names_what_an_artifact_depends_on(tmp_path):
    identity = ascend_target(tmp_path, "driver=23.0.0,cann=8.0.RC2").identity()
    assert identity["simulated"] is True
    assert (identity["chip"], identity["cann"]) == ("Ascend310P3", "8.0.RC2")
    assert identity["driver"] == "23.0.0"


def test_an_npu_smi_that_stumbles_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "RETRY_S", 0.0)
    whole = ascend_target(tmp_path / "whole", "chip=310", "ascend310").identity()
    once = ascend_target(tmp_path / "once", "chip=310,fault=npu-smi-fails:any:1", "ascend310")
    assert once.identity()["firmware"] == whole["firmware"]  # tried again
    fault = f"chip=310,fault=npu-smi-fails:any:{queries.TRIES}"
    longer = ascend_target(tmp_path / "longer", fault, "ascend310")
    assert "firmware" not in longer.identity()  # as on a host that only builds
    assert longer.identity()["firmware"] == once.identity()["firmware"] != ""
    session = SimpleNamespace(
        about=SessionInfo("api"), inputs=[TensorSpec("x", (1, 3, 8, 8), "float32")]
    )
    assert longer.setup(longer.devices()[0], {}, session).chips == 4


def test_no_key_is_made_without_a_firmware_that_is_not_told_for_the_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "RETRY_S", 0.0)
    one = ascend_target(tmp_path)
    one.devices()
    call, failing = NpuSmi._call, [queries.TRIES]

    def stumbles(self, *arguments):
        done, text = call(self, *arguments)
        if "board" in arguments and failing[0]:
            failing[0] -= 1
            return done, "dcmi module initialize failed. ret is -8005\n"
        return done, text

    monkeypatch.setattr(NpuSmi, "_call", stumbles)
    with pytest.raises(DeviceError, match="board"):
        one.identity()
    assert one.identity()["firmware"]


@pytest.mark.parametrize(
    ("text", "busy", "health"),
    [
        ("", "no", "OK"),
        ("fault=busy", "yes", "OK"),
        ("driver=22.0.2", "unknown", "OK"),
        ("driver=22.0.2,fault=busy", "yes", "OK"),  # by its AI cores alone
        ("fault=unhealthy", "no", "Alarm"),
    ],
)
def test_a_look_at_a_device(tmp_path, monkeypatch, text, busy, health):
    monkeypatch.setattr(target, "LOOK_PAUSE_S", 0.0)
    monkeypatch.setattr(target, "LOOKS", 2)
    one = ascend_target(tmp_path, text)
    seen = one.look(Device("ascend310p3", 0, "Ascend310P3", "npu-0"), "before", 0.0, None)
    assert (seen.busy, seen.health) == (busy, health)
    assert seen.temperature_c is not None


def test_what_does_not_speak_against_a_device(tmp_path):
    one, device = ascend_target(tmp_path), Device("ascend310p3", 0, "x", "npu-0")
    assert one.device_fault(InferError("the worker was killed by SIGSEGV"), device) is None
    assert one.device_fault(ConfigError("no such option"), device) is None
    gone = one.device_fault(InferError("x"), Device("ascend310p3", 9, "x", "npu-9"))
    assert gone is not None  # npu-smi does not show it
    assert gone.certain


def test_a_host_with_one_kind_of_chip_names_its_ascend_target(tmp_path, monkeypatch):
    settings = resolve({"leases": str(tmp_path)}, environment={})
    simulated = settings.with_options(AscendOptions(simulate_ascend=True))
    for name, value in make_host(tmp_path, "chip=310").env.items():
        monkeypatch.setenv(name, value)
    assert provider.PROVIDER.detect(simulated).target == "ascend310"
    # Whose shell has a simulated host does not run on it unasked.
    assert "simulated Ascend host" in provider.PROVIDER.detect(settings).how


# What a bare host answers, without a target or with tools that do not tell one.


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Settings of a host of its own: nothing of this machine's Ascend is found."""
    for name in ("ROOTS", "SYSTEM_TOOLS"):
        monkeypatch.setattr(toolkit, name, (tmp_path / name.lower(),))
    monkeypatch.setattr(toolkit, "INSTALL_INFO", tmp_path / "ascend_install.info")
    for name in os.environ:
        if name.startswith(("ASCEND_", "HARNESS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return resolve({"leases": str(tmp_path / "leases")}, environment={})


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def npu_smi(path, chip="310P3"):
    """A program that prints the table of one chip."""
    return script(
        path,
        "cat <<END\n"
        "| npu-smi 23.0.0                    Version: 23.0.0                |\n"
        f"| 0     {chip}     | OK              | 12.3         40             |\n"
        "| 0     0         | 0000:5E:00.0    | 0            577  / 21527   |\n"
        "END",
    )


def said(settings):
    """What a run without a target is told: the text of its error."""
    located = registry.located(settings)
    assert located.target is None
    return cases.missing_text(cases.missing(located, [ONE]), 1)


def test_a_host_without_npu_smi_says_so(bare):
    assert "target: where compiled models run (no npu-smi is on this host)" in said(bare)


def test_an_environment_of_cann_that_fails_is_told_where_no_npu_smi_is_found(bare, tmp_path):
    set_env = tmp_path / "home/Ascend/ascend-toolkit/set_env.sh"
    script(set_env, "exit 3")
    assert f"no npu-smi is on this host (not usable: {set_env}: bash ended with" in said(bare)


def test_an_npu_smi_that_needs_the_drivers_libraries_gets_them(bare, tmp_path):
    """Not on PATH, and no shell has set where its libraries are."""
    real = npu_smi(tmp_path / "real")
    lib64 = tmp_path / "roots/driver/lib64"
    lib64.mkdir(parents=True)
    script(
        tmp_path / "system_tools/npu-smi",
        f'case ":$LD_LIBRARY_PATH:" in *:{lib64}:*) exec {real};; esac\n'
        "echo 'npu-smi: error while loading shared libraries: libdrvdsmi_host.so'; exit 127",
    )
    assert registry.located(bare).target == "ascend310p3"
    lib64.rmdir()
    assert "libdrvdsmi_host.so" in said(bare)


def test_nobody_waits_long_for_a_target(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(provider, "DETECT_S", 0.5)
    program = script(tmp_path / "bin/npu-smi", "sleep 600")
    assert "its deadline" in said(bare)
    npu_smi(program)
    with locked(tmp_path / "leases" / LOCK, what="another's call"):
        assert "held by another's call" in said(bare)
    monkeypatch.setattr(provider, "DETECT_S", 60.0)
    assert registry.located(bare).target == "ascend310p3"


def test_chips_that_have_no_target_of_their_own(bare, tmp_path):
    npu_smi(tmp_path / "bin/npu-smi", "910B")
    assert "npu-smi says Ascend910B, and targets are for Ascend310P3, Ascend310," in said(bare)
    nowhere = bare.with_options(AscendOptions(npu_smi=tmp_path / "nowhere"))
    assert "nowhere, given for npu-smi, does not exist" in said(nowhere)


@pytest.mark.parametrize(
    ("shown", "template", "name"),
    [
        ("310P3", "", "Ascend310P3"),
        ("310Pvir02", "", "vNPU vir02 of an Ascend310P3"),
        ("310P3vir04", "", "vNPU vir04 of an Ascend310P3"),
        ("310P3", "vir01", "vNPU vir01 of an Ascend310P3"),
        # Without npu-smi.
        ("", "", "Ascend310P3"),
        ("", "vir04", "vNPU vir04 of an Ascend310P3"),
    ],
)
def test_a_slice_of_a_chip_is_named_as_such(bare, tmp_path, monkeypatch, shown, template, name):
    if shown:
        npu_smi(tmp_path / "bin/npu-smi", shown)
    if template:
        monkeypatch.setenv(host.TEMPLATE, template)
    named = AscendOptions(soc_version="310P3")
    settings = dataclasses.replace(bare.with_options(named), device=(0,))
    assert registry.located(settings).target == "ascend310p3"
    place = Place(tmp_path / "logs", tmp_path / "work", tmp_path)
    one = AscendTarget("ascend310p3", settings, place)
    (device,) = one.devices()
    assert device.name == name
    session = SimpleNamespace(
        about=SessionInfo("api"), inputs=[TensorSpec("x", (1, 3, 8, 8), "float32")]
    )
    assert one.setup(device, {}, session).chip == name
    if shown:
        assert name in doctor_of(settings)["NPU 0 chip 0, --device=0"]


@pytest.mark.parametrize("text", ["Ascend310P3", "310p3", "ascend 310P3"])
def test_a_chip_that_was_named_is_a_target(bare, text):
    named = registry.located(bare.with_options(AscendOptions(soc_version=text)))
    assert named.target == "ascend310p3"
    # It builds there; to run, a device must be known as well.
    assert "npu-smi" in {item.thing.split(":")[0] for item in cases.missing(named, [ONE])}
    building = cases.missing(named, [ONE], building=True)
    assert {item.thing.split(":")[0] for item in building} == {"atc", "checkpoints"}


def doctor_of(settings):
    (look, *_) = provider.PROVIDER.looks(settings)
    return {finding.what: finding.found for finding in look.findings()}


def place_lacking(runs, *, simulated=True, building=False):
    given = {"runs": str(runs), "simulate_ascend": simulated, "target": "ascend310p3"}
    settings = resolve(given, environment={})
    lacking = cases.missing(settings, [ONE], building=building)
    return " ".join(f"{one.thing}; {one.remedy}" for one in lacking if "npu-smi" not in one.thing)


@pytest.mark.parametrize("simulated", [True, False])
def test_a_place_that_cann_refuses_is_told_before_anything_runs(tmp_path, simulated):
    assert "refuse" not in place_lacking(tmp_path / "runs", simulated=simulated)
    for name in ("my runs", "运行"):
        said = place_lacking(tmp_path / name, simulated=simulated)
        assert f"they refuse paths like {str(tmp_path / name)!r}" in said
        # The tools of a build work elsewhere.
        building = place_lacking(tmp_path / name, simulated=simulated, building=True)
        assert "refuse" not in building


def test_simulated_tools_on_a_file_system_that_starts_no_programs(tmp_path, monkeypatch):
    assert "noexec" not in place_lacking(tmp_path)
    monkeypatch.setattr(files, "starts_programs", lambda folder: False)
    assert f"{tmp_path} is on a file system mounted noexec; --runs=DIR" in place_lacking(tmp_path)
    assert "noexec; TMPDIR=DIR" in place_lacking(tmp_path, building=True)
    assert "noexec" not in place_lacking(tmp_path, simulated=False)


def test_whether_a_file_system_starts_programs():
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    options = {place: text.split(",") for _, place, _, text, *_ in mounts}
    for place in ("/", "/proc"):
        known = "noexec" not in options[place]
        assert files.starts_programs(Path(place, "not there", "yet")) == known


def test_another_atc_makes_another_artifact(bare, tmp_path):
    model = load_catalog(TINY).models["tiny"]
    place = Place(tmp_path / "logs", tmp_path / "work", tmp_path)

    def inputs(atc):
        settings = bare.with_options(AscendOptions(atc=atc))
        return AscendTarget("ascend310p3", settings, place).compile_inputs(model, 4)

    one, two = (script(tmp_path / name / "atc", "") for name in "ab")
    assert inputs(one) == inputs(one)
    assert inputs(one) != inputs(two)


def test_who_compiles_for_whom(bare, tmp_path, monkeypatch):
    """A host without an NPU for those that have one, never one processor's for another's."""
    model = load_catalog(TINY).models["tiny"]
    place = Place(tmp_path / "logs", tmp_path / "work", tmp_path)

    def host(home, version):
        monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path / home))
        kind = home.partition("-")[0]
        (tmp_path / home).mkdir(exist_ok=True)
        (tmp_path / home / f"ascend_{kind}_install.info").write_text(f"version={version}\n")
        if kind == "toolkit":
            script(tmp_path / home / "bin" / "atc", "")
        return AscendTarget("ascend310p3", bare, place)

    def inputs(home="toolkit-a", version="8.0"):
        return host(home, version).compile_inputs(model, 4)

    builder = inputs()
    assert builder["cann"] == "8.0"
    npu_smi(tmp_path / "bin/npu-smi")
    assert host("toolkit-b", "8.0").identity()["driver"] == "23.0.0"
    assert inputs("toolkit-b") == inputs("nnrt-a") == builder
    session = SimpleNamespace(
        about=SessionInfo("api"), inputs=[TensorSpec("x", (1, 3, 8, 8), "float32")]
    )
    device = host("nnrt-a", "8.0").devices()[0]
    assert host("nnrt-a", "8.0").setup(device, {}, session).toolchain == "CANN 8.0"
    assert inputs("toolkit-c", "8.1") != builder != inputs("nnrt-b", "8.1")
    monkeypatch.setattr(target, "platform", SimpleNamespace(machine=lambda: "another"))
    assert inputs() != builder


def test_tuning_is_for_the_cases_that_their_guide_tunes(tmp_path):
    one, model = ascend_target(tmp_path, tune="aoe"), load_catalog(TINY).models["tiny"]
    assert not one.compiles_on_device(model, 4)
    onnx = small_network(tmp_path / "small.onnx")
    facts = one.compile(onnx, model, 4, tmp_path, device=None, log=tmp_path / "log")
    assert facts == {"tuning": "none", "note": "", "dynamic_batch": "none"}


def test_a_simulated_host_never_stands_behind_a_real_run(tmp_path):
    place = Place(tmp_path / "logs", tmp_path / "work", tmp_path)
    simulated = make_host(tmp_path / "host").env
    real = resolve({"target": "ascend310p3"}, environment={})
    with pytest.raises(ConfigError, match="simulated Ascend host"):
        _ = AscendTarget("ascend310p3", real, place, simulated).toolkit
    # Also where one of its tools alone was put on a search path or named.
    bare = {"PATH": simulated["PATH"], "HOME": str(tmp_path)}
    with pytest.raises(ConfigError, match="simulated Ascend host"):
        _ = AscendTarget("ascend310p3", real, place, bare).toolkit
    atc = tmp_path / "host" / "ascend-toolkit" / "latest" / "bin" / "atc"
    named = resolve({"target": "ascend310p3", "atc": str(atc)}, environment={})
    with pytest.raises(ConfigError, match="simulated Ascend host"):
        _ = AscendTarget("ascend310p3", named, place, {"PATH": "/usr/bin"}).toolkit


def test_the_commands_of_a_report_run(tmp_path):
    """In the tool's own words: an option that it does not know would end it with 2."""
    target = ascend_target(tmp_path, "compute=none,time=2")
    (model,), (device,) = load_catalog(TINY).models.values(), target.devices()
    commands = target.commands(tmp_path / "a.onnx", tmp_path / "model.om", model, 4, device)
    assert shlex.split(commands["compile"])[0] == "atc"
    words = shlex.split(commands["run"])
    assert words[:3] == [sys.executable, "-m", "ais_bench"] and "--batchsize=4" in words
    host = SimulatedHost(tmp_path / "host", dict(target.toolkit.env))
    host.compile(write_onnx(tmp_path / "tiny.onnx"))
    (tmp_path / "host" / "model.om").rename(tmp_path / "model.om").chmod(0o640)
    ran = host.run("python", *words[1:])
    assert ran.code == 0, ran
    assert "throughput" in ran.out


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (
            ("msprobe", "msit"),
            "/msprobe compare -m offline_model -gp {onnx} -tp {om} --input_data ",
        ),
        (("msit",), "/msit debug compare -gm {onnx} -om {om} -i "),
        ((), ""),
    ],
)
def test_the_command_that_compares_operators_is_msprobe_s_where_it_is_there(tmp_path, there, words):
    for name in there:
        script(tmp_path / "bin" / name, "exit 0")
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "ASCEND_TOOLKIT_HOME": str(tmp_path)}
    tools = toolkit.find_toolkit(AscendOptions(), env, log=tmp_path / "log")
    batch = np.ones((1, 3, 2, 2), np.float32)
    onnx, om = tmp_path / "a.onnx", tmp_path / "a.om"
    given = {"onnx": onnx, "compiled": om, "batch": batch, "device": 3}
    found = operators.comparison(tools, **given, folder=tmp_path / "compare")
    if not there:
        assert found.why_not == "msprobe and msit are not on PATH"
        return
    (command,) = found.commands
    assert command.startswith(f"env ASCEND_TOOLKIT_HOME={tmp_path} ")
    assert words.format(onnx=onnx, om=om) in command
    device = "--rank 3" if "msprobe" in there else "-d 3"
    assert command.endswith(f" -o {tmp_path}/compare/{there[0]} {device}")
    assert (tmp_path / "compare" / "input.bin").stat().st_size == batch.nbytes
    dynamic = {
        "given": TensorSpec("image", (1, 3, 2, 2), "float32"),
        "folder": tmp_path / "compare",
    }
    (command,) = operators.comparison(tools, **given, **dynamic).commands
    assert command.endswith(("--input_shape image:1,3,2,2", "--input-shape image:1,3,2,2"))
