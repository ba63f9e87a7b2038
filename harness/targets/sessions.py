"""A session on a model that is open in a device worker, seen from the harness.

Batches cross through three slots of shared memory: two are submitted while the third is filled,
so that the device does not wait for the host. Every wait for the worker has a deadline; past it
the worker's process group is killed, and whatever happened to it becomes one `InferError` or
`LoadError` with the worker's log.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import json
import math
import mmap
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from harness.base.environment import ROOT, with_entries
from harness.base.errors import DeviceError, HarnessError, InferError, LoadError
from harness.base.processes import (
    abandon,
    describe_exit,
    has_ended,
    kill_group,
    started,
    tail,
    wait_ended,
)
from harness.targets.batches import check_loops, copy_batch
from harness.targets.protocol import Filler, Float32, Runtime, SessionInfo, TensorSpec

SLOTS = 3
# Where three slots take more, two do: a batch that large runs for so long that the device hardly
# notices the moment between two, and memory is bounded by fewer of them.
SLOTS_BYTES = 512 * 1024 * 1024
ALIGNMENT = 64  # bytes: a cache line, and what vector instructions want
CLOSE_S = 5.0  # how long a worker may take to end by itself
SEND_S = 10.0  # commands are small: a pipe that stays full is a worker that reads nothing
LOOK_S = 0.2  # between two looks whether a silent worker is alive
REPLY_BYTES = 64 * 1024 * 1024

# Past this the worker ends by itself, should it hang with its interpreter locked after the parent
# was killed. Alive, the parent kills it earlier.
LIMIT_FACTOR = 2.0
LIMIT_MARGIN_S = 5.0

# Linux' own numbers, the same for all processors: a Python that was built for an old C library, as
# uv's and conda's may be, lacks their names.
MFD_CLOEXEC, MFD_ALLOW_SEALING = 1, 2
F_ADD_SEALS, F_SEAL_SHRINK, F_SEAL_GROW = 1033, 2, 4

WORKER = Path(__file__).with_name("worker.py")
_LENGTH = struct.Struct(">I")

Explain = Callable[[HarnessError], HarnessError]


def open_session(
    file: Path,
    *,
    backend: str | Path,
    options: Mapping[str, Any],
    log: Path,
    deadline_open_s: float,
    deadline_run_s: float,
    pass_fds: Sequence[int] = (),
    python: str | Path = sys.executable,
    env: Mapping[str, str] | None = None,
    expect_input: tuple[int, ...] | None = None,
    expect_output: tuple[int, ...] | None = None,
    driver: str = "",
    explain: Explain = lambda error: error,
    after: contextlib.ExitStack | None = None,
) -> WorkerSession:
    """Open `file` in a device worker of its own.

    `backend` is `onnxruntime` or a Python file as `worker.py` describes it; `options` are the
    backend's. `python` may be another interpreter of 3.7 or later. The worker inherits `pass_fds`
    (a lease's) and appends what it prints to `log`. `deadline_open_s` is for its start and the
    opening together, `deadline_run_s` for the wait for one batch. `expect_input` and
    `expect_output` are shapes with the batch axis. `driver` is what `SessionInfo` says of a
    backend of one's own. `explain` gives the error that a failure of the worker becomes, e.g. a
    device's. `after` is closed with the session.

    Raises:
        LoadError: no worker, no model, or a model with other tensors than one float32 input and
            one float32 output of the expected shapes.
        DeviceError: a worker that failed so and would not die.
    """
    name = file.name
    worker = _start(
        backend,
        log,
        name=name,
        pass_fds=pass_fds,
        python=str(python),
        env=env,
        explain=explain,
        limit_s=LIMIT_FACTOR * max(deadline_open_s, deadline_run_s) + LIMIT_MARGIN_S,
    )
    try:
        opened = worker.ask(
            {"op": "open", "file": str(file.absolute()), "options": dict(options)}, deadline_open_s
        )
        inputs, outputs = _specs(opened["inputs"]), _specs(opened["outputs"])
        _check_tensors(name, inputs, outputs, expect_input, expect_output)
        memory = _allocate(worker.memory_fd, inputs[0], outputs[0])
        worker.ask({"op": "map", "size": memory.size, "slots": memory.layout}, deadline_open_s)
    except _WorkerTrouble as trouble:
        message = f"{name} could not be opened: {trouble}"
        remedy = trouble.remedy or worker.see()
        _give_up(worker, LoadError(message, remedy=remedy, hung=trouble.hung), trouble)
    except LoadError as error:
        _give_up(worker, error, None)
    except (OSError, MemoryError) as error:
        _give_up(worker, _no_memory(name, error), error)
    except BaseException:
        worker.end(polite_s=0.0)
        raise
    about = SessionInfo(
        driver=driver or str(backend), runtime=_runtime(opened["info"]), pid=worker.process.pid
    )
    return WorkerSession(name, worker, memory, inputs, outputs, about, deadline_run_s, after)


class WorkerSession:
    """A `protocol.Session` in a device worker; made by `open_session`.

    After a failure of the worker the session is closed and every further use raises `InferError`.
    NaN and infinity are passed through: judging them is not the session's business. Not for
    sharing between threads.
    """

    def __init__(
        self,
        name: str,
        worker: _Worker,
        memory: _Memory,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        about: SessionInfo,
        deadline_run_s: float,
        after: contextlib.ExitStack | None,
    ) -> None:
        self.name = name
        self.about = about
        self.inputs: Sequence[TensorSpec] = inputs
        self.outputs: Sequence[TensorSpec] = outputs
        self.slots: tuple[Float32, ...] = memory.inputs  # views of the inputs' shape, writable
        self._results = memory.outputs
        self._worker: _Worker | None = worker
        self._after = after or contextlib.ExitStack()
        self._deadline_s = deadline_run_s
        self._submitted: deque[tuple[int, int]] = deque()  # (request, slot), oldest first
        self._stream = 0  # number of the stream that may collect

    def write(self, slot: int, batch: Float32) -> None:
        """Copy `float32[B, 3, S, S]` into a slot that is not submitted.

        Raises:
            InferError: another shape or dtype than the model's, or a slot in use.
        """
        self._alive()
        self._check_free(slot)
        copy_batch(self.name, self.inputs[0], batch, self.slots[slot])

    def submit(self, slot: int) -> None:
        """Queue the batch in a slot; the slot is the worker's until `collect` returns it."""
        worker = self._alive()
        self._check_free(slot)
        try:
            request = worker.send({"op": "run", "slot": slot})
        except _WorkerTrouble as trouble:
            self._fail(trouble)
        self._submitted.append((request, slot))

    def collect(self) -> tuple[Float32, float]:
        """Wait for the oldest submitted batch: a copy of its logits, and milliseconds.

        Raises:
            InferError: see `protocol.Session.stream`.
        """
        worker = self._alive()
        if not self._submitted:
            raise InferError(f"{self.name}: no batch was submitted")
        request, slot = self._submitted[0]
        try:
            reply = worker.receive(request, self._deadline_s)
        except _WorkerTrouble as trouble:
            self._fail(trouble)
        self._submitted.popleft()
        return self._results[slot].copy(), float(reply["ms"])

    def stream(self, batches: Iterable[Float32]) -> Iterator[Float32]:
        """See `protocol.Session.stream`; each batch is copied into the next free slot."""
        return self.stream_into(
            functools.partial(copy_batch, self.name, self.inputs[0], batch) for batch in batches
        )

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        """Like `stream`; each filler writes a batch into the slot's `float32[B, 3, S, S]`.

        The slot holds an older batch before. While a filler runs, two batches are in flight.
        A stream that is given up half way leaves nothing behind; one session has one stream at
        a time, a new one ends the older.
        """
        self._drain()
        self._stream += 1
        stream = self._stream
        in_flight = 0
        for count, fill in enumerate(fillers):
            self._check_stream(stream)
            slot = count % len(self.slots)
            fill(self.slots[slot])
            self._check_stream(stream)
            result = None
            if in_flight == len(self.slots) - 1:
                result, _ = self.collect()
                in_flight -= 1
            self.submit(slot)  # before the result is handed out: the consumer may take its time
            in_flight += 1
            if result is not None:
                yield result
                self._check_stream(stream)
        while in_flight:
            result, _ = self.collect()
            in_flight -= 1
            yield result
            self._check_stream(stream)

    def time(self, loops: int, warmup: int) -> list[float]:
        """Milliseconds of `loops` executions on the batch in slot 0, after `warmup` others.

        Slot 0 holds zeros until something is written to it. The worker reports after every few
        executions, two at least: its silence may be as long as two deadlines of a run.

        Raises:
            InferError: as `stream`.
        """
        check_loops(self.name, loops, warmup)
        self._drain()
        self._stream += 1
        command = {
            "op": "time",
            "loops": int(loops),
            "warmup": int(warmup),
            "pulse_s": min(1.0, self._deadline_s / 4),
        }
        try:
            worker = self._alive()
            request = worker.send(command)
            while True:
                reply = worker.receive(request, 2 * self._deadline_s)
                if "ms" in reply:
                    return [float(ms) for ms in reply["ms"]]
        except _WorkerTrouble as trouble:
            self._fail(trouble)

    def executions(self, loops: int) -> int:
        """See `protocol.Session.executions`."""
        return loops

    def close(self) -> None:
        """End the worker: politely, then by force. Safe to call twice and in `finally`.

        Raises:
            DeviceError: the worker would not die; its device stays leased.
        """
        with self._after:
            if self._worker is None:
                return
            worker = self._let_go()
            if not worker.end(polite_s=CLOSE_S):
                raise _undead(self.name, worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _alive(self) -> _Worker:
        if self._worker is None:
            raise InferError(f"the session of {self.name} is closed", remedy="open the model again")
        return self._worker

    def _let_go(self) -> _Worker:
        """Close for good: the views go, too, since slots can be hundreds of megabytes."""
        worker = self._alive()
        self._worker = None
        self._submitted.clear()
        self.slots = self._results = ()
        return worker

    def _check_free(self, slot: int) -> None:
        if slot not in range(len(self.slots)):
            raise InferError(f"{self.name}: no slot {slot}", remedy=f"0 to {len(self.slots) - 1}")
        if any(slot == used for _, used in self._submitted):
            raise InferError(f"{self.name}: slot {slot} is in use", remedy="collect it first")

    def _check_stream(self, stream: int) -> None:
        self._alive()
        if self._stream != stream:
            raise InferError(
                f"{self.name}: the session was used for something else before this stream's end",
                remedy="read one stream to its end, or open a session for each",
            )

    def _drain(self) -> None:
        """Wait for what a stream that was given up has left in flight."""
        while self._submitted:
            self.collect()

    def _fail(self, trouble: _WorkerTrouble) -> NoReturn:
        worker = self._let_go()
        remedy = trouble.remedy or worker.see()
        error = InferError(f"{self.name}: {trouble}", remedy=remedy, hung=trouble.hung)
        _give_up(worker, error, trouble)


# --- the worker's process ---------------------------------------------------------------------


class _WorkerTrouble(Exception):
    """What went wrong with a worker, before it is known what it was doing for whom.

    Without a `remedy` the worker's log is what there is to look at. `hung`: it was silent for as
    long as it had.
    """

    def __init__(self, message: str, remedy: str = "", *, hung: bool = False) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.hung = hung


class _Worker:
    """The worker's process and the parent's ends of what is shared with it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        command_fd: int,
        reply_fd: int,
        memory_fd: int,
        log: Path,
        log_start: int,
        explain: Explain,
    ) -> None:
        self.process = process
        self.explain = explain
        self.memory_fd = memory_fd
        self._command_fd = command_fd
        self._reply_fd = reply_fd
        self._log = log
        self._log_start = log_start
        self._requests = 0
        self._received = bytearray()
        os.set_blocking(command_fd, False)
        os.set_blocking(reply_fd, False)

    def tail(self) -> str:
        """The last lines that this worker printed."""
        return tail(self._log, start=self._log_start)

    def see(self) -> str:
        """What to do where only its log can say more; a run's logs are in its own folder."""
        return f"see {self._log.parent.name}/{self._log.name}"

    def ask(self, command: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """Send a command and wait for its reply."""
        return self.receive(self.send(command), deadline_s)

    def send(self, command: dict[str, Any]) -> int:
        """Queue a command; the number of the request."""
        self._requests += 1
        body = json.dumps(dict(command, id=self._requests)).encode()
        data = memoryview(_LENGTH.pack(len(body)) + body)
        limit = time.monotonic() + SEND_S
        poll = select.poll()
        poll.register(self._command_fd, select.POLLOUT)
        while data:
            try:
                data = data[os.write(self._command_fd, data) :]
            except BlockingIOError:
                if time.monotonic() >= limit:
                    raise _WorkerTrouble(f"took no command for {SEND_S:g} s", hung=True) from None
                poll.poll(1000 * LOOK_S)
            except BrokenPipeError:
                raise self._death() from None
        return self._requests

    def receive(self, request: int, deadline_s: float) -> dict[str, Any]:
        """The next reply, which must be to `request`."""
        body = self._read_message(deadline_s)
        try:
            reply: dict[str, Any] = json.loads(body)
            of, failure = reply["id"], reply.get("error")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _WorkerTrouble(f"the worker replied nonsense: {body[:80]!r}") from None
        if of != request:
            raise _WorkerTrouble(f"the worker replied to request {of} in place of {request}")
        if failure:
            raise _WorkerTrouble(f"{failure['type']}: {failure['message']}")
        return reply

    def _read_message(self, deadline_s: float) -> bytes:
        limit = time.monotonic() + deadline_s
        poll = select.poll()
        poll.register(self._reply_fd, select.POLLIN)
        while True:
            body = self._take_message()
            if body is not None:
                return body
            left = limit - time.monotonic()
            if left <= 0:
                raise _WorkerTrouble(
                    f"did not answer in {deadline_s:g} s and was stopped",
                    f"{self.see()} for where it hangs; if the machine is only slow: "
                    "--deadline-factor=N gives it N times as long",
                    hung=True,
                )
            # The pipe's end says that the worker died, unless a child of it keeps the pipe open.
            ended = has_ended(self.process)
            if not ended and not poll.poll(1000 * min(left, LOOK_S)):
                continue
            try:
                chunk = os.read(self._reply_fd, 1 << 16)
            except BlockingIOError:
                chunk = b""
                if not ended:
                    continue
            if not chunk:
                raise self._death()
            self._received += chunk

    def _take_message(self) -> bytes | None:
        """One whole message out of what was received."""
        if len(self._received) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._received)
        if size > REPLY_BYTES:
            raise _WorkerTrouble(f"the worker announced a reply of {size} bytes")
        end = _LENGTH.size + size
        if len(self._received) < end:
            return None
        body = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        return body

    def _death(self) -> _WorkerTrouble:
        # A dump of memory can delay the end of a process whose pipes are closed already.
        if not wait_ended(self.process, CLOSE_S):
            return _WorkerTrouble("the worker closed its end of the pipes")
        kill_group(self.process, 0.0)
        code = self.process.returncode
        return _WorkerTrouble(f"the worker {'died' if code is None else describe_exit(code)}")

    def end(self, polite_s: float) -> bool:
        """Stop the worker and all that it started, free descriptors; False if it lives on."""
        try:
            if polite_s > 0 and not has_ended(self.process):
                with contextlib.suppress(_WorkerTrouble):
                    self.send({"op": "close"})
                    wait_ended(self.process, polite_s)
            dead = kill_group(self.process, grace_s=min(polite_s, 1.0))
            if not dead:
                abandon(self.process)
            return dead
        finally:
            for fd in (self._command_fd, self._reply_fd, self.memory_fd):
                os.close(fd)


def _start(
    backend: str | Path,
    log: Path,
    *,
    name: str,
    pass_fds: Sequence[int],
    python: str,
    env: Mapping[str, str] | None,
    explain: Explain,
    limit_s: float,
) -> _Worker:
    environment: Mapping[str, str] = os.environ if env is None else env
    if isinstance(backend, Path):
        # Last, so that it hides nothing: a backend of the harness may import the harness.
        environment = with_entries(environment, "PYTHONPATH", last=[ROOT])
        backend = str(backend.absolute())
    ours: list[int] = []
    theirs: list[int] = []
    try:
        command_read, command_write = os.pipe()
        theirs.append(command_read)
        ours.append(command_write)
        reply_read, reply_write = os.pipe()
        theirs.append(reply_write)
        ours.append(reply_read)
        memory = memory_file(name)
        ours.append(memory)
        argv = [python, "-u", str(WORKER), "--backend", backend, "--limit", f"{limit_s:g}"]
        argv += ["--command-fd", str(command_read), "--reply-fd", str(reply_write)]
        argv += ["--memory-fd", str(memory)]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            start = out.tell()
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(command_read, reply_write, memory, *pass_fds),
                start_new_session=True,
            )
            started(process)
    except BaseException as error:
        for fd in ours:
            os.close(fd)
        if isinstance(error, OSError):
            raise LoadError(
                f"no worker could be started for {name}: {error}",
                remedy=f"check that {python} is a Python of 3.7 or later and {log} can be written",
            ) from error
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return _Worker(process, command_write, reply_read, memory, log, start, explain)


def _give_up(worker: _Worker, error: HarnessError, cause: BaseException | None) -> NoReturn:
    """Kill the worker and raise what `error`, with its log, is explained as; `DeviceError` if the
    worker lives on.
    """
    dead = worker.end(polite_s=0.0)
    error.log = worker.tail()
    if not dead:
        raise _undead(error.message, worker) from cause
    raise worker.explain(error) from cause


def _undead(message: str, worker: _Worker) -> DeviceError:
    return DeviceError(
        f"{message}; its worker, process {worker.process.pid}, would not die",
        remedy="the device stays leased until that process ends; its driver may need a reset",
        log=worker.tail(),
    )


# --- tensors ----------------------------------------------------------------------------------


def memory_file(name: str) -> int:
    """The descriptor of an empty file without a path, to be shared with a worker for `name`.

    It is in memory where kernel, C library and Python know how, else in the temporary directory.

    Raises:
        LoadError: neither can be had.
    """
    with contextlib.suppress(AttributeError, OSError):  # AttributeError: glibc before 2.27
        return _memfd_create("batches", MFD_CLOEXEC | MFD_ALLOW_SEALING)
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise _no_memory(name, error) from error


def _memfd_create(name: str, flags: int) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, flags)
    create = ctypes.CDLL(None, use_errno=True).memfd_create
    create.argtypes, create.restype = (ctypes.c_char_p, ctypes.c_uint), ctypes.c_int
    fd: int = create(name.encode(), flags)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def _no_memory(name: str, error: BaseException) -> LoadError:
    return LoadError(
        f"{name}: no shared memory for its batches: {error}",
        remedy="take a smaller batch size, or free memory and space in the temporary directory",
    )


