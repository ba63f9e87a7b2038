"""`harness.targets.ascend.api`, `api_backend` and `drivers`: ais_bench's Python interface."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import simulator
from harness.base.errors import DeviceError, InferError, LoadError
from harness.simulator import interface
from harness.targets.ascend import api_backend, drivers
from harness.targets.ascend.api import open_api
from harness.targets.ascend.options import DRIVERS
from harness.targets.protocol import Session, TensorSpec
from harness.targets.sessions import WorkerSession
from tests.selftest import ascend_tools
from tests.selftest.ascend_tools import INPUT, OUTPUT, batch, expected
from tests.selftest.running import alive

Opener = Callable[..., WorkerSession]

# Interpreters of the oldest version that the worker must run in, where there is one with NumPy.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ascend_tools.install_python(folder / "site")
    return folder / "site"


@pytest.fixture
def opened(site: Path, tmp_path: Path) -> Iterator[Opener]:
    made: list[WorkerSession] = []

    def open_fake(fault: str = "", **given: Any) -> WorkerSession:
        settings = {"fault": fault, **given.pop("settings", {})}
        model = ascend_tools.write_model(tmp_path / "model.om", **given.pop("model", {}))
        model.chmod(0o644)
        model = given.pop("file", model)
        arguments = {
            "toolkit": ascend_tools.toolkit(site=site, settings=settings),
            "deadline_open_s": 60.0,
            **given,
        }
        made.append(open_api(ascend_tools.opening(model, tmp_path / "work", **arguments)))
        return made[-1]

    yield open_fake
    for session in made:
        session.close()
    assert not list((tmp_path / "work").glob("*"))


# --- what works -------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_both_forms_infer_time_and_end(opened: Opener, tmp_path: Path, old: bool) -> None:
    ended = tmp_path / "ended"
    session = opened(settings={"old": old, "ended": str(ended)})
    as_protocol: Session = session
    given = [batch(k) for k in range(1, 6)]
    results = list(as_protocol.stream(given))
    np.testing.assert_array_equal(results, [expected(one) for one in given])
    for loops, warmup in ((1, 0), (9, 3)):
        assert session.time(loops, warmup) == pytest.approx([2.5] * loops)
    session.close()
    assert ended.read_text().split() == (["finalize"] if old else ["free_resource", "finalize"])


def test_the_session_says_what_it_is(opened: Opener) -> None:
    session = opened(device_id=3)
    assert [(one.name, one.shape, one.dtype) for one in session.inputs] == [
        (INPUT.name, INPUT.shape, "float32")
    ]
    assert [(one.name, one.shape, one.dtype) for one in session.outputs] == [
        (OUTPUT.name, OUTPUT.shape, "float32")
    ]
    about = session.about
    assert (about.driver, about.method, about.round_s) == ("api", "pure-inference", None)
    assert about.runtime["ais_bench"] == about.runtime["aclruntime"] == "0.0.2"
    assert about.runtime["device"] == 3 and about.pid is not None


def test_the_tools_lists_do_not_grow(opened: Opener) -> None:
    session = opened("longest")
    results = list(session.stream([batch(1)] * 1200 + [batch(-1)]))
    # The stand-in answers with the longest that its list was.
    assert 1 < results[-1].max() <= api_backend._RESET_EVERY < 1200


# --- faults -------------------------------------------------------------------------------------

RUN_FAULTS = {
    "flat": (
        InferError,
        r"output 'class' came back as float32\[10\], the model says float32\[2, 5\]",
    ),
    "float16": (InferError, r"output 'class' came back as float16\[2, 5\]"),
    "tensor": (InferError, "output 'class' is a str, not an array"),
    "two": (InferError, "ais_bench returned 2 outputs, the model has 1"),
    "none": (InferError, "ais_bench returned a NoneType, not a list"),
    "crash": (InferError, "was killed by SIGSEGV"),
    "lost-run": (DeviceError, "device 0 cannot be opened or was lost"),
}


@pytest.mark.parametrize("fault", RUN_FAULTS)
def test_a_fault_of_a_run_is_one_error(opened: Opener, fault: str) -> None:
    kind, message = RUN_FAULTS[fault]
    session = opened(fault)
    with pytest.raises(kind) as caught:
        list(session.stream([batch(1), batch(-1), batch(1)]))
    assert re.search(message, caught.value.message), caught.value.message
    assert "[ERROR] acl execute failed" in caught.value.log
    assert session.about.pid is not None and not alive(session.about.pid)


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_executions_that_are_not_timed(opened: Opener, old: bool) -> None:
    with pytest.raises(InferError, match=r"timed \d+ executions, \d+ were asked for"):
        opened("few-times", settings={"old": old}).time(4, 0)


def test_times_that_go_backwards(opened: Opener) -> None:
    with pytest.raises(
        InferError, match=r"timed an execution from 0 to -2\.5 ms: was the clock set"
    ):
        opened("backwards").time(4, 0)
    with pytest.raises(InferError, match=r"gave 2 times .*-2\.5"):  # the old form: the worker's
        opened(settings={"old": True, "ms": -2.5}).time(2, 0)


def test_a_clock_that_became_too_coarse(opened: Opener) -> None:
    # Half an hour after the session was opened float32 counts in steps of 0.125 ms.
    settings = {"since": 1.8e6, "ms": 0.25}
    with pytest.raises(InferError, match=r"clock counts in steps of 0\.125 ms"):
        opened(settings=settings).time(4, 0)
    times = opened(settings={**settings, "ms": 2.5}).time(4, 0)
    assert sum(times) / 4 == pytest.approx(2.5, rel=0.02)


OPEN_FAULTS = {
    "dynamic": ({}, r"the input 'image' has the shape \[-1, 3, 4, 4\]: the model is dynamic"),
    "aipp": ({}, r"the input 'image' takes 96 bytes, float32\[2, 3, 4, 4\] are 384: is an AIPP"),
    "": ({"datatype": 1}, "the input 'image' (is float16|takes)"),
    "code": ({"datatype": 99}, "the input 'image' has an unknown data type, code 99"),
    "no-library": ({}, r"ImportError: libascendcl\.so: cannot open shared object file"),
}


@pytest.mark.parametrize("fault", OPEN_FAULTS)
def test_a_fault_while_opening(opened: Opener, fault: str) -> None:
    settings, message = OPEN_FAULTS[fault]
    with pytest.raises(LoadError) as caught:
        opened(fault, settings=settings)
    assert re.search(message, caught.value.message), caught.value.message


def test_a_device_that_cannot_be_opened(opened: Opener) -> None:
    with pytest.raises(DeviceError, match=r"device 0 cannot be opened or was lost: model\.om"):
        opened("lost")


def test_another_shape_than_expected(opened: Opener) -> None:
    with pytest.raises(LoadError, match=r"expected \[4, 3, 4, 4\]"):
        opened(input=TensorSpec("image", (4, 3, 4, 4), "float32"))


@pytest.mark.parametrize("interface", ["none", "other"])
def test_a_host_without_it(opened: Opener, tmp_path: Path, interface: str) -> None:
    other = tmp_path / "site"
    if interface == "other":
        ascend_tools.install_python(other, main=False, interface=False)
        folder = other / "ais_bench_benchmark-3.1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Name: ais-bench-benchmark\nVersion: 3.1\n")
        message = r"no infer\.interface: it is another tool .* \(ais_bench_benchmark 3\.1\)"
    else:
        message = "no ais_bench is installed"
    with pytest.raises(LoadError, match=message):
        opened(toolkit=ascend_tools.toolkit(site=other))


# --- files that ais_bench refuses ---------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o444, 0o666])
def test_a_copy_that_no_ais_bench_refuses_is_opened(
    opened: Opener, tmp_path: Path, mode: int
) -> None:
    folder = tmp_path / "a store"
    folder.mkdir()
    file = ascend_tools.write_model(folder / "model.om")
    file.chmod(mode)
    session = opened(file=file, settings={"took": str(tmp_path / "took")})
    taken = Path((tmp_path / "took").read_text())
    assert interface.why_refused(str(file)) and not interface.why_refused(str(taken))
    np.testing.assert_array_equal(list(session.stream([batch(1)])), [expected(batch(1))])
    session.close()
    assert not taken.exists()


# --- the backend as a file ----------------------------------------------------------------------


def test_the_backend_is_python_3_7() -> None:
    ast.parse(drivers.BACKEND.read_text(), feature_version=(3, 7))


def test_the_backend_imports_only_the_standard_library_and_numpy() -> None:
    imported = set()
    for node in ast.walk(ast.parse(drivers.BACKEND.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= set(sys.stdlib_module_names) | {"numpy", "__future__"}


_FINITE = st.floats(0.01, 1000.0)


@settings(deadline=None)
@given(st.lists(_FINITE, min_size=1, max_size=20), st.floats(0, 1e4))
def test_durations_of_pairs(times: list[float], since: float) -> None:
    entries = []
    now = since
    for ms in times:
        entries.append((now, now + ms))
        now += ms + 0.5
    assert api_backend._milliseconds(entries) == pytest.approx(times, abs=1e-6)
    assert api_backend._milliseconds(times) == times


# --- which drivers there are --------------------------------------------------------------------


def test_a_host_with_all_drivers(site: Path, tmp_path: Path) -> None:
    toolkit = ascend_tools.toolkit(
        site=site, benchmark=ascend_tools.install_benchmark(tmp_path / "benchmark.x86_64")
    )
    found = drivers.available_drivers(toolkit, log=tmp_path / "log")
    assert tuple(found) == DRIVERS
    assert found == {"api": "", "cli": "", "benchmark": ""}
    seen = drivers.probe(toolkit, log=tmp_path / "log")
    assert seen.versions["ais_bench"] == "0.0.2" and "python" in seen.versions


def test_a_host_with_none(tmp_path: Path) -> None:
    found = drivers.available_drivers(ascend_tools.toolkit(), log=tmp_path / "log")
    assert "No module named 'aclruntime'" in found["api"]
    assert "no ais_bench is installed" in found["cli"]
    assert "no benchmark.x86_64" in found["benchmark"]
    assert all(sys.executable in found[name] for name in ("api", "cli"))


def test_a_host_with_the_other_tool_of_that_name(tmp_path: Path) -> None:
    site = tmp_path / "site"
    ascend_tools.install_python(site, main=False, interface=False)
    (site / "aclruntime.py").write_text("")
    found = drivers.available_drivers(ascend_tools.toolkit(site=site), log=tmp_path / "log")
    assert "another tool of that name" in found["api"]
    assert "no __main__" in found["cli"]


def test_a_host_with_cann_5_1(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "aclruntime.py").write_text("")
    script = ascend_tools.install_ais_infer(tmp_path / "ais_infer.py")
    toolkit = ascend_tools.toolkit(site=site, ais_infer=script)
    found = drivers.available_drivers(toolkit, log=tmp_path / "log")
    assert found["cli"] == "" and found["api"]
    toolkit = ascend_tools.toolkit(site=site, ais_infer=tmp_path / "absent.py")
    assert "is not there" in drivers.available_drivers(toolkit, log=tmp_path / "log")["cli"]


def test_a_simulated_aclruntime_is_none(tmp_path: Path) -> None:
    environment = simulator.install(
        tmp_path / "host", simulator.parse_config(""), environment=dict(os.environ)
    )
    real = ascend_tools.toolkit(site=tmp_path / "host" / "site")
    found = drivers.available_drivers(real, log=tmp_path / "log")
    assert "is a simulated host's" in found["api"] and "is a simulated host's" in found["cli"]
    simulated = dataclasses.replace(real, env=environment)
    found = drivers.available_drivers(simulated, log=tmp_path / "log")
    assert found["api"] == found["cli"] == ""


@pytest.mark.parametrize("there", [True, False])
def test_versions_without_the_means_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    ascend_tools.install_python(tmp_path / "site")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")] if there else [])

    def none(name: str) -> None:  # as in Python 3.7
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", none)
    expected = "0.0.2" if there else ""
    assert api_backend._version("aclruntime") == api_backend._version("ais_bench") == expected


IMPORTS = {
    "raise ImportError('libascendcl.so: cannot open')": r"ImportError: libascendcl\.so",
    "import os; os.kill(os.getpid(), 11)": "was killed by SIGSEGV",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "import os; os._exit(0)": "ended with exit code 0",
    "print('harness-probe: nonsense', flush=True); import os; os._exit(0)": "exit code 0",
    "raise SystemError('two\\nlines')": "SystemError: two$",
}


@pytest.mark.parametrize("code", IMPORTS)
def test_an_import_that_fails(tmp_path: Path, code: str) -> None:
    site = tmp_path / "site"
    ascend_tools.install_python(site)
    (site / "aclruntime.py").write_text(code)
    found = drivers.available_drivers(ascend_tools.toolkit(site=site), log=tmp_path / "log")
    for name in ("api", "cli"):
        assert re.search(IMPORTS[code], found[name]), found[name]
        assert "\n" not in found[name]


def test_an_import_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "PROBE_S", 2.0)
    site = tmp_path / "site"
    ascend_tools.install_python(site)
    (site / "aclruntime.py").write_text("import time; time.sleep(600)")
    found = drivers.available_drivers(ascend_tools.toolkit(site=site), log=tmp_path / "log")
    assert "was stopped after" in found["api"]


def test_no_interpreter_and_no_permission(tmp_path: Path) -> None:
    program = ascend_tools.install_benchmark(tmp_path / "benchmark.x86_64")
    program.chmod(0o640)
    toolkit = ascend_tools.toolkit(python="/no/such/python", benchmark=program)
    found = drivers.available_drivers(toolkit, log=tmp_path / "log")
    assert "exit code 127" in found["api"]
    assert f"chmod u+x {program}" in found["benchmark"]
    toolkit = ascend_tools.toolkit(benchmark=tmp_path / "absent")
    assert "is not there" in drivers.available_drivers(toolkit, log=tmp_path / "log")["benchmark"]
