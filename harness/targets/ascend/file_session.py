"""Sessions on tools that read and write files: a chunk of batches at a time.

Batches are written to a private folder, the tool runs over them, its outputs are counted, measured
and read, and everything is removed. While the tool runs, the next chunk is written. At most two
chunks lie on the disk. Stems of files have no dot: ais_bench cuts a name at its first dot, so that
`img.1` and `img.2` would share one output.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from harness.base import processes
from harness.base.errors import HarnessError, InferError, some
from harness.records.measurements import Scalar
from harness.targets.ascend.faults import lost_device, raise_for, undead
from harness.targets.ascend.toolkit import Toolkit
from harness.targets.ascend.workspace import (
    MORE_SPACE,
    Workspace,
    make_folder,
    on_disk,
    remove,
    write_file,
)
from harness.targets.batches import copy_batch
from harness.targets.protocol import Filler, Float32, Images, SessionInfo, TensorSpec, Times

CHUNK_BYTES = 1 << 30  # inputs of one call of a tool, which loads the model anew each time
DISK_PART = 0.25  # of what is free: two chunks, their outputs, and others who write meanwhile
MOST_FILES = 50_000  # ais_bench refuses a folder of more than 100,000
UMASK = 0o027  # what a tool makes is as private as what we make
GRACE_S = 1.0
INPUTS, RESULTS = "in", "out"  # folders of a chunk
ROUND_S = 5.0
"""Seconds of a round of timing: every call starts the tool and loads the model."""


@dataclass(frozen=True)
class Opening:
    """What a driver is given to open a model.

    `file` is an `.om` file, `device_id` a logical id; `input` and `output` are what the model must
    have, of one batch size. `work` is a folder for files, of which a private part is used
    and removed. The deadlines are for loading and for the wait for one batch; a tool that does both
    in each call, over a chunk of batches, gets their sum.
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


@dataclass(frozen=True)
class Chunk:
    """Some batches as files `<stem>.bin`, and a folder for what the tool writes."""

    folder: Path
    stems: tuple[str, ...]

    @property
    def inputs(self) -> Path:
        return self.folder / INPUTS

    @property
    def results(self) -> Path:
        return self.folder / RESULTS


