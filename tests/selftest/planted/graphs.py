"""Small ONNX files for the rows: made without torch, or altered from one that is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def small_onnx(
    path: Path,
    *,
    batch: int | None,
    side: int,
    classes: int,
    seed: int = 0,
    gain: float = 1.0,
    half: bool = False,
) -> Path:
    """The mean of each channel times a matrix: `float32[B, 3, side, side]` -> `[B, classes]`.

    `gain`: what the means are multiplied with on the way, and divided by again; `half`: kept as
    float16 in between.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: Any) -> Any:
        return numpy_helper.from_array(np.asarray(value, np.float32), name)

    kept = TensorProto.FLOAT16 if half else TensorProto.DOUBLE
    matrix = np.random.default_rng(seed).standard_normal((3, classes))
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Mul", ["flat", "up"], ["large"]),
            helper.make_node("Mul", ["large", "up"], ["larger"]),
            helper.make_node("Cast", ["larger"], ["kept"], to=kept),
            helper.make_node("Cast", ["kept"], ["again"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["again", "down"], ["less"]),
            helper.make_node("Mul", ["less", "down"], ["back"]),
            helper.make_node("MatMul", ["back", "matrix"], ["class"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("class", TensorProto.FLOAT, [batch, classes])],
        [
            constant("matrix", matrix),
            constant("up", [gain**0.5]),
            constant("down", [gain**-0.5]),
        ],
    )
    opset = helper.make_opsetid("", 11)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=6), str(path))
    return path


def convolution_onnx(path: Path, *, channels: int, dead: int = 0) -> Path:
    """A convolution's `channels`, ReLU, their means: `float32[4, 3, 64, 64]` -> `[4, channels]`.

    `dead`: channels of another convolution, which is computed, multiplied by zero and added.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def means(name: str, count: int) -> list[Any]:
        kernel = np.random.default_rng(count).standard_normal((count, 3, 5, 5), np.float32)
        constants.append(numpy_helper.from_array(kernel, f"{name} kernel"))
        return [
            helper.make_node("Conv", ["image", f"{name} kernel"], [f"{name} sums"]),
            helper.make_node("Relu", [f"{name} sums"], [f"{name} maps"]),
            helper.make_node("ReduceMean", [f"{name} maps"], [name], axes=[2, 3], keepdims=0),
        ]

    constants: list[Any] = []
    if not dead:
        nodes = means("class", channels)
    else:
        constants.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
        nodes = [
            *means("live", channels),
            *means("dead", dead),
            helper.make_node("ReduceMean", ["dead"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["live", "nothing"], ["class"]),
        ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [4, 3, 64, 64])],
        [helper.make_tensor_value_info("class", TensorProto.FLOAT, [4, channels])],
        constants,
    )
    opset = helper.make_opsetid("", 11)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=6), str(path))
    return path


def perturb(model: Any) -> None:
    """One filter of the first convolution's weights disturbed, in place."""
    from onnx import numpy_helper

    tensor = next(one for one in model.graph.initializer if len(one.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values[0] += 3.0 * values[0].std()
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def swap_channels(model: Any) -> None:
    """The first convolution's weights in BGR order, in place."""
    from onnx import numpy_helper

    tensor = next(one for one in model.graph.initializer if len(one.dims) == 4)
    values = numpy_helper.to_array(tensor)[:, ::-1]
    tensor.CopyFrom(numpy_helper.from_array(values.copy(), tensor.name))


def exchange(model: Any) -> None:
    """Two convolutions of equal shape under each other's names, in place."""
    seen: dict[tuple[int, ...], Any] = {}
    for tensor in model.graph.initializer:
        shape = tuple(tensor.dims)
        if len(shape) == 4 and shape in seen:
            tensor.name, seen[shape].name = seen[shape].name, tensor.name
            return
        seen[shape] = tensor
    raise AssertionError("no pair of equal shape")


def rewritten(source: Path, target: Path, change: Callable[[Any], None] | None) -> Path:
    """The same ONNX file written again, changed or not."""
    import onnx

    model = onnx.load(str(source))
    if change is not None:
        change(model)
    onnx.save(model, str(target))
    return target
