"""ONNX files: what each must be, what it computes, how far two results differ.

Used in child processes: onnx and ONNX Runtime are imported where they are called.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from harness.base.errors import ConfigError, ExportError, HarnessError, SimplifyError
from harness.base.files import is_lfs_pointer
from harness.base.text import first_line

OPSET = 11  # of the guides' scripts, for what is exported here
FILE = "model.onnx"
FOREIGN = "foreign.json"  # beside a given file: its operators that ONNX does not have
# Export changes no arithmetic: float32 of two runtimes differs by rounding alone. Guide models
# measured 7e-8 to 3e-5 in the largest element; a wrong operator is orders above.
MAX_RELATIVE_L2 = 1e-4

Wrong = ConfigError | ExportError | SimplifyError


class Tensors(TypedDict):
    """A model's input `float32[N, 3, size, size]` and its output `float32[N, classes]`."""

    input_name: str
    output_name: str
    size: int
    classes: int


def check_given(
    *, given: str, path: str, tensors: Tensors, opsets: tuple[int, int]
) -> dict[str, Any]:
    """Check the copy in `path` of the ONNX file that a user brought by the option `given`; write
    `FOREIGN` beside it where the host cannot run it.
    Raises `ConfigError`: naming what is wrong with it.
    """
    try:
        description = check_onnx(path, tensors, None, ConfigError, opsets)
    except ConfigError as error:
        raise ConfigError(f"{given}: {error.message}", remedy=error.remedy) from error
    if description["foreign"]:
        file = Path(path).with_name(FOREIGN)
        file.write_text(json.dumps(description["foreign"]), encoding="utf-8")
    return description


def check_onnx(
    path: str,
    tensors: Tensors,
    batch_size: int | None,
    error: type[Wrong] = ExportError,
    opsets: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Check an ONNX file's validity and tensors; return what it is. `foreign`: operators that only
    a target's compiler knows, as AscendQuant in what AMCT deploys.

    `opsets`: the first and the last that a compiler takes; None where the file is of our making.

    Raises `ConfigError`, `ExportError`, `SimplifyError`: naming what is wrong with it.
    """
    import onnx
    import onnx.external_data_helper

    try:
        if is_lfs_pointer(Path(path)):
            raise error("it is a Git LFS pointer, not the file itself", remedy="git lfs pull")
        model = onnx.load(path, load_external_data=False)
        external = onnx.external_data_helper.uses_external_data
        if any(external(tensor) for tensor in model.graph.initializer):
            raise error(
                "the ONNX file keeps its weights in other files",
                remedy="embed them: onnx.save(onnx.load('model.onnx'), 'embedded.onnx')",
            )
        foreign = sorted(
            {
                node.op_type
                for node in model.graph.node
                if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type)
            }
        )
        if not foreign:  # whose inputs and outputs nobody here knows
            onnx.checker.check_model(model)
    except HarnessError:
        raise
    except Exception as problem:
        raise error(f"not a valid ONNX file: {first_line(problem)}") from problem
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opsets is not None and not opsets[0] <= opset <= opsets[1]:
        raise error(
            f"it has opset {opset}, the target's compiler takes {opsets[0]} to {opsets[1]}",
            remedy=f"export with opset_version={OPSET}",
        )
    weights = {w.name for w in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    for role, values, name, shape in (
        ("input", inputs, tensors["input_name"], (3, tensors["size"], tensors["size"])),
        ("output", model.graph.output, tensors["output_name"], (tensors["classes"],)),
    ):
        _check_tensor(role, values, name, shape, batch_size, error)
    return {"opset": opset, "nodes": len(model.graph.node), "foreign": foreign}


def _check_tensor(
    role: str,
    found: Sequence[Any],
    name: str,
    shape: tuple[int, ...],
    batch_size: int | None,
    error: type[Wrong],
) -> None:
    """Check that the graph has this tensor alone; `shape` is without the batch axis."""
    import onnx

    names = [value.name for value in found]
    if names != [name]:
        raise error(
            f"{role}s of the ONNX file are {names}, the catalog says [{name!r}]",
            remedy=f"export it with {role}_names=[{name!r}], or give the model another name of "
            f"its {role} in a catalog of your own",
        )
    tensor = found[0].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise error(
            f"{role} {name!r} is {kind}, not float32",
            remedy="export it in float32: the target's compiler chooses the precision",
        )
    expected: list[int | None] = [batch_size, *shape]
    # A network may leave its class axis unnamed in the graph; a session checks it.
    fits = dims == expected or (
        batch_size is None
        and len(dims) == len(expected)
        and all(d is None or d == e for d, e in zip(dims[1:], shape, strict=True))
    )
    if fits and batch_size is None and role == "input" and (dims[0] or 0) > 0:
        raise error(
            f"input {name!r} has the fixed batch size {dims[0]}",
            remedy="export it with a dynamic batch axis: each batch size is compiled from one file",
        )
    if not fits:
        raise error(f"{role} {name!r} has shape {dims}, it must be {expected}")


def run_onnx(path: str, input_name: str, images: Any) -> Any:
    """Return the outputs of an ONNX file for `float32[N, 3, S, S]`, by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # a few images
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {input_name: images})[0]


def require_same(
    outputs: Any, expected: Any, error: type[Wrong], what: str, remedy: str = ""
) -> float:
    """Return |outputs - expected| / |expected|.
    Raises `ExportError`, `SimplifyError`: it is above what rounding can do, or the shapes differ.
    """
    import numpy as np

    difference = float("inf")
    if outputs.shape == expected.shape:
        norm = float(np.linalg.norm(expected.astype(np.float64)))
        delta = float(np.linalg.norm(outputs.astype(np.float64) - expected.astype(np.float64)))
        difference = delta / norm if norm else delta
    if not difference <= MAX_RELATIVE_L2:
        raise error(
            f"{what}: relative L2 of the outputs {difference:.2e}, allowed {MAX_RELATIVE_L2:.0e}",
            remedy=remedy,
        )
    return difference
