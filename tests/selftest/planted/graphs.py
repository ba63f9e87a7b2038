"""Small ONNX files for the rows: made without torch, or altered from one that is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.selftest import onnx_files


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
    size, kept = batch or "N", 10 if half else 11  # the types FLOAT16 and DOUBLE
    text = f"""
        small (float[{size}, 3, {side}, {side}] image) => (float[{size}, {classes}] class) {{
            pooled = GlobalAveragePool(image)
            flat = Flatten(pooled)
            large = Mul(flat, up)
            larger = Mul(large, up)
            kept = Cast <to = {kept}> (larger)
            again = Cast <to = 1> (kept)
            less = Mul(again, down)
            back = Mul(less, down)
            class = MatMul(back, matrix)
        }}"""
    matrix = np.random.default_rng(seed).standard_normal((3, classes))
    return onnx_files.write(path, text, matrix=matrix, up=[gain**0.5], down=[gain**-0.5])


def convolution_onnx(path: Path, *, channels: int, dead: int = 0) -> Path:
    """A convolution's `channels`, ReLU, their means: `float32[4, 3, 64, 64]` -> `[4, channels]`.

    `dead`: channels of another convolution, which is computed, multiplied by zero and added.
    """
    constants: dict[str, Any] = {}

    def means(name: str, count: int) -> str:
        random = np.random.default_rng(count)
        constants[f"{name}_kernel"] = random.standard_normal((count, 3, 5, 5), np.float32)
        return f"""
            {name}_sums = Conv(image, {name}_kernel)
            {name}_maps = Relu({name}_sums)
            {name} = ReduceMean <axes = [2, 3], keepdims = 0> ({name}_maps)"""

    if not dead:
        nodes = means("class", channels)
    else:
        constants["zero"] = [0.0]
        nodes = f"""{means("live", channels)}{means("dead", dead)}
            mean = ReduceMean <axes = [1], keepdims = 1> (dead)
            nothing = Mul(mean, zero)
            class = Add(live, nothing)"""
    text = f"convolution (float[4, 3, 64, 64] image) => (float[4, {channels}] class) {{{nodes}}}"
    return onnx_files.write(path, text, **constants)


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
