"""Small stand-ins for ais_bench, ais_infer.py, aclruntime and benchmark, for tests of the drivers.

A model is a JSON file. Its outputs are the sum of each image times 1..C. What a tool does wrong
is told to it through a variable, so that a test plants one fault at a time.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.targets.ascend.filetool import Opening
from harness.targets.ascend.toolkit import Toolkit
from harness.targets.protocol import Float32, TensorSpec

B, C, S = 2, 5, 4
SHAPE = (B, 3, S, S)
INPUT = TensorSpec("image", SHAPE, "float32")
OUTPUT = TensorSpec("class", (B, C), "float32")
VARIABLE = "FAKE_ASCEND"


def expected(images: Float32) -> Float32:
    """What a healthy tool computes."""
    return np.outer(images.sum((1, 2, 3)), np.arange(1, C + 1)).astype(np.float32)


def batch(value: float) -> Float32:
    """A batch whose images differ: the second is twice the first."""
    return np.stack([np.full(SHAPE[1:], value * (k + 1), np.float32) for k in range(B)])


def write_model(path: Path, **changes: Any) -> Path:
    """An `.om` file that the stand-ins open."""
    path.write_text(json.dumps({"batch": B, "shape": SHAPE[1:], "classes": C, **changes}))
    return path


# What all command lines share: settings, faults, and the computation without NumPy, which takes
# longer to import than everything else here takes together.
_COMMON = """
import array, json, math, os, signal, sys, time
S = json.loads(os.environ.get("FAKE_ASCEND", "{}"))
FAULT = S.get("fault", "")

def note(argv):
    if "calls" in S:
        with open(S["calls"], "a") as file:
            file.write(json.dumps({"argv": argv, "cwd": os.getcwd(), "pid": os.getpid()}) + chr(10))

def read(path):
    values = array.array("f")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    return values

def compute(values, images, classes):
    each = len(values) // images
    out = array.array("f")
    for k in range(images):
        total = math.fsum(values[k * each : (k + 1) * each])
        out.extend(total * (c + 1) for c in range(classes))
    return out

def early(stage):
    if FAULT == "hang-" + stage:
        if "child" in S:
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
                os._exit(0)
            open(S["child"], "w").write(str(pid))
        time.sleep(600)
    if FAULT == "crash-" + stage:
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    lost = "EL0003: open device 0 failed, runtime result = 507033."
    said, code = {
        "nothing": ([], 0),
        "lost": ([lost, "[ERROR] acl open device 0 failed"], 1),
        "quietly-lost": ([lost], 0),
        "loaded": (["[INFO] load model model.om success", "[ERROR] acl execute failed"], 1),
        "noise": (["[ERROR] load model from file failed, model file is model.om"], 1),
    }.get(FAULT.rpartition("-")[0] if FAULT.endswith("-" + stage) else "", ([], None))
    if code is not None:
        print(*said, sep=chr(10), flush=True)
        os._exit(code)
"""

_AIS_BENCH = """
import argparse

