"""A stand-in for `benchmark.x86_64`, the closed tool of guides 001 and 003.

Known of the real one: the arguments that the guides print, the result files and their lines, and
that outputs are numbered from 1. Its exit codes and the texts of its failures are not known: here
a failure prints `[ERROR] ...` and ends with 1. It leaves what lies in `result/` from before.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from harness.simulator.host import Host, outputs_thrown_away
from harness.simulator.interface import OldInferSession

FAILED = 1
_FLAGS = (
    "batch_size device_id input_height input_text_path input_width model_type om_path "
    "output_binary round useDvpp"
)


class BenchmarkError(Exception):
    """What the tool ends with."""


def main(argv: Sequence[str], host: Host | None = None) -> int:
    """Time a model, over a data set or on its own (`-round`)."""
    host = host or Host.load()
    host.log_call("benchmark", argv)
    try:
        flags = _parse(argv)
        batch = _number(flags, "batch_size", 1, 1024)
        device = _number(flags, "device_id", 0, 255)
        om = flags.get("om_path", "")
        if not os.path.isfile(om):
            raise BenchmarkError(f"om_path {om!r} is not a file")
        # A pure inference writes no outputs.
        with outputs_thrown_away() if "round" in flags else nullcontext():
            session = OldInferSession(device, om)
        shape = session.get_inputs()[0].shape
        if shape[0] != batch:
            raise BenchmarkError(f"batch_size {batch} is not the model's ({shape[0]})")
        if "round" in flags:
            _pure(session, _number(flags, "round", 1, 100_000), batch, device, om, host)
        else:
            _dataset(session, flags, batch, device, host)
        session.free_resource()
        session.finalize()
    except (BenchmarkError, RuntimeError, ValueError) as error:
        print(f"[ERROR] {error}", flush=True)
        return FAILED
    return 0


def _parse(argv: Sequence[str]) -> dict[str, str]:
    flags = {}
    for word in argv:
        match = re.fullmatch(r"--?([A-Za-z_]+)(=(.*))?", word)
        if not match or match[1] not in _FLAGS.split():
            raise BenchmarkError(f"unknown argument {word!r}")
        flags[match[1]] = match[3] or ""
    return flags


def _number(flags: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = flags.get(name, str(least))
    if not text.isdigit() or not least <= int(text) <= most:
        raise BenchmarkError(f"{name} {text!r} is not in [{least}, {most}]")
    return int(text)


def _mean_ms(session: OldInferSession) -> float:
    entries = session.sumary().exec_time_list
    return float(np.mean([e if isinstance(e, float) else e[1] - e[0] for e in entries]))


def _pure(
    session: OldInferSession, rounds: int, batch: int, device: int, om: str, host: Host
) -> None:
    feeds = [np.zeros(desc.realsize, np.uint8) for desc in session.get_inputs()]
    for _ in range(rounds):
        session.run(feeds)
    # Both figures are of one sample, not of a batch.
    mean = _mean_ms(session) / batch
    folder = Path("result")
    folder.mkdir(exist_ok=True)
    rate = 1000 / mean
    if host.strikes("wrong-throughput", host.visible_device(device)):
        rate *= 4
    print(f"[INFO] ave_throughputRate: {rate:.6g}samples/s, ave_latency: {mean:.6g}ms", flush=True)
    (folder / f"PureInfer_perf_of_{Path(om).stem}_in_device_{device}.txt").write_text(
        # As few digits as guide 001's file has: 22.37 and 44.7.
        f"ave_throughputRate = {rate:.2f}samples/s, ave_latency = {mean:.1f}ms\n"
    )


def _samples(flags: Mapping[str, str]) -> list[str]:
    info = flags.get("input_text_path", "")
    if not os.path.isfile(info):
        raise BenchmarkError(f"input_text_path {info!r} is not a file")
    paths = []
    for line in Path(info).read_text().splitlines():
        words = line.split()
        if len(words) != 4 or not all(word.isdigit() for word in (words[0], *words[2:])):
            raise BenchmarkError(f"{info}: {line!r} is not 'index path width height'")
        if words[2:] != [flags.get("input_width"), flags.get("input_height")]:
            raise BenchmarkError(f"{info}: {line!r} has another size than the arguments")
        paths.append(words[1])
    return paths


def _dataset(
    session: OldInferSession, flags: Mapping[str, str], batch: int, device: int, host: Host
) -> None:
    if flags.get("model_type") != "vision":
        raise BenchmarkError(f"model_type {flags.get('model_type')!r} is not simulated")
    if flags.get("useDvpp", "False").lower() != "false":
        raise BenchmarkError("useDvpp is not simulated")
    if flags.get("output_binary", "False").lower() != "true":
        raise BenchmarkError("outputs in text are not simulated")
    paths = _samples(flags)
    size = session.get_inputs()[0].realsize // batch
    folder = Path("result") / f"dumpOutput_device{device}"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    written: list[Path] = []
    for start in range(0, len(paths), batch):
        chosen = paths[start : start + batch]
        parts = []
        for path in chosen:
            if not os.path.isfile(path):
                raise BenchmarkError(f"{path} does not exist")
            data = np.fromfile(path, np.uint8)
            if data.nbytes != size:
                raise BenchmarkError(f"{path} has {data.nbytes} bytes, a sample has {size}")
            parts.append(data)
        parts += [np.zeros(size, np.uint8)] * (batch - len(chosen))
        feed = np.concatenate(parts)
        outputs = session.run([feed], out_array=True)
        for number, output in enumerate(outputs, start=1):
            for path, sample in zip(chosen, output, strict=False):
                file = folder / f"{Path(path).stem}_{number}.bin"
                np.asarray(sample).tofile(file)
                written.append(file)
    total = time.perf_counter() - began
    if session.session.loses_outputs and written:
        written[-1].unlink(missing_ok=True)
    logical = host.visible_device(device)
    if host.strikes("stale-files", logical):
        (folder / "earlier_run_1.bin").write_bytes(b"\0" * 4)
    interface = 1000 * batch / _mean_ms(session)
    if host.strikes("wrong-throughput", logical):
        interface *= 4

    text = (
        f"[e2e] throughputRate: {len(paths) / total:.6g}, latency: {1000 * total:.6g}\n"
        f"[infer] throughputRate: {interface:.6g}, Interface throughputRate: {interface:.6g}, "
        f"moduleLatency: {1000 / interface:.6g}\n"
    )
    (Path("result") / f"perf_vision_batchsize_{batch}_device_{device}.txt").write_text(text)
    sys.stdout.write(text)
    sys.stdout.flush()
