"""An ONNX model whose arithmetic is rounded to float16, as atc's default precision does."""

from __future__ import annotations

from typing import Any


def through_float16(model: Any) -> Any:
    """The model with float16 weights and operators; inputs and outputs stay as they were."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)
