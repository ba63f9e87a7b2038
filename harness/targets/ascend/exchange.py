"""Sessions on tools that read and write files: a part of the batches at a time.

Batches are written to a private folder, the tool runs over them, its outputs are counted, measured
and read, and everything is removed. While the tool runs, the next part is written. At most two
parts lie on the disk.

The folder is made for the strictest of the tools: real path, ASCII, mode 0750, files 0640 with
stems without a dot (ais_bench cuts a name at its first dot: `img.1` and `img.2` would share one
output). Every call of a tool gets a new folder, so an output that lies there is this call's.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Protocol, Self

import numpy as np

from harness.base import processes
from harness.base.errors import (
    ConfigError,
    DeviceError,
    HarnessError,
    InferError,
    LoadError,
    some,
)
from harness.targets.protocol import Filler, Float32, SessionInfo, TensorSpec

CHUNK_BYTES = 1 << 30
"""Inputs of one call of a tool: it loads the model anew each time, which takes seconds."""
DISK_PART = 0.25  # of what is free: two chunks, their outputs, and others who write meanwhile
MOST_FILES = 50_000  # ais_bench refuses a folder of more than 100,000
FOLDER_MODE = 0o750
FILE_MODE = 0o640
UMASK = 0o027  # what a tool makes is as private as what we make
GRACE_S = 1.0
SWEEP_S = 300.0  # folders that did not change for so long may be swept when nobody holds them

_PREFIX = "exchange-"
_SAFE_PATH = re.compile(r"[A-Za-z0-9_./-]+")
_LOST = re.compile(r"\bEL0003\b|\b507033\b|open device \d+ failed")
_CAUSE = re.compile(
    r"^\[ERROR\].*|^(?:[A-Za-z_][\w.]*(?:Error|Exception)\b).*|^[EW][0-9A-Z]\d{4}:.*"
)


# --- errors -----------------------------------------------------------------------------------


def lost_device(error: HarnessError, device_id: int) -> DeviceError | None:
    """The same as a `DeviceError`, if its message or log says that the device is what failed."""
    for line in [error.message, *error.log.splitlines()]:
        if _LOST.search(line):
            return DeviceError(
                f"device {device_id} cannot be opened or was lost: {error.message}"
                + ("" if line == error.message else f" ({line.strip()[:200]})"),
                remedy="look at npu-smi info; the card may need a reset",
                log=error.log,
            )
    return None


def raise_for(
    done: processes.Completed, what: str, device_id: int, error: type[HarnessError]
) -> None:
    """Raise what the end of a tool means; nothing when it ended well.

    `what` names the model and the tool, e.g. `model.om: ais_bench`.
    """
    if done.ok and not done.unkillable:
        return
    log = done.tail()
    if done.unkillable:
        raise DeviceError(
            f"{what} was stopped, and a process of it would not die",
            remedy="the device stays leased until that process ends; its driver may need a reset",
            log=log,
        )
    if done.timed_out:
        raise error(
            f"{what} did not end in {done.seconds:.0f} s, its deadline, and was stopped",
            remedy="its log says where it hangs; if the machine is only slow: "
            "--deadline-factor=N gives it N times as long",
            log=log,
            hung=True,
        )
    text = f"{what} {processes.describe_exit(done.returncode)}"
    cause = _cause(done.tail(lines=400))
    failure = error(f"{text}: {cause}" if cause else text, remedy="see the tool's log", log=log)
    if _LOST.search(done.tail(lines=400)):
        raise lost_device(failure, device_id) or DeviceError(
            f"device {device_id} cannot be opened or was lost: {failure.message}",
            remedy="look at npu-smi info; the card may need a reset",
            log=log,
        )
    raise failure


def _cause(text: str) -> str:
    """The first line of a tool's output that names an error."""
    for line in text.replace("\r", "\n").splitlines():
        if _CAUSE.match(line.strip()):
            return line.strip()[:300]
    return ""


# --- a private folder -------------------------------------------------------------------------