def main():
    gen = S.get("generation", 5)
    parser = argparse.ArgumentParser(prog="ais_bench")
    parser.add_argument("--model", "--om", required=True)
    parser.add_argument("--input", "-i")
    parser.add_argument("--output", "-o")
    parser.add_argument("--outfmt", default="BIN", choices=["NPY", "BIN", "TXT"])
    parser.add_argument("--loop", "-r", type=int, default=1)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--batchsize", type=int, default=1 if gen < 3 else None)
    dash = "-" if gen >= 6 else "_"
    if gen >= 1:
        parser.add_argument("--output%sdirname" % dash, help="was --output_dirname")
    if gen >= 2:
        parser.add_argument("--warmup%scount" % dash, type=int, default=1)
    args = parser.parse_args()
    note(sys.argv[1:])
    if gen >= 5 and os.stat(args.output).st_mode & 0o027:
        print("[ERROR] permission should not be over 0o750(rwxr-x---)")
        parser.error("bad --output")
    model = json.load(open(args.model))
    stage = "run" if args.input else "open"
    early(stage)
    if args.input is None and args.loop > 1:
        early("time")
    name = getattr(args, "output_dirname", None) or time.strftime("%Y_%m_%d-%H_%M_%S")
    out = os.path.join(args.output, name)
    (os.makedirs if gen >= 2 else os.mkdir)(out)
    print("[INFO] acl init success")
    if gen >= 5:
        print("[WARNING] can't find aclruntime, please install aclruntime")
    need = 4 * model["batch"] * math.prod(model["shape"])
    if args.input:
        names = sorted(os.listdir(args.input))
        size = os.path.getsize(os.path.join(args.input, names[0]))
        if need % size:
            print("[ERROR] arg0 tensorsize: %d filesize: %d not match" % (need, size))
            raise RuntimeError()
        group = need // size
        print("[INFO] get filesperbatch files0 size:%d tensor0size:%d filesperbatch:%d runcount:%d"
              % (size, need, group, -(-len(names) // group)))
        runs = len(names)
    else:
        names, runs, group = ["pure_infer_data"], args.loop, 1
    for k in range(args.loop):
        print("\\rloop inference exec: (%d/%d)" % (k + 1, args.loop), end="")
    print()
    for number, name in enumerate(names):
        if args.input:
            values = read(os.path.join(args.input, name))
        else:
            values = array.array("f", bytes(need))
        images = model["batch"] // group
        result = compute(values, images, model["classes"])
        if FAULT == "nan":
            result[1] = math.nan
        data = result.tobytes()
        if FAULT == "float16" and args.input or model.get("float16"):
            data = data[: len(data) // 2]
        if FAULT == "missing" and args.input and number == len(names) - 1:
            continue
        place = os.path.join(out, name.split(".")[0] + "_0.bin")
        open(place, "wb").write(data)
        if FAULT == "second-output" and args.input:
            open(place.replace("_0.bin", "_1.bin"), "wb").write(data)
    if FAULT == "stale" and args.input:
        open(os.path.join(out, "ILSVRC2012_val_00000001_0.bin"), "wb").write(data)
    times = [S.get("ms", 2.5) + 0.01 * k for k in range(args.loop if not args.input else runs)]
    if FAULT == "few-times":
        times = times[:-1] or [1.0]
    mean = sum(times) / len(times)
    batch = args.batchsize or model["batch"]
    if FAULT == "wrong-batchsize":
        batch = 64
    fps = 1000 * batch / mean
    if gen == 0:
        fps = 1000 / mean / batch
    if FAULT == "wrong-throughput":
        fps *= 4
    form = [
        "throughput (1000/NPU_compute_time/batchsize): %r" % fps,
        "throughput 1000*batchsize(%r)/NPU_compute_time.mean(%r): %r" % (batch, mean, fps),
        "throughput 1000*batchsize.mean(%r)/NPU_compute_time.mean(%r): %r" % (batch, mean, fps),
    ][0 if gen == 0 else 1 if gen < 3 else 2]
    if FAULT != "no-throughput":
        print("[INFO] " + form)
    compute_time = {"min": min(times), "max": max(times), "mean": mean, "median": mean}
    summary = {"filesinfo": {}, "NPU_compute_time": compute_time, "throughput": fps}
    if gen >= 2:
        compute_time["count"] = len(times)
        summary["npu_compute_time_list"] = times
    if FAULT == "pairs":
        summary["npu_compute_time_list"] = [[10.0 * k, 10.0 * k + t] for k, t in enumerate(times)]
    if FAULT == "backwards":
        summary["npu_compute_time_list"] = [[10.0 * k, 10.0 * k - t] for k, t in enumerate(times)]
    if FAULT == "wrong-mean":
        compute_time["mean"] = mean / 2
    place = out + "_summary.json" if gen >= 2 else out + "/sumary.json"
    if FAULT == "slash":
        place = out + "/_summary.json"
    if FAULT != "no-summary":
        text = json.dumps(summary)
        open(place, "w").write(text[:20] if FAULT == "torn-summary" else text)

main()
"""

_BENCHMARK = """
def option(name, default=None):
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if key == "-" + name:
            return value
    if default is None:
        print("[ERROR] missing -" + name)
        sys.exit(1)
    return default

def main():
    note(sys.argv[1:])
    model = json.load(open(option("om_path")))
    batch, device = int(option("batch_size")), option("device_id")
    if batch != model["batch"]:
        print("[ERROR] batch size %d is not the model's" % batch)
        sys.exit(1)
    os.mkdir("result")
    ms = S.get("ms", 2.5)
    rate = 1000 * batch / ms
    rounds = option("round", "0")
    if rounds != "0":
        early("open")
        if int(rounds) > 1:
            early("time")
        latency = 1000 / rate * (3 if FAULT == "wrong-latency" else 1)
        shown = rate * (4 if FAULT == "wrong-throughput" else 1)
        print("[INFO] ave_throughputRate: %gsamples/s, ave_latency: %gms" % (shown, latency))
        if FAULT != "no-perf":
            with open("result/PureInfer_perf_of_model_in_device_%s.txt" % device, "w") as file:
                file.write("ave_throughputRate = %gsamples/s, ave_latency = %gms" % (rate, latency))
        return
    early("run")
    out = "result/dumpOutput_device" + device
    os.mkdir(out)
    lines = open(option("input_text_path")).read().splitlines()
    size = None
    for number, line in enumerate(lines):
        index, path, width, height = line.split()
        assert int(index) == number and width == height == str(model["shape"][-1])
        result = compute(read(path), 1, model["classes"])
        if FAULT == "nan":
            result[1] = math.nan
        if FAULT == "missing" and number == len(lines) - 1:
            continue
        stem = os.path.join(out, os.path.basename(path).split(".")[0])
        if FAULT == "text" or option("output_binary") == "False":
            open(stem + "_1.txt", "w").write(" ".join("%r" % value for value in result) + " ")
        else:
            data = result.tobytes()
            open(stem + "_1.bin", "wb").write(data[:-4] if FAULT == "float16" else data)
    if FAULT == "stale":
        open(os.path.join(out, "ILSVRC2012_val_00000001_1.bin"), "wb").write(b"x")
    if FAULT != "no-perf":
        name = "result/perf_vision_batchsize_%d_device_%s.txt" % (batch, device)
        with open(name, "w") as file:
            file.write("[e2e] throughputRate: 456.712, latency: 109478\\n")
            file.write("[infer] throughputRate: 461.934, Interface throughputRate: %g, "
                       "moduleLatency: 1.40221\\n" % rate)
            file.write("[post] throughputRate: 461.931, moduleLatency: 2.16483\\n")

main()
"""


def install_python(site: Path, *, main: bool = True, interface: bool = True) -> None:
    """The packages `ais_bench` and `aclruntime`; without an interface it is PyPI's other tool."""
    package = site / "ais_bench"
    (package / "infer").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "infer" / "__init__.py").write_text("")
    if main:
        (package / "__main__.py").write_text(_COMMON + _AIS_BENCH)
    if interface:
        (package / "infer" / "interface.py").write_text("import aclruntime\n")
        (site / "aclruntime.py").write_text("")
    for name, version in (("ais_bench", "0.0.2"), ("aclruntime", "0.0.2")):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )


def install_ais_infer(path: Path) -> Path:
    """The script of CANN 5.1."""
    path.write_text(_COMMON + _AIS_BENCH)
    return path


def install_benchmark(path: Path) -> Path:
    """The executable `benchmark.x86_64`."""
    path.write_text(f"#!{sys.executable}\n" + _COMMON + _BENCHMARK)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def toolkit(
    *,
    site: Path | None = None,
    ais_infer: Path | None = None,
    benchmark: Path | None = None,
    python: str = sys.executable,
    settings: Mapping[str, Any] | None = None,
) -> Toolkit:
    """A host that has these."""
    env = {**os.environ, VARIABLE: json.dumps(dict(settings or {}))}
    env.pop("PYTHONPATH", None)
    if site is not None:
        env["PYTHONPATH"] = str(site)
    return Toolkit(
        env=env,
        npu_smi=None,
        atc=None,
        aoe=None,
        benchmark=benchmark,
        msit=None,
        python=python,
        ais_infer=ais_infer,
        environment_source="not found",
        versions={},
    )


def opening(file: Path, work: Path, **changes: Any) -> Opening:
    """What a driver is given, with a deadline of a minute and chunks of three batches."""
    return Opening(
        file,
        **{
            "toolkit": toolkit(),
            "device_id": 0,
            "input": INPUT,
            "output": OUTPUT,
            "work": work,
            "log": work.parent / "tool.log",
            "deadline_open_s": 0.0,
            "deadline_run_s": 60.0,
            "chunk_bytes": 3 * batch(1).nbytes,
            **changes,
        },
    )
