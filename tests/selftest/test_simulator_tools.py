"""The simulated host's tools that make and run models, where the drivers' tests do not go."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from harness.simulator import atc, om, parse_config
from harness.simulator.host import Host, play
from harness.simulator.interface import InferSession, OldInferSession
from tests.selftest.running import eventually
from tests.selftest.simulated import BATCH, SimulatedHost, images, make_host, write_onnx


def a_host(tmp_path: Path, text: str = "") -> Host:
    return Host(parse_config(text), tmp_path / "state")


# --- atc, aoe and the .om ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx(tmp_path_factory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx", BATCH)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, onnx) -> Path:
    host = make_host(tmp_path_factory.mktemp("compiler"))
    assert host.compile(onnx).code == 0
    return host.folder / "model.om"


def compile_here(host: Host, capsys, onnx: Path, *more: str, output: str = "m") -> tuple[int, str]:
    """Call atc in this process with the guides' flags, and others after them."""
    given = ["--framework=5", f"--model={onnx}", f"--output={output}", "--input_format=NCHW"]
    given += ["--input_shape=image:4,3,8,8", f"--soc_version={host.config.soc_version}", *more]
    code = play("atc", atc.main, given, host)
    return code, capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--sync=1", "unknown command line flag '--sync=1'"),
        ("--input_shape=img:4,3,8,8", "it must be like"),
        ("--input_shape=image:8,3,8,8", "the shape of input [image]"),
        ("--soc_version=Ascend999", "--soc_version"),
        ("--model=nowhere.onnx", "does not exist"),
        ("--output=a b", "--output"),
        ("--precision_mode=force_fp16 --precision_mode_v2=fp16", "E10054"),
        ("--precision_mode_v2=must_keep_origin_dtype", "must be one of: fp16 origin"),
        ("--auto_tune_mode=RL,GA", "has been deprecated. Please use the AOE tool"),
        ("--framework=", "E10007: [--framework] is required."),
        ("--dynamic_dims=1", "not simulated"),
    ],
)
def test_atc_refuses(tmp_path, monkeypatch, capsys, onnx, argument, words):
    monkeypatch.chdir(tmp_path)
    host = a_host(tmp_path, "cann=7.0.0")
    code, text = compile_here(host, capsys, onnx, *re.split(" (?=--)", argument))
    assert code == 255
    assert "ATC run failed, Please check the detail log" in text and words in text
    assert argument == "--sync=1" or re.search(r"\bE\d{5}: ", text)
    assert not Path("m.om").exists()


@pytest.mark.parametrize(
    ("cann", "form"),
    [
        ("5.1.RC2", r"^EZ3002: Optype"),
        ("8.0.RC2", r"^EZ3002: \[PID: \d+\] \d{4}-\d\d-\d\d-\d\d:\d\d:\d\d\.\d{3}\.\d{3} Optype"),
        ("8.5.0", r"^Unsupported_Operator\(EZ3002\): Optype"),
        ("9.1.0", r"^Unsupported_Operator\(EZ3002\): Optype"),
    ],
)
def test_codes_have_the_form_of_their_generation(tmp_path, capsys, onnx, cann, form):
    host = a_host(tmp_path, f"cann={cann},fault=unsupported-operator")
    code, text = compile_here(host, capsys, onnx)
    assert code == 255 and re.search(form, text, re.MULTILINE)


@pytest.mark.parametrize(
    "keeps",
    [
        "--precision_mode=force_fp32",
        "--precision_mode=must_keep_origin_dtype",
        "--precision_mode_v2=origin",
    ],
)
def test_float16_rounds_the_weights_and_keeps_the_tensors(
    tmp_path, monkeypatch, capsys, onnx, keeps
):
    import onnx as library

    monkeypatch.chdir(tmp_path)
    host = a_host(tmp_path, "float16=1")
    kinds = []
    for output, more in (("half", ()), ("full", (keeps,))):
        assert compile_here(host, capsys, onnx, *more, output=output)[0] == 0
        header, payload = om.read(Path(f"{output}.om"))
        assert header.inputs == (om.Tensor("image", (4, 3, 8, 8), "float32"),)
        weights = library.load_from_string(payload).graph.initializer
        kinds.append({w.data_type for w in weights if w.name in ("kernel", "matrix")})
    types = library.TensorProto.DataType
    assert kinds == [{types.Value("FLOAT16")}, {types.Value("FLOAT")}]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"\x08" + data, "not an offline model"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "digest"),
        (lambda data: data.replace(b'"size": ', b'"bite": '), "header"),
        (lambda data: b"", "not an offline model"),
    ],
)
def test_a_damaged_om_is_refused(tmp_path, compiled, damage, words):
    path = tmp_path / "m.om"
    path.write_bytes(damage(compiled.read_bytes()))
    with pytest.raises(om.OmError, match=words):
        om.read(path)


