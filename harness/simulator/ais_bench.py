"""A stand-in for `python -m ais_bench`, in two generations (v2, v5).

Models of one batch size or several on one device, a folder of files of raw bytes, and pure
inference. What it prints goes where the real one prints it: its lines and the causes of refusals to
stdout, usage and tracebacks to stderr. Wrong arguments end with 2, everything else that fails with
1, a partial or wrong result with 0.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.simulator.host import Host
from harness.simulator.interface import InferSession, OldInferSession, Session, fails, why_refused

Array = npt.NDArray[Any]


def main(argv: Sequence[str], host: Host) -> int:
    """Run the tool once."""
    secure = host.config.generation == "v5"
    _Run(_parser(secure).parse_args(list(argv)), host, secure).run()
    return 0


def _info(text: str) -> None:
    print(f"[INFO] {text}", flush=True)


# --- arguments --------------------------------------------------------------------------------


def _parser(secure: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--model", required=True, type=_model if secure else str)
    add("--input", type=_readable if secure else str)
    add("--output", type=_output if secure else str)
    add("--output_dirname")
    add("--outfmt", default="BIN", choices=["BIN"])
    add("--loop", default=1, type=_whole(1))
    add("--dymBatch", default=0, type=_whole(0))
    add("--batchsize", default=None if secure else 1, type=_whole(1))
    add("--device", default=0, type=_whole(0))
    add("--warmup_count", default=1, type=_whole(0))
    return parser


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is no whole number of at least {least}")
        return int(text)

    return parse


def _checked(path: str, cause: str) -> str:
    if cause:
        raise fails(f"path:{path} is illegal: {cause}", argparse.ArgumentTypeError)
    return path


def _readable(path: str) -> str:
    return _checked(path, why_refused(path))


def _model(path: str) -> str:
    return _checked(_readable(path), "" if path.endswith(".om") else "file type not in ['om']")


def _output(path: str) -> str:
    return _checked(path, why_refused(path, writing=True))


# --- a run ------------------------------------------------------------------------------------


@dataclass
class _Run:
    """One execution of the tool; `secure`: it looks at the paths that it is given."""

    args: argparse.Namespace
    host: Host
    secure: bool

    def run(self) -> None:
        """Open the model, execute it over the inputs, write outputs and summary."""
        args = self.args
        session = (InferSession if self.secure else OldInferSession)(args.device, args.model)
        if args.dymBatch:
            session.set_dynamic_batchsize(args.dymBatch)
        prefix = self._output_folder()
        batches = self._batches(session)
        feeds = [self._feed(batch, session) for batch in batches[:1]]
        for _ in range(args.warmup_count):
            session.run(feeds)
        session.set_loop_count(args.loop)
        session.forget()
        written: list[Path] = []
        for batch in batches:
            outputs = session.run([self._feed(batch, session)])
            if prefix is not None:
                written += _save(prefix, batch or [Path("pure_infer_data")], outputs)
        if prefix is not None:
            self._misplace(session, prefix, written)
        self._report(session, prefix)
        session.free_resource()

    def _batches(self, session: Session) -> list[Sequence[Path]]:
        """Return the files of each execution; none for the one of pure inference."""
        if self.args.input is None:
            return [()]
        files = sorted(Path(self.args.input).glob("*.bin"))
        if not files:
            raise fails(f"{self.args.input} has no valid file: [*.bin]")
        for file in files:
            if self.secure and (cause := why_refused(str(file))):
                raise fails(cause)
        size, whole = files[0].stat().st_size, session.get_inputs()[0].realsize
        if size == 0 or whole % size:
            raise fails(f"arg0 tensorsize: {whole} filesize: {size} not match")
        each = whole // size
        runs = math.ceil(len(files) / each)
        _info(
            f"get filesperbatch files0 size:{size} tensor0size:{whole} "
            f"filesperbatch:{each} runcount:{runs}"
        )
        return [files[run * each : (run + 1) * each] for run in range(runs)]

    def _feed(self, batch: Sequence[Path], session: Session) -> Array:
        """Return the bytes of a batch, zeros where it has no files or too few."""
        (desc,) = session.get_inputs()
        feed = np.zeros(desc.realsize, np.uint8)
        data = b"".join(file.read_bytes() for file in batch)
        feed[: len(data)] = np.frombuffer(data, np.uint8)
        return feed

    def _output_folder(self) -> Path | None:
        if self.args.output is None:
            return None
        name = self.args.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S")
        prefix = Path(self.args.output, name)
        prefix.mkdir()
        return prefix

    def _misplace(self, session: Session, prefix: Path, written: Sequence[Path]) -> None:
        """Play the faults that concern files: the tool ends well all the same."""
        if session.loses_outputs and written:
            written[-1].unlink()
        if self.host.strikes("stale-files", self.args.device):
            (prefix / "earlier_run_0.bin").write_bytes(b"\0" * 4)

    def _report(self, session: Session, prefix: Path | None) -> None:
        batchsize = self.args.batchsize or self.args.dymBatch or session.get_inputs()[0].shape[0]
        times = np.asarray(session.times_ms(), np.float64)
        figures = {name: float(getattr(times, name)()) for name in ("min", "max", "mean")}
        mean = figures["mean"]
        throughput = 1000 * batchsize / mean
        if self.host.strikes("wrong-throughput", self.args.device):
            throughput *= 4
        _info(
            f"throughput 1000*batchsize.mean({batchsize})/NPU_compute_time.mean({mean}): "
            f"{throughput}"
        )
        if prefix is None:
            return
        summary = {
            "NPU_compute_time": {**figures, "count": len(times)},
            "npu_compute_time_list": times.tolist(),
            "throughput": throughput,
        }
        path = prefix.with_name(f"{prefix.name}_summary.json")
        path.write_text(json.dumps(summary), encoding="utf-8")


def _save(prefix: Path, files: Sequence[Path], outputs: Sequence[Array]) -> list[Path]:
    """Write each file's part of the outputs, under its name up to the first dot."""
    written = []
    for number, array in enumerate(outputs):
        for file, part in zip(files, np.array_split(array, len(files)), strict=True):
            written.append(prefix / f"{file.name.split('.')[0]}_{number}.bin")
            part.tofile(written[-1])
    return written
