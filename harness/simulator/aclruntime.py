"""A stand-in for the `aclruntime` extension module: models on simulated chips.

The surface is the one that the public `ais_bench` front-end calls (README of the Ascend target
names the versions), and its messages are the known ones. Static models only: what is dynamic is
refused with the real module's words. AIPP is not simulated.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
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
    "MemorySummary",
    "Tensor",
    "infer_options",
    "model",
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
    "int16": 6,
    "uint16": 7,
    "uint32": 8,
    "int64": 9,
    "uint64": 10,
    "float64": 11,
    "bool": 12,
}
_NCHW, _ND = 0, 2
_MAX_LOOP = 100_000

_FAILURE = "[-1][ACL: general failure] "
_INVALID = "[1][ACL: invalid parameter] "
_RUNTIME = "[3][ACL: runtime failure] "

DEBUG, INFO, WARNING, ERROR = 1, 2, 3, 4


class _Process:
    """What acl keeps for a whole process."""

    def __init__(self) -> None:
        self.level = INFO
        self.initialised = False
        self.finalised = False
        self.devices: list[int] = []
        self.models = 0
        self.h2d: list[float] = []
        self.d2h: list[float] = []


_process = _Process()


def _log(level: int, text: str) -> None:
    if level >= _process.level:
        name = {DEBUG: "DEBUG", INFO: "INFO", WARNING: "WARN", ERROR: "ERROR"}[level]
        print(f"[{name}] {text}", flush=True)


class session_options:
    """How a session is opened: `log_level` 1 to 4, `loop` executions for each run."""

    def __init__(self) -> None:
        self.loop = 1
        self.log_level = INFO
        self.acl_json_path = ""


class infer_options:
    """How `run_pipeline` reads and writes files."""

    def __init__(self) -> None:
        self.output_dir = ""
        self.auto_dym_shape = False
        self.auto_dym_dims = False
        self.out_format = "BIN"
        self.pure_infer_mode = False
        self.output_names: list[str] = []
        self.shapes_list: list[Any] = []


class sumary:
    """Times of the executions: ms each before 2024, later (start, end) in ms, as float32."""

    def __init__(self) -> None:
        self.exec_time_list: list[Any] = []


class tensor_desc:
    """One input or output; `size` and `realsize` in bytes."""

    def __init__(self) -> None:
        self.name = ""
        self.datatype = 0
        self.format = _ND
        self.shape: list[int] = []
        self.realsize = 0
        self.size = 0


def _described(tensor: om.Tensor) -> tensor_desc:
    desc = tensor_desc()
    desc.name = tensor.name
    desc.datatype = DATATYPES[tensor.dtype]
    desc.format = _NCHW if len(tensor.shape) == 4 else _ND
    desc.shape = list(tensor.shape)
    desc.size = desc.realsize = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
    return desc


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

    def __init__(self, array: Any) -> None:
        self._array: Array = np.ascontiguousarray(array)
        self._device = -1

    @property
    def shape(self) -> list[int]:
        """The sides."""
        return list(self._array.shape)

    @property
    def dtype(self) -> int:
        """As `datatype` of a description."""
        return DATATYPES[self._array.dtype.name]

    @property
    def device(self) -> int:
        """The device's id, -1 on the host."""
        return self._device

    def to_device(self, device: int) -> None:
        """Copy to a device: later changes of the host's array are not seen."""
        began = time.perf_counter()
        self._array = self._array.copy()
        self._device = int(device)
        _process.h2d.append(1000.0 * (time.perf_counter() - began))

    def to_host(self) -> None:
        """Copy back."""
        if self._device >= 0:
            began = time.perf_counter()
            self._array = self._array.copy()
            self._device = -1
            _process.d2h.append(1000.0 * (time.perf_counter() - began))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self._device >= 0:
            raise RuntimeError("tensor is in npu. can't convert to numpy array")
        array = self._array if dtype is None else self._array.astype(dtype)
        return array.copy() if copy else array

    def _bytes(self) -> Array:
        return self._array.reshape(-1).view(np.uint8)


