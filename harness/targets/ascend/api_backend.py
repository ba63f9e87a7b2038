"""ais_bench's Python interface as a backend of the device worker.

Loaded by the worker through its path, in whatever interpreter has `ais_bench` and `aclruntime`:
Python 3.7 and later, the standard library, NumPy and those two, nothing of the harness.

Its interface changed over the years; every form since November 2022 is taken:

    summary().exec_time_list, reset_summaryinfo()    sumary(), reset_sumaryinfo() before 2024
    a list of (start, end) in ms                     a list of ms before 2024
    infer(feeds, mode, custom_sizes, out_array)      without out_array before 2024
    finalize(): static                               a method before 2024
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

_RESET_EVERY = 1000
"""Runs after which the tool's lists of times are emptied: they grow by an entry for each run."""

_COARSE = 0.25
"""Resolution of the tool's clock, as a part of an execution, that a timing still bears."""

_NEVER = 1e15  # ms since a session was opened, of which there are no times

# aclDataType, as get_inputs() and get_outputs() give it.
_DTYPES = {
    0: "float32",
    1: "float16",
    2: "int8",
    3: "int32",
    4: "uint8",
    6: "int16",
    7: "uint16",
    8: "uint32",
    9: "int64",
    10: "uint64",
    11: "float64",
    12: "bool",
}


class ApiError(Exception):
    """ais_bench, the model or what came back is not what it must be."""


class ApiModel:
    """A compiled model in one `InferSession`. Options: `device_id`, the logical id;
    `dynamic_batch`, the batch size to run where the file serves several, else 0.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        interface = import_interface()
        self._memory = getattr(interface, "MemorySummary", None)
        device = int(options["device_id"])
        self._session = interface.InferSession(device, path)
        batch = int(options.get("dynamic_batch", 0))
        # The mode is named since the oldest of these interfaces had no default for it.
        self._mode = "dymbatch" if batch else "static"
        if batch:
            self._choose(batch)
        self.inputs = [_spec(one, "input", batch) for one in self._session.get_inputs()]
        self.outputs = [_spec(one, "output", batch) for one in self._session.get_outputs()]
        old = not hasattr(self._session, "summary")
        self._summary = getattr(self._session, "sumary" if old else "summary")
        self._reset = getattr(self._session, "reset_sumaryinfo" if old else "reset_summaryinfo")
        self._runs = 0
        self.info = {"device": device, "ais_bench_path": str(interface.__file__)}
        for name in ("ais_bench", "aclruntime"):
            version = _version(name)
            if version:
                self.info[name] = version

    def run(self, arrays: list[Any]) -> Any:
        """One execution: an array for each output, which the worker checks."""
        self._runs += 1
        if self._runs % _RESET_EVERY == 0:
            self._forget()
        return self._infer(arrays)

    def time(self, arrays: list[Any], loops: int, warmup: int) -> list[float]:
        """Milliseconds of `loops` executions as the tool measures them: without the transfers."""
        self._forget()
        self._execute(arrays, loops)
        times = _milliseconds(self._summary().exec_time_list)
        self._forget()
        return times

    def close(self) -> None:
        """Free the model, then the device."""
        for name in ("free_resource", "finalize"):
            end = getattr(self._session, name, None)
            if end is not None:
                end()

    def _choose(self, batch: int) -> None:
        try:
            self._session.set_dynamic_batchsize(batch)
        except RuntimeError as error:
            raise ApiError(
                f"the model takes no batch size {batch} ({error}): it must be one of "
                "its --dynamic_batch_size"
            ) from error

    def _execute(self, arrays: list[Any], loops: int) -> None:
        """Execute back to back, as the tool's `--loop` does, where the tool can."""
        set_loops = getattr(self._session, "set_loop_count", None)
        if set_loops is None or loops == 1:
            for _ in range(loops):
                self._infer(arrays)
            return
        set_loops(loops)
        try:
            self._infer(arrays)
        finally:
            set_loops(1)

    def _infer(self, arrays: list[Any]) -> Any:
        return self._session.infer(list(arrays), self._mode)

    def _forget(self) -> None:
        """Empty the tool's lists: they would grow for as long as the session lives."""
        self._reset()
        reset = getattr(self._memory, "reset", None)
        if reset is not None:
            reset()


