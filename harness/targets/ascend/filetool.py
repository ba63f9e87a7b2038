"""A tool of CANN that works over files: how it is opened, started, and what it leaves is checked.

Stems of files have no dot: ais_bench cuts a name at its first dot, so that `img.1` and `img.2`
would share one output. Every call of a tool gets a new folder, so an output that lies there is
this call's.
"""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.base import processes
from harness.base.errors import HarnessError, InferError, LoadError, some
from harness.targets.ascend.faults import raise_for
from harness.targets.ascend.toolkit import Toolkit
from harness.targets.ascend.workspace import FOLDER_MODE, Workspace
from harness.targets.protocol import Float32, SessionInfo, TensorSpec

CHUNK_BYTES = 1 << 30
"""Inputs of one call of a tool: it loads the model anew each time, which takes seconds."""
UMASK = 0o027  # what a tool makes is as private as what we make
GRACE_S = 1.0
ROUND_S = 5.0
"""Seconds of a round of timing: every call starts the tool and loads the model."""


@dataclass(frozen=True)
class Opening:
    """What a driver is given to open a model.

    `file` is an `.om` file, `device_id` a logical id; `input` and `output` are what the model must
    have. `work` is a folder for files, of which a private part is used and removed. The deadlines
    are for loading and for the wait for one batch; a tool that does both in each call, over as
    many batches as fit in `chunk_bytes`, gets their sum.
    """

    file: Path
    toolkit: Toolkit
    device_id: int
    input: TensorSpec
    output: TensorSpec
    work: Path
    log: Path
    deadline_open_s: float
    deadline_run_s: float
    lease_fds: tuple[int, ...] = ()
    chunk_bytes: int = CHUNK_BYTES

    @property
    def name(self) -> str:
        return self.file.name

    def check(self) -> None:
        """Raise `LoadError` unless both tensors are float32 with the same batch size."""
        for kind, spec in (("input", self.input), ("output", self.output)):
            if spec.dtype != "float32":
                raise LoadError(
                    f"{self.name}: the {kind} {spec.name!r} is {spec.dtype}, not float32",
                    remedy="compile it with float32 inputs and outputs",
                )
            if len(spec.shape) < 2 or not all(side > 0 for side in spec.shape):
                raise LoadError(
                    f"{self.name}: the {kind} {spec.name!r} has shape {list(spec.shape)}"
                )
        if self.input.shape[0] != self.output.shape[0]:
            raise LoadError(
                f"{self.name}: the batch sizes of input and output differ: {self.input.shape[0]} "
                f"and {self.output.shape[0]}"
            )

    def launcher(self, env: Mapping[str, str]) -> Launcher:
        """Return how the tool is started in an environment."""
        deadline_s = self.deadline_open_s + self.deadline_run_s
        return Launcher(env, self.log, self.lease_fds, deadline_s)


# --- a running tool ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Launcher:
    """How a session's tool is started, whatever it is asked for."""

    env: Mapping[str, str]
    log: Path
    pass_fds: tuple[int, ...]
    deadline_s: float

    def start(self, argv: Sequence[str], *, cwd: Path) -> processes.Running:
        """Start it."""
        return processes.Running(
            argv,
            cwd=cwd,
            env=self.env,
            log=self.log,
            pass_fds=self.pass_fds,
            deadline_s=self.deadline_s,
            grace_s=GRACE_S,
            dies_with_us=True,
            umask=UMASK,
        )

    def run(self, argv: Sequence[str], *, cwd: Path) -> processes.Completed:
        """Start it and wait for its end, or for its deadline."""
        running = self.start(argv, cwd=cwd)
        try:
            return running.finish()
        finally:
            running.stop()


# --- what comes back --------------------------------------------------------------------------


