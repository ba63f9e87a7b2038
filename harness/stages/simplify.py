"""Stage SIMPLIFY: the ONNX file at one fixed batch size, or open at all of them, by onnxsim."""

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
    FOREIGN,
    Tensors,
    check_onnx,
    require_same,
    run_onnx,
)

if TYPE_CHECKING:  # the job below runs in a child process that needs none of these
    from harness.stages.context import CaseContext


@dataclass(frozen=True)
class Simplify:
    """The exported file, simplified at the case's batch size, or for the several that one compiled
    file serves: `model.onnx`.
    """

    case: CaseContext
    exported: Entry
    stage: ClassVar[Stage] = Stage.SIMPLIFY

    def inputs(self) -> Mapping[str, Any]:
        return {
            "onnx": self.exported.digest,
            "batch_size": self.case.file_batch,
            "simplify": self.case.model.simplify,
            "onnxsim": required_version("onnxsim"),
            "onnxruntime": required_version("onnxruntime"),  # onnxsim folds constants with it
            "onnx_version": required_version("onnx"),
            **self.case.tensors,
            "recipe": source_digest("harness.stages.simplify", "harness.stages.onnx_file"),
        }

    def build(self, staging: Path) -> str:
        given = {
            "source": str(self.exported.file(FILE)),
            "tensors": self.case.tensors,
            "batch_size": self.case.file_batch,
            "output": str(staging / FILE),
        }
        function = "harness.stages.simplify:fix_batch_size"
        if FOREIGN not in self.exported.files:
            function = "harness.stages.simplify:simplify_onnx"
            given["dynamic"] = self.case.model.simplify == "dynamic-batch"
        return self.case.job(Stage.SIMPLIFY, function, given, SimplifyError, 600.0)


def fix_batch_size(
    *, source: str, tensors: Tensors, batch_size: int | None, output: str
) -> dict[str, Any]:
    """Write the file for a batch size, or open, and otherwise as it is: onnxsim and ONNX Runtime do
    not know its operators.
    """
    import onnx

    model = onnx.load(source)
    _set_batch_size(model.graph, batch_size)
    # A given file may leave its class axis unnamed, and nobody here infers the shapes.
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = tensors["classes"]
    onnx.save(model, output)
    return check_onnx(output, tensors, batch_size, SimplifyError)


def _set_batch_size(graph: Any, batch_size: int | None) -> None:
    for value in (*graph.input, *graph.output):
        axis = value.type.tensor_type.shape.dim[0]
        if batch_size is None:
            axis.dim_param = "N"
        else:
            axis.dim_value = batch_size
    del graph.value_info[:]  # shapes between them, of another batch axis


def simplify_onnx(
    *, source: str, tensors: Tensors, batch_size: int | None, output: str, dynamic: bool = False
) -> dict[str, Any]:
    """Simplify at one fixed batch size (a model simplified at one cannot be used at another), or,
    with None, with the batch axis left open, as `N`.

    `dynamic`: with the batch axis left open, and fixed after that: only the tensors' shapes say
    which batch size the file is for.

    Raises `SimplifyError`: onnxsim failed, or the result computes something else.
    """
    import numpy as np
    import onnx
    import onnxsim

    input_name, side = tensors["input_name"], tensors["size"]
    opened, what = dynamic or batch_size is None, f"at batch size {batch_size or 'N'}"
    try:
        model, same = onnxsim.simplify(
            onnx.load(source),
            overwrite_input_shapes={input_name: [-1 if opened else batch_size, 3, side, side]},
        )
        if opened:
            _set_batch_size(model.graph, batch_size)
    except Exception as error:
        raise SimplifyError(
            f"onnxsim failed {what}: {first_line(error)}",
            remedy="check that the ONNX file's input has a dynamic or equal batch axis",
        ) from error
    if not same:
        raise SimplifyError(f"onnxsim's own check failed {what}")
    onnx.save(model, output)
    description = check_onnx(output, tensors, batch_size, SimplifyError)
    # Of an open axis with two images: a size that was fixed on the way is that of the one traced.
    probe = np.random.default_rng(21).standard_normal((batch_size or 2, 3, side, side), np.float32)
    difference = require_same(
        run_onnx(output, input_name, probe),
        run_onnx(source, input_name, probe),
        SimplifyError,
        "the simplified model computes something else",
    )
    return {**description, "relative_l2": difference}
