"""`harness.targets.sessions`: a runtime may do what it likes, one case pays."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import CheckpointError, DeviceError, InferError, LoadError
from harness.base.processes import kill_group
from harness.targets import sessions, shared_memory, worker_process
from harness.targets.leases import lease
from harness.targets.protocol import Device, Filler, Float32, Images, Session, TensorSpec
from harness.targets.sessions import WorkerSession, open_session
from harness.targets.worker_process import WORKER
from tests.selftest import onnx_files
from tests.selftest.running import ROOT, alive, descriptors, eventually
from tests.selftest.worker_backend import (
    SHAPE,
    B,
    C,
    Opener,
    S,
    batch,
    broken,
    expected,
    failing,
)
from tests.selftest.worker_backend import opened as opened
from tests.selftest.worker_backend import plain as plain

EXPECTED = (TensorSpec("x", SHAPE, "float32"), TensorSpec("y", (B, C), "float32"))

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
    session: Session = plain
    assert [(s.name, s.shape, s.dtype) for s in session.inputs] == [("image", SHAPE, "float32")]
    assert [(s.name, s.shape, s.dtype) for s in session.outputs] == [("class", (B, C), "float32")]


def test_fillers_write_into_the_slots(plain: WorkerSession) -> None:
    views: list[Images] = []

    def filler(value: float) -> Filler:
        def fill(view: Images) -> None:
            views.append(view)
            view[...] = value

        return fill

    results = list(plain.stream_into(filler(k) for k in range(7)))
    np.testing.assert_array_equal(results, [expected(batch(k)) for k in range(7)])
    assert views[0] is plain.slots[0]  # on which times are taken
    assert {id(view) for view in views} <= {id(slot) for slot in plain.slots}
    assert all(view.ctypes.data % shared_memory.ALIGNMENT == 0 for view in views)


def in_flight(session: WorkerSession) -> list[int]:
    """The batches of each request that is in flight."""
    return [len(slots) for _, slots in session._submitted]


def test_two_requests_are_in_flight_while_the_third_is_filled(plain, monkeypatch):
    monkeypatch.setattr(sessions, "TOGETHER_MS", 0.0)  # each execution takes longer
    seen: list[int] = []

    def fill(view: Images) -> None:
        seen.append(len(in_flight(plain)))
        view[...] = 1

    list(plain.stream([batch(1)] * 3))  # whatever an earlier test has left
    list(plain.stream_into([fill] * 6))
    assert seen == [0, 1, 2, 2, 2, 2]
    # The next is submitted before a result is handed out: the consumer may take its time.
    assert [in_flight(plain) for _ in plain.stream([batch(1)] * 4)] == [[1, 1], [1, 1], [1], []]


def test_short_executions_go_into_one_request(plain, monkeypatch):
    monkeypatch.setattr(sessions, "TOGETHER_MS", 1e9)  # each takes less
    seen: list[list[int]] = []
    for _ in range(2):
        values = range(60)
        for k, result in zip(values, plain.stream(map(batch, values)), strict=True):
            np.testing.assert_array_equal(result, expected(batch(k)))
            seen.append(in_flight(plain))
    assert max(map(len, seen)) == 2
    assert {size for sizes in seen[60:] for size in sizes} == {shared_memory.TOGETHER, 60 % 8}
    monkeypatch.setattr(sessions, "TOGETHER_MS", 0.0)  # it became slow
    for _ in plain.stream([batch(1)] * 60):
        seen.append(in_flight(plain))
    assert seen[-3:] == [[1, 1], [1], []]


def test_time_counts_the_loops_and_not_the_warm_up(opened: Opener) -> None:
    session = opened("outputs = [y * 0 + self.runs]")
    session.slots[0][...] = -1
    for loops, warmup in ((1, 0), (37, 5)):
        times = session.time(loops, warmup)
        for ms in (times.ms, times.cpu_ms):
            assert len(ms) == loops and all(isinstance(one, float) and one >= 0 for one in ms)
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
    assert len(times.ms) == 4 and times.ms[0] > 0.5  # the warm-up was a call of its own
    assert times.cpu_ms == ()
    with pytest.raises(InferError, match="0 times for 1 executions"):
        opened(open="model.time = lambda *a: []").time(4, 1)
    with pytest.raises(InferError, match=r"1 times for 1 executions: \[nan\]"):
        opened(open="model.time = lambda *a: [float('nan')]").time(4, 1)


def test_a_long_measurement_is_no_hang(opened: Opener) -> None:
    # Longer than the deadline together, each execution far below it.
    session = opened("time.sleep(0.02)", deadline_run_s=1.0)
    session.slots[0][...] = -1
    times = session.time(60, 10)
    assert len(times.ms) == 70 - 10
    assert min(times.ms) > 20 > 2 * statistics.median(times.cpu_ms)  # sleep is no CPU time


def test_what_a_worker_is_started_with(opened: Opener) -> None:
    session = opened(open="model.info['given'] = [path, *sorted(model.options)]")
    about = session.about.runtime
    assert isinstance(about["given"], tuple) and isinstance(about["path"], tuple)
    file, *options = about["given"]
    assert file.endswith("/model.fake")
    assert (options, about["numpy"]) == (["fault", "open"], np.__version__)
    # A script's folder would hide runtimes: `harness/targets` has modules of such names.
    path = [os.path.abspath(entry or ".") for entry in about["path"]]
    assert str(WORKER.parent) not in path and str(ROOT) in path
    # The kernel takes the worker rather than pytest when memory is out.
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{session.about.pid}/oom_score_adj").read_text()) > min(ours, 499)


def test_what_a_runtime_prints_goes_to_the_log(opened: Opener, tmp_path: Path) -> None:
    noise = """
        print("garbage " * 100)
        os.write(1, b"\\x00{nul}" * 1000)
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