@dataclass(frozen=True)
class _Memory:
    """The slots in shared memory: views of their inputs and outputs, and where they lie."""

    size: int  # bytes
    layout: list[dict[str, list[int]]]
    inputs: tuple[Float32, ...]
    outputs: tuple[Float32, ...]


def _count(spec: TensorSpec) -> int:
    return math.prod(spec.shape)


def _slot_bytes(spec: TensorSpec) -> int:
    size = _count(spec) * np.dtype(spec.dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


def _allocate(fd: int, given: TensorSpec, returned: TensorSpec) -> _Memory:
    """Lay out and map the slots.

    A file in memory is sealed: pages that the worker could take away would be a SIGBUS in this
    process.
    Its pages come as they are touched. The kernel lets it have any size and ends processes when
    that was too much, hence the check against the machine's memory.

    Raises:
        MemoryError: the slots are larger than the machine's memory.
        OSError: the kernel refuses them.
    """
    sizes = {"inputs": _slot_bytes(given), "outputs": _slot_bytes(returned)}
    count = SLOTS if SLOTS * sum(sizes.values()) <= SLOTS_BYTES else SLOTS - 1
    offset = 0
    layout = []
    for _ in range(count):
        slot = {}
        for key, size in sizes.items():
            slot[key] = [offset]
            offset += size
        layout.append(slot)
    if offset > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise MemoryError(f"{offset / 2**30:.0f} GiB are more than this machine has")
    os.ftruncate(fd, offset)
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)
    except OSError:  # a file in the temporary directory
        # A page that the disk has no room for would be a SIGBUS, too: take them all now.
        os.posix_fallocate(fd, 0, offset)
    # Unmapped when the last view is gone: whoever holds one after `close` reads stale numbers,
    # not freed memory.
    memory = mmap.mmap(fd, offset)

    def view(spec: TensorSpec, at: int) -> Float32:
        return np.frombuffer(memory, np.float32, _count(spec), at).reshape(spec.shape)

    return _Memory(
        offset,
        layout,
        tuple(view(given, slot["inputs"][0]) for slot in layout),
        tuple(view(returned, slot["outputs"][0]) for slot in layout),
    )


