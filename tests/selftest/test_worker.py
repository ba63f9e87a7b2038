"""`harness.targets.worker`: the worker's own side of the protocol, and how long it lives."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import InferError
from harness.targets import worker as device_worker
from harness.targets.leases import lease
from harness.targets.protocol import Device
from harness.targets.sessions import open_session
from harness.targets.shared_memory import memory_file
from harness.targets.worker_process import WORKER
from tests.selftest.running import PATIENCE_S, ROOT, alive, needs_only_numpy
from tests.selftest.worker_backend import FAKE, B, C, batch, expected

PARENT = """
import sys, time
from pathlib import Path
from harness.targets.leases import lease
from harness.targets.protocol import Device
from harness.targets.sessions import open_session
directory = Path(sys.argv[1])
cpu = Device("cpu", 0, "host", "host")
with lease(cpu, directory, exclusive=True, timeout_s=9, what="victim") as held:
    session = open_session(
        directory / "model.fake", backend=directory / "fake.py", log=directory / "worker.log",
        options={"fault": sys.argv[2]}, deadline_open_s=60, deadline_run_s=600,
        pass_fds=held.fds)
    print(session.about.pid, flush=True)
    session.slots[0][...] = -1
    if sys.argv[2] == "pass":
        time.sleep(600)
    session.time(1, 0)
