"""`harness.targets.ascend.api_backend` and `drivers`: ais_bench's Python interface, and who has it.

The backend runs here in this process, on a stand-in of the interface. `test_drivers_simulated` has
it in a device worker, with what a device does wrong.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from harness import simulator
from harness.targets.ascend import api_backend, drivers
from harness.targets.ascend.api_backend import ApiError, ApiModel
from harness.targets.ascend.options import DRIVERS
from tests.selftest import ascend_tools
from tests.selftest.ascend_tools import SHAPE, B, C, batch, expected


class Session:
    """ais_bench's `InferSession` of 2024 and later, at 2.5 ms an execution."""

    ms, now, datatype, realsize = 2.5, 0.0, 0, 4 * int(np.prod(SHAPE))
    shape: ClassVar[list[int]] = list(SHAPE)
    pairs = True

    def __init__(self, device: int, path: str) -> None:
        self.times: list[Any] = []
        self.longest, self.loop = 0, 1
        self.ended: list[str] = []

    def get_inputs(self) -> list[Any]:
        described = {"datatype": self.datatype, "realsize": self.realsize}
        return [SimpleNamespace(name="image", shape=self.shape, **described)]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="class", shape=[B, C], datatype=0)]

    def infer(self, feeds: list[Any], mode: str, custom_sizes: int = 0) -> Any:
        assert mode == "static"
        for _ in range(self.loop):
            start, self.now = np.float32(self.now), self.now + self.ms
            self.times.append((start, np.float32(self.now)) if self.pairs else self.ms)
        self.longest = max(self.longest, len(self.times))
        return self.answer(expected(feeds[0]))

    def answer(self, result: Any) -> Any:
        return [result]

    def set_loop_count(self, loop: int) -> None:
        self.loop = loop

    def summary(self) -> Any:
        return SimpleNamespace(exec_time_list=self.times)

    def reset_summaryinfo(self) -> None:
        self.times = []

    def free_resource(self) -> None:
        self.ended.append("free_resource")

    def finalize(self) -> None:
        self.ended.append("finalize")


class OldSession(Session):
    """The form before 2024, which misspells a summary and has no loops of its own."""

    pairs = False
    sumary, reset_sumaryinfo = Session.summary, Session.reset_summaryinfo

    def __getattribute__(self, name: str) -> Any:
        if name in ("summary", "reset_summaryinfo", "set_loop_count", "free_resource"):
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open a model on a form of the interface, with attributes of it changed."""

    def open_model(form: type[Session] = Session, **changes: Any) -> ApiModel:
        session = type("Changed", (form,), changes)
        interface = SimpleNamespace(InferSession=session, __file__="interface.py")
        monkeypatch.setattr(api_backend, "import_interface", lambda: interface)
        return ApiModel("model.om", {"device_id": 3})

    return open_model


@pytest.mark.parametrize("form", [Session, OldSession])
def test_both_forms_infer_time_and_end(opened: Any, form: type[Session]) -> None:
    model = opened(form)
    assert model.info["device"] == 3
    assert model.inputs == [("image", SHAPE, "float32")]
    assert model.outputs == [("class", (B, C), "float32")]
    np.testing.assert_array_equal(model.run([batch(2)]), [expected(batch(2))])
    for loops, warmup in ((1, 0), (9, 3)):
        assert model.time([batch(1)], loops, warmup) == pytest.approx([2.5] * loops)
    model.close()
    old = form is OldSession
    assert model._session.ended == (["finalize"] if old else ["free_resource", "finalize"])


def test_the_tools_lists_do_not_grow(opened: Any) -> None:
    model = opened()
    for _ in range(1200):
        model.run([batch(1)])
    assert 1 < model._session.longest <= api_backend._RESET_EVERY < 1200


def test_an_input_of_another_shape_or_type_is_refused(opened: Any) -> None:
    for array in (batch(1)[:1], batch(1).astype(np.float16)):
        with pytest.raises(ApiError, match="for the input 'image', which is float32"):
            opened().run([array])


ANSWERS = {
    r"output 'class' came back as float32\[10\], the model says float32\[2, 5\]": lambda y: [
        y.ravel()
    ],
    r"output 'class' came back as float16\[2, 5\]": lambda y: [y.astype(np.float16)],
    "output 'class' is a str, not an array": lambda y: ["tensor"],
    "ais_bench returned 2 outputs, the model has 1": lambda y: [y, y],
    "ais_bench returned a NoneType, not a list": lambda y: None,
}


@pytest.mark.parametrize("message", ANSWERS)
def test_an_answer_that_is_not_the_models(opened: Any, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        opened(answer=lambda self, result: ANSWERS[message](result)).run([batch(1)])


def test_times_that_cannot_be(opened: Any) -> None:
    short = {"summary": lambda self: SimpleNamespace(exec_time_list=self.times[1:])}
    for changes, message in (
        (short, "timed 3 executions, 4 were asked for"),
        ({"ms": -2.5}, r"timed an execution from 0 to -2\.5 ms: was the clock set"),
        # Half an hour after the session was opened float32 counts in steps of 0.125 ms.
        ({"now": 1.8e6, "ms": 0.25}, r"clock counts in steps of 0\.125 ms"),
    ):
        with pytest.raises(ApiError, match=message):
            opened(**changes).time([batch(1)], 4, 0)
    times = opened(now=1.8e6).time([batch(1)], 4, 0)
    assert sum(times) / 4 == pytest.approx(2.5, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [-1, 3, 4, 4]}, r"'image' has the shape \[-1, 3, 4, 4\]: the model is dynamic"),
        ({"realsize": 96}, r"takes 96 bytes, float32\[2, 3, 4, 4\] are 384: is an AIPP"),
        ({"datatype": 1}, r"float16\[2, 3, 4, 4\] are 192"),
        ({"datatype": 99}, "the input 'image' has an unknown data type, code 99"),
    ],
)
def test_a_model_that_cannot_be_fed(opened: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message):
        opened(**changes)


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


# --- which drivers there are --------------------------------------------------------------------


def test_a_host_with_all_drivers(tmp_path: Path) -> None:
    site = tmp_path / "site"
    ascend_tools.install_python(site)
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
    folder = site / "ais_bench_benchmark-3.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: ais-bench-benchmark\nVersion: 3.1\n")
    found = drivers.available_drivers(ascend_tools.toolkit(site=site), log=tmp_path / "log")
    assert "another tool of that name (ais_bench_benchmark 3.1)" in found["api"]
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
