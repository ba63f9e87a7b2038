"""A stand-in for the `aclruntime` extension module: models on simulated chips.

The surface is what the public `ais_bench` front-ends call for a static model in their mode
`array`, and its messages are the known ones. Dynamic shapes, AIPP and pipelines are not simulated.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.simulator import om
from harness.simulator.chip import DeviceLost, LoadedModel, LoadFailed, open_device
from harness.simulator.host import Host

__all__ = (
    "BaseTensor",
    "InferenceSession",
    "Tensor",
    "session_options",
    "sumary",
    "tensor_desc",
)

Array = npt.NDArray[Any]

DATATYPES: Mapping[str, int] = {
    "float32": 0,
    "float16": 1,
    "int8": 2,
    "int32": 3,
    "uint8": 4,
    "int64": 9,
    "float64": 11,
}
_FAILURE = "[-1][ACL: general failure] "
_INVALID = "[1][ACL: invalid parameter] "
_RUNTIME = "[3][ACL: runtime failure] "


@dataclass
class _Process:
    """What acl keeps for a whole process."""

    initialised: bool = False
    finalised: bool = False
    devices: list[int] = field(default_factory=list)
    models: int = 0


_process = _Process()


def _info(text: str) -> None:
    print(f"[INFO] {text}", flush=True)


def _fails(said: str, code: str) -> RuntimeError:
    """Print why a call fails and return what it raises."""
    print(f"[ERROR] {said}", flush=True)
    return RuntimeError(code)


@dataclass
class session_options:
    """How a session is opened: `loop` executions for each run."""

    loop: int = 1


class sumary:
    """Times of the executions: ms each before 2024, later (start, end) in ms, as float32."""

    def __init__(self) -> None:
        self.exec_time_list: list[Any] = []


class tensor_desc:
    """One input or output; `size` and `realsize` in bytes."""

    def __init__(self, tensor: om.Tensor) -> None:
        self.name = tensor.name
        self.datatype = DATATYPES[tensor.dtype]
        self.shape = list(tensor.shape)
        self.size = self.realsize = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize


class BaseTensor:
    """Bytes of somebody else's memory: an address and a size."""

    def __init__(self, buf: int, size: int) -> None:
        self.buf = int(buf)
        self.size = int(size)

    def _bytes(self) -> Array:
        if self.size == 0:
            return np.empty(0, np.uint8)
        memory = memoryview((ctypes.c_char * self.size).from_address(self.buf))
        return np.frombuffer(memory, np.uint8)