def import_interface() -> Any:
    """The module `ais_bench.infer.interface`, or an error that names what was found instead."""
    try:
        package = importlib.util.find_spec("ais_bench")
    except (ImportError, ValueError):
        package = None
    if package is None:
        raise ApiError(
            "no ais_bench is installed: it and aclruntime are wheels that PyPI does not have"
        )
    try:
        there = importlib.util.find_spec("ais_bench.infer.interface") is not None
    except ImportError:
        there = False
    if not there:
        places = ", ".join(package.submodule_search_locations or [str(package.origin)])
        version = _version("ais_bench_benchmark")
        other = f" (ais_bench_benchmark {version})" if version else ""
        raise ApiError(
            f"the ais_bench in {places} has no infer.interface: it is another tool of that "
            f"name{other}, or older than November 2022"
        )
    return importlib.import_module("ais_bench.infer.interface")


def _version(name: str) -> str:
    """Version of an installed wheel, by the folder that it leaves; empty where it is absent."""
    for folder in sys.path:
        for place in glob.glob(os.path.join(glob.escape(folder), name + "-*.dist-info")):
            return os.path.basename(place)[len(name) + 1 : -len(".dist-info")]
    return ""


def _spec(described: Any, kind: str, batch: int) -> tuple[str, tuple[int, ...], str]:
    """A tensor at the batch size that was chosen of several: inputs say -1, outputs the largest."""
    name = str(described.name)
    shape = tuple(int(side) for side in described.shape)
    if batch:
        shape = (batch, *shape[1:])
    if not shape or any(side <= 0 for side in shape):
        raise ApiError(
            f"the {kind} {name!r} has the shape {list(shape)}: the model is dynamic, compile it "
            "for one batch size"
        )
    code = int(described.datatype)
    if code not in _DTYPES:
        raise ApiError(f"the {kind} {name!r} has an unknown data type, code {code}")
    dtype = _DTYPES[code]
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    stated = int(getattr(described, "realsize", size))
    if kind == "input" and stated != size:
        raise ApiError(
            f"the input {name!r} takes {stated} bytes, {dtype}{list(shape)} are {size}: is an "
            "AIPP step compiled in?"
        )
    return name, shape, dtype


def _milliseconds(entries: Any) -> list[float]:
    """Durations of what `exec_time_list` holds.

    Pairs count milliseconds since the session was opened, in float32: the longer ago, the coarser.
    They come from the time of day, which may be set back.
    """
    entries = list(entries)
    if not any(isinstance(entry, (list, tuple)) for entry in entries):
        return [float(entry) for entry in entries]
    times = []
    last = 0.0
    for entry in entries:
        start, end = (float(value) for value in entry)
        if not -_NEVER < start <= end < _NEVER:
            raise ApiError(
                f"ais_bench timed an execution from {start:g} to {end:g} ms: was the clock set?"
            )
        last = max(last, end)
        times.append(end - start)
    mean = sum(times) / len(times)
    step = float(np.spacing(np.float32(last)))
    if step > _COARSE * mean:
        raise ApiError(
            f"ais_bench's clock counts in steps of {step:g} ms by now, too coarse for executions "
            f"of {mean:g} ms: open the model again"
        )
    return times


def open_model(path: str, options: dict[str, Any]) -> ApiModel:
    """The worker's entry: `path` is an `.om` file."""
    return ApiModel(path, options)


# --- looking, without a device ----------------------------------------------------------------

PROBE_MARK = "harness-probe: "
"""What the line begins with on which `look` answers: modules print what they like on import."""


def look() -> dict[str, Any]:
    """Return what this interpreter has; for each thing why not, empty where it has it."""
    aclruntime = _why_not(lambda: importlib.import_module("aclruntime"))
    module = ""
    try:
        if importlib.util.find_spec("ais_bench.__main__") is None:
            module = "its ais_bench has no __main__: it is another tool of that name"
    except (ImportError, ValueError):
        module = "no ais_bench is installed"
    versions = {name: _version(name) for name in ("ais_bench", "aclruntime")}
    return {
        "api": aclruntime or _why_not(import_interface),
        "cli": f"{sys.executable}: {module}" if module else aclruntime,
        "file": str(getattr(sys.modules.get("aclruntime"), "__file__", "")),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version for name, version in versions.items() if version},
        },
    }


def _why_not(step: Callable[[], Any]) -> str:
    try:
        step()
    except ApiError as error:
        return f"{sys.executable}: {error}"
    except BaseException as error:  # a module may even exit when it is imported
        lines = str(error).strip().splitlines() or ["no message"]
        return f"{sys.executable}: {type(error).__name__}: {lines[0]}"
    return ""


if __name__ == "__main__":
    # Python puts a script's folder first; the files beside this one are nobody's modules.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    answer = json.dumps(look())
    sys.stdout.write("\n" + PROBE_MARK + answer + "\n")
    sys.stdout.flush()
    os._exit(0)  # not through the interpreter's end: a runtime's destructors may hang or crash
