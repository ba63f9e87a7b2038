"""What `ais_bench.infer.interface` offers, over the simulated `aclruntime`, in two generations.

Like the real one it checks the size of what it is fed, in bytes, and neither shape nor type. The
later generation looks at a model's path before it opens it, as its command line does.
"""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.simulator import aclruntime

MODES = ("static", "dymbatch", "dymhw", "dymdims", "dymshape")
MAX_PIPELINE = 512
MAX_ITERATIONS = 65536


def why_refused(path: str, writing: bool = False) -> str:
    """Why the security checks of v5 refuse a path; empty when they do not.

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
    found = os.stat(full)
    if found.st_uid != os.geteuid() and found.st_gid not in os.getgroups():
        return f"path: {full}: the current user is not its owner or ownergroup"
    forbidden, most = (0o027, "0o750") if writing else (0o022, "0o755")
    if found.st_mode & forbidden:
        return (
            f"path: {full} is group writable or open to others, permission should not be over "
            f"{most}"
        )
    if not writing and not (found.st_mode & 0o400 and os.access(full, os.R_OK)):
        return f"path: {full} cannot be read, permission should be at least 0o400"
    return ""


class Session:
    """What both generations have."""

    def __init__(
        self,
        device_id: int,
        model_path: str,
        acl_json_path: str | None = None,
        debug: bool = False,
        loop: int = 1,
    ) -> None:
        self.device_id = device_id
        self.model_path = model_path
        self.loop = loop
        self.options = aclruntime.session_options()
        self.options.log_level = aclruntime.DEBUG if debug else aclruntime.INFO
        self.options.loop = loop
        self.session = aclruntime.InferenceSession(model_path, device_id, self.options)
        self.outputs_names = [desc.name for desc in self.session.get_outputs()]
        self.intensors_desc = self.session.get_inputs()
        self.outtensors_desc = self.session.get_outputs()

    def get_inputs(self) -> list[aclruntime.tensor_desc]:
        """Descriptions of the inputs."""
        return self.session.get_inputs()

    def get_outputs(self) -> list[aclruntime.tensor_desc]:
        """Descriptions of the outputs."""
        return self.session.get_outputs()

    def set_loop_count(self, loop: int) -> None:
        """Executions for each `run` from now on."""
        self.session.options().loop = loop

    def set_staticbatch(self) -> None:
        """The only mode of a static model."""
        self.session.set_staticbatch()

    def create_tensor_from_arrays_to_device(self, arrays: Any) -> aclruntime.Tensor:
        """A tensor on the session's device."""
        tensor = aclruntime.Tensor(arrays)
        tensor.to_device(self.device_id)
        return tensor

    @staticmethod
    def convert_tensors_to_host(tensors: Sequence[aclruntime.Tensor]) -> None:
        """Copy tensors back, in place."""
        for tensor in tensors:
            tensor.to_host()

    @staticmethod
    def convert_tensors_to_arrays(tensors: Sequence[aclruntime.Tensor]) -> list[Any]:
        """Host tensors as arrays."""
        return [np.array(tensor) for tensor in tensors]

    def run(self, feeds: Sequence[Any], out_array: bool = False) -> list[Any]:
        """Execute on arrays or tensors in input order."""
        inputs: Sequence[Any] = feeds
        if len(feeds) > 0 and isinstance(feeds[0], np.ndarray):
            inputs = [
                aclruntime.BaseTensor(feed.__array_interface__["data"][0], feed.nbytes)
                for feed in feeds
            ]
        outputs = self.session.run(self.outputs_names, inputs)
        if not out_array:
            return outputs
        self.convert_tensors_to_host(outputs)
        return self.convert_tensors_to_arrays(outputs)

    def _infer(
        self, feeds: Any, mode: str, custom_sizes: int | Sequence[int], out_array: bool
    ) -> list[Any]:
        if not isinstance(feeds, list) or not feeds:
            raise ValueError("feeds must be a list that is not empty")
        if mode not in MODES:
            raise ValueError(f"mode {mode} is none of {', '.join(MODES)}")
        inputs = [_feed(feed) for feed in feeds]
        self._prepare(mode, inputs)
        outputs = self.run(inputs, out_array)
        return outputs[:-1] if self.session.loses_outputs else outputs

    def _prepare(self, mode: str, inputs: Sequence[Any]) -> None:
        session = self.session
        if mode == "static":
            session.set_staticbatch()
        elif mode == "dymbatch":
            session.set_dynamic_batchsize(inputs[0].shape[0])
        elif mode == "dymhw":
            session.set_dynamic_hw(*inputs[0].shape[-2:])
        elif mode == "dymdims":
            session.set_dynamic_dims("")
        else:
            session.set_dynamic_shape("")

    def infer_pipeline(
        self, feeds_list: Any, mode: str = "static", custom_sizes: int | list[int] = 100000
    ) -> list[list[Any]]:
        """Many feeds, at most 512 of them, one after another."""
        if not isinstance(feeds_list, list) or not 0 < len(feeds_list) <= MAX_PIPELINE:
            raise ValueError(f"feeds_list must be a list of 1 to {MAX_PIPELINE} feeds")
        return [self._infer(feeds, mode, custom_sizes, True) for feeds in feeds_list]

    def infer_iteration(
        self,
        feeds: Any,
        in_out_list: Sequence[int] | None = None,
        iteration_times: int = 1,
        mode: str = "static",
        custom_sizes: int | list[int] = 100000,
    ) -> list[Any]:
        """Feed outputs back: input i of the next iteration is output `in_out_list[i]`, or kept."""
        if not 1 <= iteration_times <= MAX_ITERATIONS:
            raise ValueError(f"iteration_times {iteration_times} is out of [1, {MAX_ITERATIONS}]")
        inputs = list(feeds)
        outputs: list[Any] = []
        for _ in range(iteration_times):
            outputs = self._infer(inputs, mode, custom_sizes, True)
            inputs = [
                outputs[link] if link >= 0 else old
                for link, old in zip(in_out_list or [-1] * len(inputs), inputs, strict=True)
            ]
        return outputs

    def free_resource(self) -> None:
        """Unload the model."""
        self.session.free_resource()