class FileSession(abc.ABC):
    """A `protocol.Session` on a tool; a subclass knows how to call it and to read its answers.

    Every call of the tool loads the model anew, in a new folder: an output that lies there is this
    call's. After a failure the session may be used again. NaN and infinity are passed through. Not
    for sharing between threads.
    """

    driver: ClassVar[str]
    tool: str
    about: SessionInfo
    rows_per_file = 1  # images in an input file, and in an output file

    def __init__(self, opening: Opening, workspace: Workspace) -> None:
        self.name = opening.file.name
        self.batch = opening.input.shape[0]
        self.inputs: Sequence[TensorSpec] = (opening.input,)
        self.outputs: Sequence[TensorSpec] = (opening.output,)
        self.opening = opening
        self.workspace = workspace
        self.model = workspace.own_copy(opening.file)
        self.env: Mapping[str, str] = opening.toolkit.env
        self.deadline_s = opening.deadline_open_s + opening.deadline_run_s
        self._running: processes.Running | None = None
        self._written = 0  # files ever, for names that never come again
        self._stream = 0
        self._closed = False

    @classmethod
    def open(cls, opening: Opening) -> Self:
        """Open an `.om` file: execute it once, on zeros. Where that fails, nothing is left.

        Raises:
            LoadError: no tool, no model, or a model of another batch size or with other outputs.
            InferError: the model was loaded and could not be executed.
            DeviceError: the device cannot be opened.
            ConfigError: the folder for files cannot be used.
        """
        with contextlib.ExitStack() as undo:
            workspace = Workspace(opening.work)
            undo.callback(workspace.close)
            session = cls(opening, workspace)
            session.try_once()
            workspace.clear()
            undo.pop_all()
        return session

    # What each tool has of its own.

    @abc.abstractmethod
    def try_once(self) -> None:
        """Execute once on zeros."""

    @abc.abstractmethod
    def start(self, chunk: Chunk) -> processes.Running:
        """Start the tool over the input files of a chunk."""

    @abc.abstractmethod
    def output_files(self, chunk: Chunk, done: processes.Completed) -> Sequence[Path]:
        """Return the output of each input file, in order, counted and measured.

        Raises `InferError`.
        """

    @abc.abstractmethod
    def timed(self, loops: int, warmup: int) -> list[float]:
        """Time executions; see `time`."""

    # What all have.

    @property
    def what(self) -> str:
        """The model and the tool, as messages name them."""
        return f"{self.name}: {self.tool}"

    def info(self, runtime: Mapping[str, Scalar], method: str = "pure-inference") -> SessionInfo:
        """Return what a record says of the session."""
        runtime = {"device": self.opening.device_id, **runtime}
        return SessionInfo(self.driver, runtime, round_s=ROUND_S, method=method)

    def stream(self, batches: Iterable[Images]) -> Iterator[Float32]:
        """See `protocol.Session.stream`."""
        return self.stream_into(
            functools.partial(copy_batch, self.name, self.inputs[0], batch) for batch in batches
        )

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        """See `protocol.Session.stream_into`.

        The view that a filler writes to holds an older batch before. Results come a chunk at a
        time. One session has one stream at a time, a new one ends the older.
        """
        self._end_stream()
        stream = self._stream
        left = iter(fillers)
        buffer = np.zeros(self.inputs[0].shape, self.inputs[0].dtype)
        chunk: Chunk | None = None  # what the tool works on
        try:
            while True:
                following = self._write(left, buffer, chunk)
                self._check_stream(stream)
                done, files = chunk, () if chunk is None else self._finish(chunk)
                if following is not None:
                    self._running = self.start(following)
                if done is not None:
                    # After the start: the device works while the caller takes its time.
                    for logits in self._read(files):
                        yield logits
                        self._check_stream(stream)
                    remove(done.folder)
                chunk = following
                if chunk is None:
                    return
        finally:
            if self._stream == stream and not self._closed:
                self._end_stream()

    def time(self, loops: int, warmup: int) -> Times:
        """Return the times of executions of a whole batch; a mean as one value when the tool
        prints no more.

        Raises:
            InferError: as `stream`, or figures that do not agree with each other.
        """
        self._end_stream()
        try:
            return Times(tuple(self.timed(loops, warmup)))
        finally:
            self.workspace.clear()

    def executions(self, loops: int) -> int:
        """See `protocol.Session.executions`."""
        return loops

    def close(self) -> None:
        """Stop the tool and remove all files; safe to call twice and in `finally`.

        Raises:
            DeviceError: a process of the tool would not die; its device stays leased.
        """
        if self._closed:
            return
        try:
            self._end_stream()
        finally:
            self._closed = True
            self.workspace.close()

    # Calling the tool.

    def call(self, argv: Sequence[str], *, cwd: Path) -> processes.Running:
        """Start the tool."""
        return processes.Running(
            argv,
            cwd=cwd,
            env=self.env,
            log=self.opening.log,
            pass_fds=self.opening.lease_fds,
            deadline_s=self.deadline_s,
            grace_s=GRACE_S,
            dies_with_us=True,
            umask=UMASK,
        )

    def run(self, argv: Sequence[str], *, cwd: Path) -> processes.Completed:
        """Start the tool and wait for its end, or for its deadline."""
        return self.call(argv, cwd=cwd).finish()

    def check_end(self, done: processes.Completed, error: type[HarnessError] = InferError) -> None:
        """Raise what the end of a call means; nothing when it ended well."""
        raise_for(done, self.what, self.opening.device_id, error)

    # Writing, running, reading.

    def _write(self, left: Iterator[Filler], buffer: Images, before: Chunk | None) -> Chunk | None:
        """Fill and write batches until a chunk is full; None when none is left."""
        folder: Path | None = None
        stems: list[str] = []
        most = 0
        for batches, fill in enumerate(left, start=1):
            fill(buffer)
            if before is not None and self._running is not None and self._running.overdue:
                self._finish(before)  # which raises: the deadline holds while we write, too
            if folder is None:
                folder = self.workspace.folder()
                most = self._most_batches(buffer.nbytes)
            files = {}
            for first in range(0, self.batch, self.rows_per_file):
                self._written += 1
                files[f"b{self._written:08d}"] = buffer[first : first + self.rows_per_file]
            self.write("a batch", folder, files)
            stems += files
            if batches == most:
                break
        return None if folder is None else Chunk(folder, tuple(stems))

    def write(self, what: str, folder: Path, arrays: Mapping[str, Images]) -> None:
        """Write arrays as input files of a chunk, by their stems. Raises `InferError`."""
        with self.disk(what):
            for name in (INPUTS, RESULTS):
                make_folder(folder / name)
            for stem, array in arrays.items():
                write_file(folder / INPUTS / f"{stem}.bin", array.data.cast("B"))

    def disk(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Make an `InferError` of a file for the tool that cannot be written."""
        what = f"{self.name}: {what} cannot be written to {self.workspace.path}"
        return on_disk(InferError, what, MORE_SPACE)

    def _most_batches(self, batch_bytes: int) -> int:
        room = min(CHUNK_BYTES, int(DISK_PART * self.workspace.free_bytes()))
        return max(1, min(room // batch_bytes, MOST_FILES * self.rows_per_file // self.batch))

    def _finish(self, chunk: Chunk) -> Sequence[Path]:
        assert self._running is not None
        done = self._running.finish()
        self.check_end(done)
        self._running = None
        try:
            files = self.output_files(chunk, done)
        except InferError as error:  # a tool may end with 0 although its device went away
            raise lost_device(error, self.opening.device_id) or error from error.__cause__
        remove(chunk.inputs)
        return files

    def _read(self, files: Sequence[Path]) -> Iterator[Float32]:
        """Yield the logits of each batch."""
        shape = self.outputs[0].shape
        each = self.batch // self.rows_per_file  # files of a batch
        for first in range(0, len(files), each):
            parts = [read_floats(file) for file in files[first : first + each]]
            if sum(map(len, parts)) != math.prod(shape):
                raise InferError(
                    f"{files[first].name} has {len(parts[0])} values, expected "
                    f"{math.prod(shape) // each}",
                    remedy="compile the model from the ONNX file of this batch size",
                )
            yield np.concatenate(parts).reshape(shape)

    def _end_stream(self) -> None:
        """Stop and remove what a stream that was given up has left."""
        self._check_open()
        self._stream += 1
        running, self._running = self._running, None
        dead = running is None or not running.stop().unkillable
        self.workspace.clear()
        if not dead:
            raise undead(self.what)

    def _check_open(self) -> None:
        if self._closed:
            raise InferError(f"the session of {self.name} is closed", remedy="open the model again")

    def _check_stream(self, stream: int) -> None:
        self._check_open()
        if self._stream != stream:
            raise InferError(
                f"{self.name}: the session was used for something else before this stream's end",
                remedy="read one stream to its end, or open a session for each",
            )


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
    extra = sorted(sizes.keys() - expected.keys())
    wrong = [name for name in sorted(expected) if expected[name] not in (-1, sizes.get(name))]
    if missing:
        said = f" wrote {len(expected) - len(missing)} of {len(expected)} outputs, missing: "
        said += some(missing)
        remedy = "see the tool's log; it ends with 0 although outputs are missing"
    elif extra:
        said = f" left {len(extra)} files that no input accounts for: {some(extra)}"
        remedy = "see the tool's log; a model with several outputs needs its logits alone"
    elif wrong:
        name = wrong[0]
        said = f": {len(wrong)} outputs have another size than the model's: {name} has "
        said += f"{sizes[name]} bytes, expected {expected[name]}"
        remedy = "compile the model with float32 outputs at this batch size; see the log"
    else:
        return
    raise InferError(what + said, remedy=remedy, log=log)


def read_floats(path: Path) -> Float32:
    """Return the float32 values of a `.bin`, or of a `.txt` with numbers between blanks.

    Raises:
        InferError: something else than numbers.
    """
    try:
        if path.suffix == ".txt":
            return np.array(path.read_text(encoding="ascii").split(), np.float64).astype(np.float32)
        return np.fromfile(path, np.float32)
    except (OSError, ValueError) as error:
        raise InferError(f"the output {path.name} cannot be read: {error}") from error
