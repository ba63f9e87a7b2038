"""Small ONNX files for tests, from their text; onnx is imported when one is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write(path: Path, text: str, **constants: Any) -> Path:
    """Write a model: `text` is a graph as `onnx.parser` reads it, `constants` are its float32."""
    import onnx

    model = onnx.parser.parse_model(f'<ir_version: 6, opset_import: ["": 11]>{text}')
    for name, value in constants.items():
        array = np.asarray(value, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, str(path))
    return path