def _runtime(info: Mapping[str, Any]) -> Runtime:
    """What a backend says of itself, as a record keeps it: scalars and lists of names."""
    return {
        name: tuple(map(str, value)) if isinstance(value, list) else value
        for name, value in info.items()
        if value is None or isinstance(value, str | int | float | list)
    }


def _specs(data: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(str(name), tuple(shape), str(dtype)) for name, shape, dtype in data)


def _check_tensors(
    name: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    expect_input: tuple[int, ...] | None,
    expect_output: tuple[int, ...] | None,
) -> None:
    for kind, specs, expected in (
        ("input", inputs, expect_input),
        ("output", outputs, expect_output),
    ):
        if len(specs) != 1:
            names = ", ".join(spec.name for spec in specs) or "none"
            raise LoadError(
                f"{name} has {len(specs)} {kind}s ({names}); a classifier has one",
                remedy="export the network's logits alone",
            )
        spec = specs[0]
        if spec.dtype != "float32":
            raise LoadError(
                f"{name}: the {kind} {spec.name!r} is {spec.dtype}, not float32",
                remedy="compile it with float32 inputs and outputs",
            )
        if expected is not None and spec.shape != expected:
            raise LoadError(
                f"{name}: the {kind} {spec.name!r} has shape {list(spec.shape)}, "
                f"expected {list(expected)}",
                remedy="compile it from the ONNX file of this model and batch size",
            )