# --- what a runtime can do --------------------------------------------------------------------

FAULTS = {
    "raises": ("raise RuntimeError('E40000 inner\\nmore')", "RuntimeError: E40000 inner$"),
    "segmentation fault": ("ctypes.string_at(0)", r"was killed by SIGSEGV \(segmentation fault\)"),
    "out of memory": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        r"was killed by SIGKILL \(perhaps out of memory\)",
    ),
    "exits": ("os._exit(3)", "ended with exit code 3"),
    "closes everything": ("os.closerange(3, 4096); time.sleep(600)", "(closed its end|SIGKILL)"),
    "replies nonsense": ("reply(b'no')", "the worker replied nonsense: b'no'"),
    "replies out of turn": (
        "reply(b'{\"id\": 99}')",
        "replied to request 99 in place of",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_with_the_log(opened, fault, monkeypatch):
    if fault == "closes everything":  # it lives on: nobody need wait for its end
        monkeypatch.setattr(worker_process, "CLOSE_S", 0.5)
    before = descriptors()
    code, message = FAULTS[fault]
    words = "print('last words'); ctypes.CDLL(None).puts(b'said in C')"
    error = failing(opened(f"{words}; {code}"))
    assert error.message.startswith("model.fake: ")
    assert re.search(message, error.message)
    assert "last words" in error.log and "said in C" in error.log
    assert error.remedy.endswith("/worker.log")
    assert descriptors() <= before
    if fault == "segmentation fault":
        assert "Segmentation fault" in error.log and "in run" in error.log  # its stack


def test_a_death_is_seen_although_a_child_keeps_the_socket(opened: Opener) -> None:
    session = opened("if os.fork(): os._exit(7)\ntime.sleep(600)")
    assert "exit code 7" in broken(session).message


@pytest.mark.parametrize(
    "hang",
    [
        "ctypes.PyDLL(None).sleep(600)",  # with the interpreter's lock held
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    ],
    ids=["holds the lock", "ignores SIGTERM"],
)
def test_a_hang_ends_at_the_deadline_with_all_its_processes(opened, hang, tmp_path):
    pids = tmp_path / "pids"
    start = f"p = subprocess.Popen(['sleep', '600']); open({str(pids)!r}, 'w').write(str(p.pid))"
    session = opened(hang, open=start, deadline_run_s=0.3)
    worker = session.about.pid
    error = broken(session)
    assert error.message.startswith("model.fake: did not answer in 0.3 s") and error.hung
    assert "--deadline-factor" in error.remedy
    assert "/worker.log for where it hangs" in error.remedy
    assert worker is not None and not alive(worker)
    assert not alive(int(pids.read_text()))


def test_a_hang_while_opening_timing_or_closing(opened, monkeypatch):
    words = r"could not be opened: did not answer in 0\.3 s"
    with pytest.raises(LoadError, match=words) as caught:
        opened(open="time.sleep(600)", deadline_open_s=0.3)
    assert caught.value.hung
    session = opened("time.sleep(600)", deadline_run_s=0.3)
    session.slots[0][...] = -1
    with pytest.raises(InferError, match="did not answer"):
        session.time(10, 2)
    monkeypatch.setattr(worker_process, "CLOSE_S", 0.3)
    session = opened(open="model.close = lambda: time.sleep(600)")
    session.close()
    assert session.about.pid is not None and not alive(session.about.pid)


def test_a_worker_that_will_not_die_is_a_device_error(opened, monkeypatch):
    def stubborn(process: subprocess.Popen[bytes], grace_s: float) -> bool:
        kill_group(process, grace_s)
        return False

    monkeypatch.setattr(worker_process, "kill_group", stubborn)
    session = opened("time.sleep(600)", deadline_run_s=0.3)
    pid = session.about.pid
    with pytest.raises(DeviceError, match=f"process {pid}, would not die") as caught:
        list(session.stream([batch(-1)]))
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
    ):
        with pytest.raises(InferError, match=r"the session of model\.fake is closed"):
            use()
    session.close()


