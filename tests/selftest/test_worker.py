"""`harness.targets.worker` and `sessions`: a runtime may do what it likes, one case pays."""

from __future__ import annotations

import ast
import errno
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import DeviceError, InferError, LoadError
from harness.base.processes import kill_group
from harness.targets import sessions
from harness.targets import worker as device_worker
from harness.targets.leases import lease
from harness.targets.protocol import Device, Float32, Session
from harness.targets.sessions import SLOTS, WorkerSession, open_session
from tests.selftest.running import alive, eventually

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "harness" / "targets" / "worker.py"
B, C, S = 2, 5, 4
SHAPE = (B, 3, S, S)

# A backend whose outputs are the sum of each image times 1..C, and that misbehaves on request:
# `fault` is Python code that `run` executes when the first pixel of a batch is negative.
FAKE = """
import ctypes, os, signal, subprocess, sys, time
import numpy as np

def reply(data):
    os.write(int(sys.argv[sys.argv.index("--reply-fd") + 1]), data)

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
    with open_session(
        folder / "model.fake",
        backend=folder / "fake.py",
        options={},
        log=folder / "worker.log",
        deadline_open_s=60,
        deadline_run_s=60,
    ) as session:
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
    assert session.about.pid is None
    return caught.value


# --- what works -------------------------------------------------------------------------------


def test_stream_keeps_the_order_and_every_value(plain: WorkerSession) -> None:
    rng = np.random.default_rng(1)
    batches = [rng.random(SHAPE, dtype=np.float32) for _ in range(11)]
    for count in (0, 1, 2, 3, 11):
        results = list(plain.stream(batches[:count]))
        assert len(results) == count
        for given, result in zip(batches, results, strict=False):
            assert result.dtype == np.float32 and result.shape == (B, C)
            np.testing.assert_array_equal(result, expected(given))
    assert len({result.ctypes.data for result in results}) == 11  # copies, not the slots


def test_fillers_write_into_the_slots(plain: WorkerSession) -> None:
    views: list[Float32] = []

    def filler(value: float) -> Callable[[Float32], None]:
        def fill(view: Float32) -> None:
            views.append(view)
            view[...] = value

        return fill

    results = list(plain.stream_into(filler(k) for k in range(7)))
    np.testing.assert_array_equal(results, [expected(batch(k)) for k in range(7)])
    assert [id(view) for view in views] == [id(plain.slots[k % SLOTS]) for k in range(7)]
    assert all(view.ctypes.data % sessions.ALIGNMENT == 0 for view in views)


def test_large_batches_take_two_slots(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    one = 4 * B * (3 * 4 * 4 + C)
    monkeypatch.setattr(sessions, "SLOTS_BYTES", 4 * one)
    assert len(opened().slots) == SLOTS
    monkeypatch.setattr(sessions, "SLOTS_BYTES", 2 * one)
    session = opened()
    assert len(session.slots) == 2
    in_flight: list[int] = []

    def filler(value: float) -> Callable[[Float32], None]:
        def fill(view: Float32) -> None:
            in_flight.append(len(session._submitted))
            view[...] = value

        return fill

    results = list(session.stream_into(filler(k) for k in range(5)))
    np.testing.assert_array_equal(results, [expected(batch(k)) for k in range(5)])
    assert in_flight == [0, 1, 1, 1, 1]


def test_two_batches_are_in_flight_while_the_third_is_filled(plain: WorkerSession) -> None:
    in_flight: list[int] = []

    def fill(view: Float32) -> None:
        in_flight.append(len(plain._submitted))
        view[...] = 1

    list(plain.stream_into([fill] * 6))
    assert in_flight == [0, 1, 2, 2, 2, 2]


def test_the_next_batch_is_submitted_before_a_result_is_handed_out(plain: WorkerSession) -> None:
    in_flight = [len(plain._submitted) for _ in plain.stream([batch(1)] * 5)]
    assert in_flight == [2, 2, 2, 1, 0]


def test_session_satisfies_the_protocol(plain: WorkerSession) -> None:
    session: Session = plain
    assert [(s.name, s.shape, s.dtype) for s in session.inputs] == [("image", SHAPE, "float32")]
    assert [(s.name, s.shape, s.dtype) for s in session.outputs] == [("class", (B, C), "float32")]


def test_primitives(plain: WorkerSession) -> None:
    plain.write(1, batch(2))
    plain.write(0, batch(3))
    plain.submit(1)
    plain.submit(0)
    result, ms = plain.collect()
    np.testing.assert_array_equal(result, expected(batch(2)))
    assert ms >= 0
    np.testing.assert_array_equal(plain.collect()[0], expected(batch(3)))


def test_time_counts_the_loops_and_not_the_warm_up(opened: Opener) -> None:
    session = opened("outputs = [y * 0 + self.runs]")
    session.write(0, batch(-1))
    for loops, warmup in ((1, 0), (37, 5)):
        times = session.time(loops, warmup)
        assert len(times) == loops and all(isinstance(ms, float) and ms >= 0 for ms in times)
    ((runs, *_), *_) = next(session.stream([batch(-1)]))
    assert runs == 1 + 37 + 5 + 1


def test_a_backend_may_time_itself(opened: Opener) -> None:
    code = """
        def own(arrays, loops, warmup):
            model.calls = getattr(model, "calls", 0) + 1
            assert warmup == 0 and arrays[0].shape == (2, 3, 4, 4)
            return [0.5 * model.calls] * loops
        model.time = own
        """
    times = opened(open=code).time(4, 1)
    assert len(times) == 4 and times[0] > 0.5  # the warm-up was a call of its own
    with pytest.raises(InferError, match="0 times for 1 executions"):
        opened(open="model.time = lambda *a: []").time(4, 1)
    with pytest.raises(InferError, match=r"1 times for 1 executions: \[nan\]"):
        opened(open="model.time = lambda *a: [float('nan')]").time(4, 1)


def test_a_long_measurement_is_no_hang(opened: Opener) -> None:
    # Longer than the deadline together, each execution far below it.
    session = opened("time.sleep(0.02)", deadline_run_s=1.0)
    session.write(0, batch(-1))
    assert len(session.time(60, 10)) == 70 - 10


def test_the_model_file_options_and_info_arrive(opened: Opener) -> None:
    session = opened(open="model.info = {'path': path, 'options': sorted(model.options)}")
    assert session.about.runtime["path"].endswith("/model.fake")
    assert session.about.runtime["options"] == ["fault", "open"]
    assert session.about.runtime["numpy"] == np.__version__


def test_what_a_runtime_prints_goes_to_the_log(opened: Opener, tmp_path: Path) -> None:
    noise = """
        print("garbage " * 100)
        os.write(1, b"\\x00\\x00\\x00\\x05{nul}" * 1000)
        os.write(2, b"stderr")
        ctypes.CDLL(None).puts(b"from C")
        """
    session = opened(noise, open=noise)
    results = list(session.stream([batch(-1)] * 4))
    np.testing.assert_array_equal(results, [expected(batch(-1))] * 4)
    log = (tmp_path / "worker.log").read_bytes()
    assert log.count(b"stderr") == log.count(b"from C") == 5


def test_nan_and_infinity_pass_through(opened: Opener) -> None:
    (result,) = opened("y[0, 0] = np.nan; y[1, 1] = np.inf").stream([batch(-1)])
    assert np.isnan(result[0, 0]) and np.isposinf(result[1, 1])
    np.testing.assert_array_equal(result[0, 1:], expected(batch(-1))[0, 1:])


def test_the_scripts_folder_hides_no_runtime(plain: WorkerSession) -> None:
    # `harness/targets` has an onnxruntime.py; a worker that imports it has no runtime.
    path = [os.path.abspath(entry or ".") for entry in plain.about.runtime["path"]]
    assert str(WORKER.parent) not in path
    assert str(ROOT) in path


# --- what a runtime can do --------------------------------------------------------------------

FAULTS = {
    "raises": ("raise RuntimeError('E40000 inner\\nmore')", "RuntimeError: E40000 inner$"),
    "segmentation fault": (
        "ctypes.string_at(0)",
        r"was killed by SIGSEGV \(segmentation fault\)",
    ),
    "abort": ("os.abort()", r"was killed by SIGABRT \(abort\)"),
    "out of memory": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        r"was killed by SIGKILL \(perhaps out of memory\)",
    ),
    "exits": ("os._exit(3)", "ended with exit code 3"),
    "exits well": ("sys.exit(0)", "ended with exit code 0"),
    "wrong shape": ("outputs = [y.T]", r"output 'class' has shape \[5, 2\], .* says \[2, 5\]"),
    "closes everything": ("os.closerange(3, 4096); time.sleep(600)", "(closed its end|SIGKILL)"),
    "replies nonsense": (
        "reply(b'\\x00\\x00\\x00\\x02no')",
        "the worker replied nonsense: b'no'",
    ),
    "replies no object": ("reply(b'\\x00\\x00\\x00\\x02[]')", "replied nonsense"),
    "replies out of turn": (
        "reply(b'\\x00\\x00\\x00\\x0a{\"id\": 99}')",
        "replied to request 99 in place of",
    ),
    "announces too much": (
        "reply(b'\\xff\\xff\\xff\\xff'); time.sleep(600)",
        "announced a reply of 4294967295 bytes",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_with_the_log(
    opened: Opener, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "CLOSE_S", 0.5)
    code, message = FAULTS[fault]
    words = "print('last words'); ctypes.CDLL(None).puts(b'said in C')"
    error = failing(opened(f"{words}; {code}"))
    assert error.message.startswith("model.fake: ")
    assert re.search(message, error.message)
    assert "last words" in error.log and "said in C" in error.log
    assert error.remedy.endswith("/worker.log")


def test_the_stack_of_a_crash_is_in_the_log(opened: Opener) -> None:
    error = failing(opened("ctypes.string_at(0)"))
    assert "Segmentation fault" in error.log and "in run" in error.log


def test_killed_from_outside(opened: Opener) -> None:
    session = opened()
    assert len(list(session.stream([batch(1)]))) == 1
    assert session.about.pid is not None
    os.kill(session.about.pid, signal.SIGKILL)
    assert "SIGKILL (perhaps out of memory)" in failing_at_once(session).message


def failing_at_once(session: WorkerSession) -> InferError:
    with pytest.raises(InferError) as caught:
        list(session.stream([batch(1)]))
    return caught.value


def test_a_death_is_seen_although_a_child_keeps_the_pipes(opened: Opener) -> None:
    session = opened("if os.fork(): os._exit(7)\ntime.sleep(600)")
    session.write(0, batch(-1))
    session.submit(0)
    with pytest.raises(InferError, match="exit code 7"):
        session.collect()


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(600)",
        "ctypes.PyDLL(None).sleep(600)",  # with the interpreter's lock held
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    ],
    ids=["sleeps", "holds the lock", "ignores SIGTERM"],
)
def test_a_hang_ends_at_the_deadline_with_all_its_processes(
    opened: Opener, hang: str, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    start = f"p = subprocess.Popen(['sleep', '600']); open({str(pids)!r}, 'w').write(str(p.pid))"
    session = opened(hang, open=start, deadline_run_s=0.3)
    worker = session.about.pid
    session.write(0, batch(-1))
    session.submit(0)
    with pytest.raises(InferError, match=r"model.fake: did not answer in 0\.3 s") as caught:
        session.collect()
    assert "--deadline-factor" in caught.value.remedy
    assert "/worker.log for where it hangs" in caught.value.remedy
    assert caught.value.hung
    assert worker is not None and not alive(worker)
    assert not alive(int(pids.read_text()))


def test_a_hang_while_timing(opened: Opener) -> None:
    session = opened("time.sleep(600)", deadline_run_s=0.3)
    session.write(0, batch(-1))
    with pytest.raises(InferError, match="did not answer"):
        session.time(10, 2)


def test_a_hang_at_close_is_ended(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CLOSE_S", 0.3)
    session = opened(open="model.close = lambda: time.sleep(600)")
    worker = session.about.pid
    session.close()
    assert worker is not None and not alive(worker)


def test_a_worker_that_will_not_die_is_a_device_error(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stubborn(process: subprocess.Popen[bytes], grace_s: float) -> bool:
        kill_group(process, grace_s)
        return False

    monkeypatch.setattr(sessions, "kill_group", stubborn)
    session = opened("time.sleep(600)", deadline_run_s=0.3)
    pid = session.about.pid
    session.write(0, batch(-1))
    session.submit(0)
    with pytest.raises(DeviceError, match=f"process {pid}, would not die") as caught:
        session.collect()
    assert "did not answer in 0.3 s" in caught.value.message
    other = opened()
    with pytest.raises(DeviceError, match="would not die"):
        other.close()
    other.close()


def test_a_failed_session_is_closed(opened: Opener) -> None:
    session = opened("raise RuntimeError('no')")
    failing(session)
    for use in (
        lambda: list(session.stream([batch(1)])),
        lambda: session.time(1, 0),
        lambda: session.submit(0),
        session.collect,
    ):
        with pytest.raises(InferError, match=r"the session of model\.fake is closed"):
            use()
    session.close()


# --- opening ----------------------------------------------------------------------------------

BAD_MODELS = {
    "raises": ("raise OSError('no such model')", "OSError: no such model"),
    "crashes": ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "exits": ("sys.exit('no device 0')", "exit code 1"),
    "two inputs": ("model.inputs = model.inputs * 2", r"2 inputs \(image, image\)"),
    "no output": ("model.outputs = []", r"0 outputs \(none\)"),
    "float16": ("model.inputs = [('x', (2, 3, 4, 4), 'float16')]", "'x' is float16, not float32"),
    "another batch": ("model.inputs = [('x', (4, 3, 4, 4), 'float32')]", r"expected \[2, 3, 4"),
    "other classes": ("model.outputs = [('y', (2, 6), 'float32')]", r"expected \[2, 5\]"),
}  # fmt: skip


@pytest.mark.parametrize("model", BAD_MODELS)
def test_a_bad_model_is_a_load_error(opened: Opener, model: str) -> None:
    code, message = BAD_MODELS[model]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LoadError, match=message) as caught:
        opened(open=f"print('opening'); {code}", expect_input=SHAPE, expect_output=(B, C))
    assert "opening" in caught.value.log
    assert caught.value.message.startswith("model.fake")
    assert caught.value.remedy
    assert len(os.listdir("/proc/self/fd")) == before


def test_slots_larger_than_the_machine_are_a_load_error(opened: Opener) -> None:
    with pytest.raises(LoadError, match=r"no shared memory .* more than this machine has"):
        opened(open="model.inputs = [('x', (2**40, 2**30), 'float32')]")


def test_memory_is_not_taken_before_it_is_used(opened: Opener) -> None:
    # Half a gigabyte of slots that nobody touches.
    session = opened(open="model.inputs = [('x', (2**27 // 3,), 'float32')]")
    held = os.stat(f"/proc/{session.about.pid}/fd/{memory_fd(session)}")
    assert held.st_size > 2**28 and held.st_blocks * 512 < 2**20


def memory_fd(session: WorkerSession) -> int:
    argv = Path(f"/proc/{session.about.pid}/cmdline").read_text().split("\0")
    return int(argv[argv.index("--memory-fd") + 1])


def test_a_hang_while_opening(opened: Opener) -> None:
    words = r"could not be opened: did not answer in 0\.3 s"
    with pytest.raises(LoadError, match=words) as caught:
        opened(open="time.sleep(600)", deadline_open_s=0.3)
    assert caught.value.hung


@pytest.mark.parametrize(
    ("python", "message"),
    [("/no/such/python3.7", "no worker could be started"), ("/bin/false", "exit code 1")],
)
def test_an_interpreter_that_is_none(opened: Opener, python: str, message: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LoadError, match=message):
        opened(python=python)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = ", "SyntaxError"),
        ("import no_such_runtime", "ModuleNotFoundError: No module named 'no_such_runtime'"),
        ("x = 1", "AttributeError"),
    ],
)
def test_a_backend_that_is_none(opened: Opener, tmp_path: Path, source: str, message: str) -> None:
    backend = tmp_path / "broken.py"
    backend.write_text(source)
    with pytest.raises(LoadError, match=message):
        opened(backend=backend)


# --- use and misuse ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, 3, S, S), np.float32),
        np.zeros(SHAPE, np.float64),
        np.zeros(SHAPE, np.uint8),
        np.zeros((B, S, S, 3), np.float32),
    ],
    ids=["short batch", "float64", "uint8", "NHWC"],
)
def test_a_batch_that_does_not_fit_is_not_submitted(plain: WorkerSession, bad: Any) -> None:
    with pytest.raises(InferError, match="for the input 'image', which is float32"):
        list(plain.stream([batch(1), bad]))
    assert len(list(plain.stream([batch(1)] * 4))) == 4


def test_slots_in_use_are_kept(plain: WorkerSession) -> None:
    with pytest.raises(InferError, match="no batch was submitted"):
        plain.collect()
    plain.submit(0)
    with pytest.raises(InferError, match="slot 0 is in use"):
        plain.submit(0)
    with pytest.raises(InferError, match="slot 0 is in use"):
        plain.write(0, batch(1))
    with pytest.raises(InferError, match="no slot 3"):
        plain.submit(3)


def test_a_stream_that_is_given_up_leaves_nothing_behind(plain: WorkerSession) -> None:
    first = plain.stream(batch(k) for k in range(9))
    np.testing.assert_array_equal(next(first), expected(batch(0)))
    results = list(plain.stream(batch(k) for k in range(20, 25)))
    np.testing.assert_array_equal(results, [expected(batch(k)) for k in range(20, 25)])
    with pytest.raises(InferError, match="used for something else"):
        next(first)


def test_timing_ends_a_stream(plain: WorkerSession) -> None:
    stream = plain.stream([batch(1)] * 3)
    next(stream)
    assert len(plain.time(2, 0)) == 2
    with pytest.raises(InferError, match="used for something else"):
        list(stream)


def test_closing_ends_a_stream_with_an_error(opened: Opener) -> None:
    session = opened()
    stream = session.stream([batch(1)] * 3)
    next(stream)
    session.close()
    with pytest.raises(InferError, match="is closed"):
        list(stream)


def test_an_error_of_the_feed_comes_through_and_the_session_lives(plain: WorkerSession) -> None:

    def feed() -> Iterator[Float32]:
        yield from [batch(1)] * 2
        raise LookupError("no image")

    with pytest.raises(LookupError):
        list(plain.stream(feed()))
    assert len(list(plain.stream([batch(2)] * 4))) == 4


@pytest.mark.parametrize(("loops", "warmup"), [(0, 0), (-1, 0), (1, -1)])
def test_times_of_nothing_are_refused(plain: WorkerSession, loops: int, warmup: int) -> None:
    with pytest.raises(InferError, match="cannot time"):
        plain.time(loops, warmup)


def test_close_is_polite_first_and_can_be_repeated(opened: Opener, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    said = tmp_path / "closed"
    with opened(open=f"model.close = lambda: open({str(said)!r}, 'w').close()") as session:
        worker = session.about.pid
        assert worker is not None and alive(worker)
    assert said.exists() and not alive(worker)
    session.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_left_open_by_failures(opened: Opener) -> None:
    before = len(os.listdir("/proc/self/fd"))
    failing(opened("os.kill(os.getpid(), signal.SIGSEGV)"))
    failing(opened("raise RuntimeError"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_worker_cannot_take_pages_away(opened: Opener) -> None:
    # A file that shrinks under a mapping is a SIGBUS in pytest.
    shrink = "os.ftruncate(int(sys.argv[sys.argv.index('--memory-fd') + 1]), 0)"
    error = failing(opened(shrink))
    assert "PermissionError" in error.message


CONSTANTS = ("F_ADD_SEALS", "F_SEAL_SHRINK", "F_SEAL_GROW", "MFD_CLOEXEC", "MFD_ALLOW_SEALING")


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_kernels_numbers_are_pythons(name: str) -> None:
    module = os if name.startswith("MFD") else fcntl
    assert getattr(sessions, name) == getattr(module, name, getattr(sessions, name))


@pytest.fixture
def old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """As built for a C library that is older than the kernel: without names for it."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    for name in CONSTANTS:
        monkeypatch.delattr(os if name.startswith("MFD") else fcntl, name, raising=False)


