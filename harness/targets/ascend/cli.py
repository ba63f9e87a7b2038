"""Driver `cli`: ais_bench's command line, over files, a chunk of batches at a time.

Forms of November 2022 to December 2025 are taken; what a tool can do is read from its `--help`.
Each batch is one input file with the bytes of the model's input, so the tool groups and pads
nothing, and each output file is one batch of logits. A model of another batch size shows in the
sizes of its files.

A chunk is written to a private folder, the tool runs over it, its outputs are counted, measured and
read, and everything is removed. While the tool runs, the next chunk is written: at most two lie on
the disk. Names of files have one dot: ais_bench cuts a name at its first.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import ValidationError

from harness.base import processes
from harness.base.errors import HarnessError, InferError, LoadError, NoSession, on_disk, some
from harness.records.measurements import Scalar
from harness.targets.ascend import drivers
from harness.targets.ascend.drivers import LEAST_WARMUP, Opening
from harness.targets.ascend.faults import lost_device, raise_for, undead
from harness.targets.ascend.times import OTHER_YEARS, Summary, execution_times, parse_throughput
from harness.targets.ascend.workspace import (
    MORE_SPACE,
    Workspace,
    make_folder,
    remove,
    write_file,
)
from harness.targets.protocol import Filler, Float32, Images, SessionInfo, TensorSpec, Times
from harness.targets.sessions import OneStream

CHUNK_BYTES = 1 << 30  # inputs of one call of the tool, which loads the model anew each time
DISK_PART = 0.25  # of what is free: two chunks, their outputs, and others who write meanwhile
MOST_FILES = 50_000  # ais_bench refuses a folder of more than 100,000
UMASK = 0o027  # what the tool makes is as private as what we make
GRACE_S = 1.0
INPUTS, RESULTS = "in", "out"  # folders of a chunk
ROUND_S = 5.0
"""Seconds of a round of timing: every call starts the tool and loads the model."""

_DIRNAME = "run"  # without a slash at its end, which would move the summary into it
_SUMMARIES = ("sumary.json", "_summary.json")  # that may lie among the outputs
_FLAG = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")
_LOADED = re.compile(r"load model .* success")
_HELP_WIDTH = "240"  # columns: some forms of --help cut names that do not fit
_GROUPS = re.compile(r"filesperbatch:(\d+) runcount:(\d+)")
_TIMES_ARE_NO_PAIRS = re.compile(r"TypeError: cannot unpack non-iterable float")


@dataclass(frozen=True)
class Chunk:
    """Some batches as files `in/<stem>.bin`, and a folder for what the tool writes."""

    folder: Path
    stems: tuple[str, ...]


class AisBench(OneStream):
    """A `protocol.Session` on the tool.

    Every call of the tool loads the model anew, in a new folder: an output that lies there is this
    call's. After a failure the session may be used again. NaN and infinity are passed through. Not
    for sharing between threads.
    """

    def __init__(self, opening: Opening, workspace: Workspace) -> None:
        toolkit = opening.toolkit
        self.name = opening.file.name
        self.what = f"{self.name}: ais_bench"  # as messages name them
        self.batch = opening.input.shape[0]
        self.inputs: Sequence[TensorSpec] = (opening.input,)
        self.outputs: Sequence[TensorSpec] = (opening.output,)
        self.opening = opening
        self.workspace = workspace
        self.model = workspace.own_copy(opening.file)
        self.deadline_s = opening.deadline_open_s + opening.deadline_run_s
        self._running: processes.Running | None = None
        self._written = 0  # files ever, for names that never come again
        self._command = drivers.tool_command(toolkit.python)
        self._flags = self._read_flags()
        takes_warmup = bool(self._flag("warmup_count"))
        runtime: dict[str, Scalar] = {
            "device": opening.device_id,
            **drivers.probe(toolkit, log=opening.log).versions,
            "tool": " ".join(self._command[1:]),
            "warmup": f"at least {LEAST_WARMUP}" if takes_warmup else "1, the tool's own",
        }
        self.about = SessionInfo("cli", runtime, round_s=ROUND_S)

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
            session._try_once()
            workspace.clear()
            undo.pop_all()
        return session

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        """See `protocol.Session.stream_into`. Results come a chunk at a time; a new stream ends an
        older one.
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
                    self._running = self._start(following)
                if done is not None:
                    # After the start: the device works while the caller takes its time.
                    for file in files:
                        yield np.fromfile(file, np.float32).reshape(self.outputs[0].shape)
                        self._check_stream(stream)
                    remove(done.folder)
                chunk = following
                if chunk is None:
                    return
        finally:
            if self._stream == stream and not self._closed:
                self._end_stream()

    def time(self, loops: int, warmup: int) -> Times:
        """See `protocol.Session.time`; raises `InferError` also for figures that disagree."""
        self._end_stream()
        try:
            return Times(tuple(self._timed(loops, warmup)))
        finally:
            self.workspace.clear()

    def close(self) -> None:
        """Stop the tool and remove all files; safe to call twice and in `finally`. Raises
        `DeviceError`: a process of the tool would not die; its device stays leased.
        """
        if self._closed:
            return
        try:
            self._end_stream()
        finally:
            self._closed = True
            self.workspace.close()

    # Calling the tool.

    def _call(self, arguments: Sequence[str], cwd: Path) -> processes.Running:
        toolkit = self.opening.toolkit
        return processes.Running(
            [*self._command, *arguments],
            cwd=cwd,
            env={**toolkit.env, "COLUMNS": _HELP_WIDTH},
            log=self.opening.log,
            pass_fds=self.opening.lease_fds,
            deadline_s=self.deadline_s,
            grace_s=GRACE_S,
            dies_with_us=True,
            umask=UMASK,
        )

    def run(self, arguments: Sequence[str], cwd: Path) -> processes.Completed:
        """Call the tool and wait for its end, or for its deadline."""
        return self._call(arguments, cwd).finish()

    def _check_end(self, done: processes.Completed, error: type[HarnessError] = InferError) -> None:
        """Raise what the end of a call means; nothing when it ended well."""
        if not done.ok and _TIMES_ARE_NO_PAIRS.search(done.tail()):
            raise error(
                f"{self.what} is of 2024 or later and its aclruntime is older: its times are no "
                "pairs of start and end",
                remedy=OTHER_YEARS,
                log=done.tail(),
            )
        raise_for(done, self.what, self.opening.device_id, error)

    def _arguments(self, results: Path, *, loops: int) -> list[str]:
        arguments = ["--model", str(self.model), "--output", str(results)]
        arguments += [self._flag("output_dirname"), _DIRNAME, "--outfmt", "BIN"]
        arguments += ["--device", str(self.opening.device_id)]
        arguments += drivers.dynamic_flags(self.batch) if self.opening.dynamic else []
        return [*arguments, "--batchsize", str(self.batch), "--loop", str(loops)]

    def _read_flags(self) -> Mapping[str, str]:
        """Read from the tool's help how it spells what it takes: some forms with dashes.

        Raises `NoSession` when it is not ais_bench.
        """
        done = self.run(["--help"], self.workspace.path)
        spelt = dict.fromkeys(_FLAG.findall(done.output()))
        dashes = "output-dirname" in spelt
        names = {name.replace("-", "_") for name in spelt}
        if done.ok and {"model", "outfmt", "loop", "output_dirname"} <= names:
            return {name: f"--{name.replace('_', '-') if dashes else name}" for name in names}
        raise NoSession(
            f"{self.name} cannot be run: no ais_bench answers to {' '.join(self._command)}",
            remedy="install the wheels ais_bench and aclruntime in that interpreter, or name "
            "another interpreter (--ais-python)",
            log=done.tail(),
        )

    def _flag(self, name: str) -> str:
        """Return an option as this form of the tool spells it, or nothing when it has none."""
        return self._flags.get(name, "")

    # On the tool's own zeros.

    def _try_once(self) -> None:
        """Execute on zeros, and check the output: the whole batch comes back as one file, whose
        size says which batch size the model has. What goes wrong once may go wrong here, and nobody
        else looks at this output.
        """
        results, done = self._pure(1, 0)
        # What it prints says whether it failed before or after loading.
        self._check_end(done, InferError if _LOADED.search(done.output()) else LoadError)
        try:
            (file,) = self._checked(results, ["pure_infer_data_0.bin"], done)
        except InferError as error:
            raise LoadError(error.message, remedy=error.remedy, log=error.log) from error
        if not np.isfinite(np.fromfile(file, np.float32)).all():
            raise InferError(
                f"{self.what} gives NaN or infinity for zeros",
                remedy="run the case again: where it stays so, a value leaves float16's range in "
                "the model; where it does not, the device made the mistake",
                log=done.tail(),
            )

    def _timed(self, loops: int, warmup: int) -> list[float]:
        results, done = self._pure(loops, max(warmup, LEAST_WARMUP))
        self._check_end(done)
        try:
            # Beside the folder of outputs or in it, under a name of its generation.
            file = next(results.rglob("*su*mary.json"), None)
            if file is None:
                raise InferError(f"{self.what} wrote no summary file", remedy="see the tool's log")
            summary = Summary.model_validate_json(file.read_bytes())
            printed = parse_throughput(done.output())
            return execution_times(self.what, printed, summary, batch=self.batch, loops=loops)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "as a whole"
            raise InferError(
                f"{self.what} wrote a summary that cannot be read: {where}: {first['msg']}",
                remedy="see the tool's log",
                log=done.tail(),
            ) from error
        except InferError as error:
            error.log = error.log or done.tail()
            raise

    def _pure(self, loops: int, warmup: int) -> tuple[Path, processes.Completed]:
        """Execute on zeros: the folder of what the tool writes, and how it ended."""
        results = self.workspace.folder()
        arguments = self._arguments(results, loops=loops)
        option = self._flag("warmup_count")
        if option and warmup:
            arguments += [option, str(warmup)]
        return results, self.run(arguments, results)

    # Writing, running and reading chunks.

    def _write(self, left: Iterator[Filler], buffer: Images, before: Chunk | None) -> Chunk | None:
        """Fill and write batches until a chunk is full; None when none is left."""
        folder: Path | None = None
        stems: list[str] = []
        most = 0
        for fill in left:
            fill(buffer)
            if before is not None and self._running is not None and self._running.overdue:
                self._finish(before)  # which raises: the deadline holds while we write, too
            what = f"{self.name}: a batch cannot be written to {self.workspace.path}"
            with on_disk(InferError, what, MORE_SPACE):
                if folder is None:
                    folder = self.workspace.folder()
                    most = self._most_batches(buffer.nbytes)
                    for name in (INPUTS, RESULTS):
                        make_folder(folder / name)
                self._written += 1
                stems.append(f"b{self._written:08d}")
                write_file(folder / INPUTS / f"{stems[-1]}.bin", buffer.data.cast("B"))
            if len(stems) == most:
                break
        return None if folder is None else Chunk(folder, tuple(stems))

    def _most_batches(self, batch_bytes: int) -> int:
        room = min(CHUNK_BYTES, int(DISK_PART * self.workspace.free_bytes()))
        return max(1, min(room // batch_bytes, MOST_FILES))

    def _start(self, chunk: Chunk) -> processes.Running:
        arguments = self._arguments(chunk.folder / RESULTS, loops=1)
        return self._call([*arguments, "--input", str(chunk.folder / INPUTS)], chunk.folder)

    def _finish(self, chunk: Chunk) -> Sequence[Path]:
        """Wait for the tool; return the output of each batch, in order, counted and measured."""
        assert self._running is not None
        done = self._running.finish()
        self._check_end(done)
        self._running = None
        groups = _GROUPS.search(done.output())
        try:
            if groups is not None and int(groups[1]) != 1:
                raise InferError(
                    f"{self.what} takes {groups[1]} batches of {self.batch} at once: the model's "
                    f"batch size is {int(groups[1]) * self.batch}, or its input not "
                    f"{self.inputs[0].dtype}",
                    remedy="compile the model for this batch size, with the catalog's `aipp`",
                    log=done.tail(),
                )
            names = [f"{stem}_0.bin" for stem in chunk.stems]
            files = self._checked(chunk.folder / RESULTS, names, done)
        except InferError as error:  # the tool may end with 0 although its device went away
            raise lost_device(error, self.opening.device_id) or error from error.__cause__
        remove(chunk.folder / INPUTS)
        return files

    def _checked(
        self, results: Path, names: Sequence[str], done: processes.Completed
    ) -> list[Path]:
        size = 4 * math.prod(self.outputs[0].shape)
        check_files(self.what, results / _DIRNAME, names, size, log=done.tail())
        return [results / _DIRNAME / name for name in names]

    def _end_stream(self) -> None:
        """Stop and remove what a stream that was given up has left."""
        self._check_open()
        self._stream += 1
        running, self._running = self._running, None
        dead = running is None or not running.stop().unkillable
        self.workspace.clear()
        if not dead:
            raise undead(self.what)


def check_files(what: str, folder: Path, names: Sequence[str], size: int, *, log: str) -> None:
    """Check that a folder holds exactly these files of `size` bytes: the tool ends with 0 however
    little it wrote. Raises `InferError`: files are missing, left over, or of another size, by name.
    """
    sizes: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in _SUMMARIES:
                continue
            regular = entry.is_file(follow_symlinks=False)
            sizes[entry.name] = entry.stat().st_size if regular else -1
    missing, extra = sorted({*names} - {*sizes}), sorted({*sizes} - {*names})
    wrong = [name for name in names if sizes.get(name) != size]
    if missing:
        said = f" wrote {len(names) - len(missing)} of {len(names)} outputs, missing: "
        said += some(missing)
        remedy = "see the tool's log; it ends with 0 although outputs are missing"
    elif extra:
        said = f" left {len(extra)} files that no input accounts for: {some(extra)}"
        remedy = "see the tool's log; a model with several outputs needs its logits alone"
    elif wrong:
        said = f": {len(wrong)} outputs have another size than the model's: {wrong[0]} has "
        said += f"{sizes[wrong[0]]} bytes, expected {size}"
        remedy = "compile the model with float32 outputs at this batch size; see the log"
    else:
        return
    raise InferError(what + said, remedy=remedy, log=log)
