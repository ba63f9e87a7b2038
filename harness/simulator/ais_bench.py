"""A stand-in for `python -m ais_bench` (v2 to v5) and for `ais_infer.py` (v1).

Static models on one device, files of raw bytes, and pure inference. What it prints goes where the
real one prints it: its lines and the causes of refusals to stdout, usage and tracebacks to stderr.
Wrong arguments end with 2, everything else that fails with 1, a partial or wrong result with 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.simulator.host import Host
from harness.simulator.interface import InferSession, OldInferSession, Session, why_refused

Array = npt.NDArray[Any]
FilesInfo = dict[int, dict[str, list[str]]]

_PADDING = ""  # in place of a file, in a batch that is not full
_MOST = 2**31 - 1


def main(argv: Sequence[str], host: Host) -> int:
    """Run the tool once."""
    generation = int(host.config.generation[1:])
    args = _parser(generation).parse_args(list(argv))
    if generation >= 3 and args.output_dirname is not None and args.output is None:
        raise _fails("parameter --output_dirname cannot be used alone, use it with --output")
    if generation >= 5 and args.output_dirname and args.output_dirname.startswith("/"):
        raise ValueError("--output_dirname do not support abs path!")
    if generation > 1 and importlib.util.find_spec("pkg_resources") is None:
        if generation >= 5:
            print("[WARNING] can't find aclruntime, please install it", flush=True)
        else:
            print("[WARNING] aclruntime version:None is lower, please update it", flush=True)
        args.mode = "tensor"
    before = os.umask(0o027 if generation >= 5 else 0o022)
    try:
        _Run(args, host, generation, argv).run()
    finally:
        os.umask(before)
    return 0


def _info(text: str) -> None:
    print(f"[INFO] {text}", flush=True)


def _fails(text: str, error: type[Exception] = RuntimeError) -> Exception:
    """Print the cause of a failure, and return what ends the tool."""
    print(f"[ERROR] {text}", flush=True)
    return error(text)


# --- arguments --------------------------------------------------------------------------------


def _parser(generation: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    secure = generation >= 5
    old = generation <= 2  # names of flags changed in 2023-01

    def checked(check: Callable[[str], str]) -> Callable[[str], str]:
        return check if secure else str

    add(*(["--model", "--om"] if old else ["--model", "-m"]), required=True, type=checked(_model))
    add("--input", "-i", type=checked(_readable))
    add("--output", "-o", type=checked(_output))
    add("--output_dirname")
    add("--outfmt", default="BIN", choices=["BIN"])
    add("--loop", "-r" if old else "-l", default=1, type=_whole(1, 100_000 if secure else _MOST))
    add("--batchsize", default=1 if old else None, type=_whole(1, 4096 if secure else _MOST))
    add(*(["--device"] if old else ["--device", "-d"]), default=0, type=_whole(0, 255))
    if generation > 1:
        add("--warmup_count", default=1, type=_whole(0, 10_000 if secure else _MOST))
    parser.set_defaults(mode="array", warmup_count=1)
    return parser


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not in the range [{least}, {most}]")
        return int(text)

    return parse


def _illegal(path: str, cause: str) -> Exception:
    return _fails(f"path:{path} is illegal: {cause}", argparse.ArgumentTypeError)


def _readable(text: str) -> str:
    for path in text.split(","):
        if cause := why_refused(path):
            raise _illegal(path, cause)
    return text


def _model(text: str) -> str:
    _readable(text)
    if os.path.splitext(text)[1] != ".om" or not os.path.isfile(text):
        raise _illegal(text, "file type not in ['om']")
    return text


def _output(text: str) -> str:
    cause = why_refused(text, writing=True)
    if cause or (os.path.exists(text) and not os.path.isdir(text)):
        raise _illegal(text, cause or "output path is not a directory")
    return text


# --- a run ------------------------------------------------------------------------------------


def _natural(name: str) -> list[Any]:
    return [int(p) if p.isdigit() else p.lower() for p in re.split(r"([0-9]+)", name)]


@dataclass
class _Run:
    """One execution of the tool."""

    args: argparse.Namespace
    host: Host
    generation: int
    argv: Sequence[str]
    files_info: FilesInfo = field(default_factory=dict)

    def run(self) -> None:
        """Open the model, execute it over the inputs, write outputs and summary."""
        args, generation = self.args, self.generation
        kind = InferSession if generation >= 5 else OldInferSession
        session = kind(args.device, args.model)
        batchsize = args.batchsize
        if batchsize is None:
            batchsize = session.get_inputs()[0].shape[0]
            _info(f"try get model batchsize:{batchsize}")
        prefix = self._output_folder()
        batches = [] if generation == 1 else self._batches(session)
        first = self._feeds(batches[0] if batches else None, session)
        session.set_loop_count(1)
        for _ in range(args.warmup_count):
            session.run(first)
        session.set_loop_count(args.loop)
        session.session.reset_sumaryinfo()
        _info(f"warm up {args.warmup_count} {'times ' * (generation == 1)}done")
        if generation == 1:  # it looks at its inputs later
            batches = self._batches(session)
        for index, batch in enumerate(batches):
            outputs = session.run(self._feeds(batch, session))
            if prefix is not None:
                self._save(prefix, index, batch, outputs)
            sys.stdout.write(f"\rInference {args.mode} Processing: {index + 1}/{len(batches)}")
            sys.stdout.flush()
        print(flush=True)
        if prefix is not None:
            self._misplace(session, prefix)
        self._report(session, batchsize, prefix)
        session.session.free_resource()
        InferSession.finalize()

    def _batches(self, session: Session) -> list[Sequence[str] | None]:
        """Return the files of each execution, with `_PADDING` at the last one's end.

        None stands for the one execution of pure inference.
        """
        if self.args.input is None:
            return [None]
        paths = self.args.input.split(",")
        if os.path.isdir(paths[0]):
            paths = self._files_of(paths[0])
        elif not os.path.isfile(paths[0]):
            raise _fails(f"Invalid args. {paths[0]} of --input is invalid")
        size, whole = os.path.getsize(paths[0]), session.get_inputs()[0].realsize
        if size == 0 or whole % size:
            raise _fails(f"arg0 tensorsize: {whole} filesize: {size} not match")
        each = whole // size
        runs = math.ceil(len(paths) / each)
        _info(
            f"get filesperbatch files0 size:{size} tensor0size:{whole} "
            f"filesperbatch:{each} runcount:{runs}"
        )
        padded = paths + [_PADDING] * (each * runs - len(paths))
        return [padded[run * each : (run + 1) * each] for run in range(runs)]

    def _files_of(self, folder: str) -> list[str]:
        files = []
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if self.generation >= 5 and (cause := why_refused(path)):
                raise _fails(cause)
            if not os.path.isdir(path) and name.endswith((".bin", ".BIN")):
                files.append(path)
        if not files:
            raise _fails(f"{folder} of input args not find valid file: [*.bin *.BIN]")
        return sorted(sorted(files), key=_natural)

    def _feeds(self, batch: Sequence[str] | None, session: Session) -> list[Array]:
        (desc,) = session.get_inputs()
        if batch is None:
            return [np.zeros(desc.realsize, np.uint8)]
        return [np.concatenate([np.fromfile(file or batch[0], np.uint8) for file in batch])]

    def _output_folder(self) -> str | None:
        if self.args.output is None:
            return None
        name = self.args.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S")
        prefix: str = os.path.join(self.args.output, name)
        if self.generation == 1:
            os.mkdir(prefix)  # an existing one, or a missing parent, ends the tool
        elif not os.path.exists(prefix):
            os.makedirs(prefix)
        elif self.generation >= 5 and (cause := why_refused(prefix, writing=True)):
            raise _fails(cause, ValueError)
        _info(f"output path:{prefix}")
        return prefix

    def _save(
        self, prefix: str, index: int, batch: Sequence[str] | None, outputs: Sequence[Array]
    ) -> None:
        files = ["pure_infer_data"] if batch is None else batch
        for number, array in enumerate(outputs):
            parts = np.array_split(array, len(files))
            for place, (file, part) in enumerate(zip(files, parts, strict=True)):
                if file == _PADDING:
                    continue
                stem = os.path.basename(file).split(".")[0]
                path = os.path.join(prefix, f"{stem}_{number}.bin")
                sample = self.files_info.setdefault(
                    index * len(files) + place, {"infiles": [file], "outfiles": []}
                )
                sample["outfiles"].append(path)
                part.tofile(path)

    def _misplace(self, session: Session, prefix: str) -> None:
        """Play the faults that concern files: the tool ends well all the same."""
        if session.session.loses_outputs and self.files_info:
            for path in self.files_info[max(self.files_info)]["outfiles"]:
                Path(path).unlink(missing_ok=True)
        if self.host.strikes("stale-files", self.host.visible_device(self.args.device)):
            stale = Path(prefix) / "earlier_run_0.bin"
            stale.write_bytes(b"\0" * 4)
            an_hour_ago = time.time() - 3600
            os.utime(stale, (an_hour_ago, an_hour_ago))

    def _report(self, session: Session, batchsize: int, prefix: str | None) -> None:
        args, generation = self.args, self.generation
        times = np.asarray(session.times_ms(), np.float64)
        figures = {
            "min": float(times.min()),
            "max": float(times.max()),
            "mean": float(times.mean()),
            "median": float(np.median(times)),
            "percentile(99%)": float(np.percentile(times, 99)),
        }
        mean = figures["mean"]
        throughput = 1000 * batchsize / mean
        if self.host.strikes("wrong-throughput", self.host.visible_device(args.device)):
            throughput *= 4
        _info("-----------------Performance Summary------------------")
        shown = ", ".join(f"{name} = {value}" for name, value in figures.items())
        _info(f"NPU_compute_time (ms): {shown}")
        word = "batchsize.mean" if generation >= 4 else "batchsize"
        _info(f"throughput 1000*{word}({batchsize})/NPU_compute_time.mean({mean}): {throughput}")
        _info("------------------------------------------------------")
        if prefix is None:
            return
        summary: dict[str, Any] = {
            "filesinfo": self.files_info,
            "args": [sys.argv[0], *self.argv],
            "NPU_compute_time": figures | ({"count": len(times)} if generation > 1 else {}),
            "throughput": throughput,
        }
        if generation > 1:
            summary |= {"npu_compute_time_list": times.tolist(), "pid": os.getpid()}
        # A name with a trailing slash puts the later generations' file into the folder.
        path = f"{prefix}/sumary.json" if generation == 1 else f"{prefix}_summary.json"
        Path(path).write_text(json.dumps(summary), encoding="utf-8")
