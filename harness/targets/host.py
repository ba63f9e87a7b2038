"""The host's own CPU: a device that can be leased, and ONNX files run on it as they are.

Every target's stages use it: builds, decoding, eager passes and the reference of outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.base.host import cores, processor
from harness.targets import sessions
from harness.targets.protocol import Device

NAME = "cpu"


def device() -> Device:
    """Return the host's CPU."""
    return Device(target=NAME, index=0, name=processor()[0], group="host")


def open_onnx(
    file: Path,
    *,
    log: Path,
    lease_fds: Sequence[int] = (),
    factor: float = 1.0,
    threads: int | None = None,
    batch_size: int | None = None,
) -> sessions.WorkerSession:
    """Open an ONNX file in a device worker, on all of the host's cores unless told `threads`; it is
    not optimised again. `batch_size`: of a file whose batch axis is open. Raises `LoadError`: ONNX
    Runtime does not take it.
    """
    return sessions.open_session(
        file,
        backend="onnxruntime",
        options={"threads": threads or cores(), "batch_size": batch_size or 0},
        log=log,
        deadline_open_s=120.0 * factor,
        deadline_run_s=300.0 * factor,
        pass_fds=lease_fds,
    )
