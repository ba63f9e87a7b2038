"""What `ais_bench.infer.interface` offers, over the simulated `aclruntime`, in three generations.

Like the real one it checks the size of what it is fed, in bytes, and neither shape nor type. The
latest generation looks at a model's path before it opens it, as its command line does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.simulator import aclruntime

Array = npt.NDArray[Any]


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


class Session:
    """What all generations have."""

    def __init__(self, device_id: int, model_path: str) -> None:
        options = aclruntime.session_options()
        self.session = aclruntime.InferenceSession(model_path, device_id, options)

    def get_inputs(self) -> list[aclruntime.tensor_desc]:
        """Return descriptions of the inputs."""
        return self.session.get_inputs()

    def get_outputs(self) -> list[aclruntime.tensor_desc]:
        """Return descriptions of the outputs."""
        return self.session.get_outputs()

    def set_loop_count(self, loop: int) -> None:
        """Set the executions for each `run` from now on."""
        self.session.options().loop = loop

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Execute on arrays in input order; return the outputs on the host."""
        inputs = [aclruntime.BaseTensor(feed.ctypes.data, feed.nbytes) for feed in feeds]
        tensors = self.session.run([desc.name for desc in self.get_outputs()], inputs)
        for tensor in tensors:
            tensor.to_host()
        return [np.array(tensor) for tensor in tensors]

    def times_ms(self) -> list[float]:
        """Return how long each execution took since the times were reset."""
        entries = self.session.sumary().exec_time_list
        return [one if isinstance(one, float) else one[1] - one[0] for one in entries]

    def infer(self, feeds: Any, mode: str = "static") -> list[Array]:
        """Execute on a list of arrays in input order."""
        if not isinstance(feeds, list) or not feeds:
            raise ValueError("feeds must be a list that is not empty")
        if mode != "static":
            raise ValueError(f"mode {mode}: only static models are simulated")
        for feed in feeds:
            if not isinstance(feed, np.ndarray):
                raise RuntimeError(f"type:{type(feed)} invalid")
        outputs = self.run([np.ascontiguousarray(feed) for feed in feeds])
        return outputs[:-1] if self.session.loses_outputs else outputs


class InferSession(Session):
    """Since 2024-02: times as (start, end)."""

    def __init__(self, device_id: int, model_path: str) -> None:
        if cause := why_refused(model_path):
            print(f"[ERROR] {cause}", flush=True)
            raise ValueError(f"model path {model_path} is illegal, the error above says why")
        if not model_path.endswith(".om"):
            raise ValueError(f"model path {model_path} must end with .om")
        if not 0 <= device_id <= 255:
            raise ValueError(f"device_id {device_id} is out of [0, 255]")
        super().__init__(device_id, model_path)

    def summary(self) -> aclruntime.sumary:
        """Return the times of the executions: `exec_time_list`."""
        return self.session.sumary()

    def reset_summaryinfo(self) -> None:
        """Forget the times."""
        self.session.reset_sumaryinfo()

    def free_resource(self) -> None:
        """Unload the model."""
        self.session.free_resource()

    @staticmethod
    def finalize() -> None:
        """Give up all devices of this process."""
        aclruntime.InferenceSession.finalize()


class OldInferSession(Session):
    """Before 2024-02: other names, times as milliseconds."""

    def sumary(self) -> aclruntime.sumary:
        """Return the times of the executions: `exec_time_list`."""
        return self.session.sumary()

    def reset_sumaryinfo(self) -> None:
        """Forget the times."""
        self.session.reset_sumaryinfo()

    def finalize(self) -> None:
        """Unload the model and give up all devices of this process."""
        self.session.free_resource()
        self.session.finalize()


class OldestInferSession(OldInferSession):
    """Of 2022: `infer` has no default for its mode."""

    def infer(self, feeds: Any, mode: str) -> list[Array]:  # type: ignore[override]  # see above
        """Execute on a list of arrays in input order."""
        return super().infer(feeds, mode)


class MemorySummary:
    """Times of copies, of the whole process: there are none."""

    @staticmethod
    def reset() -> None:
        """Forget them."""
