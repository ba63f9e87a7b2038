"""The seam between the harness and a place where compiled models run.

A target is a folder of its own with a `Target`; a session is what it opens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.base.errors import HarnessError
from harness.catalog.schema import Model
from harness.records.conditions import Condition, Moment, Setup
from harness.records.measurements import Scalar

OPSETS = (9, 17)  # what every current compiler of a target takes
Float32 = npt.NDArray[np.float32]
Images = npt.NDArray[np.float32 | np.uint8]
"""`float32[B, 3, S, S]`, or crops `uint8[B, S, S, 3]` for a model that normalises them itself."""
Filler = Callable[[Images], None]
Runtime = Mapping[str, Scalar | tuple[str, ...]]


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


# Sessions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SessionInfo:
    """How a session runs its model."""

    driver: str  # as in `Setup.driver`
    runtime: Runtime = field(default_factory=dict)  # versions and what else a record says of it
    pid: int | None = None  # that holds the model; None where each call starts a process
    round_s: float | None = None  # of a round of timing, where not the target's


@dataclass(frozen=True)
class Times:
    """Times of executions, in ms: by the clock, and of CPU time of the session's process.

    `cpu_ms` is empty where an execution is not on the host's CPU, or nobody knows.
    """

    ms: tuple[float, ...]
    cpu_ms: tuple[float, ...] = ()


class Session(Protocol):
    """A compiled model opened on one device."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    @property
    def about(self) -> SessionInfo:
        """How it runs the model; the same until it is closed."""
        ...

    def stream(self, batches: Iterable[Images]) -> Iterator[Float32]:
        """Logits `float32[B, C]` for each batch of its input's form, in order, several in flight.

        Raises `InferError` when the runtime fails, returns another shape, dtype or number of
        outputs, dies, or exceeds its deadline.
        """
        ...

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        """As `stream`, but each filler writes its batch straight into the session's input."""
        ...

    def time(self, loops: int, warmup: int) -> Times:
        """Times of each of `loops` executions after `warmup` that are not returned."""
        ...

    def close(self) -> None:
        """End the session and release its device; safe to call twice."""
        ...


# Targets -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traits:
    """What is always true of a target."""

    # Relative L2 of the logits that its arithmetic may cost: 3e-2 for float16 (which gives about
    # 7e-3), far less for float32. What is above it is a fault.
    fidelity_bound: float
    # The host's CPU is what is measured: builds and decoding use it, too, and accuracy cases may
    # share it. A device of its own is never shared.
    runs_on_host: bool = False
    portable: bool = False  # what is compiled on one host runs on another with the same key
    round_s: float = 0.25  # that a round of timing should aim at


@dataclass(frozen=True)
class OperatorComparison:
    """The commands that compare a compiled model with its ONNX file operator by operator."""

    tool: str
    commands: tuple[str, ...] = ()
    why_not: str = ""  # there are no commands


@dataclass(frozen=True)
class EagerOnDevice:
    """How eager PyTorch computes on a target's device.

    `file`: Python code whose `use()` prepares PyTorch and gives its name of the device. `about`:
    the package that does it, with its version. `env_of`: the environment of a process that sees
    one device.
    """

    file: Path
    about: str
    env_of: Callable[[Device], Mapping[str, str]]


class Target(ABC):
    """A place where compiled models run. What only some targets can do has a default."""

    name: str
    traits: Traits

    @abstractmethod
    def identity(self) -> Mapping[str, Scalar]:
        """Return versions and hardware that a figure may hang on, for its record."""

    @abstractmethod
    def devices(self) -> Sequence[Device]:
        """Return what can be leased now. Raises `DeviceError` when there is none."""

    @abstractmethod
    def compile_inputs(self, model: Model, batch_size: int) -> Mapping[str, Any]:
        """Return everything besides the ONNX file that changes a compiled file's bytes."""

    @abstractmethod
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

    @abstractmethod
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
        """Open a session on `device`; what it starts inherits `lease_fds`. Raises `LoadError`."""

    def input_of(self, model: Model, batch_size: int) -> TensorSpec:
        """Return what a compiled model takes: `float32[B, 3, S, S]`, or `uint8[B, S, S, 3]` where
        it normalises crops itself.
        """
        side = model.input.size
        return TensorSpec(model.input.name, (batch_size, 3, side, side), "float32")

    @abstractmethod
    def setup(self, device: Device, facts: Mapping[str, str], session: Session) -> Setup:
        """Return how a measurement on this session is made; `facts` are those of `compile`."""

    def look(
        self, device: Device, moment: Moment, seconds: float, session: Session | None
    ) -> Condition:
        """Return the device's condition now; what an open `session` does there is not others' use.

        Raises `DeviceError` when the device cannot be looked at.
        """
        return Condition(moment, seconds)

    def commands(
        self, onnx: Path, file: Path, model: Model, batch_size: int, device: Device
    ) -> Mapping[str, str]:
        """Return its own tools' commands that do a case again by hand: `compile` and `run`."""
        return {}

    def opsets(self) -> tuple[int, int]:
        """Return the first and the last ONNX opset of which its compiler takes a file."""
        return OPSETS

    def compiles_on_device(self, model: Model, batch_size: int) -> bool:
        """Return whether a model is compiled on a leased device, e.g. since it is tuned there."""
        return False

    def left_out(self) -> Mapping[str, str]:
        """Return devices that a run might use and `devices` does not give, by id, with why."""
        return {}

    def card(self, device: Device) -> Sequence[Device]:
        """Return all devices that share power and memory with one, itself among them.

        Also those that a run may not use: others may.
        """
        return (device,)

    def on_one_thread(self) -> Target:
        """Return the target with sessions that compute on one thread, where it has a say in it."""
        return self

    def eager(self) -> EagerOnDevice | None:
        """Return how eager PyTorch computes on its devices; None where only the CPU can."""
        return None

    def device_fault(self, error: HarnessError, device: Device) -> DeviceFault | None:
        """Return why a failure is the device's and not the model's; None when nothing says so."""
        return None

    def compare_operators(
        self,
        onnx: Path,
        file: Path,
        model: Model,
        batch: Images,
        device: Device | None,
        folder: Path,
    ) -> OperatorComparison | None:
        """Return how to compare `file` with `onnx` operator by operator on a `batch` of the
        compiled model's input, which is written to `folder`; None where there is no such tool.
        """
        return None
