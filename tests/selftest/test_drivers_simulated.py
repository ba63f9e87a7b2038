"""The three drivers over the simulated toolchain: found, opened and read as on a real host."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import DeviceError, HarnessError, InferError, LoadError
from harness.simulator import install, parse_config
from harness.targets.ascend import atc, drivers
from harness.targets.ascend.api import ApiSession, open_api
from harness.targets.ascend.cli import open_cli
from harness.targets.ascend.exchange import FileSession
from harness.targets.ascend.legacy import open_legacy
from harness.targets.ascend.toolkit import find_toolkit
from harness.targets.protocol import Float32, TensorSpec

CLASSES, SIDE = 5, 8
WEIGHTS = np.arange(3 * CLASSES, dtype=np.float32).reshape(3, CLASSES)

Opened = ApiSession | FileSession
Opener = Callable[..., Opened]


def write_onnx(path: Path, batch: int) -> Path:
    """Mean over each channel, then a matrix."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["class"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", kind, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("class", kind, [batch, CLASSES])],
        [helper.make_tensor("weights", kind, WEIGHTS.shape, WEIGHTS.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    onnx.save(model, path)
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    made: list[Opened] = []

    def open_on(
        driver: str,
        config: str,
        *,
        batch: int = 4,
        deadline_s: float = 60.0,
        mode: int = 0o640,
    ) -> Opened:
        env = install(tmp_path / "host", parse_config(config), environment=os.environ)
        script = tmp_path / "host" / "tools" / "ais_infer.py"
        log = tmp_path / "log"
        toolkit = find_toolkit(
            environment=env, ais_infer=script if script.is_file() else None, log=log
        )
        assert drivers.available_drivers(toolkit, log=log)[driver] == ""
        shape = (batch, 3, SIDE, SIDE)
        model = atc.compile_om(
            toolkit,
            onnx=write_onnx(tmp_path / "small.onnx", batch),
            output_dir=tmp_path,
            input_name="image",
            shape=shape,
            soc_version="Ascend310P3",
            flags=(),
            untuned_flags=(),
            tune="none",
            device_id=None,
            log=log,
            deadline_s=60.0,
        ).file
        model.chmod(mode)
        if driver == "api":
            made.append(
                open_api(
                    model,
                    toolkit=toolkit,
                    device_id=0,
                    work=tmp_path / "work",
                    log=log,
                    lease_fds=(),
                    deadline_open_s=deadline_s,
                    deadline_run_s=deadline_s,
                )
            )
            return made[-1]
        opener = open_cli if driver == "cli" else open_legacy
        made.append(
            opener(
                model,
                toolkit=toolkit,
                device_id=0,
                input=TensorSpec("image", shape, "float32"),
                output=TensorSpec("class", (batch, CLASSES), "float32"),
                work=tmp_path / "work",
                log=log,
                lease_fds=(),
                deadline_run_s=deadline_s,
                chunk_bytes=2 * 4 * math.prod(shape),
            )
        )
        return made[-1]

    yield open_on
    for session in made:
        session.close()
    assert not list((tmp_path / "work").glob("*"))


def batches(count: int, batch: int = 4) -> list[Float32]:
    random = np.random.default_rng(1)
    return [random.random((batch, 3, SIDE, SIDE), dtype=np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("driver", "generation"),
    [("api", "v5"), ("api", "v2"), ("cli", "v5"), ("cli", "v1"), ("benchmark", "v5")],
)
def test_what_comes_back_is_the_models(opened: Opener, driver: str, generation: str) -> None:
    session = opened(driver, f"generation={generation},time=2")
    given = batches(5)
    for images, logits in zip(given, session.stream(given), strict=True):
        np.testing.assert_allclose(logits, images.mean((2, 3)) @ WEIGHTS, rtol=1e-5)
    times = session.time(6, 2)
    means_only = driver == "benchmark" or generation == "v1"
    assert times == pytest.approx([2.0] if means_only else [2.0] * 6, rel=1e-3)


def test_a_fast_model_of_the_benchmark_tool(opened: Opener) -> None:
    # 8,000 frames a second: 0.125 ms for each, of which its file says 0.1.
    session = opened("benchmark", "time=0.5,compute=none")
    assert session.time(20, 5) == [pytest.approx(0.5, rel=1e-3)]


def test_a_data_set_run_of_the_benchmark_tool(opened: Opener) -> None:
    session = opened("benchmark", "time=2,compute=none", batch=1)
    assert session.method == "dataset of 1024 seeded images"
    assert session.time(20, 5) == [pytest.approx(2.0, rel=1e-3)]


@pytest.mark.parametrize("driver", ["api", "cli", "benchmark"])
def test_a_model_that_others_may_write_is_opened_as_a_copy(opened: Opener, driver: str) -> None:
    session = opened(driver, "time=2,compute=none", mode=0o664)
    assert len(list(session.stream(batches(2)))) == 2


@pytest.mark.parametrize(
    ("driver", "fault", "kind"),
    [
        ("api", "device-lost", DeviceError),
        ("cli", "device-lost", DeviceError),
        ("benchmark", "device-lost", DeviceError),
        ("api", "crash-run", InferError),
        ("cli", "crash-run", HarnessError),  # whether while loading cannot always be seen
        ("cli", "crash-open", LoadError),
        ("cli", "wrong-throughput", InferError),
        # Planted once: on the first outputs that a tool gives, and somebody looks at these.
        ("api", "missing-outputs:0:1", InferError),
        ("cli", "missing-outputs:0:1", LoadError),
        ("benchmark", "missing-outputs:0:1", InferError),
        ("api", "wrong-dtype:0:1", LoadError),
        ("cli", "wrong-dtype:0:1", LoadError),
        ("benchmark", "wrong-dtype:0:1", InferError),
        ("cli", "nan:0:1", InferError),  # its trial, on zeros
    ],
)
def test_a_fault_is_an_error(
    opened: Opener, driver: str, fault: str, kind: type[HarnessError]
) -> None:
    with pytest.raises(kind, match=r"model\.om") as caught:
        session = opened(driver, f"compute=none,time=2,fault={fault}")
        list(session.stream(batches(3)))
        session.time(3, 1)
    assert caught.value.remedy


@pytest.mark.parametrize("driver", ["api", "benchmark"])
def test_nan_is_not_hidden(opened: Opener, driver: str) -> None:
    session = opened(driver, "compute=none,time=2,fault=nan:0:1")
    assert any(np.isnan(logits).any() for logits in session.stream(batches(2)))
