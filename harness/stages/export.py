"""Checkpoint -> ONNX -> simplified ONNX: the two stages before a target's compiler.

Each function here is a job (`harness.base.jobs`): it runs in a child process with a deadline.
Opset 11, names and the dynamic batch axis are those of the guides' `*_pth2onnx.py` scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import ExportError, HarnessError, SimplifyError

OPSET = 11
# Export changes no arithmetic: float32 of two runtimes differs by rounding alone. Guide models
# measured 7e-8 to 3e-5 in the largest element; a wrong operator is orders above.
MAX_RELATIVE_L2 = 1e-4


def export_onnx(
    *,
    network: str,
    arguments: Mapping[str, Any],
    checkpoint: str,
    layout: str,
    trust: bool,
    input_name: str,
    output_name: str,
    size: int,
    classes: int,
    output: str,
) -> dict[str, Any]:
    """Load a checkpoint strictly, export it and check the ONNX file against eager PyTorch.

    Writes `output`: one input `float32[N, 3, size, size]`, one output `float32[N, classes]`.

    Raises:
        CheckpointError: weights that are not the network's.
        ExportError: the export failed, or the file is not what it must be.
    """
    from harness.networks import library, weights

    torch = library.import_torch()
    module = library.build_network(network, arguments)
    state = weights.load_state(Path(checkpoint), layout, allow_unsafe=trust)
    weights.load_into(module, state, name=network)
    module.eval()
    # Tracing runs the network once; one image suffices, the batch axis is declared dynamic.
    example = torch.zeros(1, 3, size, size)
    try:
        torch.onnx.export(
            module,
            (example,),
            output,
            dynamo=False,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_axes={input_name: {0: "-1"}, output_name: {0: "-1"}},
        )
    except Exception as error:
        raise ExportError(f"torch.onnx.export failed: {_first_line(error)}") from error
    description = check_onnx(output, input_name, output_name, size, classes, batch_size=None)
    generator = torch.Generator().manual_seed(20)
    probe = torch.randn(2, 3, size, size, generator=generator)
    with torch.inference_mode():
        eager = module(probe).numpy()
    difference = _difference(_run(output, input_name, probe.numpy()), eager)
    if not difference <= MAX_RELATIVE_L2:
        raise ExportError(
            f"the ONNX file computes something else than eager PyTorch: relative L2 of the "
            f"outputs {difference:.2e}, allowed {MAX_RELATIVE_L2:.0e}",
            remedy="an operator was exported wrongly; compare operator by operator",
        )
    return {**description, "relative_l2": difference}


def simplify_onnx(
    *,
    source: str,
    input_name: str,
    output_name: str,
    size: int,
    classes: int,
    batch_size: int,
    output: str,
) -> dict[str, Any]:
    """Simplify at one fixed batch size (a model simplified at one cannot be used at another).

    Raises:
        SimplifyError: onnxsim failed, or the result computes something else.
    """
    import numpy as np
    import onnx
    import onnxsim

    try:
        model, same = onnxsim.simplify(
            onnx.load(source),
            overwrite_input_shapes={input_name: [batch_size, 3, size, size]},
        )
    except Exception as error:
        raise SimplifyError(
            f"onnxsim failed at batch size {batch_size}: {_first_line(error)}",
            remedy="check that the ONNX file's input has a dynamic or equal batch axis",
        ) from error
    if not same:
        raise SimplifyError(f"onnxsim's own check failed at batch size {batch_size}")
    onnx.save(model, output)
    description = check_onnx(
        output, input_name, output_name, size, classes, batch_size, error=SimplifyError
    )
    probe = np.random.default_rng(21).standard_normal((batch_size, 3, size, size), np.float32)
    difference = _difference(_run(output, input_name, probe), _run(source, input_name, probe))
    if not difference <= MAX_RELATIVE_L2:
        raise SimplifyError(
            f"the simplified model computes something else: relative L2 {difference:.2e}, "
            f"allowed {MAX_RELATIVE_L2:.0e}"
        )
    return {**description, "relative_l2": difference}


def check_onnx(
    path: str,
    input_name: str,
    output_name: str,
    size: int,
    classes: int,
    batch_size: int | None,
    *,
    error: type[ExportError] | type[SimplifyError] = ExportError,
) -> dict[str, Any]:
    """Check an ONNX file's validity, opset and tensors; also for a file that a user brought.

    Raises:
        ExportError or SimplifyError: naming what is wrong with it.
    """
    import onnx
    import onnx.external_data_helper

    try:
        model = onnx.load(path, load_external_data=False)
        external = onnx.external_data_helper.uses_external_data
        if any(external(tensor) for tensor in model.graph.initializer):
            raise error(
                "the ONNX file keeps its weights in other files",
                remedy="embed them: onnx.save(onnx.load('model.onnx'), 'embedded.onnx')",
            )
        onnx.checker.check_model(model)
    except HarnessError:
        raise
    except Exception as problem:
        raise error(f"not a valid ONNX file: {_first_line(problem)}") from problem
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset != OPSET:
        raise error(
            f"the ONNX file has opset {opset}, the toolchain takes {OPSET}",
            remedy=f"export with opset_version={OPSET}",
        )
    weights = {w.name for w in model.graph.initializer}
    for role, wanted, found, shape in (
        (
            "input",
            input_name,
            [i for i in model.graph.input if i.name not in weights],
            (3, size, size),
        ),
        ("output", output_name, list(model.graph.output), (classes,)),
    ):
        names = [value.name for value in found]
        if names != [wanted]:
            raise error(f"{role}s of the ONNX file are {names}, the catalog says [{wanted!r}]")
        tensor = found[0].type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            raise error(f"{role} {wanted!r} is not float32")
        if batch_size is not None:
            expected: Sequence[int | None] = (batch_size, *shape)
            fits = dims == list(expected)
        else:
            expected = (None, *shape)
            # A network may leave its class axis unnamed in the graph; a session checks it.
            fits = len(dims) == len(expected) and all(
                d is None or d == e for d, e in zip(dims[1:], shape, strict=True)
            )
            if fits and role == "input" and (dims[0] or 0) > 0:
                raise error(
                    f"input {wanted!r} has the fixed batch size {dims[0]}",
                    remedy="export it with a dynamic batch axis: each batch size is compiled "
                    "from one file",
                )
        if not fits:
            raise error(f"{role} {wanted!r} has shape {dims}, it must be {list(expected)}")
    return {"opset": opset, "nodes": len(model.graph.node)}


def _run(path: str, input_name: str, images: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {input_name: images})[0]


def _difference(found: Any, expected: Any) -> float:
    import numpy as np

    if found.shape != expected.shape:
        return float("inf")
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    delta = float(np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64)))
    return delta / norm if norm else delta


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
