"""AIPP as the simulated atc compiles it in: pixels, as they lie, are normalised by the model.

Static, RGB888_U8, without crop, resize or another colour space. A pixel of channel i, counted after
`rbuv_swap_switch`, becomes `(pixel - mean_chn_i - min_chn_i) * var_reci_chn_i`. Known of the real
one: the file's form and keys, this formula, and that the model's input is `uint8[N, H, W, C]` then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ONLY: Mapping[str, tuple[str, ...]] = {  # what is simulated of each key
    "aipp_mode": ("static",),
    "input_format": ("RGB888_U8",),
    "related_input_rank": ("0",),
    "crop": ("false",),
    "csc_switch": ("false",),
    "resize": ("false",),
    "padding": ("false",),
    "rbuv_swap_switch": ("false", "true"),
}
_SIZES = ("src_image_size_w", "src_image_size_h")
_NUMBERS = {"mean_chn": r"\d{1,3}", "min_chn": r"[0-9.]+", "var_reci_chn": r"[0-9.e-]+"}


@dataclass(frozen=True)
class Aipp:
    """What a file asks for; `swapped`: the first and the last channel change places first."""

    side: tuple[int, int] | None  # width, height; None: the model's
    swapped: bool
    subtracted: tuple[float, float, float]
    scale: tuple[float, float, float]


def parse(text: str) -> Aipp:
    """Parse a file of `--insert_op_conf`. Raises `ValueError`: what is wrong with it, or not
    simulated.
    """
    whole = re.fullmatch(r"\s*aipp_op\s*\{(.*)\}\s*", text, re.DOTALL)
    pairs = re.findall(r"(\w+)\s*:\s*(\S+)", whole[1]) if whole else []
    if whole is None or re.sub(r"\w+\s*:\s*\S+", "", whole[1]).strip():
        raise ValueError("it must be aipp_op { key: value ... }")
    given = dict(pairs)
    for name, value in pairs:
        kind, _, channel = name.rpartition("_")
        number = kind in _NUMBERS and channel in ("0", "1", "2")
        if number and re.fullmatch(_NUMBERS[kind], value):
            continue
        if name in _SIZES and value.isdigit():
            continue
        if value not in _ONLY.get(name, ()):
            raise ValueError(f"{name}: {value} is unknown or not simulated")
    for name in ("aipp_mode", "input_format"):
        if name not in given:
            raise ValueError(f"{name} is required")

    def channels(kind: str, default: float) -> tuple[float, float, float]:
        one, two, three = (float(given.get(f"{kind}_{i}", default)) for i in range(3))
        return one, two, three

    sizes = [int(given[name]) for name in _SIZES if name in given]
    means, least = channels("mean_chn", 0.0), channels("min_chn", 0.0)
    return Aipp(
        (sizes[0], sizes[1]) if len(sizes) == 2 else None,
        given.get("rbuv_swap_switch") == "true",
        (means[0] + least[0], means[1] + least[1], means[2] + least[2]),
        channels("var_reci_chn", 1.0),
    )


def insert(model: Any, aipp: Aipp) -> tuple[int, ...]:
    """Put it before the first operator of an ONNX model with one input `float32[N, 3, H, W]`, which
    becomes the `uint8[N, H, W, 3]` of the shape that is returned. Raises `ValueError`: it is for
    another input.
    """
    import numpy as np
    import onnx

    graph, helper = model.graph, onnx.helper
    weights = {weight.name for weight in graph.initializer}
    (value,) = (value for value in graph.input if value.name not in weights)
    sides = value.type.tensor_type.shape.dim
    batch, channels, height, width = (side.dim_value for side in sides)
    if channels != 3 or aipp.side not in (None, (width, height)):
        raise ValueError(f"src_image_size: the model's input is {channels} x {height} x {width}")
    name, inner = value.name, f"{value.name}_aipp"
    for node in graph.node:
        node.input[:] = [inner if one == name else one for one in node.input]
    order = [2, 1, 0] if aipp.swapped else [0, 1, 2]
    for key, array in (
        ("order", np.array(order, np.int64)),
        ("subtracted", np.array(aipp.subtracted, np.float32)),
        ("scale", np.array(aipp.scale, np.float32)),
    ):
        graph.initializer.append(onnx.numpy_helper.from_array(array, f"{inner}_{key}"))
    names = [f"{inner}_{number}" for number in range(4)]
    steps = [
        helper.make_node("Cast", [name], [names[0]], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [names[0], f"{inner}_order"], [names[1]], axis=3),
        helper.make_node("Sub", [names[1], f"{inner}_subtracted"], [names[2]]),
        helper.make_node("Mul", [names[2], f"{inner}_scale"], [names[3]]),
        helper.make_node("Transpose", [names[3]], [inner], perm=[0, 3, 1, 2]),
    ]
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    shape = (batch, height, width, channels)
    value.CopyFrom(helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, shape))
    return shape
