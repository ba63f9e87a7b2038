"""A stand-in for `python -m ais_bench` (v2 to v5) and for `ais_infer.py` (v1).

Static models, `--run_mode` and pure inference. What it prints goes where the real one prints it:
its lines and the causes of refusals to stdout, usage and tracebacks to stderr. Wrong arguments
end with 2, everything else that fails with 1, and a partial or wrong result with 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.simulator import aclruntime
from harness.simulator.host import Host
from harness.simulator.interface import (
    InferSession,
    MemorySummary,
    OldInferSession,
    Session,
    why_refused,
)

Array = npt.NDArray[Any]

V1, V2, V3, V4, V5 = 1, 2, 3, 4, 5
_PADDING = ""  # in place of a file, in a batch that is not full
_MAX_OM = 10 * 1024**3
_MAX_FILES = 100_000
_MODES = ("array", "files", "tensor", "full")


def main(argv: Sequence[str]) -> int:
    """One call of the tool."""
    host = Host.load()
    host.log_call("ais_bench", argv)
    generation = int(host.config.generation[1:])
    args = _parser(generation).parse_args(list(argv))
    _check_together(args, generation)
    if generation >= V2 and importlib.util.find_spec("pkg_resources") is None:
        if generation >= V5:
            _warn("can't find aclruntime, please install it")
        else:
            _warn("aclruntime version:None is lower, please update it")
        args.run_mode = "tensor"
    if isinstance(args.device, list):
        return _on_devices(args, host, generation, argv)
    _run(args, host, generation, argv, None)
    return 0


# --- what it prints ---------------------------------------------------------------------------


def _info(text: str) -> None:
    print(f"[INFO] {text}", flush=True)


def _warn(text: str) -> None:
    print(f"[WARNING] {text}", flush=True)


def _error(text: str) -> None:
    print(f"[ERROR] {text}", flush=True)


# --- arguments --------------------------------------------------------------------------------


def _parser(generation: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()

    def add(*names: str, since: int = V1, until: int = V5, **options: Any) -> None:
        if since <= generation <= until:
            parser.add_argument(*names, **options)

    secure = generation >= V5
    old = generation <= V2  # names of flags changed in 2023-01
    model_names = ["--model", "--om"] if old else ["--model", "-m"]
    add(*model_names, required=True, type=_model_path if secure else str)
    add("--input", "-i", default=None, type=_input_path if secure else str)
    add("--output", "-o", default=None, type=_output_path if secure else str)
    add("--output_dirname", default=None, type=_plain_text if secure else str)
    add("--outfmt", default="BIN", choices=["NPY", "BIN", "TXT"])
    add(
        "--loop",
        "-r" if old else "-l",
        default=1,
        type=_whole(1, 100_000) if secure else _whole(1, 2**31 - 1),
    )
    most = 4096 if secure else 2**31 - 1
    add("--batchsize", default=1 if old else None, type=_whole(1, most))
    most_devices = {V1: 254, V2: 2**31 - 1, V3: 2**31 - 1}.get(generation, 255)
    add(
        *["--device"] + ["-d"] * (not old), default=0, type=_devices(most_devices, generation >= V4)
    )
    add("--pure_data_type", default="zero", choices=["zero", "random"])
    add("--debug", default=False, type=_boolean)
    add("--dymBatch", dest="dym_batch", default=0, type=_whole(0, most))
    for name in ("dymHW", "dymDims", "dymShape"):
        add(f"--{name}", dest=f"dym_{name[3:].lower()}", default=None)
    add("--outputSize", dest="output_size", default=None)
    add("--acl_json_path", default=None)
    if generation == V1:
        add("--profiler", action="store_true")
        add("--dump", action="store_true")
        add("--infer_queue_count", default=20, type=_whole(1, 1000))
        return parser
    add("--profiler", default=False, type=_boolean)
    add("--dump", default=False, type=_boolean)
    add("--warmup_count", default=1, type=_whole(0, 10_000 if secure else 2**31 - 1))
    add("--display_all_summary", default=False, type=_boolean)
    add("--run_mode", default="array", choices=list(_MODES))
    add("--auto_set_dymshape_mode", default=False, type=_boolean)
    add("--auto_set_dymdims_mode", default=False, type=_boolean)
    add("--dymShape_range", dest="dym_shape_range", default=None)
    add("--output_batchsize_axis", default=0, type=_whole(0, 100))
    add("--aipp_config", since=V5, default=None)
    add("--energy_consumption", since=V5, default=False, type=_boolean)
    add("--npu_id", since=V5, default=0, type=_whole(0, 255))
    add("--backend", since=V5, default=None, choices=["trtexec"])
    add("--perf", since=V5, default=False, type=_boolean)
    add("--pipeline", since=V5, default=False, type=_boolean)
    add("--profiler_rename", since=V5, default=True, type=_boolean)
    add("--dump_npy", since=V5, default=False, type=_boolean)
    add("--divide_input", since=V5, default=False, type=_boolean)
    add("--threads", since=V5, default=1, type=_whole(1, 1000))
    return parser


def _boolean(text: str) -> bool:
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError("Boolean value expected: true, 1, false, 0")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not in the range [{least}, {most}]")
        return int(text)

    return parse


def _devices(most: int, several: bool) -> Callable[[str], int | list[int]]:
    one = _whole(0, most)

    def parse(text: str) -> int | list[int]:
        parts = text.split(",") if several else [text]
        return [one(part) for part in parts] if len(parts) > 1 else one(text)

    return parse


def _plain_text(text: str) -> str:
    if re.search(r"[^A-Za-z0-9_./-]", text):
        _error("path contains an illegal char, legal chars are A-Z a-z 0-9 _ - / .")
        raise argparse.ArgumentTypeError(f"path {text!r} is illegal. Please check.")
    return text


def _require(path: str, writing: bool = False) -> None:
    cause = why_refused(path, writing)
    if cause:
        _error(cause)
        raise argparse.ArgumentTypeError(f"path:{path} is illegal. Please check.")


def _model_path(text: str) -> str:
    _require(text)
    if os.path.splitext(text)[1] != ".om" or not os.path.isfile(text):
        _error(f"path:{text}, file type not in ['om']")
        raise argparse.ArgumentTypeError(f"om path:{text} is illegal. Please check.")
    if os.path.getsize(text) > _MAX_OM:
        _error(f"file_size:{os.path.getsize(text)} byte out of max limit {_MAX_OM} byte")
        raise argparse.ArgumentTypeError(f"om path:{text} is illegal. Please check.")
    return text


def _input_path(text: str) -> str:
    for path in text.split(","):
        _require(path)
    return text


def _output_path(text: str) -> str:
    if os.path.exists(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError("output path is not a directory")
    _require(text, writing=True)
    return text


def _check_together(args: argparse.Namespace, generation: int) -> None:
    if generation >= V3 and args.output_dirname is not None and args.output is None:
        _error("parameter --output_dirname cannot be used alone, use it with --output")
        raise RuntimeError("error bad parameters --output_dirname")
    if generation >= V5 and args.output_dirname and args.output_dirname.startswith("/"):
        raise ValueError("--output_dirname do not support abs path!")
    if getattr(args, "output_batchsize_axis", 0) > 8 and generation >= V5:
        raise ValueError(f"--output_batchsize_axis: {args.output_batchsize_axis} is over 8")
    if args.profiler and args.dump:
        raise RuntimeError("error bad parameters --profiler and --dump")
    if args.profiler or args.dump:
        raise RuntimeError("profiling and dumping are not simulated")
    if generation == V1:
        args.warmup_count, args.run_mode, args.pipeline = 1, "array", False
        args.display_all_summary, args.output_batchsize_axis = True, 0
        args.auto_set_dymshape_mode = args.auto_set_dymdims_mode = False
        args.dym_shape_range = None
    if not hasattr(args, "pipeline"):
        args.pipeline = False
    unknown = ("dym_shape_range", "aipp_config", "backend", "energy_consumption")
    for name in unknown:
        if getattr(args, name, None):
            raise RuntimeError(f"--{name} is not simulated")


# --- files ------------------------------------------------------------------------------------


def _natural(name: str) -> list[Any]:
    return [int(p) if p.isdigit() else p.lower() for p in re.split(r"([0-9]+)", name)]


def _files_of(folder: str, generation: int) -> list[str]:
    found = []
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if generation >= V5:
            cause = why_refused(path)
            if cause:
                _error(cause)
                raise RuntimeError(f"input data:{path} is illegal")
        if not os.path.isdir(path) and name.endswith((".npy", ".NPY", ".bin", ".BIN")):
            found.append(path)
            if len(found) > _MAX_FILES:
                raise OverflowError(f"file count under directory: {folder} is over {_MAX_FILES}!")
    if not found:
        _error(f"{folder} of input args not find valid file: [*.npy *.NPY *.bin *.BIN]")
        raise RuntimeError
    return sorted(sorted(found), key=_natural)


def _content(path: str) -> Array:
    """The bytes that the model gets; nothing is converted."""
    if path.lower().endswith(".npy"):
        return np.ascontiguousarray(np.load(path)).reshape(-1).view(np.uint8)
    return np.fromfile(path, np.uint8)


def _size_of(path: str) -> int:
    return _content(path).nbytes if path.lower().endswith(".npy") else os.path.getsize(path)


def _batches(args: argparse.Namespace, session: Session, generation: int) -> list[Any]:
    """Files of each execution: one list for each of the model's inputs, `_PADDING` at its end.

    None stands for the one execution of pure inference.
    """
    if args.input is None:
        return [None]
    descs = session.get_inputs()
    paths = args.input.split(",")
    if os.path.isdir(paths[0]):
        if len(paths) != len(descs):
            _error(f"Invalid args. args input dir num:{len(paths)} not equal to {len(descs)}")
            raise RuntimeError
        columns = [_files_of(path, generation) for path in paths]
    elif os.path.isfile(paths[0]):
        count = max(1, len(paths) // len(descs))
        columns = [paths[i : i + count] for i in range(0, len(paths), count)]
    else:
        _error(f"Invalid args. {paths[0]} of --input is invalid")
        raise RuntimeError
    if len(columns) != len(descs):
        _error(f"fileslist:{len(columns)} intensor:{len(descs)} not match")
        raise RuntimeError
    if args.pipeline:
        for i, (desc, column) in enumerate(zip(descs, columns, strict=True)):
            if _size_of(column[0]) != desc.realsize:
                _error(
                    f"tensor_num:{i} tensorsize:{desc.realsize} filesize:{_size_of(column[0])} "
                    "not match"
                )
                raise RuntimeError
        return [[[file] for file in row] for row in zip(*columns, strict=True)]
    size, whole = _size_of(columns[0][0]), descs[0].realsize
    if size == 0 or whole % size:
        _error(f"arg0 tensorsize: {whole} filesize: {size} not match")
        raise RuntimeError
    each = whole // size
    runs = math.ceil(len(columns[0]) / each)
    _info(
        f"get filesperbatch files0 size:{size} tensor0size:{whole} "
        f"filesperbatch:{each} runcount:{runs}"
    )
    batches = []
    for run in range(runs):
        rows = [column[run * each : (run + 1) * each] for column in columns]
        batches.append([row + [_PADDING] * (each - len(row)) for row in rows])
    return batches


def _feeds(
    args: argparse.Namespace, batch: Sequence[Sequence[str]] | None, session: Session
) -> list[Array]:
    if batch is None:
        return _pure_feeds(args, session)
    feeds = []
    for desc, files in zip(session.get_inputs(), batch, strict=True):
        data = np.concatenate([_content(file or files[0]) for file in files])
        if data.nbytes != desc.realsize:
            _error(f"ndata size:{data.nbytes} not match {desc.realsize}")
            raise RuntimeError
        feeds.append(data)
    return feeds


def _pure_feeds(args: argparse.Namespace, session: Session) -> list[Array]:
    sizes = [desc.realsize for desc in session.get_inputs()]
    if args.pure_data_type == "random":
        rng = np.random.default_rng()
        return [rng.integers(0, 256, size, np.uint8) for size in sizes]
    return [np.zeros(size, np.uint8) for size in sizes]


# --- one device -------------------------------------------------------------------------------


def _run(
    args: argparse.Namespace,
    host: Host,
    generation: int,
    argv: Sequence[str],
    subfolder: str | None,
) -> float:
    """Frames a second that are printed."""
    kind = InferSession if generation >= V5 else OldInferSession
    session = kind(args.device, args.model, args.acl_json_path, args.debug, args.loop)
    _set_mode(args, session)
    if args.debug:
        print(f"[DEBUG] session info:{session.session}", flush=True)
    batchsize = args.batchsize
    if batchsize is None:
        batchsize = session.get_inputs()[0].shape[0]
        _info(f"try get model batchsize:{batchsize}")
    prefix = _output_folder(args, generation, subfolder)
    first = _pure_feeds(args, session) if generation == V1 else None
    batches: list[Any] = [None]
    if generation > V1:
        batches = _batches(args, session, generation)
        first = _feeds(args, batches[0], session)
    session.set_loop_count(1)
    for _ in range(args.warmup_count):
        session.run(first or [], out_array=True)
    session.set_loop_count(args.loop)
    session.session.reset_sumaryinfo()
    MemorySummary.reset()
    times = "times " * (generation == V1)
    _info(f"warm up {args.warmup_count} {times}done")
    if generation == V1:  # it looks at its inputs later
        batches = _batches(args, session, generation)

    files_info: dict[int, dict[str, list[str]]] = {}
    for index, batch in enumerate(batches):
        feeds: list[Any] = _feeds(args, batch, session)
        if args.run_mode == "tensor":
            feeds = [session.create_tensor_from_arrays_to_device(feed) for feed in feeds]
        outputs = session.run(feeds)
        session.convert_tensors_to_host(outputs)
        if prefix is not None:
            _save(args, generation, prefix, index, batch, outputs, files_info)
        sys.stdout.write(f"\rInference {args.run_mode} Processing: {index + 1}/{len(batches)}")
        sys.stdout.flush()
    print(flush=True)
    if prefix is not None:
        _misplace(host, session, prefix, args.outfmt, files_info)

    throughput = _report(args, host, generation, argv, session, batchsize, prefix, files_info)
    session.free_resource()
    InferSession.finalize()
    return throughput


def _set_mode(args: argparse.Namespace, session: Session) -> None:
    inner = session.session
    if args.dym_batch:
        inner.set_dynamic_batchsize(args.dym_batch)
    elif args.dym_hw is not None:
        inner.set_dynamic_hw(*(int(n) for n in args.dym_hw.split(",")))
    elif args.dym_dims is not None or args.auto_set_dymdims_mode:
        inner.set_dynamic_dims(args.dym_dims or "")
    elif args.dym_shape is not None or args.auto_set_dymshape_mode:
        inner.set_dynamic_shape(args.dym_shape or "")
    else:
        session.set_staticbatch()


def _output_folder(args: argparse.Namespace, generation: int, subfolder: str | None) -> str | None:
    if args.output is None:
        return None
    name = args.output_dirname
    if name is None:
        name = time.strftime("%Y_%m_%d-%H_%M_%S")
    prefix: str = os.path.join(args.output, name)
    if generation == V1:
        os.mkdir(prefix, 0o755)  # an existing one, or a missing parent, ends the tool
    if subfolder is not None:
        prefix = os.path.join(prefix, subfolder)
    if os.path.exists(prefix):
        if generation >= V5:
            cause = why_refused(prefix, writing=True)
            if cause:
                _error(cause)
                raise ValueError(f"output path:{prefix} is illegal. Please check.")
    else:
        _make_folders(prefix, 0o750 if generation >= V5 else 0o755)
    _info(f"output path:{prefix}")
    return prefix


def _make_folders(path: str, mode: int) -> None:
    # os.makedirs gives its mode to the last folder alone.
    current = ""
    for part in os.path.abspath(path).split("/"):
        current += part + "/"
        try:
            os.mkdir(current, mode)
        except FileExistsError:  # perhaps another device's process was faster
            pass


def _save(
    args: argparse.Namespace,
    generation: int,
    prefix: str,
    index: int,
    batch: Sequence[Sequence[str]] | None,
    outputs: Sequence[aclruntime.Tensor],
    files_info: dict[int, dict[str, list[str]]],
) -> None:
    samples = [["pure_infer_data"]] if batch is None else list(zip(*batch, strict=True))
    for number, output in enumerate(outputs):
        array = np.array(output)
        axis = args.output_batchsize_axis
        if axis >= array.ndim or (len(samples) > 1 and array.shape[axis] % len(samples)):
            _error(f"save out files error array shape:{array.shape} axis:{axis}")
            raise RuntimeError
        parts = np.array_split(array, len(samples), axis) if len(samples) > 1 else [array]
        for place, (files, part) in enumerate(zip(samples, parts, strict=True)):
            if files[0] == _PADDING:
                continue
            stem = os.path.basename(files[0]).split(".")[0]
            path = os.path.join(prefix, f"{stem}_{number}.{args.outfmt.lower()}")
            sample = index * len(samples) + place
            entry = files_info.setdefault(sample, {"infiles": list(files), "outfiles": []})
            entry["outfiles"].append(path)
            if generation >= V5 and os.path.exists(path):
                os.remove(path)
            aclruntime.write_output(Path(path), part, append=generation == V1)
            if generation >= V5:
                os.chmod(path, 0o640)
    if args.pipeline:
        files_info.clear()


def _misplace(
    host: Host,
    session: Session,
    prefix: str,
    outfmt: str,
    files_info: dict[int, dict[str, list[str]]],
) -> None:
    """The faults that concern files: the tool ends well all the same."""
    logical = host.visible_device(session.device_id)
    if session.session.loses_outputs and files_info:
        for path in files_info[max(files_info)]["outfiles"]:
            Path(path).unlink(missing_ok=True)
    if host.strikes("stale-files", logical):
        stale = Path(prefix) / f"earlier_run_0.{outfmt.lower()}"
        stale.write_bytes(b"\0" * 4)
        an_hour_ago = time.time() - 3600
        os.utime(stale, (an_hour_ago, an_hour_ago))


def _statistics(values: Sequence[float], generation: int) -> dict[str, float]:
    array = np.asarray(values or [0.0], np.float64)
    found = {
        "min": float(array.min()),
        "max": float(array.max()),
        "mean": float(array.mean()),
        "median": float(np.median(array)),
        "percentile(99%)": float(np.percentile(array, 99)),
    }
    if generation >= V2:
        found["count"] = len(values)
    return found


def _report(
    args: argparse.Namespace,
    host: Host,
    generation: int,
    argv: Sequence[str],
    session: Session,
    batchsize: int,
    prefix: str | None,
    files_info: dict[int, dict[str, list[str]]],
) -> float:
    entries = session.session.sumary().exec_time_list
    times = [e if isinstance(e, float) else e[1] - e[0] for e in entries]
    figures = {
        "H2D_latency": _statistics(MemorySummary.get_h2d_time_list(), generation),
        "NPU_compute_time": _statistics(times, generation),
        "D2H_latency": _statistics(MemorySummary.get_d2h_time_list(), generation),
    }
    mean = figures["NPU_compute_time"]["mean"]
    throughput = 1000 * batchsize / mean if mean else 0.0
    if host.strikes("wrong-throughput", host.visible_device(args.device)):
        throughput *= 4
    _info("-----------------Performance Summary------------------")
    for name, values in figures.items():
        if name == "NPU_compute_time" or args.display_all_summary:
            shown = ", ".join(f"{k} = {v}" for k, v in values.items() if k != "count")
            _info(f"{name} (ms): {shown}")
    word = "batchsize.mean" if generation >= V4 else "batchsize"
    _info(f"throughput 1000*{word}({batchsize})/NPU_compute_time.mean({mean}): {throughput}")
    _info("------------------------------------------------------")
    if prefix is None:
        return throughput
    summary: dict[str, Any] = {
        "filesinfo": files_info,
        "args": [sys.argv[0], *argv],
        **figures,
        "throughput": throughput,
    }
    if generation >= V2:
        summary["npu_compute_time_list"] = times
        summary["pid"] = os.getpid()
    # A name with a trailing slash puts the later generations' file into the folder.
    path = f"{prefix}/sumary.json" if generation == V1 else f"{prefix}_summary.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(summary, file)
    if generation >= V5:
        os.chmod(path, 0o640)
    return throughput


# --- several devices --------------------------------------------------------------------------


def _on_devices(args: argparse.Namespace, host: Host, generation: int, argv: Sequence[str]) -> int:
    _info(f"multidevice:{args.device} run begin")
    context = multiprocessing.get_context("fork")
    queue: Any = context.SimpleQueue()
    inputs = _divided(args, generation)
    workers = []
    for i, device in enumerate(args.device):
        own = argparse.Namespace(**{**vars(args), "device": device, "input": inputs[i]})
        workers.append(
            context.Process(target=_one_of, args=(own, host, generation, argv, i, queue))
        )
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    results = []
    while not queue.empty():
        results.append(queue.get())
    result = 0 if len(results) == len(workers) else 1
    _info(f"multidevice run end qsize:{2 * len(results)} result:{result}")
    for i, throughput, began, ended in results if generation >= V5 else ():
        _info(
            f"i:{i} device_{args.device[i]} throughput:{throughput}                 "
            f"start_time:{began} end_time:{ended}"
        )
    _info(f"summary throughput:{sum(one[1] for one in results)}")
    return result


def _divided(args: argparse.Namespace, generation: int) -> list[str | None]:
    """Every device's inputs: its share in v4 and with `--divide_input 1`, else all of them."""
    count = len(args.device)
    divided = getattr(args, "divide_input", generation == V4)
    if args.input is None or not divided:
        return [args.input] * count
    paths = args.input.split(",")
    files = [
        file
        for path in paths
        for file in (_files_of(path, generation) if os.path.isdir(path) else [path])
    ]
    share, left = divmod(len(files), count)
    parts, start = [], 0
    for i in range(count):
        end = start + share + (i < left)
        parts.append(",".join(files[start:end]))
        start = end
    return list(parts)


def _one_of(
    args: argparse.Namespace,
    host: Host,
    generation: int,
    argv: Sequence[str],
    index: int,
    queue: Any,
) -> None:
    began = time.time()
    _info(f"subprocess_{index} main run")
    folder = f"device{args.device}" + f"_{index}" * (generation >= V5)
    try:
        throughput = _run(args, host, generation, argv, folder)
    except Exception as error:
        _error(f"subprocess run failed error_callback:{error}")
        return
    queue.put((index, throughput, began, time.time()))
