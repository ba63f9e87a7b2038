"""`harness.targets.ascend.cli` and `exchange`: tools over files, and what such tools do wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base import processes
from harness.base.errors import ConfigError, DataError, DeviceError, InferError, LoadError
from harness.targets.ascend import drivers, exchange, workspace
from harness.targets.ascend.cli import AisBench, parse_summary, parse_throughput
from harness.targets.ascend.exchange import FileSession
from harness.targets.protocol import Float32
from tests.selftest import ascend_tools
from tests.selftest.ascend_tools import B, C, batch, expected
from tests.selftest.running import alive, eventually

BATCH_BYTES = batch(1).nbytes
GENERATIONS = (0, 1, 2, 3, 5, 6)  # the last one spells its options with dashes

Opener = Callable[..., FileSession]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ascend_tools.install_python(folder / "site")
    ascend_tools.install_ais_infer(folder / "ais_infer.py")
    return folder


@pytest.fixture
def opened(site: Path, tmp_path: Path) -> Iterator[Opener]:
    """Open sessions on the stand-in; a fault's name says at which call it happens."""
    made: list[FileSession] = []

    def open_fake(fault: str = "", *, generation: int = 5, **given: Any) -> FileSession:
        settings = {
            "fault": fault,
            "generation": generation,
            "calls": str(tmp_path / "calls"),
            **given.pop("settings", {}),
        }
        old = generation < 2  # before `python -m ais_bench`
        toolkit = ascend_tools.toolkit(
            site=None if old else site / "site",
            ais_infer=site / "ais_infer.py" if old else None,
            settings=settings,
        )
        model = ascend_tools.write_model(tmp_path / "model.om", **given.pop("model", {}))
        work = given.pop("work", tmp_path / "work")
        made.append(
            AisBench.open(ascend_tools.opening(model, work, **{"toolkit": toolkit, **given}))
        )
        return made[-1]

    yield open_fake
    for session in made:
        session.close()
    assert not list((tmp_path / "work").glob("*"))  # nothing is left, whatever happened