class InferSession(Session):
    """Since 2024-02: outputs as arrays or device tensors, times as (start, end)."""

    def __init__(
        self,
        device_id: int,
        model_path: str,
        acl_json_path: str | None = None,
        debug: bool = False,
        loop: int = 1,
    ) -> None:
        if not isinstance(model_path, str) or not Path(model_path).is_file():
            raise ValueError(f"model path {model_path} does not exist")
        cause = why_refused(model_path)
        if cause:
            print(f"[ERROR] {cause}", flush=True)
            raise ValueError(f"model path {model_path} is illegal, the error above says why")
        if not model_path.endswith(".om"):
            raise ValueError(f"model path {model_path} must end with .om")
        if not isinstance(device_id, int):
            raise TypeError(f"device_id must be an int, not {type(device_id).__name__}")
        if not 0 <= device_id <= 255:
            raise ValueError(f"device_id {device_id} is out of [0, 255]")
        if not 0 < loop <= 100_000:
            raise ValueError(f"loop {loop} is out of [1, 100000]")
        super().__init__(device_id, model_path, acl_json_path, debug, loop)

    def infer(
        self,
        feeds: Any,
        mode: str = "static",
        custom_sizes: int | list[int] = 100000,
        out_array: bool = True,
    ) -> list[Any]:
        """Execute on a list of arrays in input order."""
        if not isinstance(out_array, bool):
            raise TypeError("out_array must be a bool")
        return self._infer(feeds, mode, custom_sizes, out_array)

    def summary(self) -> aclruntime.sumary:
        """Times of the executions: `exec_time_list`."""
        return self.session.sumary()

    def reset_summaryinfo(self) -> None:
        """Forget the times."""
        self.session.reset_sumaryinfo()

    @staticmethod
    def finalize() -> None:
        """Give up all devices of this process."""
        aclruntime.InferenceSession.finalize()


