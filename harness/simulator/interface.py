"""What `ais_bench.infer.interface` offers, over the simulated `aclruntime`, in three generations.

Like the real one it checks the size of what it is fed, in bytes, and neither shape nor type. The
latest generation looks at a model's path before it opens it, as its command line does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.simulator import aclruntime


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
        return (
            f"path: {full} is group writable or open to others, permission should not be over "
            f"{most}"
        )
    if not writing and not (status.st_mode & 0o400 and os.access(full, os.R_OK)):
        return f"path: {full} cannot be read, permission should be at least 0o400"
    return ""


class Session:
    """What all generations have."""

    def __init__(
        self,
        device_id: int,
        model_path: str,
        acl_json_path: str | None = None,
        debug: bool = False,
        loop: int = 1,
    ) -> None:
        self.device_id = device_id
        options = aclruntime.session_options()
        options.log_level = aclruntime.DEBUG if debug else aclruntime.INFO
        options.loop = loop
        self.session = aclruntime.InferenceSession(model_path, device_id, options)
        self.outputs_names = [desc.name for desc in self.session.get_outputs()]

    def get_inputs(self) -> list[aclruntime.tensor_desc]:
        """Return descriptions of the inputs."""
        return self.session.get_inputs()

    def get_outputs(self) -> list[aclruntime.tensor_desc]:
        """Return descriptions of the outputs."""
        return self.session.get_outputs()

    def set_loop_count(self, loop: int) -> None:
        """Set the executions for each `run` from now on."""
        self.session.options().loop = loop

    def run(self, feeds: Sequence[Any], out_array: bool = False) -> list[Any]:
        """Execute on arrays or tensors in input order."""
        inputs: Sequence[Any] = feeds
        if len(feeds) > 0 and isinstance(feeds[0], np.ndarray):
            inputs = [aclruntime.BaseTensor(feed.ctypes.data, feed.nbytes) for feed in feeds]
        outputs = self.session.run(self.outputs_names, inputs)
        if not out_array:
            return outputs
        for tensor in outputs:
            tensor.to_host()
        return [np.array(tensor) for tensor in outputs]

    def _infer(self, feeds: Any, mode: str, out_array: bool) -> list[Any]:
        if not isinstance(feeds, list) or not feeds:
            raise ValueError("feeds must be a list that is not empty")
        if mode != "static":
            raise ValueError(f"mode {mode}: only static models are simulated")
        inputs = [_feed(feed) for feed in feeds]
        self.session.set_staticbatch()
        outputs = self.run(inputs, out_array)
        return outputs[:-1] if self.session.loses_outputs else outputs

    def free_resource(self) -> None:
        """Unload the model."""
        self.session.free_resource()


class InferSession(Session):
    """Since 2024-02: outputs as arrays or device tensors, times as (start, end)."""

    def __init__(self, device_id: int, model_path: str, *more: Any, **options: Any) -> None:
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
        super().__init__(device_id, model_path, *more, **options)

    def infer(
        self,
        feeds: Any,
        mode: str = "static",
        custom_sizes: int | list[int] = 100000,
        out_array: bool = True,
    ) -> list[Any]:
        """Execute on a list of arrays in input order."""
        return self._infer(feeds, mode, out_array)

    def summary(self) -> aclruntime.sumary:
        """Return the times of the executions: `exec_time_list`."""
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
        return self._infer(feeds, mode, True)

    def sumary(self) -> aclruntime.sumary:
        """Return the times of the executions: `exec_time_list`."""
        return self.session.sumary()

    def reset_sumaryinfo(self) -> None:
        """Forget the times."""
        self.session.reset_sumaryinfo()

    def finalize(self) -> None:
        """Give up all devices of this process."""
        self.session.finalize()


class OldestInferSession(OldInferSession):
    """Of 2022: `infer` has no default for its mode."""

    def infer(  # type: ignore[override]  # the default came later
        self, feeds: Any, mode: str, custom_sizes: int | list[int] = 100000
    ) -> list[Any]:
        """Execute on a list of arrays in input order."""
        return self._infer(feeds, mode, True)


class MemorySummary:
    """Milliseconds of copies, of the whole process."""

    @staticmethod
    def get_h2d_time_list() -> list[float]:
        """Return those from host to device."""
        return aclruntime.MemorySummary().H2D_time_list

    @staticmethod
    def reset() -> None:
        """Forget them."""
        aclruntime.MemorySummary().reset()


class OldMemorySummary:
    """The same, by the names before 2024."""

    get_H2D_time_list = staticmethod(MemorySummary.get_h2d_time_list)
    reset = staticmethod(MemorySummary.reset)


def _feed(feed: Any) -> Any:
    if isinstance(feed, np.ndarray | np.generic):
        return np.ascontiguousarray(feed)
    if isinstance(feed, aclruntime.Tensor):
        return feed
    raise RuntimeError(f"type:{type(feed)} invalid")
