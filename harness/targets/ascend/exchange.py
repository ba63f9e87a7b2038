"""Sessions on tools that read and write files: a part of the batches at a time.

Batches are written to a private folder, the tool runs over them, its outputs are counted, measured
and read, and everything is removed. While the tool runs, the next part is written. At most two
parts lie on the disk.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from harness.base import processes
from harness.base.errors import InferError
from harness.targets.ascend.faults import lost_device, undead
from harness.targets.ascend.filetool import Chunk, FileTool, Opening, read_floats
from harness.targets.ascend.workspace import Workspace, remove, write_file
from harness.targets.batches import check_loops, copy_batch
from harness.targets.protocol import Filler, Float32, TensorSpec

DISK_PART = 0.25  # of what is free: two chunks, their outputs, and others who write meanwhile
MOST_FILES = 50_000  # ais_bench refuses a folder of more than 100,000


def open_tool(opening: Opening, make: Callable[[Workspace], FileTool]) -> FileSession:
    """Return a session on the tool that `make` gives for a private folder, tried once.

    When that fails, nothing is left of the folder.
    """
    workspace = Workspace(opening.work)
    try:
        tool = make(workspace)
        tool.try_once()
        return FileSession(tool)
    except BaseException:
        workspace.close()
        raise


@dataclass
class _Part:
    """A chunk that is on its way."""

    chunk: Chunk
    running: processes.Running
    batches: int


class FileSession:
    """A `protocol.Session` on a `FileTool`.

    Every call of the tool loads the model anew. After a failure the session may be used again.
    NaN and infinity are passed through. Not for sharing between threads.
    """

    def __init__(self, tool: FileTool) -> None:
        self.name = tool.opening.name
        self.inputs: Sequence[TensorSpec] = (tool.opening.input,)
        self.outputs: Sequence[TensorSpec] = (tool.opening.output,)
        self.about = tool.about
        self._tool = tool
        self._workspace = tool.workspace
        self._parts: list[_Part] = []  # what runs or lies on the disk now
        self._written = 0  # files ever, for names that never come again
        self._stream = 0
        self._closed = False

    def stream(self, batches: Iterable[Float32]) -> Iterator[Float32]:
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
        buffer = np.zeros(self.inputs[0].shape, np.float32)
        part: _Part | None = None
        try:
            while True:
                following = self._write(left, buffer, part)
                try:
                    self._check_stream(stream)
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
                        self._check_stream(stream)
                    self._drop(done)
                if part is None:
                    return
        finally:
            if self._stream == stream:
                self._end_stream()

    def time(self, loops: int, warmup: int) -> list[float]:
        """Milliseconds of an execution of a whole batch; a mean as one value when the tool prints
        no more.

        Raises:
            InferError: as `stream`, or figures that do not agree with each other.
        """
        check_loops(self.name, loops, warmup)
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
        room = min(self._tool.opening.chunk_bytes, int(DISK_PART * self._workspace.free_bytes()))
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
        self._tool.finished(done)
        try:
            files = self._tool.outputs(part.chunk, done)
        except InferError as error:  # a tool may end with 0 although its device went away
            raise lost_device(error, self._tool.opening.device_id) or error from error.__cause__
        remove(part.chunk.inputs)
        return files

    def _read(self, files: Sequence[Path], index: int) -> Float32:
        shape = self.outputs[0].shape
        count = shape[0] // self._tool.rows_per_file
        values = math.prod(shape) // count
        batch_files = files[index * count : (index + 1) * count]
        return np.concatenate([read_floats(file, values) for file in batch_files]).reshape(shape)

    def _drop(self, part: _Part) -> None:
        self._parts.remove(part)
        remove(part.chunk.folder)

    def _end_stream(self) -> None:
        """Stop and remove what a stream that was given up has left."""
        if self._closed:
            raise InferError(f"the session of {self.name} is closed", remedy="open the model again")
        self._stream += 1
        parts, self._parts = self._parts, []
        dead = True
        for part in parts:
            dead = not part.running.stop().unkillable and dead
            remove(part.chunk.folder)
        if not dead:
            raise undead(self._tool.what)

    def _check_stream(self, stream: int) -> None:
        if self._closed:
            raise InferError(f"the session of {self.name} is closed", remedy="open the model again")
        if self._stream != stream:
            raise InferError(
                f"{self.name}: the session was used for something else before this stream's end",
                remedy="read one stream to its end, or open a session for each",
            )
