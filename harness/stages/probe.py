"""Stage PROBE: what the simplified ONNX file makes of a seeded input.

Outputs of the compiled model are compared with it, so that a fast wrong model cannot pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness.base.host import processor, required_version
from harness.base.stages import Stage
from harness.base.store import Entry, source_digest
from harness.stages.context import CaseContext
from harness.stages.onnx_file import FILE
from harness.targets.host import open_onnx
from harness.targets.protocol import Float32

SEED = 22


@dataclass(frozen=True)
class Probe:
    """Outputs `float32[B, C]` of the simplified file for the seeded images."""

    case: CaseContext
    simplified: Entry
    stage: ClassVar[Stage] = Stage.PROBE

    def images(self) -> Float32:
        """Return the seeded input, `float32[B, 3, S, S]`."""
        size, batch_size = self.case.model.input.size, self.case.case.batch_size
        generator = np.random.default_rng(SEED)
        return generator.standard_normal((batch_size, 3, size, size), np.float32)

    def inputs(self) -> Mapping[str, Any]:
        return {
            "simplified": self.simplified.digest,
            "seed": SEED,
            "processor": processor()[1],
            "threads": self.case.bench.threads,
            "recipe": source_digest("harness.targets.worker"),
            "numpy": required_version("numpy"),
            "onnxruntime": required_version("onnxruntime"),
        }

    def build(self, staging: Path) -> str:
        case = self.case
        with case.share_host("the output check") as lease:
            # The graph as it is, not as the target's compiler changed it.
            session = open_onnx(
                self.simplified.file(FILE),
                log=case.log_path(Stage.PROBE),
                lease_fds=lease.fds,
                factor=case.bench.settings.deadline_factor,
                threads=case.bench.threads,
            )
            with contextlib.closing(session):
                (outputs,) = session.stream([self.images()])
        np.save(staging / "outputs.npy", outputs, allow_pickle=False)
        return ""

    def read(self, entry: Entry) -> tuple[Float32, Float32]:
        """Return the seeded input and the outputs that the store keeps."""
        return self.images(), np.load(entry.file("outputs.npy"), allow_pickle=False)
