"""The drivers of the Ascend targets over the simulated tools: what works, what tools do wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base import processes
from harness.base.errors import (
    DataError,
    DeviceError,
    HarnessError,
    InferError,
    LoadError,
)
from harness.targets.ascend import cli as module
from harness.targets.ascend import drivers, workspace
from harness.targets.ascend.cli import AisBench
from harness.targets.protocol import Float32
from tests.selftest.running import alive, eventually
from tests.selftest.simulated import (
    BATCH,
    OPENERS,
    QUICK,
    SHAPE,
    Opener,
    SimulatedHost,
    compute,
    images,
    make_host,
    misbehaving,
    write_onnx,
)

BATCH_BYTES = 4 * math.prod(SHAPE)


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """Three batches in a chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", 3 * BATCH_BYTES)
        yield


@pytest.fixture(scope="module")
def onnx(tmp_path_factory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, onnx) -> Callable[[int], bytes]:
    """The compiled model at a batch size."""
    models: dict[int, bytes] = {}

    def at(batch: int) -> bytes:
        if batch not in models:
            host = make_host(tmp_path_factory.mktemp("compiler"))
            assert host.compile(onnx, batch).code == 0
            models[batch] = (host.folder / "model.om").read_bytes()
        return models[batch]

    return at


@pytest.fixture
def opened(tmp_path, compiled) -> Iterator[Opener]:
    opener = Opener(tmp_path, compiled)
    yield opener
    opener.close()


@pytest.fixture(scope="module")
def cli(tmp_path_factory, compiled) -> Iterator[tuple[AisBench, SimulatedHost]]:
    """One session for the tests whose faults come later: opening takes three starts of a tool."""
    opener = Opener(tmp_path_factory.mktemp("cli"), compiled)
    yield opener("cli"), opener.host
    opener.close()


@pytest.fixture
def shared(cli) -> Iterator[tuple[AisBench, SimulatedHost]]:
    """The same without its earlier calls."""
    session, host = cli
    (host.folder / "state" / "calls.jsonl").unlink()
    host.host.log_call("none", [])
    yield session, host
    session.deadline_s = 60.0
    left = [path for path in session.workspace.path.rglob("*") if path.suffix != ".om"]
    assert [path for path in left if path.is_file()] == []


def batches(count: int) -> list[Float32]:
    return [images(seed=seed) for seed in range(count)]


def fill(view: Float32) -> None:
    view[...] = 1


def option(call: dict[str, Any], name: str) -> str:
    argv = call["argv"]
    return str(argv[argv.index(name) + 1])


# What works --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "generation"),
    [("api", "v5"), ("api", "v2"), ("cli", "v5"), ("cli", "v2")],
)
def test_what_comes_back_is_the_models(opened, onnx, driver, generation):
    session = opened(driver, f"generation={generation},time=2")
    given = batches(4)
    results = list(session.stream(given))
    for batch, logits in zip(given, results, strict=True):
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, compute(onnx, batch), atol=1e-5)
    assert session.time(6, 2).ms == pytest.approx((2.0,) * 6, rel=1e-3)


@pytest.mark.parametrize("driver", OPENERS)
def test_a_model_that_others_may_write_is_opened_as_a_copy(opened, driver):
    session = opened(driver, mode=0o664)
    assert len(list(session.stream(batches(2)))) == 2


DASHES = """
import sys
if "--help" in sys.argv:
    print("--model --outfmt --loop --output-dirname (was --output_dirname) --warmup-count")
    sys.exit()
sys.argv = [one.replace("-dirname", "_dirname").replace("-count", "_count") for one in sys.argv]
"""


def test_a_tool_may_spell_its_options_with_dashes(opened):
    session = opened("cli", first=DASHES)
    assert session.time(3, 9).ms == pytest.approx((2.0,) * 3, rel=1e-3)
    assert option(opened.host.calls("ais_bench")[-1], "--warmup_count") == "9"
    with pytest.raises(LoadError, match=r"no ais_bench answers to .* -m ais_bench") as caught:
        opened("cli", first="import sys; sys.exit(3)\n")
    assert "--ais-python" in caught.value.remedy