# --- opening ----------------------------------------------------------------------------------

BAD_MODELS = {
    "raises": ("raise OSError('no such model')", "OSError: no such model"),
    "crashes": ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "two inputs": ("model.inputs = model.inputs * 2", r"2 inputs \(image, image\)"),
    "no output": ("model.outputs = []", r"0 outputs \(none\)"),
    "float16": ("model.inputs = [('x', (2, 3, 4, 4), 'float16')]", "'x' is float16, not float32"),
    "another batch": ("model.inputs = [('x', (4, 3, 4, 4), 'float32')]", r"expected \[2, 3, 4"),
    "other classes": ("model.outputs = [('y', (2, 6), 'float32')]", r"\[2, 6\], expected \[2, 5\]"),
}  # fmt: skip


@pytest.mark.parametrize("model", BAD_MODELS)
def test_a_bad_model_is_a_load_error(opened: Opener, model: str) -> None:
    code, message = BAD_MODELS[model]
    before = descriptors()
    with pytest.raises(LoadError, match=message) as caught:
        opened(open=f"print('opening'); {code}", expect=EXPECTED)
    assert "opening" in caught.value.log
    assert caught.value.message.startswith("model.fake")
    assert caught.value.remedy
    assert descriptors() <= before


def test_an_error_of_the_harness_comes_through_the_worker_as_it_is(opened: Opener) -> None:
    code = f"""
    sys.path.insert(0, {str(ROOT)!r})
    from harness.base.errors import CheckpointError
    raise CheckpointError("no such weights", remedy="fetch them")
    """
    with pytest.raises(CheckpointError, match="no such weights") as caught:
        opened(open=code)
    assert caught.value.remedy == "fetch them"
    assert "Traceback" in caught.value.log


def test_an_interpreter_or_backend_that_is_none(opened: Opener, tmp_path: Path) -> None:
    backend = tmp_path / "broken.py"
    backend.write_text("import no_such_runtime")
    before = descriptors()
    for given, message in (
        ({"python": "/no/such/python3.7"}, "no worker could be started"),
        ({"python": "/bin/false"}, "exit code 1"),
        ({"backend": backend}, "ModuleNotFoundError: No module named 'no_such_runtime'"),
    ):
        with pytest.raises(LoadError, match=message):
            opened(**given)
        assert descriptors() <= before


# --- use and misuse ---------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_not_submitted(plain: WorkerSession) -> None:
    for shape, kind in (((1, 3, S, S), "f4"), (SHAPE, "f8"), (SHAPE, "u1"), ((B, S, S, 3), "f4")):
        bad: Any = np.zeros(shape, kind)
        with pytest.raises(InferError, match="for the input 'image', which is float32"):
            list(plain.stream([batch(1), bad]))
        assert len(list(plain.stream([batch(1)] * 4))) == 4


