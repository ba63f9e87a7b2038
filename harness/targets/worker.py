"""The device worker: the process in which one compiled model is open, and nothing else.

A crash, a hang or an out-of-memory kill of a runtime ends this process and costs one case. It is
started by path (`python worker.py ...`) by `worker_process.py`, in whatever interpreter has the
runtime, so it is one file for Python 3.7 and later with the standard library, NumPy and the
runtime, and imports nothing of the harness.

Commands and replies are JSON objects, each one message of a socket: runtimes print what they like
on stdout and stderr, which go to a log. Tensors cross through memory that the parent made and that
is mapped here. Commands are read one after another, so the parent can queue the next batch while
one runs:

    {"op": "open", "file": ..., "options": {...}}   -> {"inputs", "outputs", "info"}
    {"op": "map", "size": n, "slots": [...]}        -> {}
    {"op": "run", "slots": [k, ...]}                -> {"ms": of all their executions}
    {"op": "time", "loops": n, "warmup": m, ...}    -> {"progress": done} ...,
                                                       {"ms": [...], "cpu_ms": [...]}
    {"op": "close"}                                 -> {}, and the process ends

Every reply repeats the command's "id". What a command could not do is replied as
{"error": {"type", "message"}}, with the traceback in the log; the worker goes on. An error of the
harness's own, which some backends import, is replied as its `to_json` has it.

A backend is `onnxruntime` or a Python file with one function:

    open_model(path: str, options: dict) -> model

    model.inputs, model.outputs      lists of (name, shape, dtype); shapes are fixed, with the
                                     batch axis; dtypes are NumPy names
    model.run(arrays) -> arrays      one contiguous array for each input, and for each output;
                                     the inputs lie in shared memory: not to be kept or written to
    model.time(arrays, loops, warmup) -> list of ms          optional, for a timer of its own
                                     called several times for one measurement, so that the worker
                                     can report in between; warmup is 0, since the warm-up is a
                                     call of its own whose times are dropped
    model.info                       optional dict: versions and what else a record should say
    model.close()                    optional

A backend may write to stdout and stderr, start threads and processes, and fail in any way.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import importlib
import importlib.util
import json
import math
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, NamedTuple, Sequence

import numpy as np

_WATCH_S = 0.5
_MESSAGE_BYTES = 1 << 20  # more than a command takes
_OOM_SCORE = 500  # under memory pressure the kernel should take the worker, not pytest


class Spec(NamedTuple):
    """One input or output: crosses as a JSON list."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class ModelError(Exception):
    """A model, its options or its outputs are not what they must be."""


# --- backends ---------------------------------------------------------------------------------

_ORT_DTYPES = {"float": "float32", "double": "float64"}  # others are NumPy's names


