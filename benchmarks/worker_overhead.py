"""What the device worker costs: its rate beside a bare `session.run` loop in this process.

    python benchmarks/worker_overhead.py [compiled.onnx] [--batch 1 16] [--time]

Both sides open the same compiled file with the same settings and run the same prepared batches,
in alternation (A B, B A, A B, ...), so that a machine that slows down slows both. A ratio of 1 is
no overhead; the goal is 0.95 or more. Images a second of a stream are compared, with the batches
already where each side reads them: the feed decodes into the worker's shared memory and copies
nothing. `--copy` adds a copy of every batch to the worker's side; `--time` compares the
milliseconds that `session.time` reports.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bare_loop import bare_session
from harness.targets.protocol import Float32
from harness.targets.sessions import WorkerSession, open_session

TURN_PAUSE_S = 0.1  # the other side's threads spin for a while after their last execution
BATCHES = 4  # distinct prepared batches, fed in a circle
# SqueezeNet 1.1: squeeze and expand channels of the fire modules; a pool stands before some.
FIRES = (("pool", 16, 64), (16, 64), ("pool", 32, 128), (32, 128))
FIRES_END = (("pool", 48, 192), (48, 192), (64, 256), (64, 256))


def squeezenet(batch: int, path: Path) -> None:
    """SqueezeNet 1.1's graph with random weights, `float32[B, 3, 224, 224]` to [B, 1000]."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(op: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def conv(x: str, fan_in: int, fan_out: int, side: int, **attributes: Any) -> str:
        w = rng.normal(0, np.sqrt(2 / (fan_in * side * side)), (fan_out, fan_in, side, side))
        names = (f"w{len(weights)}", f"b{len(weights)}")
        weights.append(numpy_helper.from_array(w.astype(np.float32), names[0]))
        weights.append(numpy_helper.from_array(np.zeros(fan_out, np.float32), names[1]))
        return add("Relu", [add("Conv", [x, *names], kernel_shape=[side, side], **attributes)])

    x, channels = conv("image", 3, 64, 3, strides=[2, 2]), 64
    for fire in FIRES + FIRES_END:
        if fire[0] == "pool":
            x = add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
        squeeze, expand = (int(number) for number in fire[-2:])
        s = conv(x, channels, squeeze, 1)
        left, right = conv(s, squeeze, expand, 1), conv(s, squeeze, expand, 3, pads=[1, 1, 1, 1])
        x, channels = add("Concat", [left, right], axis=1), 2 * expand
    x = add("Flatten", [add("GlobalAveragePool", [conv(x, channels, 1000, 1)])])
    graph = helper.make_graph(
        nodes,
        "squeezenet1_1",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (batch, 3, 224, 224))],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, (batch, 1000))],
        weights,
    )
    opset = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def compile_offline(source: Path, compiled: Path) -> None:
    """ONNX Runtime's offline optimisation, as the `cpu` target does it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(compiled)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def in_turn(
    bare: Callable[[int], float], worker: Callable[[int], float], seconds: float, rounds: int
) -> list[tuple[float, float]]:
    """Figures of both sides for each round; each side runs for about `seconds` a round."""
    count = 1
    while True:  # also the warm-up
        began = time.perf_counter()
        bare(count)
        worker(count)
        took = (time.perf_counter() - began) / 2
        if took >= seconds / 4 or count >= 1 << 16:
            break
        count *= 2
    count = max(3, round(count * seconds / took))

    def turn(side: Callable[[int], float]) -> float:
        time.sleep(TURN_PAUSE_S)
        return side(count)

    figures = []
    for number in range(rounds):
        if number % 2:
            second = turn(worker)
            first = turn(bare)
        else:
            first = turn(bare)
            second = turn(worker)
        figures.append((first, second))
    return figures


def open_worker(file: Path, threads: int, log: Path) -> WorkerSession:
    """A device worker, as the `cpu` target opens it."""
    return open_session(
        file,
        backend="onnxruntime",
        options={"threads": threads},
        log=log,
        deadline_open_s=300,
        deadline_run_s=300,
    )


def _on_pages(array: Float32) -> Float32:
    """A copy in memory of its own, aligned as the worker's: neither side has the better place."""
    copy = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def measure(
    file: Path,
    threads: int,
    seconds: float,
    rounds: int,
    log: Path,
    *,
    timing: bool,
    copying: bool = False,
) -> tuple[int, str, list[tuple[float, float]]]:
    """Batch size, unit, and the pairs (bare, worker)."""
    with contextlib.closing(open_worker(file, threads, log)) as session:
        bare = bare_session(str(file), threads)
        name = session.inputs[0].name
        shape = session.inputs[0].shape
        rng = np.random.default_rng(1)
        data = [_on_pages(rng.random(shape, dtype=np.float32)) for _ in range(BATCHES)]
        expected = [bare.run(None, {name: one})[0] for one in data]
        for one, two in zip(session.stream(data), expected, strict=True):
            np.testing.assert_array_equal(one, two)

        def circle(count: int) -> Iterator[Float32]:
            return (data[k % BATCHES] for k in range(count))

        def bare_rate(count: int) -> float:
            began = time.perf_counter()
            for one in circle(count):
                bare.run(None, {name: one})
            return count * shape[0] / (time.perf_counter() - began)

        def in_place(count: int) -> Iterator[Float32]:
            if copying:
                return session.stream(circle(count))
            # The check above has left a batch in every slot.
            return session.stream_into(lambda _: None for _ in range(count))

        def worker_rate(count: int) -> float:
            began = time.perf_counter()
            for _ in in_place(count):
                pass
            return count * shape[0] / (time.perf_counter() - began)

        def bare_time(count: int) -> float:
            times = []
            for _ in range(count):
                began = time.perf_counter()
                bare.run(None, {name: data[0]})
                times.append(1000 * (time.perf_counter() - began))
            return statistics.fmean(times)

        def worker_time(count: int) -> float:
            return statistics.fmean(session.time(count, 0).ms)

        session.slots[0][...] = data[0]
        if timing:
            return shape[0], "ms", in_turn(bare_time, worker_time, seconds, rounds)
        return shape[0], "images/s", in_turn(bare_rate, worker_rate, seconds, rounds)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="a compiled ONNX file, fixed batch")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--threads", type=int, default=0, help="0: ONNX Runtime's own choice")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one side in one round")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--copy", action="store_true", help="copy every batch to the worker")
    parser.add_argument("--time", action="store_true", help="compare session.time instead")
    args = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, ONNX Runtime {ort.__version__}, {args.rounds} rounds\n")
    print("| model | batch | bare | worker | unit | ratio, median | ratio, range |")
    print("| --- | ---: | ---: | ---: | --- | ---: | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [args.file] if args.file else []
        for batch in [] if files else args.batch:
            source = folder / "source.onnx"
            squeezenet(batch, source)
            files.append(folder / f"squeezenet1_1-bs{batch}.onnx")
            compile_offline(source, files[-1])
        for file in files:
            batch, unit, pairs = measure(
                file,
                args.threads,
                args.seconds,
                args.rounds,
                folder / "log",
                timing=args.time,
                copying=args.copy,
            )
            # More images a second is better, more milliseconds is worse: 1 is no overhead in both.
            ratios = [a / b if args.time else b / a for a, b in pairs]
            bare, worker = (statistics.median(side) for side in zip(*pairs, strict=True))
            print(
                f"| {file.stem} | {batch} | {bare:.2f} | {worker:.2f} | {unit} "
                f"| {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
