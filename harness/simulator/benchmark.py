"""A stand-in for `benchmark.x86_64`, the closed tool of guides 001 and 003.

Known of the real one: the arguments that the guides print, the result files and their lines, and
that outputs are numbered from 1. Its exit codes and the texts of its failures are not known: here
a failure prints `[ERROR] ...` and ends with 1. It leaves what lies in `result/` from before.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from harness.simulator.faults import whole
from harness.simulator.host import Host, ToolError, parse_flags
from harness.simulator.interface import OldInferSession

_FLAGS = (
    "batch_size device_id input_height input_text_path input_width model_type om_path "
    "output_binary round useDvpp"
)


def main(argv: Sequence[str], host: Host) -> int:
    """Time a model, over a data set or on its own (`-round`)."""
    flags = parse_flags(argv, _FLAGS, 1)
    pure = "round" in flags
    try:
        batch = whole(flags.get("batch_size", "1"), 1, 1024)
        device = whole(flags.get("device_id", "0"), 0, 255)
        # A pure inference writes no outputs.
        session = OldInferSession(device, flags.get("om_path", ""), outputs_kept=not pure)
        shape = session.get_inputs()[0].shape
        if shape[0] != batch:
            raise ValueError(f"batch_size {batch} is not the model's ({shape[0]})")
        (_pure if pure else _dataset)(session, flags, batch, device, host)
    except (OSError, RuntimeError, ValueError) as error:
        raise ToolError(f"[ERROR] {error}", 1) from None
    session.finalize()
    return 0


def _pure(
    session: OldInferSession, flags: Mapping[str, str], batch: int, device: int, host: Host
) -> None:
    feeds = [np.zeros(desc.realsize, np.uint8) for desc in session.get_inputs()]
    for _ in range(whole(flags["round"], 1, 100_000)):
        session.run(feeds)
    # Both figures are of one sample, not of a batch; the rate is a mean of rates.
    times = [ms / batch for ms in session.times_ms()]
    mean, rate = fmean(times), fmean(1000 / ms for ms in times)
    if host.strikes("wrong-throughput", device):
        rate *= 4
    print(f"[INFO] ave_throughputRate: {rate:.6g}samples/s, ave_latency: {mean:.6g}ms")
    folder = Path("result")
    folder.mkdir(exist_ok=True)
    stem = Path(flags["om_path"]).stem
    (folder / f"PureInfer_perf_of_{stem}_in_device_{device}.txt").write_text(
        # As few digits as guide 001's file has: 22.37 and 44.7.
        f"ave_throughputRate = {rate:.2f}samples/s, ave_latency = {mean:.1f}ms\n"
    )


def _samples(flags: Mapping[str, str]) -> list[str]:
    paths = []
    for line in Path(flags.get("input_text_path", "")).read_text().splitlines():
        _, path, *size = line.split()
        if size != [flags.get("input_width"), flags.get("input_height")]:
            raise ValueError(f"{line!r} has another size than the arguments")
        paths.append(path)
    return paths


def _dataset(
    session: OldInferSession, flags: Mapping[str, str], batch: int, device: int, host: Host
) -> None:
    for flag, simulated in (
        ("model_type", "vision"),
        ("useDvpp", "False"),
        ("output_binary", "True"),
    ):
        if flags.get(flag) != simulated:
            raise ValueError(f"{flag}={flags.get(flag)} is not simulated")
    paths = _samples(flags)
    size = session.get_inputs()[0].realsize // batch
    folder = Path("result") / f"dumpOutput_device{device}"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    written: list[Path] = []
    for start in range(0, len(paths), batch):
        chosen = paths[start : start + batch]
        parts = [np.fromfile(path, np.uint8) for path in chosen]
        parts += [np.zeros(size, np.uint8)] * (batch - len(chosen))
        outputs = session.run([np.concatenate(parts)])
        for number, output in enumerate(outputs, start=1):
            for path, sample in zip(chosen, output, strict=False):
                file = folder / f"{Path(path).stem}_{number}.bin"
                np.asarray(sample).tofile(file)
                written.append(file)
    total = time.perf_counter() - began
    if session.loses_outputs and written:
        written[-1].unlink(missing_ok=True)
    if host.strikes("stale-files", device):
        (folder / "earlier_run_1.bin").write_bytes(b"\0" * 4)
    interface = 1000 * batch / fmean(session.times_ms())
    if host.strikes("wrong-throughput", device):
        interface *= 4

    text = (
        f"[e2e] throughputRate: {len(paths) / total:.6g}, latency: {1000 * total:.6g}\n"
        f"[infer] throughputRate: {interface:.6g}, Interface throughputRate: {interface:.6g}, "
        f"moduleLatency: {1000 / interface:.6g}\n"
    )
    (Path("result") / f"perf_vision_batchsize_{batch}_device_{device}.txt").write_text(text)
    print(text, end="")