class OnnxRuntimeModel:
    """A model in ONNX Runtime, with graph optimisation off: it was optimised when compiled.

    Options: `threads`, for one operator (0, the default: ONNX Runtime's own choice); `batch_size`,
    of a file whose batch axis is open, as `N`; `providers`, names or [name, options] (default: the
    CPU's), all of which must really be used, since ONNX Runtime falls back to the CPU with no more
    than a warning.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        ort: Any = importlib.import_module("onnxruntime")
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.intra_op_num_threads = int(options.get("threads", 0))
        settings.inter_op_num_threads = 1
        if options.get("batch_size"):
            settings.add_free_dimension_override_by_name("N", int(options["batch_size"]))
        wanted = [
            entry if isinstance(entry, str) else (str(entry[0]), dict(entry[1]))
            for entry in options.get("providers", ["CPUExecutionProvider"])
        ]
        names = [entry if isinstance(entry, str) else entry[0] for entry in wanted]
        self._session = ort.InferenceSession(path, settings, providers=wanted)
        used = self._session.get_providers()
        unused = [name for name in names if name not in used]
        if unused:
            raise ModelError(
                f"onnxruntime {ort.__version__} fell back to {', '.join(used)}: "
                f"{', '.join(unused)} could not be used, see the log"
            )
        self.inputs = [_ort_spec(one) for one in self._session.get_inputs()]
        self.outputs = [_ort_spec(one) for one in self._session.get_outputs()]
        self._input_names = [spec[0] for spec in self.inputs]
        self._output_names = [spec[0] for spec in self.outputs]
        self.info = {"onnxruntime": ort.__version__, "providers": list(used)}

    def run(self, arrays: list[Any]) -> list[Any]:
        """One execution."""
        outputs: list[Any] = self._session.run(
            self._output_names,
            dict(zip(self._input_names, arrays)),  # noqa: B905 - Python 3.7
        )
        return outputs


def _ort_spec(tensor: Any) -> Spec:
    kind = tensor.type[len("tensor(") : -1]  # tensor(float16)
    return Spec(tensor.name, tuple(tensor.shape), _ORT_DTYPES.get(kind, kind))


def _open_model(backend: str, path: str, options: dict[str, Any]) -> Any:
    if backend == "onnxruntime":
        return OnnxRuntimeModel(path, options)
    spec = importlib.util.spec_from_file_location("device_backend", backend)
    if spec is None or spec.loader is None:
        raise ModelError(f"the backend {backend} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look a class's module up there
    spec.loader.exec_module(module)
    return module.open_model(path, options)


def _checked_specs(specs: Sequence[Any], kind: str) -> list[Spec]:
    """Specs with fixed shapes and known dtypes, or `ModelError`."""
    checked = []
    for name, shape, dtype in specs:
        if not all(isinstance(side, (int, np.integer)) and side > 0 for side in shape):
            raise ModelError(
                f"{kind} {name!r} has the shape {list(shape)}: a compiled model has fixed sides"
            )
        try:
            known = np.dtype(dtype).name
        except TypeError:
            raise ModelError(
                f"{kind} {name!r} is of type {dtype}, which NumPy does not have"
            ) from None
        checked.append(Spec(str(name), tuple(int(side) for side in shape), known))
    return checked


# --- the worker -------------------------------------------------------------------------------


class Worker:
    """One open model, the shared memory, and what the commands do."""

    def __init__(self, backend: str, memory_fd: int, channel: socket.socket) -> None:
        self._backend = backend
        self._memory_fd = memory_fd
        self._channel = channel
        # Made once: the kernel gives and takes so much memory slowly, for each message.
        self._received = memoryview(bytearray(_MESSAGE_BYTES))
        self._model: Any = None
        self._inputs: list[Spec] = []
        self._outputs: list[Spec] = []
        self._slots: list[tuple[list[Any], list[Any]]] = []
        self._chunk = 1  # executions between two reports, remembered between measurements

    def serve(self) -> None:
        """Answer commands until `close` or until the parent's end of the socket is closed."""
        while True:
            size = self._channel.recv_into(self._received)
            if not size:
                return
            command = json.loads(bytes(self._received[:size]))
            op = command["op"]
            try:
                reply = getattr(self, "_op_" + op)(command)
            except Exception as error:
                traceback.print_exc()
                whole = getattr(error, "to_json", None)  # an error of the harness's own
                said = {"type": type(error).__name__, "message": _one_line(error)}
                reply = {"error": whole() if whole else said}
            self._reply(command, reply)
            if op == "close":
                return

    def _reply(self, command: dict[str, Any], reply: dict[str, Any]) -> None:
        body = json.dumps(dict(reply, id=command["id"]), default=str)  # info may hold anything
        self._channel.send(body.encode())

    def _op_open(self, command: dict[str, Any]) -> dict[str, Any]:
        self._model = _open_model(self._backend, command["file"], command["options"])
        self._inputs = _checked_specs(self._model.inputs, "input")
        self._outputs = _checked_specs(self._model.outputs, "output")
        info = {"python": sys.version.split()[0], "numpy": np.__version__}
        info.update(getattr(self._model, "info", {}))
        return {"inputs": self._inputs, "outputs": self._outputs, "info": info}

    def _op_map(self, command: dict[str, Any]) -> dict[str, Any]:
        memory = mmap.mmap(self._memory_fd, command["size"])

        def views(specs: list[Spec], offsets: list[int]) -> list[Any]:
            return [
                np.frombuffer(
                    memory, np.dtype(dtype), int(np.prod(shape, dtype=np.int64)), offset
                ).reshape(shape)
                for (_, shape, dtype), offset in zip(specs, offsets)  # noqa: B905 - Python 3.7
            ]

        self._slots = [
            (views(self._inputs, slot["inputs"]), views(self._outputs, slot["outputs"]))
            for slot in command["slots"]
        ]
        return {}

    def _op_run(self, command: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        for slot in command["slots"]:
            inputs, outputs = self._slots[slot]
            results = self._model.run(list(inputs))
            self._check_outputs(results)
            for view, result in zip(outputs, results):  # noqa: B905 - Python 3.7
                np.copyto(view, result, casting="no")
        return {"ms": 1000.0 * (time.perf_counter() - began)}

    def _check_outputs(self, results: Any) -> None:
        if not isinstance(results, (list, tuple)):
            raise ModelError(f"the runtime returned a {type(results).__name__}, not a list")
        if len(results) != len(self._outputs):
            raise ModelError(
                f"the runtime returned {len(results)} outputs, the model has {len(self._outputs)}"
            )
        for spec, result in zip(self._outputs, results):  # noqa: B905 - Python 3.7
            if not isinstance(result, np.ndarray):
                raise ModelError(f"output {spec.name!r} is a {type(result).__name__}, not an array")
            if result.dtype != np.dtype(spec.dtype):
                raise ModelError(
                    f"output {spec.name!r} has dtype {result.dtype}, the model says {spec.dtype}"
                )
            if result.shape != spec.shape:
                raise ModelError(
                    f"output {spec.name!r} has shape {list(result.shape)}, "
                    f"the model says {list(spec.shape)}"
                )

    def _op_time(self, command: dict[str, Any]) -> dict[str, Any]:
        inputs = list(self._slots[0][0])
        done = 0
        kept: list[float] = []
        cpu: list[float] = []
        for count, keep in ((command["warmup"], False), (command["loops"], True)):
            left = count
            while left:
                # In chunks of about `pulse_s` seconds, so that the parent hears from a long
                # measurement and can tell it from a hang.
                now = min(self._chunk, left)
                began = time.monotonic()
                times, cpu_times = self._time(inputs, now)
                took = time.monotonic() - began
                if keep:
                    kept += times
                    cpu += cpu_times
                done += now
                left -= now
                self._reply(command, {"progress": done})
                if took > command["pulse_s"]:
                    self._chunk = max(1, self._chunk // 2)
                elif took < command["pulse_s"] / 2 and now == self._chunk:
                    self._chunk *= 2
        return {"ms": kept, "cpu_ms": cpu}

    def _time(self, inputs: list[Any], loops: int) -> tuple[list[float], list[float]]:
        """Milliseconds by the clock, and of CPU time where the model has no timer of its own."""
        cpu_times = []
        if hasattr(self._model, "time"):
            times = [float(ms) for ms in self._model.time(inputs, loops, 0)]
        else:
            times = []
            for _ in range(loops):
                began, cpu_began = time.perf_counter(), time.process_time()
                results = self._model.run(inputs)
                cpu_times.append(1000.0 * (time.process_time() - cpu_began))
                times.append(1000.0 * (time.perf_counter() - began))
                self._check_outputs(results)
        if len(times) != loops or not all(math.isfinite(ms) and ms >= 0 for ms in times):
            raise ModelError(
                f"the runtime gave {len(times)} times for {loops} executions: {times[:5]}"
            )
        return times, cpu_times

    def _op_close(self, command: dict[str, Any]) -> dict[str, Any]:
        model, self._model = self._model, None
        close = getattr(model, "close", None)
        if close is not None:
            close()
        return {}


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:1000] if lines else "no message"


# --- living no longer than the parent ---------------------------------------------------------


def _watch(socket_fd: int, limit_s: float) -> None:
    """End the group when the parent is gone, or when no Python runs here for `limit_s` seconds.

    The parent's death shows as a new parent, and as the end of the socket where a wrapper stands
    between us. A runtime that hangs with the interpreter's lock held stops this thread
    too: then faulthandler's timer, which needs no interpreter, ends the process.
    """
    parent = os.getppid()
    hang_up = select.poll()
    hang_up.register(socket_fd, 0)
    while True:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=2)
        if os.getppid() != parent or hang_up.poll(0):
            os.killpg(os.getpgrp(), signal.SIGKILL)  # helpers that the runtime started, too
        time.sleep(min(_WATCH_S, limit_s / 4))