def test_batches_go_in_chunks_and_nothing_stays(shared):
    session, host = shared
    work = session.workspace.path
    for _ in session.stream(batches(8)):
        files = [path for path in work.rglob("*.bin") if path.parent.name == "in"]
        assert len(files) <= 6  # two chunks of three
        assert len(list(work.glob("c*"))) <= 2  # outputs go with their chunk
    assert len(host.calls("ais_bench")) == 3
    assert list(work.rglob("*.bin")) == []
    assert list(session.stream([])) == []  # no batches start no tool
    assert len(host.calls("ais_bench")) == 3


def test_the_tool_runs_while_the_next_chunk_is_written(shared):
    session, _ = shared
    running: list[bool] = []

    def look(view: Float32) -> None:
        running.append(session._running is not None)
        view[...] = 1

    results = session.stream_into([look] * 7)
    next(results)
    # The second chunk was filled while the first ran; the third waits for the reader.
    assert running == [False] * 3 + [True] * 3
    assert len(list(results)) == 6
    assert running[6:] == [True]


def test_what_the_tool_is_told(shared):
    session, host = shared
    list(session.stream(batches(1)))
    session.time(7, 2)
    session.time(7, 9)
    calls = run, timed, warmed = host.calls("ais_bench")
    for call in calls:
        assert option(call, "--batchsize") == str(BATCH)  # of the model, not of the file
        assert option(call, "--device") == "0"
        assert option(call, "--outfmt") == "BIN"
        assert not option(call, "--output_dirname").endswith("/")
        assert option(call, "--output").startswith(str(session.workspace.path))
    assert len({option(call, "--output") for call in calls}) == 3
    assert "--input" in run["argv"]
    assert option(run, "--loop") == "1" and option(timed, "--loop") == "7"
    # Each call loads the model anew: it is never timed without a warm-up.
    assert option(timed, "--warmup_count") == str(drivers.LEAST_WARMUP)
    assert option(warmed, "--warmup_count") == "9"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_are_private_and_have_undotted_names(opened, tmp_path, umask):
    before = os.umask(umask)
    try:
        session = opened("cli")
        for _ in session.stream(batches(4)):
            paths = list((tmp_path / "work").rglob("*"))
            for path in paths:
                assert path.stat().st_mode & 0o027 == 0, path
                assert path.is_dir() or path.name.count(".") == 1
            ours = [path for path in paths if path.parent.name == "in"]
            assert all(path.stat().st_mode & 0o777 == 0o640 for path in ours)
            assert all(re.fullmatch(r"[a-z0-9]+\.bin", path.name) for path in ours)
        assert os.umask(umask) == umask  # the process's own was not touched
    finally:
        os.umask(before)


# What goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "fault", "kind"),
    [
        ("api", "device-lost", DeviceError),
        ("cli", "device-lost", DeviceError),
        ("api", "crash-run", InferError),
        ("cli", "crash-run", HarnessError),  # whether while loading cannot always be seen
        ("cli", "crash-open", LoadError),
        ("cli", "wrong-throughput", InferError),
        # Planted once: on the first outputs that a tool gives, and somebody looks at these.
        ("api", "missing-outputs:0:1", InferError),
        ("cli", "missing-outputs:0:1", LoadError),
        ("api", "wrong-dtype:0:1", LoadError),
        ("cli", "wrong-dtype:0:1", LoadError),
        ("cli", "nan:0:1", InferError),  # its trial, on zeros
    ],
)
def test_a_fault_is_an_error(opened, driver, fault, kind):
    with pytest.raises(kind, match=r"model\.om") as caught:
        session = opened(driver, f"{QUICK},fault={fault}")
        list(session.stream(batches(3)))
        session.time(3, 1)
    assert caught.value.remedy and not caught.value.hung


