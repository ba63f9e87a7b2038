"""What a simulated chip does with a compiled model: load it, execute it, take its time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.simulator import om
from harness.simulator.host import Host, crash, hang

Array = npt.NDArray[Any]
SPUN_S = 0.005  # of an execution that takes longer


class DeviceLost(Exception):
    """The device cannot be opened: there is none, or it was told to be lost."""


class LoadFailed(Exception):
    """The file cannot be loaded on this chip; the text says why."""


class LoadedModel:
    """A compiled model on a device, entered in the device's process table until `close`."""

    def __init__(self, host: Host, device: int, path: Path) -> None:
        """Load. Raises `DeviceLost` or `LoadFailed`."""
        if device not in range(host.config.devices) or host.strikes("device-lost", device):
            raise DeviceLost
        self._host = host
        self._device = device
        config = host.config
        try:
            header, payload = om.read(path)
        except (om.OmError, OSError) as error:
            raise LoadFailed(str(error)) from None
        if header.soc_version != config.soc_version:
            raise LoadFailed(f"compiled for {header.soc_version}, this is {config.soc_version}")
        self._header = header
        self.batch_sizes = header.batch_sizes
        self.batch = 0  # which of them is chosen
        self.inputs = header.inputs
        self._wrong_dtype = host.strikes("wrong-dtype", device)
        self.outputs = tuple(
            om.Tensor(t.name, t.shape, "float16") if self._wrong_dtype else t
            for t in header.outputs
        )
        self._nan = host.strikes("nan", device)
        self._slow = host.strikes("slow", device)
        self.loses_outputs = host.strikes("missing-outputs", device)
        self._entry = host.register(device)
        try:
            if host.strikes("crash-open", device):
                crash()
            self._session = _open_onnxruntime(payload) if config.compute == "onnx" else None
        except BaseException:
            self._entry.close()
            raise

    def execute(self, buffers: Sequence[Array]) -> tuple[list[Array], float, float]:
        """Return outputs of one execution on raw bytes, its begin and its end in ms.

        `buffers` are in the order of the inputs and have their sizes in bytes.
        """
        self._entry.running(True)
        try:
            if self._host.strikes("hang-run", self._device):
                hang()
            if self._host.strikes("crash-run", self._device):
                crash()
            began = time.perf_counter()
            outputs = self._compute(buffers)
            ended = self._take_time(began)
        finally:
            self._entry.running(False)
        return self._spoil(outputs), 1000.0 * began, 1000.0 * ended

    def _compute(self, buffers: Sequence[Array]) -> list[Array]:
        if self._session is None:
            whole = [np.zeros(t.shape, t.dtype) for t in self._header.outputs]
            return [output[: self.batch or None] for output in whole]
        feeds = {
            t.name: np.frombuffer(buffer, t.dtype).reshape(t.shape)
            for t, buffer in zip(self.inputs, buffers, strict=True)
        }
        return list(self._session.run([t.name for t in self._header.outputs], feeds))

    def _take_time(self, began: float) -> float:
        """Return when the execution ended, or is said to have ended: seconds of `perf_counter`."""
        kind, ms = self._host.config.time
        seconds = time.perf_counter() - began if ms is None else ms / 1000.0
        end = began + (2.0 if self._slow else 1.0) * seconds
        if kind == "given":
            return end
        # Slept, so that the host's cores can feed other chips; the last part is spun, since a sleep
        # overshoots by what the kernel likes.
        while (left := end - time.perf_counter()) > 0:
            if left > SPUN_S:
                time.sleep(left - SPUN_S)
        return time.perf_counter()

    def _spoil(self, outputs: list[Array]) -> list[Array]:
        if self._nan:
            outputs = [output.copy() for output in outputs]
            outputs[0].reshape(-1)[0] = np.nan
        if self._wrong_dtype:
            outputs = [output.astype(np.float16) for output in outputs]
        return outputs

    def close(self) -> None:
        """Unload; safe to call twice."""
        self._session = None
        self._entry.close()


def _open_onnxruntime(payload: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
