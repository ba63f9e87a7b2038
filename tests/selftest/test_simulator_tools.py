"""The simulated host's tools that make and run models, and the `.om` files between them."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.simulator import aclruntime, ais_bench, aoe, atc, benchmark, interface, om
from harness.simulator.host import VARIABLE, play
from tests.selftest.running import ROOT, eventually
from tests.selftest.simulated import (
    BATCH,
    CLASSES,
    INPUT,
    SHAPE,
    SOC,
    Ran,
    SimulatedHost,
    compute,
    images,
    make_host,
    write_onnx,
)

SAMPLES = 10


@pytest.fixture(scope="module")
def onnx(tmp_path_factory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, onnx) -> Path:
    host = make_host(tmp_path_factory.mktemp("compiler"))
    assert host.compile(onnx).code == 0
    return host.folder / "model.om"


class Bench:
    """A host with the tiny model and inputs, whose Python tools run in this process."""

    def __init__(self, folder: Path, compiled: Path, monkeypatch, capsys) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.folder = folder
        self.compiled = compiled
        self.host = self.configure("")
        self.images = images(SAMPLES)
        (folder / "in").mkdir(mode=0o750)
        for i, image in enumerate(self.images):
            image.tofile(folder / "in" / f"img{i}.bin")
            (folder / "in" / f"img{i}.bin").chmod(0o640)
        lines = [f"{i} in/img{i}.bin 8 8" for i in range(SAMPLES)]
        (folder / "prep.info").write_text("\n".join(lines) + "\n")
        monkeypatch.chdir(folder)

    def configure(self, text: str) -> SimulatedHost:
        """Give the host another configuration; what lies in its folder stays."""
        self.host = make_host(self.folder, text)
        shutil.copy(self.compiled, self.folder / "model.om")
        (self.folder / "model.om").chmod(0o640)
        (self.folder / "out").mkdir(mode=0o750, exist_ok=True)
        self._monkeypatch.setenv(VARIABLE, self.host.env[VARIABLE])
        # Each tool is a process of its own, in which a device is initialised once.
        self._monkeypatch.setattr(aclruntime, "_process", aclruntime._Process())
        return self.host

    def run(self, *arguments: str, tool: Any = ais_bench) -> Ran:
        """Call a tool; what it raises is a traceback and exit code 1 to its user."""
        self._monkeypatch.setattr(aclruntime, "_process", aclruntime._Process())
        self._capsys.readouterr()
        error = ""
        try:
            code = play(tool.__name__.rpartition(".")[2], tool.main, arguments)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except Exception as problem:
            code, error = 1, f"{type(problem).__name__}: {problem}"
        printed = self._capsys.readouterr()
        return Ran(code, printed.out, printed.err + error)

    def compile(self, model: Path, *more: str, shape: str = "4,3,8,8", name: str = "m") -> Ran:
        """Compile `model` to NAME.om."""
        return self.run(
            *("--framework=5", f"--model={model}", f"--output={name}", "--input_format=NCHW"),
            *(f"--input_shape={INPUT}:{shape}", "--log=error", f"--soc_version={SOC}", *more),
            tool=atc,
        )


@pytest.fixture
def bench(tmp_path, compiled, monkeypatch, capsys) -> Bench:
    return Bench(tmp_path / "host", compiled, monkeypatch, capsys)


def open_model() -> interface.InferSession:
    return interface.InferSession(0, "model.om")


# --- atc and the .om --------------------------------------------------------------------------


def test_atc_compiles(bench, onnx):
    ran = bench.compile(onnx)
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[-1] == "ATC run success, welcome to the next use."
    header, payload = om.read(Path("m.om"))
    assert (header.name, header.batch, header.soc_version) == ("m", 4, SOC)
    assert header.inputs == (om.Tensor("image", (4, 3, 8, 8), "float32"),)
    assert header.outputs == (om.Tensor("class", (4, 5), "float32"),)
    assert (header.tuning, header.size) == ("none", len(payload))
    bench.configure("om=linux")
    assert bench.compile(onnx).code == 0
    assert Path(f"m_linux_{platform.machine()}.om").is_file()


def test_a_fixed_batch_compiles_at_itself_alone_and_an_old_atc_tunes(bench, onnx):
    bench.configure("cann=5.1.RC2")
    model = write_onnx(bench.folder / "fixed.onnx", 4)
    assert bench.compile(model).code == 0
    ran = bench.compile(model, shape="8,3,8,8")
    assert ran.code == 255 and "E10001" in ran.out
    assert bench.compile(onnx, "--auto_tune_mode=RL,GA", shape="8,3,8,8", name="tuned").code == 0
    assert om.read(Path("tuned.om"))[0].tuning == "RL,GA"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--sync=1", "unknown command line flag '--sync=1'"),
        ("--input_shape=", "Value [-1] for parameter [image] is invalid"),
        ("--input_shape=img:4,3,8,8", "it must be like"),
        ("--input_shape=image:4,3,9,8", "the shape of input [image]"),
        ("--soc_version=Ascend999", "--soc_version"),
        ("--model=nowhere.onnx", "does not exist"),
        ("--output=a b", "--output"),
        ("--output=out", "--output"),
        ("--precision_mode=force_fp16 --precision_mode_v2=fp16", "E10054"),
        ("--auto_tune_mode=RL,GA", "has been deprecated. Please use the AOE tool"),
        ("--framework=", "E10007: [--framework] is required."),
        ("--dynamic_dims=1", "not simulated"),
    ],
)
def test_atc_refuses(bench, onnx, argument, words):
    bench.configure("cann=7.0.0")
    ran = bench.compile(onnx, *re.split(" (?=--)", argument))
    assert (ran.code, ran.err) == (255, "")
    assert "ATC run failed, Please check the detail log" in ran.out and words in ran.out
    assert argument == "--sync=1" or re.search(r"\bE\d{5}: ", ran.out)
    assert not Path("m.om").exists()


@pytest.mark.parametrize(
    ("cann", "form"),
    [
        ("5.1.RC2", r"^EZ3002: Optype"),
        ("8.0.RC2", r"^EZ3002: \[PID: \d+\] \d{4}-\d\d-\d\d-\d\d:\d\d:\d\d\.\d{3}\.\d{3} Optype"),
        ("8.5.0", r"^Unsupported_Operator\(EZ3002\): Optype"),
    ],
)
def test_codes_have_the_form_of_their_generation(bench, onnx, cann, form):
    bench.configure(f"cann={cann},fault=unsupported-operator")
    ran = bench.compile(onnx)
    assert ran.code == 255 and re.search(form, ran.out, re.MULTILINE)
    assert not Path("m.om").exists()


def test_files_that_atc_leaves_short_or_as_they_were(bench, onnx):
    bench.configure("fault=truncated-om")
    assert bench.compile(onnx).code == 0
    with pytest.raises(om.OmError, match="truncated"):
        om.read(Path("m.om"))
    Path("m.om").write_bytes(b"old")
    bench.configure("fault=stale-files")
    assert "ATC run success" in bench.compile(onnx).out
    assert Path("m.om").read_bytes() == b"old"


def test_float16_rounds_the_weights_and_keeps_the_tensors(bench, onnx):
    import onnx as library

    bench.configure("float16=1")
    assert bench.compile(onnx, name="half").code == 0
    assert bench.compile(onnx, "--precision_mode=force_fp32", name="full").code == 0
    half, full = om.read(Path("half.om")), om.read(Path("full.om"))
    assert half[0].inputs == full[0].inputs and half[0].outputs == full[0].outputs
    for (_, payload), kind in ((half, "FLOAT16"), (full, "FLOAT")):
        weights = library.load_from_string(payload).graph.initializer
        kinds = {w.data_type for w in weights if w.name in ("kernel", "matrix")}
        assert kinds == {library.TensorProto.DataType.Value(kind)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"\x08" + data, "not an offline model"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "digest"),
        (lambda data: data.replace(b'"batch": 4', b'"bitch": 4'), "header"),
        (lambda data: b"", "not an offline model"),
    ],
)
def test_a_damaged_om_is_refused(tmp_path, compiled, damage, words):
    header, payload = om.read(compiled)
    assert om.read(compiled, with_payload=False) == (header, b"") and payload
    path = tmp_path / "m.om"
    path.write_bytes(damage(compiled.read_bytes()))
    with pytest.raises(om.OmError, match=words):
        om.read(path)


# --- ais_bench's command line -----------------------------------------------------------------

PURE = ("--model", "model.om")
DATASET = (*PURE, "--input", "in", "--output", "out", "--output_dirname", "r")


def throughput(ran: Ran) -> float:
    (found,) = re.findall(r"^\[INFO\] throughput .*: ([0-9.eE+-]+)\s*$", ran.out, re.MULTILINE)
    return float(found)


def mean_ms(ran: Ran) -> float:
    (found,) = re.findall(r"NPU_compute_time \(ms\): .*mean = ([0-9.e+-]+),", ran.out)
    return float(found)


def test_v5_runs_a_folder(bench, onnx):
    ran = bench.run(*DATASET, "--loop", "2")
    assert ran.code == 0, ran
    for said in (
        "load model model.om success",
        f"try get model batchsize:{BATCH}",
        "get filesperbatch files0 size:768 tensor0size:3072 filesperbatch:4 runcount:3",
        "warm up 1 done",
    ):
        assert f"[INFO] {said}" in ran.lines
    assert "loop inference exec: (2/2)" in ran.lines
    assert throughput(ran) == pytest.approx(1000 * BATCH / mean_ms(ran))
    names = sorted(path.name for path in Path("out/r").iterdir())
    assert names == sorted(f"img{i}_0.bin" for i in range(SAMPLES))
    got = np.stack([np.fromfile(f"out/r/img{i}_0.bin", np.float32) for i in range(SAMPLES)])
    assert np.allclose(got, compute(onnx, bench.images), atol=1e-5)
    assert Path("out/r").stat().st_mode & 0o777 == 0o750
    assert Path("out/r/img0_0.bin").stat().st_mode & 0o777 == 0o640
    data = json.loads(Path("out/r_summary.json").read_text())
    assert data["filesinfo"]["9"] == {"infiles": ["in/img9.bin"], "outfiles": ["out/r/img9_0.bin"]}
    assert len(data["filesinfo"]) == SAMPLES
    assert data["NPU_compute_time"]["count"] == len(data["npu_compute_time_list"]) == 3 * 2
    assert data["throughput"] == pytest.approx(throughput(ran))


def test_pure_inference_saves_one_whole_batch_or_nothing(bench):
    before = {path.name for path in bench.folder.iterdir()}
    assert bench.run(*PURE).code == 0
    assert {path.name for path in bench.folder.iterdir()} == before
    ran = bench.run(*PURE, "--output", "out", "--output_dirname", "./r/", "--loop", "5")
    assert ran.code == 0
    assert Path("out/r/pure_infer_data_0.bin").stat().st_size == BATCH * CLASSES * 4
    # A trailing slash puts the summary inside.
    assert json.loads(Path("out/r/_summary.json").read_text())["NPU_compute_time"]["count"] == 5


def test_order_padding_and_dotted_names_of_files(bench):
    # img10 comes after img9, and the last batch's missing samples are not written.
    shutil.copy("in/img0.bin", "in/img10.bin")
    assert bench.run(*DATASET).code == 0
    data = json.loads(Path("out/r_summary.json").read_text())
    assert data["filesinfo"]["10"]["infiles"] == ["in/img10.bin"]
    # A list of files keeps its order, and what was in the folder stays.
    assert bench.run(*DATASET[:3], "in/img3.bin,in/img1.bin", *DATASET[4:]).code == 0
    data = json.loads(Path("out/r_summary.json").read_text())
    assert [data["filesinfo"][key]["infiles"] for key in "01"] == [["in/img3.bin"], ["in/img1.bin"]]
    assert Path("out/r/img9_0.bin").exists()
    for i in range(4):
        Path(f"in/img{i}.bin").rename(f"in/img.{i}.bin")
    assert bench.run(*DATASET[:-1], "dotted").code == 0
    assert Path("out/dotted/img_0.bin").exists() and not Path("out/dotted/img.0_0.bin").exists()


def test_the_batchsize_flag_only_scales_what_is_printed(bench):
    ran = bench.run(*PURE, "--batchsize", "64", "--warmup", "3")  # argparse takes prefixes
    assert (ran.code, "[INFO] warm up 3 done" in ran.out) == (0, True)
    assert throughput(ran) == pytest.approx(64_000 / mean_ms(ran))


@pytest.mark.parametrize(
    ("arguments", "code", "cause"),
    [
        (("--model", "no.om"), 2, "does not exist"),
        (("--model", "in/img0.bin"), 2, "file type not in ['om']"),
        ((*PURE, "--sync", "1"), 2, ""),
        ((*PURE, "--loop", "0"), 2, ""),
        ((*DATASET[:3], "nowhere", *DATASET[4:]), 2, "does not exist"),
        ((*PURE, "--output", "model.om"), 2, "not a directory"),
        ((*PURE, "--output_dirname", "r"), 1, "--output_dirname"),
        ((*PURE, "--device", "1"), 1, "open device 1 failed"),
        ((*DATASET[:3], "model.om", *DATASET[4:]), 1, "[ERROR] arg0 tensorsize: 3072"),
        ((*DATASET[:3], "out", *DATASET[4:]), 1, "not find valid file"),
    ],
)
def test_v5_refuses(bench, arguments, code, cause):
    ran = bench.run(*arguments)
    assert ran.code == code, ran
    assert cause in ran.out
    assert ran.err  # usage or traceback
    assert ("usage:" in ran.err) == (code == 2)


def test_v5_secures_paths(bench):
    Path("out").chmod(0o755)  # `--output ./` in an ordinary folder, as two guides have it
    ran = bench.run(*DATASET)
    assert (ran.code, "0o750" in ran.out) == (2, True)
    Path("out").chmod(0o750)
    Path("in/notes.txt").write_text("")
    Path("in/notes.txt").chmod(0o666)  # every entry counts, not the inputs alone
    assert bench.run(*DATASET).code == 1
    Path("in/notes.txt").unlink()
    assert bench.run(*DATASET).code == 0


@pytest.mark.parametrize("there", [True, False])
def test_without_pkg_resources_it_warns_and_goes_on(bench, monkeypatch, there):
    """setuptools 81 and later has none: the trap is in docs/ascend-errors.md by what is printed."""
    find = importlib.util.find_spec

    def found(name: str, *more: Any) -> Any:
        return object() if there else None if name == "pkg_resources" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    ran = bench.run(*DATASET)
    assert ran.code == 0, ran
    warning = "[WARNING] can't find aclruntime, please install"
    assert (warning in ran.out) is not there
    assert ("Inference tensor Processing" in ran.out) is not there
    page = (ROOT / "docs" / "ascend-errors.md").read_text(encoding="utf-8")
    assert f"`{warning}` " in page and "setuptools<81" in page


def test_v1_is_another_tool(bench):
    bench.configure("generation=v1")
    ran = bench.run(*DATASET, "--batchsize", "4")
    assert ran.code == 0, ran
    assert "[INFO] warm up 1 times done" in ran.out
    assert re.search(r"throughput 1000\*batchsize\(4\)/NPU_compute_time.mean\(", ran.out)
    data = json.loads(Path("out/r/sumary.json").read_text())
    assert not {"npu_compute_time_list", "pid"} & set(data)
    assert "count" not in data["NPU_compute_time"]
    again = bench.run(*DATASET)
    assert (again.code, "FileExistsError" in again.err) == (1, True)
    assert bench.run(*DATASET[:5], "absent", *DATASET[6:]).code == 1
    ran = bench.run(*PURE)  # its batch size is 1 unless it is told
    assert throughput(ran) == pytest.approx(1000 / mean_ms(ran))


@pytest.mark.parametrize(
    ("generation", "line", "loop"),
    [
        ("v2", r"1000\*batchsize\(1\)", "-r"),
        ("v3", r"1000\*batchsize\(4\)", "-l"),
        ("v4", r"1000\*batchsize.mean\(4\)", "-l"),
        ("v5", r"1000\*batchsize.mean\(4\)", "-l"),
    ],
)
def test_generations_have_lines_and_flags_of_their_own(bench, generation, line, loop):
    bench.configure(f"generation={generation}")
    Path("out").chmod(0o755 if generation != "v5" else 0o750)
    ran = bench.run(*DATASET, loop, "2")
    assert ran.code == 0, ran
    assert re.search(rf"\[INFO\] throughput {line}/NPU_compute_time.mean\(.*\): ", ran.out)
    assert Path("out/r_summary.json").is_file()
    assert bench.run(*PURE, "-l" if loop == "-r" else "-r", "2").code == 2


def test_the_tools_are_found_by_their_names(bench):
    code = (
        "import importlib.metadata as m, ais_bench.infer.interface as i\n"
        "print(m.version('aclruntime'), m.version('ais_bench'))\n"
        "print(i.InferSession.__name__, i.MemorySummary.__name__)\n"
    )
    found = bench.host.run("python", "-c", code)
    assert found.out == "0.0.2 0.0.2\nInferSession MemorySummary\n"
    ran = bench.host.run("python", "-m", "ais_bench", "--model", "nowhere.om")
    assert ran.code == 2 and "__main__.py: error:" in ran.err
    ran = bench.host.run(f"benchmark.{platform.machine()}", "-round=2", "-om_path=model.om")
    assert ran.code == 1 and "[ERROR] batch_size 1" in ran.out
    ran = bench.configure("without=ais_bench").run("python", "-m", "ais_bench")
    assert ran.code == 1 and not ran.out


# --- aclruntime and the Python interface ------------------------------------------------------


def test_a_session_computes(bench, onnx):
    session = open_model()
    (desc,) = session.get_inputs()
    assert (desc.name, desc.datatype, desc.shape) == ("image", 0, list(SHAPE))
    assert desc.size == desc.realsize == 3072
    batch = images(seed=5)
    (result,) = session.infer([batch])
    assert result.dtype == np.float32
    assert np.allclose(result, compute(onnx, batch), atol=1e-5)
    session.set_loop_count(3)
    session.infer([batch])
    times = session.summary().exec_time_list
    assert len(times) == 4 and all(start < end for start, end in times)
    assert all(float(np.float32(t)) == t for pair in times for t in pair)
    session.reset_summaryinfo()
    assert session.summary().exec_time_list == []
    (tensor,) = session.session.run(["class"], [aclruntime.Tensor(batch)])
    with pytest.raises(RuntimeError, match=r"tensor is in npu\. can't convert to numpy array"):
        np.array(tensor)
    tensor.to_host()
    assert np.allclose(np.array(tensor), result, atol=1e-5)
    for _ in range(2):
        session.free_resource()
    with pytest.raises(RuntimeError, match="invalid parameter"):
        session.infer([batch])
    interface.InferSession.finalize()
    with pytest.raises(RuntimeError, match="invalid parameter"):
        open_model()


def test_old_sessions_have_other_names_and_the_oldest_wants_a_mode(bench):
    bench.configure("generation=v3")
    session = interface.OldInferSession(0, "model.om")
    session.infer([images()])
    assert all(isinstance(ms, float) for ms in session.sumary().exec_time_list)
    session.reset_sumaryinfo()
    assert session.sumary().exec_time_list == [] and not hasattr(session, "summary")
    session.finalize()
    assert bench.host.host.holders(0) == []
    code = (
        "import numpy as np\nfrom ais_bench.infer.interface import InferSession\n"
        "s = InferSession(0, 'model.om')\n"
        f"x = [np.zeros({SHAPE}, np.float32)]\n"
        "assert len(s.infer(x, 'static')) == 1\ns.infer(x)\n"
    )
    ran = bench.configure("generation=v2").run("python", "-c", code)
    assert ran.code == 1 and "TypeError" in ran.err


def test_sizes_alone_are_checked_and_misuse_is_refused(bench, capsys):
    session = open_model()
    batch = images()
    session.infer([np.zeros(3 * 64 * BATCH, np.int32)])  # wrong shape and type, the right size
    for feeds, error in (
        ([np.concatenate([batch, batch])], RuntimeError),
        ([batch, batch], RuntimeError),
        ((batch,), ValueError),
        ([], ValueError),
        ([[1, 2]], RuntimeError),
    ):
        with pytest.raises(error):
            session.infer(feeds)
    said = capsys.readouterr().out
    assert "[ERROR] check i:0 name:image in size:6144 needsize:3072 not match" in said
    for device, path in ((256, "model.om"), (0, "no.om"), (0, "in/img0.bin")):
        with pytest.raises(ValueError):
            interface.InferSession(device, path)


def test_the_interface_secures_paths_since_v5(bench, capsys, monkeypatch):
    Path("link.om").symlink_to("model.om")
    Path("a b").mkdir()
    for name, mode in (("a b/model.om", 0o640), ("group.om", 0o660), ("others.om", 0o642)):
        shutil.copy("model.om", name)
        Path(name).chmod(mode)
    for name, cause in {
        "link.om": "soft link",
        "a b/model.om": "illegal char",
        "group.om": "group writable",
        "others.om": "group writable",
    }.items():
        with pytest.raises(ValueError, match="is illegal"):
            interface.InferSession(0, name)
        assert cause in capsys.readouterr().out
        interface.OldInferSession(
            0, name
        ).session.free_resource()  # the earlier ones look at nothing
    model = Path("model.om").stat()
    monkeypatch.setattr(os, "geteuid", lambda: model.st_uid + 1)
    monkeypatch.setattr(os, "getgroups", lambda: [model.st_gid])
    open_model().free_resource()
    monkeypatch.setattr(os, "getgroups", lambda: [model.st_gid + 1])
    with pytest.raises(ValueError, match="is illegal"):
        open_model()


def test_a_model_for_another_chip_or_damaged_is_not_loaded(bench, capsys):
    data = Path("model.om").read_bytes()
    Path("short.om").write_bytes(data[:-1])
    Path("other.om").write_bytes(data.replace(b"Ascend310P3", b"Ascend310P1"))
    for name in ("short.om", "other.om"):
        Path(name).chmod(0o640)
        with pytest.raises(RuntimeError, match=re.escape("[1][ACL: invalid parameter] ")):
            interface.InferSession(0, name)
        assert "[ERROR] load model from file failed" in capsys.readouterr().out
    assert bench.host.host.holders(0) == []


def test_given_times_are_reported_and_slow_doubles_them(bench):
    table = bench.folder / "times.json"
    table.write_text('{"4x3x8x8": 7, "4": 9}')
    for config, ms in (("time=12.5", 12.5), ("time=9,fault=slow", 18.0), (f"times={table}", 7.0)):
        bench.configure(config)
        ran = bench.run(*PURE, "--loop", "4")
        assert mean_ms(ran) == pytest.approx(ms, rel=1e-4)
        assert throughput(ran) == pytest.approx(1000 * BATCH / ms, rel=1e-4)
    table.write_text('{"8": 9}')
    bench.configure(f"times={table}")
    ran = bench.run(*PURE)
    assert ran.code == 1 and "no entry" in ran.out


def test_spinning_takes_its_time_and_none_computes_nothing(bench, monkeypatch):
    here, rest = threading.get_ident(), time.sleep

    def slept(seconds: float) -> None:
        assert threading.get_ident() != here, "it slept: an execution must keep a core busy"
        rest(seconds)

    bench.configure("compute=none,time=spin:5")
    session = open_model()
    began = time.perf_counter()
    monkeypatch.setattr(time, "sleep", slept)
    for _ in range(4):
        assert not session.infer([images()])[0].any()
    assert time.perf_counter() - began >= 0.020
    spans = [end - start for start, end in session.summary().exec_time_list]
    assert all(ms >= 4.99 for ms in spans)


# --- misbehaviour -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["fault=hang-open", "fault=hang-run"])
def test_hangs_hold_the_device_until_they_are_killed(bench, fault):
    host = bench.configure(f"{fault}:0:1")
    process = host.start("python", "-m", "ais_bench", *PURE)
    assert eventually(lambda: len(host.host.holders(0)) == 1)
    if fault == "fault=hang-run":
        assert eventually(lambda: any(one.running for one in host.host.holders(0)))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    process.kill()
    process.communicate()
    assert host.host.holders(0) == []
    assert bench.run(*PURE).code == 0  # the first time only


# --- benchmark and aoe ------------------------------------------------------------------------

VISION = (
    *("-model_type=vision", "-device_id=0", "-batch_size=4", "-om_path=model.om"),
    *("-input_text_path=prep.info", "-input_width=8", "-input_height=8"),
    *("-output_binary=True", "-useDvpp=False"),
)


def test_benchmark_over_a_data_set_keeps_old_files_and_misbehaves_when_told(bench, onnx):
    old = Path("result/dumpOutput_device0/old_1.bin")
    old.parent.mkdir(parents=True)
    old.write_text("old")
    faults = "fault=missing-outputs,fault=stale-files,fault=wrong-throughput"
    for config, rate, others in (
        ("time=4", 1000, {"old_1.bin", "img9_1.bin"}),
        (f"time=4,{faults}", 4000, {"old_1.bin", "earlier_run_1.bin"}),
    ):
        bench.configure(config)
        ran = bench.run(*VISION, tool=benchmark)
        assert ran.code == 0, ran
        samples = [old.with_name(f"img{i}_1.bin") for i in range(SAMPLES - 1)]
        got = np.stack([np.fromfile(sample, np.float32) for sample in samples])
        assert np.allclose(got, compute(onnx, bench.images[:-1]), atol=1e-5)
        assert {path.name for path in old.parent.iterdir()} - {p.name for p in samples} == others
        text = Path("result/perf_vision_batchsize_4_device_0.txt").read_text()
        assert text in ran.out and [line.split("]")[0] for line in text.splitlines()] == [
            "[e2e",
            "[infer",
        ]
        assert float(re.findall(r"Interface throughputRate: ([\d.]+)", text)[0]) == pytest.approx(
            rate, rel=1e-3
        )


def test_benchmark_on_its_own(bench):
    bench.configure("time=4")
    pure = ("-round=3", "-om_path=model.om", "-device_id=0", "-batch_size=4")
    ran = bench.run(*pure, tool=benchmark)
    assert "ave_throughputRate: 1000samples/s, ave_latency: 1ms" in ran.out
    text = Path("result/PureInfer_perf_of_model_in_device_0.txt").read_text()
    assert text == "ave_throughputRate = 1000.00samples/s, ave_latency = 1.0ms\n"
    # What strikes outputs does not strike where none are written, and is not spent there.
    bench.configure("fault=nan:0:1")
    assert bench.run(*pure, tool=benchmark).code == 0
    assert bench.run(*VISION, tool=benchmark).code == 0
    assert np.isnan(np.fromfile("result/dumpOutput_device0/img0_1.bin", np.float32)[0])


@pytest.mark.parametrize(
    "wrong",
    ["-batch_size=8", "-om_path=no.om", "-input_text_path=no.info", "-input_width=9", "-sync=1"],
)
def test_benchmark_refuses(bench, wrong):
    name = wrong.split("=")[0]
    ran = bench.run(*[a for a in VISION if a.split("=")[0] != name], wrong, tool=benchmark)
    assert ran.code == 1 and "[ERROR]" in ran.out


def test_aoe_leaves_an_entry_in_the_bank(bench, onnx, monkeypatch):
    bank = bench.folder / "bank"
    bank.mkdir()
    monkeypatch.setenv("TUNE_BANK_PATH", str(bank))
    arguments = (
        *("--framework=5", f"--model={onnx}", "--job_type=2", "--output=t"),
        "--input_shape=image:4,3,8,8",
    )
    assert bench.run(*arguments, tool=aoe).code == 0
    assert len(list(bank.iterdir())) == 1
    for wrong in (arguments[:-1], ("--job_type=3",)):
        assert bench.run(*wrong, tool=aoe).code == 255