class MemorySummary:
    """Milliseconds of the copies to and from devices, of the whole process."""

    @property
    def H2D_time_list(self) -> list[float]:
        """Host to device."""
        return _process.h2d

    @property
    def D2H_time_list(self) -> list[float]:
        """Device to host."""
        return _process.d2h

    def reset(self) -> None:
        """Forget them."""
        _process.h2d = []
        _process.d2h = []


class InferenceSession:
    """A compiled model on one device of the simulated host."""

    def __init__(self, path: str, device: int, options: session_options) -> None:
        if not isinstance(device, int):
            raise TypeError("__init__(): incompatible constructor arguments")
        if not 0 < options.loop <= _MAX_LOOP:
            raise RuntimeError("loop num out of range. Please check.")
        if not Path(path).is_file():
            _log(ERROR, "model path illegal, please check.")
            raise RuntimeError("please check model path")
        if not 0 <= device <= 255:
            raise RuntimeError("device id is out of range")
        if _process.finalised:
            _log(ERROR, "acl init failed")
            raise RuntimeError(_INVALID)
        _process.level = options.log_level
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
        self._inputs = [_described(t) for t in self._model.inputs]
        self._outputs = [_described(t) for t in self._model.outputs]
        if not self._pairs:
            self.finalize = self._unload_and_finalize  # type: ignore[method-assign]
        _log(INFO, f"load model {path} success")
        _log(INFO, "create model description success")

    def _open(self, path: str) -> LoadedModel:
        if not _process.initialised:
            _process.initialised = True
            _log(INFO, "acl init success")
        try:
            logical = open_device(self._host, self._device)
        except DeviceLost:
            print(
                f"EL0003: [PID: {_pid()}] The argument is invalid. Reason: open device "
                f"{self._device} failed, runtime result = 507033.",
                flush=True,
            )
            _log(ERROR, f"acl open device {self._device} failed")
            raise RuntimeError("[507033][Error code unknown] ") from None
        if self._device not in _process.devices:
            _process.devices.append(self._device)
            _log(INFO, f"open device {self._device} success")
        _log(INFO, "create new context")
        try:
            model = LoadedModel(self._host, logical, Path(path))
        except LoadFailed as error:
            _log(ERROR, f"load model from file failed, model file is {path}: {error}")
            raise RuntimeError(_INVALID) from None
        _process.models += 1
        self._id = _process.models
        return model

    # --- descriptions -------------------------------------------------------------------------

    def get_inputs(self) -> list[tensor_desc]:
        """What the model takes, in order."""
        return self._inputs

    def get_outputs(self) -> list[tensor_desc]:
        """What the model gives, in order."""
        return self._outputs

    def options(self) -> session_options:
        """The options, to be changed in place."""
        return self._options

    def sumary(self) -> sumary:
        """Times of the executions since the last reset."""
        return self._summary

    def reset_sumaryinfo(self) -> int:
        """Forget the times; pairs go on counting from the session's begin."""
        self._summary.exec_time_list = []
        return 0

    def __repr__(self) -> str:
        lines = ["<Model>", f"device:\t{self._device}"]
        for role, descs in (("input", self._inputs), ("output", self._outputs)):
            lines.append(f"{role}:")
            for i, d in enumerate(descs):
                shape = ", ".join(map(str, d.shape))
                lines.append(f"  #{i}    {d.name}  ({shape})  {d.datatype}  {d.size}  {d.realsize}")
        return "\n".join(lines) + "\n"

    # --- executions ---------------------------------------------------------------------------

    def run(self, output_names: Sequence[str], feeds: Any) -> list[Tensor]:
        """Execute `options().loop` times; outputs stay on the device.

        `feeds` is a list of `Tensor` or of `BaseTensor` in input order, or a dict by input name.
        """
        if isinstance(feeds, Mapping):
            absent = [d.name for d in self._inputs if d.name not in feeds]
            if absent:
                _log(ERROR, f"intensors i:0 name:{absent[0]} not find")
                raise RuntimeError(_FAILURE)
            feeds = [feeds[d.name] for d in self._inputs]
        if not all(isinstance(feed, BaseTensor | Tensor) for feed in feeds):
            raise TypeError("run(): incompatible function arguments.")
        began = time.perf_counter()
        buffers = [feed._bytes() for feed in feeds]
        if any(isinstance(feed, BaseTensor) or feed.device < 0 for feed in feeds):
            # The chip reads the host's memory: there is nothing to copy.
            _process.h2d.append(1000.0 * (time.perf_counter() - began))
        outputs = self._execute(buffers, self._options.loop)
        names = [d.name for d in self._outputs]
        unknown = [name for name in output_names if name not in names]
        if unknown:
            _log(ERROR, f"outnames {unknown[0]} not valid")
            raise RuntimeError(_FAILURE)
        chosen = [outputs[names.index(name)] for name in output_names]
        return [self._on_device(array) for array in chosen]

    def run_setinputs(self, feeds: Any) -> int:
        """First of the three steps that v1 takes for one `run`."""
        self._staged = [feed._bytes() for feed in feeds]
        return 0

    def run_execute(self, loop: int = 1) -> int:
        """Second step."""
        self._staged_outputs = self._execute(self._staged, loop)
        return 0

    def run_getoutputs(self, output_names: Sequence[str]) -> list[Tensor]:
        """Third step."""
        names = [d.name for d in self._outputs]
        return [self._on_device(self._staged_outputs[names.index(n)]) for n in output_names]

    def _on_device(self, array: Array) -> Tensor:
        tensor = Tensor(array)
        tensor._device = self._device
        return tensor

    def _execute(self, buffers: Sequence[Array], loops: int) -> list[Array]:
        if self._model is None:
            _log(ERROR, "set context failed: the session was freed")
            raise RuntimeError(_INVALID)
        if len(buffers) != len(self._inputs):
            _log(
                ERROR,
                f"feeds size: {len(buffers)} not equal to model tensor desc size: "
                f"{len(self._inputs)}",
            )
            raise RuntimeError(_RUNTIME)
        for i, (desc, buffer) in enumerate(zip(self._inputs, buffers, strict=True)):
            if buffer.nbytes != desc.realsize:
                _log(
                    ERROR,
                    f"check i:{i} name:{desc.name} in size:{buffer.nbytes} "
                    f"needsize:{desc.realsize} not match",
                )
                raise RuntimeError(_FAILURE)
        outputs: list[Array] = []
        for i in range(loops):
            outputs, start, end = self._model.execute(buffers)
            self._summary.exec_time_list.append(self._timed(start, end))
            if loops > 1:
                sys.stdout.write(f"\rloop inference exec: ({i + 1}/{loops})")
                sys.stdout.flush()
        if loops > 1:
            print(flush=True)
        return outputs

    def _timed(self, start: float, end: float) -> Any:
        if self._pairs:
            # Floats of C, counted from the session's begin: after an hour they tell 0.25 ms apart.
            return (
                float(np.float32(start - self._zero_ms)),
                float(np.float32(end - self._zero_ms)),
            )
        return float(np.float32(end - start))

    def run_pipeline(self, *arguments: Any) -> Any:
        """Two forms: (files, options, sessions), and (names, feeds, shapes, dymshape, dymdims)."""
        if len(arguments) == 3:
            return self._pipeline_files(*arguments)
        names, feeds_list, _shapes, dymshape, dymdims = arguments
        if dymshape or dymdims:
            raise RuntimeError(_FAILURE)
        results = []
        for feeds in feeds_list:
            outputs = self.run(names, feeds)
            for tensor in outputs:
                tensor.to_host()
            results.append(outputs)
        return results

    def _pipeline_files(
        self, files_list: Sequence[Sequence[str]], options: infer_options, _sessions: Any
    ) -> None:
        names = [d.name for d in self._outputs]
        for files in files_list:
            feeds: list[Any] = []
            for desc, file in zip(self._inputs, files, strict=True):
                if options.pure_infer_mode:
                    data = np.zeros(desc.realsize, np.uint8)
                elif file.lower().endswith(".npy"):
                    data = np.load(file)
                else:
                    data = np.fromfile(file, np.uint8)
                feeds.append(Tensor(data))
            for i, tensor in enumerate(self.run(names, feeds)):
                tensor.to_host()
                if options.output_dir:
                    first = Path(files[0]).name.split(".")[0]
                    stem = "pure_infer_data" if options.pure_infer_mode else first
                    suffix = options.out_format.lower()
                    write_output(
                        Path(options.output_dir) / f"{stem}_{i}.{suffix}", np.asarray(tensor)
                    )

    def create_tensor_from_fileslist(self, desc: tensor_desc, files: Iterable[str]) -> Tensor:
        """One device tensor from the bytes of several files."""
        data = np.concatenate([np.fromfile(file, np.uint8) for file in files])
        if data.nbytes != desc.realsize:
            raise RuntimeError(_FAILURE)
        name = next(name for name, number in DATATYPES.items() if number == desc.datatype)
        tensor = Tensor(data.view(name).reshape(desc.shape))
        tensor.to_device(self._device)
        return tensor

    # --- what static models need ---------------------------------------------------------------

    def set_context(self) -> None:
        """Nothing to do: sessions of one process do not disturb each other here."""

    def set_staticbatch(self) -> int:
        """The only mode of the models here."""
        return 0

    def set_custom_outsize(self, sizes: Sequence[int]) -> int:
        """Taken and ignored, as for every static model."""
        return 0

    def get_dym_aipp_input_exist(self) -> int:
        """How many inputs have dynamic AIPP: none."""
        return 0

    def get_max_dym_batchsize(self) -> int:
        """The largest dynamic batch size: there is none."""
        return 0

    def set_dynamic_batchsize(self, batch: Any) -> int:
        """Refused."""
        return _not_dynamic("not a dymbatch model!")

    def set_dynamic_hw(self, width: int, height: int) -> int:
        """Refused."""
        return _not_dynamic("not a dymhw model!")

    def set_dynamic_dims(self, dims: str) -> int:
        """Refused."""
        return _not_dynamic("the dynamic_dims parameter is not specified for model conversion")

    def set_dynamic_shape(self, shape: str) -> int:
        """Refused."""
        return _not_dynamic("check dynamic shape failed")

    # --- the end -------------------------------------------------------------------------------

    def free_resource(self) -> int:
        """Unload the model; the session is of no use any more. Safe to call twice."""
        model, self._model = self._model, None
        if model is not None:
            model.close()
            _log(INFO, f"unload model success, model Id is {self._id}")
        return 0

    def _unload_and_finalize(self) -> int:
        # Before 2024 it was a method, and there was no free_resource to call first.
        self.free_resource()
        return type(self).finalize()

    @staticmethod
    def finalize() -> int:
        """Give up all devices; no session can be opened in this process after it."""
        if not _process.initialised or _process.finalised:
            return 0
        for device in _process.devices:
            _log(INFO, f"end to reset device {device}")
        _log(INFO, "end to finalize acl")
        _process.finalised = True
        return 0

    def __del__(self) -> None:
        model = getattr(self, "_model", None)
        if model is not None:
            model.close()


def model(
    modelPath: str, deviceId: int = 0, options: session_options | None = None
) -> InferenceSession:
    """A session, by the module's other name for it."""
    return InferenceSession(modelPath, deviceId, options or session_options())


def write_output(path: Path, array: Array, *, append: bool = False) -> None:
    """Write one output as ais_bench does: raw bytes, `.npy`, or text with six digits."""
    if path.suffix == ".bin":
        array.tofile(path)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        form = "%d" if np.issubdtype(array.dtype, np.integer) else "%f"
        with path.open("a" if append else "w") as file:
            for row in np.atleast_2d(array).reshape(-1, array.shape[-1] if array.ndim else 1):
                file.write(" ".join(form % value for value in row) + " \n")


def _not_dynamic(text: str) -> int:
    _log(ERROR, text)
    raise RuntimeError(_FAILURE)


def _pid() -> int:
    import os

    return os.getpid()
