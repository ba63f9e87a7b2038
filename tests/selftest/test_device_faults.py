"""Faults that look like a device's: which ones take a device from a run, and which do not."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from harness.base import processes
from harness.base.errors import DeviceError, HarnessError, InferError, LoadError
from harness.catalog.load import load_catalog
from harness.measure import attempt as measuring
from harness.plan import Case
from harness.records.observed import Observed
from harness.settings import resolve
from harness.simulator.host import Host
from harness.targets.ascend import atc, faults
from harness.targets.ascend.npu_smi import NpuSmi
from harness.targets.cuda.target import CudaTarget
from harness.targets.pool import DevicePool
from harness.targets.protocol import Device, DeviceFault, SessionInfo, TensorSpec
from tests.selftest.fakes import Devices, workbench
from tests.selftest.planted.graphs import small_onnx
from tests.selftest.running import TINY
from tests.selftest.simulated import ascend_target as target

NPU = Device("ascend310p3", 0, "Ascend310P3", "npu-0")


# What a runtime says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "certain"),
    [
        (InferError("x", log="EL0003: open device 0 failed, runtime result = 507033"), True),
        (InferError("x", log="EL0003: the argument is invalid"), True),
        (InferError("x", log="runtime result = 507033"), True),
        (LoadError("model.om: acl open device 0 failed"), True),
        (LoadError("x", log="[ERROR] acl init failed\nRuntimeError: [1][ACL: x]"), True),
        # A model's own doing may end so.
        (InferError("x", log="model stream execute failed, runtime result = 507011"), False),
        (InferError("x", log="aicore exception, runtime result = 507015"), False),
        (InferError("x: the device is lost"), False),
        (InferError("x: drv is not ready"), False),
        (InferError("x", hung=True), False),
        # And this is nobody else's: too large a model, a fault of its collective operators.
        (LoadError("x", log="EL0004: alloc memory failed"), None),
        (LoadError("x", log="EI0002: notify wait timed out"), None),
    ],
)
def test_a_model_can_cause_most_of_what_a_runtime_says(tmp_path, error, certain):
    found = target(tmp_path).device_fault(error, NPU)
    assert (found.certain if found else None) is certain


@pytest.mark.parametrize("kind", [InferError, LoadError])
def test_a_tool_that_hangs_may_be_the_devices_doing(tmp_path, kind):
    done = processes.run(["sleep", "600"], deadline_s=0.1, log=tmp_path / "log")
    with pytest.raises(kind) as caught:
        faults.raise_for(done, "model.om: ais_bench", 0, kind)
    assert target(tmp_path).device_fault(caught.value, NPU) == DeviceFault(
        "it did not answer", certain=False
    )


@pytest.mark.parametrize(
    ("text", "index", "certain", "words"),
    [
        # What npu-smi says of the device counts, whatever the runtime says.
        ("cards=2,fault=unhealthy:0", 0, True, "npu-smi"),
        ("cards=1", 5, True, "npu-smi"),
        # One that fails says nothing of one device.
        ("fault=npu-smi-fails", 0, False, "-8005"),
    ],
)
def test_npu_smi_is_asked_of_a_device_that_may_be_at_fault(tmp_path, text, index, certain, words):
    device = Device("ascend310p3", index, "Ascend310P3", f"npu-{index}")
    fault = target(tmp_path, text).device_fault(InferError("x", log="result = 507015"), device)
    assert fault and fault.certain is certain
    assert words in fault.why


@pytest.mark.parametrize(
    ("text", "certain"),
    [
        ("CUDA failure 999: unknown error", True),
        ("CUDA failure 214: uncorrectable ECC error encountered", True),
        ("CUDA failure 700: an illegal memory access was encountered", False),
        ("CUDNN failure 4: CUDNN_STATUS_INTERNAL_ERROR", False),
        ("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED", False),
        ("CUDA failure 2: out of memory", None),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", None),
        ("INVALID_ARGUMENT", None),
    ],
)
def test_a_model_that_is_too_large_takes_no_gpu_from_a_run(tmp_path, monkeypatch, text, certain):
    gpu = {"index": "0", "name": "Tesla T4"}
    monkeypatch.setattr(CudaTarget, "_gpus", lambda self: [gpu])
    one = CudaTarget(resolve({"target": "cuda"}, environment={}), {})
    error = InferError(f"model.onnx: Fail: {text}")
    found = one.device_fault(error, Device("cuda", 0, "Tesla T4", "gpu-0"))
    assert (found.certain if found else None) is certain
    gone = one.device_fault(error, Device("cuda", 1, "Tesla T4", "gpu-1"))
    assert (gone.certain if gone else None) is (None if certain is None else True)


# What comes of it ----------------------------------------------------------------------------


class Failing(HarnessError):
    """How a device fails: as itself, perhaps as itself, or (None) as a model does."""

    def __init__(self, certain):
        super().__init__(f"it failed, certain={certain}")
        self.certain = certain


class Faulty(Devices):
    """Single chips that fail as an error says."""

    def device_fault(self, error, device):
        certain = getattr(error, "certain", None)
        return None if certain is None else DeviceFault("it was odd", certain)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measure a case on devices that do in turn as `does` says: an error, or a verdict."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def measure(*does):
        devices: Any = Faulty(*[1] * len(does))
        pool = DevicePool(devices, tmp_path / "leases", tmp_path / "run", print)
        case: Any = SimpleNamespace(
            bench=SimpleNamespace(target=devices, pool=pool, progress=SimpleNamespace(note=print)),
            case=SimpleNamespace(name="the case", check="accuracy"),
            observed=Observed(),
            device=None,
        )

        def attempt(case, prepared, without):
            case.device = None
            with pool.for_case("accuracy", "the case", without) as (case.device, _):
                answer = does[case.device.index]
                if isinstance(answer, HarnessError):
                    raise answer
                return answer

        monkeypatch.setattr(measuring, "_attempt", attempt)
        prepared: Any = None
        answer: Any
        try:
            answer = measuring._on_one_device_or_two(case, prepared)
        except HarnessError as error:
            answer = error
        return answer, sorted(pool.set_aside()), [one.device for one in case.observed.attempts]

    return measure


CERTAINLY, PERHAPS, AS_A_MODEL = Failing(True), Failing(False), Failing(None)


@pytest.mark.parametrize(
    ("devices", "answer", "aside"),
    [
        # A device that failed itself is set aside, and so is one that did not do what another did.
        ((CERTAINLY, "PASS"), "PASS", ["npu-0"]),
        ((PERHAPS, "PASS"), "PASS", ["npu-0"]),
        # The only device is used again where the model may be at fault.
        ((PERHAPS,), Failing, []),
        ((CERTAINLY,), Failing, ["npu-0"]),
        # A bad model takes no device from a run, which has a third.
        ((PERHAPS, PERHAPS, "PASS"), Failing, []),
        ((CERTAINLY, CERTAINLY, "PASS"), DeviceError, ["npu-0", "npu-1"]),
        # Only the device that failed itself is set aside, whichever it is.
        ((PERHAPS, CERTAINLY, "PASS"), DeviceError, ["npu-1"]),
        ((CERTAINLY, PERHAPS, "PASS"), Failing, ["npu-0"]),
        # A model that fails elsewhere as models do clears the device.
        ((PERHAPS, AS_A_MODEL), Failing, []),
        ((AS_A_MODEL, "PASS"), Failing, []),
    ],
)
def test_what_becomes_of_devices_that_fail(measured, devices, answer, aside):
    got, set_aside, attempts = measured(*devices)
    assert got == answer if isinstance(answer, str) else isinstance(got, answer)
    assert set_aside == attempts == aside
    if answer is DeviceError:  # the remedy names those that were set aside
        assert got.remedy.endswith(", ".join(aside))


@pytest.mark.parametrize(
    ("number", "answers", "tried", "aside", "alone"),
    [
        # What others send speaks against no device; it is tried again, also on the only one.
        (signal.SIGKILL, ("PASS",), [(), ("npu-0",)], [], 1),
        (signal.SIGTERM, ("PASS",), [(), ()], [], 1),
        (signal.SIGKILL, (), [(), ()], [], 1),
        # A crash is tried on another device, which then tells.
        (signal.SIGSEGV, ("PASS",), [(), ("npu-0",)], ["npu-0"], 0),
        (signal.SIGSEGV, (), [()], [], 0),
    ],
)
def test_a_device_worker_that_dies_is_tried_once_more(
    tmp_path, monkeypatch, number, answers, tried, aside, alone
):
    devices: Any = Devices(*[1] * (2 if ("npu-0",) in tried else 1))
    devices.device_fault = lambda error, device: None
    notes: list[str] = []
    case = workbench(tmp_path, rehearsal=True).for_case(Case("tiny", 4, "cpu", "accuracy"))
    case.bench.progress = SimpleNamespace(note=notes.append)  # type: ignore[assignment]
    case.bench.target = devices
    case.bench.pool = DevicePool(devices, tmp_path / "leases", tmp_path / "run", print)
    left = [*answers, InferError("the worker died", signal=number)]
    seen: list[tuple[str, ...]] = []
    alone_then: list[bool] = []

    def attempt(case, prepared, without):
        case.device = devices.all[len(without)]
        seen.append(tuple(without))
        alone_then.append(case.alone)
        answer = left.pop() if len(left) > 1 else left[0]
        if isinstance(answer, HarnessError):
            raise answer
        return answer

    monkeypatch.setattr(measuring, "_attempt", attempt)
    prepared: Any = None
    with contextlib.nullcontext() if answers else pytest.raises(InferError) as caught:
        verdict: Any = measuring._on_one_device_or_two(case, prepared)
        assert verdict == "PASS"
    assert caught is None or "alike" not in caught.value.message
    assert seen == tried and sorted(case.bench.pool.set_aside()) == aside
    assert alone_then == [False] * (len(tried) - alone) + [True] * alone and not case.alone


@pytest.mark.parametrize(
    ("second", "words"),
    [(PERHAPS, "npu-0 and npu-1 alike: the model or the toolchain"), (AS_A_MODEL, "on npu-0 too")],
)
def test_the_error_says_what_the_other_device_did(measured, second, words):
    error, _, _ = measured(Failing(False), Failing(second.certain))
    assert words in error.message


# A chip that rests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "fault", "throttled"),
    [
        (False, "", "unknown"),  # it clocks down, and the table before showed it at work
        (True, "", "no"),
        (True, ",fault=throttled", "yes"),
    ],
)
def test_a_low_clock_means_nothing_where_the_chip_rests(
    tmp_path, monkeypatch, running, fault, throttled
):
    one = target(tmp_path, "cards=1" + fault)
    info = NpuSmi.info

    def at_work(self):
        found = info(self)
        chips = tuple(dataclasses.replace(chip, aicore_percent=87.0) for chip in found.chips)
        return dataclasses.replace(found, chips=chips)

    monkeypatch.setattr(NpuSmi, "info", at_work)
    session = Host.load(one.toolkit.env).register(0)
    try:
        session.running(running)
        busy: Any = object()
        seen = one.look(NPU, "during", 1.0, busy)
    finally:
        session.close()
    assert seen.throttled == throttled
    assert ("throttled" in seen.trouble) == (throttled == "yes")


# Chips that nobody counted -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "chips"), [("", 1), ("chips_per_card=2", 2), ("without=npu-smi", None)]
)
def test_chips_are_counted_by_npu_smi_or_not_at_all(tmp_path, text, chips):
    session = SimpleNamespace(about=SessionInfo("api"), inputs=[TensorSpec("x", (1,), "float32")])
    assert target(tmp_path, text, device="0").setup(NPU, {}, session).chips == chips


# Tuning --------------------------------------------------------------------------------------


def tuned_model(folder):
    """The tiny model where its guide tunes batch size 4."""
    catalog = folder / "tuned.yaml"
    section = '    ascend:\n      auto_tune: {mode: "RL,GA", batch_sizes: [4]}\n'
    catalog.write_text(TINY.read_text() + section)
    return load_catalog(catalog).models["tiny"]


@pytest.mark.parametrize(
    ("tune", "text", "device", "expected"),
    [
        ("guide", "", None, True),
        ("aoe", "", None, True),
        ("none", "", None, False),
        ("guide", "without=npu-smi", None, False),  # a host that only builds has nothing to lease
        ("guide", "cards=0", None, False),
        ("guide", "without=npu-smi", "3", True),
        ("aoe", "without=npu-smi", None, True),
    ],
)
def test_a_device_is_leased_wherever_something_could_tune_on_it(
    tmp_path, tune, text, device, expected
):
    given = {} if device is None else {"device": device}
    one, model = target(tmp_path, text, tune=tune, **given), tuned_model(tmp_path)
    assert one.compiles_on_device(model, 4) is expected
    assert not one.compiles_on_device(model, 1)


@pytest.mark.parametrize(("cann", "refused"), [("5.1.RC2", False), ("8.0.RC2", True)])
def test_an_atc_that_tunes_no_more_takes_no_device_again(tmp_path, cann, refused):
    model = tuned_model(tmp_path)
    graph = small_onnx(tmp_path / "x.onnx", batch=4, side=64, classes=1000)
    one, later = (target(tmp_path, f"cann={cann}", tune="guide") for _ in range(2))
    assert one.compiles_on_device(model, 4)
    one.compile(graph, model, 4, tmp_path, device=NPU, log=tmp_path / "log")
    assert later.compiles_on_device(model, 4) is not refused  # another process of the run


@pytest.mark.parametrize("tuned", [True, False])
def test_atc_tunes_on_the_leased_device(tmp_path, monkeypatch, tuned):
    seen: list[atc.Compilation] = []

    def into(self, output_dir):
        seen.append(self)
        return atc.Compiled(output_dir / "model.om", "none", "")

    monkeypatch.setattr(atc.Compilation, "into", into)
    model = tuned_model(tmp_path)
    device = Device("ascend310p3", 2, "Ascend310P3", "npu-2") if tuned else None
    target(tmp_path, "cards=3,cann=5.1.RC2").compile(
        tmp_path / "x.onnx", model, 4 if tuned else 1, tmp_path, device=device, log=tmp_path / "log"
    )
    assert seen[0].device_id == (2 if tuned else None)
    assert seen[0].tune == ("guide" if tuned else "none")