@pytest.mark.usefixtures("old_python")
def test_a_python_without_memfd_create(opened: Opener) -> None:
    session = opened("os.ftruncate(int(sys.argv[sys.argv.index('--memory-fd') + 1]), 0)")
    (result,) = session.stream([batch(1)])
    np.testing.assert_array_equal(result, expected(batch(1)))
    assert os.readlink(f"/proc/{session.about.pid}/fd/{memory_fd(session)}").startswith("/memfd:batches")
    assert "PermissionError" in failing(session).message  # sealed all the same


@pytest.mark.parametrize(
    "missing",
    [
        lambda: AttributeError("undefined symbol: memfd_create"),
        lambda: OSError(errno.ENOSYS, "Function not implemented"),
    ],
    ids=["old C library", "old kernel"],
)
def test_a_host_without_memory_files(
    opened: Opener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: Callable[[], Exception],
) -> None:
    def fails(name: str, flags: int) -> int:
        raise missing()

    monkeypatch.setattr(sessions, "_memfd_create", fails)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    with opened() as session:
        batches = [batch(k) for k in range(5)]
        results = list(session.stream(batches))
        np.testing.assert_array_equal(results, [expected(one) for one in batches])
        file = f"/proc/{session.about.pid}/fd/{memory_fd(session)}"
        assert os.readlink(file).startswith(str(tmp_path))
        held = os.stat(file)
        assert held.st_nlink == 0  # it goes with its last user, however that one ends
        assert held.st_blocks * 512 >= held.st_size > 0  # no page can be missing later
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("what", ["TemporaryFile", "posix_fallocate"])
def test_a_host_without_memory_files_and_room(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fails(*args: Any, **given: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sessions, "_memfd_create", fails)
    monkeypatch.setattr(tempfile if what == "TemporaryFile" else os, what, fails)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LoadError, match=r"model\.fake: no shared .* No space left") as caught:
        opened()
    assert "temporary directory" in caught.value.remedy
    assert len(os.listdir("/proc/self/fd")) == before


