"""The process of a device worker: start, asked with deadlines, ended with all that it started.

Commands and replies cross a socket, as `worker.py` describes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.base.environment import ROOT, with_entries
from harness.base.errors import DeviceError, HarnessError, NoSession, from_json
from harness.base.files import open_log
from harness.base.processes import (
    abandon,
    describe_exit,
    has_ended,
    kill_group,
    signal_of,
    start,
    tail,
    wait_ended,
)
from harness.targets.shared_memory import memory_file

CLOSE_S = 5.0  # how long a worker may take to end by itself
SEND_S = 10.0  # commands are small: a socket that stays full is a worker that reads nothing
LOOK_S = 0.2  # between two looks whether a silent worker is alive
REPLY_BYTES = 1 << 20  # more than the kernel takes for one message

WORKER = Path(__file__).with_name("worker.py")

Explain = Callable[[HarnessError], HarnessError]


class WorkerTrouble(Exception):
    """What went wrong with a worker, before it is known what it was doing for whom.

    Without a `remedy` the worker's log is what there is to look at. `hung`: it was silent for as
    long as it had. `signal`: what it died of, 0 for none. `error`: what it said itself, as an error
    of the harness's own, e.g. of its checkpoint.
    """

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        hung: bool = False,
        signal: int = 0,
        error: HarnessError | None = None,
    ) -> None:
        super().__init__(message)
        self.error = error
        self.remedy = remedy
        self.hung = hung
        self.signal = signal

    def as_error(self, kind: type[HarnessError], what: str, worker: Worker) -> HarnessError:
        if self.error is not None:
            return self.error
        remedy = self.remedy or worker.see()
        return kind(f"{what}: {self}", remedy=remedy, hung=self.hung, signal=self.signal)


class Worker:
    """The worker's process and the parent's ends of what is shared with it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        memory_fd: int,
        log: Path,
        log_start: int,
        explain: Explain,
    ) -> None:
        self.process = process
        self.explain = explain
        self.memory_fd = memory_fd
        self._channel = channel
        # Made once: the kernel gives and takes so much memory slowly, for each message.
        self._received = memoryview(bytearray(REPLY_BYTES))
        self._log = log
        self._log_start = log_start
        self._requests = 0
        channel.setblocking(False)

    def tail(self) -> str:
        """The last lines that this worker printed."""
        return tail(self._log, start=self._log_start)

    def see(self) -> str:
        """Return what to do where only its log can say more; a run's logs are in its own folder."""
        return f"see {self._log.parent.name}/{self._log.name}"

    def ask(self, command: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """Send a command and wait for its reply."""
        return self.receive(self.send(command), deadline_s)

    def send(self, command: dict[str, Any]) -> int:
        """Queue a command; the number of the request."""
        self._requests += 1
        message = json.dumps(dict(command, id=self._requests)).encode()
        limit = time.monotonic() + SEND_S
        while True:
            try:
                self._channel.send(message)
                return self._requests
            except BlockingIOError:
                if time.monotonic() >= limit:
                    raise WorkerTrouble(f"took no command for {SEND_S:g} s", hung=True) from None
                self._ready(select.POLLOUT, LOOK_S)
            except (BrokenPipeError, ConnectionResetError):
                raise self._death() from None

    def _ready(self, event: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._channel, event)
        return bool(poll.poll(1000 * seconds))

    def receive(self, request: int, deadline_s: float) -> dict[str, Any]:
        """The next reply, which must be to `request`."""
        body = self._read_message(deadline_s)
        try:
            reply: dict[str, Any] = json.loads(body)
            of, failure = reply["id"], reply.get("error")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise WorkerTrouble(f"the worker replied nonsense: {body[:80]!r}") from None
        if of != request:
            raise WorkerTrouble(f"the worker replied to request {of} in place of {request}")
        if failure:
            said = f"{failure['type']}: {failure['message']}"
            raise WorkerTrouble(said, error=from_json(failure) if "stage" in failure else None)
        return reply

    def _read_message(self, deadline_s: float) -> bytes:
        limit = time.monotonic() + deadline_s
        while True:
            left = limit - time.monotonic()
            # The socket's end says that the worker died, unless a child of it keeps it open.
            ended = has_ended(self.process)
            if ended or self._ready(select.POLLIN, max(0.0, min(left, LOOK_S))):
                try:
                    size = self._channel.recv_into(self._received)
                except (BlockingIOError, ConnectionResetError):
                    size = 0
                if not size:
                    raise self._death()
                return bytes(self._received[:size])
            if left <= 0:
                raise WorkerTrouble(
                    f"did not answer in {deadline_s:g} s and was stopped",
                    f"{self.see()} for where it hangs; if the machine is only slow: "
                    "--deadline-factor=N gives it N times as long",
                    hung=True,
                )

    def _death(self) -> WorkerTrouble:
        # A dump of memory can delay the end of a process whose socket is closed already.
        if not wait_ended(self.process, CLOSE_S):
            return WorkerTrouble("the worker closed its end of the socket")
        kill_group(self.process, 0.0)
        code = self.process.returncode
        how = "died" if code is None else describe_exit(code)
        return WorkerTrouble(f"the worker {how}", signal=signal_of(code or 0))

    def end(self, polite_s: float) -> bool:
        """Stop the worker and all that it start, free descriptors; False if it lives on."""
        try:
            if polite_s > 0 and not has_ended(self.process):
                with contextlib.suppress(WorkerTrouble):
                    self.send({"op": "close"})
                    wait_ended(self.process, polite_s)
            dead = kill_group(self.process, grace_s=min(polite_s, 1.0))
            if not dead:
                abandon(self.process)
            return dead
        finally:
            self._channel.close()
            os.close(self.memory_fd)


def start_worker(
    backend: str | Path,
    log: Path,
    *,
    name: str,
    pass_fds: Sequence[int],
    python: str,
    env: Mapping[str, str] | None,
    explain: Explain,
    limit_s: float,
) -> Worker:
    environment: Mapping[str, str] = os.environ if env is None else env
    if isinstance(backend, Path):
        # Last, so that it hides nothing: a backend of the harness may import the harness.
        environment = with_entries(environment, "PYTHONPATH", last=[ROOT])
        backend = str(backend.absolute())
    try:
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as ours:
            ours.callback(channel.close)
            memory = memory_file(name)
            ours.callback(os.close, memory)
            argv = [python, "-u", str(WORKER), "--backend", backend, "--limit", f"{limit_s:g}"]
            argv += ["--socket-fd", str(theirs.fileno()), "--memory-fd", str(memory)]
            with open_log(log) as out:
                log_start = out.tell()
                fds = (theirs.fileno(), memory, *pass_fds)
                process = start(argv, stdout=out, env=environment, pass_fds=fds)
            ours.pop_all()
    except OSError as error:
        raise NoSession(
            f"no worker could be started for {name}: {error}",
            remedy=f"check that {python} is a Python of 3.7 or later and {log} can be written",
        ) from error
    return Worker(process, channel, memory, log, log_start, explain)


def give_up(worker: Worker, error: HarnessError, cause: BaseException | None) -> NoReturn:
    """Kill the worker and raise what `error`, with its log, is explained as; `DeviceError` if the
    worker lives on.
    """
    dead = worker.end(polite_s=0.0)
    error.log = worker.tail()
    if not dead:
        raise undead(error.message, worker) from cause
    raise worker.explain(error) from cause


def undead(message: str, worker: Worker) -> DeviceError:
    return DeviceError(
        f"{message}; its worker, process {worker.process.pid}, would not die",
        remedy="the device stays leased until that process ends; its driver may need a reset",
        log=worker.tail(),
    )
