"""The three drivers over the simulated toolchain: found, opened and read as on a real host."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import DeviceError, HarnessError, InferError, LoadError
from harness.catalog.load import load_catalog
from harness.simulator import ais_infer_script
from harness.targets.ascend import drivers
from harness.targets.ascend.api import open_api
from harness.targets.ascend.cli import AisBench
from harness.targets.ascend.filetool import Opening
from harness.targets.ascend.legacy import Benchmark
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.toolkit import find_toolkit
from harness.targets.protocol import Float32, Session, TensorSpec
from tests.selftest.running import TINY
from tests.selftest.simulated import (
    BATCH,
    CLASSES,
    INPUT,
    OUTPUT,
    SHAPE,
    ascend_target,
    compute,
    images,
    make_host,
    write_onnx,
)

OPENERS: dict[str, Callable[[Opening], Session]] = {
    "api": open_api,
    "cli": AisBench.open,
    "benchmark": Benchmark.open,
}
Opener = Callable[..., Session]


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
    sessions: list[Session] = []

    def open_on(driver: str, config: str, *, batch: int = BATCH, mode: int = 0o640) -> Session:
        host = make_host(tmp_path / "host", config)
        log = tmp_path / "log"
        script = ais_infer_script(host.folder)
        toolkit = find_toolkit(AscendOptions(ais_infer=script), host.env, log=log)
        assert drivers.available_drivers(toolkit, log=log)[driver] == ""
        model = tmp_path / "model.om"
        model.write_bytes(compiled(batch))
        model.chmod(mode)
        opening = Opening(
            file=model,
            toolkit=toolkit,
            device_id=0,
            input=TensorSpec(INPUT, (batch, *SHAPE[1:]), "float32"),
            output=TensorSpec(OUTPUT, (batch, CLASSES), "float32"),
            work=tmp_path / "work",
            log=log,
            deadline_open_s=60.0,
            deadline_run_s=60.0,
            chunk_bytes=2 * 4 * batch * math.prod(SHAPE[1:]),
        )
        sessions.append(OPENERS[driver](opening))
        return sessions[-1]

    yield open_on
    for session in sessions:
        session.close()
    assert not list((tmp_path / "work").glob("*"))


def batches(count: int) -> list[Float32]:
    return [images(seed=seed) for seed in range(count)]


@pytest.mark.parametrize(
    ("driver", "generation"),
    [("api", "v5"), ("api", "v2"), ("cli", "v5"), ("cli", "v1"), ("benchmark", "v5")],
)
def test_what_comes_back_is_the_models(opened, onnx, driver, generation):
    session = opened(driver, f"generation={generation},time=2")
    given = batches(3)
    for batch, logits in zip(given, session.stream(given), strict=True):
        np.testing.assert_allclose(logits, compute(onnx, batch), atol=1e-5)
    times = session.time(6, 2).ms
    means_only = driver == "benchmark" or generation == "v1"
    assert times == pytest.approx((2.0,) * (1 if means_only else 6), rel=1e-3)


def test_a_fast_model_of_the_benchmark_tool(opened):
    # 8,000 frames a second: 0.125 ms for each, of which its file says 0.1.
    session = opened("benchmark", "time=0.5,compute=none")
    assert session.time(20, 5).ms == pytest.approx((0.5,), rel=1e-3)


def test_a_data_set_run_of_the_benchmark_tool(opened):
    session = opened("benchmark", "time=2,compute=none", batch=1)
    assert session.about.method == "dataset of 1024 seeded images"
    assert session.time(20, 5).ms == pytest.approx((2.0,), rel=1e-3)


@pytest.mark.parametrize("driver", OPENERS)
def test_a_model_that_others_may_write_is_opened_as_a_copy(opened, driver):
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
def test_a_fault_is_an_error(opened, driver, fault, kind):
    with pytest.raises(kind, match=r"model\.om") as caught:
        session = opened(driver, f"compute=none,time=2,fault={fault}")
        list(session.stream(batches(3)))
        session.time(3, 1)
    assert caught.value.remedy


@pytest.mark.parametrize("driver", ["api", "benchmark"])
def test_nan_is_not_hidden(opened, driver):
    session = opened(driver, "compute=none,time=2,fault=nan:0:1")
    assert any(np.isnan(logits).any() for logits in session.stream(batches(2)))


# The commands that a report prints for a case: those of the tool and the Python that ran it. ----


def run_command(folder: Path, config: str, driver: str, script: Path | None) -> list[str]:
    """The words of the command that runs a case's model on a simulated host."""
    target = ascend_target(folder, config, options={"ais_infer": script}, driver=driver)
    (model,) = load_catalog(TINY).models.values()
    (device,) = target.devices()
    found = target.commands(folder / "a.onnx", folder / "model.om", model, 4, device)
    return shlex.split(found["run"])


def test_the_interface_is_the_packages_whatever_script_was_given(tmp_path):
    script = tmp_path / "ais_infer.py"
    script.write_text("")
    words = run_command(tmp_path, "", "api", script)
    assert words[:3] == [sys.executable, "-m", "ais_bench"] and "--warmup_count=5" in words


@pytest.mark.parametrize("generation", ["v1", "v2", "v5"])
def test_the_command_runs(tmp_path, onnx, generation):
    """In the tool's own words: an option that it does not know would end it with 2."""
    config = f"generation={generation},compute=none,time=2"
    host = make_host(tmp_path / "host", config)
    assert host.compile(onnx).code == 0
    (tmp_path / "host" / "model.om").rename(tmp_path / "model.om").chmod(0o640)
    words = run_command(tmp_path, config, "cli", ais_infer_script(host.folder))
    assert "--batchsize=4" in words  # 1 is what the script counts without it
    ran = host.run("python", *words[1:])
    assert ran.code == 0, ran
    assert "throughput" in ran.out