def test_helpers_of_a_runtime_inherit_the_lease_and_nothing_else(
    opened: Opener, tmp_path: Path
) -> None:
    # A lease guards the device from them too; a pipe or the memory would outlive the worker.
    pid = tmp_path / "pid"
    start = f"""
        helper = subprocess.Popen(["sleep", "600"], close_fds=False)
        open({str(pid)!r}, "w").write(str(helper.pid))
        """
    cpu = Device("cpu", 0, "host", "host")
    with (
        lease(cpu, tmp_path, exclusive=True, timeout_s=9, what="case") as held,
        opened(open=start, pass_fds=held.fds),
    ):
        fds = Path(f"/proc/{pid.read_text()}/fd")

        def names() -> set[str]:
            return {Path(os.readlink(fd)).name for fd in fds.iterdir()}

        # While it starts, it has its libraries open, too.
        eventually(lambda: not any(".so" in name for name in names()))
        found = names()
    assert found == {"null", "worker.log", "cpu-0.lock"}


def test_the_kernel_prefers_the_worker_when_memory_is_out(opened: Opener) -> None:
    session = opened()
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{session.about.pid}/oom_score_adj").read_text()) > min(ours, 499)


# --- lives ------------------------------------------------------------------------------------

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
    session.submit(0)
    time.sleep(600)
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
        self.memory = sessions.memory_file("model.fake")
        os.ftruncate(self.memory, 1 << 16)
        command_read, self.command = os.pipe()
        self.reply, reply_write = os.pipe()
        fds = {"command": command_read, "reply": reply_write, "memory": self.memory}
        argv = [python, str(WORKER), "--backend", str(backend), "--limit", str(limit)]
        for name, fd in fds.items():
            argv += [f"--{name}-fd", str(fd)]
        with (tmp_path / "raw.log").open("wb") as log:
            self.process = subprocess.Popen(
                argv, pass_fds=fds.values(), start_new_session=True, stdout=log, stderr=log
            )
        os.close(command_read)
        os.close(reply_write)

    def send(self, **command: Any) -> None:
        body = json.dumps({"id": 1, **command}).encode()
        os.write(self.command, struct.pack(">I", len(body)) + body)

    def ask(self, **command: Any) -> dict[str, Any]:
        self.send(**command)
        (size,) = struct.unpack(">I", os.read(self.reply, 4))
        reply: dict[str, Any] = json.loads(os.read(self.reply, size))
        return reply

    def open(self, fault: str) -> None:
        self.ask(op="open", file="model.fake", options={"fault": fault})
        slots = [{"inputs": [0], "outputs": [4096]}]
        assert "error" not in self.ask(op="map", size=1 << 16, slots=slots)
        os.pwrite(self.memory, batch(-1).tobytes(), 0)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        for fd in (self.command, self.reply, self.memory):
            os.close(fd)


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
    assert worker.ask(op="run", slot=0)["error"] == {"type": "RuntimeError", "message": "once"}
    os.pwrite(worker.memory, batch(1).tobytes(), 0)
    reply = worker.ask(op="run", slot=0)
    assert reply["id"] == 1 and reply["ms"] >= 0
    result = np.frombuffer(os.pread(worker.memory, 4 * B * C, 4096), np.float32).reshape(B, C)
    np.testing.assert_array_equal(result, expected(batch(1)))
    assert "error" in worker.ask(op="nonsense")
    assert worker.ask(op="close") == {"id": 1}
    assert worker.process.wait(30) == 0


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
    with (tmp_path / "commands").open("wb") as file:
        for number, command in enumerate(commands):
            file.write(device_worker.pack({**command, "id": number}))
    memory = sessions.memory_file("model.fake")
    os.ftruncate(memory, 1 << 16)
    os.pwrite(memory, batch(-1).tobytes(), 0)
    with (tmp_path / "commands").open("rb") as file, (tmp_path / "replies").open("wb") as out:
        device_worker.Worker(str(tmp_path / "fake.py"), memory, out.fileno()).serve(file.fileno())
    os.close(memory)
    data = (tmp_path / "replies").read_bytes()
    replies = []
    while data:
        (size,) = struct.unpack_from(">I", data)
        replies.append(json.loads(data[4 : 4 + size]))
        data = data[4 + size :]
    return replies


