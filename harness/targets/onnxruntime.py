"""The `cpu` target: ONNX Runtime's offline-optimised model on the host's processor.

Its compiled file is the graph after ONNX Runtime's own optimisation, saved once and opened with
optimisation off. The layout is made for one machine: the processor's features are in its key.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import jobs
from harness.artifacts.store import source_digest
from harness.errors import CompileError
from harness.targets import sessions
from harness.targets.protocol import Device, Session

COMPILE_DEADLINE_S = 600.0


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def processor() -> tuple[str, str]:
    """Name of the processor and a digest of its features (`/proc/cpuinfo`)."""
    name, features = platform.processor() or platform.machine(), ""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        field, _, value = line.partition(":")
        field = field.strip().lower()
        if field in ("model name", "hardware") and value.strip():
            name = value.strip()
        if field in ("flags", "features") and not features:
            features = " ".join(sorted(value.split()))
        if not line.strip() and features:
            break
    digest = hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:16]
    return name, digest


class CpuTarget:
    """ONNX Runtime on the CPU: the rehearsal's target, and a check for hosts without an NPU."""

    name = "cpu"
    # float32 against float32: the five stand-ins differ by 4e-7 to 3e-4, the slightest mistake in
    # preprocessing (another green channel's std) by 6e-3 on the least sensitive of them.
    fidelity_bound = 1e-3

    def __init__(self, deadline_factor: float = 1.0) -> None:
        self._factor = deadline_factor

    def identity(self) -> Mapping[str, Any]:
        name, features = processor()
        return {
            "target": self.name,
            "onnxruntime": metadata.version("onnxruntime"),
            "architecture": platform.machine(),
            "processor": name,
            "processor_features": features,
        }

    def devices(self) -> Sequence[Device]:
        return (Device(target=self.name, index=0, name=processor()[0], group="host"),)

    def compile_inputs(self) -> Mapping[str, Any]:
        return {
            **self.identity(),
            "optimization": "all",
            "recipe": source_digest("harness.targets.onnxruntime"),
        }

    def compile(self, onnx: Path, batch_size: int, output_dir: Path, *, log: Path) -> Path:
        output = output_dir / "model.ort.onnx"
        jobs.call(
            "harness.targets.onnxruntime:optimize",
            {"source": str(onnx), "output": str(output)},
            deadline_s=COMPILE_DEADLINE_S * self._factor,
            log=log,
            error=CompileError,
            what=f"ONNX Runtime's optimisation at batch size {batch_size}",
        )
        return output

    def open(self, file: Path, device: Device, *, log: Path, lease_fds: Sequence[int]) -> Session:
        return sessions.open_session(
            file,
            backend="onnxruntime",
            options={"threads": cores()},
            log=log,
            deadline_open_s=120.0 * self._factor,
            deadline_run_s=300.0 * self._factor,
            pass_fds=lease_fds,
        )


def optimize(*, source: str, output: str) -> dict[str, Any]:
    """Job: write ONNX Runtime's optimised graph of `source` to `output`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = output
    options.log_severity_level = 3  # the warning that the file fits this machine: it is in the key
    try:
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise CompileError(f"ONNX Runtime refuses the model: {lines[0]}") from error
    if not Path(output).is_file() or not Path(output).stat().st_size:
        raise CompileError("ONNX Runtime wrote no optimised model")
    return {"bytes": Path(output).stat().st_size}
