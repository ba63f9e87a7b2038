"""What a simulated chip does with a compiled model: load it, execute it, take its time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.simulator import om
from harness.simulator.config import SimulatorConfig
from harness.simulator.host import Host, crash, hang

Array = npt.NDArray[Any]


class DeviceLost(Exception):
    """The device cannot be opened."""


class LoadFailed(Exception):
    """The file cannot be loaded on this chip; the text says why."""


def open_device(host: Host, device: int) -> int:
    """Return the logical id of a runtime's device id; faults of opening strike here.

    Raises:
        DeviceLost: there is no such device, or it was told to be lost.
    """
    logical = host.visible_device(device)
    if logical is None or host.strikes("device-lost", logical):
        raise DeviceLost
    return logical


class LoadedModel:
    """A compiled model on a device, entered in the device's process table until `close`."""

    def __init__(self, host: Host, device: int, path: Path) -> None:
        """Load.

        Raises:
            LoadFailed: not a whole `.om`, or made for another chip.
        """
        self._host = host
        self._device = device
        config = host.config
        try:
            header, payload = om.read(path, with_payload=config.compute == "onnx")
        except (om.OmError, OSError) as error:
            raise LoadFailed(str(error)) from None
        if header.soc_version != config.soc_version:
            raise LoadFailed(f"compiled for {header.soc_version}, this is {config.soc_version}")
        self.header = header
        self.inputs = header.inputs
        self._wrong_dtype = host.strikes("wrong-dtype", device)
        self.outputs = tuple(
            om.Tensor(t.name, t.shape, "float16") if self._wrong_dtype else t
            for t in header.outputs
        )
        self._nan = host.strikes("nan", device)
        self._slow = host.strikes("slow", device)
        self.loses_outputs = host.strikes("missing-outputs", device)
        self._timing, usual_ms = config.time
        self._ms = _listed_ms(config, header) or usual_ms
        if self._ms is None and self._timing != "real":
            raise LoadFailed("the table of times has no entry for it")
        self._entry = host.register(device)
        try:
            if host.strikes("hang-open", device):
                hang()
            if host.strikes("crash-open", device):
                crash()
            self._session = open_onnxruntime(payload, config.threads) if payload else None
        except BaseException:
            self._entry.close()
            raise

    def execute(self, buffers: Sequence[Array]) -> tuple[list[Array], float, float]:
        """Outputs of one execution on raw bytes, and its begin and end in ms of `perf_counter`.

        `buffers` are in the order of the inputs and have their sizes in bytes.
        """
        if self._host.strikes("hang-run", self._device):
            self._entry.running(True)
            hang()
        if self._host.strikes("crash-run", self._device):
            crash()
        self._entry.running(True)
        try:
            began = time.perf_counter()
            outputs = self._compute(buffers)
            ended = self._take_time(began)
        finally:
            self._entry.running(False)
        return self._spoil(outputs), 1000.0 * began, 1000.0 * ended

    def _compute(self, buffers: Sequence[Array]) -> list[Array]:
        if self._session is None:
            return [np.zeros(t.shape, t.dtype) for t in self.header.outputs]
        feeds = {
            t.name: np.frombuffer(buffer, t.dtype).reshape(t.shape)
            for t, buffer in zip(self.inputs, buffers, strict=True)
        }
        names = [t.name for t in self.header.outputs]
        return list(self._session.run(names, feeds))

    def _take_time(self, began: float) -> float:
        """When the execution ended, or is said to have ended: seconds of `perf_counter`."""
        seconds = time.perf_counter() - began if self._ms is None else self._ms / 1000.0
        end = began + (2.0 if self._slow else 1.0) * seconds
        if self._timing == "given":
            return end
        # Spun, not slept: a sleep overshoots by what the kernel likes.
        while time.perf_counter() < end:
            pass
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


def _listed_ms(config: SimulatorConfig, header: om.Header) -> float | None:
    """Milliseconds of the model in the table of times; None where it is not in it."""
    shape = "x".join(str(side) for side in header.inputs[0].shape)
    keys = (header.name, shape, str(header.batch))
    return next((config.times[key] for key in keys if key in config.times), None)


def open_onnxruntime(payload: bytes, threads: int) -> Any:
    """A session on the host's processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
