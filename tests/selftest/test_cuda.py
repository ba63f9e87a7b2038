"""The `cuda` target, as far as a machine without a GPU can prove it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import CompileError, DeviceError, LoadError
from harness.catalog.load import load_catalog
from harness.settings import resolve
from harness.targets import devices, sessions
from harness.targets.cuda import provider
from harness.targets.cuda import target as cuda
from harness.targets.cuda.target import VISIBLE, CudaTarget
from harness.targets.protocol import Device
from tests.selftest import onnx_files
from tests.selftest.running import TINY

T4 = "0, Tesla T4, 535.161.08, 41, 27.3, GPU-aaaa"
SECOND = "1, NVIDIA A10, 535.161.08, [N/A], [N/A], GPU-bbbb"


def host(folder: Path, gpus=(T4,), apps=(), code=0, hang=False, visible=None):
    """An environment whose nvidia-smi prints these rows."""
    tool = folder / "nvidia-smi"
    lines = ["#!/bin/sh", "sleep 60" if hang else "", 'case "$1" in']
    lines += ["--query-gpu*)", *(f"echo '{row}'" for row in gpus), ";;"]
    lines += ["--query-compute*)", *(f"echo '{row}'" for row in apps), ";;", "esac"]
    tool.write_text("\n".join([*lines, f"exit {code}"]) + "\n")
    tool.chmod(0o755)
    found = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    found.pop(VISIBLE, None)
    return found if visible is None else {**found, VISIBLE: visible}


def target(folder, *, device=None, factor=1.0, **about):
    given = {"target": "cuda", "deadline_factor": factor, "device": device}
    return CudaTarget(resolve(given, environment={}), host(folder, **about))


def test_gpus_by_the_ids_that_nvidia_smi_prints(tmp_path):
    found = target(tmp_path, gpus=(T4, SECOND)).devices()
    assert [(one.id, one.name, one.group) for one in found] == [
        ("cuda-0", "Tesla T4", "gpu-0"),
        ("cuda-1", "NVIDIA A10", "gpu-1"),
    ]
    (second,) = target(tmp_path, device="1", gpus=(T4, SECOND)).devices()
    assert second.index == 1


def test_the_gpus_that_may_be_used_are_part_of_an_artifacts_key(tmp_path):
    both, model = (T4, SECOND), load_catalog(TINY).models["tiny"]
    inputs = target(tmp_path).compile_inputs(model, 4)
    assert (inputs["chip"], inputs["driver"]) == ("Tesla T4", "535.161.08")
    assert target(tmp_path, gpus=both, device="1").identity()["chip"] == "NVIDIA A10"
    assert target(tmp_path, gpus=both).identity()["chip"] == "NVIDIA A10, Tesla T4"


def test_a_leased_gpu_is_the_one_that_is_used(tmp_path, monkeypatch):
    model = load_catalog(TINY).models["tiny"]
    one = target(tmp_path, gpus=(T4, SECOND), visible="1")
    (device,) = one.devices()
    assert device.id == "cuda-1"
    assert one.compiles_on_device(model, 4)
    used: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(sessions, "open_session", lambda *a, **given: used.update(run=given))
    monkeypatch.setattr(cuda, "optimize_offline", lambda *a, **given: used.update(compile=given))
    one.open(tmp_path / "x", model, 4, device, log=tmp_path / "log", lease_fds=(7,))
    one.compile(
        tmp_path / "x", model, 4, tmp_path, device=device, log=tmp_path / "log", lease_fds=(7,)
    )
    for given in used.values():
        assert given["env"][VISIBLE] == "1"  # which is its device 0
        assert given["pass_fds"] == (7,)
    ((_, options),) = used["run"]["options"]["providers"]
    assert options["device_id"] == "0"


@pytest.mark.parametrize(
    "about",
    [{"gpus": ()}, {"gpus": ("nonsense",)}, {"code": 9}, {"device": "7"}],
    ids=["none", "nonsense", "failing", "another id"],
)
def test_no_gpu_is_an_error_of_the_device(tmp_path, about):
    with pytest.raises(DeviceError):
        target(tmp_path, **about).devices()


def test_a_tool_that_hangs_or_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "SMI_DEADLINE_S", 1.0)
    with pytest.raises(DeviceError, match="deadline"):
        target(tmp_path, hang=True, factor=0.5).devices()
    bare = CudaTarget(resolve({"target": "cuda"}, environment={}), {"PATH": ""})
    with pytest.raises(DeviceError, match="no nvidia-smi"):
        bare.devices()


def test_a_process_of_somebody_else_makes_a_gpu_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "is_ours", lambda pid: pid == os.getpid())
    session = object()
    device = Device("cuda", 0, "Tesla T4", "gpu-0")
    own, other = f"GPU-aaaa, {os.getpid()}", f"GPU-aaaa, {os.getppid()}"
    elsewhere = f"GPU-bbbb, {os.getppid()}"
    assert target(tmp_path).look(device, "before", 0, None).busy == "no"
    assert target(tmp_path, apps=(own, elsewhere)).look(device, "during", 1, session).busy == "no"
    found = target(tmp_path, apps=(own, other)).look(device, "during", 1, session)
    assert found.busy == "yes"
    assert str(os.getppid()) in found.note
    assert (found.temperature_c, found.power_w) == (41.0, 27.3)
    with pytest.raises(DeviceError, match="no longer"):
        target(tmp_path).look(Device("cuda", 3, "x", "gpu-3"), "after", 1, None)


@pytest.fixture
def tiny_onnx(tmp_path):
    text = "relu (float[1, 3] image) => (float[1, 3] class) { class = Relu(image) }"
    return onnx_files.write(tmp_path / "model.onnx", text)


def test_a_runtime_without_the_provider_is_refused_and_never_falls_back(tmp_path, tiny_onnx):
    """The plain onnxruntime of the tests has no CUDA provider: it must not run on the CPU."""
    model = load_catalog(TINY).models["tiny"]
    one = target(tmp_path)
    with pytest.raises(CompileError, match="CUDAExecutionProvider"):
        one.compile(tiny_onnx, model, 1, tmp_path, device=None, log=tmp_path / "log")
    with pytest.raises(LoadError, match="CUDAExecutionProvider"):
        one.open(
            tiny_onnx, model, 1, one.devices()[0], log=tmp_path / "log", lease_fds=()
        )  # fmt: skip


def test_a_run_without_a_gpu_says_what_is_missing(run_pytest):
    done = run_pytest("-m", "throughput", "--target=cuda")
    assert done.code == 4
    assert "requirements/cuda.txt" in done.output


def test_a_package_with_the_name_of_another_is_found(monkeypatch):
    versions = {"onnxruntime": "1.2", "onnxruntime-gpu": "1.2"}
    monkeypatch.setattr(provider, "_version", lambda name: versions.get(name, ""))
    *_, found = provider._findings(resolve({}, environment={}))
    assert (found.state, "both are one module" in found.found) == ("lacks", True)