@pytest.fixture(scope="module", autouse=True)
def without_a_probe() -> Iterator[None]:
    """Versions are asked for in a child that imports NumPy: only where a test is about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            drivers, "probe", lambda toolkit, log: drivers.Probe("", "", "", {"ais_bench": "9"})
        )
        yield


@pytest.fixture(scope="module")
def shared(site: Path, without_a_probe: None) -> Iterator[FileSession]:
    """One session for the tests whose faults come later: opening takes two starts of the tool."""
    model = ascend_tools.write_model(site / "model.om")
    toolkit = ascend_tools.toolkit(site=site / "site")
    opening = ascend_tools.opening(model, site / "work", toolkit=toolkit)
    with contextlib.closing(AisBench.open(opening)) as session:
        yield session


@pytest.fixture
def faulty(shared: FileSession, tmp_path: Path) -> Iterator[Opener]:
    """The shared session, whose tool has a fault from now on."""

    def make(fault: str = "", *, deadline_s: float = 60.0, **settings: Any) -> FileSession:
        settings = {"fault": fault, "calls": str(tmp_path / "calls"), **settings}
        shared.env = {**shared.env, ascend_tools.VARIABLE: json.dumps(settings)}
        shared.deadline_s = deadline_s
        return shared

    yield make
    make()
    left = [path for path in shared.workspace.path.rglob("*") if path.suffix != ".om"]
    assert [path for path in left if path.is_file()] == []


def calls(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def option(call: dict[str, Any], name: str) -> str:
    argv = call["argv"]
    return str(argv[argv.index(name) + 1])


# --- what works -------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_infers_and_times(opened: Opener, generation: int) -> None:
    session = opened(generation=generation)
    given = [batch(k) for k in range(1, 6)]
    results = list(session.stream(given))
    np.testing.assert_array_equal(results, [expected(one) for one in given])
    assert all(one.dtype == np.float32 and one.shape == (B, C) for one in results)
    times = session.time(4, 1).ms
    if generation < 2:  # these keep nothing but the mean
        assert times == pytest.approx((2.515,))
    else:
        assert times == pytest.approx((2.5, 2.51, 2.52, 2.53))


def test_a_given_script_wins_over_an_installed_package(
    opened: Opener, site: Path, tmp_path: Path
) -> None:
    toolkit = ascend_tools.toolkit(
        site=site / "site",
        ais_infer=site / "ais_infer.py",
        settings={"calls": str(tmp_path / "calls"), "generation": 1},
    )
    session = opened(toolkit=toolkit)
    assert session.about.runtime["tool"] == str(site / "ais_infer.py")
    broken = tmp_path / "ais_infer.py"
    broken.write_text("import sys; sys.exit(3)")
    with pytest.raises(LoadError, match=r"no ais_bench answers to .*ais_infer\.py") as caught:
        opened(toolkit=dataclasses.replace(toolkit, ais_infer=broken))
    assert "--ais-infer" in caught.value.remedy


def test_batches_go_in_chunks_and_nothing_stays(faulty: Opener, tmp_path: Path) -> None:
    session = faulty()
    work = session.workspace.path
    seen = []
    for result in session.stream(batch(k) for k in range(8)):
        seen.append(result)
        files = [path for path in work.rglob("*.bin") if path.parent.name == "in"]
        assert len(files) <= 6  # two chunks of three
        assert len(list(work.glob("c*"))) <= 2  # outputs go with their chunk
    np.testing.assert_array_equal(seen, [expected(batch(k)) for k in range(8)])
    assert len(calls(tmp_path)) == 3
    assert list(work.rglob("*.bin")) == []


def test_no_batches_start_no_tool(faulty: Opener, tmp_path: Path) -> None:
    assert list(faulty().stream([])) == []
    assert not (tmp_path / "calls").exists()


def test_the_tool_runs_while_the_next_chunk_is_written(faulty: Opener) -> None:
    session = faulty()
    running: list[bool] = []

    def fill(view: Float32) -> None:
        running.append(session._running is not None)
        view[...] = 1

    results = session.stream_into([fill] * 7)
    next(results)
    # The second chunk was filled while the first ran; the third waits for the reader.
    assert running == [False] * 3 + [True] * 3
    assert len(list(results)) == 6
    assert running[6:] == [True]


def test_what_the_tool_is_told(opened: Opener, tmp_path: Path) -> None:
    session = opened(device_id=3)
    list(session.stream([batch(1)]))
    session.time(7, 2)
    session.time(7, 9)
    opening, run, timed, warmed = calls(tmp_path)
    work = str((tmp_path / "work").resolve())
    for call in (opening, run, timed, warmed):
        assert option(call, "--batchsize") == str(B)  # of the model, not of the file
        assert option(call, "--device") == "3"
        assert option(call, "--outfmt") == "BIN"
        assert not option(call, "--output_dirname").endswith("/")
        assert option(call, "--output").startswith(work) and call["cwd"].startswith(work)
        assert re.fullmatch(r"[A-Za-z0-9_./-]+", " ".join(call["argv"]).replace(" ", ""))
    assert len({option(call, "--output") for call in (opening, run, timed, warmed)}) == 4
    assert "--input" not in opening["argv"] and "--input" in run["argv"]
    assert option(run, "--loop") == "1" and option(timed, "--loop") == "7"
    # Each call loads the model anew: it is never timed without a warm-up.
    assert option(timed, "--warmup_count") == str(drivers.LEAST_WARMUP)
    assert option(warmed, "--warmup_count") == "9"


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_files_are_private_and_have_undotted_names(
    opened: Opener, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        session = opened()
        for _ in session.stream([batch(1)] * 4):
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


def test_the_lease_goes_to_the_tool(faulty: Opener, tmp_path: Path) -> None:
    read, write = os.pipe()
    session = faulty("hang-run", deadline_s=5.0)
    opening, session.opening = (
        session.opening,
        dataclasses.replace(session.opening, lease_fds=(write,)),
    )
    held = []

    def look(view: Float32) -> None:
        view[...] = 1
        if session._running is not None:
            held.append(eventually(lambda: (tmp_path / "calls").exists() and calls(tmp_path) != []))
            pid = calls(tmp_path)[-1]["pid"]
            held.append(os.path.exists(f"/proc/{pid}/fd/{write}"))
            raise DataError("seen")

    with pytest.raises(DataError):
        list(session.stream_into([look] * 4))
    session.opening = opening
    os.close(read)
    os.close(write)
    assert held == [True, True]


def test_nan_passes_through(faulty: Opener) -> None:
    (result,) = faulty("nan").stream([batch(1)])
    assert np.isnan(result[0, 1]) and np.isfinite(result[1]).all()


def test_times_may_be_pairs_and_the_summary_may_lie_inside(faulty: Opener) -> None:
    assert faulty("pairs").time(3, 1).ms == pytest.approx((2.5, 2.51, 2.52))
    assert faulty("slash").time(2, 1).ms == pytest.approx((2.5, 2.51))


# --- what a tool can do while it runs -----------------------------------------------------------

RUN_FAULTS = {
    "missing": (InferError, r"wrote 2 of 3 outputs, missing: b\d+_0\.bin"),
    "second-output": (InferError, r"left 3 files .*: b\d+_1\.bin, "),
    "stale": (InferError, r"left 1 files .*: ILSVRC2012_val_00000001_0\.bin"),
    "float16": (InferError, r"3 outputs have another size .* has 20 bytes, expected 40"),
    "crash-run": (InferError, r"ais_bench was killed by SIGSEGV \(segmentation fault\)"),
    "nothing-run": (InferError, r"wrote 0 of 3 outputs"),
    "noise-run": (InferError, r"ended with exit code 1: \[ERROR\] load model from file failed"),
    "lost-run": (DeviceError, r"device 0 cannot be opened or was lost: model\.om: ais_bench"),
    "quietly-lost-run": (DeviceError, r"device 0 cannot be opened or was lost: .* wrote 0 of 3"),
}


@pytest.mark.parametrize("fault", RUN_FAULTS)
def test_a_fault_of_a_run_is_one_error(faulty: Opener, fault: str) -> None:
    kind, message = RUN_FAULTS[fault]
    session = faulty(fault)
    with pytest.raises(kind) as caught:
        list(session.stream(batch(k) for k in range(9)))
    assert re.search(message, caught.value.message), caught.value.message
    assert "model.om" in caught.value.message and caught.value.remedy
    assert not caught.value.hung
    if fault == "crash-run":
        assert "last words" in caught.value.log
    faulty()
    assert len(list(session.stream([batch(1)]))) == 1  # the next call is a new one


def test_a_hang_ends_at_the_deadline_with_all_its_processes(faulty: Opener, tmp_path: Path) -> None:
    child = tmp_path / "child"
    session = faulty("hang-run", child=str(child), deadline_s=1.0)
    words = r"did not end in 1 s, its deadline, and was stopped"
    with pytest.raises(InferError, match=words) as caught:
        list(session.stream([batch(1)]))
    assert caught.value.hung
    assert not alive(int(child.read_text()))
    assert not alive(calls(tmp_path)[-1]["pid"])


def test_a_hang_is_ended_while_the_next_chunk_is_written(faulty: Opener, tmp_path: Path) -> None:
    session = faulty("hang-run", deadline_s=1.0)
    filled: list[int] = []

    def fill(view: Float32) -> None:
        view[...] = 1
        filled.append(len(filled))
        if len(filled) > 3:  # the tool is running
            assert eventually(lambda: bool(session._running and session._running.overdue))

    with pytest.raises(InferError, match="deadline"):
        list(session.stream_into([fill] * 9))
    assert len(filled) == 4  # nothing more was written for it
    assert not alive(calls(tmp_path)[-1]["pid"])


@pytest.mark.parametrize("how", ["close", "another stream", "time", "forgotten"])
def test_a_stream_that_is_given_up_leaves_no_process(
    opened: Opener, tmp_path: Path, how: str
) -> None:
    session = opened()
    results = session.stream(batch(k) for k in range(9))
    next(results)
    pid = calls(tmp_path)[-1]["pid"]
    if how == "close":
        session.close()
        with pytest.raises(InferError, match="is closed"):
            next(results)
    elif how == "another stream":
        assert len(list(session.stream([batch(1)]))) == 1
        with pytest.raises(InferError, match="used for something else"):
            list(results)
    elif how == "time":
        session.time(2, 0)
        with pytest.raises(InferError, match="used for something else"):
            list(results)
    else:
        del results
        assert session._running is None
    assert not alive(pid)
    assert not list((tmp_path / "work").rglob("in"))


def test_a_filler_that_fails_stops_the_tool(faulty: Opener, tmp_path: Path) -> None:
    session = faulty("hang-run")

    def fail(view: Float32) -> None:
        assert eventually(lambda: (tmp_path / "calls").exists() and calls(tmp_path) != [])
        raise DataError("ILSVRC2012_val_00000009.JPEG is not an image")

    def fill(view: Float32) -> None:
        view[...] = 1

    with pytest.raises(DataError):
        list(session.stream_into([fill] * 3 + [fail]))
    assert not alive(calls(tmp_path)[-1]["pid"])


def test_a_process_that_will_not_die_is_a_device_error(
    faulty: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = faulty("hang-run", deadline_s=0.5)
    kill_group = processes.kill_group

    def stubborn(process: Any, grace_s: float) -> bool:
        kill_group(process, grace_s)
        return False

    monkeypatch.setattr(processes, "kill_group", stubborn)
    with pytest.raises(DeviceError, match="would not die"):
        list(session.stream([batch(1)]))


def test_a_full_disk_is_said(faulty: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    session = faulty()

    def full(path: Path, data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange, "write_file", full)
    with pytest.raises(InferError, match=r"cannot be written to .*: No space left on device"):
        list(session.stream([batch(1)]))


def test_a_work_folder_that_vanishes(opened: Opener) -> None:
    session = opened()
    shutil.rmtree(session.workspace.path)
    with pytest.raises(InferError, match="no folder for a tool's files can be made"):
        list(session.stream([batch(1)]))
    with pytest.raises(InferError, match="no folder for a tool's files can be made"):
        session.time(1, 0)


def test_chunks_shrink_with_the_free_space(
    faulty: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = faulty()
    monkeypatch.setattr(workspace.Workspace, "free_bytes", lambda self: 5 * BATCH_BYTES)
    assert len(list(session.stream([batch(1)] * 3))) == 3
    assert len(calls(tmp_path)) == 3  # a quarter of it is one batch


# --- what a tool can say of its times -----------------------------------------------------------

TIME_FAULTS = {
    "wrong-throughput": r"printed a throughput of 3187\.25, its times give 796\.813 frames",
    "wrong-batchsize": r"times give 796\.813 frames",
    "no-throughput": "printed no throughput",
    "no-summary": "wrote no summary file",
    "torn-summary": "wrote a summary that cannot be read",
    "few-times": r"timed 2 executions, 3 were asked for",
    "backwards": r"cannot be read: an execution ends before it starts: \[0\.0, -2\.5\]",
    "wrong-mean": r"contradicts itself: a mean of 1\.255 ms, and times whose mean is 2\.51 ms",
    "hang-time": "did not end in",
    "crash-time": "SIGSEGV",
    "nothing-time": "printed no throughput|wrote no summary file",
}


@pytest.mark.parametrize("fault", TIME_FAULTS)
def test_a_fault_of_a_timing_is_one_error(faulty: Opener, fault: str) -> None:
    session = faulty(fault, deadline_s=1.0 if fault == "hang-time" else 60.0)
    with pytest.raises(InferError) as caught:
        session.time(3, 1)
    assert re.search(TIME_FAULTS[fault], caught.value.message), caught.value.message


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_wrong_figure_is_found_in_every_form(opened: Opener, generation: int) -> None:
    session = opened("wrong-throughput", generation=generation)
    with pytest.raises(InferError, match="printed a throughput of"):
        session.time(3, 1)


# --- opening ------------------------------------------------------------------------------------

OPEN_FAULTS = {
    "crash-open": (LoadError, "SIGSEGV"),
    "nothing-open": (LoadError, "wrote 0 of 1 outputs"),
    "loaded-open": (InferError, r"exit code 1: \[ERROR\] acl execute failed"),
    "noise-open": (LoadError, r"exit code 1: \[ERROR\] load model from file failed"),
    "lost-open": (DeviceError, "device 0 cannot be opened or was lost"),
}


@pytest.mark.parametrize("fault", OPEN_FAULTS)
def test_a_fault_while_opening(opened: Opener, fault: str) -> None:
    kind, message = OPEN_FAULTS[fault]
    with pytest.raises(kind, match=message):
        opened(fault)


@pytest.mark.parametrize("actual", [1, 4, 16])
def test_a_model_of_another_batch_size(opened: Opener, actual: int) -> None:
    size = 4 * C * actual
    with pytest.raises(LoadError, match=rf"has {size} bytes, expected {4 * B * C}"):
        opened(model={"batch": actual})


def test_batches_that_the_tool_would_group_are_refused(opened: Opener, tmp_path: Path) -> None:
    # Outputs of a model of four images, fed with batches of two, have the right sizes.
    session = opened()
    model = session.model
    ascend_tools.write_model(model, batch=4)
    with pytest.raises(InferError, match=r"takes 2 batches of 2 at once: .* batch size is 4"):
        list(session.stream([batch(1)] * 3))


def test_no_tool(opened: Opener, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no ais_bench answers to .* -m ais_bench") as caught:
        opened(toolkit=ascend_tools.toolkit())
    assert "No module named ais_bench" in caught.value.log
    other = tmp_path / "other"
    ascend_tools.install_python(other, main=False, interface=False)
    with pytest.raises(LoadError, match="no ais_bench answers"):
        opened(toolkit=ascend_tools.toolkit(site=other))
    with pytest.raises(LoadError, match="no ais_bench answers"):
        opened(toolkit=ascend_tools.toolkit(python="/no/such/python"))


@pytest.mark.parametrize("name", ["with blank", "中文", "a+b", "a:b", "a'b"])
def test_a_work_folder_that_the_tools_refuse(opened: Opener, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="the tools of CANN refuse paths like") as caught:
        opened(work=tmp_path / name)
    assert "real path" in caught.value.remedy and "--runs=DIR" in caught.value.remedy


def test_what_a_killed_harness_left_is_removed(tmp_path: Path) -> None:
    work = tmp_path / "work"
    used, other = workspace.Workspace(work), work / "others"
    other.mkdir()
    left, young = work / "exchange-left", work / "exchange-young"
    for path in (left, young):
        (path / "c000001" / "in").mkdir(parents=True)
        (path / "c000001" / "in" / "b00000001.bin").write_bytes(b"x")
    for path in (used.path, left, other):
        os.utime(path, (1, 1))
    mine = workspace.Workspace(work)
    assert sorted(work.iterdir()) == sorted([used.path, other, young, mine.path])
    used.close()
    mine.close()


# --- parsers ------------------------------------------------------------------------------------

LINES = {
    "[INFO] throughput (1000/NPU_compute_time/batchsize): 45.5": (45.5, True),
    "[INFO] throughput (1000*batchsize/NPU_compute_time): 729.25": (729.25, False),
    "[INFO] throughput 1000*batchsize(16)/NPU_compute_time.mean(21.9): 729.25": (729.25, False),
    "[INFO] throughput 1000*batchsize.mean(16)/NPU_compute_time.mean(21.94005001068115): "
    "729.2599603105127": (729.2599603105127, False),
    # Version 0.0.3 of the repository that guides 002 and 004 name.
    "[INFO] Throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(2.25): 1774.5": (
        1774.5,
        False,
    ),
    "[INFO] throughput 1000*batchsize.mean(1.5)/NPU_compute_time.mean(2): 7e+2": (700, False),
}


@pytest.mark.parametrize("line", LINES)
def test_every_form_of_the_throughput_line(line: str) -> None:
    text = f"loop inference exec: (1/2)\rloop inference exec: (2/2)\r{line}\n[INFO] ----\n"
    printed = parse_throughput(text)
    assert printed is not None
    assert (printed.fps, printed.inverted) == LINES[line]
    assert parse_throughput(line.replace("[INFO] ", "[DEBUG] ")) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(_JSON, _JSON, _JSON, _JSON)
def test_any_summary_is_read_or_refused(mean: Any, times: Any, count: Any, fps: Any) -> None:
    data = {
        "NPU_compute_time": {"mean": mean, "count": count},
        "npu_compute_time_list": times,
        "throughput": fps,
    }
    try:
        summary = parse_summary(json.dumps(data))
    except ValueError:
        return
    assert math.isfinite(summary.mean_ms) and math.isfinite(summary.throughput)
    assert all(math.isfinite(ms) for ms in summary.times or ())