class Workspace:
    """A folder that only we and the tool use; removed as a whole by `close`."""

    def __init__(self, parent: Path) -> None:
        """Raises `ConfigError` for a folder that the tools would refuse or that cannot be made."""
        real = parent.absolute()
        try:
            real.mkdir(parents=True, exist_ok=True)
            real = real.resolve(strict=True)
            if not _SAFE_PATH.fullmatch(str(real)):
                raise ConfigError(
                    f"the tools of CANN refuse paths like {str(real)!r}",
                    remedy="--runs=DIR: a folder whose real path has only A-Z a-z 0-9 _ - / .",
                )
            _sweep(real)
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=real))
            self.path.chmod(FOLDER_MODE)
            self._lock: int | None = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # a file system without locks is never swept
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise ConfigError(
                f"no folder for a tool's files can be made in {real}: {error.strerror or error}",
                remedy="choose another folder, with free space",
            ) from error
        self._folders = 0

    def folder(self) -> Path:
        """A new, empty folder of mode 0750. Raises `InferError`."""
        self._folders += 1
        path = self.path / f"c{self._folders:06d}"
        try:
            path.mkdir(FOLDER_MODE)
        except OSError as error:
            raise InferError(
                f"no folder for a tool's files can be made in {self.path}: "
                f"{error.strerror or error}",
                remedy="free disk space there, or choose another folder for the run",
            ) from error
        return path

    def free_bytes(self) -> int:
        """What the file system has left; 0 when it does not say."""
        try:
            return shutil.disk_usage(self.path).free
        except OSError:
            return 0

    def close(self) -> None:
        """Remove it with all that is in it; safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        remove(self.path)


def _sweep(parent: Path) -> None:
    """Remove what a harness that was killed has left: up to two chunks each.

    Who uses a folder holds a lock on it, but for the moment after it was made.
    """
    for path in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < SWEEP_S:
                continue
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            finally:
                os.close(fd)


def remove(path: Path) -> None:
    """Remove a folder; what cannot be removed is left."""
    shutil.rmtree(path, ignore_errors=True)


def write_file(path: Path, data: memoryview | bytes) -> None:
    """Write a new file of mode 0640, whatever the process's umask is. Raises `OSError`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, FILE_MODE)
    try:
        os.fchmod(fd, FILE_MODE)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def own_copy(file: Path, workspace: Workspace) -> Path:
    """A copy of a model as `model.om` in a folder of the workspace.

    The tools refuse links, group-writable files and names with unusual characters; a store may
    have all of them.

    Raises:
        LoadError: it cannot be read or copied.
    """
    try:
        copy = workspace.folder() / "model.om"
    except InferError as error:
        raise LoadError(error.message, remedy=error.remedy) from error
    try:
        shutil.copyfile(file, copy)
        copy.chmod(FILE_MODE)
    except OSError as error:
        raise LoadError(
            f"{file.name} cannot be copied to {copy.parent}: {error.strerror or error}",
            remedy="see that the file is there and the disk has room for it",
        ) from error
    return copy


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
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in ignore:
                regular = entry.is_file(follow_symlinks=False)
                found[entry.name] = entry.stat().st_size if regular else -1
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise InferError(
            f"{what} wrote {len(expected) - len(missing)} of {len(expected)} outputs, "
            f"missing: {some(missing)}",
            remedy="see the tool's log; it ends with 0 although outputs are missing",
            log=log,
        )
    extra = sorted(found.keys() - expected.keys())
    if extra:
        raise InferError(
            f"{what} left {len(extra)} files that no input accounts for: {some(extra)}",
            remedy="see the tool's log; a model with several outputs needs its logits alone",
            log=log,
        )
    wrong = [name for name in sorted(expected) if expected[name] not in (-1, found[name])]
    if wrong:
        name = wrong[0]
        raise InferError(
            f"{what}: {len(wrong)} outputs have another size than the model's: {name} has "
            f"{found[name]} bytes, expected {expected[name]}",
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


# --- the session ------------------------------------------------------------------------------


class FileTool(Protocol):
    """What one tool adds: how it is called, where its outputs lie, how it times."""

    @property
    def name(self) -> str: ...

    @property
    def device_id(self) -> int: ...

    @property
    def input(self) -> TensorSpec: ...

    @property
    def output(self) -> TensorSpec: ...

    @property
    def workspace(self) -> Workspace: ...

    @property
    def about(self) -> SessionInfo: ...

    @property
    def what(self) -> str:
        """The model and the tool, as messages name them."""
        ...

    @property
    def rows_per_file(self) -> int:
        """Images in an input file, and in an output file."""
        ...

    def start(self, chunk: Chunk) -> processes.Running:
        """Start the tool over the input files of a chunk."""
        ...

    def outputs(self, chunk: Chunk, done: processes.Completed) -> Sequence[Path]:
        """The output of each input file, in order, counted and measured. Raises `InferError`."""
        ...

    def time(self, loops: int, warmup: int) -> list[float]:
        """See `protocol.Session.time`; fewer values when the tool prints only a mean."""
        ...

    def executions(self, loops: int) -> int:
        """See `protocol.Session.executions`."""
        ...

    def try_once(self) -> None:
        """Execute once on zeros. Raises `LoadError`, `InferError`, `DeviceError`."""
        ...


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


@dataclass
class _Part:
    """A chunk that is on its way."""

    chunk: Chunk
    running: processes.Running
    batches: int


def open_tool(work: Path, make: Callable[[Workspace], FileTool], chunk_bytes: int) -> FileSession:
    """A session on the tool that `make` gives for a private folder below `work`, tried once.

    When that fails, nothing is left of the folder.
    """
    workspace = Workspace(work)
    try:
        tool = make(workspace)
        tool.try_once()
        return FileSession(tool, chunk_bytes)
    except BaseException:
        workspace.close()
        raise


class FileSession:
    """A `protocol.Session` on a `FileTool`.

    Every call of the tool loads the model anew. After a failure the session may be used again.
    NaN and infinity are passed through. Not for sharing between threads.
    """

    def __init__(self, tool: FileTool, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.name = tool.name
        self.inputs: Sequence[TensorSpec] = (tool.input,)
        self.outputs: Sequence[TensorSpec] = (tool.output,)
        self.about = tool.about
        self._tool = tool
        self._workspace = tool.workspace
        self._device_id = tool.device_id
        self._chunk_bytes = chunk_bytes
        self._parts: list[_Part] = []  # what runs or lies on the disk now
        self._written = 0  # files ever, for names that never come again
        self._stream = 0
        self._closed = False

    def stream(self, batches: Iterable[Float32]) -> Iterator[Float32]:
        """See `protocol.Session.stream`."""
        return self.stream_into(functools.partial(self._copy, batch=batch) for batch in batches)

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        """See `protocol.Session.stream_into`.

        The view that a filler writes to holds an older batch before. Results come a chunk at a
        time. One session has one stream at a time, a new one ends the older.
        """
        self._end_stream()
        mine = self._stream
        left = iter(fillers)
        buffer = np.zeros(self.inputs[0].shape, np.float32)
        part: _Part | None = None
        try:
            while True:
                following = self._write(left, buffer, part)
                try:
                    self._check_stream(mine)
                    files = self._finish(part) if part is not None else ()
                except BaseException:
                    if following is not None:
                        remove(following[0].folder)
                    raise
                done, part = part, None
                if following is not None:
                    part = self._start(*following)
                if done is not None:
                    # After the start: the device works while the caller takes its time.
                    for index in range(done.batches):
                        yield self._read(files, index)
                        self._check_stream(mine)
                    self._drop(done)
                if part is None:
                    return
        finally:
            if self._stream == mine:
                self._end_stream()

    def time(self, loops: int, warmup: int) -> list[float]:
        """Milliseconds of an execution of a whole batch; a mean as one value when the tool prints
        no more.

        Raises:
            InferError: as `stream`, or figures that do not agree with each other.
        """
        if loops < 1 or warmup < 0:
            raise InferError(
                f"{self.name}: cannot time {loops} executions after a warm-up of {warmup}",
                remedy="ask for at least one execution",
            )
        self._end_stream()
        return self._tool.time(loops, warmup)

    def executions(self, loops: int) -> int:
        """See `protocol.Session.executions`."""
        return self._tool.executions(loops)

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
            self._workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Writing, running, reading.

    def _copy(self, view: Float32, batch: Float32) -> None:
        spec = self.inputs[0]
        if batch.shape != spec.shape or batch.dtype != np.float32:
            raise InferError(
                f"{self.name}: a batch of {batch.dtype}{list(batch.shape)} for the input "
                f"{spec.name!r}, which is {spec.dtype}{list(spec.shape)}",
                remedy="fill the last batch up to the model's batch size",
            )
        np.copyto(view, batch)

    def _write(
        self, left: Iterator[Filler], buffer: Float32, before: _Part | None
    ) -> tuple[Chunk, int] | None:
        """Fill and write batches until a chunk is full; None when none is left."""
        stems: list[str] = []
        folder: Path | None = None
        batches = most = 0
        try:
            for fill in left:
                fill(buffer)
                if before is not None and before.running.overdue:
                    self._finish(before)  # which raises: the deadline holds while we write, too
                if folder is None:
                    folder = self._workspace.folder()
                    most = self._most_batches(buffer.nbytes)
                stems += self._write_batch(Chunk(folder, ()), buffer)
                batches += 1
                if batches >= most:
                    break
        except BaseException:
            if folder is not None:
                remove(folder)
            raise
        return None if folder is None else (Chunk(folder, tuple(stems)), batches)

    def _write_batch(self, chunk: Chunk, buffer: Float32) -> list[str]:
        """Write a batch as files; their stems."""
        rows = self._tool.rows_per_file
        stems = []
        try:
            chunk.make()
            for first in range(0, len(buffer), rows):
                self._written += 1
                stems.append(f"b{self._written:08d}")
                piece = buffer[first : first + rows]
                write_file(chunk.inputs / f"{stems[-1]}.bin", piece.data.cast("B"))
        except OSError as error:
            raise InferError(
                f"{self.name}: a batch cannot be written to {self._workspace.path}: "
                f"{error.strerror or error}",
                remedy="free disk space there, or choose another folder for the run",
            ) from error
        return stems

    def _most_batches(self, batch_bytes: int) -> int:
        room = min(self._chunk_bytes, int(DISK_PART * self._workspace.free_bytes()))
        files = self.inputs[0].shape[0] // self._tool.rows_per_file
        return max(1, min(room // batch_bytes, MOST_FILES // files))

    def _start(self, chunk: Chunk, batches: int) -> _Part:
        try:
            part = _Part(chunk, self._tool.start(chunk), batches)
        except BaseException:
            remove(chunk.folder)
            raise
        self._parts.append(part)
        return part

    def _finish(self, part: _Part) -> Sequence[Path]:
        done = part.running.finish()
        raise_for(done, self._tool.what, self._device_id, InferError)
        try:
            files = self._tool.outputs(part.chunk, done)
        except InferError as error:  # a tool may end with 0 although its device went away
            raise lost_device(error, self._device_id) or error from error.__cause__
        remove(part.chunk.inputs)
        return files

    def _read(self, files: Sequence[Path], index: int) -> Float32:
        shape = self.outputs[0].shape
        count = shape[0] // self._tool.rows_per_file
        values = math.prod(shape) // count
        mine = files[index * count : (index + 1) * count]
        return np.concatenate([read_floats(file, values) for file in mine]).reshape(shape)

    def _drop(self, part: _Part) -> None:
        self._parts.remove(part)
        remove(part.chunk.folder)

    def _end_stream(self) -> None:
        """Stop and remove what a stream that was given up has left."""
        if self._closed:
            raise InferError(f"the session of {self.name} is closed", remedy="open the model again")
        self._stream += 1
        parts, self._parts = self._parts, []
        alive = False
        for part in parts:
            alive = part.running.stop().unkillable or alive
            remove(part.chunk.folder)
        if alive:
            self._undead()

    def _undead(self) -> NoReturn:
        raise DeviceError(
            f"{self._tool.what} was stopped, and a process of it would not die",
            remedy="the device stays leased until that process ends; its driver may need a reset",
        )

    def _check_stream(self, mine: int) -> None:
        if self._closed:
            raise InferError(f"the session of {self.name} is closed", remedy="open the model again")
        if self._stream != mine:
            raise InferError(
                f"{self.name}: the session was used for something else before this stream's end",
                remedy="read one stream to its end, or open a session for each",
            )
