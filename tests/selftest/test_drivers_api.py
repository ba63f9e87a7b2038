"""`harness.targets.ascend.api_backend` and `drivers`: ais_bench's Python interface, and who has it.

The backend runs here in this process, on a stand-in of the interface. `test_drivers` has it in a
device worker, with what a device does wrong.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from harness.base.errors import NoSession
from harness.targets.ascend import api_backend, drivers
from harness.targets.ascend.api_backend import ApiError, ApiModel
from harness.targets.ascend.options import DRIVERS, AscendOptions
from harness.targets.ascend.toolkit import Toolkit, find_toolkit
from tests.selftest.running import needs_only_numpy
from tests.selftest.simulated import make_host
from tests.selftest.worker_backend import SHAPE, B, C, batch, expected


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
        return [expected(feeds[0])]

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
        memory = SimpleNamespace(reset=lambda: None)
        interface = SimpleNamespace(
            InferSession=type("Changed", (form,), changes),
            MemorySummary=memory,
            __file__="interface.py",
        )
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
    for loops in (1, 9):
        assert model.time([batch(1)], loops, 0) == pytest.approx([2.5] * loops)
    model.close()
    old = form is OldSession
    assert model._session.ended == (["finalize"] if old else ["free_resource", "finalize"])


def test_the_tools_lists_do_not_grow(opened: Any) -> None:
    model = opened()
    for _ in range(1200):
        model.run([batch(1)])
    assert 1 < model._session.longest <= api_backend._RESET_EVERY < 1200


def test_times_that_cannot_be(opened: Any) -> None:
    for changes, message in (
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


# The backend as a file -------------------------------------------------------------------------


def test_the_backend_is_python_3_7_with_the_standard_library_and_numpy() -> None:
    assert needs_only_numpy(drivers.BACKEND)


# Which drivers there are -----------------------------------------------------------------------


def toolkit(folder: Path, config: str = "", **options: Any) -> Toolkit:
    """The tools of a simulated host in `folder`."""
    host = make_host(folder, config)
    return find_toolkit(AscendOptions(**options), host.env, log=folder / "log")


def available(tools: Toolkit, folder: Path) -> dict[str, str]:
    """Why each driver cannot be used, in one line; empty where it can."""
    reasons = drivers.available_drivers(tools, log=folder / "log")
    assert tuple(reasons) == DRIVERS
    assert not any("\n" in why for why in reasons.values())
    return dict(reasons)


def test_a_host_with_all_drivers_and_one_with_none(tmp_path: Path) -> None:
    tools = toolkit(tmp_path / "all")
    assert available(tools, tmp_path) == {"api": "", "cli": ""}
    versions = drivers.probe(tools, log=tmp_path / "log").versions
    assert versions["ais_bench"] == versions["aclruntime"] == "0.0.2" and "python" in versions
    none = available(toolkit(tmp_path / "none", "without=ais_bench"), tmp_path)
    assert "No module named 'aclruntime'" in none["api"]
    assert "no ais_bench is installed" in none["cli"]
    assert all(sys.executable in none[name] for name in ("api", "cli"))


def test_a_host_with_the_other_tool_of_that_name(tmp_path: Path) -> None:
    tools = toolkit(tmp_path / "other")
    package = tmp_path / "other" / "site" / "ais_bench"
    (package / "__main__.py").unlink()
    (package / "infer" / "interface.py").unlink()
    (package.parent / "ais_bench_benchmark-3.1.dist-info").mkdir()
    reasons = available(tools, tmp_path)
    assert "another tool of that name (ais_bench_benchmark 3.1)" in reasons["api"]
    assert "no __main__" in reasons["cli"]


def test_a_simulated_aclruntime_is_none(tmp_path: Path) -> None:
    host = make_host(tmp_path / "host")
    simulated = find_toolkit(AscendOptions(), host.env, log=tmp_path / "log")
    assert available(simulated, tmp_path)["api"] == ""
    real = dataclasses.replace(
        simulated, env={**os.environ, "PYTHONPATH": str(tmp_path / "host" / "site")}
    )
    reasons = available(real, tmp_path)
    assert "is a simulated host's" in reasons["api"] and "is a simulated host's" in reasons["cli"]


IMPORTS = {
    "raise ImportError('libascendcl.so: cannot open')": r"ImportError: libascendcl\.so",
    "import os; os.kill(os.getpid(), 11)": "was killed by SIGSEGV",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "import os; os._exit(0)": "ended with exit code 0",
    "print('harness-probe: nonsense', flush=True); import os; os._exit(0)": "exit code 0",
    "raise SystemError('two\\nlines')": "SystemError: two$",
    "import time; time.sleep(600)": "was stopped after",
}


@pytest.mark.parametrize("code", IMPORTS)
def test_an_import_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(drivers, "PROBE_S", 2.0 if "sleep" in code else 60.0)
    tools = toolkit(tmp_path / "host")
    (tmp_path / "host" / "site" / "aclruntime.py").write_text(code)
    reasons = available(tools, tmp_path)
    for name in ("api", "cli"):
        assert re.search(IMPORTS[code], reasons[name]), reasons[name]


def test_an_import_that_somebody_killed_says_nothing_of_what_is_there(tmp_path: Path) -> None:
    tools = toolkit(tmp_path / "host")
    (tmp_path / "host" / "site" / "aclruntime.py").write_text("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(NoSession) as killed:
        available(tools, tmp_path)
    assert killed.value.killed


def test_no_interpreter(tmp_path: Path) -> None:
    tools = dataclasses.replace(toolkit(tmp_path / "host"), python="/no/such/python")
    assert "exit code 127" in available(tools, tmp_path)["api"]