@pytest.mark.parametrize("fault", ["crash-run", "missing-outputs", "stale-files", "wrong-dtype"])
def test_after_a_fault_the_next_call_is_a_new_one(shared, fault):
    session, host = shared
    with misbehaving(host.env, fault), pytest.raises(InferError) as caught:
        list(session.stream(batches(4)))
    assert caught.value.log
    assert len(list(session.stream(batches(1)))) == 1


def test_nan_is_not_hidden(opened):
    session = opened("api", f"{QUICK},fault=nan:0:1")
    assert any(np.isnan(logits).any() for logits in session.stream(batches(2)))


def test_a_model_of_another_batch_size(opened):
    with pytest.raises(LoadError, match="160 bytes, expected 80"):
        opened("cli", model_batch=2 * BATCH)


def test_batches_that_the_tool_would_group_are_refused(shared, compiled):
    # Outputs of a model of eight images, fed with batches of four, have the right sizes.
    session, _ = shared
    before = session.model.read_bytes()
    session.model.write_bytes(compiled(2 * BATCH))
    with pytest.raises(InferError, match=r"takes 2 batches of 4 at once: .* batch size is 8"):
        list(session.stream(batches(3)))
    session.model.write_bytes(before)


def test_no_tool(opened):
    with pytest.raises(LoadError, match=r"no ais_bench answers to .* -m ais_bench") as caught:
        opened("cli", "without=ais_bench")
    assert "No module named ais_bench" in caught.value.log


def test_a_device_that_was_lost_quietly_is_one(shared, monkeypatch):
    """A tool may end with 0 although its device went away: its log says it."""
    session, _ = shared

    def short(*_: Any) -> Any:
        raise InferError("model.om: ais_bench wrote 0 of 3 outputs", log="EL0003: no device")

    monkeypatch.setattr(session, "_checked", short)
    with pytest.raises(DeviceError, match=r"device 0 cannot be .*: model\.om: .* wrote 0 of 3"):
        list(session.stream(batches(3)))


def test_a_hang_is_ended_while_the_next_chunk_is_written(shared):
    session, host = shared
    session.deadline_s = 1.0
    filled: list[int] = []

    def slowly(view: Float32) -> None:
        view[...] = 1
        filled.append(len(filled))
        if len(filled) > 3:  # the tool is running
            assert eventually(lambda: bool(session._running and session._running.overdue))

    with misbehaving(host.env, "hang-run"), pytest.raises(InferError, match="deadline") as caught:
        list(session.stream_into([slowly] * 9))
    assert caught.value.hung
    assert len(filled) == 4  # nothing more was written for it
    assert host.host.holders(0) == []


@pytest.mark.parametrize("how", ["close", "another stream", "time", "forgotten"])
def test_a_stream_that_is_given_up_leaves_no_process(opened, tmp_path, how):
    session = opened("cli")
    results = session.stream(batches(9))
    next(results)
    process = session._running._process
    if how == "close":
        session.close()
        with pytest.raises(InferError, match="is closed"):
            next(results)
    elif how == "another stream":
        assert len(list(session.stream(batches(1)))) == 1
        with pytest.raises(InferError, match="used for something else"):
            list(results)
    elif how == "time":
        session.time(2, 0)
        with pytest.raises(InferError, match="used for something else"):
            list(results)
    else:
        del results
        assert session._running is None
    assert not alive(process.pid)
    assert not list((tmp_path / "work").rglob("in"))


def test_a_filler_that_fails_stops_the_tool_which_has_the_lease(shared, monkeypatch):
    session, host = shared
    read, write = os.pipe()
    monkeypatch.setitem(session.opening.__dict__, "lease_fds", (write,))
    seen: list[int] = []

    def fail(view: Float32) -> None:
        assert eventually(lambda: len(host.host.holders(0)) == 1)
        seen.append(host.host.holders(0)[0].pid)
        assert os.path.exists(f"/proc/{seen[0]}/fd/{write}")
        raise DataError("ILSVRC2012_val_00000009.JPEG is not an image")

    with misbehaving(host.env, "hang-run"), pytest.raises(DataError):
        list(session.stream_into([fill] * 3 + [fail]))
    assert not alive(seen[0])
    os.close(read)
    os.close(write)