BAD_OUTPUTS = {
    "wrong shape": ("outputs = [y.T]", r"output 'class' has shape \[5, 2\], .* says \[2, 5\]"),
    "wrong rank": ("outputs = [y[None]]", r"has shape \[1, 2, 5\]"),
    "wrong dtype": ("outputs = [y.astype('f2')]", "output 'class' has dtype float16"),
    "swapped bytes": ("outputs = [y.astype('>f4')]", "output 'class' has dtype >f4"),
    "no output": ("outputs = []", "returned 0 outputs, the model has 1"),
    "extra output": ("outputs = [y, y]", "returned 2 outputs, the model has 1"),
    "not a list": ("outputs = y", "returned a ndarray, not a list"),
    "not an array": ("outputs = [[1.0]]", "output 'class' is a list, not an array"),
    "none": ("outputs = None", "returned a NoneType, not a list"),
}


@pytest.mark.parametrize("fault", BAD_OUTPUTS)
@pytest.mark.parametrize(
    "command",
    [{"op": "run", "slot": 0}, {"op": "time", "loops": 2, "warmup": 0, "pulse_s": 1.0}],
    ids=["run", "time"],
)
def test_outputs_are_held_against_the_models_own_words(
    tmp_path: Path, fault: str, command: dict[str, Any]
) -> None:
    code, message = BAD_OUTPUTS[fault]
    *_, reply, closed = in_process(tmp_path, [command], fault=code)
    assert reply["error"]["type"] == "ModelError"
    assert re.search(message, reply["error"]["message"])
    assert closed == {"id": 3}


