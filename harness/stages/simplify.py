"""Stage SIMPLIFY: the ONNX file at one fixed batch size, by onnxsim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.base.errors import SimplifyError
from harness.base.host import required_version
from harness.base.stages import Stage
from harness.base.store import Entry, source_digest
from harness.base.text import first_line
from harness.stages.onnx_file import (
    FILE,
    Tensors,
    check_onnx,
    require_same,
    run_onnx,
)

if TYPE_CHECKING:  # the job below runs in a child process that needs none of these
    from harness.stages.context import CaseContext


@dataclass(frozen=True)
class Simplify:
    """The exported file, simplified at the case's batch size: `model.onnx`."""

    case: CaseContext
    exported: Entry
    stage: ClassVar[Stage] = Stage.SIMPLIFY

    def inputs(self) -> Mapping[str, Any]:
        return {
            "onnx": self.exported.digest,
            "batch_size": self.case.case.batch_size,
            "simplify": self.case.model.simplify,
            "onnxsim": required_version("onnxsim"),
            "onnxruntime": required_version("onnxruntime"),  # onnxsim folds constants with it
            "onnx_version": required_version("onnx"),
            **self.case.tensors,
            "recipe": source_digest("harness.stages.simplify", "harness.stages.onnx_file"),
        }

    def build(self, staging: Path) -> str:
        return self.case.job(
            Stage.SIMPLIFY,
            "harness.stages.simplify:simplify_onnx",
            {
                "source": str(self.exported.file(FILE)),
                "tensors": self.case.tensors,
                "batch_size": self.case.case.batch_size,
                "dynamic": self.case.model.simplify == "dynamic-batch",
                "output": str(staging / FILE),
            },
            SimplifyError,
            600.0,
        )


def simplify_onnx(
    *, source: str, tensors: Tensors, batch_size: int, output: str, dynamic: bool = False
) -> dict[str, Any]:
    """Simplify at one fixed batch size (a model simplified at one cannot be used at another).

    `dynamic`: with the batch axis left open, and fixed after that: only the tensors' shapes say
    which batch size the file is for.

    Raises `SimplifyError`: onnxsim failed, or the result computes something else.
    """
    import numpy as np
    import onnx
    import onnxsim

    input_name, shape = tensors["input_name"], [batch_size, 3, tensors["size"], tensors["size"]]
    try:
        model, same = onnxsim.simplify(
            onnx.load(source),
            overwrite_input_shapes={input_name: [-1 if dynamic else batch_size, *shape[1:]]},
        )
        if dynamic:
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = batch_size
            del model.graph.value_info[:]  # shapes between them, of an open batch axis
    except Exception as error:
        raise SimplifyError(
            f"onnxsim failed at batch size {batch_size}: {first_line(error)}",
            remedy="check that the ONNX file's input has a dynamic or equal batch axis",
        ) from error
    if not same:
        raise SimplifyError(f"onnxsim's own check failed at batch size {batch_size}")
    onnx.save(model, output)
    description = check_onnx(output, tensors, batch_size, SimplifyError)
    probe = np.random.default_rng(21).standard_normal(shape, np.float32)
    difference = require_same(
        run_onnx(output, input_name, probe),
        run_onnx(source, input_name, probe),
        SimplifyError,
        "the simplified model computes something else",
    )
    return {**description, "relative_l2": difference}
