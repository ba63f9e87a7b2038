"""The `cuda` target: ONNX Runtime's CUDA provider, as guide 001 measured its T4.

A fallback to the CPU is an error when the model is compiled and when it is opened: ONNX Runtime
itself only warns. Each GPU is used by a process that sees no other. Times are those of
`session.run`, copies to and from the GPU included, as in the guide. Needs `requirements/cuda.txt`
in place of the plain onnxruntime, whose module it replaces.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.base import processes, scratch
from harness.base.errors import DeviceError, HarnessError
from harness.base.store import source_digest
from harness.catalog.schema import Model
from harness.records.conditions import Condition, Moment, Setup
from harness.records.measurements import Scalar
from harness.settings import Settings
from harness.targets import sessions
from harness.targets.cpu.target import optimize_offline
from harness.targets.devices import strangers, visible_ids
from harness.targets.protocol import Device, DeviceFault, Session, Target, Traits

VISIBLE = "CUDA_VISIBLE_DEVICES"
PROVIDER = "CUDAExecutionProvider"
COMPILE_DEADLINE_S = 600.0
SMI_DEADLINE_S = 60.0
_FIELDS = ("index", "name", "driver_version", "temperature.gpu", "power.draw", "uuid")
_FAILURE = re.compile(r"\b(CUDA|CUBLAS|CUDNN) failure (\d{1,9})\b")
_MEMORY = re.compile(r"\bCUDA failure 2\b|out of memory|_ALLOC(ATION)?_FAILED\b")
# CUDA's error codes: no initialisation, no or another device, uncorrectable memory, unknown.
_LOST = frozenset({3, 46, 100, 101, 214, 999})
# float32 as it is: TensorFloat-32 would give three digits of a logit away, unasked.
_OPTIONS = {"use_tf32": "0"}


class CudaTarget(Target):
    """NVIDIA GPUs."""

    name = "cuda"
    traits = Traits(fidelity_bound=1e-3)

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._factor = settings.deadline_factor
        self._environment = {
            **(os.environ if environment is None else environment),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # nvidia-smi's order
        }
        visible = visible_ids(self._environment, VISIBLE)
        self._wanted = settings.device if settings.device is not None else visible

    def _showing(self, index: int) -> Mapping[str, str]:
        """The environment of a process whose device 0 is this GPU."""
        return {**self._environment, VISIBLE: str(index)}

    def _query(self, what: str, fields: Sequence[str]) -> list[list[str]]:
        program = shutil.which("nvidia-smi", path=self._environment.get("PATH"))
        if program is None:
            raise DeviceError(
                "no nvidia-smi is on this host: nothing says which GPU there is",
                remedy="install NVIDIA's driver, or choose another --target",
            )
        with scratch.folder("smi") as folder:
            done = processes.run(
                [program, f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"],
                deadline_s=SMI_DEADLINE_S * self._factor,
                log=folder / "log",
                env=self._environment,
            )
            text = done.output()
        if not done.ok:
            raise DeviceError(f"no GPU can be asked for: {done.describe()}", log=text[-4000:])
        rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
        return [row for row in rows if len(row) == len(fields)]

    def _gpus(self) -> list[dict[str, str]]:
        gpus = [dict(zip(_FIELDS, row, strict=True)) for row in self._query("gpu", _FIELDS)]
        return [one for one in gpus if one["index"].isascii() and one["index"].isdigit()]

    def _mine(self) -> list[dict[str, str]]:
        wanted = self._wanted
        return [gpu for gpu in self._gpus() if wanted is None or int(gpu["index"]) in wanted]

    def identity(self) -> Mapping[str, Scalar]:
        known: dict[str, Scalar] = {"target": self.name, "onnxruntime": _onnxruntime()}
        try:
            gpus = self._mine()
        except DeviceError:
            return known
        if gpus:
            # A compiled model may be used on each of them.
            names = sorted({gpu["name"] for gpu in gpus})
            known |= {"chip": ", ".join(names), "driver": gpus[0]["driver_version"]}
        return known

    def devices(self) -> Sequence[Device]:
        devices = tuple(
            Device(self.name, int(gpu["index"]), gpu["name"], f"gpu-{gpu['index']}")
            for gpu in self._mine()
        )
        if not devices:
            asked = "" if self._wanted is None else f" with the ids of --device or ${VISIBLE}"
            raise DeviceError(f"nvidia-smi shows no GPU{asked}", remedy="nvidia-smi lists the ids")
        return devices

    def compiles_on_device(self, model: Model, batch_size: int) -> bool:
        return True  # the provider opens the GPU, also to write a file

    def compile_inputs(self, model: Model, batch_size: int) -> Mapping[str, Any]:
        return {
            **self.identity(),
            "provider_options": _OPTIONS,
            "optimization": "all",
            "recipe": source_digest("harness.targets.cpu.target", "harness.targets.cuda.target"),
        }

    def compile(
        self,
        onnx: Path,
        model: Model,
        batch_size: int,
        output_dir: Path,
        *,
        device: Device | None,
        log: Path,
        lease_fds: Sequence[int] = (),
    ) -> Mapping[str, str]:
        optimize_offline(
            onnx,
            output_dir,
            [[PROVIDER, _OPTIONS]],
            deadline_s=COMPILE_DEADLINE_S * self._factor,
            log=log,
            what=f"{model.id} at batch size {batch_size}",
            pass_fds=lease_fds,
            env=None if device is None else self._showing(device.index),
        )
        return {}

    def open(
        self,
        file: Path,
        model: Model,
        batch_size: int,
        device: Device,
        *,
        log: Path,
        lease_fds: Sequence[int],
    ) -> Session:
        return sessions.open_session(
            file,
            backend="onnxruntime",
            options={"providers": [[PROVIDER, {**_OPTIONS, "device_id": "0"}]]},
            log=log,
            deadline_open_s=300.0 * self._factor,
            deadline_run_s=120.0 * self._factor,
            pass_fds=lease_fds,
            env=self._showing(device.index),
        )

    def look(
        self, device: Device, moment: Moment, seconds: float, session: Session | None
    ) -> Condition:
        gpu = next((one for one in self._gpus() if int(one["index"]) == device.index), None)
        if gpu is None:
            raise DeviceError(f"{device.id} is no longer among nvidia-smi's GPUs")
        apps = self._query("compute-apps", ("gpu_uuid", "pid"))
        pids = [pid for uuid, pid in apps if uuid == gpu["uuid"]]
        ids = [(int(pid) if pid.isdecimal() else None,) for pid in pids]
        others = [pids[at] for at in strangers(ids, measuring=session is not None)]
        return Condition(
            moment,
            seconds,
            busy="yes" if others else "no",
            temperature_c=_number(gpu["temperature.gpu"]),
            power_w=_number(gpu["power.draw"]),
            note=f"process {', '.join(others[:3])}" if others else "",
        )

    def setup(self, device: Device, facts: Mapping[str, str], session: Session) -> Setup:
        return Setup(
            driver="onnxruntime",
            chip=device.name,
            card=device.name,
            chips=1,  # a T4, which the figures are of, is one
            toolchain=f"ONNX Runtime {_onnxruntime()}",
        )

    def device_fault(self, error: HarnessError, device: Device) -> DeviceFault | None:
        if isinstance(error, DeviceError):
            return DeviceFault(error.message)
        text = f"{error.message}\n{error.log}"
        failure = _FAILURE.search(text)
        # A model that needs more memory than there is needs it on every GPU.
        if failure is None or _MEMORY.search(text):
            return None
        library, code = failure.groups()
        why = f"the runtime says '{failure[0]}'"
        if library == "CUDA" and int(code) in _LOST:
            return DeviceFault(why)
        try:
            there = any(int(gpu["index"]) == device.index for gpu in self._gpus())
        except DeviceError as trouble:
            return DeviceFault(trouble.message, certain=False)
        if not there:
            return DeviceFault("nvidia-smi no longer shows it")
        return DeviceFault(why, certain=False)  # a kernel that fails may be the model's doing


def _onnxruntime() -> str:
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return f"{metadata.version(name)} ({name})"
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None