def test_what_is_out_of_order_is_an_error_and_no_crash(tmp_path: Path) -> None:
    replies = in_process(tmp_path, [{"op": "nonsense"}, {"op": "run", "slot": 9}, {"op": "run"}])
    assert [reply["id"] for reply in replies] == list(range(6))
    assert ["error" in reply for reply in replies] == [False, False, True, True, True, False]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("model.outputs = [('y', (None, 5), 'float32')]", r"\[None, 5\].*fixed sides"),
        ("model.outputs = [('y', ('N', 5), 'float32')]", r"\['N', 5\].*fixed sides"),
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


def test_times_are_reported_in_chunks(tmp_path: Path) -> None:
    command = {"op": "time", "loops": 20, "warmup": 3, "pulse_s": 1000.0}
    _, _, *replies, timed, _ = in_process(tmp_path, [command])
    assert [reply["progress"] for reply in replies] == [2, 3, 7, 15, 23]
    assert len(timed["ms"]) == 20


def test_slow_executions_are_reported_two_by_two(tmp_path: Path) -> None:
    command = {"op": "time", "loops": 5, "warmup": 0, "pulse_s": 0.0}
    _, _, *replies, _, _ = in_process(tmp_path, [command])
    assert [reply["progress"] for reply in replies] == [2, 4, 5]


