"""What a case gathers until it ends: stages, weights, images, device, error, diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.base.stages import Stage
from harness.records.measurements import AccuracyMeasurement, Scalar, ThroughputMeasurement
from harness.records.verdicts import Verdict

# What of a target's identity is no version of a tool.
_NAMES_A_DEVICE = (
    *("target", "chip", "simulated"),
    *("architecture", "processor", "processor_features"),
)


@dataclass(frozen=True)
class ErrorInfo:
    """A `HarnessError`, or an unexpected exception, as a record keeps it."""

    type: str
    stage: Stage
    message: str
    remedy: str = ""
    log: str = ""
    full_disk: bool = False
    killed: bool = False  # a process was killed, or the host refused something
    remembered: bool = False  # a build that failed earlier in the run, not tried again


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage of a case. `cached`: the store had what it makes."""

    stage: Stage
    seconds: float
    cached: bool = False


@dataclass(frozen=True)
class ArtifactRef:
    """An artifact that a case stood on, by the stage that makes it."""

    stage: Stage
    key: str
    digest: str  # sha256 of the file
    bytes: int = 0
    cached: bool = False
    log: str = ""  # tail of the build's log
    log_file: str = ""  # relative to the run directory, where there is one
    instead_of: str = ""  # digest of the one that did not load, for which it was compiled anew
    shared: bool = False  # another host built it: it came from the shared store


@dataclass(frozen=True)
class CheckpointInfo:
    """The weights. `verified`: by a published digest; None where there are none (`onnx`)."""

    source: Literal["stand-in", "checkpoint", "onnx"]
    file: str
    sha256: str
    md5: str = ""
    url: str = ""  # shown: without credentials
    layout: str = ""
    verified: bool | None = None


@dataclass(frozen=True)
class SetFindings:
    """What was counted in a data set in which nothing is wrong.

    `fewest` and `most`: images of one of the `classes` that have any. `known`: images whose right
    class is known and was compared.
    """

    images: int
    labels_without_image: int
    classes: int
    fewest: int
    most: int
    known: int


@dataclass(frozen=True)
class ImagesInfo:
    """The images of a case. `contents`: digest of what was fed, once it was."""

    source: Literal["generated", "folder"]
    root: str
    count: int
    digest: str
    layout: str = ""
    labels: str = ""
    selection: str = ""
    checked: SetFindings | None = None
    contents: str = ""


@dataclass(frozen=True)
class Attempt:
    """A try of the case, or of a build, that failed and was made again.

    `aside`: the device failed, and was set aside for the run; else the machine ended the try.
    """

    device: str
    stage: Stage
    error: str
    why: str
    aside: bool = True


@dataclass(frozen=True)
class HeldLease:
    """The devices that a case held, from when until when: seconds of the host's clock, UTC.

    `alone`: nobody else could hold them.
    """

    devices: tuple[str, ...]
    alone: bool
    since: float
    until: float


@dataclass(frozen=True)
class DeviceInfo:
    """The device of a case, its tools, and the commands that do the case again by hand."""

    id: str
    name: str = ""
    card: str = ""
    alone: bool = False
    waited_s: float = 0.0
    driver: str = ""
    toolchain: Mapping[str, Scalar] = field(default_factory=dict)
    runtime: Mapping[str, Scalar | tuple[str, ...]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)  # devices not used, with the reason
    commands: Mapping[str, str] = field(default_factory=dict)

    @property
    def tools(self) -> dict[str, str]:
        """Versions of what drove the device: `toolchain` without what names the device itself."""
        tools = ((name, value) for name, value in self.toolchain.items() if value)
        return {name: str(value) for name, value in tools if name not in _NAMES_A_DEVICE}


@dataclass(frozen=True)
class Section:
    """A table of a diagnosis, for a page."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Diagnosis:
    """Where a wrong result went wrong.

    `stage`: the first that departs (export, simplify, compile, infer, data); None where none does.
    `suspect`: the mistake that puts it right, by name; empty where none does.
    """

    summary: str
    stage: Stage | None = None
    suspect: str = ""
    sections: tuple[Section, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass
class Observed:
    """What a case has gathered until it ends; the engine makes its record of it."""

    verdict: Verdict | None = None
    measurement: AccuracyMeasurement | ThroughputMeasurement | None = None
    checkpoint: CheckpointInfo | None = None
    images: ImagesInfo | None = None
    device: DeviceInfo | None = None
    attempts: list[Attempt] = field(default_factory=list)
    leases: list[HeldLease] = field(default_factory=list)
    artifacts: list[ArtifactRef] = field(default_factory=list)
    stages: list[StageTime] = field(default_factory=list)
    diagnosis: Diagnosis | None = None
