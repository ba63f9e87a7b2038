"""A session on a model that is open in a device worker, seen from the harness.

Batches cross through slots of shared memory. A request is for one batch, or for several that are
small and short; two requests are in flight while the third is filled, so that the device does not
wait for the host. Every wait for the worker has a deadline; past it the worker's process group is
killed, and whatever happened to it becomes one `InferError` or `LoadError` with the worker's log.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.errors import InferError, LoadError
from harness.targets import worker_process
from harness.targets.protocol import (
    Filler,
    Float32,
    Images,
    Runtime,
    SessionInfo,
    TensorSpec,
    Times,
)
from harness.targets.shared_memory import SLOTS, Memory, allocate, no_memory
from harness.targets.worker_process import (
    Explain,
    Worker,
    WorkerTrouble,
    give_up,
    start_worker,
    undead,
)

# Past this the worker ends by itself, should it hang with its interpreter locked after the parent
# was killed. Alive, the parent kills it earlier.
LIMIT_FACTOR = 2.0
LIMIT_MARGIN_S = 5.0
TOGETHER_MS = 10.0  # a request holds about so many ms of executions, but at least one execution


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
    expect: tuple[TensorSpec | None, TensorSpec | None] = (None, None),
    driver: str = "",
    explain: Explain = lambda error: error,
) -> WorkerSession:
    """Open `file` in a device worker of its own.

    `backend` is `onnxruntime` or a Python file as `worker.py` describes it, with its `options`.
    `python` may be another interpreter of 3.7 or later. The worker inherits `pass_fds` (a lease's)
    and appends what it prints to `log`. `deadline_open_s` is for its start and the opening,
    `deadline_run_s` for the wait for one batch. `expect`: what input and output must be but for
    their names; else float32 of any shape. `driver`: of `SessionInfo`, where it is not the backend.
    `explain` gives the error that a failure of the worker becomes, e.g. a device's.

    Raises:
        LoadError: no worker, no model, or a model with other tensors than one input and one output
            of the expected shapes and types.
        DeviceError: a worker that failed so and would not die.
    """
    name = file.name
    worker = start_worker(
        backend,
        log,
        name=name,
        pass_fds=pass_fds,
        python=str(python),
        env=env,
        explain=explain,
        limit_s=LIMIT_FACTOR * max(deadline_open_s, deadline_run_s) + LIMIT_MARGIN_S,
    )
    with _ended_by_failure(worker, name):
        opened = worker.ask(
            {"op": "open", "file": str(file.absolute()), "options": dict(options)}, deadline_open_s
        )
        given = _tensor(name, "input", opened["inputs"], expect[0])
        returned = _tensor(name, "output", opened["outputs"], expect[1])
        memory = allocate(worker.memory_fd, given, returned)
        worker.ask({"op": "map", "size": memory.size, "slots": memory.layout}, deadline_open_s)
    about = SessionInfo(
        driver=driver or str(backend), runtime=_runtime(opened["info"]), pid=worker.process.pid
    )
    return WorkerSession(name, worker, memory, given, returned, about, deadline_run_s)


@contextlib.contextmanager
def _ended_by_failure(worker: Worker, name: str) -> Iterator[None]:
    """End a worker that cannot open its model; what happened to it becomes the caller's error."""
    try:
        yield
    except WorkerTrouble as trouble:
        give_up(worker, trouble.as_error(LoadError, f"{name} could not be opened", worker), trouble)
    except LoadError as refused:
        give_up(worker, refused, None)
    except (OSError, MemoryError) as lack:
        give_up(worker, no_memory(name, lack), lack)
    except BaseException:
        worker.end(polite_s=0.0)
        raise


class OneStream(abc.ABC):
    """What a session has that serves one stream at a time: a new stream ends the older."""

    name: str
    inputs: Sequence[TensorSpec]
    _stream = 0  # number of the stream that may go on
    _closed = False

    @abc.abstractmethod
    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]: ...

    def stream(self, batches: Iterable[Images]) -> Iterator[Float32]:
        """See `protocol.Session.stream`; each batch is copied into the session's input."""
        return self.stream_into(functools.partial(self._copy, batch) for batch in batches)

    def _copy(self, batch: Images, view: Images) -> None:
        spec = self.inputs[0]
        if batch.shape != spec.shape or batch.dtype != spec.dtype:
            raise InferError(
                f"{self.name}: a batch of {batch.dtype}{list(batch.shape)} for the input "
                f"{spec.name!r}, which is {spec.dtype}{list(spec.shape)}",
                remedy="fill the last batch up to the model's batch size",
            )
        np.copyto(view, batch)

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