def test_a_stream_that_is_given_up_leaves_nothing_behind(plain: WorkerSession) -> None:
    first = plain.stream(batch(k) for k in range(9))
    np.testing.assert_array_equal(next(first), expected(batch(0)))
    results = list(plain.stream(batch(k) for k in range(20, 25)))
    np.testing.assert_array_equal(results, [expected(batch(k)) for k in range(20, 25)])
    with pytest.raises(InferError, match="used for something else"):
        next(first)


def test_timing_or_closing_ends_a_stream_with_an_error(opened: Opener) -> None:
    session = opened()
    stream = session.stream([batch(1)] * 3)
    next(stream)
    assert len(session.time(2, 0).ms) == 2
    with pytest.raises(InferError, match="used for something else"):
        list(stream)
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


def test_close_is_polite_first_and_can_be_repeated(opened: Opener, tmp_path: Path) -> None:
    before = descriptors()
    said = tmp_path / "closed"
    session = opened(open=f"model.close = lambda: open({str(said)!r}, 'w').close()")
    worker = session.about.pid
    assert worker is not None and alive(worker)
    ends: list[str] = []
    session.after.callback(ends.append, "a private copy is removed")
    session.close()
    assert ends
    assert said.exists() and not alive(worker)
    session.close()
    assert descriptors() <= before


def test_helpers_of_a_runtime_inherit_the_lease_and_nothing_else(opened, tmp_path):
    # A lease guards the device from them too; a pipe or the memory would outlive the worker.
    pid = tmp_path / "pid"
    start = f"""
        helper = subprocess.Popen(["sleep", "600"], close_fds=False)
        open({str(pid)!r}, "w").write(str(helper.pid))
        """
    cpu = Device("cpu", 0, "host", "host")
    with lease(cpu, tmp_path, exclusive=True, timeout_s=9, what="case") as held:
        opened(open=start, pass_fds=held.fds)
        fds = Path(f"/proc/{pid.read_text()}/fd")

        def names() -> set[str]:
            return {Path(os.readlink(fd)).name for fd in fds.iterdir()}

        # While it starts, it has its libraries open, too.
        eventually(lambda: not any(".so" in name for name in names()))
        found = names()
    assert found == {"null", "worker.log", "cpu-0.lock"}


# --- ONNX Runtime -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean over each channel, then a matrix: `float32[2, 3, 4, 4]` to `float32[2, 5]`."""
    text = """
        tiny (float[2, 3, 4, 4] image) => (float[2, 5] class) {
            pooled = GlobalAveragePool(image)
            flat = Flatten(pooled)
            class = MatMul(flat, w)
        }"""
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    return onnx_files.write(path, text, w=np.arange(15).reshape(3, 5))


def on_onnxruntime(file: Path, folder: Path, options: dict[str, Any]) -> WorkerSession:
    return open_session(
        file,
        backend="onnxruntime",
        options=options,
        log=folder / "worker.log",
        deadline_open_s=60,
        deadline_run_s=60,
        expect=EXPECTED,
    )


def test_onnxruntime(onnx_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    batches = [rng.random(SHAPE, dtype=np.float32) for _ in range(5)]
    with contextlib.closing(on_onnxruntime(onnx_file, tmp_path, {"threads": 1})) as session:
        assert session.about.driver == "onnxruntime"
        assert session.about.runtime["providers"] == ("CPUExecutionProvider",)
        assert session.about.runtime["onnxruntime"]
        weights = np.arange(15, dtype=np.float32).reshape(3, 5)
        for given, result in zip(batches, session.stream(batches), strict=True):
            np.testing.assert_allclose(result, given.mean((2, 3)) @ weights, rtol=1e-5)
        assert len(session.time(3, 1).ms) == 3


def test_onnxruntime_refuses_providers_and_files(onnx_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    no_such: dict[str, Any] = {"providers": ["NoSuchExecutionProvider"]}
    for file, options, message in (
        (onnx_file, no_such, "NoSuchExecutionProvider could not be used"),
        (bad, {}, r"bad\.onnx could not be opened: InvalidProtobuf"),
    ):
        with pytest.raises(LoadError, match=message):
            on_onnxruntime(file, tmp_path, options)