def check_files(
    what: str,
    folder: Path,
    expected: Mapping[str, int],
    *,
    ignore: frozenset[str] = frozenset(),
    log: str = "",
) -> None:
    """Check that a folder holds exactly these files, each with so many bytes.

    A size of -1 is not looked at. Tools end with 0 however little they wrote.

    Raises:
        InferError: files are missing, left over, or of another size, by name.
    """
    sizes: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in ignore:
                regular = entry.is_file(follow_symlinks=False)
                sizes[entry.name] = entry.stat().st_size if regular else -1
    missing = sorted(expected.keys() - sizes.keys())
    if missing:
        raise InferError(
            f"{what} wrote {len(expected) - len(missing)} of {len(expected)} outputs, "
            f"missing: {some(missing)}",
            remedy="see the tool's log; it ends with 0 although outputs are missing",
            log=log,
        )
    extra = sorted(sizes.keys() - expected.keys())
    if extra:
        raise InferError(
            f"{what} left {len(extra)} files that no input accounts for: {some(extra)}",
            remedy="see the tool's log; a model with several outputs needs its logits alone",
            log=log,
        )
    wrong = [name for name in sorted(expected) if expected[name] not in (-1, sizes[name])]
    if wrong:
        name = wrong[0]
        raise InferError(
            f"{what}: {len(wrong)} outputs have another size than the model's: {name} has "
            f"{sizes[name]} bytes, expected {expected[name]}",
            remedy="compile the model with float32 outputs at this batch size; see the log",
            log=log,
        )


def read_floats(path: Path, count: int) -> Float32:
    """`count` float32 values of a `.bin`, or of a `.txt` with numbers between blanks.

    Raises:
        InferError: another number of values, or something else than numbers.
    """
    try:
        if path.suffix == ".txt":
            text = path.read_text(encoding="ascii").split()
            values = np.array(text, dtype=np.float64).astype(np.float32)
        else:
            values = np.fromfile(path, np.float32)
    except (OSError, ValueError) as error:
        raise InferError(f"the output {path.name} cannot be read: {error}") from error
    if len(values) != count:
        raise InferError(
            f"the output {path.name} has {len(values)} values, expected {count}",
            remedy="compile the model from the ONNX file of this batch size",
        )
    return values


# --- the tool ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Some batches as files: `folder/in/<stem>.bin`, and a folder for what the tool writes."""

    folder: Path
    stems: tuple[str, ...]

    @property
    def inputs(self) -> Path:
        return self.folder / "in"

    @property
    def results(self) -> Path:
        return self.folder / "out"

    def make(self) -> None:
        """Make both folders, unless they are there."""
        for path in (self.inputs, self.results):
            path.mkdir(FOLDER_MODE, exist_ok=True)


@dataclass(frozen=True, kw_only=True)
class FileTool(abc.ABC):
    """One tool: how it is called, where its outputs lie, how it times.

    `model` is a copy of the opened file; `rows_per_file`: images in an input file, and in an output
    file.
    """

    tool: str
    opening: Opening
    workspace: Workspace
    launcher: Launcher
    model: Path
    about: SessionInfo
    rows_per_file: int

    @property
    def batch(self) -> int:
        """The model's batch size."""
        return self.opening.input.shape[0]

    @property
    def what(self) -> str:
        """The model and the tool, as messages name them."""
        return f"{self.opening.name}: {self.tool}"

    @abc.abstractmethod
    def start(self, chunk: Chunk) -> processes.Running:
        """Start the tool over the input files of a chunk."""

    @abc.abstractmethod
    def outputs(self, chunk: Chunk, done: processes.Completed) -> Sequence[Path]:
        """Return the output of each input file, in order, counted and measured.

        Raises `InferError`.
        """

    @abc.abstractmethod
    def time(self, loops: int, warmup: int) -> list[float]:
        """See `protocol.Session.time`; fewer values when the tool prints only a mean."""

    @abc.abstractmethod
    def try_once(self) -> None:
        """Execute once on zeros. Raises `LoadError`, `InferError`, `DeviceError`."""

    def executions(self, loops: int) -> int:
        """See `protocol.Session.executions`."""
        return loops

    def finished(self, done: processes.Completed, error: type[HarnessError] = InferError) -> None:
        """Raise what the end of a call means; nothing when it ended well."""
        raise_for(done, self.what, self.opening.device_id, error)