"""


@pytest.mark.parametrize("doing", ["time.sleep(600)", "pass"], ids=["hanging", "idle"])
def test_a_killed_parent_takes_the_worker_and_the_lease_with_it(tmp_path: Path, doing: str) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    argv = [sys.executable, "-c", PARENT, str(tmp_path), doing]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.send_signal(signal.SIGKILL)
    cpu = Device("cpu", 0, "host", "host")
    with lease(cpu, tmp_path, exclusive=True, timeout_s=60, what="next"):
        assert not alive(worker)


class Raw:
    """A worker driven by hand: the protocol as `worker.py` states it, without `sessions.py`."""

    def __init__(self, tmp_path: Path, *, limit: float = 600, python: str = sys.executable) -> None:
        backend = tmp_path / "fake.py"
        backend.write_text(FAKE)
        self.memory = memory_file("model.fake")
        os.ftruncate(self.memory, 1 << 16)
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [python, str(WORKER), "--backend", str(backend), "--limit", str(limit)]
        argv += ["--socket-fd", str(theirs.fileno()), "--memory-fd", str(self.memory)]
        with theirs, (tmp_path / "raw.log").open("wb") as log:
            fds = (theirs.fileno(), self.memory)
            self.process = subprocess.Popen(
                argv, pass_fds=fds, start_new_session=True, stdout=log, stderr=log
            )

    def send(self, **command: Any) -> None:
        self.channel.send(json.dumps({"id": 1, **command}).encode())

    def ask(self, **command: Any) -> dict[str, Any]:
        self.send(**command)
        reply: dict[str, Any] = json.loads(self.channel.recv(1 << 16))
        return reply

    def open(self, fault: str) -> None:
        self.ask(op="open", file="model.fake", options={"fault": fault})
        slots = [{"inputs": [0], "outputs": [4096]}]
        assert "error" not in self.ask(op="map", size=1 << 16, slots=slots)
        os.pwrite(self.memory, batch(-1).tobytes(), 0)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self.channel.close()
        os.close(self.memory)


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Callable[..., Raw]]:
    made: list[Raw] = []

    def start(**given: Any) -> Raw:
        made.append(Raw(tmp_path, **given))
        return made[-1]

    yield start
    for worker in made:
        worker.close()


def test_the_worker_survives_a_failed_run(raw: Callable[..., Raw]) -> None:
    worker = raw()
    worker.open("raise RuntimeError('once')")
    assert worker.ask(op="run", slots=[0])["error"] == {"type": "RuntimeError", "message": "once"}
    os.pwrite(worker.memory, batch(1).tobytes(), 0)
    reply = worker.ask(op="run", slots=[0])
    assert reply["id"] == 1 and reply["ms"] >= 0
    result = np.frombuffer(os.pread(worker.memory, 4 * B * C, 4096), np.float32).reshape(B, C)
    np.testing.assert_array_equal(result, expected(batch(1)))
    assert "error" in worker.ask(op="nonsense")
    assert worker.ask(op="close") == {"id": 1}
    assert worker.process.wait(PATIENCE_S) == 0


def in_process(
    tmp_path: Path, commands: list[dict[str, Any]], **options: str
) -> list[dict[str, Any]]:
    """Replies of a worker that is served in this process: fast, for what cannot crash."""
    (tmp_path / "fake.py").write_text(FAKE)
    slots = [{"inputs": [0], "outputs": [4096]}]
    commands = [
        {"op": "open", "file": "model.fake", "options": {"fault": "", **options}},
        {"op": "map", "size": 1 << 16, "slots": slots},
        *commands,
        {"op": "close"},
    ]
    memory = memory_file("model.fake")
    os.ftruncate(memory, 1 << 16)
    os.pwrite(memory, batch(-1).tobytes(), 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for number, command in enumerate(commands):
            ours.send(json.dumps({**command, "id": number}).encode())
        device_worker.Worker(str(tmp_path / "fake.py"), memory, theirs).serve()
        theirs.close()
        os.close(memory)
        return [json.loads(body) for body in iter(lambda: ours.recv(1 << 16), b"")]


BAD_OUTPUTS = {
    "wrong shape": ("outputs = [y.T]", r"output 'class' has shape \[5, 2\], .* says \[2, 5\]"),
    "wrong dtype": ("outputs = [y.astype('f2')]", "output 'class' has dtype float16"),
    "swapped bytes": ("outputs = [y.astype('>f4')]", "output 'class' has dtype >f4"),
    "no output": ("outputs = []", "returned 0 outputs, the model has 1"),
    "extra output": ("outputs = [y, y]", "returned 2 outputs, the model has 1"),
    "not a list": ("outputs = y", "returned a ndarray, not a list"),
    "not an array": ("outputs = [[1.0]]", "output 'class' is a list, not an array"),
}


@pytest.mark.parametrize("fault", BAD_OUTPUTS)
@pytest.mark.parametrize(
    "command",
    [{"op": "run", "slots": [0]}, {"op": "time", "loops": 2, "warmup": 0, "pulse_s": 1.0}],
    ids=["run", "time"],
)
def test_outputs_are_held_against_the_models_own_words(tmp_path, fault, command):
    code, message = BAD_OUTPUTS[fault]
    *_, reply, closed = in_process(tmp_path, [command], fault=code)
    assert reply["error"]["type"] == "ModelError"
    assert re.search(message, reply["error"]["message"])
    assert closed == {"id": 3}


def test_what_is_out_of_order_is_an_error_and_no_crash(tmp_path: Path) -> None:
    *replies, closed = in_process(tmp_path, [{"op": "nonsense"}, {"op": "run", "slots": [9]}])
    assert ["error" in reply for reply in replies] == [False, False, True, True]
    assert closed == {"id": 4}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("model.outputs = [('y', (None, 5), 'float32')]", r"\[None, 5\].*fixed sides"),
        ("model.outputs = [('y', (0, 5), 'float32')]", "fixed sides"),
        ("model.outputs = [('y', (2, 5), 'tensor(string)')]", "NumPy does not have"),
        ("raise ValueError", "no message"),
        ("raise OSError('first\\nsecond')", "first$"),
    ],
)
def test_models_that_are_none(tmp_path: Path, code: str, message: str) -> None:
    opened, mapped, _ = in_process(tmp_path, [], open=code)
    assert re.search(message, opened["error"]["message"])
    assert opened["id"] == 0 and mapped["id"] == 1


@pytest.mark.parametrize(
    ("loops", "warmup", "pulse_s", "progress"),
    [(20, 3, 1000.0, [1, 3, 7, 15, 23]), (5, 0, 0.0, [1, 2, 3, 4, 5])],  # quick ones, slow ones
)
def test_times_are_reported_in_chunks(tmp_path, loops, warmup, pulse_s, progress):
    command = {"op": "time", "loops": loops, "warmup": warmup, "pulse_s": pulse_s}
    _, _, *replies, timed, _ = in_process(tmp_path, [command])
    assert [reply["progress"] for reply in replies] == progress
    assert len(timed["ms"]) == loops


@pytest.fixture
def wrapper(tmp_path: Path) -> str:
    """An interpreter behind a shell script, as version managers install them."""
    script = tmp_path / "python-wrapper"
    script.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("hang", [False, True], ids=["idle", "hanging"])
def test_the_worker_ends_with_the_socket(raw: Callable[..., Raw], wrapper: str, hang: bool) -> None:
    # Its parent, here the wrapper, lives on: what ends is the socket, also while a command runs.
    worker = raw(python=wrapper)
    worker.open("time.sleep(600)")
    if hang:
        worker.send(op="run", slots=[0])
    worker.channel.close()
    worker.process.wait(PATIENCE_S)


def test_an_interpreter_behind_a_wrapper(tmp_path: Path, wrapper: str) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    options = {"fault": "os.kill(os.getpid(), signal.SIGSEGV)"}
    session = open_session(
        tmp_path / "model.fake",
        backend=tmp_path / "fake.py",
        options=options,
        log=tmp_path / "worker.log",
        deadline_open_s=60,
        deadline_run_s=60,
        python=wrapper,
    )
    with pytest.raises(InferError, match=r"SIGSEGV .*, its shell says with exit code 139"):
        list(session.stream([batch(1), batch(-1)]))


def test_a_hang_with_the_interpreter_locked_ends_without_a_parent(raw, tmp_path):
    worker = raw(limit=1.0)
    worker.open("ctypes.PyDLL(None).sleep(600)")
    worker.send(op="run", slots=[0])
    assert worker.process.wait(PATIENCE_S) == 1
    assert "Timeout" in (tmp_path / "raw.log").read_text()


def test_the_worker_is_python_3_7_with_the_standard_library_and_numpy() -> None:
    assert needs_only_numpy(WORKER)