@pytest.mark.parametrize("warmup", [0, 1, 2, 7])
def test_a_backend_may_alternate_between_two_variants(tmp_path: Path, warmup: int) -> None:
    # The eager reference does, between its memory formats.
    code = "model.time = lambda arrays, loops, warmup: [i % 2 for i in range(loops)]"
    commands = [
        {"op": "time", "loops": loops, "warmup": warmup, "pulse_s": pulse_s}
        for loops in (1, 2, 50)
        for pulse_s in (0.0, 1000.0)
    ]
    replies = in_process(tmp_path, commands, open=code)
    timed = [reply["ms"] for reply in replies if "ms" in reply]
    assert timed == [[i % 2 for i in range(loops)] for loops in (1, 1, 2, 2, 50, 50)]


@pytest.fixture
def wrapper(tmp_path: Path) -> str:
    """An interpreter behind a shell script, as version managers install them."""
    script = tmp_path / "python-wrapper"
    script.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("hang", [False, True], ids=["idle", "hanging"])
def test_the_worker_ends_with_the_command_pipe(
    raw: Callable[..., Raw], wrapper: str, hang: bool
) -> None:
    # Its parent, here the wrapper, lives on: what ends is the pipe, also while a command runs.
    worker = raw(python=wrapper)
    worker.open("time.sleep(600)")
    if hang:
        worker.send(op="run", slot=0)
    os.close(worker.command)
    worker.process.wait(30)
    worker.command = os.open(os.devnull, os.O_RDONLY)


