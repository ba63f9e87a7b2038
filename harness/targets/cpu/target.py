"""The `cpu` target: ONNX Runtime's offline-optimised model on the host's processor.

Its compiled file is the graph after ONNX Runtime's own optimisation, saved once and opened with
optimisation off. The layout is made for one machine: the processor's features are in its key.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.base import jobs
from harness.base.errors import CompileError
from harness.base.host import processor
from harness.base.store import source_digest
from harness.catalog.schema import Model
from harness.records.conditions import Setup
from harness.records.measurements import Scalar
from harness.targets import host
from harness.targets.protocol import Device, Session, Target, Traits

COMPILE_DEADLINE_S = 600.0


class CpuTarget(Target):
    """ONNX Runtime on the CPU: the rehearsal's target, and a check for hosts without an NPU."""

    name = host.NAME
    # float32 against float32: the five stand-ins differ by 4e-7 to 3e-4, the slightest mistake in
    # preprocessing (another green channel's std) by 6e-3 on the least sensitive of them.
    traits = Traits(fidelity_bound=1e-3, runs_on_host=True)

    def __init__(self, deadline_factor: float = 1.0, threads: int | None = None) -> None:
        self._factor = deadline_factor
        self._threads = threads  # of a session; None: all cores

    def on_one_thread(self) -> CpuTarget:
        return CpuTarget(self._factor, threads=1)

    def identity(self) -> Mapping[str, Scalar]:
        name, features = processor()
        return {
            "target": self.name,
            "onnxruntime": metadata.version("onnxruntime"),
            "architecture": platform.machine(),
            "processor": name,
            "processor_features": features,
        }

    def devices(self) -> Sequence[Device]:
        return (host.device(),)

    def compile_inputs(self, model: Model, batch_size: int) -> Mapping[str, Any]:
        return {
            **self.identity(),
            "optimization": "all",
            "recipe": source_digest("harness.targets.cpu.target"),
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
            ["CPUExecutionProvider"],
            deadline_s=COMPILE_DEADLINE_S * self._factor,
            log=log,
            what=f"{model.id} at batch size {batch_size}",
            pass_fds=lease_fds,
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
        return host.open_onnx(
            file, log=log, lease_fds=lease_fds, factor=self._factor, threads=self._threads
        )

    def setup(self, device: Device, facts: Mapping[str, str], session: Session) -> Setup:
        return Setup(
            driver="onnxruntime",
            chip=device.name,
            toolchain=f"ONNX Runtime {metadata.version('onnxruntime')}",
        )


def optimize_offline(
    onnx: Path,
    output_dir: Path,
    providers: Sequence[Any],
    *,
    deadline_s: float,
    log: Path,
    what: str,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> None:
    """Write ONNX Runtime's optimised graph for `providers` to `output_dir/model.ort.onnx`, in a
    child with the environment `env`. Raises `CompileError`: ONNX Runtime refuses the model, or fell
    back from the first provider.
    """
    output = str(output_dir / "model.ort.onnx")
    jobs.call(
        "harness.targets.cpu.target:optimize",
        {"source": str(onnx), "output": output, "providers": list(providers)},
        deadline_s=deadline_s,
        log=log,
        error=CompileError,
        what=f"ONNX Runtime's optimisation of {what}",
        pass_fds=pass_fds,
        env=env,
    )


def optimize(*, source: str, output: str, providers: Sequence[Any]) -> dict[str, Any]:
    """Job: write ONNX Runtime's optimised graph of `source` to `output`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = output
    options.log_severity_level = 3  # the warning that the file fits this machine: it is in the key
    wanted = [one if isinstance(one, str) else (one[0], one[1]) for one in providers]
    first = wanted[0] if isinstance(wanted[0], str) else wanted[0][0]
    try:
        session = onnxruntime.InferenceSession(source, options, providers=wanted)
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise CompileError(f"ONNX Runtime refuses the model: {lines[0]}") from error
    if first not in session.get_providers():
        raise CompileError(
            f"ONNX Runtime {onnxruntime.__version__} fell back from {first} to "
            + ", ".join(session.get_providers()),
            remedy="the log says which library it could not load; requirements/ holds a file for "
            "each onnxruntime",
        )
    if not Path(output).is_file() or not Path(output).stat().st_size:
        raise CompileError("ONNX Runtime wrote no optimised model")
    return {"bytes": Path(output).stat().st_size}