def test_aoe_leaves_an_entry_in_the_bank(tmp_path, monkeypatch, onnx):
    bank = tmp_path / "bank"
    bank.mkdir()
    monkeypatch.setenv("TUNE_BANK_PATH", str(bank))
    given = ("--framework=5", f"--model={onnx}", "--job_type=2", "--output=t")
    host = a_host(tmp_path)
    assert play("aoe", atc.tune, (*given, "--input_shape=image:4,3,8,8"), host) == 0
    assert len(list(bank.iterdir())) == 1
    assert play("aoe", atc.tune, ("--job_type=3",), host) == 255


# --- what runs models -------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path, compiled) -> SimulatedHost:
    """A host with the tiny model, and one batch of inputs."""
    host = make_host(tmp_path)
    (tmp_path / "model.om").write_bytes(compiled.read_bytes())
    (tmp_path / "model.om").chmod(0o640)
    for name in ("in", "out"):
        (tmp_path / name).mkdir(mode=0o750)
    for index, image in enumerate(images(BATCH)):
        image.tofile(tmp_path / "in" / f"img{index}.bin")
        (tmp_path / "in" / f"img{index}.bin").chmod(0o640)
    return host


def test_images_in_files_of_their_own_are_grouped_and_the_flag_only_scales(bench):
    run = ("python", "-m", "ais_bench", "--model", "model.om", "--input", "in")
    ran = bench.run(*run, "--output", "out", "--output_dirname", "r", "--batchsize", "64")
    assert ran.code == 0, ran
    assert "filesperbatch:4 runcount:1" in ran.out
    names = {path.name for path in (bench.folder / "out" / "r").iterdir()}
    assert names == {f"img{index}_0.bin" for index in range(BATCH)}
    data = json.loads((bench.folder / "out" / "r_summary.json").read_text())
    assert data["throughput"] == pytest.approx(64_000 / data["NPU_compute_time"]["mean"])


@pytest.mark.parametrize(
    ("arguments", "code", "cause"),
    [
        ("--model no.om", 2, "does not exist"),
        ("--model in/img0.bin", 2, "file type not in ['om']"),
        ("--model model.om --sync 1", 2, ""),
        ("--model model.om --loop 0", 2, ""),
        ("--model model.om --output site", 2, "0o750"),  # `--output ./`, as two guides have it
        ("--model model.om --device 1", 1, "open device 1 failed"),
        ("--model model.om --input out", 1, "no valid file"),
    ],
)
def test_v5_refuses(bench, arguments, code, cause):
    (bench.folder / "site").chmod(0o755)
    ran = bench.run("python", "-m", "ais_bench", *arguments.split())
    assert ran.code == code, ran
    assert cause in ran.out
    assert ("usage:" in ran.err) == (code == 2)


def test_the_interface_secures_paths_since_v5(bench, capsys, monkeypatch):
    monkeypatch.setenv("NPU_SIMULATOR", bench.env["NPU_SIMULATOR"])
    monkeypatch.chdir(bench.folder)
    Path("link.om").symlink_to("model.om")
    Path("a b").mkdir()
    for name, mode in (("a b/model.om", 0o640), ("group.om", 0o660), ("others.om", 0o642)):
        Path(name).write_bytes(Path("model.om").read_bytes())
        Path(name).chmod(mode)
    for name, cause in {
        "link.om": "soft link",
        "a b/model.om": "illegal char",
        "group.om": "group writable",
        "others.om": "group writable",
    }.items():
        with pytest.raises(ValueError, match="is illegal"):
            InferSession(0, name)
        assert cause in capsys.readouterr().out
        OldInferSession(0, name).finalize()  # the earlier ones look at nothing
    model = Path("model.om").stat()
    monkeypatch.setattr(os, "geteuid", lambda: model.st_uid + 1)
    monkeypatch.setattr(os, "getgroups", lambda: [model.st_gid])
    session = InferSession(0, "model.om")
    # Sizes alone are checked.
    assert len(session.infer([np.zeros(3 * 64 * BATCH, np.int32)])) == 1
    with pytest.raises(RuntimeError, match="general failure"):
        session.infer([images(2 * BATCH)])
    session.free_resource()
    monkeypatch.setattr(os, "getgroups", lambda: [model.st_gid + 1])
    with pytest.raises(ValueError, match="is illegal"):
        InferSession(0, "model.om")


def test_hangs_hold_the_device_until_they_are_killed(bench):
    host = make_host(bench.folder, "fault=hang-run:0:1")
    process = host.start("python", "-m", "ais_bench", "--model", "model.om")
    assert eventually(lambda: any(one.running for one in host.host.holders(0)))
    process.kill()
    process.communicate()
    assert host.host.holders(0) == []
    assert host.run("python", "-m", "ais_bench", "--model", "model.om").code == 0  # the first time
