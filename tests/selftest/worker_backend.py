"""A backend of the device worker that misbehaves on request, and sessions on it."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import InferError
from harness.targets.protocol import Float32
from harness.targets.sessions import WorkerSession, open_session
from tests.selftest.running import alive

B, C, S = 2, 5, 4
SHAPE = (B, 3, S, S)

# A backend whose outputs are the sum of each image times 1..C, and that misbehaves on request:
# `fault` is Python code that `run` executes when the first pixel of a batch is negative.
FAKE = """
import ctypes, os, signal, subprocess, sys, time
import numpy as np

def reply(data):
    os.write(int(sys.argv[sys.argv.index("--socket-fd") + 1]), data)

class Model:
    inputs = [("image", (2, 3, 4, 4), "float32")]
    outputs = [("class", (2, 5), "float32")]
    info = {"fake": "1.0", "path": sys.path}

    def __init__(self, options):
        self.options = options
        self.runs = 0

    def run(self, arrays):
        (x,) = arrays
        self.runs += 1
        y = np.outer(x.sum((1, 2, 3)), np.arange(1, 6)).astype(np.float32)
        outputs = [y]
        if x.flat[0] < 0:
            scope = {**globals(), "y": y, "outputs": outputs, "self": self}
            exec(self.options["fault"], scope)
            outputs = scope["outputs"]
        return outputs

def open_model(path, options):
    model = Model(options)
    exec(options.get("open", ""), {**globals(), "model": model, "path": path})
    return model
"""


def batch(value: float) -> Float32:
    return np.full(SHAPE, value, np.float32)


def expected(images: Float32) -> Float32:
    return np.outer(images.sum((1, 2, 3)), np.arange(1, C + 1)).astype(np.float32)


Opener = Callable[..., WorkerSession]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerSession]:
    """One healthy session for all tests that leave it so: starting a worker takes its time."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "fake.py").write_text(FAKE)
    session = open_session(
        folder / "model.fake",
        backend=folder / "fake.py",
        options={},
        log=folder / "worker.log",
        deadline_open_s=60,
        deadline_run_s=60,
    )
    with contextlib.closing(session):
        yield session


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Open sessions on the fake backend; `fault` and `open` are code that it executes."""
    backend = tmp_path / "fake.py"
    backend.write_text(FAKE)
    made: list[WorkerSession] = []

    def open_fake(fault: str = "", open: str = "", **given: Any) -> WorkerSession:
        options = {"fault": textwrap.dedent(fault), "open": textwrap.dedent(open)}
        settings = {
            "backend": backend,
            "options": options,
            "log": tmp_path / "worker.log",
            "deadline_open_s": 60.0,
            "deadline_run_s": 60.0,
            **given,
        }
        made.append(open_session(tmp_path / "model.fake", **settings))
        return made[-1]

    yield open_fake
    for session in made:
        session.close()


def failing(session: WorkerSession) -> InferError:
    """The error of a stream whose second batch sets off the fault; the first is answered."""
    seen: list[Float32] = []
    with pytest.raises(InferError) as caught:
        seen.extend(session.stream([batch(1), batch(-1), batch(1), batch(1)]))
    assert len(seen) <= 1
    assert session.about.pid is not None and not alive(session.about.pid)
    return caught.value


def broken(session: WorkerSession) -> InferError:
    """The error of the one batch that sets off the fault."""
    with pytest.raises(InferError) as caught:
        list(session.stream([batch(-1)]))
    return caught.value