def test_an_interpreter_behind_a_wrapper(opened: Opener, wrapper: str) -> None:
    session = opened("os.kill(os.getpid(), signal.SIGSEGV)", python=wrapper)
    assert len(list(session.stream([batch(1)] * 4))) == 4
    assert "139 (how a shell reports SIGSEGV)" in failing(session).message


def test_a_hang_with_the_interpreter_locked_ends_without_a_parent(
    raw: Callable[..., Raw], tmp_path: Path
) -> None:
    worker = raw(limit=1.0)
    worker.open("ctypes.PyDLL(None).sleep(600)")
    worker.send(op="run", slot=0)
    assert worker.process.wait(30) == 1
    assert "Timeout" in (tmp_path / "raw.log").read_text()


def test_the_worker_is_python_3_7() -> None:
    ast.parse(WORKER.read_text(), feature_version=(3, 7))
    # The check sees what it is for.
    with pytest.raises(SyntaxError):
        ast.parse("if (x := 1): pass", feature_version=(3, 7))


def test_the_worker_imports_only_the_standard_library_and_numpy() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(WORKER.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names) | {"numpy", "__future__"}


# --- ONNX Runtime -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean over each channel, then a matrix: `float32[2, 3, 4, 4]` to `float32[2, 5]`."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = np.arange(15, dtype=np.float32).reshape(3, 5)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["class"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", kinds.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("class", kinds.FLOAT, (B, C))],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx.save(model, path)
    return path


