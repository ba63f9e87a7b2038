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

from harness.base.errors import HarnessError
from harness.catalog.schema import Model
from harness.records.conditions import Condition, Moment, Setup

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


@dataclass(frozen=True)
class DeviceFault:
    """Why a failure is a device's. Not `certain`: a model can cause it as well, e.g. silence."""

    why: str
    certain: bool = True


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
        """Milliseconds of each of `loops` executions after `warmup` that are not returned.

        One value, their mean, where the tool behind it prints no more.
        """
        ...

    def executions(self, loops: int) -> int:
        """How many executions `time(loops, warmup)` times: a tool may have a number of its own."""
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
    runs_on_host: bool
    """Whether the host's CPU is what is measured: builds and decoding are users of it then, and
    accuracy cases may share it. A device of its own is never shared.
    """

    @property
    def round_s(self) -> float:
        """Seconds that a round of timing should aim at."""
        ...

    def compiles_on_device(self, model: Model, batch_size: int) -> bool:
        """Whether a model is compiled on a leased device: tuned there, or by a runtime that only
        works there.
        """
        ...

    def identity(self) -> Mapping[str, Any]:
        """Versions and hardware that change compiled bytes: part of a key and of a report."""
        ...

    def devices(self) -> Sequence[Device]:
        """What can be leased now. Raises `DeviceError` when there is none."""
        ...

    def left_out(self) -> Mapping[str, str]:
        """Devices that a run might use and that `devices` does not give, by id, with the reason."""
        ...

    def card(self, device: Device) -> Sequence[Device]:
        """All devices that share power and memory with one, itself among them: also those that a
        run may not use, since others may.
        """
        ...

    def compile_inputs(self, model: Model, batch_size: int) -> Mapping[str, Any]:
        """Everything besides the ONNX file that changes a compiled file's bytes."""
        ...

    def compile(
        self,
        onnx: Path,
        model: Model,
        batch_size: int,
        output_dir: Path,
        *,
        device: Device | None,
        log: Path,
        lease_fds: Sequence[int] = (),
    ) -> Mapping[str, str]:
        """Compile into `output_dir`, with the tool's output in `log`.

        Where `compiles_on_device`, it gets a leased `device`; what this starts inherits
        `lease_fds`.
        Returns what the key cannot know, e.g. the tuning that the tool really did. Raises
        `CompileError`.
        """
        ...

    def open(
        self,
        file: Path,
        model: Model,
        batch_size: int,
        device: Device,
        *,
        log: Path,
        lease_fds: Sequence[int],
    ) -> Session:
        """A session on `device`; what it starts inherits `lease_fds`. Raises `LoadError`."""
        ...

    def look(self, device: Device, moment: Moment, seconds: float, session: object) -> Condition:
        """The device now; `session` is the open one, whose own use of it is not others', or None.

        Raises `DeviceError` when the device cannot be looked at.
        """
        ...

    def setup(self, device: Device, facts: Mapping[str, str], session: Session) -> Setup:
        """How a measurement on this session is made; `facts` are those of `compile`."""
        ...

    def commands(
        self, onnx: Path, file: Path, model: Model, batch_size: int, device: Device
    ) -> Mapping[str, str]:
        """The target's own tools' commands that do a case again by hand: `compile` and `run`."""
        ...

    def device_fault(self, error: HarnessError, device: Device) -> DeviceFault | None:
        """Why a failure is the device's and not the model's; None when nothing says so."""
        ...