class Tensor:
    """An array on the host (device -1) or on a device; NumPy can read it on the host alone."""

    def __init__(self, array: Any, device: int = -1) -> None:
        self._array: Array = np.ascontiguousarray(array)
        self.device = device

    def to_device(self, device: int) -> None:
        """Copy to a device: later changes of the host's array are not seen."""
        self._array = self._array.copy()
        self.device = int(device)

    def to_host(self) -> None:
        """Copy back."""
        self.to_device(-1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.device >= 0:
            raise RuntimeError("tensor is in npu. can't convert to numpy array")
        array = self._array if dtype is None else self._array.astype(dtype)
        return array.copy() if copy else array

    def _bytes(self) -> Array:
        return self._array.reshape(-1).view(np.uint8)


class InferenceSession:
    """A compiled model on one device of the simulated host."""

    def __init__(self, path: str, device: int, options: session_options) -> None:
        if not Path(path).is_file():
            raise _fails("model path illegal, please check.", "please check model path")
        if not 0 <= device <= 255:
            raise RuntimeError("device id is out of range")
        if _process.finalised:
            raise _fails("acl init failed", _INVALID)
        self._options = options
        self._device = device
        self._host = Host.load()
        self._host.log_call("aclruntime", [path, str(device)])
        self._pairs = self._host.config.generation == "v5"
        self._zero_ms = 1000.0 * time.perf_counter()
        self._summary = sumary()
        self._model: LoadedModel | None = self._open(path)
        # For what reads the outputs; nothing that a real session has.
        self.loses_outputs = self._model.loses_outputs
        self._inputs = [tensor_desc(tensor) for tensor in self._model.inputs]
        self._outputs = [tensor_desc(tensor) for tensor in self._model.outputs]
        _info(f"load model {path} success")
        _info("create model description success")

    def _open(self, path: str) -> LoadedModel:
        if not _process.initialised:
            _process.initialised = True
            _info("acl init success")
        try:
            logical = open_device(self._host, self._device)
        except DeviceLost:
            print(
                f"EL0003: [PID: {os.getpid()}] The argument is invalid. Reason: open device "
                f"{self._device} failed, runtime result = 507033."
            )
            said = f"acl open device {self._device} failed"
            raise _fails(said, "[507033][Error code unknown] ") from None
        if self._device not in _process.devices:
            _process.devices.append(self._device)
            _info(f"open device {self._device} success")
        _info("create new context")
        try:
            model = LoadedModel(self._host, logical, Path(path))
        except LoadFailed as error:
            said = f"load model from file failed, model file is {path}: {error}"
            raise _fails(said, _INVALID) from None
        _process.models += 1
        self._id = _process.models
        return model

    def get_inputs(self) -> list[tensor_desc]:
        """Return what the model takes, in order."""
        return self._inputs

    def get_outputs(self) -> list[tensor_desc]:
        """Return what the model gives, in order."""
        return self._outputs

    def options(self) -> session_options:
        """Return the options, to be changed in place."""
        return self._options

    def sumary(self) -> sumary:
        """Return the times of the executions since the last reset."""
        return self._summary

    def reset_sumaryinfo(self) -> int:
        """Forget the times; pairs go on counting from the session's begin."""
        self._summary.exec_time_list = []
        return 0

    def run(self, output_names: Sequence[str], feeds: Sequence[Any]) -> list[Tensor]:
        """Execute `options().loop` times on `Tensor`s or `BaseTensor`s, in input order.

        Outputs stay on the device.
        """
        if self._model is None:
            raise _fails("set context failed: the session was freed", _INVALID)
        if not all(isinstance(feed, BaseTensor | Tensor) for feed in feeds):
            raise TypeError("run(): incompatible function arguments.")
        buffers = [feed._bytes() for feed in feeds]
        given, needed = len(buffers), len(self._inputs)
        if given != needed:
            raise _fails(
                f"feeds size: {given} not equal to model tensor desc size: {needed}", _RUNTIME
            )
        for i, (desc, buffer) in enumerate(zip(self._inputs, buffers, strict=True)):
            if buffer.nbytes != desc.realsize:
                raise _fails(
                    f"check i:{i} name:{desc.name} in size:{buffer.nbytes} "
                    f"needsize:{desc.realsize} not match",
                    _FAILURE,
                )
        outputs: list[Array] = []
        loops = self._options.loop
        for i in range(loops):
            outputs, start, end = self._model.execute(buffers)
            self._summary.exec_time_list.append(self._timed(start, end))
            if loops > 1:
                sys.stdout.write(f"\rloop inference exec: ({i + 1}/{loops})")
                sys.stdout.flush()
        if loops > 1:
            print(flush=True)
        names = [desc.name for desc in self._outputs]
        return [Tensor(outputs[names.index(name)], self._device) for name in output_names]

    def _timed(self, start: float, end: float) -> Any:
        if not self._pairs:
            return float(np.float32(end - start))
        # Floats of C, counted from the session's begin: after an hour they tell 0.25 ms apart.
        return float(np.float32(start - self._zero_ms)), float(np.float32(end - self._zero_ms))

    def free_resource(self) -> int:
        """Unload the model; the session is of no use any more. Safe to call twice."""
        model, self._model = self._model, None
        if model is not None:
            model.close()
            _info(f"unload model success, model Id is {self._id}")
        return 0

    @staticmethod
    def finalize() -> int:
        """Give up all devices; no session can be opened in this process after it."""
        if _process.initialised and not _process.finalised:
            for device in _process.devices:
                _info(f"end to reset device {device}")
            _info("end to finalize acl")
            _process.finalised = True
        return 0

    def __del__(self) -> None:
        model = getattr(self, "_model", None)
        if model is not None:
            model.close()