def test_onnxruntime(onnx_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    batches = [rng.random(SHAPE, dtype=np.float32) for _ in range(5)]
    with open_session(
        onnx_file,
        backend="onnxruntime",
        options={"threads": 1},
        log=tmp_path / "worker.log",
        deadline_open_s=60,
        deadline_run_s=60,
        expect_input=SHAPE,
        expect_output=(B, C),
    ) as session:
        assert session.about.runtime["providers"] == ["CPUExecutionProvider"]
        assert session.about.runtime["onnxruntime"]
        weights = np.arange(15, dtype=np.float32).reshape(3, 5)
        for given, result in zip(batches, session.stream(batches), strict=True):
            np.testing.assert_allclose(result, given.mean((2, 3)) @ weights, rtol=1e-5)
        assert len(session.time(3, 1)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"treads": 1}, "unknown options of the onnxruntime backend: treads"),
        ({"providers": ["NoSuchExecutionProvider"]}, "has no NoSuchExecutionProvider here"),
    ],
)
def test_onnxruntime_options_are_checked(
    onnx_file: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LoadError, match=message):
        open_session(
            onnx_file,
            backend="onnxruntime",
            options=options,
            log=tmp_path / "worker.log",
            deadline_open_s=60,
            deadline_run_s=60,
        )


def test_onnxruntime_refuses_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(LoadError, match=r"bad\.onnx could not be opened: InvalidProtobuf"):
        open_session(
            tmp_path / "bad.onnx",
            backend="onnxruntime",
            options={},
            log=tmp_path / "worker.log",
            deadline_open_s=60,
            deadline_run_s=60,
        )