class WorkerSession(OneStream):
    """A `protocol.Session` in a device worker; made by `open_session`.

    After a failure of the worker the session is closed and every further use raises `InferError`.
    NaN and infinity are passed through: judging them is not the session's business. Not for
    sharing between threads.
    """

    def __init__(
        self,
        name: str,
        worker: Worker,
        memory: Memory,
        given: TensorSpec,
        returned: TensorSpec,
        about: SessionInfo,
        deadline_run_s: float,
    ) -> None:
        self.name = name
        self.about = about
        self.inputs: Sequence[TensorSpec] = (given,)
        self.outputs: Sequence[TensorSpec] = (returned,)
        self.slots: tuple[Images, ...] = memory.inputs  # views of the inputs' shape, writable
        self._results = memory.outputs
        self._worker: Worker | None = worker
        self.after = contextlib.ExitStack()  # is closed with the session
        self._deadline_s = deadline_run_s
        self._submitted: deque[tuple[int, list[int]]] = deque()  # (request, slots), oldest first
        self._free: list[int] = []  # slots: those that were used last are taken first
        self._together = 1  # batches of the next request

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        """Like `stream`; each filler writes a batch into the slot, which has the input's form.

        The slot holds an older batch before. A stream that is given up half way leaves nothing
        behind; one session has one stream at a time, a new one ends the older.
        """
        stream = self._begin()
        most = min(SLOTS, len(self.slots)) - 1  # requests in flight
        filled: list[int] = []
        for fill in fillers:
            self._check_stream(stream)
            filled.append(self._free.pop())
            fill(self.slots[filled[-1]])
            if len(filled) < self._together:
                continue
            results = self._collect() if len(self._submitted) == most else []
            self._submit(filled)  # before results are handed out: the consumer may take its time
            filled = []
            for result in results:
                yield result
                self._check_stream(stream)
        if filled:
            self._submit(filled)
        while self._submitted:
            for result in self._collect():
                yield result
                self._check_stream(stream)

    def _submit(self, slots: list[int]) -> None:
        """Queue the batches in some slots, which are the worker's until `_collect` returns them."""
        with self._asking() as worker:
            request = worker.send({"op": "run", "slots": slots})
        self._submitted.append((request, slots))

    def _collect(self) -> list[Float32]:
        """Wait for the oldest request: copies of its logits.

        Short executions go into one request, since a message takes as long as one of them. It stays
        short itself: a deadline is for a batch.
        """
        request, slots = self._submitted[0]
        with self._asking() as worker:
            ms = float(worker.receive(request, self._deadline_s)["ms"])
        self._submitted.popleft()
        self._free += slots
        if ms > TOGETHER_MS:
            self._together = max(1, len(slots) // 2)
        elif ms < TOGETHER_MS / 2:
            self._together = max(1, min(2 * len(slots), len(self.slots) // SLOTS))
        return [self._results[slot].copy() for slot in slots]

    def time(self, loops: int, warmup: int) -> Times:
        """See `protocol.Session.time`: on the batch in slot 0, zeros until something is written.

        The worker reports after every few executions: its silence may be as long as two deadlines
        of a run.
        """
        self._begin()
        pulse_s = min(1.0, self._deadline_s / 4)
        command = {"op": "time", "loops": loops, "warmup": warmup, "pulse_s": pulse_s}
        with self._asking() as worker:
            request = worker.send(command)
            while "ms" not in (reply := worker.receive(request, 2 * self._deadline_s)):
                pass  # progress
        return Times(tuple(map(float, reply["ms"])), tuple(map(float, reply["cpu_ms"])))

    def close(self) -> None:
        """End the worker: politely, then by force. Safe to call twice and in `finally`. Raises
        `DeviceError`: the worker would not die; its device stays leased.
        """
        with self.after:
            if self._worker is None:
                return
            worker = self._let_go()
            if not worker.end(polite_s=worker_process.CLOSE_S):
                raise undead(self.name, worker)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Worker]:
        """Give the worker for a request; what goes wrong with it ends the session."""
        worker = self._alive()
        try:
            yield worker
        except WorkerTrouble as trouble:
            self._let_go()
            give_up(worker, trouble.as_error(InferError, self.name, worker), trouble)

    def _alive(self) -> Worker:
        self._check_open()
        assert self._worker is not None
        return self._worker

    def _let_go(self) -> Worker:
        """Close for good: the views go, too, since slots can be hundreds of megabytes."""
        worker = self._alive()
        self._worker, self._closed = None, True
        self._submitted.clear()
        self.slots = self._results = ()
        return worker

    def _begin(self) -> int:
        """Wait for what a stream that was given up has left in flight; the new one's number."""
        while self._submitted:
            self._collect()
        self._free = [*reversed(range(len(self.slots)))]  # `time` executes on what is in slot 0
        self._stream += 1
        return self._stream


def _runtime(info: Mapping[str, Any]) -> Runtime:
    """Return what a backend says of itself, as a record keeps it: scalars, lists of names."""
    return {
        name: tuple(map(str, value)) if isinstance(value, list) else value
        for name, value in info.items()
        if value is None or isinstance(value, str | int | float | list)
    }


def _tensor(
    name: str, kind: str, specs: list[list[Any]], expected: TensorSpec | None
) -> TensorSpec:
    """The one input or output of a classifier; `LoadError` where it is none."""
    if len(specs) != 1:
        names = ", ".join(tensor for tensor, _, _ in specs) or "none"
        raise LoadError(
            f"{name} has {len(specs)} {kind}s ({names}); a classifier has one",
            remedy="export the network's logits alone",
        )
    tensor, sides, dtype = specs[0]
    wanted = "float32" if expected is None else expected.dtype
    if dtype != wanted:
        raise LoadError(
            f"{name}: the {kind} {tensor!r} is {dtype}, not {wanted}",
            remedy=f"compile it with a {wanted} {kind}",
        )
    if expected is not None and expected.shape != tuple(sides):
        raise LoadError(
            f"{name}: the {kind} {tensor!r} has shape {sides}, expected {list(expected.shape)}",
            remedy="compile it from the ONNX file of this model and batch size",
        )
    return TensorSpec(tensor, tuple(sides), dtype)