def test_a_process_that_will_not_die_is_a_device_error(shared, monkeypatch):
    session, host = shared
    session.deadline_s = 0.5
    kill_group = processes.kill_group

    def stubborn(process: Any, grace_s: float) -> bool:
        kill_group(process, grace_s)
        return False

    monkeypatch.setattr(processes, "kill_group", stubborn)
    with misbehaving(host.env, "hang-run"), pytest.raises(DeviceError, match="would not die"):
        list(session.stream(batches(1)))


def test_a_full_disk_is_said_and_chunks_shrink_with_what_is_free(shared, monkeypatch):
    session, host = shared
    monkeypatch.setattr(workspace.Workspace, "free_bytes", lambda self: 5 * BATCH_BYTES)
    assert len(list(session.stream(batches(2)))) == 2
    assert len(host.calls("ais_bench")) == 2  # a quarter of it is one batch

    def full(path: Path, data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_file", full)
    with pytest.raises(InferError, match=r"cannot be written to .*: No space left on device"):
        list(session.stream(batches(1)))


# What a tool says of its times -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"), [(None, "no summary file"), ('{"throughput": 1', "cannot be read: .*JSON")]
)
def test_a_summary_that_is_not_there_or_torn(shared, monkeypatch, text, message):
    session, _ = shared
    finished = session.run

    def torn(argv: list[str], cwd: Path) -> processes.Completed:
        done: processes.Completed = finished(argv, cwd)
        (file,) = cwd.glob("*summary.json")
        file.unlink() if text is None else file.write_text(text)
        return done

    monkeypatch.setattr(session, "run", torn)
    with pytest.raises(InferError, match=message) as caught:
        session.time(3, 1)
    assert caught.value.log


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ("[error] execute model failed, modelId is 1", "execute model failed, modelId is 1"),
        (
            "[error] [ACL ERROR] EZ9999: Inner Error!\nEZ9999: [PID: 7] The error from device\n"
            "        Aicore kernel execute failed, op[Conv_3][FUNC:G][FILE:s.cc][LINE:1]",
            "The error from device; Aicore kernel execute failed, op[Conv_3]",
        ),
    ],
)
def test_an_error_is_quoted(shared, monkeypatch, said, quoted):
    session, _ = shared
    finished = session.run

    def failing(argv: list[str], cwd: Path) -> processes.Completed:
        done: processes.Completed = finished(argv, cwd)
        with done.log.open("a") as log:
            log.write(f"{said}\n")
        return dataclasses.replace(done, returncode=1)

    monkeypatch.setattr(session, "run", failing)
    with pytest.raises(InferError) as caught:
        session.time(3, 1)
    assert quoted in caught.value.message


@pytest.mark.parametrize("older", ["ais_bench", "aclruntime"])
def test_ais_bench_and_aclruntime_of_other_years(shared, monkeypatch, older):
    session, _ = shared
    finished = session.run

    def other(argv: list[str], cwd: Path) -> processes.Completed:
        done: processes.Completed = finished(argv, cwd)
        if older == "aclruntime":
            with done.log.open("a") as log:
                log.write("TypeError: cannot unpack non-iterable float object\n")
            return dataclasses.replace(done, returncode=1)
        (file,) = cwd.glob("*summary.json")
        data = json.loads(file.read_text())
        pairs = [[1500.0 + 10 * at, 1502.0 + 10 * at] for at in range(3)]
        data["NPU_compute_time"]["mean"] = 1511.0
        file.write_text(json.dumps({**data, "npu_compute_time_list": pairs}))
        return done

    monkeypatch.setattr(session, "run", other)
    with pytest.raises(InferError, match=r"older") as caught:
        session.time(3, 1)
    # The Python interface gives the times as aclruntime has them.
    assert "--driver=api" in caught.value.remedy
