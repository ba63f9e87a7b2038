"""The seam between the harness and a place where compiled models run.

A target is a file of its own that satisfies `Target`; a session is what it opens. Tests use
small fakes of both. Every session that the harness ships runs in a device worker
(`harness/targets/worker.py`), so that a crash of a runtime costs one case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a compiled model: `shape` includes the batch axis."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a NumPy name, e.g. "float32"


@dataclass(frozen=True)
class Device:
    """One unit that can be leased: an NPU chip, a GPU, the host's CPU.

    `group` names what shares power and memory (a card): a throughput measurement takes all of it.
    """

    target: str
    index: int
    name: str
    group: str

    @property
    def id(self) -> str:
        """`cpu-0`: stable within a host, used in lock files and records."""
        return f"{self.target}-{self.index}"


class Session(Protocol):
    """A compiled model opened on one device."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    def stream(self, batches: Iterable[Float32]) -> Iterator[Float32]:
        """Logits `float32[B, C]` for each `float32[B, 3, S, S]`, in order, two in flight.

        Raises `InferError` when the runtime fails, returns another shape, dtype or number of
        outputs, dies, or exceeds its deadline.
        """
        ...

    def stream_into(self, fillers: Iterable[Callable[[Float32], None]]) -> Iterator[Float32]:
        """As `stream`, but each filler writes its batch straight into the session's input."""
        ...

    def time(self, loops: int, warmup: int) -> list[float]:
        """Milliseconds of each of `loops` executions after `warmup` that are not returned."""
        ...

    def close(self) -> None:
        """End the session and release its device; safe to call twice."""
        ...


class Target(Protocol):
    """A place where compiled models run."""

    name: str
    fidelity_bound: float
    """Relative L2 of the logits that the target's arithmetic may cost: 3e-2 for float16 (which
    gives about 7e-3), far less for float32. What is above it is a fault.
    """

    def identity(self) -> Mapping[str, Any]:
        """Versions and hardware that change compiled bytes: part of a key and of a report."""
        ...

    def devices(self) -> Sequence[Device]:
        """What can be leased now. Raises `DeviceError` when there is none."""
        ...

    def compile_inputs(self) -> Mapping[str, Any]:
        """Everything besides the ONNX file and the batch that changes a compiled file's bytes."""
        ...

    def compile(self, onnx: Path, batch_size: int, output_dir: Path, *, log: Path) -> Path:
        """The compiled file, in `output_dir`; the tool's output in `log`. Raises `CompileError`."""
        ...

    def open(self, file: Path, device: Device, *, log: Path, lease_fds: Sequence[int]) -> Session:
        """A session on `device`; the worker inherits `lease_fds`. Raises `LoadError`."""
        ...
