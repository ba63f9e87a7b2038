"""The loop that anybody would write: `session.run` on one batch, with nothing else in the process.

    python benchmarks/bare_loop.py compiled.onnx THREADS

Reads a number of executions from each line of its input, and prints their mean in milliseconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import onnxruntime as ort


def bare_session(file: str, threads: int) -> Any:
    """An ONNX Runtime session with the device worker's settings."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", help="a compiled ONNX file")
    parser.add_argument("threads", type=int)
    given = parser.parse_args()
    session = bare_session(given.file, given.threads)
    (spec,) = session.get_inputs()
    data = np.empty(spec.shape, np.float32)
    data[...] = 0  # np.zeros would be one page of memory, seen many times
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            began = time.perf_counter()
            # Kept, as by whoever uses it: if it is freed at once, glibc gives the top of the heap
            # back after each execution, and the next one takes 3 % longer to get it again.
            _outputs = session.run(None, {spec.name: data})
            times.append(time.perf_counter() - began)
        print(1000 * sum(times) / len(times), flush=True)


if __name__ == "__main__":
    main()
