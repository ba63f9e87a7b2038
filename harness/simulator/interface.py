"""What `ais_bench.infer.interface` offers, in two generations, on simulated chips.

Like the real one it checks the size of what it is fed, in bytes, and neither shape nor type. The
latest generation looks at a model's path before it opens it, as its command line does. Of dynamic
shapes the batch size is simulated, pipelines are not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.simulator import om
from harness.simulator.chip import DeviceLost, LoadedModel, LoadFailed
from harness.simulator.host import Host

Array = npt.NDArray[Any]

DATATYPES: Mapping[str, int] = {"float32": 0, "float16": 1, "int8": 2, "int32": 3, "uint8": 4}


def why_refused(path: str, writing: bool = False) -> str:
    """Return why the security checks of v5 refuse a path; empty when they do not.

    The path need not exist when it is to be written. Rules: characters of the absolute path, no
    symbolic link, the user's or the user's group's, its owner may read it, nobody else may write
    it, and where one writes nobody else may read it either. They hold for root as well.
    """
    full = os.path.abspath(path)
    if re.search(r"[^A-Za-z0-9_./-]", full):
        return "path contains an illegal char, legal chars are A-Z a-z 0-9 _ - / ."
    if not os.path.exists(full):
        return "" if writing else f"path: {full} does not exist"
    if os.path.islink(full):
        return f"path: {full} is a soft link, not supported"
    status = os.stat(full)
    if status.st_uid != os.geteuid() and status.st_gid not in os.getgroups():
        return f"path: {full}: the current user is not its owner or ownergroup"
    forbidden, most = (0o027, "0o750") if writing else (0o022, "0o755")
    if status.st_mode & forbidden:
        return f"path: {full} is group writable or open to others, more than {most}"
    if not writing and not (status.st_mode & 0o400 and os.access(full, os.R_OK)):
        return f"path: {full} cannot be read, permission should be at least 0o400"
    return ""


def fails(said: str, error: type[Exception] = RuntimeError, code: str = "") -> Exception:
    """Print the cause of a failure, and return what is raised."""
    print(f"[ERROR] {said}", flush=True)
    return error(code or said)


class TensorDesc:
    """One input or output; `size` and `realsize` in bytes: at the `largest` batch size where the
    shape leaves it open, and at that which is chosen.
    """

    def __init__(self, tensor: om.Tensor, largest: int) -> None:
        self.name = tensor.name
        self.datatype = DATATYPES[tensor.dtype]
        self.shape = list(tensor.shape)
        sides = [largest if side < 0 else side for side in tensor.shape]
        self.size = self.realsize = int(np.prod(sides)) * np.dtype(tensor.dtype).itemsize


class Session:
    """What both generations have."""

    pairs = False  # times are (start, end), else durations

    def __init__(self, device_id: int, model_path: str) -> None:
        host = Host.load()
        if not Path(model_path).is_file():
            raise fails("model path illegal, please check.", code="please check model path")
        try:
            self._model = LoadedModel(host, device_id, Path(model_path))
        except DeviceLost:
            print(
                f"EL0003: [PID: {os.getpid()}] The argument is invalid. Reason: open device "
                f"{device_id} failed, runtime result = 507033."
            )
            code = "[507033][Error code unknown] "
            raise fails(f"acl open device {device_id} failed", code=code) from None
        except LoadFailed as error:
            said = f"load model from file failed, model file is {model_path}: {error}"
            raise fails(said, code="[1][ACL: invalid parameter] ") from None
        print(f"[INFO] load model {model_path} success", flush=True)
        self.loses_outputs = self._model.loses_outputs
        self._largest = max(self._model.batch_sizes, default=0)
        self._inputs = [TensorDesc(tensor, self._largest) for tensor in self._model.inputs]
        self._outputs = [TensorDesc(tensor, self._largest) for tensor in self._model.outputs]
        self._loops = 1
        self._zero_ms: float | None = None
        self._times: list[Any] = []

    def get_inputs(self) -> list[TensorDesc]:
        return self._inputs

    def get_outputs(self) -> list[TensorDesc]:
        return self._outputs

    def set_dynamic_batchsize(self, batch: int) -> None:
        """Choose one of the batch sizes that the model was compiled for."""
        sizes = self._model.batch_sizes
        if batch not in sizes:
            said = "the dymBatch parameter is not correct"
            if not sizes:
                said = "the dynamic_batch_size parameter is not specified for model conversion"
            raise fails(said, code="[1][ACL: invalid parameter] ")
        self._model.batch = batch
        for one in self._inputs:
            one.realsize = one.size * batch // self._largest

    def set_loop_count(self, loop: int) -> None:
        self._loops = loop  # executions for each `run` from now on

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Execute on arrays in input order; return the outputs."""
        if self._model.batch_sizes and not self._model.batch:
            raise fails("no batch size is set", code="[-1][ACL: general failure] ")
        buffers = [np.ascontiguousarray(feed).reshape(-1).view(np.uint8) for feed in feeds]
        sizes, needed = [one.nbytes for one in buffers], [one.realsize for one in self._inputs]
        if sizes != needed:
            said = f"check in size:{sizes} needsize:{needed} not match"
            raise fails(said, code="[-1][ACL: general failure] ")
        outputs: list[Array] = []
        for _ in range(self._loops):
            outputs, start, end = self._model.execute(buffers)
            self._times.append(self._timed(start, end))
        return outputs

    def _timed(self, start: float, end: float) -> Any:
        if not self.pairs:
            return float(np.float32(end - start))
        # Floats of C, counted from the session's begin: after an hour they tell 0.25 ms apart.
        self._zero_ms = start if self._zero_ms is None else self._zero_ms
        return float(np.float32(start - self._zero_ms)), float(np.float32(end - self._zero_ms))

    def times_ms(self) -> list[float]:
        """Return how long each execution took since the times were forgotten."""
        return [one if isinstance(one, float) else one[1] - one[0] for one in self._times]

    def forget(self) -> None:
        self._times = []

    def exec_times(self) -> SimpleNamespace:
        return SimpleNamespace(exec_time_list=self._times)

    def infer(self, feeds: list[Array], mode: str = "static") -> list[Array]:
        """Execute on a list of arrays in input order."""
        if mode not in ("static", "dymbatch"):
            raise ValueError(f"mode {mode} is not simulated")
        if mode == "dymbatch":
            if self._inputs[0].shape[0] > 0:
                raise RuntimeError("not a dymbatch model!")
            self.set_dynamic_batchsize(feeds[0].shape[0])
        outputs = self.run(feeds)
        return outputs[:-1] if self.loses_outputs else outputs

    def free_resource(self) -> None:
        """Unload the model; safe to call twice."""
        self._model.close()


class InferSession(Session):
    """Since 2024-02: times as (start, end)."""

    pairs = True

    def __init__(self, device_id: int, model_path: str) -> None:
        if cause := why_refused(model_path):
            raise fails(cause, ValueError, f"model path {model_path} is illegal")
        super().__init__(device_id, model_path)

    summary, reset_summaryinfo = Session.exec_times, Session.forget

    @staticmethod
    def finalize() -> None:
        """Give up all devices of this process."""


class OldInferSession(Session):
    """Of 2022: other names, times as milliseconds, and `infer` has no default for its mode."""

    sumary, reset_sumaryinfo = Session.exec_times, Session.forget

    def infer(self, feeds: list[Array], mode: str) -> list[Array]:  # type: ignore[override]
        return super().infer(feeds, mode)

    def finalize(self) -> None:
        self.free_resource()
