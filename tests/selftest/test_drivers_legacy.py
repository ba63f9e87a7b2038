"""`harness.targets.ascend.legacy`: the benchmark tool of guides 001 and 003, and its faults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import DeviceError, InferError, LoadError
from harness.targets.ascend import legacy
from harness.targets.ascend.exchange import FileSession
from harness.targets.ascend.legacy import Benchmark, parse_average, parse_interface
from harness.targets.protocol import TensorSpec
from tests.selftest import ascend_tools
from tests.selftest.ascend_tools import B, C, S, batch, expected

Opener = Callable[..., FileSession]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    monkeypatch.setattr(legacy, "TIMED_IMAGES", 40)
    program = ascend_tools.install_benchmark(tmp_path / "benchmark.x86_64")
    made: list[FileSession] = []

    def open_fake(fault: str = "", *, size: int = B, **given: Any) -> FileSession:
        settings = {"fault": fault, "calls": str(tmp_path / "calls"), **given.pop("settings", {})}
        model = ascend_tools.write_model(
            tmp_path / "model.om", **given.pop("model", {"batch": size})
        )
        arguments = {
            "toolkit": ascend_tools.toolkit(benchmark=program, settings=settings),
            "input": TensorSpec("image", (size, 3, S, S), "float32"),
            "output": TensorSpec("class", (size, C), "float32"),
            **given,
        }
        opening = ascend_tools.opening(model, tmp_path / "work", **arguments)
        made.append(Benchmark.open(opening))
        return made[-1]

    yield open_fake
    for session in made:
        session.close()
    assert not list((tmp_path / "work").glob("*"))


def calls(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def option(call: dict[str, Any], name: str) -> str:
    (value,) = [one.partition("=")[2] for one in call["argv"] if one.startswith(f"-{name}=")]
    return str(value)


@pytest.mark.parametrize("fault", ["", "text"])
def test_batches_in_chunks(opened: Opener, tmp_path: Path, fault: str) -> None:
    session = opened(fault)
    given = [batch(k) for k in range(1, 9)]
    np.testing.assert_array_equal(list(session.stream(given)), [expected(one) for one in given])
    runs = [call for call in calls(tmp_path) if not any("-round" in one for one in call["argv"])]
    assert len(runs) == 3
    work = str((tmp_path / "work").resolve())
    assert len({call["cwd"] for call in runs}) == 3  # results of two calls never meet
    for call in runs:
        assert call["cwd"].startswith(work)
        assert option(call, "batch_size") == str(B) and option(call, "device_id") == "0"
        assert option(call, "input_width") == option(call, "input_height") == str(S)
        assert option(call, "output_binary") == "True" and option(call, "useDvpp") == "False"
        assert option(call, "model_type") == "vision"


@pytest.mark.parametrize("size", [1, 16])
def test_one_and_sixteen_are_timed_over_a_data_set(
    opened: Opener, tmp_path: Path, size: int
) -> None:
    session = opened(size=size)
    images = 40 if size == 1 else 48  # whole batches
    assert session.about.method == f"dataset of {images} seeded images"
    assert str(session.about.runtime["timed"]).startswith(f"{images} seeded images")
    assert session.executions(1) == session.executions(1000) == images // size
    assert session.time(1000, 5).ms == pytest.approx((2.5,))
    call = calls(tmp_path)[-1]
    assert "input_text_path" in " ".join(call["argv"])
    assert not list((tmp_path / "work").rglob("*.bin"))


@pytest.mark.parametrize(("loops", "rounds"), [(1, 20), (20, 20), (300, 300), (99999, 1000)])
def test_the_others_are_timed_pure(opened: Opener, tmp_path: Path, loops: int, rounds: int) -> None:
    session = opened()
    assert session.about.method == "pure-inference"
    assert session.time(loops, 5).ms == pytest.approx((2.5,))
    assert option(calls(tmp_path)[-1], "round") == str(rounds) == str(session.executions(loops))


RUN_FAULTS = {
    "missing": (InferError, r"wrote 5 of 6 outputs, missing: b00000006_1\.bin"),
    "stale": (InferError, r"left 1 files .*: ILSVRC2012_val_00000001_1\.bin"),
    "float16": (InferError, r"6 outputs have another size .* has 16 bytes, expected 20"),
    "lost-run": (DeviceError, "device 0 cannot be opened or was lost"),
}


@pytest.mark.parametrize("fault", RUN_FAULTS)
def test_a_fault_of_a_run_is_one_error(opened: Opener, tmp_path: Path, fault: str) -> None:
    kind, message = RUN_FAULTS[fault]
    session = opened(fault)
    with pytest.raises(kind) as caught:
        list(session.stream(batch(k) for k in range(9)))
    assert re.search(message, caught.value.message), caught.value.message
    assert not list((tmp_path / "work").rglob("*.bin"))


OPEN_FAULTS = {
    "wrong-throughput": r"it printed 3200 samples/s and wrote 800",
    "wrong-latency": r"800 samples/s and 3\.75 ms for each contradict each other",
    "no-perf": r"wrote 0 files PureInfer_perf_of_\*_in_device_0\.txt",
    "crash-open": "SIGSEGV",
    "nothing-open": "wrote 0 files",
}


@pytest.mark.parametrize("fault", OPEN_FAULTS)
def test_a_fault_while_opening(opened: Opener, fault: str) -> None:
    with pytest.raises(LoadError, match=OPEN_FAULTS[fault]):
        opened(fault)


def test_a_model_of_another_batch_size(opened: Opener) -> None:
    with pytest.raises(LoadError, match="batch size 2 is not the model's"):
        opened(model={"batch": 4})


def test_a_data_set_run_without_a_figure(opened: Opener) -> None:
    session = opened(size=1)
    for fault, message in (
        ("no-perf", r"wrote 0 files perf_vision_batchsize_1_device_0\.txt"),
        ("missing", "wrote 39 of 40 outputs"),
    ):
        session.env = {**session.env, ascend_tools.VARIABLE: json.dumps({"fault": fault})}
        with pytest.raises(InferError, match=message):
            session.time(20, 1)


# As guide 003 prints it, and as other builds name the step.
PERF = """[e2e] throughputRate: 456.712, latency: 109478
[data read] throughputRate: 461.942, moduleLatency: 2.16477
[preprocess] throughputRate: 461.364, moduleLatency: 2.16749
[infer] throughputRate: 461.934, Interface throughputRate: 1147.43, moduleLatency: 1.40221
[post] throughputRate: 461.931, moduleLatency: 2.16483
"""


def test_the_figure_of_a_data_set_run() -> None:
    assert parse_interface(PERF) == 1147.43
    assert parse_interface(PERF.replace("[infer]", "[inference]")) == 1147.43
    assert parse_interface(PERF.replace("Interface ", "")) is None
    assert parse_interface("") is None


@pytest.mark.parametrize(
    ("fps", "latency", "agrees"),
    [
        ("1.67129", "599.028", True),
        ("22.37", "44.7", True),
        ("2702.7", "0.4", True),  # 0.37 ms, as builds print it that cut digits
        ("2702.7", "0", True),
        ("2702.7", "0.74", False),
        ("22.37", "134.1", False),
        ("0", "44.7", False),
    ],
)
def test_a_rate_and_a_latency_are_of_one_measurement(fps: str, latency: str, agrees: bool) -> None:
    for line in (
        "[INFO] ave_throughputRate: {}samples/s, ave_latency: {}ms",
        "ave_throughputRate = {}samples/s, ave_latency = {}ms",
    ):
        found = parse_average(line.format(1, 1) + "\n" + line.format(fps, latency))
        assert found is not None
        assert (found.fps, found.latency_ms, found.agrees) == (float(fps), float(latency), agrees)
    assert parse_average(f"ave_throughputRate = nansamples/s, ave_latency = {latency}ms") is None
