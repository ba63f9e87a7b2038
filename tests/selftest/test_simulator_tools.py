"""The simulated host's tools that run models: aclruntime, ais_bench, benchmark."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.settings import ROOT
from harness.simulator import aclruntime, ais_bench, benchmark, interface
from harness.simulator.config import Fault
from harness.simulator.host import VARIABLE
from tests.selftest.running import eventually
from tests.selftest.simulated import (
    BATCH,
    CLASSES,
    SHAPE,
    Ran,
    SimulatedHost,
    compute,
    images,
    make_host,
    write_onnx,
)

SAMPLES = 10


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, onnx: Path) -> Path:
    host = make_host(tmp_path_factory.mktemp("compiler"))
    assert host.compile(onnx).code == 0
    return host.folder / "model.om"


class Bench:
    """A host with the tiny model and inputs, whose Python tools run in this process."""

    def __init__(self, folder: Path, compiled: Path, monkeypatch, capsys) -> None:
        self._make = lambda text: make_host(folder, text)
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.folder = folder
        self.compiled = compiled
        self.host: SimulatedHost = self.configure("")
        self.inputs = folder / "in"
        self.inputs.mkdir(mode=0o750)
        self.images = images(SAMPLES)
        for i, image in enumerate(self.images):
            image.tofile(self.inputs / f"img{i}.bin")
            (self.inputs / f"img{i}.bin").chmod(0o640)
        monkeypatch.chdir(folder)

    def configure(self, text: str) -> SimulatedHost:
        """Another configuration of the host; what lies in its folder stays."""
        self.host = self._make(text)
        shutil.copy(self.compiled, self.folder / "model.om")
        (self.folder / "model.om").chmod(0o640)
        (self.folder / "out").mkdir(mode=0o750, exist_ok=True)
        self._monkeypatch.setenv(VARIABLE, self.host.env[VARIABLE])
        # Each tool is a process of its own, in which a device is initialised once.
        self._monkeypatch.setattr(aclruntime, "_process", aclruntime._Process())
        return self.host

    def run(self, *arguments: str, tool: Any = ais_bench) -> Ran:
        """One call of a tool; what it raises is a traceback and exit code 1 to its user."""
        self._monkeypatch.setattr(aclruntime, "_process", aclruntime._Process())
        self._capsys.readouterr()
        try:
            code = tool.main(arguments)
            error = ""
        except SystemExit as leaving:
            code, error = int(leaving.code or 0), ""
        except Exception as problem:
            code, error = 1, f"{type(problem).__name__}: {problem}"
        printed = self._capsys.readouterr()
        return Ran(code, printed.out, printed.err + error)


@pytest.fixture
def bench(tmp_path: Path, compiled: Path, monkeypatch, capsys) -> Bench:
    return Bench(tmp_path / "host", compiled, monkeypatch, capsys)


DATASET = ("--model", "model.om", "--input", "in", "--output", "out", "--output_dirname", "r")


def throughput(ran: Ran) -> float:
    (found,) = re.findall(r"^\[INFO\] throughput .*: ([0-9.eE+-]+)\s*$", ran.out, re.MULTILINE)
    return float(found)


def mean_ms(ran: Ran) -> float:
    (found,) = re.findall(r"NPU_compute_time \(ms\): .*mean = ([0-9.e+-]+),", ran.out)
    return float(found)


# --- ais_bench's command line -----------------------------------------------------------------


def test_v5_runs_a_folder(bench: Bench, onnx: Path):
    ran = bench.run(*DATASET)
    assert ran.code == 0, ran
    said = [line for line in ran.lines if line.startswith("[INFO]")]
    expected = [
        "acl init success",
        "open device 0 success",
        "create new context",
        "load model model.om success",
        "create model description success",
        f"try get model batchsize:{BATCH}",
        "output path:out/r",
        "get filesperbatch files0 size:768 tensor0size:3072 filesperbatch:4 runcount:3",
        "warm up 1 done",
        "-----------------Performance Summary------------------",
    ]
    assert said[: len(expected)] == [f"[INFO] {text}" for text in expected]
    assert said[-3:] == [
        "[INFO] unload model success, model Id is 1",
        "[INFO] end to reset device 0",
        "[INFO] end to finalize acl",
    ]
    assert throughput(ran) == pytest.approx(1000 * BATCH / mean_ms(ran))
    found = sorted(path.name for path in Path("out/r").iterdir())
    assert found == sorted(f"img{i}_0.bin" for i in range(SAMPLES))
    got = np.stack([np.fromfile(f"out/r/img{i}_0.bin", np.float32) for i in range(SAMPLES)])
    assert np.allclose(got, compute(onnx, bench.images), atol=1e-5)
    assert Path("out/r").stat().st_mode & 0o777 == 0o750
    assert Path("out/r/img0_0.bin").stat().st_mode & 0o777 == 0o640


def test_v5_summary(bench: Bench):
    ran = bench.run(*DATASET, "--loop", "2")
    data = json.loads(Path("out/r_summary.json").read_text())
    assert data["filesinfo"]["9"] == {"infiles": ["in/img9.bin"], "outfiles": ["out/r/img9_0.bin"]}
    assert len(data["filesinfo"]) == SAMPLES
    assert data["NPU_compute_time"]["count"] == len(data["npu_compute_time_list"]) == 3 * 2
    assert data["H2D_latency"]["count"] == 3
    assert set(data) == {
        *("filesinfo", "args", "NPU_compute_time", "H2D_latency", "D2H_latency"),
        *("npu_compute_time_list", "throughput", "pid"),
    }
    assert data["throughput"] == pytest.approx(throughput(ran))
    assert "loop inference exec: (2/2)" in ran.lines


@pytest.mark.parametrize("outfmt", ["NPY", "TXT"])
def test_formats_of_outputs(bench: Bench, onnx: Path, outfmt: str):
    assert bench.run(*DATASET, "--outfmt", outfmt).code == 0
    want = compute(onnx, bench.images)[3]
    path = Path(f"out/r/img3_0.{outfmt.lower()}")
    if outfmt == "NPY":
        assert np.load(path).shape == (1, CLASSES)  # the sample's axis is kept
        assert np.allclose(np.load(path)[0], want, atol=1e-5)
    else:
        text = path.read_text()
        assert text.endswith(" \n") and text.count("\n") == 1
        assert np.allclose([float(word) for word in text.split()], want, atol=1e-5)


def test_pure_inference_saves_one_whole_batch(bench: Bench):
    ran = bench.run(
        "--model", "model.om", "--output", "out", "--output_dirname", "r", "--loop", "5"
    )
    assert ran.code == 0
    assert Path("out/r/pure_infer_data_0.bin").stat().st_size == BATCH * CLASSES * 4
    assert json.loads(Path("out/r_summary.json").read_text())["NPU_compute_time"]["count"] == 5


def test_without_output_nothing_is_written(bench: Bench):
    before = {path.name for path in bench.folder.iterdir()}
    assert bench.run("--model", "model.om").code == 0
    assert {path.name for path in bench.folder.iterdir()} == before


def test_a_trailing_slash_puts_the_summary_inside(bench: Bench):
    assert bench.run(*DATASET[:-1], "./r8/").code == 0
    assert Path("out/r8/_summary.json").is_file()


def test_natural_order_padding_and_dotted_names(bench: Bench, onnx: Path):
    # img10 comes after img9, and the last batch's missing samples are not written.
    shutil.copy("in/img0.bin", "in/img10.bin")
    assert bench.run(*DATASET).code == 0
    data = json.loads(Path("out/r_summary.json").read_text())
    assert data["filesinfo"]["10"]["infiles"] == ["in/img10.bin"]
    shutil.rmtree("in")
    Path("in").mkdir(mode=0o750)
    for i in range(4):
        bench.images[i].tofile(f"in/img.{i}.bin")
        Path(f"in/img.{i}.bin").chmod(0o640)
    assert bench.run(*DATASET[:-1], "dotted").code == 0
    assert [path.name for path in Path("out/dotted").iterdir()] == ["img_0.bin"]


def test_stale_outputs_stay(bench: Bench):
    assert bench.run(*DATASET).code == 0
    Path("out/r/old_0.bin").write_bytes(b"old")
    assert bench.run(*DATASET).code == 0
    assert Path("out/r/old_0.bin").exists()


def test_a_list_of_files_keeps_its_order(bench: Bench):
    assert bench.run(*DATASET[:3], "in/img3.bin,in/img1.bin", *DATASET[4:]).code == 0
    data = json.loads(Path("out/r_summary.json").read_text())
    assert [data["filesinfo"][key]["infiles"] for key in "01"] == [["in/img3.bin"], ["in/img1.bin"]]


def test_the_batchsize_flag_only_scales_what_is_printed(bench: Bench):
    ran = bench.run("--model", "model.om", "--batchsize", "64")
    assert ran.code == 0
    assert throughput(ran) == pytest.approx(64_000 / mean_ms(ran))


def test_prefixes_and_booleans_of_argparse(bench: Bench):
    ran = bench.run("--model", "model.om", "--display", "1", "--warmup", "3")
    assert ran.code == 0
    assert "[INFO] warm up 3 done" in ran.out and "H2D_latency (ms)" in ran.out
    assert "H2D_latency" not in bench.run("--model", "model.om").out
    assert bench.run("--model", "model.om", "--debug").code == 2


REFUSED = {
    "no model": (("--model", "no.om"), 2, "does not exist"),
    "not an om": (("--model", "in/img0.bin"), 2, "file type not in ['om']"),
    "loop": (("--model", "model.om", "--loop", "0"), 2, ""),
    "device": (("--model", "model.om", "--device", "256"), 2, ""),
    "unknown": (("--model", "model.om", "--sync", "1"), 2, ""),
    "format": (("--model", "model.om", "--outfmt", "CSV"), 2, ""),
    "input": ((*DATASET[:3], "nowhere", *DATASET[4:]), 2, "does not exist"),
    "dirname alone": (("--model", "model.om", "--output_dirname", "r"), 1, "--output_dirname"),
    "absolute dirname": ((*DATASET[:-1], "/tmp/r"), 1, ""),
    "dynamic batch": (("--model", "model.om", "--dymBatch", "2"), 1, "not a dymbatch model!"),
    "absent device": (("--model", "model.om", "--device", "1"), 1, "open device 1 failed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_v5_refuses(bench: Bench, name: str):
    arguments, code, cause = REFUSED[name]
    ran = bench.run(*arguments)
    assert ran.code == code, ran
    assert cause in ran.out
    assert ran.err  # usage or traceback
    assert ("usage:" in ran.err) == (code == 2)


def test_v5_secures_paths(bench: Bench):
    Path("out").chmod(0o755)  # `--output ./` in an ordinary folder, as two guides have it
    ran = bench.run(*DATASET)
    assert (ran.code, "0o750" in ran.out) == (2, True)
    Path("out").chmod(0o750)
    Path("in/img5.bin").chmod(0o664)
    ran = bench.run(*DATASET)
    assert (ran.code, "is illegal" in ran.err) == (1, True)
    Path("in/img5.bin").chmod(0o640)
    Path("in/notes.txt").write_text("")
    Path("in/notes.txt").chmod(0o666)  # every entry counts, not the inputs alone
    assert bench.run(*DATASET).code == 1
    Path("in/notes.txt").unlink()
    Path("link.om").symlink_to("model.om")
    assert "soft link" in bench.run("--model", "link.om").out
    Path("a b").mkdir()
    shutil.copy("model.om", "a b/model.om")
    assert "illegal char" in bench.run("--model", "a b/model.om").out
    assert bench.run(*DATASET).code == 0


@pytest.mark.parametrize("there", [True, False])
def test_without_pkg_resources_it_warns_and_goes_on(bench: Bench, monkeypatch, there: bool):
    """setuptools 81 and later has none: the trap is in docs/ascend.md by what is printed."""
    find = importlib.util.find_spec

    def found(name: str, *more: Any) -> Any:
        return object() if there else None if name == "pkg_resources" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    ran = bench.run(*DATASET)
    assert ran.code == 0, ran
    warning = "[WARNING] can't find aclruntime, please install"
    assert (warning in ran.out) is not there
    assert ("Inference tensor Processing" in ran.out) is not there
    page = (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8")
    assert f"`{warning}` " in page and "setuptools<81" in page


def test_sizes_and_empty_folders(bench: Bench):
    Path("in/img0.bin").write_bytes(b"x" * 700)
    ran = bench.run(*DATASET)
    assert ran.code == 1
    assert "[ERROR] arg0 tensorsize: 3072 filesize: 700 not match" in ran.out
    shutil.rmtree("in")
    Path("in").mkdir(mode=0o750)
    assert bench.run(*DATASET).code == 1


def test_v1_is_another_tool(bench: Bench):
    bench.configure("generation=v1")
    ran = bench.run(*DATASET, "--batchsize", "4", "--outfmt", "TXT")
    assert ran.code == 0, ran
    assert "[INFO] warm up 1 times done" in ran.out
    assert "H2D_latency" in ran.out
    assert re.search(r"throughput 1000\*batchsize\(4\)/NPU_compute_time.mean\(", ran.out)
    data = json.loads(Path("out/r/sumary.json").read_text())
    assert not {"npu_compute_time_list", "pid"} & set(data)
    assert "count" not in data["NPU_compute_time"]
    assert Path("out/r").stat().st_mode & 0o777 == 0o755 & ~_umask()
    again = bench.run(*DATASET)
    assert (again.code, "FileExistsError" in again.err) == (1, True)
    assert bench.run(*DATASET[:5], "absent", *DATASET[6:]).code == 1
    ran = bench.run("--model", "model.om")  # its batch size is 1 unless it is told
    assert throughput(ran) == pytest.approx(1000 / mean_ms(ran))


def _umask() -> int:
    import os

    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("generation", "line"),
    [
        ("v2", r"1000\*batchsize\(1\)"),
        ("v3", r"1000\*batchsize\(4\)"),
        ("v4", r"1000\*batchsize.mean\(4\)"),
        ("v5", r"1000\*batchsize.mean\(4\)"),
    ],
)
def test_generations_print_their_own_line(bench: Bench, generation: str, line: str):
    bench.configure(f"generation={generation}")
    Path("out").chmod(0o755 if generation != "v5" else 0o750)
    ran = bench.run(*DATASET)
    assert ran.code == 0, ran
    assert re.search(rf"\[INFO\] throughput {line}/NPU_compute_time.mean\(.*\): ", ran.out)
    assert Path("out/r_summary.json").is_file()


@pytest.mark.parametrize(
    ("generation", "flag", "known"),
    [
        ("v1", "-r", True),
        ("v2", "-r", True),
        ("v3", "-r", False),
        ("v2", "-l", False),
        ("v3", "-l", True),
        ("v2", "-m", False),
        ("v1", "--run_mode", False),
    ],
)
def test_flags_came_and_went(bench: Bench, generation: str, flag: str, known: bool):
    bench.configure(f"generation={generation}")
    value = {"-m": "model.om", "--run_mode": "array"}.get(flag, "2")
    model = () if flag == "-m" else ("--model", "model.om")
    assert (bench.run(*model, flag, value).code != 2) == known


def test_the_module_runs_on_several_devices(bench: Bench):
    host = bench.configure("cards=2")
    ran = host.run("python", "-m", "ais_bench", *DATASET, "--device", "0,1")
    assert ran.code == 0, ran
    for folder in ("device0_0", "device1_1"):
        assert len(list(Path("out/r", folder).iterdir())) == SAMPLES
    assert re.search(r"i:0 device_0 throughput:[0-9.]+ +start_time:", ran.out)
    rates = [float(rate) for rate in re.findall(r"device_\d throughput:([0-9.]+)", ran.out)]
    (total,) = re.findall(r"summary throughput:([0-9.]+)", ran.out)
    assert float(total) == pytest.approx(sum(rates))
    divided = host.run(
        *("python", "-m", "ais_bench", *DATASET[:-1], "d", "--device", "0,1"),
        *("--divide_input", "1"),
    )
    assert divided.code == 0, divided
    assert len(list(Path("out/d").glob("device*/*.bin"))) == SAMPLES
    lost = host.run("python", "-m", "ais_bench", "--model", "model.om", "--device", "0,7")
    assert lost.code == 1
    assert "result:1" in lost.out


def test_the_tools_are_found_by_their_names(bench: Bench):
    host = bench.host
    found = host.run(
        "python",
        "-c",
        "import importlib.metadata as m, importlib.util as u\n"
        "print(m.version('aclruntime'), m.version('ais_bench'))\n"
        "print(bool(u.find_spec('ais_bench.infer.interface')))\n",
    )
    assert found.out == "0.0.2 0.0.2\nTrue\n", found
    ran = host.run("python", "-m", "ais_bench", "--model", "nowhere.om")
    assert ran.code == 2 and "__main__.py: error:" in ran.err
    ran = bench.configure("without=ais_bench").run("python", "-m", "ais_bench")
    assert ran.code == 1 and not ran.out


# --- aclruntime and the Python interface ------------------------------------------------------


def test_a_session_computes(bench: Bench, onnx: Path):
    session = interface.InferSession(0, "model.om")
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
    assert len(times) == 4
    assert all(start < end for start, end in times)
    assert all(float(np.float32(t)) == t for pair in times for t in pair)
    session.reset_summaryinfo()
    assert session.summary().exec_time_list == []
    assert len(interface.MemorySummary.get_h2d_time_list()) == 2
    session.free_resource()
    session.free_resource()
    interface.InferSession.finalize()
    with pytest.raises(RuntimeError, match="invalid parameter"):
        interface.InferSession(0, "model.om")


def test_old_sessions_have_other_names(bench: Bench):
    bench.configure("generation=v3")
    session = interface.OldInferSession(0, "model.om")
    session.infer([images()])
    assert all(isinstance(ms, float) for ms in session.sumary().exec_time_list)
    session.reset_sumaryinfo()
    assert len(interface.OldMemorySummary.get_H2D_time_list()) == 1
    assert not hasattr(session, "summary")
    session.finalize()


def test_the_oldest_session_wants_a_mode(bench: Bench):
    host = bench.configure("generation=v2")
    ran = host.run(
        "python",
        "-c",
        "import numpy as np\nfrom ais_bench.infer.interface import InferSession\n"
        "s = InferSession(0, 'model.om')\n"
        f"x = [np.zeros({SHAPE}, np.float32)]\n"
        "assert len(s.infer(x, 'static')) == 1\ns.infer(x)\n",
    )
    assert ran.code == 1 and "TypeError" in ran.err


def test_only_sizes_are_checked(bench: Bench, capsys):
    session = interface.InferSession(0, "model.om")
    session.infer([np.zeros(3 * 64 * BATCH, np.int32)])  # wrong shape and type, the right size
    capsys.readouterr()
    with pytest.raises(RuntimeError, match=re.escape("[-1][ACL: general failure] ")):
        session.infer([np.zeros((8, 3, 8, 8), np.float32)])
    assert (
        "[ERROR] check i:0 name:image in size:6144 needsize:3072 not match"
        in capsys.readouterr().out
    )


def test_misuse_of_the_interface(bench: Bench):
    session = interface.InferSession(0, "model.om")
    batch = images()
    with pytest.raises(RuntimeError, match=r"\[3\]\[ACL: runtime failure\]"):
        session.infer([batch, batch])
    wrong: list[object] = [(batch,), [], batch]
    for feeds in wrong:
        with pytest.raises(ValueError):
            session.infer(feeds)
    with pytest.raises(RuntimeError, match="type:<class 'list'> invalid"):
        session.infer([[1, 2]])
    with pytest.raises(ValueError):
        session.infer([batch], mode="quick")
    with pytest.raises(RuntimeError):
        session.infer([batch], mode="dymbatch")
    device_tensor = session.infer([batch], out_array=False)[0]
    with pytest.raises(RuntimeError, match=r"tensor is in npu\. can't convert to numpy array"):
        np.array(device_tensor)
    device_tensor.to_host()
    assert np.array(device_tensor).shape == (BATCH, CLASSES)
    for device, path, error in (
        ("0", "model.om", TypeError),
        (256, "model.om", ValueError),
        (0, "no.om", ValueError),
        (0, "in/img0.bin", ValueError),
    ):
        with pytest.raises(error):
            interface.InferSession(device, path)  # type: ignore[arg-type]


def test_the_interface_secures_paths_since_v5(bench: Bench, capsys):
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
        interface.OldInferSession(0, name).free_resource()  # the earlier ones look at nothing


def test_the_interface_wants_a_file_of_the_user_or_the_group(bench: Bench, monkeypatch):
    model = Path("model.om").stat()
    monkeypatch.setattr(os, "geteuid", lambda: model.st_uid + 1)
    monkeypatch.setattr(os, "getgroups", lambda: [model.st_gid])
    interface.InferSession(0, "model.om").free_resource()
    monkeypatch.setattr(os, "getgroups", lambda: [model.st_gid + 1])
    with pytest.raises(ValueError, match="is illegal"):
        interface.InferSession(0, "model.om")


def test_iterations_and_pipelines(bench: Bench, onnx: Path):
    session = interface.InferSession(0, "model.om")
    batches = [[images(seed=i)] for i in range(3)]
    results = session.infer_pipeline(batches)
    for (batch,), (result,) in zip(batches, results, strict=True):
        assert np.allclose(result, compute(onnx, batch), atol=1e-5)
    session.infer_iteration(batches[0], [-1], 4)
    assert len(session.summary().exec_time_list) == 7


def test_a_model_for_another_chip_or_damaged_is_not_loaded(bench: Bench, capsys):
    data = (bench.folder / "model.om").read_bytes()
    (bench.folder / "short.om").write_bytes(data[:-1])
    (bench.folder / "other.om").write_bytes(data.replace(b"Ascend310P3", b"Ascend310P1"))
    for name in ("short.om", "other.om"):
        (bench.folder / name).chmod(0o640)
        with pytest.raises(RuntimeError, match=re.escape("[1][ACL: invalid parameter] ")):
            interface.InferSession(0, name)
        assert "[ERROR] load model from file failed" in capsys.readouterr().out
    assert bench.host.host.holders(0) == []


def test_given_times_are_reported_and_slow_doubles_them(bench: Bench):
    table = bench.folder / "times.json"
    for config, ms in (
        ("time=12.5", 12.5),
        ("time=12.5,fault=slow", 25.0),
        (f"times={table}", 7.0),
    ):
        table.write_text('{"4x3x8x8": 7, "4": 9}')
        bench.configure(config)
        ran = bench.run("--model", "model.om", "--loop", "4")
        assert mean_ms(ran) == pytest.approx(ms, rel=1e-4)
        assert throughput(ran) == pytest.approx(1000 * BATCH / ms, rel=1e-4)


def test_spinning_takes_its_time_and_none_computes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    import time

    here, rest = threading.get_ident(), time.sleep

    def slept(seconds: float) -> None:
        assert threading.get_ident() != here, "it slept: an execution must keep a core busy"
        rest(seconds)

    bench.configure("compute=none,time=spin:5")
    session = interface.InferSession(0, "model.om")
    began = time.perf_counter()
    monkeypatch.setattr(time, "sleep", slept)
    for _ in range(4):
        assert not session.infer([images()])[0].any()
    assert time.perf_counter() - began >= 0.020
    spans = [end - start for start, end in session.summary().exec_time_list]
    assert all(ms >= 4.99 for ms in spans)


def test_a_table_without_the_model_is_an_error(bench: Bench):
    table = bench.folder / "times.json"
    table.write_text('{"8": 9}')
    bench.configure(f"times={table}")
    ran = bench.run("--model", "model.om")
    assert ran.code == 1 and "no entry" in ran.out


# --- misbehaviour -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["crash-open", "crash-run"])
def test_crashes_are_segmentation_faults(bench: Bench, fault: str):
    host = bench.configure(f"fault={fault}")
    assert host.run("python", "-m", "ais_bench", "--model", "model.om").code == -signal.SIGSEGV
    assert host.host.holders(0) == []


@pytest.mark.parametrize("fault", ["hang-open", "hang-run"])
def test_hangs_hold_the_device_until_they_are_killed(bench: Bench, fault: str):
    host = bench.configure(f"fault={fault}:0:1")
    process = host.start("python", "-m", "ais_bench", "--model", "model.om")
    assert eventually(lambda: len(host.host.holders(0)) == 1)
    if fault == "hang-run":
        assert eventually(lambda: any(one.running for one in host.host.holders(0)))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.kill()
    process.communicate()
    assert host.host.holders(0) == []
    assert bench.run("--model", "model.om").code == 0  # the first time only


def test_a_lost_device(bench: Bench):
    bench.configure("cards=2,fault=device-lost:0")
    ran = bench.run("--model", "model.om")
    assert ran.code == 1
    assert re.search(r"^EL0003.*open device 0 failed, runtime result = 507033", ran.out, re.M)
    assert "[ERROR] acl open device 0 failed" in ran.out
    assert bench.run("--model", "model.om", "--device", "1").code == 0


def test_missing_outputs(bench: Bench):
    bench.configure("fault=missing-outputs")
    assert bench.run(*DATASET).code == 0
    assert len(list(Path("out/r").iterdir())) == SAMPLES - 1
    bench.configure("fault=missing-outputs")
    assert interface.InferSession(0, "model.om").infer([images()]) == []


def test_nan_and_wrong_types(bench: Bench):
    bench.configure("fault=nan:0:1")
    assert np.isnan(interface.InferSession(0, "model.om").infer([images()])[0]).sum() == 1
    assert np.isfinite(interface.InferSession(0, "model.om").infer([images()])[0]).all()
    bench.configure("fault=wrong-dtype")
    session = interface.InferSession(0, "model.om")
    assert session.infer([images()])[0].dtype == np.float16
    assert session.get_outputs()[0].datatype == 1


def test_stale_files_and_a_wrong_figure(bench: Bench):
    bench.configure("fault=stale-files,fault=wrong-throughput")
    ran = bench.run(*DATASET)
    assert ran.code == 0
    assert "earlier_run_0.bin" in {path.name for path in Path("out/r").iterdir()}
    assert throughput(ran) == pytest.approx(4 * 1000 * BATCH / mean_ms(ran))


def test_another_process_makes_a_device_busy(bench: Bench):
    session = interface.InferSession(0, "model.om")
    table = bench.host.run("npu-smi", "info").out
    assert f"| {os.getpid()} " in table
    session.free_resource()
    assert "No running processes found in NPU 0" in bench.host.run("npu-smi", "info").out


def test_no_fault_is_left_untested():
    from harness.simulator.config import FAULTS

    text = Path(__file__).read_text() + Path(__file__).with_name("test_simulator.py").read_text()
    assert [name for name in FAULTS if f"{Fault(name).text}" not in text] == []


# --- benchmark --------------------------------------------------------------------------------


def info_file(bench: Bench) -> None:
    lines = [f"{i} in/img{i}.bin 8 8" for i in range(SAMPLES)]
    Path("prep.info").write_text("\n".join(lines) + "\n")


VISION = (
    *("-model_type=vision", "-device_id=0", "-batch_size=4", "-om_path=model.om"),
    *("-input_text_path=prep.info", "-input_width=8", "-input_height=8"),
    *("-output_binary=False", "-useDvpp=False"),
)


def test_benchmark_over_a_data_set(bench: Bench, onnx: Path):
    info_file(bench)
    bench.configure("time=4")
    ran = bench.run(*VISION, tool=benchmark)
    assert ran.code == 0, ran
    text = Path("result/perf_vision_batchsize_4_device_0.txt").read_text()
    heads = [line.split("]")[0] for line in text.splitlines()]
    assert heads == ["[e2e", "[data read", "[preprocess", "[infer", "[post"]
    (rate,) = re.findall(r"Interface throughputRate: ([\d.]+)", text)
    assert float(rate) == pytest.approx(1000, rel=1e-3)
    folder = Path("result/dumpOutput_device0")
    assert len(list(folder.iterdir())) == SAMPLES
    got = [float(word) for word in (folder / "img9_1.txt").read_text().split()]
    assert np.allclose(got, compute(onnx, bench.images)[9], atol=1e-5)


def test_benchmark_on_its_own(bench: Bench):
    bench.configure("time=8")
    arguments = ("-round=20", "-om_path=model.om", "-device_id=0", "-batch_size=4")
    ran = bench.run(*arguments, tool=benchmark)
    assert ran.code == 0
    assert re.search(r"^\[INFO\] ave_throughputRate: 500(\.\d+)?samples/s, ave_lat", ran.out, re.M)
    text = Path("result/PureInfer_perf_of_model_in_device_0.txt").read_text()
    assert re.fullmatch(r"ave_throughputRate = 500\S*samples/s, ave_latency = 2\S*ms\n", text)
    bench.configure("time=8,fault=wrong-throughput")
    assert re.search(
        r"Rate: 2\S*samples/s, ave_latency: 2", bench.run(*arguments, tool=benchmark).out
    )


def test_benchmark_keeps_old_files_and_misbehaves_when_told(bench: Bench):
    info_file(bench)
    old = Path("result/dumpOutput_device0/old_1.txt")
    old.parent.mkdir(parents=True)
    old.write_text("old")
    bench.configure("time=4,fault=missing-outputs,fault=stale-files,fault=wrong-throughput")
    assert bench.run(*VISION, tool=benchmark).code == 0
    names = {path.name for path in old.parent.iterdir()}
    assert {"old_1.txt", "earlier_run_1.txt"} <= names and "img9_1.txt" not in names
    text = Path("result/perf_vision_batchsize_4_device_0.txt").read_text()
    (rate,) = re.findall(r"Interface throughputRate: ([\d.]+)", text)
    assert float(rate) == pytest.approx(4000, rel=1e-3)


@pytest.mark.parametrize(
    "wrong",
    ["-batch_size=8", "-om_path=no.om", "-input_text_path=no.info", "-input_width=9", "-sync=1"],
)
def test_benchmark_refuses(bench: Bench, wrong: str):
    info_file(bench)
    name = wrong.split("=")[0]
    ran = bench.run(*[a for a in VISION if a.split("=")[0] != name], wrong, tool=benchmark)
    assert ran.code == 1 and "[ERROR]" in ran.out


def test_benchmark_is_on_the_path(bench: Bench):
    import platform

    ran = bench.host.run(f"benchmark.{platform.machine()}", "-round=2", "-om_path=model.om")
    assert ran.code == 1 and "[ERROR] batch_size 1" in ran.out


# --- aoe --------------------------------------------------------------------------------------


def test_aoe_leaves_an_entry_in_the_bank(bench: Bench, onnx: Path, monkeypatch):
    bank = bench.folder / "bank"
    bank.mkdir()
    host = SimulatedHost(bench.folder, {**bench.host.env, "TUNE_BANK_PATH": str(bank)})
    arguments = (
        *("aoe", "--framework=5", f"--model={onnx}", "--job_type=2", "--output=t"),
        "--input_shape=image:4,3,8,8",
    )
    assert host.run(*arguments).code == 0
    assert len(list(bank.iterdir())) == 1
    assert host.run(*arguments[:-1]).code == 255
    assert host.run("aoe", "--job_type=3").code == 255