def _line_buffer_c() -> None:
    """Let what a runtime prints from C be in the log when it crashes or is killed."""
    try:
        libc = ctypes.CDLL(None)
        line_buffered = 1  # _IOLBF of glibc and musl
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, line_buffered, 0)
    except (OSError, ValueError, AttributeError):
        pass


def main(argv: Sequence[str]) -> int:
    """Serve one session; see the module's text."""
    parser = argparse.ArgumentParser(description="device worker; started by worker_process.py")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--memory-fd", type=int, required=True)
    parser.add_argument("--limit", type=float, required=True, help="seconds; see _watch")
    args = parser.parse_args(argv)
    faulthandler.enable(2)
    _line_buffer_c()
    for fd in (args.socket_fd, args.memory_fd):
        os.set_inheritable(fd, False)  # a helper of the runtime must not keep them open
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(_OOM_SCORE))
    except OSError:
        pass
    # Python puts a script's folder first: `import onnxruntime` would find the file beside this.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    threading.Thread(target=_watch, args=(args.socket_fd, args.limit), daemon=True).start()
    try:
        Worker(args.backend, args.memory_fd, socket.socket(fileno=args.socket_fd)).serve()
    except (BrokenPipeError, ConnectionResetError):  # the parent is gone
        return 1
    # Not through the interpreter's end: runtimes crash or hang in their destructors.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
