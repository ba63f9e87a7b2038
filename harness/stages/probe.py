"""Stage PROBE: what the simplified ONNX file makes of a few generated images.

Outputs of the compiled model are compared with it, so that a fast wrong model cannot pass. The
images are a rehearsal's, through the model's own preprocessing: for noise a network gives much the
same outputs whatever its channels are, and nearly those of any other noise (docs/judging.md).
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
from harness.catalog.steps import Preprocessing
from harness.images import generated, preprocess
from harness.stages.context import CaseContext
from harness.stages.inference import outputs_of
from harness.stages.onnx_file import FILE
from harness.targets.host import open_onnx
from harness.targets.protocol import Float32

SEED = 22
LEAST = 2  # images: of one alone nobody sees that the outputs are another's


@dataclass(frozen=True)
class Probe:
    """Crops `uint8[N, S, S, 3]` of generated images, N a multiple of the batch size, and the
    simplified file's outputs `float32[N, C]` for them.
    """

    case: CaseContext
    simplified: Entry
    stage: ClassVar[Stage] = Stage.PROBE

    def inputs(self) -> Mapping[str, Any]:
        return {
            "simplified": self.simplified.digest,
            "batch_size": self.case.case.batch_size,
            "seed": SEED,
            "preprocessing": self.case.model.preprocessing.model_dump(),
            "processor": processor()[1],
            "threads": self.case.bench.threads,
            "recipe": source_digest(
                "harness.stages.probe",
                "harness.stages.inference",
                "harness.targets.worker",
                "harness.images.generated",
                "harness.images.preprocess",
                "harness.catalog.steps",
            ),
            "pillow": required_version("pillow"),
            "numpy": required_version("numpy"),
            "onnxruntime": required_version("onnxruntime"),
        }

    def build(self, staging: Path) -> str:
        case = self.case
        with case.share_host("the output check") as lease:
            crops = draw(case.model.preprocessing, case.case.batch_size)
            # The graph as it is, not as the target's compiler changed it.
            session = open_onnx(
                self.simplified.file(FILE),
                log=case.log_path(Stage.PROBE),
                lease_fds=lease.fds,
                factor=case.bench.settings.deadline_factor,
                threads=case.bench.threads,
                batch_size=case.case.batch_size,
            )
            with contextlib.closing(session):
                outputs = outputs_of(session, case.images_for(session.inputs[0], crops))
        np.save(staging / "crops.npy", crops, allow_pickle=False)
        np.save(staging / "outputs.npy", outputs, allow_pickle=False)
        return ""

    @staticmethod
    def read(entry: Entry) -> tuple[preprocess.UInt8, Float32]:
        """Return what the store keeps: the crops and their outputs."""
        crops, outputs = (
            np.load(entry.file(name), allow_pickle=False) for name in ("crops.npy", "outputs.npy")
        )
        return crops, outputs


def draw(steps: Preprocessing, batch_size: int) -> preprocess.UInt8:
    """Return the crops `uint8[N, S, S, 3]`: whole batches, and at least `LEAST` images."""
    slots = generated.label_slots(-(-LEAST // batch_size) * batch_size, SEED)
    return np.stack(
        [
            preprocess.crop(generated.make_image(SEED, index, slot, "landscape"), steps)
            for index, slot in enumerate(slots)
        ]
    )