class OldInferSession(Session):
    """Before 2024-02: other names, times as milliseconds."""

    def infer(
        self, feeds: Any, mode: str = "static", custom_sizes: int | list[int] = 100000
    ) -> list[Any]:
        """Execute on a list of arrays in input order."""
        return self._infer(feeds, mode, custom_sizes, True)

    def sumary(self) -> aclruntime.sumary:
        """Times of the executions: `exec_time_list`."""
        return self.session.sumary()

    def reset_sumaryinfo(self) -> None:
        """Forget the times."""
        self.session.reset_sumaryinfo()

    def finalize(self) -> None:
        """Give up all devices of this process."""
        self.session.finalize()


class MemorySummary:
    """Milliseconds of copies, of the whole process."""

    @staticmethod
    def get_h2d_time_list() -> list[float]:
        """Host to device."""
        return aclruntime.MemorySummary().H2D_time_list

    @staticmethod
    def get_d2h_time_list() -> list[float]:
        """Device to host."""
        return aclruntime.MemorySummary().D2H_time_list

    @staticmethod
    def reset() -> None:
        """Forget them."""
        aclruntime.MemorySummary().reset()


class OldestInferSession(OldInferSession):
    """Of 2022: `infer` has no default for its mode."""

    def infer(  # type: ignore[override]  # the default came later
        self, feeds: Any, mode: str, custom_sizes: int | list[int] = 100000
    ) -> list[Any]:
        """Execute on a list of arrays in input order."""
        return self._infer(feeds, mode, custom_sizes, True)


class OldMemorySummary:
    """The same, by the names before 2024."""

    get_H2D_time_list = staticmethod(MemorySummary.get_h2d_time_list)
    get_D2H_time_list = staticmethod(MemorySummary.get_d2h_time_list)
    reset = staticmethod(MemorySummary.reset)


class MultiDeviceSession:
    """One process for each device; feeds and results are dicts by device id."""

    def __init__(
        self,
        model_path: str,
        acl_json_path: str | None = None,
        debug: bool = False,
        loop: int = 1,
    ) -> None:
        self._arguments = (model_path, acl_json_path, debug, loop)

    def infer(
        self,
        device_feeds: Mapping[int, Sequence[Any]],
        mode: str = "static",
        custom_sizes: int | list[int] = 100000,
    ) -> dict[int, list[Any]]:
        """Each device's feeds (a list of them), side by side."""
        context = multiprocessing.get_context("fork")
        with context.Pool(max(1, len(device_feeds))) as pool:
            pending = {
                device: pool.apply_async(
                    _infer_on, (device, self._arguments, list(feeds), mode, custom_sizes)
                )
                for device, feeds in device_feeds.items()
            }
            return {device: result.get() for device, result in pending.items()}


def _infer_on(
    device: int,
    arguments: tuple[str, str | None, bool, int],
    feeds_list: list[Any],
    mode: str,
    custom_sizes: int | list[int],
) -> list[Any]:
    session = InferSession(device, *arguments)
    try:
        return [session.infer(feeds, mode, custom_sizes) for feeds in feeds_list]
    finally:
        session.free_resource()


def _feed(feed: Any) -> Any:
    if isinstance(feed, np.ndarray | np.generic):
        return np.ascontiguousarray(feed)
    if isinstance(feed, aclruntime.Tensor):
        return feed
    if hasattr(feed, "is_contiguous") and hasattr(feed, "numpy"):  # a torch tensor
        return np.ascontiguousarray(feed.numpy())
    raise RuntimeError(f"type:{type(feed)} invalid")
